//! Members that did not answer when a node was removed. They know it still, and would make it known again: the others ignore
//! talk of it for a minute only. So they are told as soon as they are back, if that is before then.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::{Address, NodeId};
use crate::manage::access::{Access, ControlError};

/// For how long nodes ignore talk of one that they were told to forget: the servers' own time.
const IGNORED: Duration = Duration::from_secs(60);
/// How often one that is away is tried.
const LOOK: Duration = Duration::from_secs(1);

/// Tells them that a node is gone.
pub(super) async fn tell(access: Access, absent: Vec<Address>, gone: NodeId) {
    let until = Instant::now() + IGNORED;
    let mut telling = JoinSet::new();
    for address in absent {
        let (access, gone) = (access.clone(), gone.clone());
        telling.spawn(async move { tell_one(&access, &address, &gone, until).await });
    }
    while telling.join_next().await.is_some() {}
}

async fn tell_one(access: &Access, address: &Address, gone: &NodeId, until: Instant) {
    while Instant::now() < until {
        match forget(access, address, gone).await {
            Ok(()) => {
                tracing::info!(node = %address, %gone, "a member that was away has heard that a node is gone");
                return;
            }
            Err(error) => tracing::debug!(node = %address, %error, "a member is away still"),
        }
        sleep(LOOK).await;
    }
    tracing::warn!(node = %address, %gone, "a member that is away has not heard that a node is gone");
}

/// That it does not know the node is as good.
async fn forget(access: &Access, address: &Address, gone: &NodeId) -> Result<(), ControlError> {
    let request = [&b"CLUSTER"[..], b"FORGET", gone.0.as_bytes()];
    match access.open(address).await?.call(&request).await {
        Err(error) if error.reply().is_some_and(|text| text.starts_with("ERR Unknown node")) => {
            Ok(())
        }
        told => told.map(drop),
    }
}
