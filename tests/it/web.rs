//! The admin plane over HTTP: routes as the document has them, who may do what, and errors.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use slotway::proxy::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Rig, Setup, rig};

const PASSWORD: &str = "the word";
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A proxy that can be changed over HTTP.
fn open() -> Setup {
    shut().with(|options: &mut Options| options.admin_password = Some(PASSWORD.to_owned()))
}

/// Proxies so far, each of which has a folder of its own.
static PROXIES: AtomicUsize = AtomicUsize::new(0);

/// One that cannot, since nobody has said who may.
fn shut() -> Setup {
    rig(1).with(|options: &mut Options| {
        options.http = Some("127.0.0.1:0".to_owned());
        // Jobs of whoever runs the tests are none of theirs, nor are those of each other.
        let name =
            format!("slotway-{}-{}", std::process::id(), PROXIES.fetch_add(1, Ordering::Relaxed));
        options.state_folder = Some(std::env::temp_dir().join(name));
    })
}

/// An answer: status, headers, and what it says.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

async fn ask(rig: &Rig, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream =
        TcpStream::connect(rig.proxy().http.expect("it is served")).await.expect("it listens");
    let method = method.to_ascii_uppercase();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn token(password: &str) -> String {
    format!("Authorization: Bearer {password}\r\n")
}

#[test]
fn the_document_is_what_is_served() {
    open().run(async |rig| {
        let document = ask(rig, "get", "/v1/openapi.json", "", "").await.json();
        for (path, told) in document["paths"].as_object().expect("paths") {
            let told: BTreeSet<&str> =
                told.as_object().expect("methods").keys().map(String::as_str).collect();
            for method in METHODS {
                let path = path.replace("{id}", "x");
                let answer = ask(rig, method, &path, &token(PASSWORD), "").await;
                let is_served = answer.status != 405 && !answer.body.contains("no such path");
                assert_eq!(is_served, told.contains(method), "{method} {path}: {}", answer.body);
                if answer.status == 405 {
                    let allowed = answer.head.to_ascii_lowercase();
                    assert!(allowed.contains("allow: "), "{method} {path}: {allowed}");
                }
            }
        }
    });
}

#[test]
fn who_changes_something_gives_the_password() {
    open().run(async |rig| {
        for headers in ["", &token("another"), "Authorization: Basic eDp5\r\n"] {
            let answer = ask(rig, "post", "/v1/cluster/rebalance", headers, "").await;
            assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("NOAUTH")));
            assert!(answer.head.to_ascii_lowercase().contains("www-authenticate: bearer"));
        }
        let answer = ask(rig, "post", "/v1/cluster/reshard", &token(PASSWORD), "{}").await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("BADARG")));
        assert_eq!(ask(rig, "get", "/v1/jobs", "", "").await.json(), json!([]));
    });
    open().run(async |rig| {
        for (headers, changes) in
            [("", "locked"), (&*token("another"), "locked"), (&*token(PASSWORD), "open")]
        {
            let proxy = ask(rig, "get", "/v1/proxy", headers, "").await.json();
            assert_eq!(proxy["changes"], changes, "{headers}");
        }
    });
    shut().run(async |rig| {
        let answer = ask(rig, "delete", "/v1/cluster/nodes/x", &token(""), "").await;
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("NOPERM")));
        let proxy = ask(rig, "get", "/v1/proxy", &token(""), "").await.json();
        assert_eq!(proxy["changes"], "off");
    });
}

#[test]
fn what_is_wrong_is_told_in_one_shape() {
    open().run(async |rig| {
        let check = async |method: &str,
                           path: &str,
                           body: &str,
                           status: u16,
                           error: &str,
                           message: &str| {
            let answer = ask(rig, method, path, &token(PASSWORD), body).await;
            let said = answer.json();
            assert_eq!(answer.status, status, "{method} {path} {body}: {said}");
            assert_eq!(said, json!({ "error": error, "message": message, "details": {} }));
        };
        let nowhere = "there is no such path: see /v1/openapi.json";
        check("get", "/v1/nonsense", "", 404, "NOTFOUND", nowhere).await;
        check("get", "/v1/jobs/j-1", "", 404, "NOTFOUND", "there is no job j-1").await;
        check("get", "/v1/jobs/j-1/events", "", 404, "NOTFOUND", "there is no job j-1").await;
        check("get", "/v1/jobs/%ff", "", 400, "BADARG", "a name is not UTF-8").await;
        let no_field = "there is no field \"slot\" here";
        check("post", "/v1/cluster/rebalance", r#"{"slot":1}"#, 400, "BADARG", no_field).await;
        check("post", "/v1/cluster/rebalance?slot=1", "", 400, "BADARG", no_field).await;
        check("post", "/v1/jobs/j-1/cancel?slot=1", "", 400, "BADARG", no_field).await;
        let dry = "dry_run is 0 or 1";
        check("post", "/v1/cluster/rebalance?dry_run=yes", "", 400, "BADARG", dry).await;
        let deep = "deep is 0 or 1";
        check("get", "/v1/cluster/check?deep=x", "", 400, "BADARG", deep).await;
        let rate = "rate or max_block_ms is missing";
        check("patch", "/v1/jobs/j-1", "{}", 400, "BADARG", rate).await;
    });
}

#[test]
fn a_plan_is_named_by_its_hash_in_quotation_marks() {
    open().run(async |rig| {
        for tag in ["x", "\"\"", "W/\"x\""] {
            let headers = format!("{}If-Match: {tag}\r\n", token(PASSWORD));
            let answer = ask(rig, "post", "/v1/cluster/rebalance", &headers, "").await;
            let text = "If-Match is * or a plan_hash in quotation marks";
            assert_eq!((answer.status, &answer.json()["message"]), (400, &json!(text)), "{tag}");
        }
    });
}

#[test]
fn the_page_asks_nobody_else() {
    shut().run(async |rig| {
        let page = ask(rig, "get", "/", "", "").await;
        assert_eq!(page.status, 200);
        let head = page.head.to_ascii_lowercase();
        assert!(head.contains("content-type: text/html"), "{head}");
        let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
        let rules: Vec<&str> = policy.expect("a policy").split("; ").collect();
        for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"] {
            assert!(rules.contains(&rule), "{rules:?}");
        }
        for start in ["script-src 'sha256-", "style-src 'sha256-"] {
            let rule = rules.iter().find(|rule| rule.starts_with(start));
            // One hash and nothing else: that it is the right one is seen in a browser.
            assert!(rule.is_some_and(|rule| rule.split(' ').count() == 2), "{rules:?}");
        }
        for outside in ["http://", "https://", "src=\"//", "@import"] {
            let found = page.body.replace("http://www.w3.org/", "").contains(outside);
            assert!(!found, "{outside}");
        }
    });
}
