//! Who a session belongs to and what it may do, as whoever checked its token says.

use jiff::Timestamp;
use minium_protocol::{ErrorCode, Filter, Problem, Scopes, Verb};

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
}

impl Grant {
    /// May `verb` be done on everything that `filter` reaches?
    ///
    /// # Errors
    /// `forbidden`, naming the scope that is missing.
    pub fn check(&self, verb: Verb, filter: &Filter) -> Result<(), Problem> {
        if self.scopes.allow(verb, filter) {
            return Ok(());
        }
        let words = format!("{} may not {} {filter}: it has no scope for that", self.subject, verb.as_str());
        Err(Problem::new(ErrorCode::Forbidden, words))
    }
}
