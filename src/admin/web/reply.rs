//! Answers and errors as JSON.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::admin::answer::Answer;
use crate::admin::complaint::Complaint;
use crate::admin::job::Job;

/// What was asked for.
pub(super) fn found(answer: &Answer) -> Response {
    Json(answer.json()).into_response()
}

/// What would be done, by the name that `If-Match` takes.
pub(super) fn planned(plan: &Value) -> Response {
    let tag = format!("\"{}\"", plan["plan_hash"].as_str().unwrap_or_default());
    ([(header::ETAG, tag)], Json(plan)).into_response()
}

/// A job goes on by itself; how it is now, and where to look for it later.
pub(super) fn accepted(job: &Job) -> Response {
    let place = [(header::LOCATION, format!("/v1/jobs/{}", job.id))];
    (StatusCode::ACCEPTED, place, Json(job.fields().json())).into_response()
}

/// Longest that a request is held, however long its client wants to wait.
const LONGEST: Duration = Duration::from_secs(600);

/// How a job ended, if it does so in time; else that it goes on.
pub(super) async fn waited(job: &Job, limit: Option<Duration>) -> Response {
    match limit.map(|limit| limit.min(LONGEST)) {
        Some(limit) if timeout(limit, job.ended()).await.is_ok() => found(&job.fields()),
        _ => accepted(job),
    }
}

impl IntoResponse for Complaint {
    /// `{"error": "CODE", "message": "…", "details": {…}}`.
    fn into_response(self) -> Response {
        let text = self.to_string();
        let (code, message) = text.split_once(' ').unwrap_or((&text, ""));
        let code = if matches!(self, Self::Plain(_)) { "BADARG" } else { code };
        let details = match &self {
            Self::JobRunning(job) | Self::Timeout(job) => json!({ "job": job }),
            Self::NeedForce(flag, _) => json!({ "force": flag }),
            Self::OpenSlots(count, _) => json!({ "slots": count }),
            _ => json!({}),
        };
        let status = self.status();
        let body = Json(json!({ "error": code, "message": message, "details": details }));
        if status == StatusCode::UNAUTHORIZED {
            return (status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response();
        }
        (status, body).into_response()
    }
}

impl Complaint {
    fn status(&self) -> StatusCode {
        match self {
            Self::Plain(_) | Self::BadArg(_) => StatusCode::BAD_REQUEST,
            Self::NoToken(_) => StatusCode::UNAUTHORIZED,
            Self::NoPermission(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::NoMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::JobRunning(_)
            | Self::NotEmpty(_)
            | Self::OpenSlots(..)
            | Self::Disagree(_)
            | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Precondition(_) | Self::NeedForce(..) => StatusCode::PRECONDITION_FAILED,
            Self::NoAnswer(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // Nothing over HTTP says this: who waited long enough hears that the job goes on.
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        }
    }
}
