//! Who the sessions of a shard are: what is told of them, and how one of them is found by its number.
//!
//! Kept beside the sessions, not in them, in the same order: a list reads it from end to end, and ten thousand quiet
//! sessions are not touched for it.

use crate::encode::Encoding;
use crate::hub::Hub;
use crate::opening::Role;
use crate::session::Session;
use crate::shard::Shard;
use jiff::Timestamp;
use minium_protocol::{CloseCode, Verb};
use std::net::{IpAddr, SocketAddr};
use tracing::{debug_span, field};

/// What a shard keeps of one session for lists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    id: u64,
    since_ms: i64,
    ip: Option<IpAddr>,
    port: u16,
    role: Role,
}

/// A session as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its number: rising in the order of opening, unlike any other of this node, also of its earlier starts.
    pub id: u64,
    /// `plain`, `cloudevents`, `minium.v1` or `sse`.
    pub mode: &'static str,
    /// What it does; nothing when it does several things, or none yet.
    pub verb: Option<Verb>,
    /// With what: filters and topics, each with its verb. A part of them when there are many.
    pub filters: Vec<(Verb, String)>,
    /// How many there are beyond those.
    pub more_filters: usize,
    /// Where its client is; nothing for the node's own.
    pub remote: Option<SocketAddr>,
    /// Whom its token names.
    pub subject: Option<String>,
    /// When it was opened.
    pub since: Timestamp,
    /// It reads history, or has much of what was sent still to get.
    pub behind: bool,
    /// Messages and jobs that it was given.
    pub sent: u64,
    /// Messages and words that it said.
    pub received: u64,
}

/// Of one session at most so many filters are told.
const FILTERS_MAX: usize = 20;

impl Seat {
    /// The next number is its.
    pub(crate) fn new(hub: &Hub, role: Role, remote: Option<SocketAddr>) -> Seat {
        Seat {
            id: hub.next_session(),
            since_ms: Timestamp::now().as_millisecond(),
            ip: remote.map(|remote| remote.ip()),
            port: remote.map_or(0, |remote| remote.port()),
            role,
        }
    }

    /// What is logged of a session stands in this. It is made when it is needed, and only where such lines are logged: a session
    /// that is idle shall cost nothing for it.
    pub(crate) fn span(&self) -> tracing::Span {
        let remote_addr = self.ip.map(|ip| field::display(SocketAddr::new(ip, self.port)));
        debug_span!("session", session_id = self.id, remote_addr)
    }

    fn view(&self, session: &Session) -> Option<SessionView> {
        let told = session.told(FILTERS_MAX)?;
        let role = match self.role {
            Role::Publish => Some(Verb::Pub),
            Role::Subscribe => Some(Verb::Sub),
            Role::Push => Some(Verb::Push),
            Role::Pull { .. } => Some(Verb::Pull),
            Role::Peer { .. } => Some(Verb::Bus),
            Role::Talk => None,
        };
        Some(SessionView {
            id: self.id,
            mode: match session.encoding() {
                Encoding::Plain => "plain",
                Encoding::CloudEvents => "cloudevents",
                Encoding::V1 => "minium.v1",
                Encoding::Sse => "sse",
            },
            verb: role.filter(|verb| told.filters.iter().all(|(other, _)| other == verb)),
            filters: told.filters,
            more_filters: told.more_filters,
            remote: self.ip.map(|ip| SocketAddr::new(ip, self.port)),
            subject: session.grant().map(|grant| grant.subject.clone()),
            since: Timestamp::from_millisecond(self.since_ms).unwrap_or(Timestamp::UNIX_EPOCH),
            behind: told.behind,
            sent: told.sent,
            received: told.received,
        })
    }
}

impl Shard {
    /// Its first sessions behind a number, by rising numbers, without those that are closing; and the number up to which
    /// that is all, where there are more behind it.
    pub(crate) fn list_sessions(&self, after: u64, count_max: usize) -> (Vec<SessionView>, Option<u64>) {
        let (seats, sessions) = (self.seats.borrow(), self.sessions.borrow());
        let behind = seats.iter().zip(sessions.iter()).filter(|(seat, _)| seat.id > after);
        let mut found: Vec<_> = behind.collect();
        let more = found.len() > count_max;
        if more {
            found.select_nth_unstable_by_key(count_max, |(seat, _)| seat.id);
            found.truncate(count_max);
        }
        found.sort_unstable_by_key(|(seat, _)| seat.id);
        let until = found.last().filter(|_| more).map(|(seat, _)| seat.id);
        (found.into_iter().filter_map(|(seat, session)| seat.view(session)).collect(), until)
    }

    /// Closes the session with this number, if it is here and open.
    pub(crate) fn close_session(&self, id: u64, code: CloseCode, reason: &str) -> bool {
        let place = self.seats.borrow().iter().position(|seat| seat.id == id);
        let session = place.and_then(|place| self.sessions.borrow().get(place).cloned());
        let Some(session) = session.filter(|session| session.is_open()) else { return false };
        session.close(code, reason);
        true
    }
}
