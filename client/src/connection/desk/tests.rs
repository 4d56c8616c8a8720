//! The desk alone, against a scripted course of events.

use super::super::frames::read;
use super::*;
use minium_protocol::{ClientOp, read_client_frame};
use serde_json::json;

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

fn cut() -> ClientError {
    ClientError::Cut { url: "http://h".into(), reason: "reset".into() }
}

/// A desk, and what a server would read of it.
struct Bench {
    desk: Desk,
    key: Key,
}

struct Seated {
    key: Key,
    items: mpsc::Receiver<Item>,
    opened: oneshot::Receiver<Result<Option<Position>, ClientError>>,
}

impl Bench {
    fn online() -> Bench {
        let mut bench = Bench { desk: Desk::default(), key: 0 };
        bench.desk.connected();
        bench
    }

    /// Every frame that is to be written, with its `ref`.
    fn said(&mut self) -> Vec<(String, ClientOp)> {
        let frames = std::iter::from_fn(|| self.desk.next_frame());
        frames
            .map(|text| {
                let frame = read_client_frame(&text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
                (frame.reference.unwrap().into(), frame.op)
            })
            .collect()
    }

    fn open(&mut self, filter: &str, role: Role) -> Seated {
        self.key += 1;
        let (out, items) = mpsc::channel(8);
        let (opened, answer) = oneshot::channel();
        let filter = filter.parse().unwrap();
        self.desk.take(Command::Open { key: self.key, filter, role, out, opened });
        Seated { key: self.key, items, opened: answer }
    }

    fn hear(&mut self, frame: &serde_json::Value) {
        assert!(self.desk.hear(read(&frame.to_string()).unwrap()));
        assert!(self.desk.deliver().is_none());
    }

    fn ok(&mut self, reference: &str, offset: u64) {
        self.hear(&json!({ "op": "ok", "ref": reference, "epoch": 1, "offset": offset }));
    }

    fn msg(&mut self, topic: &str, offset: u64) {
        self.hear(&json!({ "op": "msg", "topic": topic, "epoch": 1, "offset": offset, "data": offset }));
    }

    /// A subscription that is open behind offset 10.
    fn subscribed(&mut self, filter: &str) -> Seated {
        let seated = self.open(filter, Role::sub(After::Latest));
        let (reference, _) = self.said().pop().unwrap();
        self.ok(&reference, 10);
        seated
    }

    fn reconnect(&mut self) {
        self.desk.cut(&cut());
        self.desk.connected();
        assert!(self.desk.deliver().is_none());
    }
}

fn offsets(seated: &mut Seated) -> Vec<u64> {
    let taken = std::iter::from_fn(|| seated.items.try_recv().ok());
    taken
        .filter_map(|item| match item {
            Item::Message { position, .. } => position.map(|p| p.offset),
            _ => None,
        })
        .collect()
}

fn after_of(op: &ClientOp) -> After {
    match op {
        ClientOp::Sub { after, .. } => *after,
        other => panic!("{other:?}"),
    }
}

fn at(offset: u64) -> After {
    After::Position(Position { epoch: 1, offset })
}

#[test]
fn a_subscription_resumes_behind_the_last_message_and_drops_what_comes_again() {
    let mut bench = Bench::online();
    let mut news = bench.subscribed("news");
    assert_eq!(news.opened.try_recv().unwrap().unwrap(), Some(Position { epoch: 1, offset: 10 }));
    bench.msg("news/a", 12);
    bench.msg("news", 15);
    bench.reconnect();
    let said = bench.said();
    assert_eq!(said.iter().map(|(_, op)| after_of(op)).collect::<Vec<_>>(), [at(15)]);
    bench.msg("news", 16); // of the session before: not ours until the answer
    bench.ok(&said[0].0, 15);
    for offset in [12, 15, 16, 17] {
        bench.msg("news", offset);
    }
    assert_eq!(offsets(&mut news), [12, 15, 16, 17]);
}

#[test]
fn what_was_passed_without_a_message_is_not_read_again() {
    let mut bench = Bench::online();
    let mut news = bench.subscribed("news");
    bench.hear(&json!({ "op": "caught_up", "topic": "news", "offset": 90 }));
    assert!(matches!(news.items.try_recv(), Ok(Item::CaughtUp { offset: 90 })));
    bench.reconnect();
    assert_eq!(after_of(&bench.said()[0].1), at(90));
}

#[test]
fn where_nothing_is_kept_a_cut_is_told_as_a_gap() {
    let mut bench = Bench::online();
    let mut chat = bench.open("chat", Role::sub(After::Latest));
    let (reference, _) = bench.said().pop().unwrap();
    bench.hear(&json!({ "op": "ok", "ref": reference }));
    bench.reconnect();
    assert!(matches!(chat.items.try_recv(), Ok(Item::Gap { from: None, to: None })));
    assert_eq!(after_of(&bench.said()[0].1), After::Latest);
}

#[test]
fn a_lost_position_is_told_and_the_program_decides() {
    let mut bench = Bench::online();
    let mut news = bench.subscribed("news");
    bench.reconnect();
    let (reference, _) = bench.said().pop().unwrap();
    let problem = Problem::new(ErrorCode::OffsetExpired, "gone");
    bench.hear(&json!({ "op": "error", "ref": reference, "problem": problem }));
    assert!(matches!(news.items.try_recv(), Ok(Item::Lost(p)) if p.code == ErrorCode::OffsetExpired));
    bench.reconnect();
    assert!(bench.said().is_empty(), "nothing is asked for until the program says so");
    let (opened, mut answer) = oneshot::channel();
    bench.desk.take(Command::Begin { key: news.key, from: After::Earliest, opened });
    let (reference, op) = bench.said().pop().unwrap();
    assert_eq!(after_of(&op), After::Earliest);
    bench.ok(&reference, 3);
    assert!(answer.try_recv().unwrap().is_ok());
    bench.msg("news", 4);
    assert_eq!(offsets(&mut news), [4]);
    let (opened, mut answer) = oneshot::channel();
    bench.desk.take(Command::Begin { key: news.key, from: After::Earliest, opened });
    assert_eq!(answer.try_recv().unwrap().unwrap_err().code(), Some(ErrorCode::Conflict));
}

#[test]
fn what_is_refused_for_the_moment_is_asked_again_and_what_is_not_ends() {
    let mut bench = Bench::online();
    let mut news = bench.subscribed("news");
    bench.reconnect();
    let (reference, _) = bench.said().pop().unwrap();
    let problem = Problem::new(ErrorCode::Unavailable, "starting");
    bench.hear(&json!({ "op": "error", "ref": reference, "problem": problem }));
    assert!(bench.desk.is_waiting());
    bench.desk.ask_again();
    let (reference, _) = bench.said().pop().unwrap();
    let problem = Problem::new(ErrorCode::Forbidden, "no longer");
    bench.hear(&json!({ "op": "error", "ref": reference, "problem": problem }));
    assert!(matches!(news.items.try_recv(), Ok(Item::Failed(e)) if e.code() == Some(ErrorCode::Forbidden)));
    assert!(news.items.try_recv().is_err() && !bench.desk.is_waiting());
    bench.reconnect();
    assert!(bench.said().is_empty());
}

#[test]
fn a_broken_order_ends_the_subscription_and_says_so() {
    let mut bench = Bench::online();
    let mut news = bench.subscribed("news");
    bench.msg("news", 12);
    bench.msg("news", 11);
    assert!(matches!(news.items.try_recv(), Ok(Item::Message { .. })));
    assert!(matches!(news.items.try_recv(), Ok(Item::Failed(ClientError::OutOfOrder { .. }))));
    assert!(matches!(bench.said()[..], [(_, ClientOp::Unsub { .. })]));
}

fn publish(bench: &mut Bench, topic_: &str) -> oneshot::Receiver<Result<Answered, ClientError>> {
    let (answers, answer) = oneshot::channel();
    let id = format!("id of {topic_}");
    bench
        .desk
        .take(Command::Call { call: Call::Publish { topic: topic(topic_), data: raw("1"), id }, answers });
    answer
}

#[test]
fn what_was_not_acknowledged_is_said_again_in_order_with_its_id() {
    let mut bench = Bench::online();
    let mut answers: Vec<_> = ["a", "b", "c"].map(|t| publish(&mut bench, t)).into();
    let first = bench.said();
    bench.ok(&first[0].0, 5);
    assert_eq!(answers[0].try_recv().unwrap().unwrap().position.unwrap().offset, 5);
    bench.reconnect();
    let again = bench.said();
    let ids = |said: &[(String, ClientOp)]| -> Vec<(String, Option<Box<str>>)> {
        said.iter()
            .map(|(r, op)| match op {
                ClientOp::Pub { id, .. } => (r.clone(), id.clone()),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(ids(&again), ids(&first[1..]), "the same refs and ids, in the same order");
    for (reference, _) in again {
        bench.ok(&reference, 6);
    }
    for answer in &mut answers[1..] {
        assert!(answer.try_recv().unwrap().is_ok());
    }
    bench.reconnect();
    assert!(bench.said().is_empty());
}

#[test]
fn what_could_do_harm_twice_is_an_error_instead() {
    let mut bench = Bench::online();
    let mut known = publish(&mut bench, "chat");
    let (reference, _) = bench.said().pop().unwrap();
    bench.hear(&json!({ "op": "ok", "ref": reference })); // keeps nothing
    assert!(known.try_recv().unwrap().unwrap().position.is_none());
    let mut lost = publish(&mut bench, "chat");
    let push = |options: Option<serde_json::Value>| {
        let options = options.map(|o| o.as_object().unwrap().clone());
        Call::Push { topic: topic("work"), data: raw("1"), options }
    };
    let (answers, mut bare) = oneshot::channel();
    bench.desk.take(Command::Call { call: push(None), answers });
    let (answers, mut keyed) = oneshot::channel();
    bench.desk.take(Command::Call { call: push(Some(json!({ "key": "k" }))), answers });
    bench.said();
    bench.reconnect();
    assert!(matches!(lost.try_recv().unwrap(), Err(ClientError::Cut { .. })));
    assert!(matches!(bare.try_recv().unwrap(), Err(ClientError::Cut { .. })));
    assert!(keyed.try_recv().is_err(), "a key makes it harmless");
    assert!(matches!(bench.said()[..], [(_, ClientOp::Push { options: Some(_), .. })]));
}

fn job(id: i64, lease: LeaseToken) -> serde_json::Value {
    json!({ "op": "job", "topic": "import", "job": { "id": id }, "lease": lease })
}

fn credit(said: &[(String, ClientOp)]) -> Vec<u32> {
    let credit = |op: &ClientOp| if let ClientOp::Pull { credit, .. } = op { Some(*credit) } else { None };
    said.iter().filter_map(|(_, op)| credit(op)).collect()
}

#[test]
fn credit_is_what_is_neither_in_hand_nor_on_its_way() {
    let mut bench = Bench::online();
    let puller = bench.open("import", Role::pull(vec![], None, 3));
    assert_eq!(credit(&bench.said()), [3]);
    let leases = [(); 3].map(|()| LeaseToken::fresh());
    bench.hear(&job(1, leases[0]));
    bench.hear(&job(2, leases[1]));
    bench.desk.left(Left::Job(puller.key, leases[0]));
    bench.desk.left(Left::Job(puller.key, leases[0]));
    assert_eq!(credit(&bench.said()), [1], "once for each job");
    bench.reconnect();
    assert_eq!(credit(&bench.said()), [2], "one is still in hand");
    bench.hear(&job(3, leases[2]));
    let word = Word::Ack { job: 2, lease: leases[1], result: None };
    let (answers, mut answer) = oneshot::channel();
    bench.desk.take(Command::Call { call: Call::Word { key: puller.key, word }, answers });
    let said = bench.said();
    assert!(credit(&said).is_empty(), "there is room only when the word counts");
    bench.reconnect();
    let again = bench.said();
    assert!(
        again.iter().any(|(r, op)| *r == said[0].0 && matches!(op, ClientOp::Ack { job: 2, .. })),
        "{again:?}"
    );
    assert_eq!(credit(&again), [1]);
    bench.hear(&json!({ "op": "ok", "ref": said[0].0 }));
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(credit(&bench.said()), [1]);
}

#[test]
fn a_cancelled_job_is_told_by_its_signal_or_by_the_answer_to_a_word() {
    let mut bench = Bench::online();
    let mut puller = bench.open("import", Role::pull(vec![], None, 2));
    bench.said();
    let (one, other) = (LeaseToken::fresh(), LeaseToken::fresh());
    bench.hear(&job(1, one));
    bench.hear(&job(2, other));
    let mut given = || match puller.items.try_recv().unwrap() {
        Item::Job(given) => given,
        other => panic!("{other:?}"),
    };
    let (first, second) = (given(), given());
    bench.hear(&json!({ "op": "cancel", "job": 1 }));
    assert!(first.cancelled.is_cancelled() && !second.cancelled.is_cancelled());
    let (answers, mut answer) = oneshot::channel();
    let word = Word::Extend { job: 2, lease: other };
    bench.desk.take(Command::Call { call: Call::Word { key: 1, word }, answers });
    let (reference, _) = bench.said().pop().unwrap();
    bench.hear(&json!({ "op": "cancelled", "ref": reference, "job": 2 }));
    assert!(answer.try_recv().unwrap().unwrap().cancelled && second.cancelled.is_cancelled());
}

#[test]
fn who_leaves_is_unsubscribed_and_gets_nothing_of_who_comes_next() {
    let mut bench = Bench::online();
    let news = bench.subscribed("news");
    bench.desk.left(Left::Place(news.key));
    let mut next = bench.open("news", Role::sub(After::Earliest));
    let said = bench.said();
    assert!(matches!(said[..], [(_, ClientOp::Unsub { .. }), (_, ClientOp::Sub { .. })]), "{said:?}");
    bench.msg("news", 50);
    bench.ok(&said[1].0, 0);
    bench.msg("news", 1);
    assert_eq!(offsets(&mut next), [1]);
}

#[test]
fn a_full_queue_holds_what_comes_and_loses_nothing() {
    let mut bench = Bench::online();
    let mut news = bench.subscribed("news");
    for offset in 11..=20 {
        let frame = json!({ "op": "msg", "topic": "news", "epoch": 1, "offset": offset, "data": 1 });
        bench.desk.hear(read(&frame.to_string()).unwrap());
    }
    assert!(bench.desk.deliver().is_some());
    let mut taken = offsets(&mut news);
    assert!(bench.desk.deliver().is_none());
    taken.extend(offsets(&mut news));
    assert_eq!(taken, (11..=20).collect::<Vec<_>>());
}

#[test]
fn a_puller_that_leaves_takes_its_socket_along_but_not_its_words() {
    let mut bench = Bench::online();
    let puller = bench.open("import", Role::pull(vec![], None, 2));
    bench.said();
    let lease = LeaseToken::fresh();
    bench.hear(&job(1, lease));
    bench.desk.left(Left::Place(puller.key));
    assert!(bench.desk.is_stale());
    bench.reconnect();
    assert!(!bench.desk.is_stale() && bench.said().is_empty());
    let (answers, mut answer) = oneshot::channel();
    let word = Word::Ack { job: 1, lease, result: None };
    bench.desk.take(Command::Call { call: Call::Word { key: puller.key, word }, answers });
    let (reference, _) = bench.said().pop().unwrap();
    bench.hear(&json!({ "op": "ok", "ref": reference }));
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn what_cannot_be_done_now_is_said_again_in_order() {
    let mut bench = Bench::online();
    let mut answers: Vec<_> = ["a", "b"].map(|t| publish(&mut bench, t)).into();
    let said = bench.said();
    let problem = Problem::new(ErrorCode::Unavailable, "no database yet");
    bench.hear(&json!({ "op": "error", "ref": said[0].0, "problem": problem }));
    assert!(bench.desk.take_refused().is_some() && !bench.desk.is_alive());
    bench.reconnect();
    let again = bench.said();
    let refs = |said: &[(String, ClientOp)]| said.iter().map(|(r, _)| r.clone()).collect::<Vec<_>>();
    assert_eq!(refs(&again), refs(&said));
    for (answer, (reference, _)) in answers.iter_mut().zip(&again) {
        assert!(answer.try_recv().is_err());
        bench.ok(reference, 1);
        assert!(answer.try_recv().unwrap().is_ok());
    }
}
