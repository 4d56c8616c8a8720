//! What can go wrong when a bus is started. Refusals of messages and requests are [`minium_protocol::Problem`]s.

use minium_protocol::ErrorCode;

/// The bus cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// A bound that leaves no room to work.
    #[error("{name} is {value}, it must be {must}")]
    Option {
        /// The field of [`Options`](crate::Options).
        name: &'static str,
        /// What it is.
        value: u64,
        /// What it must be.
        must: &'static str,
    },
    /// Not called on a tokio runtime, which history calls need.
    #[error("a bus is started on a tokio runtime")]
    NoRuntime,
    /// A shard's thread or its runtime.
    #[error("a shard's thread cannot start")]
    Thread(#[source] std::io::Error),
}

impl BusError {
    /// The stable word for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            BusError::Option { .. } => ErrorCode::InvalidRequest,
            BusError::NoRuntime | BusError::Thread(_) => ErrorCode::Internal,
        }
    }
}
