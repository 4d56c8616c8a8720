//! Problems: every refusal, on HTTP as RFC 9457 and on sockets under the key `problem`.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a listener that speaks TLS answers, with status 400 and as plain text, to who speaks plain HTTP. Clients know it by
/// these words.
pub const TLS_ONLY: &str = "this port speaks TLS only: ask by https:// or wss://";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal $status:ident $retry:literal $title:literal;)*) => {
        /// What went wrong, in one stable word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// All codes, for documents and their tests.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code as it goes over the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self { $(ErrorCode::$name => StatusCode::$status,)* }
            }

            /// May the same request succeed later?
            pub fn retryable(self) -> bool {
                match self { $(ErrorCode::$name => $retry,)* }
            }

            /// The same for everybody, for people to read.
            pub fn title(self) -> &'static str {
                match self { $(ErrorCode::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The message or the arguments break their schema; `errors` says where.
    SchemaViolation = "schema_violation" UNPROCESSABLE_ENTITY false "The message does not fit its schema";
    /// The topic breaks a rule; `detail` says which.
    TopicInvalid = "topic_invalid" BAD_REQUEST false "The topic is not valid";
    /// Not JSON where JSON is needed.
    InvalidJson = "invalid_json" BAD_REQUEST false "The message is not valid JSON";
    /// A parameter, a header or an option cannot be understood.
    InvalidRequest = "invalid_request" BAD_REQUEST false "The request cannot be understood";
    /// Above the limit on messages.
    PayloadTooLarge = "payload_too_large" PAYLOAD_TOO_LARGE false "The message is too large";
    /// No valid proof of who asks, or a foreign origin.
    Unauthorized = "unauthorized" UNAUTHORIZED false "Authentication is needed";
    /// Known, but not allowed.
    Forbidden = "forbidden" FORBIDDEN false "This is not allowed";
    /// No such thing, or no such channel.
    NotFound = "not_found" NOT_FOUND false "There is no such thing";
    /// The method does not go with the path.
    MethodNotAllowed = "method_not_allowed" METHOD_NOT_ALLOWED false "The method is not allowed here";
    /// The path speaks WebSocket.
    UpgradeRequired = "upgrade_required" UPGRADE_REQUIRED false "This path speaks WebSocket";
    /// The state of the thing forbids it.
    Conflict = "conflict" CONFLICT false "The state forbids this";
    /// The lease is gone: somebody else has the job.
    LeaseLost = "lease_lost" CONFLICT false "The lease is gone";
    /// Nobody takes this work, and the buffer is full.
    NoPuller = "no_puller" SERVICE_UNAVAILABLE true "Nobody is there to take the work";
    /// What was asked for is no longer kept.
    OffsetExpired = "offset_expired" GONE false "The position is no longer kept";
    /// The numbering began anew.
    EpochChanged = "epoch_changed" GONE false "The numbering has begun anew";
    /// Too much at once.
    RateLimited = "rate_limited" TOO_MANY_REQUESTS true "Too many requests";
    /// The server cannot do this now.
    Unavailable = "unavailable" SERVICE_UNAVAILABLE true "The service is not available now";
    /// The wait ended before what it waited for.
    Timeout = "timeout" REQUEST_TIMEOUT true "The wait has ended";
    /// No room to keep it.
    StorageFull = "storage_full" INSUFFICIENT_STORAGE true "There is no room to keep this";
    /// The sandbox that a command is to run in cannot be had on this machine.
    SandboxUnavailable = "sandbox_unavailable" SERVICE_UNAVAILABLE true "The sandbox cannot be had";
    /// A fault of ours.
    Internal = "internal" INTERNAL_SERVER_ERROR true "The server failed";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One place at which a message breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaFault {
    /// JSON pointer into the message; for arguments, into the whole `args`.
    pub pointer: String,
    /// JSON pointer into the schema.
    pub schema: String,
    /// What is wrong there.
    pub detail: String,
}

impl SchemaFault {
    /// All faults in one text, for a job's error.
    pub fn describe(faults: &[SchemaFault]) -> String {
        let place = |fault: &SchemaFault| {
            let at = if fault.pointer.is_empty() { "the arguments" } else { &fault.pointer };
            format!("{at}: {}", fault.detail)
        };
        let places: Vec<String> = faults.iter().map(place).collect();
        format!("{}: {}", ErrorCode::SchemaViolation, places.join("; "))
    }
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `/problems/<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The stable word.
    pub code: ErrorCode,
    /// May the same request succeed later?
    pub retryable: bool,
    /// Where a schema was broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<SchemaFault>,
    /// The first position that can be had, with `offset_expired` and `epoch_changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<String>,
}

impl Problem {
    /// A problem with its particular words.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("/problems/{code}"),
            title: code.title().into(),
            status: code.status().as_u16(),
            detail: Some(detail.into()),
            instance: None,
            code,
            retryable: code.retryable(),
            errors: Vec::new(),
            earliest: None,
        }
    }

    /// The frame that tells the sender on a plain or CloudEvents socket.
    pub fn frame(&self) -> String {
        serde_json::json!({ "problem": self }).to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.code),
            None => write!(f, "{}", self.code),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_word_is_what_serde_says() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_problem_reads_as_rfc_9457() {
        let p = Problem::new(ErrorCode::TopicInvalid, "segment 2 is empty");
        let json = serde_json::to_value(&p).unwrap();
        assert_eq!(json["type"], "/problems/topic_invalid");
        assert_eq!(json["status"], 400);
        assert_eq!(json["retryable"], false);
        assert!(json.get("errors").is_none());
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), p);
    }
}
