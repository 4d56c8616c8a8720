//! One place at a desk: a subscription, a peer or a puller, and what it takes to have it again over the next socket.

use super::desk::{Item, Opened};
use crate::error::ClientError;
use crate::order::{Judgement, Order};
use minium_protocol::{After, CREDIT_MAX, Filter, FrameMembers as Frame, LeaseToken, Position, Topic};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Place {
    pub(super) filter: Filter,
    pub(super) out: mpsc::Sender<Item>,
    /// Whoever waits to hear that it is open.
    pub(super) opened: Option<Opened>,
    pub(super) stage: Stage,
    role: Role,
    /// It has been open before.
    known: bool,
}

/// How far a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be asked for.
    Waiting,
    /// The answer is awaited: what comes until then belongs to who was there before.
    Asked,
    /// What it matches is for it.
    Open,
    /// Its position is gone; the program decides.
    Lost,
}

/// What a place is for.
#[derive(Debug)]
pub(super) enum Role {
    Sub(Subscribing),
    Peer,
    Pull(Pulling),
}

#[derive(Debug)]
pub(super) struct Subscribing {
    from: After,
    order: Order,
    /// The server gave a position, so it can resume.
    durable: bool,
    /// It lost its position, and was begun anew.
    begun_anew: bool,
}

/// Jobs that are asked for, and those that are worked on.
#[derive(Debug)]
pub(super) struct Pulling {
    pub(super) tasks: Vec<Topic>,
    pub(super) queue: Option<String>,
    /// So many at once.
    pub(super) credit: u32,
    /// So many were asked for over this socket, and have not come.
    asked: u32,
    held: HashMap<LeaseToken, (i64, CancellationToken)>,
    /// It was given messages without a lease: nothing is kept there.
    bare: bool,
}

impl Role {
    pub(super) fn sub(from: After) -> Role {
        Role::Sub(Subscribing { from, order: starting_at(from), durable: false, begun_anew: false })
    }

    pub(super) fn pull(tasks: Vec<Topic>, queue: Option<String>, credit: u32) -> Role {
        let credit = credit.clamp(1, CREDIT_MAX);
        Role::Pull(Pulling { tasks, queue, credit, asked: 0, held: HashMap::new(), bare: false })
    }
}

fn starting_at(from: After) -> Order {
    Order::starting_at(match from {
        After::Position(position) => Some(position),
        After::Latest | After::Earliest | After::Offset(_) | After::Last(_) => None,
    })
}

impl Place {
    pub(super) fn new(filter: Filter, role: Role, out: mpsc::Sender<Item>, opened: Opened) -> Place {
        Place { filter, out, opened: Some(opened), stage: Stage::Waiting, role, known: false }
    }

    /// A socket is there again. True: what came meanwhile is gone.
    pub(super) fn reconnected(&mut self) -> bool {
        let resumes = match &self.role {
            Role::Sub(sub) => sub.durable && sub.order.position().is_some(),
            // jobs wait where they are, bare messages that were on their way are lost
            Role::Pull(pull) => !pull.bare,
            Role::Peer => false,
        };
        self.known && !resumes && self.stage == Stage::Waiting
    }

    /// The socket is gone.
    pub(super) fn cut(&mut self) {
        if self.stage != Stage::Lost {
            self.stage = Stage::Waiting;
        }
        if let Role::Pull(pull) = &mut self.role {
            pull.asked = 0;
        }
    }

    /// A lost subscription begins anew. False: it is not lost, or no subscription.
    pub(super) fn begin(&mut self, from: After) -> bool {
        match &mut self.role {
            Role::Sub(sub) if self.stage == Stage::Lost => {
                (sub.from, sub.order, sub.begun_anew) = (from, starting_at(from), true);
                self.stage = Stage::Waiting;
                true
            }
            _ => false,
        }
    }

    /// It was lost, and what it was begun anew with was refused: it can be begun once more.
    pub(super) fn is_lost_before(&self) -> bool {
        matches!(&self.role, Role::Sub(sub) if sub.begun_anew)
    }

    /// The frame that asks for it, or for more of it; nothing while there is nothing to ask for.
    pub(super) fn ask(&mut self, reference: u64) -> Option<String> {
        let filter = self.filter.as_str();
        if self.stage == Stage::Lost {
            return None;
        }
        let text = match &mut self.role {
            Role::Sub(sub) => {
                let from = sub.order.position().filter(|_| sub.durable).map_or(sub.from, After::Position);
                Frame::sub(filter, from).text(reference)
            }
            Role::Peer => Frame::about("bus", filter).text(reference),
            Role::Pull(pull) => {
                let credit = pull.credit.saturating_sub(pull.asked + pull.held.len() as u32);
                if credit == 0 {
                    return None;
                }
                pull.asked += credit;
                let further: Vec<_> = pull.tasks.iter().map(|task| task.as_str().into()).collect();
                let (queue, tasks) =
                    (pull.queue.as_deref().map(Cow::Borrowed), (!further.is_empty()).then_some(further));
                Frame { credit: Some(credit), queue, tasks, ..Frame::about("pull", filter) }.text(reference)
            }
        };
        if self.stage == Stage::Waiting {
            self.stage = Stage::Asked;
        }
        Some(text)
    }

    /// The frame that gives it up, where there is one.
    pub(super) fn goodbye(&self, reference: u64) -> Option<String> {
        let asked = matches!(self.stage, Stage::Asked | Stage::Open);
        // pullers have no such word: they leave with their socket
        let leaves = asked && !matches!(self.role, Role::Pull(_));
        leaves.then(|| Frame::about("unsub", self.filter.as_str()).text(reference))
    }

    pub(super) fn is_puller(&self) -> bool {
        matches!(self.role, Role::Pull(_))
    }

    /// The server says yes, and where it begins.
    pub(super) fn is_open(&mut self, position: Option<Position>) {
        self.stage = Stage::Open;
        self.known = true;
        if let Role::Sub(sub) = &mut self.role {
            sub.durable = position.is_some();
            sub.order.connected(position);
        }
        if let Some(opened) = self.opened.take() {
            // it may have been dropped meanwhile, which is told in its own way
            opened.send(Ok(position)).ok();
        }
    }

    /// Is a message on this topic for it?
    pub(super) fn takes(&self, topic: &Topic) -> bool {
        self.stage == Stage::Open && self.filter.matches(topic)
    }

    /// Is what stands there new to it?
    pub(super) fn judge(&mut self, position: Option<Position>) -> Result<bool, ClientError> {
        let sub = match (&mut self.role, position) {
            (Role::Sub(sub), Some(_)) if sub.durable => sub,
            (Role::Pull(pull), _) => {
                pull.bare = true;
                return Ok(true);
            }
            _ => return Ok(true),
        };
        let Some(got) = position else { return Ok(true) };
        match sub.order.judge(got) {
            Judgement::New => Ok(true),
            Judgement::Duplicate => Ok(false),
            Judgement::StepBack(last) => Err(ClientError::OutOfOrder { last, got }),
        }
    }

    /// Everything up to this offset was delivered, or will never be.
    pub(super) fn passed(&mut self, offset: Option<u64>) {
        if let (Role::Sub(sub), Some(offset)) = (&mut self.role, offset)
            && sub.durable
        {
            sub.order.pass(offset);
        }
    }

    /// A job for it: what tells of its cancellation.
    pub(super) fn given(
        &mut self,
        topic: &Topic,
        lease: LeaseToken,
        snapshot: &RawValue,
    ) -> Option<CancellationToken> {
        #[derive(Deserialize)]
        struct Numbered {
            id: i64,
        }
        let Role::Pull(pull) = &mut self.role else { return None };
        if self.filter.as_str() != topic.as_str() && !pull.tasks.contains(topic) {
            return None;
        }
        pull.asked = pull.asked.saturating_sub(1);
        let id = serde_json::from_str::<Numbered>(snapshot.get()).map_or(0, |n| n.id);
        let cancelled = CancellationToken::new();
        pull.held.insert(lease, (id, cancelled.clone()));
        Some(cancelled)
    }

    /// A job has ended for us. True: there may be room for another one.
    pub(super) fn job_ended(&mut self, lease: LeaseToken) -> bool {
        let Role::Pull(pull) = &mut self.role else { return false };
        pull.held.remove(&lease).is_some()
    }

    /// This job was cancelled.
    pub(super) fn cancel(&self, job: i64) {
        if let Role::Pull(pull) = &self.role {
            pull.held.values().filter(|(id, _)| *id == job).for_each(|(_, token)| token.cancel());
        }
    }

    /// The job under this lease was cancelled.
    pub(super) fn cancel_lease(&self, lease: LeaseToken) {
        if let Role::Pull(pull) = &self.role {
            pull.held.get(&lease).inspect(|(_, token)| token.cancel());
        }
    }
}
