//! `client.queueing = "nodes"`: what nodes refuse is refused when it is queued, as one server does.

use std::net::SocketAddr;
use std::time::Duration;

use slotway::cluster::Slot;
use slotway::proxy::Running;
use slotway::resp::value::Value;
use slotway::session::{Queueing, Transactions};

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, Node};
use crate::{beside_others, front, until};

const PATIENCE: Duration = Duration::from_secs(20);
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const KEY: &str = "{a}key";

async fn start(cluster: &Cluster, transactions: Transactions) -> Running {
    let mut options = front::options(cluster.addresses());
    options.session.queueing = Queueing::Nodes;
    options.session.transactions = transactions;
    front::start(options).await
}

fn queued() -> Value {
    Value::SimpleString("QUEUED".into())
}

fn error(text: &str) -> Value {
    Value::Error(text.to_owned().into())
}

/// A cluster, and the node that owns the keys.
struct Scene<'a> {
    cluster: &'a Cluster,
    owner: Node,
    proxy: SocketAddr,
}

#[tokio::test]
async fn what_nodes_refuse_is_refused_when_it_is_queued() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let owner = cluster.owners().await[Slot::of(b"a").index()];
    for transactions in [Transactions::Whole, Transactions::PerSlot] {
        let running = start(&cluster, transactions).await;
        let scene = Scene { cluster: &cluster, owner, proxy: running.data };
        let (mut client, mut resp3) =
            (Client::to(running.data).await, Client::to(running.data).await);
        resp3.hello3().await.expect("RESP3");
        for client in [&mut client, &mut resp3] {
            scene.refuses("maxmemory", &["LPUSH", "{a}list", "x"], client).await;
            scene.refuses("min-replicas-to-write", &["INCR", KEY], client).await;
            scene.watches(client).await;
            scene.in_one_packet(client).await;
        }
        scene.is_busy(&mut client).await;
        scene.is_clean().await;
        running.shutdown().await;
    }
}

impl Scene<'_> {
    async fn config(&self, name: &str, value: &str) {
        let set = ["CONFIG", "SET", name, value];
        assert_eq!(self.cluster.call(self.owner, &set).await, ok());
    }

    /// What the node says to a client of its own that queues a command.
    async fn word(&self, command: &[&str]) -> Value {
        let mut direct = Client::to(self.cluster.address(self.owner)).await;
        direct.call("MULTI").await;
        let word = direct.ask(command).await;
        direct.call("DISCARD").await;
        word
    }

    /// While this setting is 1, and not while it is 0, the node refuses a command.
    async fn refuses(&self, setting: &str, command: &[&str], client: &mut Client) {
        client.call(&format!("DEL {KEY} {{a}}list")).await;
        assert_eq!(client.call("MULTI").await, ok());
        assert_eq!(client.ask(&["SET", KEY, "1"]).await, queued());
        self.config(setting, "1").await;
        let word = self.word(command).await;
        assert!(matches!(word, Value::Error(_)), "{word:?}");
        assert_eq!(client.ask(command).await, word);
        self.config(setting, "0").await;
        assert_eq!(client.ask(&["SET", KEY, "2"]).await, queued());
        assert_eq!(client.call("EXEC").await, error(ABORTED));
        assert_eq!(client.call(&format!("EXISTS {KEY} {{a}}list")).await, Value::Integer(0));
        // It can be given up while the node refuses, too.
        self.config(setting, "1").await;
        assert_eq!(client.call("MULTI").await, ok());
        assert_eq!(client.ask(command).await, word);
        assert_eq!(client.call("DISCARD").await, ok());
        self.config(setting, "0").await;
        let requests = [wire(&["MULTI"]), wire(command), wire(&["EXEC"])];
        let replies = client.pipeline(&requests).await;
        assert_eq!(replies, [ok(), queued(), Value::Array(vec![Value::Integer(1)])]);
    }

    /// A rehearsal does not end a watch, nor does it change what is watched.
    async fn watches(&self, client: &mut Client) {
        let mut other = Client::to(self.proxy).await;
        for changes in [false, true] {
            client.ask(&["SET", KEY, "1"]).await;
            assert_eq!(client.ask(&["WATCH", KEY]).await, ok());
            assert_eq!(client.call("MULTI").await, ok());
            assert_eq!(client.ask(&["INCR", KEY]).await, queued());
            if changes {
                other.ask(&["SET", KEY, "5"]).await;
            }
            assert_eq!(client.ask(&["INCR", KEY]).await, queued());
            let [second, third] = [2, 3].map(Value::Integer);
            let ran = if changes { Value::Null } else { Value::Array(vec![second, third]) };
            assert_eq!(client.call("EXEC").await, ran);
        }
    }

    async fn in_one_packet(&self, client: &mut Client) {
        let list = "{a}packet";
        client.ask(&["DEL", list]).await;
        let large = "x".repeat(100_000);
        let requests = [
            wire(&["RPUSH", list, "a"]),
            wire(&["MULTI"]),
            wire(&["RPUSH", list, &large]),
            wire(&["BLPOP", list, "0"]),
            wire(&["LLEN", list]),
            wire(&["EXEC"]),
            wire(&["LRANGE", list, "0", "-1"]),
        ];
        let popped = Value::Array(vec![bulk(list), bulk("a")]);
        let expected = [
            Value::Integer(1),
            ok(),
            queued(),
            queued(),
            queued(),
            Value::Array(vec![Value::Integer(2), popped, Value::Integer(1)]),
            Value::Array(vec![bulk(large)]),
        ];
        assert_eq!(client.pipeline(&requests).await, expected);
    }

    /// A script keeps the node busy, while a transaction is queued and after it.
    async fn is_busy(&self, client: &mut Client) {
        self.config("lua-time-limit", "10").await;
        let (mut runner, mut killer) = (Client::to(self.proxy).await, Client::to(self.proxy).await);
        client.ask(&["SET", KEY, "1"]).await;
        // It has another lane than the others, who would wait behind it.
        runner.hello3().await.expect("RESP3");
        let running = wire(&["EVAL", "while true do end", "1", KEY]);
        runner.send(&running).await.expect("the request is taken");
        until(PATIENCE, "the node is busy", async || match killer.ask(&["GET", KEY]).await {
            Value::Error(text) if text.starts_with("BUSY ") => Ok(()),
            reply => Err(format!("{reply:?}")),
        })
        .await;
        assert_eq!(client.call("MULTI").await, ok());
        assert_eq!(client.ask(&["INCR", KEY]).await, self.word(&["INCR", KEY]).await);
        let exec = client.call("EXEC").await;
        let busy = "EXECABORT Transaction discarded because of: BUSY ";
        assert!(matches!(&exec, Value::Error(text) if text.starts_with(busy)), "{exec:?}");
        assert_eq!(client.call("MULTI").await, ok());
        assert_eq!(client.ask(&["INCR", KEY]).await, self.word(&["INCR", KEY]).await);
        assert_eq!(killer.call("SCRIPT KILL").await, ok());
        assert!(matches!(runner.reply().await, Ok(Value::Error(_))));
        assert_eq!(client.ask(&["INCR", KEY]).await, queued());
        assert_eq!(client.call("EXEC").await, error(ABORTED));
        assert_eq!(client.ask(&["GET", KEY]).await, bulk("1"));
    }

    /// No connection of any node is within a transaction.
    async fn is_clean(&self) {
        for node in self.cluster.present() {
            let list = self.cluster.text(node, &["CLIENT", "LIST"]).await.expect("clients");
            let is_open = |line: &&str| line.contains(" multi=") && !line.contains(" multi=-1 ");
            assert_eq!(list.lines().filter(is_open).collect::<Vec<_>>(), [""; 0]);
        }
    }
}
