//! What Minion::Notifier's listeners get: `[42,"finished"]`, for four kinds of events.

use minium_protocol::EventType;

/// A transition as Minion::Notifier says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) job: i64,
    pub(crate) word: &'static str,
}

impl Action {
    /// Of an entry, if it is of such a kind.
    pub(crate) fn of(kind: &str, subject: &str) -> Option<Action> {
        let word = EventType::parse(kind)?.minion_action()?;
        Some(Action { job: subject.parse().ok()?, word })
    }

    /// As it goes over the wire.
    pub(crate) fn message(self) -> String {
        format!("[{},\"{}\"]", self.job, self.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_kinds_are_said_in_minions_words() {
        let said: Vec<_> =
            EventType::ALL.iter().filter_map(|t| Action::of(t.as_str(), "42").map(Action::message)).collect();
        assert_eq!(
            said,
            [r#"[42,"enqueue"]"#, r#"[42,"dequeue"]"#, r#"[42,"finished"]"#, r#"[42,"failed"]"#]
        );
    }

    #[test]
    fn what_is_no_job_is_not_said() {
        assert_eq!(Action::of("message", "livesys/7"), None);
        assert_eq!(Action::of("task.finished", "livesys"), None);
    }
}
