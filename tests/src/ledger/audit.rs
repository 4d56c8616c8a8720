//! What the ledgers must add up to: pure functions over them, each for one promise, each of which names what breaks it.

use super::book::{Books, Entry, Name, Place, Socket, Sub};
use minium_protocol::Topic;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    /// It was acknowledged, and a reader whose filters cover it never got it.
    Lost { reader: String, name: Name, place: Place },
    /// It stands in the journal, and a connection went on behind it without it.
    Skipped { reader: String, socket: usize, place: Place },
    /// It came twice, on one connection or to a reader that came back behind it.
    Doubled { reader: String, name: Name },
    /// It came behind something that has a later position.
    Disordered { reader: String, name: Name, place: Place },
    /// It came to somebody who begins behind it, or has no filter for it.
    Unasked { reader: String, name: Name, place: Place },
    /// One publisher, one topic: the later message has the earlier position.
    Inverted { topic: Topic, earlier: Name, later: Name },
    /// One message has two positions: two acknowledgements, or acknowledgement, delivery and journal, differ.
    Split { name: Name, places: Vec<Place> },
    /// The same message or event in different bytes.
    Altered { name: Name, forms: Vec<String> },
    /// Nobody sent it there.
    Invented { name: Name },
}

/// All violations.
pub(super) fn audit(books: &Books) -> Vec<Violation> {
    let checks = [lost, skipped, doubled, disordered, unasked, inverted, split, altered, invented];
    checks.iter().flat_map(|check| check(books)).collect()
}

/// Acked − delivered = ∅, for each reader whose filters cover it, from where it began.
fn lost(books: &Books) -> Vec<Violation> {
    let mut found = Vec::new();
    for inbox in &books.inboxes {
        let delivered: HashSet<Name> = inbox.arrivals().map(|a| a.name).collect();
        let acked = books.outboxes.iter().flat_map(|o| &o.acked);
        let missing = acked.filter(|a| inbox.is_owed(&a.topic, a.place) && !delivered.contains(&a.name));
        found.extend(missing.map(|a| Violation::Lost {
            reader: inbox.reader.clone(),
            name: a.name,
            place: a.place,
        }));
    }
    found
}

/// Each subscription of a connection gets a run of the journal without a hole, from its beginning to wherever it was cut,
/// acknowledged or not; and all connections of a reader together get everything that is owed.
fn skipped(books: &Books) -> Vec<Violation> {
    let mut found = Vec::new();
    for inbox in &books.inboxes {
        let mut holes = BTreeSet::new();
        for (n, socket) in inbox.sockets.iter().enumerate() {
            for sub in &socket.subs {
                let came = socket.arrivals[sub.from..].iter().map(|a| a.name).collect();
                let is_owed = |e: &&Entry| sub.is_owed(&e.topic, e.place);
                holes.extend(holes_in(&books.journal, is_owed, &came).map(|place| (n, place)));
            }
        }
        let last = inbox.sockets.len().saturating_sub(1);
        let all = inbox.arrivals().map(|a| a.name).collect();
        let is_owed = |e: &&Entry| inbox.is_owed(&e.topic, e.place);
        holes.extend(holes_in(&books.journal, is_owed, &all).map(|place| (last, place)));
        found.extend(holes.into_iter().map(|(socket, place)| Violation::Skipped {
            reader: inbox.reader.clone(),
            socket,
            place,
        }));
    }
    found
}

/// What is owed and did not come, though something behind it did.
fn holes_in<'a>(
    journal: &'a [Entry],
    is_owed: impl Fn(&&'a Entry) -> bool,
    came: &HashSet<Name>,
) -> impl Iterator<Item = Place> {
    let owed: Vec<_> = journal.iter().filter(is_owed).collect();
    let end = owed.iter().rposition(|e| came.contains(&e.name)).unwrap_or(0);
    let holes: Vec<_> = owed[..end].iter().filter(|e| !came.contains(&e.name)).map(|e| e.place).collect();
    holes.into_iter()
}

/// Each message is new to some subscription of its connection, and once for each over all connections of those who
/// resume exactly.
fn doubled(books: &Books) -> Vec<Violation> {
    let (places, topics) = (places(books), topics(books));
    let mut found = Vec::new();
    for inbox in &books.inboxes {
        let mut had = HashSet::new();
        for socket in &inbox.sockets {
            if !inbox.exact {
                had.clear();
            }
            for came in judge(socket, &places, &topics) {
                let again =
                    came.new_for.iter().filter(|sub| !had.insert((sub.filter.as_str(), came.name))).count();
                if again > 0 || came.is_repeated && came.new_for.is_empty() {
                    found.push(Violation::Doubled { reader: inbox.reader.clone(), name: came.name });
                }
            }
        }
    }
    found
}

/// Positions rise for each subscription of a connection: nothing is new that is older than what came before it.
fn disordered(books: &Books) -> Vec<Violation> {
    let (places, topics) = (places(books), topics(books));
    let mut found = Vec::new();
    for inbox in &books.inboxes {
        for socket in &inbox.sockets {
            let late = judge(socket, &places, &topics).into_iter().filter(|came| came.is_late);
            found.extend(late.map(|Judged { name, place, .. }| Violation::Disordered {
                reader: inbox.reader.clone(),
                name,
                place,
            }));
        }
    }
    found
}

/// What a message is to a reader that keeps a position for each subscription, advanced by every message that matches.
struct Judged<'a> {
    name: Name,
    place: Place,
    new_for: Vec<&'a Sub>,
    /// One that it matches has had it.
    is_repeated: bool,
    /// One that it matches has not had it, and is further on.
    is_late: bool,
}

fn judge<'a>(
    socket: &'a Socket,
    places: &BTreeMap<Name, BTreeSet<Place>>,
    topics: &HashMap<Name, &Topic>,
) -> Vec<Judged<'a>> {
    let mut subs: Vec<_> = socket.subs.iter().map(|sub| (sub, sub.behind, HashSet::new())).collect();
    let mut all = Vec::new();
    for (n, (name, place)) in placed(socket, places).enumerate() {
        let mut judged = Judged { name, place, new_for: Vec::new(), is_repeated: false, is_late: false };
        let owed = |sub: &Sub| topics.get(&name).is_some_and(|topic| sub.is_owed(topic, place));
        for (sub, position, had) in subs.iter_mut().filter(|(sub, ..)| sub.from <= n && owed(sub)) {
            if !had.insert(name) {
                judged.is_repeated = true;
            } else if place < *position {
                judged.is_late = true;
            } else {
                *position = place;
                judged.new_for.push(*sub);
            }
        }
        all.push(judged);
    }
    all
}

/// Nothing comes to somebody who did not ask for it.
fn unasked(books: &Books) -> Vec<Violation> {
    let (places, topics) = (places(books), topics(books));
    let mut found = Vec::new();
    for inbox in &books.inboxes {
        for socket in &inbox.sockets {
            for (name, place) in placed(socket, &places) {
                // without a topic it is invented, which is found elsewhere
                if topics.get(&name).is_some_and(|topic| !socket.is_owed(topic, place)) {
                    found.push(Violation::Unasked { reader: inbox.reader.clone(), name, place });
                }
            }
        }
    }
    found
}

/// What one publisher sent to one topic and had acknowledged stands in the order in which it was sent.
fn inverted(books: &Books) -> Vec<Violation> {
    let mut by_topic: BTreeMap<(u32, &Topic), BTreeMap<Name, Place>> = BTreeMap::new();
    for acked in books.outboxes.iter().flat_map(|o| &o.acked) {
        by_topic.entry((acked.name.publisher, &acked.topic)).or_default().insert(acked.name, acked.place);
    }
    let mut found = Vec::new();
    for ((_, topic), acked) in by_topic {
        let acked: Vec<_> = acked.into_iter().collect();
        let pairs = acked.windows(2).filter(|pair| pair[0].1 >= pair[1].1);
        found.extend(pairs.map(|pair| Violation::Inverted {
            topic: topic.clone(),
            earlier: pair[0].0,
            later: pair[1].0,
        }));
    }
    found
}

/// Acknowledgement, delivery and journal name one position for each message, however often it was sent.
fn split(books: &Books) -> Vec<Violation> {
    let several = places(books).into_iter().filter(|(_, places)| places.len() > 1);
    several.map(|(name, places)| Violation::Split { name, places: places.into_iter().collect() }).collect()
}

/// The same bytes as they were sent, in all modes, live, on replay and after a restart.
fn altered(books: &Books) -> Vec<Violation> {
    let mut bodies: BTreeMap<Name, BTreeSet<&str>> = BTreeMap::new();
    let mut events: BTreeMap<Name, BTreeSet<&str>> = BTreeMap::new();
    for sent in books.outboxes.iter().flat_map(|o| &o.sent) {
        bodies.entry(sent.name).or_default().insert(&sent.body);
    }
    for arrival in books.inboxes.iter().flat_map(|i| i.arrivals()) {
        bodies.entry(arrival.name).or_default().insert(&arrival.body);
        if let Some(event) = &arrival.event {
            events.entry(arrival.name).or_default().insert(event);
        }
    }
    for entry in &books.journal {
        bodies.entry(entry.name).or_default().insert(&entry.body);
        events.entry(entry.name).or_default().insert(&entry.event);
    }
    let several = bodies.into_iter().chain(events).filter(|(_, forms)| forms.len() > 1);
    let owned = |forms: BTreeSet<&str>| forms.into_iter().map(str::to_owned).collect();
    several.map(|(name, forms)| Violation::Altered { name, forms: owned(forms) }).collect()
}

/// Whatever came or stands in the journal was sent, to that topic.
fn invented(books: &Books) -> Vec<Violation> {
    let sent: HashMap<Name, &Topic> =
        books.outboxes.iter().flat_map(|o| &o.sent).map(|s| (s.name, &s.topic)).collect();
    let came = books.inboxes.iter().flat_map(|i| i.arrivals()).map(|a| (a.name, a.topic.as_ref()));
    let stands = books.journal.iter().map(|e| (e.name, Some(&e.topic)));
    let is_sent = |name: &Name, topic: Option<&Topic>| {
        sent.get(name).is_some_and(|to| topic.is_none_or(|topic| topic == *to))
    };
    let wrong: BTreeSet<Name> =
        came.chain(stands).filter(|(name, topic)| !is_sent(name, *topic)).map(|(name, _)| name).collect();
    wrong.into_iter().map(|name| Violation::Invented { name }).collect()
}

/// All positions that anybody names for each message.
fn places(books: &Books) -> BTreeMap<Name, BTreeSet<Place>> {
    let acked = books.outboxes.iter().flat_map(|o| &o.acked).map(|a| (a.name, a.place));
    let came = books.inboxes.iter().flat_map(|i| i.arrivals()).filter_map(|a| Some((a.name, a.place?)));
    let stands = books.journal.iter().map(|e| (e.name, e.place));
    let mut all: BTreeMap<Name, BTreeSet<Place>> = BTreeMap::new();
    for (name, place) in acked.chain(came).chain(stands) {
        all.entry(name).or_default().insert(place);
    }
    all
}

/// Where everything was sent.
fn topics(books: &Books) -> HashMap<Name, &Topic> {
    books.outboxes.iter().flat_map(|o| &o.sent).map(|s| (s.name, &s.topic)).collect()
}

/// What came on a connection, with its position: that of the frame, or, where it came bare, that of the message.
fn placed(socket: &Socket, places: &BTreeMap<Name, BTreeSet<Place>>) -> impl Iterator<Item = (Name, Place)> {
    let place = |name| places.get(&name).and_then(|places| places.first().copied());
    socket.arrivals.iter().filter_map(move |a| Some((a.name, a.place.or_else(|| place(a.name))?)))
}
