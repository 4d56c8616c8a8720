//! What nodes say when they cannot follow the journal, and claims that give way to it.

use crate::store::fixture::{Fixture, LEASE, claim, plain, seconds, worker};
use crate::support::wait;
use minium_queue::{PRESSURE_LIFE, Pressure, Pull};
use uuid::Uuid;

/// The worst that is said counts, for a while.
pub(crate) async fn the_worst_that_nodes_say_counts_until_it_is_old(fixture: &Fixture) {
    let store = fixture.store();
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(store.pressure().await.unwrap(), None);
    store.press(one, Some(Pressure::Easing)).await.unwrap();
    assert_eq!(store.pressure().await.unwrap(), Some(Pressure::Easing));
    store.press(other, Some(Pressure::Rising)).await.unwrap();
    assert_eq!(store.pressure().await.unwrap(), Some(Pressure::Rising));
    store.press(other, None).await.unwrap();
    assert_eq!(store.pressure().await.unwrap(), Some(Pressure::Easing));
    fixture.pass(PRESSURE_LIFE + seconds(1)).await;
    assert_eq!(store.pressure().await.unwrap(), None, "who said it is gone");
    // and what it left goes when somebody else is well again
    fixture.pass(seconds(120)).await;
    store.press(other, None).await.unwrap();
    assert_eq!(fixture.count("pressure").await, 0);
}

/// Claims are few while a node cannot follow, but never none for ever; enqueues and outcomes go on, and it passes.
pub(crate) async fn claims_are_few_while_a_node_cannot_follow(fixture: &Fixture) {
    let store = fixture.store();
    let node = Uuid::new_v4();
    store.press(node, Some(Pressure::Rising)).await.unwrap();
    store.enqueue(&vec![plain(); 500]).await.unwrap();
    assert!(
        store.exchange(&[], &claim(100)).await.unwrap().jobs.is_empty(),
        "the first claim has heard of it"
    );
    let slowed = wait::until("a job all the same", async || {
        store.press(node, Some(Pressure::Rising)).await.unwrap();
        Some(store.exchange(&[], &claim(100)).await.unwrap().jobs).filter(|jobs| !jobs.is_empty())
    })
    .await;
    assert_eq!(slowed.len(), 1);
    // a puller whose task has no jobs does not keep the room from the one behind it
    let pull = |task: &str| Pull {
        queue: "default".into(),
        tasks: vec![task.into()],
        lease: LEASE,
        workers: vec![worker(); 20],
    };
    let pulls = [pull("none"), pull(&plain().task)];
    let pulled = wait::until("a job for the second puller", async || {
        store.press(node, Some(Pressure::Rising)).await.unwrap();
        Some(store.pull(&pulls).await.unwrap()).filter(|jobs| !jobs.is_empty())
    })
    .await;
    assert_eq!((pulled.len(), pulled[0].pull), (1, 1));
    store.press(node, None).await.unwrap();
    wait::until("claims to be whole again", async || {
        (store.exchange(&[], &claim(100)).await.unwrap().jobs.len() == 100).then_some(())
    })
    .await;
}
