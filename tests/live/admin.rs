//! What an administrator asks of the proxy, where it takes real nodes to answer.

use std::time::Duration;

use slotway::proxy::Running;
use slotway::resp::value::{self, Value};

use crate::client::{Client, ok};
use crate::cluster::steady;
use crate::{alone, front, until};

async fn proxy() -> Running {
    front::start(front::options(steady().await.addresses())).await
}

fn error(text: &str) -> Value {
    Value::Error(text.to_owned().into())
}

#[tokio::test]
async fn waits_are_ended_by_others() {
    let _turn = alone().await;
    let proxy = proxy().await;
    let (mut client, mut waiting) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    let Value::Integer(id) = waiting.call("CLIENT ID").await else { panic!("no number") };
    let unblocked = error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    for (how, reply) in [("", Value::Null), (" TIMEOUT", Value::Null), (" ERROR", unblocked)] {
        waiting.send(&crate::client::wire(&["BLPOP", "nobody-pushes-here", "0"])).await.unwrap();
        until(Duration::from_secs(5), "it waits", async || {
            let list = client.call(&format!("CLIENT LIST ID {id}")).await;
            let list = value::text(&list).unwrap_or_default().to_owned();
            if list.contains(" flags=b ") { Ok(()) } else { Err(list) }
        })
        .await;
        let unblock = format!("CLIENT UNBLOCK {id}{how}");
        assert_eq!(client.call(&unblock).await, Value::Integer(1), "{unblock}");
        assert_eq!(waiting.reply().await.unwrap(), reply, "{unblock}");
        assert_eq!(client.call(&unblock).await, Value::Integer(0), "{unblock}");
    }
    assert_eq!(waiting.call("CLIENT PAUSE 0").await, ok());
    proxy.shutdown().await;
}
