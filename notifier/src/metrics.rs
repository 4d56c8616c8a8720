//! The notifier's metrics: their names, and what they mean.

use metrics::{Unit, describe_counter, describe_gauge};

/// Entries of the journal that are not yet on the bus of this node, with and without an offset.
pub const JOURNAL_LAG_EVENTS: &str = "minium_notifier_journal_lag_events";
/// Age of the oldest entry that is not yet on the bus of this node; 0 when all are.
pub const JOURNAL_LAG_SECONDS: &str = "minium_notifier_journal_lag_seconds";
/// 1 while this node is too far behind, so that claims are slowed.
pub const RELAY_BEHIND: &str = "minium_notifier_relay_behind";
/// Entries that this node numbered.
pub const ENTRIES_NUMBERED: &str = "minium_notifier_entries_numbered_total";
/// Entries that this node relayed to its bus.
pub const ENTRIES_RELAYED: &str = "minium_notifier_entries_relayed_total";
/// Messages of clients that this node committed.
pub const MESSAGES_KEPT: &str = "minium_notifier_messages_kept_total";
/// Calls to keep messages that this node answered with a problem.
pub const KEEPS_FAILED: &str = "minium_notifier_keeps_failed_total";
/// Entries that retention let go of, by this node.
pub const ENTRIES_TRIMMED: &str = "minium_notifier_entries_trimmed_total";
/// Recorders that are registered.
pub const RECORDERS: &str = "minium_notifier_recorders";
/// How long ago the most silent of them was heard of.
pub const RECORDERS_SILENCE: &str = "minium_notifier_recorders_silence_seconds";
/// Entries behind what the recorder has confirmed that is farthest behind, as far as the relay is; 0 where all have all.
pub const RECORDERS_BEHIND: &str = "minium_notifier_recorders_behind_entries";
/// Age of the oldest entry that a recorder follows and has not confirmed; 0 where there is none.
pub const RECORDERS_BEHIND_SECONDS: &str = "minium_notifier_recorders_behind_seconds";
/// So many entries beyond its retention does a channel keep for recorders.
pub const RECORDERS_HOLD: &str = "minium_notifier_recorders_hold_entries";
/// So much longer than its retention says does a channel keep entries for recorders.
pub const RECORDERS_HOLD_SECONDS: &str = "minium_notifier_recorders_hold_seconds";
/// Entries that were let go of although a recorder had not confirmed them.
pub const RECORDERS_OVERRUN: &str = "minium_notifier_recorders_overrun_total";
/// Events that became deliveries of a sink, by this node.
pub const SINKS_EVENTS: &str = "minium_sinks_events_total";
/// Age of the oldest event that nobody has made a delivery of yet, by sink. Every node that has the sink tells it, whoever follows.
pub const SINKS_LAG: &str = "minium_sinks_lag_seconds";
/// Offsets that were gone before this node relayed them: it lagged behind retention, or somebody deleted by hand.
pub const JOURNAL_HOLES: &str = "minium_notifier_journal_holes_total";
/// Attempts to reach the journal that failed.
pub const RELAY_FAILURES: &str = "minium_notifier_relay_failures_total";
/// 1 while this node numbers the journal, 0 while another does.
pub const SEQUENCER_LEADER: &str = "minium_notifier_sequencer_leader";

/// Sessions of this node that pull jobs.
pub const PULLERS: &str = "minium_notifier_pullers";
/// Claims that this node made for its pullers.
pub const CLAIMS: &str = "minium_notifier_claims_total";
/// Jobs that these claims brought.
pub const JOBS_PULLED: &str = "minium_notifier_jobs_pulled_total";
/// Jobs among them that were given back, since their session was gone.
pub const JOBS_RELEASED: &str = "minium_notifier_jobs_released_total";
/// What pullers said about their jobs, by `word` and `answer`.
pub const WORDS: &str = "minium_notifier_words_total";

/// Counts words with their answers, alike ones together.
pub(crate) fn count_words(metric: &'static str, words: impl Iterator<Item = (&'static str, &'static str)>) {
    let mut counts = std::collections::BTreeMap::new();
    words.for_each(|labels| *counts.entry(labels).or_insert(0u64) += 1);
    for ((word, answer), n) in counts {
        metrics::counter!(metric, "word" => word, "answer" => answer).increment(n);
    }
}

/// Tells the recorder what the names mean.
pub fn describe() {
    describe_gauge!(JOURNAL_LAG_EVENTS, Unit::Count, "Entries that are not yet on this node's bus.");
    describe_gauge!(
        JOURNAL_LAG_SECONDS,
        Unit::Seconds,
        "Age of the oldest entry that is not yet on this node's bus."
    );
    describe_gauge!(RELAY_BEHIND, Unit::Count, "1 while this node is so far behind that claims are slowed.");
    describe_counter!(ENTRIES_NUMBERED, Unit::Count, "Entries that this node numbered.");
    describe_counter!(ENTRIES_RELAYED, Unit::Count, "Entries that this node relayed to its bus.");
    describe_counter!(MESSAGES_KEPT, Unit::Count, "Messages of clients that this node committed.");
    describe_counter!(KEEPS_FAILED, Unit::Count, "Calls to keep messages that failed.");
    describe_counter!(ENTRIES_TRIMMED, Unit::Count, "Entries that retention let go of.");
    describe_gauge!(RECORDERS, Unit::Count, "Recorders that are registered.");
    describe_gauge!(RECORDERS_SILENCE, Unit::Seconds, "How long ago the most silent recorder was heard of.");
    describe_gauge!(
        RECORDERS_BEHIND,
        Unit::Count,
        "Entries behind what the recorder that is farthest behind has confirmed."
    );
    describe_gauge!(
        RECORDERS_BEHIND_SECONDS,
        Unit::Seconds,
        "Age of the oldest entry that a recorder follows and has not confirmed."
    );
    describe_gauge!(RECORDERS_HOLD, Unit::Count, "Entries that a channel keeps for recorders at most.");
    describe_gauge!(
        RECORDERS_HOLD_SECONDS,
        Unit::Seconds,
        "For so long beyond its retention a channel keeps entries for recorders."
    );
    describe_counter!(
        RECORDERS_OVERRUN,
        Unit::Count,
        "Entries that were let go of although a recorder had not confirmed them."
    );
    describe_counter!(SINKS_EVENTS, Unit::Count, "Events that became deliveries of a sink.");
    describe_gauge!(SINKS_LAG, Unit::Seconds, "Age of the oldest event that waits for a sink's follower.");
    describe_counter!(JOURNAL_HOLES, Unit::Count, "Offsets that were missing in the journal.");
    describe_counter!(RELAY_FAILURES, Unit::Count, "Attempts to reach the journal that failed.");
    describe_gauge!(PULLERS, Unit::Count, "Sessions of this node that pull jobs.");
    describe_counter!(CLAIMS, Unit::Count, "Claims that this node made for its pullers.");
    describe_counter!(JOBS_PULLED, Unit::Count, "Jobs that were claimed for pullers.");
    describe_counter!(JOBS_RELEASED, Unit::Count, "Jobs that were given back, since their session was gone.");
    describe_counter!(WORDS, Unit::Count, "What pullers said about their jobs, by word and answer.");
    describe_gauge!(SEQUENCER_LEADER, Unit::Count, "1 while this node numbers the journal.");
}
