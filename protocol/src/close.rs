//! Close codes of WebSockets, and what a client should do about each.

/// Why the server closes a session. The ranges tell a client whether to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// Done.
    Normal = 1000,
    /// The node goes down.
    GoingAway = 1001,
    /// A frame that breaks RFC 6455.
    Protocol = 1002,
    /// Not text on a JSON channel.
    Unsupported = 1003,
    /// Bad UTF-8 in a text frame.
    InvalidData = 1007,
    /// Against policy.
    Policy = 1008,
    /// A message above the limit.
    TooBig = 1009,
    /// A fault of the server.
    ServerFault = 1011,
    /// The server restarts.
    Restart = 1012,
    /// The server is overloaded.
    Overload = 1013,
    /// Fell behind: resume by position.
    FellBehind = 4000,
    /// Two pings were not answered.
    PingTimeout = 4001,
    /// The node is draining.
    Draining = 4002,
    /// Rate limited.
    RateLimited = 4029,
    /// A frame that the mode does not know.
    BadFrame = 4500,
    /// Not authenticated, or no longer.
    Unauthenticated = 4501,
    /// Not allowed.
    Forbidden = 4503,
    /// No such channel.
    UnknownChannel = 4504,
}

impl CloseCode {
    /// The code as it goes over the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Should a client that was closed with `code` come back? Unknown codes (1006 among them) say yes.
    pub fn reconnect(code: u16) -> bool {
        !matches!(code, 1000 | 1002 | 1003 | 1007 | 1008 | 1009 | 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_tell_whether_to_come_back() {
        for stay in [CloseCode::Normal, CloseCode::TooBig, CloseCode::BadFrame, CloseCode::Forbidden] {
            assert!(!CloseCode::reconnect(stay.code()), "{stay:?}");
        }
        for back in [CloseCode::GoingAway, CloseCode::Overload, CloseCode::FellBehind, CloseCode::Draining] {
            assert!(CloseCode::reconnect(back.code()), "{back:?}");
        }
        assert!(CloseCode::reconnect(1006));
    }
}
