//! Scopes: what a token allows, one verb on one pattern of topics each.
//!
//! `sub:livesys/+` allows to subscribe `livesys/7` and everything below it. A pattern covers what it matches and
//! all below, as a subscription does, for every verb: who may push to `import` may push to `import/big`.

use crate::topic::{Filter, TopicError};
use std::fmt;
use std::str::FromStr;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Subscribe, and read history.
    Sub,
    /// Publish.
    Pub,
    /// Hand out work.
    Push,
    /// Take work.
    Pull,
    /// Be a peer.
    Bus,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 5] = [Verb::Sub, Verb::Pub, Verb::Push, Verb::Pull, Verb::Bus];

    /// The word before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Sub => "sub",
            Verb::Pub => "pub",
            Verb::Push => "push",
            Verb::Pull => "pull",
            Verb::Bus => "bus",
        }
    }
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One verb, on what a pattern covers.
    On(Verb, Filter),
    /// See jobs, figures and lists: `jobs:read`.
    JobsRead,
    /// Enqueue, change and remove jobs: `jobs:write`.
    JobsWrite,
    /// Everything.
    Admin,
}

/// A scope that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No such word.
    #[error(
        "{0:?} is no scope; there are sub:, pub:, push:, pull: and bus: with a topic, jobs:read, jobs:write and admin"
    )]
    Unknown(String),
    /// The pattern breaks a rule of topics.
    #[error("the topic of the scope {0:?} is not valid: {1}")]
    Topic(String, TopicError),
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        let short = || text.chars().take(80).collect::<String>();
        match text {
            "jobs:read" => return Ok(Scope::JobsRead),
            "jobs:write" => return Ok(Scope::JobsWrite),
            "admin" => return Ok(Scope::Admin),
            _ => {}
        }
        let (word, pattern) = text.split_once(':').ok_or_else(|| ScopeError::Unknown(short()))?;
        let verb = Verb::ALL.into_iter().find(|v| v.as_str() == word);
        let verb = verb.ok_or_else(|| ScopeError::Unknown(short()))?;
        let pattern = pattern.parse().map_err(|e| ScopeError::Topic(short(), e))?;
        Ok(Scope::On(verb, pattern))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::On(verb, pattern) => write!(f, "{}:{}", verb.as_str(), pattern.as_str()),
            Scope::JobsRead => f.write_str("jobs:read"),
            Scope::JobsWrite => f.write_str("jobs:write"),
            Scope::Admin => f.write_str("admin"),
        }
    }
}

/// All that somebody may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Everything.
    pub fn all() -> Scopes {
        Scopes(vec![Scope::Admin])
    }

    /// Is nothing allowed at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// May `verb` be done on everything that `filter` reaches? A topic is a filter without `+`.
    pub fn allow(&self, verb: Verb, filter: &Filter) -> bool {
        self.0.iter().any(|scope| match scope {
            Scope::Admin => true,
            Scope::On(v, pattern) => *v == verb && pattern.covers(filter),
            Scope::JobsRead | Scope::JobsWrite => false,
        })
    }

    /// May jobs be seen? Who may change them may.
    pub fn allow_jobs_read(&self) -> bool {
        self.0.iter().any(|s| matches!(s, Scope::Admin | Scope::JobsRead | Scope::JobsWrite))
    }

    /// May jobs be changed?
    pub fn allow_jobs_write(&self) -> bool {
        self.0.iter().any(|s| matches!(s, Scope::Admin | Scope::JobsWrite))
    }

    /// May everything be done?
    pub fn allow_admin(&self) -> bool {
        self.0.contains(&Scope::Admin)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Scopes {
        Scopes(scopes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scopes(text: &str) -> Scopes {
        text.split_whitespace().map(|s| s.parse().unwrap()).collect()
    }

    fn may(text: &str, verb: Verb, filter: &str) -> bool {
        scopes(text).allow(verb, &filter.parse().unwrap())
    }

    #[test]
    fn a_pattern_covers_what_it_matches_and_all_below() {
        assert!(may("sub:livesys/+", Verb::Sub, "livesys/7"));
        assert!(may("sub:livesys/+", Verb::Sub, "livesys/7/power"));
        assert!(may("sub:livesys/+", Verb::Sub, "livesys/+"));
        assert!(!may("sub:livesys/+", Verb::Sub, "livesys"));
        assert!(!may("sub:livesys/7", Verb::Sub, "livesys/+"));
        assert!(!may("sub:livesys/7", Verb::Sub, "livesys/77"));
        assert!(may("pub:livesys/7", Verb::Pub, "livesys/7"));
        assert!(!may("pub:livesys/7", Verb::Sub, "livesys/7"));
        assert!(may("bus:ops push:import", Verb::Push, "import/big"));
        assert!(may("sub:+", Verb::Sub, "anything/at/all"));
        assert!(may("admin", Verb::Pull, "x"));
        assert!(!may("jobs:write", Verb::Pull, "x"));
        assert!(!may("", Verb::Sub, "x"));
    }

    #[test]
    fn who_may_change_jobs_may_see_them() {
        assert!(scopes("jobs:write").allow_jobs_read() && !scopes("jobs:read").allow_jobs_write());
        assert!(scopes("admin").allow_jobs_write() && !scopes("jobs:write").allow_admin());
        assert!(Scopes::all().allow_admin() && Scopes::default().is_empty());
    }

    #[test]
    fn what_is_no_scope_is_named() {
        for bad in ["", "sub", "sub:", "sub:a//b", "read:jobs", "jobs:all", "Admin", "sub:a b"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        for good in ["sub:livesys/+", "jobs:read", "admin", "bus:ops"] {
            assert_eq!(good.parse::<Scope>().unwrap().to_string(), good);
        }
    }

    proptest! {
        /// Nobody hears by a subscription that a scope allows what the scope's own pattern would not match.
        #[test]
        fn covering_is_sound(
            pattern in prop::collection::vec("a|b|\\+", 1..4).prop_map(|s| s.join("/")),
            filter in prop::collection::vec("a|b|\\+", 1..4).prop_map(|s| s.join("/")),
            topic in prop::collection::vec("a|b|c", 1..5).prop_map(|s| s.join("/")),
        ) {
            let (pattern, filter): (Filter, Filter) = (pattern.parse().unwrap(), filter.parse().unwrap());
            let topic = topic.parse().unwrap();
            if pattern.covers(&filter) && filter.matches(&topic) {
                prop_assert!(pattern.matches(&topic));
            }
        }
    }
}
