//! What everybody wrote down: publishers what they sent and what was acknowledged, readers what came, and the journal
//! as it stands in the end. Only data; what it must add up to stands in [`super::audit`].

use minium_protocol::{Filter, Position, Topic};
use std::fmt;

/// How a message begins, and what stands between the two numbers of its name.
const BEGINNING: &str = "{ \"publisher\":";
const BETWEEN: &str = ",\"n\": ";

/// Which message of whom. It stands in the message itself, so that no receiver has to believe a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) publisher: u32,
    pub(super) n: u32,
}

/// A position that can be compared: first by its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) offset: u64,
}

/// What a publisher wrote down.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// In the order of sending, repetitions left out.
    pub(super) sent: Vec<Sent>,
    /// In the order in which the acknowledgements came.
    pub(super) acked: Vec<Acked>,
}

/// A message that may have reached the server.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) name: Name,
    pub(super) topic: Topic,
    pub(super) body: String,
}

/// A message that the server vouched for.
#[derive(Debug, Clone)]
pub(super) struct Acked {
    pub(super) name: Name,
    pub(super) topic: Topic,
    pub(super) place: Place,
}

/// What a reader wrote down, over all of its connections.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) reader: String,
    /// It comes back exactly behind the last that it got, for each of its filters, so nothing may come twice; others come
    /// back to a position that they are sure of, and take what comes again.
    pub(super) exact: bool,
    /// What it was first promised, for each of its filters.
    pub(super) subs: Vec<Sub>,
    pub(super) sockets: Vec<Socket>,
}

/// One connection of a reader.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// What it subscribed, and the position behind which the server said that delivery begins.
    pub(super) subs: Vec<Sub>,
    pub(super) arrivals: Vec<Arrival>,
}

/// One subscription of a connection.
#[derive(Debug, Clone)]
pub(super) struct Sub {
    pub(super) filter: Filter,
    pub(super) behind: Place,
    /// So many messages had come on the connection when it began: they were for others.
    pub(super) from: usize,
}

/// A message that came.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) name: Name,
    /// In plain mode a message comes bare: then this is nothing.
    pub(super) place: Option<Place>,
    pub(super) topic: Option<Topic>,
    pub(super) body: String,
    /// The whole event, where the mode gives it.
    pub(super) event: Option<String>,
}

/// A message as it stands in the journal in the end.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) place: Place,
    pub(super) topic: Topic,
    pub(super) body: String,
    pub(super) event: String,
}

/// All ledgers of a run.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) outboxes: Vec<Outbox>,
    pub(super) inboxes: Vec<Inbox>,
    /// In the order of the journal.
    pub(super) journal: Vec<Entry>,
}

impl Inbox {
    /// Is what stands there owed to this reader, by what it was promised when it first came?
    pub(super) fn is_owed(&self, topic: &Topic, place: Place) -> bool {
        is_owed(&self.subs, topic, place)
    }

    /// All that came, over all connections.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        self.sockets.iter().flat_map(|socket| &socket.arrivals)
    }
}

impl Socket {
    /// Does one of its subscriptions cover it?
    pub(super) fn is_owed(&self, topic: &Topic, place: Place) -> bool {
        is_owed(&self.subs, topic, place)
    }
}

impl Sub {
    /// Does it cover it?
    pub(super) fn is_owed(&self, topic: &Topic, place: Place) -> bool {
        self.behind < place && self.filter.matches(topic)
    }
}

fn is_owed(subs: &[Sub], topic: &Topic, place: Place) -> bool {
    subs.iter().any(|sub| sub.is_owed(topic, place))
}

impl Name {
    /// The message that has this name. Blanks and the order of members are for those who compare bytes.
    pub(super) fn body(self, padding: &str) -> String {
        let Name { publisher, n } = self;
        format!("{BEGINNING}{publisher}{BETWEEN}{n}, \"é\":1.50, \"padding\":\"{padding}\"}}")
    }

    /// The name that stands in a message; read by hand, since some are long.
    pub(super) fn of(body: &str) -> Name {
        let read = || {
            let (publisher, rest) = body.strip_prefix(BEGINNING)?.split_once(BETWEEN)?;
            let (n, _) = rest.split_once(',')?;
            Some(Name { publisher: publisher.parse().ok()?, n: n.parse().ok()? })
        };
        read().unwrap_or_else(|| panic!("nobody sent this: {body}"))
    }

    /// The id under which it is published, however often.
    pub(super) fn id(self) -> String {
        self.to_string()
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Place {
        Place { epoch: position.epoch, offset: position.offset }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.publisher, self.n)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
