//! `SORT` and `SORT_RO` with patterns that name keys: the elements come from the owner of the sorted key, their weights and
//! the values for the reply from the owners of all the others. The reads are many, so the result is no snapshot: what is
//! written meanwhile may be seen in part.
//!
//! ```text
//!   elements ─► weights, as BY says ─► order ─► values, as GET says ─► reply
//! ```

use bytes::Bytes;

use super::ask::{Asking, Question, Step, error, odd};
use super::errand::{Asked, Mission};
use crate::command::Nature;
use crate::command::sort::{Sort, Source};
use crate::resp::value::Value;
use crate::resp::write;

/// Most elements that are sorted. Redis sorts a million in about a second, in which it serves nobody else; so does a worker.
const ELEMENTS_MAX: usize = 1_000_000;
/// Questions under way at once: enough to keep all nodes busy, and few against what their lanes hold.
const WINDOW: usize = 1000;
const READ: Nature = Nature { reads: true, scripted: false, unit: false };

/// One sorting on its way.
struct Work<'a> {
    args: &'a [Bytes],
    asking: &'a mut Asking,
}

/// The whole command.
pub(super) async fn run(mission: &Mission) -> Asked {
    let mut asking = Asking::new(&mission.shared, "SORT with patterns");
    let sorted = match sorted(&mission.args, &mut asking).await {
        Ok(sorted) => sorted,
        Err(error) => return Ok(error),
    };
    let mut reply = Vec::new();
    write::array(&mut reply, sorted.len());
    for value in sorted {
        match value {
            Some(value) => write::bulk(&mut reply, value),
            None => write::nil(&mut reply, mission.protocol),
        }
    }
    Ok(reply.into())
}

/// What a request for sorting gives, which stores nothing.
pub(super) async fn sorted(args: &[Bytes], asking: &mut Asking) -> Step<Vec<Option<Bytes>>> {
    Work { args, asking }.run().await
}

impl Work<'_> {
    async fn run(&mut self) -> Step<Vec<Option<Bytes>>> {
        let sort = Sort::parse(self.args).map_err(error)?;
        let mut elements = self.elements(&sort).await?;
        let weights = match sort.weights(&elements) {
            Some(weights) => Some(self.values(weights).await?),
            None => None,
        };
        if let Some(weights) = weights {
            elements = sort.order(elements, weights).map_err(error)?;
        }
        self.values(sort.values(&elements)).await
    }

    async fn elements(&mut self, sort: &Sort) -> Step<Vec<Bytes>> {
        let asked = self.ask(&[sort.elements(self.args)]).await?;
        let elements = match asked.into_iter().next() {
            Some(Value::Array(elements)) => elements,
            Some(Value::Error(text)) => return Err(error(&text)),
            _ => return Err(odd()),
        };
        if elements.len() > ELEMENTS_MAX {
            return Err(error(&format!(
                "ERR proxy: SORT with patterns is limited to {ELEMENTS_MAX} elements"
            )));
        }
        elements.into_iter().map(|element| bulk(element)?.ok_or_else(odd)).collect()
    }

    /// Values from wherever they are.
    async fn values(&mut self, sources: impl Iterator<Item = Source>) -> Step<Vec<Option<Bytes>>> {
        let mut sources = sources.peekable();
        let mut values = Vec::new();
        while sources.peek().is_some() {
            let some: Vec<Source> = sources.by_ref().take(WINDOW).collect();
            let mut asked = self.ask(&some).await?.into_iter();
            for source in some {
                values.push(match source {
                    Source::Here(value) => value,
                    Source::At(..) => bulk(asked.next().ok_or_else(odd)?)?,
                });
            }
            // Elements may be their own values, a million times over, and others want to be served.
            tokio::task::yield_now().await;
        }
        Ok(values)
    }

    /// The replies to all that has to be asked for, in order.
    async fn ask(&mut self, sources: &[Source]) -> Step<Vec<Value>> {
        let questions = sources.iter().filter_map(|source| match source {
            Source::Here(_) => None,
            Source::At(slot, wire) => {
                let wire = Bytes::copy_from_slice(wire);
                Some(Question { slot: *slot, wire, nature: READ })
            }
        });
        self.asking.values(questions).await
    }
}

/// The text of a reply, none if it is nil or the key is of another type.
fn bulk(value: Value) -> Step<Option<Bytes>> {
    match value {
        Value::BulkString(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        Value::Error(text) if text.starts_with("WRONGTYPE") => Ok(None),
        Value::Error(text) => Err(error(&text)),
        _ => Err(odd()),
    }
}
