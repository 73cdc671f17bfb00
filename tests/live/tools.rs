//! The tools that come with the server take the proxy for one.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::client::wire;
use crate::cluster::{run, steady};
use crate::front;
use crate::server::program;

async fn cli(port: &str, args: &[&str]) -> String {
    let output = run(&program("cli"), &[&["-p", port], args].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

#[tokio::test]
async fn redis_cli_works() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let port = &proxy.data.port().to_string();
    assert_eq!(cli(port, &["PING"]).await, "PONG");
    assert_eq!(cli(port, &["SET", "cli", "value"]).await, "OK");
    assert_eq!(cli(port, &["-3", "GET", "cli"]).await, "value");
    assert_eq!(cli(port, &["MSET", "cli1", "1", "cli2", "2"]).await, "OK");
    assert_eq!(cli(port, &["-3", "MGET", "cli1", "cli2", "cli3"]).await, "1\n2");
    assert_eq!(cli(port, &["-3", "HSET", "clih", "f", "v"]).await, "1");
    assert_eq!(cli(port, &["-3", "--no-raw", "HGETALL", "clih"]).await, "1# \"f\" => \"v\"");
    assert_eq!(cli(port, &["EVAL", "return KEYS[1]", "1", "cli"]).await, "cli");
    assert!(cli(port, &["INFO", "server"]).await.contains("redis_version:"));
    assert!(cli(port, &["NONSENSE"]).await.starts_with("ERR unknown command"));
    let repeated = cli(port, &["-r", "3", "INCR", "clicounter"]).await;
    assert_eq!(repeated, "1\n2\n3");
    proxy.shutdown().await;
}

#[tokio::test]
async fn redis_cli_pipe_loads_many_keys() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut command = Command::new(program("cli"));
    command.args(["-p", &proxy.data.port().to_string(), "--pipe", "--pipe-timeout", "20"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().expect("the tool");
    let mut input = process.stdin.take().expect("its input");
    let requests: Vec<u8> =
        (0..20_000).flat_map(|n| wire(&["SET", &format!("pipe{n}"), "value"])).collect();
    let written = tokio::spawn(async move { input.write_all(&requests).await });
    let limit = std::time::Duration::from_secs(30);
    let output = crate::within(limit, "the pipe", process.wait_with_output()).await;
    let text = String::from_utf8_lossy(&output.expect("its output").stdout).into_owned();
    written.await.expect("joined").expect("all is read");
    assert!(text.contains("errors: 0, replies: 20000"), "{text}");
    proxy.shutdown().await;
}

#[tokio::test]
async fn redis_benchmark_has_no_errors() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let port = proxy.data.port().to_string();
    let tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,\
                 zpopmin,lrange_100,lrange_300,lrange_500,lrange_600,mset";
    for pipeline in ["1", "16"] {
        let common = ["-p", &port, "-t", tests, "-n", "1000", "-c", "20", "-r", "1000"];
        let rest = ["-P", pipeline, "--csv"];
        let output = run(&program("benchmark"), &[&common[..], &rest].concat()).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}{errors}");
        assert!(errors.is_empty(), "{errors}");
        // A heading and one line each; `lrange` fills its list first.
        assert!(text.lines().count() > tests.split(',').count(), "{text}");
    }
    proxy.shutdown().await;
}
