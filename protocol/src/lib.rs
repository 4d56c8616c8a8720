//! Every word on Minium's wire, and nothing else.
//!
//! Topics and filters, positions, task events, job snapshots, enqueue requests, problems and close codes: what
//! clients, nodes and stores must agree on. The names are fixed by `docs/protocol.md`.
//!
//! ```
//! use minium_protocol::{Filter, Topic};
//! let topic: Topic = "livesys/7/power".parse().unwrap();
//! assert!("livesys".parse::<Filter>().unwrap().matches(&topic));
//! assert!("livesys/+/power".parse::<Filter>().unwrap().matches(&topic));
//! assert!(!"live".parse::<Filter>().unwrap().matches(&topic));
//! ```
//!
//! **Invariants.** No I/O, no clock, no async: every function here is pure. Nothing here knows a database, a socket
//! or an HTTP framework. Parsing never panics, whatever the bytes.
//!
//! **Allowed imports**: serde, jiff (times), uuid, percent-encoding, thiserror, http (status codes only).

mod amount;
mod close;
mod event;
mod frame;
mod job;
mod lock;
mod log;
mod own;
mod position;
mod problem;
mod readable;
mod request;
mod schedule;
mod scope;
mod topic;
mod trace;

pub use amount::{AmountError, format_duration, parse_bytes, parse_duration};
pub use close::CloseCode;
pub use event::{CloudEvent, Envelope, EventType, sequence};
pub use frame::{
    Answer, CLIENT_OPS, CREDIT_MAX, ClientFrame, ClientOp, FrameError, FrameMembers, ID_BYTES_MAX,
    REF_BYTES_MAX, TASKS_MAX, read_client_frame,
};
pub use job::{
    Job, JobResult, JobView, LeaseToken, PROGRESS_TEXT_BYTES_MAX, Phase, Progress, State, WorkerRef,
};
pub use lock::{LockExtension, LockHold, LockRequest, LockToken, LockView};
pub use log::{
    KeptLine, LOG_BYTES_MAX, LOG_LINES_MAX, LOG_TEXT_BYTES_MAX, LogLevel, LogLine, check_log, log_text,
};
pub use own::{OWN_TASKS, is_own_task, is_own_topic};
pub use position::{After, Position, PositionError};
pub use problem::{ErrorCode, Problem, SchemaFault, TLS_ONLY};
pub use readable::{JSON_LEVELS_MAX, check_json, check_members};
pub use request::{EnqueueRequest, JobOptions, JobTree, Unique, check_queue, read_jobs};
pub use schedule::{Missed, ScheduleRequest, ScheduleView};
pub use scope::{Scope, ScopeError, Scopes, Verb};
pub use topic::{Filter, Topic, TopicError, levels};
pub use trace::{TraceContext, is_traceparent};
