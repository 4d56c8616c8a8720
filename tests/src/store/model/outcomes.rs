//! Words about runs in the model: outcomes, extensions, what is given back.

use super::super::sequence::{Asked, Profile, Rest, Word, pick, value_text};
use super::{Failure, Model, ticks};
use minium_protocol::State;
use minium_queue::rules::{self, Aftermath, Hold, Standing};
use minium_queue::{Ending, Pause, Verdict};
use serde_json::{Value, json};
use std::time::Duration;

/// What a word says.
pub(crate) fn ending(word: &Word, unit: u64) -> Ending {
    let text = value_text(word.value);
    if word.good {
        return Ending::Finished(super::super::fixture::json(&text));
    }
    let span = |units| Duration::from_secs(units * unit);
    let pause = match word.pause {
        Rest::Task(units) => Pause::Task(span(units)),
        Rest::Run(units) => Pause::Run(span(units)),
    };
    Ending::Failed { error: text, retry: word.retry, pause, backtrace: None }
}

impl Model {
    /// What is claimed was there before the words; words whose turn is not promised go ahead, in a call of their own.
    pub(super) fn exchange(&mut self, words: &[Word], claim: &Asked, got: &Value) -> Value {
        let (timely, others) = self.words(words);
        let mut verdicts: Vec<_> = others.iter().map(|word| self.word(word)).collect();
        self.judge_handlers();
        let chosen = match self.chosen(claim, got) {
            Ok(chosen) => chosen,
            Err(words) => return json!({ "wrong": words }),
        };
        verdicts.extend(timely.iter().map(|word| self.word(word)));
        let lease = ticks(claim.lease);
        let jobs: Vec<_> = chosen.into_iter().map(|name| json!([name, self.claim(name, 7, lease)])).collect();
        json!({"verdicts": verdicts, "jobs": jobs})
    }

    /// Those that come together with a claim, and those that go ahead.
    fn words<'w>(&self, words: &'w [Word]) -> (Vec<&'w Word>, Vec<&'w Word>) {
        let mut timely: Vec<(usize, &Word)> = Vec::new();
        let mut others = Vec::new();
        for word in words {
            let Some(run) = pick(word.run, self.runs.len()) else { continue };
            let name = self.runs[run];
            let runs = self.state(name) == Some(State::Active)
                && !self.jobs.iter().flatten().any(|child| child.parents.contains(&name));
            let newest = self.runs.iter().rposition(|other| *other == name) == Some(run);
            let first = timely.iter().all(|(other, _)| *other != name);
            if self.profile == Profile::Exact || runs && newest && first && !self.limited {
                timely.push((name, word));
            } else {
                others.push(word);
            }
        }
        (timely.into_iter().map(|(_, word)| word).collect(), others)
    }

    fn word(&mut self, word: &Word) -> Verdict {
        let run = pick(word.run, self.runs.len()).expect("there are runs");
        let name = self.runs[run];
        let ending = ending(word, 1);
        let standing = self.jobs[name].as_ref().map(|job| Standing {
            state: job.state,
            same_lease: job.run == Some(run),
            result: job.result.as_deref(),
            error: job.error.as_deref(),
        });
        let verdict = rules::judge(standing, &ending);
        match verdict {
            Verdict::Accepted => self.accept(name, &ending),
            Verdict::LeaseLost if standing.is_some() => {
                let text = value_text(word.value);
                let late = if word.good {
                    json!({"state": "finished", "result": serde_json::from_str::<Value>(&text).unwrap(), "lease": run})
                } else {
                    json!({"state": "failed", "error": text, "lease": run})
                };
                self.event("task.late_result", name, Some(late));
            }
            Verdict::LeaseLost | Verdict::Repeated | Verdict::Unjudged => {}
        }
        verdict
    }

    fn accept(&mut self, name: usize, ending: &Ending) {
        let now = self.now;
        let job = self.job_mut(name);
        job.finished = Some(now);
        let (error, retry, pause) = match ending {
            Ending::Finished(result) => {
                (job.result, job.error) = (Some(result.get().to_owned()), None);
                self.go(name, State::Finished);
                self.let_key_go(name);
                return self.event("task.finished", name, None);
            }
            Ending::Failed { error, retry, pause, .. } => (error, *retry, *pause),
        };
        job.state = State::Failed;
        (job.result, job.error) = (None, Some(error.clone()));
        self.note_failure(name, error);
        self.event("task.failed", name, None);
        let job = self.job_mut(name);
        if rules::after_failure(job.attempt, job.attempts, retry) == Aftermath::End {
            self.go(name, State::Failed);
            return self.let_key_go(name);
        }
        let own = job.backoff.map(Duration::from_secs);
        let pause = ticks(rules::backoff(job.retries, own, pause, 0.0).as_secs());
        job.retries += 1;
        job.retried = Some(now);
        job.delayed = now + pause;
        job.staged = pause == 0;
        job.finished = None;
        // nobody could have seen it failed: it goes from running to waiting
        job.state = State::Active;
        self.go(name, State::Inactive);
        self.event("task.retry", name, None);
    }

    pub(super) fn note_failure(&mut self, name: usize, error: &str) {
        let now = self.now;
        let job = self.job_mut(name);
        let failure = Failure { attempt: job.attempt, at: now, worker: job.worker, error: error.to_owned() };
        job.failures.push(failure);
    }

    pub(super) fn extend(&mut self, runs: &[usize], lease: u64) -> Value {
        let until = self.now + ticks(lease);
        let known = self.runs.len();
        let answer = |run: usize| {
            let job = self.jobs[self.runs[run]].as_mut();
            match rules::hold(job.as_ref().map(|j| j.state), job.as_ref().is_some_and(|j| j.run == Some(run)))
            {
                Hold::Held => {
                    job.expect("a job that is held exists").until = until;
                    json!(lease)
                }
                Hold::Cancelled => json!("cancelled"),
                Hold::Lost => json!("lost"),
            }
        };
        runs.iter().filter_map(|run| pick(*run, known)).map(answer).collect()
    }

    pub(super) fn release(&mut self, runs: &[usize]) -> Value {
        let mut released = 0;
        let known = self.runs.len();
        for run in runs.iter().filter_map(|run| pick(*run, known)) {
            let name = self.runs[run];
            let held = self.jobs[name].as_ref().map(|job| rules::hold(Some(job.state), job.run == Some(run)));
            if held != Some(Hold::Held) {
                continue;
            }
            let job = self.job_mut(name);
            job.attempt -= 1;
            job.started = job.started.filter(|_| job.attempt > 0);
            job.run = None;
            self.go(name, State::Inactive);
            self.event("task.lost", name, None);
            released += 1;
        }
        json!(released)
    }

    pub(super) fn postpone(&mut self, run: usize, pause: u64) -> Value {
        let Some(run) = pick(run, self.runs.len()) else { return Value::Null };
        let (name, now) = (self.runs[run], self.now);
        let held = self.jobs[name].as_ref().map(|job| rules::hold(Some(job.state), job.run == Some(run)));
        if held != Some(Hold::Held) {
            return json!(false);
        }
        let job = self.job_mut(name);
        job.attempt -= 1;
        job.started = job.started.filter(|_| job.attempt > 0);
        job.run = None;
        job.retried = Some(now);
        job.delayed = now + ticks(pause);
        job.staged = pause == 0;
        self.go(name, State::Inactive);
        self.event("task.retry", name, None);
        json!(true)
    }
}
