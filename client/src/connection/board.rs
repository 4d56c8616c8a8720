//! How a connection is, put together from how each of its sockets is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::watch;

/// How a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing has been asked of it, so it has no socket.
    Idle,
    /// A socket is not there, for the first time or again.
    Connecting {
        /// Failures in a row.
        failures: u32,
        /// How the last one failed.
        last: Option<String>,
    },
    /// All its sockets are open.
    Open {
        /// How often a socket was opened. It grows with every return.
        opened: u64,
    },
    /// Over.
    Ended,
}

#[derive(Debug)]
pub(super) struct Board {
    sockets: Mutex<Sockets>,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct Sockets {
    /// Of each: nothing while it is open, else its failures.
    away: BTreeMap<u64, Option<(u32, Option<String>)>>,
    opened: u64,
    closed: bool,
}

impl Board {
    pub(super) fn new() -> Board {
        Board { sockets: Mutex::default(), state: watch::Sender::new(State::Idle) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn connecting(&self, socket: u64, failures: u32, last: Option<String>) {
        self.change(|s| drop(s.away.insert(socket, Some((failures, last)))));
    }

    pub(super) fn open(&self, socket: u64) {
        self.change(|s| {
            s.away.insert(socket, None);
            s.opened += 1;
        });
    }

    pub(super) fn ended(&self, socket: u64) {
        self.change(|s| drop(s.away.remove(&socket)));
    }

    /// Nothing more will be asked of it.
    pub(super) fn close(&self) {
        self.change(|s| s.closed = true);
    }

    fn change(&self, work: impl FnOnce(&mut Sockets)) {
        let mut sockets = self.sockets.lock().expect("nobody panics while holding the board");
        work(&mut sockets);
        // within the lock, so that the last change is the last one that is seen
        let state = sockets.state();
        self.state.send_if_modified(|old| std::mem::replace(old, state.clone()) != state);
    }
}

impl Sockets {
    fn state(&self) -> State {
        let worst = self.away.values().flatten().max_by_key(|(failures, _)| *failures);
        match worst {
            Some((failures, last)) => State::Connecting { failures: *failures, last: last.clone() },
            None if !self.away.is_empty() => State::Open { opened: self.opened },
            None if self.closed => State::Ended,
            None => State::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_socket_speaks_for_all() {
        let board = Board::new();
        let state = board.watch();
        let now = || state.borrow().clone();
        assert_eq!(now(), State::Idle);
        board.connecting(1, 0, None);
        assert_eq!(now(), State::Connecting { failures: 0, last: None });
        board.open(1);
        assert_eq!(now(), State::Open { opened: 1 });
        board.connecting(2, 3, Some("cut".into()));
        assert_eq!(now(), State::Connecting { failures: 3, last: Some("cut".into()) });
        board.open(2);
        assert_eq!(now(), State::Open { opened: 2 });
        board.ended(1);
        board.close();
        assert_eq!(now(), State::Open { opened: 2 });
        board.ended(2);
        assert_eq!(now(), State::Ended);
    }
}
