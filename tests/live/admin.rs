//! What an administrator asks of the proxy, where it takes real nodes to answer.

use std::time::Duration;

use slotway::proxy::Running;
use slotway::resp::value::{self, Value};

use crate::client::{Client, bulk, ok};
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

#[tokio::test]
async fn settings_are_those_of_all_nodes() {
    let _turn = alone().await;
    let cluster = steady().await;
    let proxy = proxy().await;
    let mut client = Client::to(proxy.data).await;
    let pair = |name: &str, value: &str| Value::Array(vec![bulk(name), bulk(value)]);
    assert_eq!(client.call("CONFIG SET list-compress-depth 3 maxmemory-samples 4").await, ok());
    assert_eq!(
        client.call("CONFIG GET list-compress-depth").await,
        pair("list-compress-depth", "3")
    );
    for node in 0..3 {
        let samples = cluster.call(node, &["CONFIG", "GET", "maxmemory-samples"]).await;
        assert_eq!(samples, pair("maxmemory-samples", "4"));
    }
    assert_eq!(client.call("CONFIG SET list-compress-depth 0 maxmemory-samples 5").await, ok());
    assert_eq!(client.call("CONFIG GET databases").await, pair("databases", "1"));
    let all = client.call("CONFIG GET *").await;
    let all: Vec<&str> = value::array(&all).unwrap().iter().filter_map(value::text).collect();
    let of = |name: &str| all.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    assert_eq!(
        (of("cluster-enabled"), of("save"), of("appendfsync")),
        (Some("no"), Some(""), Some("everysec"))
    );
    assert_eq!(of("port"), Some(proxy.data.port().to_string().as_str()));
    let refused = "ERR Unknown option or number of arguments for CONFIG SET - 'dir'";
    assert_eq!(client.call("CONFIG SET dir /").await, error(refused));
    assert_eq!(client.call("CONFIG SET maxclients 1").await, ok());
    let mut late = Client::to(proxy.data).await;
    assert_eq!(late.reply().await.unwrap(), error("ERR max number of clients reached"));
    assert_eq!(client.call("CONFIG RESETSTAT").await, ok());
    proxy.shutdown().await;
}
