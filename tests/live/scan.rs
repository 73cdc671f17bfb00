//! `SCAN` sees every key that is there all the time, whatever the cluster does meanwhile.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use slotway::resp::value::{self, Value};

use crate::client::{Client, ok, wire};
use crate::cluster::Cluster;
use crate::events::reshard;
use crate::{beside_others, front};

const KEYS: usize = 20_000;

/// The keys of a whole scan, with how often each came.
async fn scan(client: &mut Client, options: &str) -> BTreeMap<String, usize> {
    let (mut cursor, mut found) = (String::from("0"), BTreeMap::new());
    loop {
        let reply = client.call(&format!("SCAN {cursor}{options}")).await;
        let Value::Array(parts) = &reply else { panic!("no page: {reply:?}") };
        value::text(&parts[0]).expect("a cursor").clone_into(&mut cursor);
        assert!(cursor.parse::<u64>().expect("a number") < 1 << 53);
        for key in value::array(&parts[1]).expect("keys") {
            *found.entry(value::text(key).expect("a key").to_owned()).or_default() += 1;
        }
        if cursor == "0" {
            return found;
        }
    }
}

async fn fill(client: &mut Client) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..KEYS).map(|n| format!("scan:{n}")).collect();
    let requests: Vec<Vec<u8>> = keys.iter().map(|key| wire(&["SET", key, "v"])).collect();
    assert!(client.pipeline(&requests).await.iter().all(|reply| *reply == ok()));
    keys
}

#[tokio::test]
async fn a_scan_sees_all_keys_while_slots_move() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 1).await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let keys = fill(&mut client).await;
    let found = scan(&mut client, " COUNT 100").await;
    assert!(found.keys().eq(keys.iter()) && found.values().all(|times| *times == 1));
    let strings = scan(&mut client, " MATCH scan:1* TYPE string COUNT 1000").await;
    assert_eq!(strings.len(), keys.iter().filter(|key| key.starts_with("scan:1")).count());
    assert!(scan(&mut client, " TYPE list COUNT 1000").await.is_empty());
    let (moving, scans) = (Cell::new(true), Cell::new(0));
    let moves = async {
        reshard(&cluster, 2, 0, 250).await;
        reshard(&cluster, 1, 0, 250).await;
        moving.set(false);
    };
    let watching = async {
        while moving.get() {
            let found = scan(&mut client, " COUNT 50").await;
            let missed: Vec<&String> =
                keys.iter().filter(|key| !found.contains_key(*key)).collect();
            assert!(missed.is_empty(), "{} missed, such as {}", missed.len(), missed[0]);
            scans.set(scans.get() + 1);
        }
    };
    tokio::join!(moves, watching);
    assert!(scans.get() > 1, "{} scans", scans.get());
    proxy.shutdown().await;
}
