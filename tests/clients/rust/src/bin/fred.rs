//! A work-out with fred: fred HOST PORT 2|3

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{ConnectHandle, RespVersion};
use futures_util::TryStreamExt;
use slotway_clients::{Outcome, SCRIPT, WorkOut, address, same};

#[tokio::main]
async fn main() -> ExitCode {
    let (host, port, version) = address();
    let version_of = if version == 3 { RespVersion::RESP3 } else { RespVersion::RESP2 };
    let config = Config {
        server: ServerConfig::new_centralized(host, port),
        version: version_of,
        fail_fast: true,
        ..Config::default()
    };
    let key = format!("work-out:fred:{version}");
    let mut work_out = WorkOut::default();
    work_out.step("handshake", handshake(&config)).await;
    work_out.step("get-set", get_set(&config, &key)).await;
    work_out.step("pipeline", pipeline(&config, &key)).await;
    work_out.step("multi", multi(&config, &key)).await;
    work_out.step("watch", watch(&config, &key)).await;
    work_out.step("pubsub", pubsub(&config, &key)).await;
    work_out.step("scan", scan(&config, &key)).await;
    work_out.step("script", script(&config, &key)).await;
    work_out.step("blocking", blocking(&config, &key)).await;
    work_out.end()
}

async fn connect(config: &Config) -> Result<Client, Error> {
    let mut builder = Builder::from_config(config.clone());
    builder.with_connection_config(|connection| connection.max_command_attempts = 1);
    let client = builder.build()?;
    let _task: ConnectHandle = client.init().await?;
    Ok(client)
}

async fn handshake(config: &Config) -> Outcome {
    let client = connect(config).await?;
    same(client.ping::<String>(None).await?, "PONG")?;
    client.client_setname("work-out").await?;
    same(client.client_getname::<String>().await?, "work-out")
}

async fn get_set(config: &Config, key: &str) -> Outcome {
    let client = connect(config).await?;
    let () = client.set(key, "value", None, None, false).await?;
    same(client.get::<String, _>(key).await?, "value")
}

async fn pipeline(config: &Config, key: &str) -> Outcome {
    let client = connect(config).await?;
    let pipeline = client.pipeline();
    for n in 0..100 {
        let () = pipeline.incr_by(format!("{key}:{n}"), 0).await?;
        let () = pipeline.exists(format!("{key}:{n}")).await?;
    }
    same(pipeline.all::<Vec<u32>>().await?, [0, 1].repeat(100))
}

async fn multi(config: &Config, key: &str) -> Outcome {
    let client = connect(config).await?;
    let transaction = client.multi();
    let key = format!("{{{key}}}a");
    let () = transaction.set(&key, 1, None, None, false).await?;
    let () = transaction.incr(&key).await?;
    same(transaction.exec::<(String, u32)>(true).await?, ("OK".to_owned(), 2))
}

async fn watch(config: &Config, key: &str) -> Outcome {
    let (client, other) = (connect(config).await?, connect(config).await?);
    let key = format!("{{{key}}}w");
    client.watch(&key).await?;
    let () = other.set(&key, 10, None, None, false).await?;
    let transaction = client.multi();
    let () = transaction.incr(&key).await?;
    same(transaction.exec::<Value>(true).await?, Value::Null)
}

async fn pubsub(config: &Config, key: &str) -> Outcome {
    let (subscriber, publisher) = (connect(config).await?, connect(config).await?);
    let mut messages = subscriber.message_rx();
    subscriber.subscribe(format!("{key}:news")).await?;
    subscriber.psubscribe(format!("{key}:p*")).await?;
    // With RESP3 this client goes on before the server has confirmed.
    let channel = format!("{key}:news");
    for _ in 0..500 {
        let counts: HashMap<String, i64> = publisher.pubsub_numsub(vec![channel.as_str()]).await?;
        if counts.get(&channel) == Some(&1) && publisher.pubsub_numpat::<i64>().await? >= 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in 0..3 {
        let () = publisher.publish(format!("{key}:news"), n).await?;
    }
    for n in 0..3 {
        same(messages.recv().await?.value.convert::<u32>()?, n)?;
    }
    let () = publisher.publish(format!("{key}:pattern"), 9).await?;
    same(messages.recv().await?.value.convert::<u32>()?, 9)
}

async fn scan(config: &Config, key: &str) -> Outcome {
    let client = connect(config).await?;
    let pipeline = client.pipeline();
    for n in 0..300 {
        let () = pipeline.set(format!("{key}:scan:{n}"), 1, None, None, false).await?;
    }
    let _: Vec<String> = pipeline.all().await?;
    let pages = client.scan_buffered(format!("{key}:scan:*"), Some(50), None);
    let found: HashSet<Key> = pages.try_collect().await?;
    same(found.len(), 300)
}

async fn script(config: &Config, key: &str) -> Outcome {
    let client = connect(config).await?;
    let hash: String = client.script_load(SCRIPT).await?;
    same(client.evalsha::<String, _, _, _>(hash, key, "by script").await?, "by script")
}

async fn blocking(config: &Config, key: &str) -> Outcome {
    let (client, other) = (connect(config).await?, connect(config).await?);
    let key = format!("{key}:list");
    let () = client.del(&key).await?;
    let push = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.rpush::<u32, _, _>(&key, "element").await
    };
    let (found, pushed) = tokio::join!(client.blpop::<(String, String), _>(&key, 4.0), push);
    pushed?;
    same(found?, (key.clone(), "element".to_owned()))?;
    // What fred makes of the server's nil.
    let nothing = client.blpop::<Value, _>(&key, 1.0).await;
    same(nothing.map_err(|error| error.kind().clone()), Err::<Value, _>(ErrorKind::Timeout))
}
