//! What pullers say about their jobs. Words of many go to the database together: notes first, then leases, then
//! outcomes, each kind in few statements; while one round is written, the next gathers.

use super::held::Held;
use super::options::WorkOptions;
use super::{Store, StoreSlot, notes_bytes, problem, received, unavailable};
use crate::metrics::{WORDS, count_words};
use futures::StreamExt;
use minium_bus::{Said, Saying, Word};
use minium_protocol::{ErrorCode, LeaseToken, Problem};
use minium_queue::{Annotation, Claim, Ending, Extension, Outcome, QueueError, Verdict};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Answer = Result<Said, Problem>;

/// One caller's words.
#[derive(Debug)]
pub(super) struct Say {
    pub(super) words: Vec<Word>,
    pub(super) answer: oneshot::Sender<Vec<Answer>>,
}

pub(super) async fn run(
    mut waiting: mpsc::Receiver<Say>,
    store: StoreSlot,
    held: Arc<Held>,
    options: Arc<WorkOptions>,
    end: CancellationToken,
) {
    while let Some(first) = received(&mut waiting, &end).await {
        let (mut count, mut bytes) = size(&first);
        let mut batch = vec![first];
        // one more may pass the bound: what was taken cannot be put back
        while count < options.batch_max
            && bytes < options.batch_bytes_max
            && let Ok(say) = waiting.try_recv()
        {
            let (more, larger) = size(&say);
            (count, bytes) = (count + more, bytes + larger);
            batch.push(say);
        }
        let (mut words, mut callers) = (Vec::with_capacity(count), Vec::with_capacity(batch.len()));
        for say in batch {
            callers.push((say.words.len(), say.answer));
            words.extend(say.words);
        }
        let current = store.borrow().clone();
        let answers = match current {
            Some(store) => Round { store: store.as_ref(), held: &held, options: &options }.say(&words).await,
            None => words.iter().map(|_| Err(unavailable())).collect(),
        };
        let mut answers = answers.into_iter();
        for (count, caller) in callers {
            // who is gone needs no answer
            drop(caller.send(answers.by_ref().take(count).collect()));
        }
    }
}

fn size(say: &Say) -> (usize, usize) {
    let bytes = |word: &Word| match &word.saying {
        Saying::Ack { result } => result.as_ref().map_or(0, |r| r.get().len()),
        Saying::Nack { error, .. } => error.len(),
        Saying::Note { notes, log, .. } => {
            notes_bytes(notes) + log.iter().map(|line| line.text.len()).sum::<usize>()
        }
        Saying::Extend { .. } => 0,
    };
    (say.words.len(), say.words.iter().map(bytes).sum())
}

/// One round of words.
struct Round<'a> {
    store: &'a dyn Store,
    held: &'a Held,
    options: &'a WorkOptions,
}

impl Round<'_> {
    /// One answer each, in order.
    async fn say(&self, words: &[Word]) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = words.iter().map(|_| None).collect();
        for part in parts(words) {
            let words: Vec<(usize, &Word)> = part.map(|i| (i, &words[i])).collect();
            self.say_part(&words, &mut answers).await;
        }
        let answers: Vec<Answer> =
            answers.into_iter().map(|a| a.expect("each kind of word is answered")).collect();
        count_words(WORDS, words.iter().zip(&answers).map(|(word, answer)| (kind(word), outcome(answer))));
        answers
    }

    async fn say_part(&self, words: &[(usize, &Word)], answers: &mut [Option<Answer>]) {
        let mut noted = self.note(words).await;
        // by length: one statement has one
        let mut leases: BTreeMap<Duration, Vec<(usize, &Word)>> = BTreeMap::new();
        let mut outcomes = Vec::new();
        for (i, word) in words.iter().copied() {
            match &word.saying {
                Saying::Ack { result } => outcomes.push((i, finished(word, result.as_deref()))),
                Saying::Nack { error, retry } => outcomes.push((i, failed(word, error, *retry))),
                Saying::Extend { lease } => {
                    // as long as it was given for, whatever the session pulled since
                    let span = self.held.span(word.job, word.lease).unwrap_or(*lease);
                    leases.entry(span).or_default().push((i, word));
                }
                Saying::Note { .. } => match noted.remove(&i) {
                    // the lease tells the lost from the cancelled
                    None | Some(QueueError::LeaseLost(_) | QueueError::NotFound(_)) => {
                        let span = self.held.span(word.job, word.lease);
                        let span = span.unwrap_or(self.options.foreign_lease);
                        leases.entry(span).or_default().push((i, word));
                    }
                    Some(error) => answers[i] = Some(Err(problem(&error))),
                },
            }
        }
        for (span, words) in leases {
            self.extend(span, &words, answers).await;
        }
        self.hand_in(outcomes, answers).await;
    }

    /// Writes notes, progress and log lines, those of one job in their order, and answers what went wrong.
    async fn note(&self, words: &[(usize, &Word)]) -> HashMap<usize, QueueError> {
        let mut by_job: BTreeMap<i64, Vec<(usize, LeaseToken, Annotation)>> = BTreeMap::new();
        for (i, word) in words {
            if let Saying::Note { notes, progress, log } = &word.saying {
                let (notes, progress, log) = (notes.clone(), progress.clone(), log.clone());
                let annotation = Annotation { notes, progress, log };
                by_job.entry(word.job).or_default().push((*i, word.lease, annotation));
            }
        }
        let write = |(job, notes): (i64, Vec<(usize, LeaseToken, Annotation)>)| async move {
            let mut failed = Vec::new();
            for (i, lease, annotation) in notes {
                failed.extend(self.store.annotate(job, Some(lease), &annotation).await.err().map(|e| (i, e)));
            }
            failed
        };
        let at_once = self.options.notes_at_once.max(1);
        let written = futures::stream::iter(by_job).map(write).buffer_unordered(at_once);
        written.collect::<Vec<_>>().await.into_iter().flatten().collect()
    }

    async fn extend(&self, span: Duration, words: &[(usize, &Word)], answers: &mut [Option<Answer>]) {
        let leases: Vec<_> = words.iter().map(|(_, word)| (word.job, word.lease)).collect();
        match self.store.extend(&leases, span).await {
            Ok(extensions) => {
                for ((i, word), extension) in words.iter().zip(extensions) {
                    answers[*i] = Some(match extension {
                        Extension::Until(until) => {
                            self.held.extended(word.job, word.lease, span, Instant::now());
                            Ok(Said::Until(until))
                        }
                        Extension::Cancelled => Ok(Said::Cancelled),
                        Extension::Later => Err(problem(&QueueError::Busy {
                            attempted: "extend a lease that is being changed",
                        })),
                        Extension::Lost => {
                            self.held.end(word.job, word.lease);
                            Err(lease_lost(word.job))
                        }
                    });
                }
            }
            Err(error) => {
                words.iter().for_each(|(i, _)| answers[*i] = Some(Err(problem(&error))));
            }
        }
    }

    /// Hands outcomes in. If one of them cannot be stored, the others go in all the same: the batch is halved until the
    /// culprit stands alone.
    async fn hand_in(&self, outcomes: Vec<(usize, Outcome)>, answers: &mut [Option<Answer>]) {
        let mut open = vec![outcomes];
        while let Some(mut batch) = open.pop() {
            if batch.is_empty() {
                continue;
            }
            let offered: Vec<Outcome> = batch.iter().map(|(_, outcome)| outcome.clone()).collect();
            match self.store.exchange(&offered, &Claim::nothing()).await {
                Ok(exchanged) => {
                    for ((i, outcome), verdict) in batch.iter().zip(exchanged.verdicts) {
                        answers[*i] = Some(self.judged(outcome, verdict));
                    }
                }
                Err(error) if error.is_refusal() && batch.len() > 1 => {
                    let rest = batch.split_off(batch.len() / 2);
                    open.extend([rest, batch]); // the earlier ones first
                }
                Err(error) => batch.iter().for_each(|(i, _)| answers[*i] = Some(Err(problem(&error)))),
            }
        }
    }

    fn judged(&self, outcome: &Outcome, verdict: Verdict) -> Answer {
        match verdict {
            Verdict::Unjudged => Err(unavailable()),
            Verdict::Accepted | Verdict::Repeated => {
                self.held.end(outcome.job, outcome.lease);
                Ok(Said::Done)
            }
            Verdict::LeaseLost => {
                self.held.end(outcome.job, outcome.lease);
                Err(lease_lost(outcome.job))
            }
        }
    }
}

/// Where the words must be parted, so that none overtakes an outcome of the same job.
fn parts(words: &[Word]) -> Vec<std::ops::Range<usize>> {
    let (mut parts, mut from, mut ended) = (Vec::new(), 0, HashSet::new());
    for (i, word) in words.iter().enumerate() {
        let is_outcome = matches!(word.saying, Saying::Ack { .. } | Saying::Nack { .. });
        if !is_outcome && ended.contains(&word.job) {
            parts.push(from..i);
            from = i;
            ended.clear();
        }
        if is_outcome {
            ended.insert(word.job);
        }
    }
    parts.push(from..words.len());
    parts
}

fn finished(word: &Word, result: Option<&RawValue>) -> Outcome {
    let result = result.map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
    Outcome { job: word.job, lease: word.lease, ending: Ending::Finished(result) }
}

fn failed(word: &Word, error: &str, retry: bool) -> Outcome {
    let ending = if retry { Ending::failed(error) } else { Ending::failed_for_good(error) };
    Outcome { job: word.job, lease: word.lease, ending }
}

fn lease_lost(job: i64) -> Problem {
    Problem::new(ErrorCode::LeaseLost, format!("the lease on job {job} is gone"))
}

fn kind(word: &Word) -> &'static str {
    match word.saying {
        Saying::Ack { .. } => "ack",
        Saying::Nack { .. } => "nack",
        Saying::Note { .. } => "note",
        Saying::Extend { .. } => "extend",
    }
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Ok(Said::Done | Said::Until(_)) => "ok",
        Ok(Said::Cancelled) => "cancelled",
        Err(problem) => problem.code.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(job: i64, saying: Saying) -> Word {
        Word { job, lease: LeaseToken::fresh(), saying }
    }

    #[test]
    fn no_word_overtakes_an_outcome_of_its_job() {
        let ack = |job| word(job, Saying::Ack { result: None });
        let extend = |job| word(job, Saying::Extend { lease: Duration::from_secs(1) });
        let words = [extend(1), ack(1), extend(2), ack(1), extend(1), ack(3), extend(3)];
        assert_eq!(parts(&words), [0..4, 4..6, 6..7]);
        assert_eq!(parts(&words[..3]).len(), 1);
        assert_eq!(parts(&[]).len(), 1);
    }

    #[test]
    fn notes_weigh_as_results_do() {
        let notes = serde_json::json!({ "n": "x".repeat(1_000) }).as_object().unwrap().clone();
        let note = word(1, Saying::Note { notes, progress: None, log: Vec::new() });
        let (count, bytes) = size(&Say { words: vec![note], answer: oneshot::channel().0 });
        assert!(count == 1 && bytes > 1_000, "{bytes}");
    }
}
