//! What can go wrong for a client.

use crate::message::excerpt;
use crate::tls::TlsFault;
use minium_protocol::{CloseCode, ErrorCode, Position, Problem, format_duration};
use std::error::Error;
use std::time::Duration;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The base URL cannot be used.
    #[error("cannot use {url}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The base URL has no scheme; with `http://` before it, it would be one.
    #[error("{url} is no URL: say http://{url}")]
    NoScheme {
        /// What was given.
        url: String,
    },
    /// Nobody answers there.
    #[error("no server at {url}: {source}")]
    Connect {
        /// The server's base URL.
        url: String,
        /// What the network said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is to be trusted or shown by TLS cannot be used.
    #[error("cannot set up TLS: the {what} cannot be used: {reason}")]
    TlsSetup {
        /// Which part of it.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A server is there, but no TLS session with it comes about.
    #[error("{fault}: {}{}", tls_words(.fault, .url), detail_text(.detail))]
    Tls {
        /// The server's base URL.
        url: String,
        /// What is wrong.
        fault: TlsFault,
        /// More of it, in the words of who found it; may be empty.
        detail: String,
    },
    /// The server refused; the problem says why.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// The server answered something that is no problem document and no success.
    #[error("the server answered {status}: {text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
    /// The answer is not what the protocol says.
    #[error("cannot understand the server's answer to {what}: {reason}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The server closed the session with a code that says: don't come back.
    #[error("the server closed the session with {code}{}", reason_text(.reason))]
    Closed {
        /// The close code; 1005 if the server gave none.
        code: u16,
        /// The reason it gave; may be empty.
        reason: String,
    },
    /// The connection was cut, or an answer broke off.
    #[error("the connection to {url} was cut: {reason}")]
    Cut {
        /// The server's base URL.
        url: String,
        /// What the network said.
        reason: String,
    },
    /// A message came that is longer than is taken. Coming back brings it again: whoever goes on must pass it or take more.
    #[error("{what} of {bytes} bytes came, and at most {limit} are taken")]
    TooLong {
        /// What it is.
        what: String,
        /// So many bytes does it have.
        bytes: usize,
        /// So many are taken.
        limit: usize,
        /// On a durable subscription the position behind which it stands, if that is known.
        behind: Option<Position>,
    },
    /// A durable subscription got an event that does not come behind the one before. Going on would hide a loss.
    #[error("event {got} came after {last}: the order of the journal is broken")]
    OutOfOrder {
        /// The position before.
        last: Position,
        /// The position that came.
        got: Position,
    },
    /// Too many attempts to come back failed.
    #[error("gave up after {failures} attempts: {last}")]
    GaveUp {
        /// So many in a row.
        failures: u32,
        /// How the last one failed.
        last: Box<ClientError>,
    },
    /// What was waited for did not come in time.
    #[error("{what} did not come within {}", rounded(.limit))]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The client was closed by its owner.
    #[error("the client is closed")]
    ClientClosed,
}

/// For people: nobody wants to read how long the last waits of many took to the nanosecond.
fn rounded(limit: &Duration) -> String {
    format_duration(Duration::from_millis((limit.as_secs_f64() * 1_000.0).round() as u64))
}

fn reason_text(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({})", excerpt(reason)) }
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

fn tls_words(fault: &TlsFault, url: &str) -> String {
    match fault {
        TlsFault::UnknownAuthority => {
            format!("no authority that is trusted here issued the certificate of {url}")
        }
        TlsFault::WrongName => format!("the certificate of {url} is for another name or address"),
        TlsFault::Expired => format!("the certificate of {url} has expired"),
        TlsFault::NotYetValid => format!("the certificate of {url} is not valid yet"),
        TlsFault::Certificate => format!("the certificate of {url} cannot be accepted"),
        TlsFault::Refused => {
            format!("{url} does not accept the certificate that was shown, or that none was")
        }
        TlsFault::NotSpoken => format!("{url} does not speak TLS"),
        TlsFault::Wanted => format!("{url} speaks TLS only"),
        TlsFault::Failed => format!("no TLS session with {url} comes about"),
    }
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> ClientError {
        ClientError::Problem(Box::new(problem))
    }
}

impl ClientError {
    /// What is wrong with a server's TLS. The detail may hold what the other side chose.
    pub(crate) fn tls(url: &str, fault: TlsFault, detail: &str) -> ClientError {
        ClientError::Tls { url: url.into(), fault, detail: excerpt(detail) }
    }

    /// The same once more, for everybody who waits for the same thing.
    pub(crate) fn again(&self) -> ClientError {
        match self {
            ClientError::Url { url, reason } => ClientError::Url { url: url.clone(), reason: reason.clone() },
            ClientError::NoScheme { url } => ClientError::NoScheme { url: url.clone() },
            ClientError::Connect { url, source } => {
                ClientError::Connect { url: url.clone(), source: source.to_string().into() }
            }
            ClientError::TlsSetup { what, reason } => ClientError::TlsSetup { what, reason: reason.clone() },
            ClientError::Tls { url, fault, detail } => {
                ClientError::Tls { url: url.clone(), fault: *fault, detail: detail.clone() }
            }
            ClientError::Problem(problem) => ClientError::Problem(problem.clone()),
            ClientError::Status { status, text } => {
                ClientError::Status { status: *status, text: text.clone() }
            }
            ClientError::Answer { what, reason } => {
                ClientError::Answer { what: what.clone(), reason: reason.clone() }
            }
            ClientError::Closed { code, reason } => {
                ClientError::Closed { code: *code, reason: reason.clone() }
            }
            ClientError::Cut { url, reason } => ClientError::Cut { url: url.clone(), reason: reason.clone() },
            ClientError::TooLong { what, bytes, limit, behind } => {
                ClientError::TooLong { what: what.clone(), bytes: *bytes, limit: *limit, behind: *behind }
            }
            ClientError::OutOfOrder { last, got } => ClientError::OutOfOrder { last: *last, got: *got },
            ClientError::GaveUp { failures, last } => {
                ClientError::GaveUp { failures: *failures, last: Box::new(last.again()) }
            }
            ClientError::Timeout { what, limit } => {
                ClientError::Timeout { what: what.clone(), limit: *limit }
            }
            ClientError::ClientClosed => ClientError::ClientClosed,
        }
    }

    /// The problem, if the server gave one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem(problem) => Some(problem),
            ClientError::GaveUp { last, .. } => last.problem(),
            _ => None,
        }
    }

    /// The stable word for what went wrong, where the protocol has one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Problem(problem) => Some(problem.code),
            ClientError::GaveUp { last, .. } => last.code(),
            ClientError::Timeout { .. } => Some(ErrorCode::Timeout),
            ClientError::TooLong { .. } => Some(ErrorCode::PayloadTooLarge),
            ClientError::Closed { code, .. } => code_of_close(*code),
            ClientError::Status { status, .. } => code_of_status(*status),
            _ => None,
        }
    }

    /// What is wrong with TLS, if that is it.
    pub fn tls_fault(&self) -> Option<TlsFault> {
        match self {
            ClientError::Tls { fault, .. } => Some(*fault),
            ClientError::GaveUp { last, .. } => last.tls_fault(),
            _ => None,
        }
    }

    /// Is it that nobody answers, or no longer, or nobody with whom we may speak?
    pub fn is_connection(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Cut { .. } | ClientError::Tls { .. } => true,
            ClientError::GaveUp { last, .. } => last.is_connection(),
            ClientError::Closed { code, .. } => CloseCode::reconnect(*code),
            _ => false,
        }
    }

    /// Is it that nobody is there to do it now: no server, or one that is there in vain?
    pub fn is_away(&self) -> bool {
        self.is_connection() || self.code() == Some(ErrorCode::Unavailable)
    }

    /// The exit code that command lines end with: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 no
    /// connection, 6 schema, 7 conflict, 8 time-out.
    pub fn exit_code(&self) -> u8 {
        match self.tls_fault() {
            Some(TlsFault::NotSpoken | TlsFault::Wanted) => return 2,
            Some(TlsFault::Refused) => return 4,
            _ => {}
        }
        if self.is_connection() {
            return 5;
        }
        if matches!(
            self,
            ClientError::Url { .. } | ClientError::NoScheme { .. } | ClientError::TlsSetup { .. }
        ) {
            return 2;
        }
        match self.code() {
            Some(ErrorCode::SchemaViolation) => 6,
            Some(ErrorCode::TopicInvalid | ErrorCode::InvalidJson | ErrorCode::InvalidRequest) => 2,
            Some(ErrorCode::NotFound) => 3,
            Some(ErrorCode::Unauthorized | ErrorCode::Forbidden) => 4,
            Some(ErrorCode::Conflict | ErrorCode::LeaseLost) => 7,
            Some(ErrorCode::Timeout) => 8,
            Some(ErrorCode::Unavailable) => 5,
            _ => 1,
        }
    }

    /// May the same thing work a little later with a server that was reached before? Decides whether a subscription comes
    /// back. What is wrong with the TLS of a server that was never reached is most likely wrong with what we were told.
    pub(crate) fn is_passing_for(&self, reached: bool) -> bool {
        self.is_passing() || reached && matches!(self, ClientError::Tls { fault, .. } if fault.is_passing())
    }

    /// May the same thing work a little later?
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Cut { .. } => true,
            ClientError::Problem(problem) => problem.retryable,
            ClientError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            ClientError::Closed { code, .. } => CloseCode::reconnect(*code),
            _ => false,
        }
    }
}

fn code_of_close(code: u16) -> Option<ErrorCode> {
    match code {
        1003 | 1007 => Some(ErrorCode::InvalidJson),
        1008 | 4503 => Some(ErrorCode::Forbidden),
        1009 => Some(ErrorCode::PayloadTooLarge),
        4029 => Some(ErrorCode::RateLimited),
        4501 => Some(ErrorCode::Unauthorized),
        4504 => Some(ErrorCode::NotFound),
        _ => None,
    }
}

fn code_of_status(status: u16) -> Option<ErrorCode> {
    match status {
        401 => Some(ErrorCode::Unauthorized),
        403 => Some(ErrorCode::Forbidden),
        404 => Some(ErrorCode::NotFound),
        408 | 504 => Some(ErrorCode::Timeout),
        409 => Some(ErrorCode::Conflict),
        413 => Some(ErrorCode::PayloadTooLarge),
        429 => Some(ErrorCode::RateLimited),
        502 | 503 => Some(ErrorCode::Unavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_exit_code() {
        let problem = |code| ClientError::from(Problem::new(code, "x")).exit_code();
        assert_eq!(problem(ErrorCode::SchemaViolation), 6);
        assert_eq!(problem(ErrorCode::NotFound), 3);
        assert_eq!(problem(ErrorCode::Forbidden), 4);
        assert_eq!(problem(ErrorCode::Conflict), 7);
        assert_eq!(problem(ErrorCode::Timeout), 8);
        assert_eq!(problem(ErrorCode::TopicInvalid), 2);
        assert_eq!(problem(ErrorCode::PayloadTooLarge), 1);
        let cut = ClientError::Cut { url: "u".into(), reason: "reset".into() };
        assert_eq!(ClientError::GaveUp { failures: 3, last: Box::new(cut) }.exit_code(), 5);
        let closed = |code| ClientError::Closed { code, reason: String::new() }.exit_code();
        assert_eq!((closed(1001), closed(4503), closed(1009)), (5, 4, 1));
        let late = ClientError::Timeout { what: "job 1".into(), limit: Duration::from_nanos(999_987_507) };
        assert_eq!((late.exit_code(), late.to_string().as_str()), (8, "job 1 did not come within 1s"));
        assert_eq!(ClientError::Status { status: 401, text: "Origin check failed".into() }.exit_code(), 4);
        let tls = |fault| ClientError::tls("https://h", fault, "");
        assert_eq!(tls(TlsFault::Wanted).exit_code(), 2);
        assert_eq!(tls(TlsFault::Refused).exit_code(), 4);
        assert_eq!(tls(TlsFault::Expired).exit_code(), 5);
        assert_eq!(ClientError::TlsSetup { what: "key", reason: "no PEM".into() }.exit_code(), 2);
    }

    #[test]
    fn a_fault_of_tls_is_told_with_its_code() {
        let says = |fault| ClientError::tls("https://h:1", fault, "as\nit was told").to_string();
        for fault in TlsFault::ALL {
            let said = says(*fault);
            assert!(
                said.starts_with(&format!("{}: ", fault.code())) && said.contains("https://h:1"),
                "{said}"
            );
            assert!(said.ends_with(" (as it was told)"), "{said}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(ClientError::from(Problem::new(ErrorCode::Unavailable, "starting")).is_passing());
        assert!(!ClientError::from(Problem::new(ErrorCode::EpochChanged, "anew")).is_passing());
        let tls = |fault, reached| ClientError::tls("https://h", fault, "").is_passing_for(reached);
        assert!(tls(TlsFault::Expired, true) && !tls(TlsFault::Expired, false));
        assert!(!tls(TlsFault::UnknownAuthority, true) && !tls(TlsFault::Refused, true));
        assert!(ClientError::Status { status: 502, text: String::new() }.is_passing());
        assert!(!ClientError::Status { status: 404, text: String::new() }.is_passing());
        assert!(
            !ClientError::OutOfOrder {
                last: Position { epoch: 1, offset: 2 },
                got: Position { epoch: 1, offset: 1 }
            }
            .is_passing()
        );
    }
}
