//! The page for people. What it may do is said with it: only the script and the style that it came with, which are known by
//! their hashes, and it speaks to nobody but this proxy. So a name that a server made up can never become a program.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const PAGE: &str = include_str!("page.html");

/// `GET /`.
pub(super) async fn page() -> impl IntoResponse {
    static POLICY: LazyLock<String> = LazyLock::new(policy);
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the proxy brings another page.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Html(PAGE))
}

/// The icon is the one image, and stands in the page.
fn policy() -> String {
    let (script, style) = (hash("script"), hash("style"));
    format!(
        "default-src 'none'; connect-src 'self'; img-src data:; script-src {script}; style-src {style}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Of what stands in the page's one element of this name, as policies have it.
fn hash(tag: &str) -> String {
    let text = PAGE.split_once(&format!("<{tag}")).and_then(|(_, rest)| rest.split_once('>'));
    let text = text.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    let (text, _) = text.expect("the page has one");
    format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_script_and_one_style_and_nothing_in_attributes() {
        for tag in ["<script", "<style"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", " style=\"", " onclick=\""]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
