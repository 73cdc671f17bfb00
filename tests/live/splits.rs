//! Commands over keys of many slots behave as on one server: random ones, held against a map.

use std::collections::BTreeMap;

use slotway::resp::value::Value;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::steady;
use crate::{Dice, front};

/// Few enough that commands meet keys that are there, and many enough to lie in many slots.
const KEYS: usize = 60;

/// What one server would hold.
#[derive(Default)]
struct Model(BTreeMap<String, String>);

impl Model {
    /// What a server would answer.
    fn apply(&mut self, args: &[String]) -> Value {
        let keys = &args[1..];
        match args[0].as_str() {
            "MSET" => {
                let pairs = keys.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                self.0.extend(pairs);
                ok()
            }
            "MGET" => {
                let value = |key| self.0.get(key).map_or(Value::Null, bulk);
                Value::Array(keys.iter().map(value).collect())
            }
            "EXISTS" | "TOUCH" => {
                count(keys.iter().filter(|key| self.0.contains_key(*key)).count())
            }
            "DEL" | "UNLINK" => count(keys.iter().filter_map(|key| self.0.remove(key)).count()),
            "DBSIZE" => count(self.0.len()),
            other => panic!("{other} is not in the model"),
        }
    }
}

fn count(n: usize) -> Value {
    Value::Integer(i64::try_from(n).expect("a small number"))
}

/// A random command with up to twelve keys, some of them more than once.
fn command(dice: &mut Dice, number: usize) -> Vec<String> {
    let names = ["MSET", "MSET", "MGET", "MGET", "EXISTS", "TOUCH", "DEL", "UNLINK", "DBSIZE"];
    let name = names[dice.below(names.len())];
    let mut args = vec![name.to_owned()];
    for n in 0..=dice.below(12) {
        let key = dice.below(KEYS);
        match name {
            "DBSIZE" => {}
            "MSET" => args.extend([format!("key{key}"), format!("{number}.{n}")]),
            _ => args.push(format!("key{key}")),
        }
    }
    args
}

#[tokio::test]
async fn split_commands_are_those_of_one_server() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("FLUSHALL").await, ok());
    let (mut dice, mut model) = (Dice::from_env(), Model::default());
    for round in 0..100 {
        let commands: Vec<_> = (0..100).map(|n| command(&mut dice, round * 100 + n)).collect();
        let requests: Vec<Vec<u8>> = commands.iter().map(|args| wire(args)).collect();
        for (args, reply) in commands.iter().zip(client.pipeline(&requests).await) {
            assert_eq!(reply, model.apply(args), "{}", args.join(" "));
        }
    }
    let Value::Array(mut keys) = client.call("KEYS key*").await else { panic!("no array") };
    let mut expected: Vec<Value> = model.0.keys().map(bulk).collect();
    let text = |key: &Value| slotway::resp::value::text(key).map(str::to_owned);
    keys.sort_by_key(text);
    expected.sort_by_key(text);
    assert_eq!(keys, expected);
    assert_eq!(client.call("FLUSHALL").await, ok());
    assert_eq!(client.call("DBSIZE").await, Value::Integer(0));
    assert_eq!(client.call("RANDOMKEY").await, Value::Null);
    proxy.shutdown().await;
}

#[tokio::test]
async fn an_error_of_one_part_is_the_answer() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    for n in 0..20 {
        client.call(&format!("DEL part{n}")).await;
    }
    client.call("RPUSH part7 x").await;
    let keys: Vec<String> = (0..20).map(|n| format!("part{n}")).collect();
    let mget = client.call(&format!("MGET {}", keys.join(" "))).await;
    let Value::Array(values) = mget else { panic!("MGET gives nil for a list: {mget:?}") };
    assert!(values.iter().all(|value| *value == Value::Null));
    let odd = client.call("MSET part1 a part2").await;
    assert_eq!(odd, Value::Error("ERR wrong number of arguments for 'mset' command".into()));
    let crossing = client.call("MSETNX part1 a part2 b").await;
    assert!(
        matches!(&crossing, Value::Error(text) if text.starts_with("CROSSSLOT ")),
        "{crossing:?}"
    );
    proxy.shutdown().await;
}
