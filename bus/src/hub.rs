//! (being written)
use std::sync::atomic::AtomicUsize;
#[derive(Debug, Default)]
pub(crate) struct Hub { pub(crate) sessions: AtomicUsize }
