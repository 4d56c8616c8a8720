//! A queue in memory behind durable push/pull channels: what the bus sees of one.

#![allow(clippy::result_large_err, reason = "refusals are not on the way of what passes")]

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use minium_bus::{LeasedJob, Order, Puller, Pulling, Pushed, Said, Saying, Word, Work};
use minium_protocol::{ErrorCode, LeaseToken, Problem, Topic};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: i64,
    ready: VecDeque<(i64, Topic, Bytes)>,
    running: HashMap<i64, (LeaseToken, usize)>,
    /// How each job ended, as it was said.
    ended: Vec<(i64, String)>,
    pullers: Vec<Place>,
    /// Came back, since nobody had begun them.
    returned: Vec<i64>,
    /// Answers everything with `unavailable`.
    away: bool,
    /// Answers so many words with `unavailable`.
    deaf: u32,
}

#[derive(Debug)]
struct Place {
    order: Order,
    puller: Arc<dyn Puller>,
    credit: u32,
    left: bool,
}

impl Queue {
    /// How jobs ended, in order.
    pub(crate) fn ended(&self) -> Vec<(i64, String)> {
        self.0.lock().unwrap().ended.clone()
    }

    /// What came back.
    pub(crate) fn returned(&self) -> Vec<i64> {
        self.0.lock().unwrap().returned.clone()
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }

    pub(crate) fn set_away_for_words(&self, words: u32) {
        self.0.lock().unwrap().deaf = words;
    }

    /// How many more its pullers would take.
    pub(crate) fn credit(&self) -> u32 {
        self.0.lock().unwrap().pullers.iter().filter(|p| !p.left).map(|p| p.credit).sum()
    }

    /// How many more of this queue.
    pub(crate) fn credit_of(&self, queue: &str) -> u32 {
        let st = self.0.lock().unwrap();
        let of = |p: &&Place| !p.left && p.order.queue.as_deref() == Some(queue);
        st.pullers.iter().filter(of).map(|p| p.credit).sum()
    }

    /// How many wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().unwrap().ready.len()
    }

    /// Somebody else takes the job away.
    pub(crate) fn take_away(&self, job: i64) {
        self.0.lock().unwrap().running.remove(&job);
    }

    pub(crate) fn cancel(&self, job: i64) {
        let st = self.0.lock().unwrap();
        let (_, n) = st.running[&job];
        st.pullers[n].puller.cancelled(job);
    }
}

impl State {
    fn flow(&mut self) {
        let mut waiting = VecDeque::new();
        while let Some((id, task, args)) = self.ready.pop_front() {
            let takes =
                |p: &Place| !p.left && p.credit > 0 && p.order.tasks.contains(&task) && p.puller.room() > 0;
            let Some(n) = self.pullers.iter().position(takes) else {
                waiting.push_back((id, task, args));
                continue;
            };
            let lease = LeaseToken::fresh();
            let args_text = String::from_utf8_lossy(&args).into_owned();
            let snapshot = format!(r#"{{"id":{id},"task":"{task}","args":{args_text}}}"#).into();
            let job =
                LeasedJob { id, task, snapshot, args, lease, expires: Timestamp::UNIX_EPOCH, trace: None };
            self.pullers[n].credit -= 1;
            self.running.insert(id, (lease, n));
            self.pullers[n].puller.take(job).unwrap();
        }
        self.ready = waiting;
    }

    fn say(&mut self, word: Word) -> Result<Said, Problem> {
        if self.away || self.deaf > 0 {
            self.deaf = self.deaf.saturating_sub(1);
            return Err(Problem::new(ErrorCode::Unavailable, "the queue is away"));
        }
        if self.running.get(&word.job).is_none_or(|(lease, _)| *lease != word.lease) {
            return Err(Problem::new(ErrorCode::LeaseLost, "the lease is gone"));
        }
        let how = match word.saying {
            Saying::Ack { result } => format!("ack {}", result.map_or("null".into(), |r| r.get().to_owned())),
            Saying::Nack { error, retry } => format!("nack {error} {retry}"),
            Saying::Note { .. } | Saying::Extend { .. } => return Ok(Said::Until(Timestamp::UNIX_EPOCH)),
        };
        self.running.remove(&word.job);
        self.ended.push((word.job, how));
        Ok(Said::Done)
    }
}

#[derive(Debug)]
struct Membership(Arc<Mutex<State>>, usize);

impl Pulling for Membership {
    fn credit(&self, more: u32) {
        let mut st = self.0.lock().unwrap();
        st.pullers[self.1].credit += more;
        st.flow();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.lock().unwrap().pullers[self.1].left = true;
    }
}

#[async_trait]
impl Work for Queue {
    async fn push(&self, task: &Topic, pushed: Vec<Pushed>) -> Result<Vec<i64>, Problem> {
        let mut st = self.0.lock().unwrap();
        if st.away {
            return Err(Problem::new(ErrorCode::Unavailable, "the queue is away"));
        }
        let mut ids = Vec::new();
        for Pushed { data, .. } in pushed {
            st.last += 1;
            let id = st.last;
            st.ready.push_back((id, task.clone(), data));
            ids.push(id);
        }
        st.flow();
        Ok(ids)
    }

    fn join(&self, order: Order, puller: Arc<dyn Puller>) -> Box<dyn Pulling> {
        let mut st = self.0.lock().unwrap();
        st.pullers.push(Place { order, puller, credit: 0, left: false });
        Box::new(Membership(self.0.clone(), st.pullers.len() - 1))
    }

    fn give_back(&self, jobs: Vec<(i64, LeaseToken)>) {
        let mut st = self.0.lock().unwrap();
        for (job, lease) in jobs {
            assert_eq!(st.running.remove(&job).map(|(held, _)| held), Some(lease));
            st.returned.push(job);
        }
    }

    async fn say(&self, words: Vec<Word>) -> Vec<Result<Said, Problem>> {
        let mut st = self.0.lock().unwrap();
        words.into_iter().map(|word| st.say(word)).collect()
    }
}
