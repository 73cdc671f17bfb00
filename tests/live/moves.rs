//! Clients notice nothing when slots move, primaries change places, and nodes come and go.

use crate::alone;
use crate::events::Event;

#[tokio::test]
async fn a_reshard_goes_unnoticed() {
    let _turn = alone().await;
    Event::Reshard.watch().await.expect_flawless();
}

#[tokio::test]
async fn slots_that_move_slowly_go_unnoticed() {
    let _turn = alone().await;
    Event::SlowSlots.watch().await.expect_flawless();
}

#[tokio::test]
async fn a_manual_failover_goes_unnoticed() {
    let _turn = alone().await;
    Event::Failover.watch().await.expect_flawless();
}

#[tokio::test]
async fn a_node_that_joins_and_leaves_goes_unnoticed() {
    let _turn = alone().await;
    Event::JoinAndLeave.watch().await.expect_flawless();
}
