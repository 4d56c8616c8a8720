//! The checks themselves: ledgers that are in order pass, and each way of breaking a promise is found, by its name.

use super::audit::{Violation, audit};
use super::book::{Acked, Arrival, Books, Entry, Inbox, Name, Outbox, Place, Sent, Socket, Sub};
use minium_protocol::Topic;

fn name(publisher: u32, n: u32) -> Name {
    Name { publisher, n }
}

fn place(offset: u64) -> Place {
    Place { epoch: 1, offset }
}

fn topic(text: &str) -> Topic {
    text.parse().unwrap()
}

/// What stands in the journal: offset, publisher, number, topic.
const JOURNAL: [(u64, u32, u32, &str); 6] = [
    (11, 0, 0, "t/a"),
    (12, 1, 0, "t/b"),
    (14, 0, 1, "t/b"),
    (15, 0, 2, "t/a"),
    (17, 1, 1, "t/a"),
    (18, 0, 3, "t/b"),
];

fn sub(filter: &str, behind: u64) -> Sub {
    Sub { filter: filter.parse().unwrap(), behind: place(behind), from: 0 }
}

fn arrival((offset, publisher, n, to): (u64, u32, u32, &str)) -> Arrival {
    let name = name(publisher, n);
    Arrival { name, place: Some(place(offset)), topic: Some(topic(to)), body: name.body(""), event: None }
}

/// A reader of these connections: filter, where it begins, offsets that came.
fn inbox(reader: &str, exact: bool, sockets: &[(&str, u64, &[u64])]) -> Inbox {
    let socket = |(filter, behind, offsets): &(&str, u64, &[u64])| {
        let came = offsets.iter().map(|o| arrival(*JOURNAL.iter().find(|e| e.0 == *o).unwrap()));
        Socket { subs: vec![sub(filter, *behind)], arrivals: came.collect() }
    };
    let sockets: Vec<_> = sockets.iter().map(socket).collect();
    Inbox { reader: reader.into(), exact, subs: sockets[0].subs.clone(), sockets }
}

/// A run in which every promise was kept: cuts, a repetition, a reader that began late, one with bare messages.
fn books() -> Books {
    let mut outboxes = vec![Outbox::default(), Outbox::default()];
    let mut journal = Vec::new();
    for (offset, publisher, n, to) in JOURNAL {
        let (name, topic, place) = (name(publisher, n), topic(to), place(offset));
        let outbox = &mut outboxes[publisher as usize];
        outbox.sent.push(Sent { name, topic: topic.clone(), body: name.body("") });
        outbox.acked.push(Acked { name, topic: topic.clone(), place });
        journal.push(Entry { name, place, topic, body: name.body(""), event: format!("event {name}") });
    }
    // one was sent and never heard of again
    let unheard = name(1, 2);
    outboxes[1].sent.push(Sent { name: unheard, topic: topic("t/a"), body: unheard.body("") });
    let mut inboxes = vec![
        inbox("exact", true, &[("t", 10, &[11, 12, 14]), ("t", 14, &[]), ("t", 14, &[15, 17, 18])]),
        inbox("late", true, &[("t/b", 13, &[14, 18])]),
        inbox("bare", false, &[("t", 10, &[11, 12, 14, 15]), ("t", 10, &[11, 12, 14, 15, 17, 18])]),
        inbox("many", false, &[("t/a", 10, &[11, 15, 17, 12, 14, 18])]),
    ];
    for arrival in inboxes[2].sockets.iter_mut().flat_map(|s| &mut s.arrivals) {
        (arrival.place, arrival.topic) = (None, None);
    }
    // two filters that never match the same
    inboxes[3].sockets[0].subs.push(sub("t/b", 10));
    inboxes[3].subs.push(sub("t/b", 10));
    Books { outboxes, inboxes, journal }
}

/// What is found after one thing was changed.
fn found(change: impl FnOnce(&mut Books)) -> Vec<Violation> {
    let mut books = books();
    change(&mut books);
    audit(&books)
}

/// What came to a reader on one of its connections.
fn came(books: &mut Books, reader: usize, socket: usize) -> &mut Vec<Arrival> {
    &mut books.inboxes[reader].sockets[socket].arrivals
}

#[test]
fn ledgers_in_order_pass() {
    assert_eq!(found(|_| ()), []);
}

#[test]
fn what_was_acknowledged_and_never_came_is_found() {
    let lost = |reader: &str, n, offset| Violation::Lost {
        reader: reader.into(),
        name: name(0, n),
        place: place(offset),
    };
    let skipped = |reader: &str, socket, offset| Violation::Skipped {
        reader: reader.into(),
        socket,
        place: place(offset),
    };
    let exact = found(|b| drop(came(b, 0, 2).remove(0)));
    assert_eq!(exact, [lost("exact", 2, 15), skipped("exact", 2, 15)]);
    // the last one leaves no hole
    assert_eq!(found(|b| drop(came(b, 0, 2).pop())), [lost("exact", 3, 18)]);
    // it came again later; on this connection it was skipped all the same
    assert_eq!(found(|b| drop(came(b, 2, 0).remove(1))), [skipped("bare", 0, 12)]);
    // one of several filters brought nothing
    assert_eq!(found(|b| drop(came(b, 3, 0).remove(4))), [lost("many", 1, 14), skipped("many", 0, 14)]);
    // what a reader is owed counts from where it was first told that it begins
    let later = found(|b| {
        b.inboxes[1].subs[0].behind = place(14);
        b.inboxes[1].sockets[0].subs[0].behind = place(14);
        came(b, 1, 0).remove(0);
    });
    assert_eq!(later, []);
}

#[test]
fn what_is_acknowledged_and_nowhere_is_lost_for_all() {
    let violations = found(|b| {
        b.journal.retain(|e| e.place != place(15));
        for reader in [0, 2, 3] {
            for socket in &mut b.inboxes[reader].sockets {
                socket.arrivals.retain(|a| a.name != name(0, 2));
            }
        }
    });
    let losers: Vec<_> = violations
        .iter()
        .map(|v| match v {
            Violation::Lost { reader, name: lost, .. } if *lost == name(0, 2) => reader.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(losers, ["exact", "bare", "many"]);
}

#[test]
fn what_came_twice_is_found() {
    let doubled =
        |reader: &str, publisher, n| Violation::Doubled { reader: reader.into(), name: name(publisher, n) };
    let twice = |reader, socket| {
        found(|b| {
            let again = came(b, reader, socket)[0].clone();
            came(b, reader, socket).insert(1, again);
        })
    };
    assert_eq!(twice(0, 0), [doubled("exact", 0, 0)]);
    assert_eq!(twice(2, 1), [doubled("bare", 0, 0)]);
    assert_eq!(twice(3, 0), [doubled("many", 0, 0)]);
    // on another connection, to one who came back behind it
    let back = found(|b| {
        let again = came(b, 0, 0)[2].clone();
        b.inboxes[0].sockets[2].subs[0].behind = place(13);
        came(b, 0, 2).insert(0, again);
    });
    assert_eq!(back, [doubled("exact", 0, 1)]);
}

#[test]
fn what_came_out_of_order_is_found() {
    let disordered = |reader: &str, n, offset| {
        [Violation::Disordered { reader: reader.into(), name: name(0, n), place: place(offset) }]
    };
    assert_eq!(
        found(|b| came(b, 0, 0).swap(1, 2))[0],
        Violation::Disordered { reader: "exact".into(), name: name(1, 0), place: place(12) }
    );
    // bare messages are placed by what the others say
    assert_eq!(found(|b| came(b, 2, 0).swap(2, 3)), disordered("bare", 1, 14));
    // what one filter had in order came out of order for a wider one
    let wider = found(|b| b.inboxes[3].sockets[0].subs[0].filter = "t".parse().unwrap());
    let late = |publisher, n, offset| Violation::Disordered {
        reader: "many".into(),
        name: name(publisher, n),
        place: place(offset),
    };
    assert_eq!(wider, [late(1, 0, 12), late(0, 1, 14)]);
    // it comes again for one that began later, further back: then it must be all
    let joins = |offsets: &'static [u64]| {
        move |b: &mut Books| {
            b.inboxes[1].sockets[0].subs.push(Sub { from: 2, ..sub("t", 11) });
            let more = offsets.iter().map(|o| arrival(*JOURNAL.iter().find(|e| e.0 == *o).unwrap()));
            came(b, 1, 0).extend(more);
        }
    };
    assert_eq!(found(joins(&[12, 14, 15, 17, 18])), []);
    assert_eq!(
        found(joins(&[12, 15])),
        [Violation::Skipped { reader: "late".into(), socket: 0, place: place(14) }]
    );
}

#[test]
fn what_nobody_asked_for_is_found() {
    let before = found(|b| b.inboxes[0].sockets[0].subs[0].behind = place(11));
    let unasked = Violation::Unasked { reader: "exact".into(), name: name(0, 0), place: place(11) };
    assert_eq!(before, std::slice::from_ref(&unasked));
    let foreign = found(|b| {
        let other = arrival(JOURNAL[4]);
        came(b, 1, 0).insert(1, other);
    });
    let unasked = Violation::Unasked { reader: "late".into(), name: name(1, 1), place: place(17) };
    assert_eq!(foreign, [unasked]);
}

#[test]
fn acknowledged_messages_that_changed_places_are_found() {
    // 0-0 and 0-2 went to one topic; as everybody tells it, the later one stands first
    let swapped = |at: Place| match at.offset {
        11 => place(15),
        15 => place(11),
        _ => at,
    };
    let violations = found(|b| {
        b.inboxes.clear();
        b.outboxes[0].acked.iter_mut().for_each(|a| a.place = swapped(a.place));
        b.journal.iter_mut().for_each(|e| e.place = swapped(e.place));
        b.journal.sort_by_key(|e| e.place);
    });
    let inverted = Violation::Inverted { topic: topic("t/a"), earlier: name(0, 0), later: name(0, 2) };
    assert_eq!(violations, [inverted]);
}

#[test]
fn a_message_with_two_positions_is_found() {
    let split = |a, b| [Violation::Split { name: name(0, 3), places: vec![place(a), place(b)] }];
    // the acknowledgement named another, and so did a second one, a delivery, the journal
    assert_eq!(found(|b| b.outboxes[0].acked[3].place = place(19)), split(18, 19));
    let twice = found(|b| {
        let again = Acked { place: place(19), ..b.outboxes[0].acked[3].clone() };
        b.outboxes[0].acked.push(again);
    });
    assert_eq!(twice, split(18, 19));
    assert_eq!(found(|b| came(b, 0, 2)[2].place = Some(place(19))), split(18, 19));
    let kept_twice = found(|b| {
        let again = Entry { place: place(19), ..b.journal[5].clone() };
        b.journal.push(again);
    });
    assert_eq!(kept_twice, split(18, 19));
    // another epoch is another position
    let epoch = found(|b| b.outboxes[0].acked[3].place.epoch = 2);
    assert!(matches!(&epoch[..], [Violation::Split { .. }]), "{epoch:?}");
}

#[test]
fn other_bytes_are_found() {
    let altered = |violations: &[Violation], who| matches!(violations, [Violation::Altered { name, forms }] if *name == who && forms.len() == 2);
    let blanks = found(|b| came(b, 1, 0)[0].body.push(' '));
    assert!(altered(&blanks, name(0, 1)), "{blanks:?}");
    let kept = found(|b| b.journal[0].body.push(' '));
    assert!(altered(&kept, name(0, 0)), "{kept:?}");
    let event = found(|b| came(b, 0, 0)[1].event = Some("another event".into()));
    assert!(altered(&event, name(1, 0)), "{event:?}");
    let same = found(|b| came(b, 0, 0)[1].event = Some("event 1-0".into()));
    assert_eq!(same, []);
}

#[test]
fn what_nobody_sent_is_found() {
    let invented = |violations: &[Violation], who| violations.contains(&Violation::Invented { name: who });
    let stranger = found(|b| came(b, 3, 0)[5].name = name(7, 7));
    assert!(invented(&stranger, name(7, 7)), "{stranger:?}");
    let elsewhere = found(|b| came(b, 3, 0)[5].topic = Some(topic("t/a")));
    assert_eq!(elsewhere, [Violation::Invented { name: name(0, 3) }]);
    let kept = found(|b| b.journal[0].topic = topic("t/b"));
    assert!(invented(&kept, name(0, 0)), "{kept:?}");
}
