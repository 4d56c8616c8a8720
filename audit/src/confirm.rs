//! Tells the server how far everything is recorded, so that its retention may wait. Beside the recorder, at most once a
//! second; what it misses is told with the next.

use minium_client::{Client, ClientError};
use minium_protocol::{ErrorCode, Filter, Position};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

const EVERY: Duration = Duration::from_secs(1);
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
    pub(crate) fn start(client: &Client, name: &str, topics: &[Filter]) -> Confirming {
        let (mut positions, mut tasks) = (Vec::new(), JoinSet::new());
        for topic in topics {
            let name = if topics.len() > 1 { format!("{name}:{topic}") } else { name.to_owned() };
            let (sender, receiver) = watch::channel(None);
            positions.push(sender);
            tasks.spawn(tell(client.clone(), name, topic.to_string(), receiver));
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

async fn tell(client: Client, name: String, topic: String, mut positions: watch::Receiver<Confirmed>) {
    let (mut open, mut told) = (true, false);
    while open {
        open = positions.changed().await.is_ok();
        let known = *positions.borrow_and_update();
        let Some(position) = known else { continue };
        match client.confirm_recorder(&name, position, std::slice::from_ref(&topic)).await {
            Ok(()) => {}
            Err(error) if is_unknown(&error) => {
                info!(name, "The server does not wait for recorders.");
                return;
            }
            Err(error) => {
                if !error.is_away() && !std::mem::replace(&mut told, true) {
                    warn!(name, %error, "The server cannot be told how far everything is recorded.");
                }
                debug!(name, %error, "The server was not told how far everything is recorded.");
            }
        }
        if open {
            // whoever ends meanwhile is not kept waiting
            let pause = tokio::time::sleep(EVERY);
            tokio::select! {
                () = pause => {}
                () = closed(&positions) => {}
            }
        }
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
