//! `SORT` by keys of all slots is that of one server.

use slotway::resp::value::{self, Value};

use crate::client::{Client, ok, wire};
use crate::cluster::steady;
use crate::commands::Server;
use crate::{Dice, front};

/// Numbers that are elements.
const ELEMENTS: usize = 40;

/// Lists, a set and a sorted set of the elements, with one of each kind of key that patterns may meet.
fn data(dice: &mut Dice) -> Vec<Vec<String>> {
    let mut data = Vec::new();
    let mut add = |line: String| data.push(line.split(' ').map(str::to_owned).collect());
    for _ in 0..ELEMENTS {
        add(format!("RPUSH list {}", dice.below(ELEMENTS)));
    }
    for element in 0..ELEMENTS {
        add(format!("SADD set {element}"));
        add(format!("ZADD zset {} {element}", dice.below(10)));
        match element % 8 {
            0 => {}
            1 => add(format!("RPUSH w_{element} x")),
            _ => add(format!("SET w_{element} {}", dice.below(20))),
        }
        if element % 5 > 0 {
            add(format!("HSET h_{element} weight {} name n{element}", dice.below(1000)));
        }
        // No two the same: among equal texts the order is not told.
        add(format!("SET t_{element} text{}", element * 7 % ELEMENTS));
        add(format!("SET o_{element}_x other{element}"));
    }
    add(String::from("SET w_x no-number"));
    add(String::from("RPUSH words 3 x 1"));
    add(String::from("SET string x"));
    data
}

fn request(dice: &mut Dice) -> String {
    let mut pick = |choices: &[&str]| choices[dice.below(choices.len())].to_owned();
    let name = pick(&["SORT", "SORT_RO"]);
    let key = pick(&["list", "set", "zset", "list", "zset", "words", "string", "missing"]);
    let by = pick(&[" BY w_*", " BY h_*->weight", " BY t_* ALPHA", " BY nosort", " BY h_*->", ""]);
    let limit =
        pick(&["", "", " LIMIT 0 5", " LIMIT 7 -1", " LIMIT 90 5", " LIMIT -3 4", " LIMIT 1 x"]);
    let order = pick(&["", " ASC", " DESC", " DESC"]);
    let gets = pick(&[
        "",
        " GET #",
        " GET o_*_x",
        " GET # GET h_*->name GET w_*",
        " GET constant",
        " GET h_*",
    ]);
    let extra = pick(&["", "", "", "", "", "", " nonsense", " GET"]);
    format!("{name} {key}{by}{limit}{order}{gets}{extra}")
}

#[tokio::test]
async fn sorting_by_other_keys_is_that_of_one_server() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let mut server = Server::start();
    assert_eq!(client.call("FLUSHALL").await, ok());
    let mut dice = Dice::from_env();
    for args in data(&mut dice) {
        assert_eq!(client.ask(&args).await, server.ask(&args), "{args:?}");
    }
    for round in 0..600 {
        if round == 300 {
            client.hello3().await.expect("RESP3");
        }
        let line = request(&mut dice);
        let args: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.ask(&args).await, server.ask(&args), "{line}");
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn sorting_by_other_keys_keeps_its_place() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("FLUSHALL").await, ok());
    let lines = [
        "RPUSH k a b",
        "SET w_a 2",
        "SET w_b 1",
        "SORT k BY w_*",
        "SET w_b 3",
        "SORT k BY w_*",
        "MULTI",
        "SORT k BY w_*",
        "EXEC",
        "SORT k BY w_* STORE k",
    ];
    let requests: Vec<_> = lines.map(|line| wire(&line.split(' ').collect::<Vec<_>>())).into();
    let replies = client.pipeline(&requests).await;
    let texts = |at: usize| -> Vec<&str> {
        value::array(&replies[at]).expect("elements").iter().filter_map(value::text).collect()
    };
    assert_eq!((texts(3), texts(5)), (vec!["b", "a"], vec!["a", "b"]));
    let is_denied = |reply: &Value| {
        let Value::Error(text) = reply else { return false };
        text.starts_with("ERR BY option of SORT denied")
    };
    assert!(value::array(&replies[8]).expect("replies").iter().all(is_denied));
    assert!(is_denied(&replies[9]));
    proxy.shutdown().await;
}
