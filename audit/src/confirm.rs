//! Tells the server how far everything is recorded, so that its retention may wait. Beside the recorder, at most once a
//! second; and again and again while nothing comes, so that a recorder that has nothing to do is not taken for one that is
//! gone. What the server did not hear is said again soon.

use minium_client::{Client, ClientError};
use minium_protocol::{ErrorCode, Filter, Position};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

const EVERY: Duration = Duration::from_secs(1);
/// After a failure it is said again so soon.
const SOON: Duration = Duration::from_secs(5);
/// What was recorded last is told before the end, unless that takes longer.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How far a topic is on the disk.
pub(crate) type Confirmed = Option<Position>;

/// What tells it, for each topic.
pub(crate) struct Confirming {
    positions: Vec<watch::Sender<Confirmed>>,
    tasks: JoinSet<()>,
}

impl Confirming {
    /// Where there are several topics each has a name of its own, since each has a position of its own.
    /// What is known is said again every `heartbeat`.
    pub(crate) fn start(client: &Client, name: &str, topics: &[Filter], heartbeat: Duration) -> Confirming {
        let (mut positions, mut tasks) = (Vec::new(), JoinSet::new());
        for topic in topics {
            let name = if topics.len() > 1 { format!("{name}:{topic}") } else { name.to_owned() };
            let (sender, receiver) = watch::channel(None);
            positions.push(sender);
            let teller = Teller { client: client.clone(), name, topic: topic.to_string(), heartbeat };
            tasks.spawn(teller.run(receiver));
        }
        Confirming { positions, tasks }
    }

    /// It is on the disk.
    pub(crate) fn confirm(&self, topic: usize, position: Position) {
        self.positions[topic].send_replace(Some(position));
    }

    /// Tells what was not told yet.
    pub(crate) async fn finish(self) {
        let Confirming { positions, mut tasks } = self;
        drop(positions);
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(LAST_WORD, all).await.is_err() {
            debug!("The server was not told the last position.");
        }
    }
}

/// What tells it of one topic.
struct Teller {
    client: Client,
    name: String,
    topic: String,
    heartbeat: Duration,
}

/// What the log was told already.
#[derive(Default)]
struct Told {
    unknown: bool,
    failed: bool,
}

impl Teller {
    async fn run(self, mut positions: watch::Receiver<Confirmed>) {
        let (mut said, mut told, mut again) = (None, Told::default(), None);
        loop {
            let changed = positions.changed();
            let ended = match again {
                Some(pause) => timeout(pause, changed).await.is_ok_and(|changed| changed.is_err()),
                None => changed.await.is_err(),
            };
            let known = *positions.borrow_and_update();
            if ended && (known.is_none() || known == said) {
                return;
            }
            let Some(position) = known else { continue };
            let result =
                self.client.confirm_recorder(&self.name, position, std::slice::from_ref(&self.topic)).await;
            if ended {
                return;
            }
            // a server that does not know of recorders is asked now and then whether it has learnt of them
            let unknown = result.as_ref().is_err_and(is_unknown);
            let soon = SOON.min(self.heartbeat);
            again = Some(if result.is_err() && !unknown { soon } else { self.heartbeat });
            said = result.is_ok().then_some(position).or(said);
            self.log(result, unknown, &mut told);
            // whoever ends meanwhile is not kept waiting
            let pause = tokio::time::sleep(if unknown { self.heartbeat } else { EVERY.min(self.heartbeat) });
            tokio::select! {
                () = pause => {}
                () = closed(&positions) => {}
            }
        }
    }

    fn log(&self, result: Result<(), ClientError>, unknown: bool, told: &mut Told) {
        let name = &self.name;
        let Err(error) = result else {
            *told = Told::default();
            return;
        };
        if unknown {
            if !std::mem::replace(&mut told.unknown, true) {
                info!(name, "The server does not wait for recorders.");
            }
        } else if !error.is_away() && !std::mem::replace(&mut told.failed, true) {
            warn!(name, %error, "The server cannot be told how far everything is recorded.");
        }
        debug!(name, %error, "The server was not told how far everything is recorded.");
    }
}

fn is_unknown(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::NotFound))
        || matches!(error, ClientError::Status { status: 405, .. })
}

async fn closed(positions: &watch::Receiver<Confirmed>) {
    let mut positions = positions.clone();
    while positions.changed().await.is_ok() {}
}
