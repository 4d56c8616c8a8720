//! Who a session belongs to and what it may do, as whoever checked its token says.

use crate::allowance::Allowance;
use jiff::Timestamp;
use minium_protocol::{ErrorCode, Filter, Problem, Scopes, Verb, is_own_task};
use std::sync::Arc;

/// What is said of a grant when the rules have changed; a refusal ends its session. A session without a grant was
/// opened when everybody could do everything.
pub type Review = dyn Fn(Option<&Grant>) -> Result<(), Revoked> + Send + Sync;

/// A grant that holds no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// What vouched for it does so no more: the session is closed with 4501.
    Unauthenticated,
    /// It allows something else now: the session is closed with 4503.
    Changed,
}

/// What was granted to a session. The bus judges every topic by it and ends the session when it expires; who checked
/// the token is somebody else's business.
#[derive(Debug)]
pub struct Grant {
    /// Whom the token names; for logs and lists.
    pub subject: String,
    /// The key that vouched for it; nothing for anonymous sessions and client certificates.
    pub key: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// How many messages all sessions with this grant may send together; nothing where that has no bound.
    pub allowance: Option<Arc<Allowance>>,
}

impl Grant {
    /// May `verb` be done on everything that `filter` reaches?
    ///
    /// # Errors
    /// `forbidden`, naming the scope that is missing.
    pub fn check(&self, verb: Verb, filter: &Filter) -> Result<(), Problem> {
        if matches!(verb, Verb::Push | Verb::Pull) {
            self.check_task(filter.as_str())?;
        }
        if self.scopes.allow(verb, filter) {
            return Ok(());
        }
        let words = format!("{} may not {} {filter}: it has no scope for that", self.subject, verb.as_str());
        Err(Problem::new(ErrorCode::Forbidden, words))
    }

    /// May jobs of this task be made and taken, as far as that hangs on the task? The node's own are for `admin`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check_task(&self, task: &str) -> Result<(), Problem> {
        if !is_own_task(task) || self.scopes.allow_admin() {
            return Ok(());
        }
        let words = format!("the task {task} is the node's own: {} needs admin for it", self.subject);
        Err(Problem::new(ErrorCode::Forbidden, words))
    }

    /// May a lock of this name be taken? The node's own, below `minium/`, are for `admin`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check_lock(&self, name: &str) -> Result<(), Problem> {
        if !name.starts_with("minium/") || self.scopes.allow_admin() {
            return Ok(());
        }
        let words = format!("the lock {name} is the node's own: {} needs admin for it", self.subject);
        Err(Problem::new(ErrorCode::Forbidden, words))
    }
}
