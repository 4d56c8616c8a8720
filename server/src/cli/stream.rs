//! `minium sub` and `minium pull`: messages as they come, until enough have come or somebody says stop.

use super::output::{Output, quietly};
use super::remote::{Remote, explain};
use super::stream_render::write;
use crate::exit::{Exit, fault};
use clap::Args;
use futures::StreamExt;
use minium_client::{Client, ClientError, Status, SubscribeOptions, Subscription};
use minium_protocol::{After, ErrorCode, Filter, Position, Topic};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How much to take.
#[derive(Debug, Args)]
struct Take {
    /// End after so many messages
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// One line of JSON per message, on a terminal too
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Arguments of `minium sub`.
#[derive(Debug, Args)]
#[command(
    after_help = "Positions are written EPOCH:OFFSET; only durable topics (task/…) have them. A subscription \
    that is cut comes back and resumes behind what it has seen. In a pipe each message is one line of JSON.

Examples:
  minium sub task                               all task events, from now on
  minium sub task/import/42 --after earliest    all that happened to job 42
  minium sub task --last 10 -n 10 | jq .type    the last ten events
  minium sub livesys/+/power                    one level of many machines"
)]
pub(crate) struct Sub {
    /// What to hear: a topic and all below it; + stands for one segment
    #[arg(value_name = "TOPIC")]
    filter: Filter,
    /// Begin behind this position: EPOCH:OFFSET, OFFSET, earliest or latest
    #[arg(long, value_name = "POSITION", conflicts_with = "last")]
    after: Option<After>,
    /// Begin with the last so many messages
    #[arg(long, value_name = "N")]
    last: Option<u32>,
    #[command(flatten)]
    take: Take,
}

/// Arguments of `minium pull`.
#[derive(Debug, Args)]
#[command(
    after_help = "Work is handed out at most once: what has been sent to this puller is not sent to another, \
    also when it ends after -n messages while more are on their way.

Examples:
  minium pull render
  minium pull render -n 1 | ./render.sh"
)]
pub(crate) struct Pull {
    /// The work channel
    topic: Topic,
    /// Acknowledge each message (needs a durable channel)
    #[arg(long)]
    ack: bool,
    #[command(flatten)]
    take: Take,
}

impl Sub {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.take.json);
        let client = self.take.remote.client()?;
        let after = self.last.map(After::Last).or(self.after).unwrap_or_default();
        let options = SubscribeOptions { after, ..SubscribeOptions::default() };
        let messages = subscribe(&client, &self.filter, options, output).await.map_err(explain)?;
        let end = follow(messages, self.take.count, output).await;
        let enough = end.result.is_ok() && end.left == 0;
        if let Some(position) = end.position.filter(|_| !enough) {
            output.hint(&format!("Resume with: minium sub {} --after {position}", self.filter));
        }
        client.close().await;
        quietly(end.result)
    }
}

impl Pull {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        if self.ack {
            let why = "--ack is not supported yet: work channels are not durable in this version";
            return Err(fault(Exit::Usage, why));
        }
        let output = Output::new(self.take.json);
        let client = self.take.remote.client()?;
        let messages = client.puller(&self.topic).await.map_err(explain)?;
        let end = follow(messages, self.take.count, output).await;
        client.close().await;
        quietly(end.result)
    }
}

/// Subscribes. A node that has just started listens before its journal is there: that is waited for, a little.
async fn subscribe(
    client: &Client,
    filter: &Filter,
    options: SubscribeOptions,
    output: Output,
) -> Result<Subscription, ClientError> {
    const PATIENCE: Duration = Duration::from_secs(15);
    const PAUSE: Duration = Duration::from_millis(250);
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match client.subscribe(filter, options.clone()).await {
            Err(ClientError::Problem(p)) if p.code == ErrorCode::Unavailable && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    output.hint(&format!("Waiting: {p}"));
                }
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// How a stream ended.
struct End {
    result: anyhow::Result<()>,
    /// The last position that was written.
    position: Option<Position>,
    /// So many more were wanted.
    left: u64,
}

/// Writes messages until `count` have come, the server ends the stream, or a signal comes.
async fn follow(mut messages: Subscription, count: Option<u64>, output: Output) -> End {
    let mut end = End { result: Ok(()), position: None, left: count.unwrap_or(u64::MAX) };
    let mut status = messages.status();
    let mut stop = std::pin::pin!(stopped());
    while end.left > 0 {
        tokio::select! {
            biased;
            // An orderly end, for whoever asked for it.
            () = &mut stop => break,
            Ok(()) = status.changed() => tell(&mut status, output),
            received = messages.next() => match received {
                None => break,
                Some(Err(error)) => {
                    end.result = Err(explain(error));
                    break;
                }
                Some(Ok(received)) => {
                    if received.after_gap {
                        output.notice("minium: messages may be missing here: the connection was cut.");
                    }
                    if let Err(error) = write(output, &received.message) {
                        end.result = Err(error);
                        break;
                    }
                    end.position = received.position.or(end.position);
                    end.left -= 1;
                }
            },
        }
    }
    messages.close().await;
    end
}

/// Tells people about cuts.
fn tell(status: &mut watch::Receiver<Status>, output: Output) {
    match &*status.borrow_and_update() {
        Status::Connecting { failures: 1, last: Some(why) } => output.hint(&format!("Reconnecting: {why}")),
        Status::Open { connection: 2.. } => output.hint("Connected again."),
        Status::Connecting { .. } | Status::Open { .. } | Status::Ended => {}
    }
}

/// Once more what [`stopped`] waits for, and later.
pub(super) async fn insisted() {
    let asked = tokio::time::Instant::now();
    while asked.elapsed() < crate::exit::SAME_WORD {
        stopped().await;
    }
}

/// SIGINT or SIGTERM. The second one kills as usual.
pub(super) async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals kill, as they do by themselves.
        _ => std::future::pending().await,
    }
}
