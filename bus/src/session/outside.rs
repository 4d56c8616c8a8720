//! What a session has asked the journal or the queue, and what it tells its client when the answer comes.

use super::following::Sub;
use super::voice::{Reference, refuse};
use super::{Phase, Session, Speech, State};
use crate::encode::{self, Encoding};
use crate::opening::Start;
use crate::pattern::Pattern;
use crate::shard::Shard;
use crate::work::Said;
use minium_protocol::{Answer, CloseCode, ErrorCode, Filter, Position, Problem};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;

/// An answer that is awaited.
pub(super) struct Awaited {
    task: JoinHandle<Answered>,
    asked: Asked,
}

/// What was asked.
pub(super) enum Asked {
    /// Where a subscription begins.
    Sub(Reference, Filter),
    /// To keep messages, or to enqueue them.
    Messages(Vec<Reference>),
    /// To count words about jobs.
    Words(Vec<AskedWord>),
}

/// One word about a job.
pub(super) struct AskedWord {
    pub(super) reference: Reference,
    pub(super) job: i64,
    /// It ends the job: there is room for another one.
    pub(super) ends: bool,
}

/// What the journal or the queue says.
pub(super) enum Answered {
    /// Where it begins; nothing for what comes from now on.
    Resolved(Result<Option<Start>, Problem>),
    Kept(Result<Vec<Position>, Problem>),
    Pushed(Result<Vec<i64>, Problem>),
    Said(Vec<Result<Said, Problem>>),
    /// The task that should have asked is gone.
    Lost,
}

impl Awaited {
    /// Nothing when there is nowhere to ask.
    pub(super) fn new(task: Option<JoinHandle<Answered>>, asked: Asked) -> Result<Awaited, Problem> {
        let nowhere = || Problem::new(ErrorCode::Unavailable, "the node goes down");
        Ok(Awaited { task: task.ok_or_else(nowhere)?, asked })
    }

    /// Is it a subscription that awaits it?
    pub(super) fn is_sub(&self) -> bool {
        matches!(self.asked, Asked::Sub(..))
    }

    /// The answer, if it is there; else `waker` is woken when it is.
    pub(super) fn poll(&mut self, waker: &Waker) -> Option<Answered> {
        match Pin::new(&mut self.task).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(Ok(answered)) => Some(answered),
            Poll::Ready(Err(_)) => Some(Answered::Lost),
            Poll::Pending => None,
        }
    }
}

impl Session {
    /// The answer is there.
    pub(super) fn answered(self: &Rc<Self>, awaited: Awaited, answered: Answered, sh: &Shard) {
        let open = self.state.borrow().phase == Phase::Open;
        if !open {
            return;
        }
        let failed = || Problem::new(ErrorCode::Internal, "the server failed");
        match (awaited.asked, answered) {
            (Asked::Sub(reference, filter), Answered::Resolved(start)) => {
                self.begin_sub(reference, filter, start, sh);
            }
            (Asked::Sub(reference, _), _) => self.refuse_all([reference].iter(), &failed()),
            (Asked::Messages(references), Answered::Kept(kept)) => self.tell_kept(&references, kept, sh),
            (Asked::Messages(references), Answered::Pushed(pushed)) => self.tell_pushed(&references, pushed),
            (Asked::Messages(references), _) => self.refuse_all(references.iter(), &failed()),
            (Asked::Words(words), Answered::Said(said)) => self.tell_said(&words, said),
            (Asked::Words(words), _) => self.refuse_all(words.iter().map(|w| &w.reference), &failed()),
        }
    }

    /// A subscription begins where it was found to.
    fn begin_sub(
        self: &Rc<Self>,
        reference: Reference,
        filter: Filter,
        start: Result<Option<Start>, Problem>,
        sh: &Shard,
    ) {
        let relayed = sh.relayed.get();
        let start = match start {
            Ok(start) => start,
            Err(problem) => return self.refuse_all([reference].iter(), &problem),
        };
        match (start, relayed) {
            (Some(start), Some(p)) if p.epoch == start.epoch && sh.reads.is_some() => {
                let position = Position { epoch: start.epoch, offset: start.after };
                // what comes before the answer belongs to who was there before
                self.begin_at(Sub::new(sh, Pattern::Sub, filter, start.after), sh);
                self.tell(&Answer::at(reference.as_deref(), position));
            }
            (Some(_), _) => {
                // asked again, it hears of the new epoch together with the first position of that
                let problem = Problem::new(ErrorCode::Unavailable, "the numbering began anew just now");
                self.refuse_all([reference].iter(), &problem);
            }
            (None, _) => self.join_live(&reference, filter, sh),
        }
    }

    /// Reads history first.
    pub(crate) fn begin_at(self: &Rc<Self>, mut sub: Sub, sh: &Shard) {
        sub.announce = true;
        self.add_reader(sub, sh);
    }

    /// Reads behind where it begins, and those that are live and meet it read with it from now on.
    fn add_reader(self: &Rc<Self>, sub: Sub, sh: &Shard) {
        sh.catch_up(self);
        let held = {
            let mut st = self.state.borrow_mut();
            let first = (st.subs.len(), sub.since);
            st.subs.push(sub);
            st.read_from(vec![first], sh.relayed_to())
        };
        if held {
            sh.follow(self);
        }
    }

    /// Follows what comes from now on: live, or behind those that it meets and that read history.
    pub(super) fn join_live(self: &Rc<Self>, reference: &Reference, filter: Filter, sh: &Shard) {
        let sub = Sub::new(sh, Pattern::Sub, filter, sh.relayed_to());
        let position = sh.relayed.get().filter(|_| sub.durable);
        let meets = |st: &State| st.catching_up.as_ref().is_some_and(|c| c.meets(&sub.follow.filter));
        if sub.durable && meets(&self.state.borrow()) {
            self.add_reader(sub, sh);
        } else {
            self.add_sub(sub);
            sh.follow(self);
        }
        let reference = reference.as_deref();
        self.tell(&position.map_or(Answer::ok(reference), |p| Answer::at(reference, p)));
    }

    fn refuse_all<'a>(&self, references: impl Iterator<Item = &'a Reference>, problem: &Problem) {
        let mut st = self.state.borrow_mut();
        for reference in references {
            refuse(&mut st.control, self.encoding, reference, problem);
        }
    }

    fn tell_kept(&self, references: &[Reference], kept: Result<Vec<Position>, Problem>, sh: &Shard) {
        match kept {
            Ok(positions) => {
                for (reference, position) in references.iter().zip(positions) {
                    self.tell(&Answer::at(reference.as_deref(), position));
                }
            }
            Err(problem) => {
                self.refuse_all(references.iter(), &problem);
                self.fail_behind(&problem, sh);
            }
        }
    }

    /// What was published behind a message that failed must fail, too, or it would overtake its repetition. That goes
    /// for what still lies unread in the socket, sent before its client could know: so a session that may repeat a
    /// message is closed, and comes back with all that was not acknowledged, in its order.
    fn fail_behind(&self, problem: &Problem, sh: &Shard) {
        {
            let mut st = self.state.borrow_mut();
            let State { voice: Some(voice), control, .. } = &mut *st else { return };
            let Speech::Talk(talk) = &mut voice.speech else { return };
            for reference in talk.take_durable_messages(&sh.hub.channels) {
                refuse(control, self.encoding, &reference, problem);
            }
            if !problem.retryable {
                return;
            }
            talk.ops.clear();
        }
        self.close(CloseCode::Overload, "a message was not kept: send again what was not acknowledged");
    }

    fn tell_pushed(&self, references: &[Reference], pushed: Result<Vec<i64>, Problem>) {
        match pushed {
            Ok(jobs) => {
                for (reference, job) in references.iter().zip(jobs) {
                    let (reference, job) = (reference.as_deref(), Some(job));
                    self.tell(&Answer::Ok { reference, epoch: None, offset: None, job, lease_expires: None });
                }
            }
            Err(problem) => self.refuse_all(references.iter(), &problem),
        }
    }

    fn tell_said(&self, words: &[AskedWord], said: Vec<Result<Said, Problem>>) {
        let mut st = self.state.borrow_mut();
        let State { control, jobs, .. } = &mut *st;
        for (AskedWord { reference, job, ends }, said) in words.iter().zip(said) {
            // a word that could not be judged will be said again; every other one ends what it said it would
            let judged = !said.as_ref().is_err_and(|p| p.retryable);
            if let Some(jobs) = jobs.as_mut().filter(|_| *ends && judged) {
                jobs.ended();
            }
            let reference_text = reference.as_deref();
            let answer = match said {
                Ok(Said::Done) => Answer::ok(reference_text),
                Ok(Said::Until(until)) => Answer::Ok {
                    reference: reference_text,
                    epoch: None,
                    offset: None,
                    job: None,
                    lease_expires: Some(format!("{until:.6}")),
                },
                Ok(Said::Cancelled) => Answer::Cancelled { reference: reference_text, job: *job },
                Err(problem) => {
                    // a puller that says nothing is told nothing
                    if jobs.as_ref().is_none_or(|jobs| !jobs.is_silent()) {
                        refuse(control, self.encoding, reference, &problem);
                    }
                    continue;
                }
            };
            if self.encoding == Encoding::V1 {
                encode::answer(control, &answer);
            }
        }
    }
}
