//! That nobody but claims asks whether a node can follow.

use super::fixture::*;
use crate::support::wait;
use minium_queue::Pressure;

/// whoever looks whether a node can follow waits here for as long as that cannot be read. A claim does, and no enqueue,
/// each from a store that has never looked and so would.
#[tokio::test]
async fn an_enqueue_never_asks_whether_a_node_can_follow() {
    let f = Fixture::postgres().await;
    f.store().press(uuid::Uuid::new_v4(), Some(Pressure::Rising)).await.unwrap();
    let (claiming, mut holder, looker) = (f.second().await, f.client().await, f.client().await);
    let mut fresh = Vec::new();
    for _ in 0..4 {
        fresh.push(f.second().await);
    }
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute("lock table minium.pressure in access exclusive mode").await.unwrap();
    let waiting = async || -> i64 {
        let sql =
            "select count(*) from pg_locks where relation = 'minium.pressure'::regclass and not granted";
        looker.query_one(sql, &[]).await.unwrap().get(0)
    };
    let claimed = tokio::spawn(async move { claiming.exchange(&[], &claim(1)).await });
    wait::until("the claim to ask", async || (waiting().await == 1).then_some(())).await;

    let calls = [
        vec![plain()],
        vec![plain(); 50],
        vec![with(|o| o.key = Some("k".into()))],
        vec![with(|o| o.delay = seconds(60))],
    ];
    for (store, jobs) in fresh.iter().zip(calls) {
        let made = wait::within("an enqueue", store.enqueue(&jobs)).await.unwrap();
        assert_eq!(made.len(), jobs.len());
    }
    let sql = "select minium.enqueue('task', '[]')";
    wait::within("an enqueue by SQL", looker.execute(sql, &[])).await.unwrap();
    assert_eq!(waiting().await, 1, "the claim still asks, and nobody else ever did");
    hold.rollback().await.unwrap();
    wait::within("the claim", claimed).await.unwrap().unwrap();
}
