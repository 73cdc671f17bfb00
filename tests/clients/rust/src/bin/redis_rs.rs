//! A work-out with redis-rs: redis_rs HOST PORT 2|3

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, Client, Script, Value, pipe};
use slotway_clients::{Outcome, SCRIPT, WorkOut, address, same};

#[tokio::main]
async fn main() -> ExitCode {
    let (host, port, version) = address();
    let url = format!("redis://{host}:{port}/?protocol=resp{version}");
    let client = Client::open(url).expect("an address");
    let key = format!("work-out:redis-rs:{version}");
    let mut work_out = WorkOut::default();
    work_out.step("handshake", handshake(&client)).await;
    work_out.step("get-set", get_set(&client, &key)).await;
    work_out.step("pipeline", pipeline(&client, &key)).await;
    work_out.step("multi", multi(&client, &key)).await;
    work_out.step("watch", watch(&client, &key)).await;
    work_out.step("pubsub", pubsub(&client, &key)).await;
    work_out.step("scan", scan(&client, &key)).await;
    work_out.step("script", script(&client, &key)).await;
    work_out.step("blocking", blocking(&client, &key)).await;
    work_out.end()
}

/// Without redis-rs' own limit of half a second, which a machine under load can exceed.
async fn connect(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    client.get_multiplexed_async_connection_with_config(&patient).await
}

async fn handshake(client: &Client) -> Outcome {
    let answer: String = connect(client).await?.ping().await?;
    same(answer, "PONG")
}

async fn get_set(client: &Client, key: &str) -> Outcome {
    let mut r = connect(client).await?;
    let _: () = r.set(key, "value").await?;
    same(r.get::<_, String>(key).await?, "value")
}

async fn pipeline(client: &Client, key: &str) -> Outcome {
    let mut commands = pipe();
    for n in 0..100 {
        commands.set(format!("{key}:{n}"), n).ignore().get(format!("{key}:{n}"));
    }
    let found: Vec<u32> = commands.query_async(&mut connect(client).await?).await?;
    same(found, (0..100).collect::<Vec<_>>())
}

async fn multi(client: &Client, key: &str) -> Outcome {
    let key = format!("{{{key}}}a");
    let mut commands = pipe();
    commands.atomic().set(&key, 1).ignore().incr(&key, 1).get(&key);
    same(commands.query_async::<(u32, u32)>(&mut connect(client).await?).await?, (2, 2))
}

async fn watch(client: &Client, key: &str) -> Outcome {
    let key = format!("{{{key}}}w");
    let (mut r, mut other) = (connect(client).await?, connect(client).await?);
    let _: () = redis::cmd("WATCH").arg(&key).query_async(&mut r).await?;
    let _: () = other.set(&key, 10).await?;
    let mut commands = pipe();
    commands.atomic().incr(&key, 1);
    same(commands.query_async::<Value>(&mut r).await?, Value::Nil)
}

async fn pubsub(client: &Client, key: &str) -> Outcome {
    let mut publisher = connect(client).await?;
    let mut subscriber = client.get_async_pubsub().await?;
    subscriber.subscribe(format!("{key}:news")).await?;
    subscriber.psubscribe(format!("{key}:p*")).await?;
    for n in 0..3 {
        let _: () = publisher.publish(format!("{key}:news"), n).await?;
    }
    let mut messages = subscriber.on_message();
    for n in 0..3 {
        let message = messages.next().await.ok_or("no message")?;
        same(message.get_payload::<u32>()?, n)?;
    }
    let _: () = publisher.publish(format!("{key}:pattern"), 9).await?;
    same(messages.next().await.ok_or("no message")?.get_payload::<u32>()?, 9)
}

async fn scan(client: &Client, key: &str) -> Outcome {
    let mut r = connect(client).await?;
    let mut commands = pipe();
    for n in 0..300 {
        commands.set(format!("{key}:scan:{n}"), 1).ignore();
    }
    let () = commands.query_async(&mut r).await?;
    let pages = r.scan_match::<_, String>(format!("{key}:scan:*")).await?;
    let found: HashSet<String> = pages.filter_map(async |name| name.ok()).collect().await;
    same(found.len(), 300)
}

async fn script(client: &Client, key: &str) -> Outcome {
    let mut r = connect(client).await?;
    let hash: String = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut r).await?;
    let mut call = redis::cmd("EVALSHA");
    call.arg(hash).arg(1).arg(key).arg("by script");
    same(call.query_async::<String>(&mut r).await?, "by script")?;
    let again = Script::new(&format!("{SCRIPT} -- again"));
    same(again.key(key).arg("again").invoke_async::<String>(&mut r).await?, "again")
}

async fn blocking(client: &Client, key: &str) -> Outcome {
    let key = &format!("{key}:list");
    let (mut r, mut other) = (connect(client).await?, connect(client).await?);
    let _: () = r.del(key).await?;
    same(r.blpop::<_, Option<(String, String)>>(key, 1.0).await?, None)?;
    let push = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.rpush::<_, _, u32>(key, "element").await
    };
    let (found, pushed) = tokio::join!(r.blpop::<_, Option<(String, String)>>(key, 4.0), push);
    pushed?;
    same(found?, Some((key.clone(), "element".to_owned())))
}
