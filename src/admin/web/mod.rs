//! The same over HTTP: JSON for programs, and a page for people. A route stands for words of the admin port, and what those
//! answer is what it answers.
//!
//! ```text
//!  body     JSON to words                     (pure)
//!  reply    answers and errors to JSON
//!  events   a job's progress, as it happens
//!  page     the page, and what it may do
//! ```
//! Whoever reaches the listener may look. Who changes something gives the administrators' password as a bearer token, and
//! where there is none nobody can: else any page that somebody's browser shows could.

mod body;
mod events;
mod page;
mod reply;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};

use super::answer::Answer;
use super::cluster::Depth;
use super::complaint::Complaint;
use super::jobs::{self, Begun};
use super::words::same;
use super::{Admin, cluster, every, proxy};
use body::{Fields, Shape};
use reply::{accepted, found, planned, waited};

type App = State<Arc<Admin>>;
type Reply = Result<Response, Complaint>;

/// What describes the routes for programs: `OpenAPI` 3.1.
const DOCUMENT: &str = include_str!("openapi.json");

/// Longest `Idempotency-Key`, in bytes.
const TOKEN: usize = 128;

type Route = (&'static str, fn() -> MethodRouter<Arc<Admin>>);

/// Paths, and who answers there.
const ROUTES: &[Route] = &[
    ("/v1/openapi.json", || get(document)),
    ("/v1/proxy", || get(of_proxy)),
    ("/v1/cluster", || get(map).post(create)),
    ("/v1/cluster/check", || get(check)),
    ("/v1/cluster/nodes", || get(nodes).post(add_node)),
    ("/v1/cluster/nodes/{id}", || delete(remove_node)),
    ("/v1/cluster/reshard", || post(reshard)),
    ("/v1/cluster/rebalance", || post(rebalance)),
    ("/v1/cluster/failover", || post(failover)),
    ("/v1/cluster/fix", || post(fix)),
    ("/v1/cluster/import", || post(import)),
    ("/v1/cluster/backup", || post(backup)),
    ("/v1/cluster/config/node-timeout", || put(node_timeout)),
    ("/v1/jobs", || get(list)),
    ("/v1/jobs/{id}", || get(job).patch(set_rate)),
    ("/v1/jobs/{id}/log", || get(log)),
    ("/v1/jobs/{id}/plan", || get(plan)),
    ("/v1/jobs/{id}/events", || get(events::of_job)),
    ("/v1/jobs/{id}/cancel", || post(cancel)),
    ("/v1/jobs/{id}/pause", || post(pause)),
    ("/v1/jobs/{id}/resume", || post(resume)),
];

/// All routes, and the page.
pub fn router(admin: Arc<Admin>) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, (path, route)| {
        router.route(path, route().fallback(no_method))
    });
    routes
        .route("/", get(page::page))
        .route("/v1/{*path}", axum::routing::any(nowhere))
        .layer(from_fn_with_state(Arc::clone(&admin), guard))
        .with_state(admin)
}

/// Lets those through who only look, and those who know the password; of what the latter did a line is logged.
async fn guard(State(admin): App, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Err(complaint) = admit(&admin, request.headers()) {
        tracing::warn!(%method, path, %complaint, "an administrator was refused");
        return complaint.into_response();
    }
    let answer = next.run(request).await;
    tracing::info!(%method, path, status = answer.status().as_u16(), "an administrator's request");
    answer
}

fn admit(admin: &Admin, headers: &HeaderMap) -> Result<(), Complaint> {
    let rights = admin.rights.load();
    let Some(password) = &rights.password else {
        let text = "the cluster can be changed over HTTP once admin.password is set";
        return Err(Complaint::NoPermission(text.into()));
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|text| text.strip_prefix("Bearer "));
    if token.is_some_and(|token| same(password, token)) {
        return Ok(());
    }
    Err(Complaint::NoToken("give the administrators' password as a bearer token".into()))
}

async fn no_method() -> Complaint {
    Complaint::NoMethod("see /v1/openapi.json for what can be done here".into())
}

async fn nowhere() -> Complaint {
    Complaint::NotFound("there is no such path: see /v1/openapi.json".into())
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

/// Also whether the one who asks may change something, so that nobody has to try.
async fn of_proxy(State(admin): App, headers: HeaderMap) -> Response {
    let mut answer = proxy::all(&admin);
    let changes = match admit(&admin, &headers) {
        Ok(()) => "open",
        Err(Complaint::NoPermission(_)) => "off",
        Err(complaint) => {
            if headers.contains_key(header::AUTHORIZATION) {
                tracing::warn!(%complaint, "an administrator's password is wrong");
            }
            "locked"
        }
    };
    if let Answer::Map(fields) = &mut answer {
        fields.push(("changes".to_owned(), changes.into()));
    }
    found(&answer)
}

async fn map(State(admin): App) -> Response {
    found(&cluster::map(&admin))
}

/// `?deep=1` also looks where keys are.
async fn check(State(admin): App, uri: Uri) -> Reply {
    let mut query = query(&uri)?;
    let depth = if is_set(&mut query, "deep")? { Depth::Keys } else { Depth::Said };
    body::nothing(&query)?;
    Ok(Json(cluster::details(&cluster::check_all(&admin, depth).await?)).into_response())
}

async fn nodes(State(admin): App) -> Reply {
    Ok(found(&cluster::members(&admin).await?))
}

async fn list(State(admin): App) -> Reply {
    Ok(found(&jobs::answer(&admin, &["LIST"])?))
}

async fn job(State(admin): App, Id(id): Id) -> Reply {
    Ok(found(&jobs::answer(&admin, &["STATUS", "ID", &id])?))
}

async fn log(State(admin): App, Id(id): Id) -> Reply {
    Ok(found(&jobs::answer(&admin, &["LOG", "ID", &id])?))
}

async fn plan(State(admin): App, Id(id): Id) -> Reply {
    Ok(found(&jobs::answer(&admin, &["PLAN", "ID", &id])?))
}

/// Tells a job something, and answers how it is then.
async fn tell(State(admin): App, id: &str, words: &[&str]) -> Reply {
    jobs::answer(&admin, words)?;
    job(State(admin), Id(id.to_owned())).await
}

/// `?now=1` leaves slots open that are on their way.
async fn cancel(app: App, Id(id): Id, uri: Uri) -> Reply {
    let mut query = query(&uri)?;
    let words: &[&str] = &["CANCEL", "ID", &id, "NOW"];
    let words = if is_set(&mut query, "now")? { words } else { &words[..3] };
    body::nothing(&query)?;
    tell(app, &id, words).await
}

async fn pause(app: App, Id(id): Id) -> Reply {
    tell(app, &id, &["PAUSE", "ID", &id]).await
}

/// Of a job that was cut off another one goes on with what is left: that is answered.
async fn resume(State(admin): App, Id(id): Id) -> Reply {
    let answer = jobs::answer(&admin, &["RESUME", "ID", &id])?;
    let job = jobs::find(&admin, answer.text().unwrap_or(&id))?;
    Ok(accepted(&job))
}

async fn set_rate(app: App, Id(id): Id, body: Bytes) -> Reply {
    let pace = body::pace(&body)?;
    let words = ["SETRATE", "ID", &id].into_iter().chain(pace.iter().map(String::as_str));
    tell(app, &id, &words.collect::<Vec<_>>()).await
}

async fn add_node(order: Order) -> Reply {
    order.begin(&["ADDNODE"], body::ADD_NODE).await
}

async fn reshard(order: Order) -> Reply {
    order.begin(&["RESHARD"], body::RESHARD).await
}

async fn rebalance(order: Order) -> Reply {
    order.begin(&["REBALANCE"], body::REBALANCE).await
}

async fn failover(order: Order) -> Reply {
    order.begin(&["FAILOVER"], body::FAILOVER).await
}

async fn fix(order: Order) -> Reply {
    order.begin(&["FIX"], body::FIX).await
}

async fn import(order: Order) -> Reply {
    order.begin(&["IMPORT"], body::IMPORT).await
}

async fn backup(order: Order) -> Reply {
    order.begin(&["BACKUP"], body::BACKUP).await
}

async fn node_timeout(State(admin): App, body: Bytes) -> Reply {
    Ok(found(&every::set_timeout(&admin, &body::only("ms", &body)?).await?))
}

async fn create(order: Order) -> Reply {
    order.begin(&["CREATE"], body::CREATE).await
}

async fn remove_node(Id(id): Id, order: Order) -> Reply {
    order.begin(&["DELNODE", &id], body::REMOVE_NODE).await
}

/// A name in a path.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Complaint;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Complaint> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Complaint::BadArg("a name is not UTF-8".into()))
    }
}

/// What an URI says behind its path.
fn query(uri: &Uri) -> Result<BTreeMap<String, String>, Complaint> {
    let pairs = Query::<BTreeMap<String, String>>::try_from_uri(uri);
    pairs.map(|Query(pairs)| pairs).map_err(|error| Complaint::BadArg(error.to_string()))
}

fn is_set(query: &mut BTreeMap<String, String>, name: &str) -> Result<bool, Complaint> {
    match query.remove(name).as_deref() {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(Complaint::BadArg(format!("{name} is 0 or 1"))),
    }
}

/// What is ordered, before it is known what.
struct Order {
    admin: Arc<Admin>,
    /// Only the plan is wanted.
    is_dry: bool,
    /// By which the same order is known when it comes again.
    token: Option<String>,
    /// The plan that it has to be.
    if_plan: Option<String>,
    fields: Fields,
    query: BTreeMap<String, String>,
}

impl FromRequest<Arc<Admin>> for Order {
    type Rejection = Complaint;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, Complaint> {
        let mut query = query(request.uri())?;
        let is_dry = is_set(&mut query, "dry_run")?;
        let token = match request.headers().get("Idempotency-Key").map(HeaderValue::to_str) {
            None => None,
            Some(Ok(token)) if (1..=TOKEN).contains(&token.len()) => Some(token.to_owned()),
            Some(_) => {
                let text = "Idempotency-Key has 1 to 128 characters of ASCII";
                return Err(Complaint::BadArg(text.into()));
            }
        };
        let if_plan = request.headers().get(header::IF_MATCH).map(plan_of).transpose()?.flatten();
        let body = Bytes::from_request(request, admin).await;
        let body = body.map_err(|_| Complaint::BadArg("the body is too large".into()))?;
        let fields = body::object(&body)?;
        Ok(Self { admin: Arc::clone(admin), is_dry, token, if_plan, fields, query })
    }
}

/// The plan that `If-Match` names, which is an entity tag; none if any will do.
fn plan_of(value: &HeaderValue) -> Result<Option<String>, Complaint> {
    let tag = value.to_str().unwrap_or_default().trim();
    let hash = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    match hash {
        None if tag == "*" => Ok(None),
        Some(hash) if !hash.is_empty() => Ok(Some(hash.to_owned())),
        _ => Err(Complaint::BadArg("If-Match is * or a plan_hash in quotation marks".into())),
    }
}

impl Order {
    async fn begin(self, verb: &[&str], shape: &Shape) -> Reply {
        let said = body::words(shape, body::with_query(shape, self.fields, self.query)?)?;
        let token = self.token.as_deref().map(|token| ["JOBID", token]);
        let if_plan = self.if_plan.as_deref().map(|hash| ["IFPLAN", hash]);
        let words = verb.iter().copied().chain(said.iter().map(String::as_str));
        let words: Vec<&str> = words
            .chain([token, if_plan].into_iter().flatten().flatten())
            .chain(self.is_dry.then_some("DRYRUN"))
            .collect();
        match jobs::begin(&self.admin, &words).await? {
            Begun::Plan(plan) => Ok(planned(&plan)),
            Begun::Job(job, sync) => Ok(waited(&job, sync).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// That each of its methods is there, and no other, is seen by tests that send requests.
    #[test]
    fn the_document_has_all_paths() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let told: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        let mut served: Vec<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
        served.sort_unstable();
        assert_eq!(told, served);
    }
}
