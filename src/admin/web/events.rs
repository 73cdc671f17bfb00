//! How a job goes, as events of the server (`text/event-stream`): `status` whenever that has changed, and `end` with the
//! last one. Who was cut off says which one it had last (`Last-Event-ID`), and is told of the next.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::sleep;

use super::{App, Id};
use crate::admin::complaint::Complaint;
use crate::admin::job::Job;
use crate::admin::jobs;

/// Shortest time between two events: nobody reads faster.
const PAUSE: Duration = Duration::from_millis(200);

/// `GET /v1/jobs/{id}/events`.
pub(super) async fn of_job(
    State(admin): App,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Complaint> {
    let job = jobs::find(&admin, &id)?;
    let seen = headers.get("last-event-id").and_then(|seen| seen.to_str().ok());
    Ok(Sse::new(statuses(job, seen.and_then(|seen| seen.parse().ok())))
        .keep_alive(KeepAlive::default()))
}

/// One at once unless it has been seen, then one after each change, until the job is over.
fn statuses(job: Arc<Job>, seen: Option<u64>) -> impl Stream<Item = Result<Event, Infallible>> {
    let changes = job.changes();
    let is_known = seen == Some(job.version()) && !job.state().is_over();
    unfold(Some((job, changes, !is_known)), async |course| {
        let (job, mut changes, is_first) = course?;
        if !is_first {
            // The job lives as long as this does, and says when it changes.
            changes.changed().await.ok()?;
            sleep(PAUSE).await;
        }
        changes.mark_unchanged();
        let is_over = job.state().is_over();
        let name = if is_over { "end" } else { "status" };
        // A change that comes between the two is told of twice rather than not at all.
        let event = Event::default().id(job.version().to_string());
        let event = event.event(name).data(job.fields().json().to_string());
        Some((Ok(event), (!is_over).then_some((job, changes, false))))
    })
}
