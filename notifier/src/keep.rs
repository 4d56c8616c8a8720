//! Keeps what clients publish on durable channels: one writer for the node, and one commit for many publishers.
//!
//! Calls wait in a bounded queue while a commit is under way; what has come meanwhile goes into the next, in the order
//! of the calls. A call is answered when its messages are committed and have their numbers. When a commit fails, the
//! calls that wait behind it fail too: who published them published them in that order.
//!
//! **Never a lie.** What is answered with positions is committed. What fails may be kept or not, but for what the
//! database refuses; the same id again finds out.

use crate::error::NotifierError;
use crate::journal::{JournalStore, Kept, Stored};
use crate::metrics;
use crate::waits::Waits;
use minium_bus::Draft;
use minium_protocol::{ErrorCode, ID_BYTES_MAX, Position, Problem};
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// What a message takes besides its data, on its way.
const DRAFT_BYTES: usize = 256;
/// So many entries are looked up at once.
const FIND_COUNT_MAX: usize = 1_000;

/// Bounds of keeping messages, with defaults.
#[derive(Debug, Clone)]
pub struct KeepOptions {
    /// At most so many messages go into one commit, unless they are of one call.
    pub commit_count_max: usize,
    /// No more messages after so many bytes go into one commit, unless they are of one call.
    pub commit_bytes_max: usize,
    /// Calls that wait for the next commit; callers beyond wait outside.
    pub queue_count_max: usize,
    /// Bytes of calls that are not answered yet; callers beyond wait outside.
    pub queue_bytes_max: usize,
    /// Messages in one call.
    pub call_count_max: usize,
    /// So long may a call take; then it is answered `unavailable`.
    pub patience: Duration,
    /// What the relay has not brought after so long is looked up.
    pub look_up_after: Duration,
}

impl Default for KeepOptions {
    fn default() -> KeepOptions {
        KeepOptions {
            commit_count_max: 2_000,
            commit_bytes_max: 2 << 20,
            queue_count_max: 4_096,
            queue_bytes_max: 32 << 20,
            call_count_max: 10_000,
            patience: Duration::from_secs(10),
            look_up_after: Duration::from_millis(250),
        }
    }
}

/// The way to the writer.
#[derive(Debug)]
pub(crate) struct Keeper {
    calls: mpsc::Sender<Call>,
    room: Arc<Semaphore>,
    options: KeepOptions,
    _stop: DropGuard,
}

/// One caller's messages on their way.
#[derive(Debug)]
struct Call {
    messages: Vec<Kept>,
    bytes: usize,
    /// Nobody is told what becomes of it after this.
    deadline: Instant,
    /// Given back when the caller has its answer.
    room: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<Committed, Problem>>,
}

/// A call whose commit stands.
#[derive(Debug)]
struct Committed {
    numbers: Vec<Number>,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Number {
    Known(Position),
    Comes(oneshot::Receiver<Position>),
}

impl Keeper {
    /// Starts the writer on the current runtime. It ends with the keeper.
    pub(crate) fn start(store: Arc<dyn JournalStore>, waits: Arc<Waits>, options: KeepOptions) -> Keeper {
        let (calls, inbox) = mpsc::channel(options.queue_count_max.max(1));
        let bytes = options.queue_bytes_max.clamp(1, u32::MAX as usize);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let writer = Writer { store: store.clone(), waits: waits.clone(), options: options.clone(), inbox };
        // it ends when nobody can send any more, with what it has been given
        tasks.spawn(writer.run());
        let looking = look_up(store, waits, options.look_up_after);
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled(looking).await });
        Keeper { calls, room: Arc::new(Semaphore::new(bytes)), options, _stop: stop.drop_guard() }
    }

    /// Keeps messages; see [`minium_bus::History::keep`].
    pub(crate) async fn keep(&self, drafts: Vec<Draft>) -> Result<Vec<Position>, Problem> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let (messages, bytes) = self.accept(drafts)?;
        let deadline = Instant::now() + self.options.patience;
        let kept = tokio::time::timeout_at(deadline, self.keep_by(deadline, messages, bytes)).await;
        let kept = kept.unwrap_or_else(|_| {
            let words = "the message was not kept in time; it is not known whether it will be";
            Err(Problem::new(ErrorCode::Unavailable, words))
        });
        if kept.is_err() {
            ::metrics::counter!(metrics::KEEPS_FAILED).increment(1);
        }
        kept
    }

    /// What can be told before anything is written.
    fn accept(&self, drafts: Vec<Draft>) -> Result<(Vec<Kept>, usize), Problem> {
        let most = self.options.call_count_max;
        if drafts.len() > most {
            let words = format!("at most {most} messages can be kept at once");
            return Err(Problem::new(ErrorCode::InvalidRequest, words));
        }
        let mut bytes = 0;
        let mut accept = |draft: Draft| {
            check_id(draft.id.as_deref())?;
            let data = std::str::from_utf8(&draft.data)
                .map_err(|e| Problem::new(ErrorCode::InvalidJson, e.to_string()))?;
            // an event is one line on some ways; line breaks in JSON are blanks
            let data: Box<str> = data.trim_ascii().replace(['\n', '\r'], " ").into();
            bytes += data.len() + DRAFT_BYTES;
            Ok(Kept { topic: draft.topic, id: draft.id, entry: Uuid::now_v7(), data })
        };
        let messages = drafts.into_iter().map(&mut accept).collect::<Result<_, Problem>>()?;
        Ok((messages, bytes))
    }

    async fn keep_by(
        &self,
        deadline: Instant,
        messages: Vec<Kept>,
        bytes: usize,
    ) -> Result<Vec<Position>, Problem> {
        let gone = || Problem::new(ErrorCode::Unavailable, "the journal is being closed");
        let most = self.options.queue_bytes_max.clamp(1, u32::MAX as usize);
        let permits = u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(permits).await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        let call = Call { messages, bytes, deadline, room, answer };
        self.calls.send(call).await.map_err(|_| gone())?;
        let committed = answered.await.map_err(|_| gone())??;
        let mut positions = Vec::with_capacity(committed.numbers.len());
        for number in committed.numbers {
            positions.push(match number {
                Number::Known(position) => position,
                Number::Comes(told) => told.await.map_err(|_| gone())?,
            });
        }
        Ok(positions)
    }
}

fn check_id(id: Option<&str>) -> Result<(), Problem> {
    let Some(id) = id else { return Ok(()) };
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.contains('\0') {
        let words = format!("the id of a message has 1 to {ID_BYTES_MAX} bytes, and no NUL among them");
        return Err(Problem::new(ErrorCode::InvalidRequest, words));
    }
    Ok(())
}

/// The one task that writes.
struct Writer {
    store: Arc<dyn JournalStore>,
    waits: Arc<Waits>,
    options: KeepOptions,
    inbox: mpsc::Receiver<Call>,
}

impl Writer {
    async fn run(mut self) {
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(call) => call,
                None => match self.inbox.recv().await {
                    Some(call) => call,
                    None => return,
                },
            };
            let (group, next) = self.group(first);
            carried = next;
            if !self.commit(group).await {
                // what waits behind what failed fails too
                let waiting = std::iter::from_fn(|| self.inbox.try_recv().ok());
                for call in carried.take().into_iter().chain(waiting) {
                    refuse(call, behind());
                }
            }
        }
    }

    /// What goes into one commit, and the first call that found no room in it.
    fn group(&mut self, first: Call) -> (Vec<Call>, Option<Call>) {
        let (mut count, mut bytes) = (first.messages.len(), first.bytes);
        let mut group = vec![first];
        while let Ok(call) = self.inbox.try_recv() {
            count += call.messages.len();
            bytes += call.bytes;
            if count > self.options.commit_count_max || bytes > self.options.commit_bytes_max {
                return (group, Some(call));
            }
            group.push(call);
        }
        (group, None)
    }

    /// Commits the calls and answers them. False when the database failed.
    async fn commit(&self, mut group: Vec<Call>) -> bool {
        let now = Instant::now();
        group.retain(|call| call.deadline > now); // they have their answer
        if group.is_empty() {
            return true;
        }
        let together = Together::of(&mut group);
        match self.write(&together).await {
            Ok(numbers) => {
                group.into_iter().zip(numbers).for_each(|(call, numbers)| call.committed(numbers));
                true
            }
            Err(NotifierError::Refused { .. }) if group.len() > 1 => {
                // one of them is to blame: each alone, in their order
                together.give_back(&mut group);
                let mut works = true;
                for call in group {
                    if works {
                        works = Box::pin(self.commit(vec![call])).await;
                    } else {
                        refuse(call, behind());
                    }
                }
                works
            }
            Err(error) => {
                // a database that is away is told once, by who looks for it
                if minium_queue::is_told(&error) {
                    tracing::debug!(error = error.story(), calls = group.len(), "Messages were not kept.");
                } else {
                    tracing::warn!(error = error.story(), calls = group.len(), "Messages were not kept.");
                }
                let refused = matches!(error, NotifierError::Refused { .. });
                group.into_iter().for_each(|call| refuse(call, error.problem()));
                refused
            }
        }
    }

    /// Writes what is unique among the messages; for each message of each call the way to its number.
    async fn write(&self, together: &Together) -> Result<Vec<Vec<Number>>, NotifierError> {
        let messages = &together.unique;
        // from before the commit: the relay may bring a number before we know that the commit stands
        let expect = |place: &usize| (*place, self.waits.expect(messages[*place].entry));
        let told: Vec<Vec<_>> =
            together.places.iter().map(|call| call.iter().map(expect).collect()).collect();
        let stored = match self.store.keep(messages).await {
            Ok(stored) => stored,
            Err(error) => {
                messages.iter().for_each(|m| self.waits.forget(m.entry));
                return Err(error);
            }
        };
        ::metrics::counter!(metrics::MESSAGES_KEPT).increment(messages.len() as u64);
        let number = |(place, told): (usize, oneshot::Receiver<Position>)| match stored[place] {
            Stored::Numbered(position) => Number::Known(position),
            Stored::Waiting(entry, _) if entry == messages[place].entry => Number::Comes(told),
            // the same id was there before us, perhaps by another node
            Stored::Waiting(entry, _) => Number::Comes(self.waits.expect(entry)),
        };
        let numbers = told.into_iter().map(|call| call.into_iter().map(number).collect()).collect();
        self.settle(messages, &stored).await;
        Ok(numbers)
    }

    /// Says where the entries wait that are waited for, and has them numbered.
    async fn settle(&self, messages: &[Kept], stored: &[Stored]) {
        let mut of_others = Vec::new();
        for (message, stored) in messages.iter().zip(stored) {
            match *stored {
                Stored::Numbered(_) => self.waits.forget(message.entry),
                Stored::Waiting(entry, place) => {
                    self.waits.placed(entry, place);
                    if entry != message.entry {
                        self.waits.forget(message.entry);
                        of_others.push((entry, place));
                    }
                }
            }
        }
        self.waits.committed.notify_one();
        // theirs may have been numbered between the commit that we saw and our wait for it
        if !of_others.is_empty() && find(&*self.store, &self.waits, of_others).await.is_err() {
            tracing::debug!("Numbers were not found at once; they are looked up later.");
        }
    }
}

/// The messages of some calls, each topic and id once.
struct Together {
    unique: Vec<Kept>,
    /// For each call the place of each of its messages in `unique`.
    places: Vec<Vec<usize>>,
    /// What is the same as one before it, by call and place in the call.
    twins: Vec<(usize, usize, Kept)>,
}

impl Together {
    /// Takes the messages out of the calls.
    fn of(group: &mut [Call]) -> Together {
        let mut together = Together { unique: Vec::new(), places: Vec::new(), twins: Vec::new() };
        let mut seen = HashMap::new();
        for (n, call) in group.iter_mut().enumerate() {
            let mut places = Vec::with_capacity(call.messages.len());
            for message in std::mem::take(&mut call.messages) {
                let next = together.unique.len();
                if let Some(id) = &message.id {
                    match seen.entry((message.topic.clone(), id.clone())) {
                        Occupied(first) => {
                            together.twins.push((n, places.len(), message));
                            places.push(*first.get());
                            continue;
                        }
                        Vacant(free) => drop(free.insert(next)),
                    }
                }
                places.push(next);
                together.unique.push(message);
            }
            together.places.push(places);
        }
        together
    }

    /// Undoes it.
    fn give_back(self, group: &mut [Call]) {
        let Together { unique, places, twins } = self;
        let mut unique: Vec<_> = unique.into_iter().map(Some).collect();
        let mut twins = twins.into_iter().peekable();
        for (n, (call, places)) in group.iter_mut().zip(places).enumerate() {
            for (m, place) in places.into_iter().enumerate() {
                let twin = twins.next_if(|(call, at, _)| (*call, *at) == (n, m));
                let message = twin.map(|(.., message)| message).or_else(|| unique[place].take());
                call.messages.extend(message);
            }
        }
    }
}

impl Call {
    fn committed(self, numbers: Vec<Number>) {
        // whoever asked may have gone; what was kept stands all the same
        drop(self.answer.send(Ok(Committed { numbers, _room: self.room })));
    }
}

fn behind() -> Problem {
    Problem::new(ErrorCode::Unavailable, "what was published before it could not be kept")
}

fn refuse(call: Call, problem: Problem) {
    // whoever asked may have gone
    drop(call.answer.send(Err(problem)));
}

/// Looks up what the relay does not bring.
async fn look_up(store: Arc<dyn JournalStore>, waits: Arc<Waits>, after: Duration) {
    loop {
        if waits.is_empty() {
            waits.some.notified().await;
        }
        tokio::time::sleep(after).await;
        let overdue = waits.overdue(after, FIND_COUNT_MAX);
        if !overdue.is_empty()
            && let Err(error) = find(&*store, &waits, overdue).await
        {
            // the relay tells about a database that is gone
            tracing::debug!(error = error.story(), "Numbers cannot be looked up.");
        }
    }
}

async fn find(
    store: &dyn JournalStore,
    waits: &Waits,
    entries: Vec<(Uuid, crate::journal::Place)>,
) -> Result<(), NotifierError> {
    let (entries, places): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    let found = store.find(&places).await?;
    waits.numbered(entries.into_iter().zip(found).filter_map(|(entry, at)| Some((entry, at?))));
    Ok(())
}
