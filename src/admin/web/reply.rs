//! Answers and errors as JSON.

use std::sync::Arc;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::admin::answer::Answer;
use crate::admin::complaint::Complaint;
use crate::admin::{Admin, jobs};

/// What was asked for.
pub(super) fn found(answer: &Answer) -> Response {
    Json(answer.json()).into_response()
}

/// A job goes on by itself; how it is now, and where to look for it later.
pub(super) fn accepted(admin: &Arc<Admin>, id: &str) -> Result<Response, Complaint> {
    let status = jobs::answer(admin, &["STATUS", "ID", id])?;
    let place = [(header::LOCATION, format!("/v1/jobs/{id}"))];
    Ok((StatusCode::ACCEPTED, place, Json(status.json())).into_response())
}

impl IntoResponse for Complaint {
    /// `{"error": "CODE", "message": "…", "details": {…}}`.
    fn into_response(self) -> Response {
        let text = self.to_string();
        let (code, message) = text.split_once(' ').unwrap_or((&text, ""));
        let code = if matches!(self, Self::Plain(_)) { "BADARG" } else { code };
        let details = match &self {
            Self::JobRunning(job) => json!({ "job": job }),
            Self::NeedForce(flag) => json!({ "force": flag }),
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
            Self::Precondition(_) | Self::NeedForce(_) => StatusCode::PRECONDITION_FAILED,
            Self::NoAnswer(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        }
    }
}
