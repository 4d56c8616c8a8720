//! Faults that are planted, so that the ledger test is seen to find them. The product has no switch for breaking its
//! promises; they are broken between it and those who write the ledgers: on the way to a reader, or by a publisher
//! that takes for an acknowledgement what is none.

use super::audit::{Violation, audit};
use super::book::{Books, Outbox, Place};
use super::proxy::{Plant, Proxy};
use super::publisher::{Course, Publisher, try_post};
use super::stage::{Stage, options};
use super::wire::{self, Opening};
use crate::support::node::{Node, Options};
use crate::support::wait;
use futures::SinkExt;
use rustix::process::{Signal, kill_process};
use tokio_tungstenite::tungstenite::Message;

/// The reader whose way has a fault on it.
const READER: &str = "frames of all";

/// The publisher that lies.
const LIAR: u32 = 0;

/// What a publisher does in the place of a server that breaks its promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// A message counts as acknowledged when it has been sent.
    AckBeforeCommit,
    /// A repetition has another id: nobody can know that it is the same.
    ForgetIds,
    /// Each message is overtaken by the next.
    Overtake,
}

/// Publishes until the course is over, as if the server were broken.
pub(super) async fn lie(mut publisher: Publisher<'_>, lie: Lie) -> Outbox {
    // one topic: whoever overtakes must overtake somebody
    publisher.topics = &publisher.topics[..1];
    match lie {
        Lie::AckBeforeCommit => ack_before_commit(&mut publisher).await,
        Lie::ForgetIds | Lie::Overtake => post_twice(&mut publisher, lie).await,
    }
    publisher.outbox
}

async fn ack_before_commit(publisher: &mut Publisher<'_>) {
    let (course, topic) = (publisher.course, &publisher.topics[0]);
    let path = format!("/pub/{topic}");
    while !course.over.get() {
        let opening = Opening { path: &path, mode: "minium.plain", narrow: false };
        let (mut socket, _) = wire::open(&publisher.ways, opening).await;
        let mut alive = true;
        while alive && !course.over.get() {
            let sent = publisher.next(topic);
            alive = socket.send(Message::text(sent.body.clone())).await.is_ok();
            if alive {
                let somewhere = 1_000_000 + u64::from(sent.name.n);
                publisher.acked(&sent, Place { epoch: 1, offset: somewhere });
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Two messages in the wrong order, or one twice.
async fn post_twice(publisher: &mut Publisher<'_>, lie: Lie) {
    let http = reqwest::Client::new();
    while !publisher.course.over.get() {
        let topic = &publisher.topics[0];
        let first = publisher.next(topic);
        let (one, other) = match lie {
            Lie::Overtake => (publisher.next(topic), first),
            _ => (first.clone(), first),
        };
        for (id, sent) in [("one", one), ("other", other)] {
            let id = format!("{}-{id}", sent.name);
            let position = try_post(&http, &publisher.ways, &sent, &id).await.expect("the server is well");
            publisher.acked(&sent, position.into());
        }
    }
}

/// A run in which one message to one reader has a fault.
async fn run_with(plant: Plant) -> Vec<Violation> {
    let nodes = [Node::start(options(Options::memory())).await];
    let proxy = Proxy::planting(nodes[0].address(), plant, LIAR, 7).await;
    let stage = Stage { detour: Some(proxy.address), ..Stage::new(1, &nodes) };
    let books = stage.act(async |course: &Course, _: &mut fastrand::Rng| course.acks(200).await).await;
    assert!(proxy.is_done(), "the fault has happened");
    audit(&books)
}

/// A run with a publisher that lies.
async fn run_by(lie: Lie, trouble: impl AsyncFnOnce(&Course, &Node)) -> Books {
    let nodes = [Node::start(options(Options::file())).await];
    let stage = Stage { lie: Some(lie), ..Stage::new(1, &nodes) };
    stage.act(async |course: &Course, _: &mut fastrand::Rng| trouble(course, &nodes[0]).await).await
}

/// What a server does that drops messages for those who lag.
#[tokio::test]
async fn a_message_that_is_dropped_on_its_way_is_found() {
    let violations = run_with(Plant::Drop).await;
    let [Violation::Lost { reader, name, place: lost }, Violation::Skipped { reader: of, place, .. }] =
        &violations[..]
    else {
        panic!("{violations:?}")
    };
    assert_eq!((reader.as_str(), of.as_str(), name.publisher, lost), (READER, READER, LIAR, place));
}

#[tokio::test]
async fn a_message_that_is_delivered_twice_is_found() {
    let violations = run_with(Plant::Double).await;
    let [Violation::Doubled { reader, name }] = &violations[..] else { panic!("{violations:?}") };
    assert_eq!((reader.as_str(), name.publisher), (READER, LIAR));
}

#[tokio::test]
async fn a_message_that_is_overtaken_on_its_way_is_found() {
    let violations = run_with(Plant::Swap).await;
    let [Violation::Disordered { reader, name, .. }] = &violations[..] else { panic!("{violations:?}") };
    assert_eq!((reader.as_str(), name.publisher), (READER, LIAR));
}

#[tokio::test]
async fn a_message_that_is_altered_on_its_way_is_found() {
    let violations = run_with(Plant::Alter).await;
    let [Violation::Altered { name, forms }] = &violations[..] else { panic!("{violations:?}") };
    assert_eq!((name.publisher, forms.len()), (LIAR, 2));
}

/// What a server does that acknowledges what it has read, and is killed.
#[tokio::test]
async fn acknowledgements_before_the_commit_are_found() {
    let kill = async |course: &Course, node: &Node| {
        course.acks(100).await;
        // it reads nothing any more, so what is acknowledged from now on is certainly lost
        kill_process(node.pid(), Signal::STOP).unwrap();
        course.acks(200).await;
        node.kill().await;
        node.restart().await;
    };
    let books = run_by(Lie::AckBeforeCommit, kill).await;
    let lost: Vec<_> = audit(&books)
        .into_iter()
        .filter_map(|v| match v {
            Violation::Lost { reader, name, .. } => Some((reader, name)),
            _ => None,
        })
        .collect();
    assert!(!lost.is_empty(), "acknowledged, killed, and nobody has noticed");
    for (reader, name) in lost {
        assert_eq!(name.publisher, LIAR, "{reader} lost {name}");
    }
}

/// What a server does that does not remember ids.
#[tokio::test]
async fn ids_that_are_forgotten_are_found() {
    let books = run_by(Lie::ForgetIds, async |course, _| course.acks(100).await).await;
    let violations = audit(&books);
    let split =
        violations.iter().any(|v| matches!(v, Violation::Split { name, .. } if name.publisher == LIAR));
    let doubled =
        violations.iter().filter(|v| matches!(v, Violation::Doubled { reader, .. } if reader == READER));
    assert!(split && doubled.count() > 0, "{violations:?}");
}

/// What a server does that lets a message overtake one that it was sent before.
#[tokio::test]
async fn messages_that_overtake_are_found() {
    let books = run_by(Lie::Overtake, async |course, _| course.acks(100).await).await;
    let violations = audit(&books);
    assert!(!violations.is_empty(), "nobody has noticed");
    for violation in violations {
        let Violation::Inverted { earlier, later, .. } = violation else { panic!("{violation:?}") };
        assert_eq!((earlier.publisher, later.n), (LIAR, earlier.n + 1));
    }
}

/// A pause of the whole server is none of these: it makes nobody lose anything.
#[tokio::test]
async fn a_server_that_stands_still_for_a_while_breaks_nothing() {
    let nodes = [Node::start(options(Options::file())).await];
    let pause = async |course: &Course, _: &mut fastrand::Rng| {
        course.acks(100).await;
        kill_process(nodes[0].pid(), Signal::STOP).unwrap();
        // all that was on its way has come
        let mut before = course.arrived.get();
        wait::until("everybody to fall silent", async || {
            let now = course.arrived.get();
            (std::mem::replace(&mut before, now) == now).then_some(())
        })
        .await;
        kill_process(nodes[0].pid(), Signal::CONT).unwrap();
    };
    let books = Stage::new(1, &nodes).act(pause).await;
    super::assert_kept(&books, 1);
}
