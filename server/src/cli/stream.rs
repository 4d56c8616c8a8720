//! `minium sub` and `minium pull`: messages as they come, until enough have come or somebody says stop.

use super::output::{Output, quietly};
use super::remote::{Remote, explain};
use super::stream_render::{Shown, write, write_from};
use crate::exit::{Exit, fault};
use clap::Args;
use futures::{Stream, StreamExt};
use minium_client::{
    Client, ClientError, ConnectOptions, Connection, Event, PullOptions, Received, State, Subscription, Work,
};
use minium_protocol::{After, ErrorCode, Filter, JobOptions, Position, Topic};
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
    after_help = "Positions are written EPOCH:OFFSET; only durable topics (task/… among them) have them. A \
    subscription that is cut comes back and resumes behind what it has seen. In a pipe each message is one line of \
    JSON, with --topic an object {\"topic\",\"position\",\"data\"}. On a terminal the topic stands before messages \
    that may have several.

Examples:
  minium sub task                               all task events, from now on
  minium sub task/import/42 --after earliest    all that happened to job 42
  minium sub task --last 10 -n 10 | jq .type    the last ten events
  minium sub livesys/+/power                    one level of many machines
  minium sub news chat --topic | jq .topic      two topics, over one socket"
)]
pub(crate) struct Sub {
    /// What to hear: topics and all below them; + stands for one segment
    #[arg(value_name = "TOPIC", required = true)]
    filters: Vec<Filter>,
    /// Begin behind this position: EPOCH:OFFSET, OFFSET, earliest or latest
    #[arg(long, value_name = "POSITION", conflicts_with = "last")]
    after: Option<After>,
    /// Begin with the last so many messages
    #[arg(long, value_name = "N")]
    last: Option<u32>,
    /// Show the topic of each message
    #[arg(long)]
    topic: bool,
    #[command(flatten)]
    take: Take,
}

/// Arguments of `minium pull`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --ack work is handed out at most once: what has been sent to this puller is not sent to \
    another, also when it ends after -n messages while more are on their way. With --ack, on a durable channel, each \
    message is acknowledged when it has been written, and goes to another puller when it was not.

Examples:
  minium pull render
  minium pull render -n 1 | ./render.sh
  minium pull import --ack | ./import.sh"
)]
pub(crate) struct Pull {
    /// The work channel
    topic: Topic,
    /// Acknowledge each message when it is written (needs a durable channel)
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
        let connection = client.connect(ConnectOptions::default()).map_err(explain)?;
        let after = self.last.map(After::Last).or(self.after).unwrap_or_default();
        let filters = distinct(&self.filters);
        let mut subscriptions = Vec::new();
        for filter in &filters {
            subscriptions.push(subscribe(&connection, filter, after, output).await.map_err(explain)?);
        }
        let many = filters.len() > 1 || filters.iter().any(Filter::is_wild);
        let shown = Shown { topic: self.topic || many, wrapped: self.topic };
        let mut end = follow(&connection, subscriptions, self.take.count, shown, output).await;
        let enough = end.result.is_ok() && end.left == 0;
        if let (Some(position), [filter], false) = (end.position.take(), &filters[..], enough) {
            output.hint(&format!("Resume with: minium sub {filter} --after {position}"));
        }
        client.close().await;
        quietly(end.result)
    }
}

/// Each message once: without filters that another one covers.
fn distinct(filters: &[Filter]) -> Vec<Filter> {
    let mut distinct: Vec<Filter> = Vec::new();
    for filter in filters {
        if !distinct.iter().any(|d| d.covers(filter)) {
            distinct.retain(|d| !filter.covers(d));
            distinct.push(filter.clone());
        }
    }
    distinct
}

impl Pull {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let output = Output::new(self.take.json);
        let client = self.take.remote.client()?;
        let result = self.work_off(&client, output).await;
        client.close().await;
        quietly(result)
    }

    async fn work_off(&self, client: &Client, output: Output) -> anyhow::Result<()> {
        let connection = client.connect(ConnectOptions::default()).map_err(explain)?;
        // one job at a time: no other is kept from those who could do it. Whoever names a queue is refused where there is
        // none, before a message comes
        let queue = self.ack.then(|| JobOptions::default().queue);
        let mut work = connection
            .pull(&self.topic, PullOptions { queue, ..PullOptions::default() })
            .await
            .map_err(explain)?;
        let mut left = self.take.count.unwrap_or(u64::MAX);
        let mut state = Told::new(&connection);
        let mut stop = std::pin::pin!(stopped());
        while left > 0 {
            let got = tokio::select! {
                biased;
                // an orderly end, for whoever asked for it
                () = &mut stop => break,
                () = state.changed(output) => continue,
                got = work.next() => got,
            };
            match got {
                None => break,
                Some(Err(error)) => return Err(explain(error)),
                Some(Ok(Work::Job(job))) => {
                    let args = minium_client::Message::Text(job.job.args.get().to_owned());
                    // where nothing is acknowledged, sent is done
                    if self.ack {
                        write(output, &args)?;
                        job.ack(None).await.map_err(explain)?;
                    } else {
                        job.ack(None).await.map_err(explain)?;
                        write(output, &args)?;
                    }
                    left -= 1;
                }
                Some(Ok(Work::Message(message))) => {
                    write(output, &message.payload.into_message(false))?;
                    left -= 1;
                    if self.ack {
                        let why = format!("{} is not durable: nothing is acknowledged there", self.topic);
                        return Err(fault(Exit::Usage, why));
                    }
                }
                Some(Ok(_)) => output.notice(MISSING),
            }
        }
        Ok(())
    }
}

const MISSING: &str = "minium: messages may be missing here: the connection was cut.";

/// Subscribes. A node that has just started listens before its journal is there: that is waited for, a little.
pub(super) async fn subscribe(
    connection: &Connection,
    filter: &Filter,
    after: After,
    output: Output,
) -> Result<Subscription, ClientError> {
    const PATIENCE: Duration = Duration::from_secs(15);
    const PAUSE: Duration = Duration::from_millis(250);
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match connection.subscribe(filter, after).await {
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

/// Writes messages until `count` have come, the server ends the streams, or a signal comes.
async fn follow(
    connection: &Connection,
    subscriptions: Vec<Subscription>,
    count: Option<u64>,
    shown: Shown,
    output: Output,
) -> End {
    let mut end = End { result: Ok(()), position: None, left: count.unwrap_or(u64::MAX) };
    let durable: Vec<bool> = subscriptions.iter().map(|s| s.position().is_some()).collect();
    let mut messages = futures::stream::select_all(subscriptions.into_iter().enumerate().map(numbered));
    let mut state = Told::new(connection);
    let mut stop = std::pin::pin!(stopped());
    while end.left > 0 {
        let (n, event) = tokio::select! {
            biased;
            // an orderly end, for whoever asked for it
            () = &mut stop => break,
            () = state.changed(output) => continue,
            next = messages.next() => match next {
                None => break,
                Some(next) => next,
            },
        };
        end.result = match event {
            Ok(Event::Message(message)) => {
                end.position = message.position.filter(|_| durable[n]).or(end.position);
                end.left -= 1;
                let Received { topic, position, payload } = message;
                write_from(output, shown, &topic, position, payload)
            }
            Ok(Event::Gap { from: Some(from), to: Some(to) }) => {
                output.notice(&format!("minium: this reader is too slow: {from} to {to} were left out."));
                Ok(())
            }
            Ok(Event::Gap { .. }) => {
                output.notice(MISSING);
                Ok(())
            }
            Ok(Event::Lost(problem)) => Err(explain(ClientError::Problem(problem))),
            Ok(_) => Ok(()),
            Err(error) => Err(explain(error)),
        };
        if end.result.is_err() {
            break;
        }
    }
    end
}

/// Events that say whose they are.
fn numbered(
    (n, subscription): (usize, Subscription),
) -> impl Stream<Item = (usize, Result<Event, ClientError>)> + Unpin {
    subscription.map(move |event| (n, event))
}

/// What people were told about cuts.
pub(super) struct Told {
    state: watch::Receiver<State>,
    away: bool,
}

impl Told {
    pub(super) fn new(connection: &Connection) -> Told {
        Told { state: connection.state(), away: false }
    }

    /// Tells people of the next change.
    pub(super) async fn changed(&mut self, output: Output) {
        if self.state.changed().await.is_err() {
            // nothing changes any more
            return std::future::pending().await;
        }
        match &*self.state.borrow_and_update() {
            State::Connecting { last: Some(why), .. } if !self.away => {
                self.away = true;
                output.hint(&format!("Reconnecting: {why}"));
            }
            State::Open { .. } if std::mem::take(&mut self.away) => output.hint("Connected again."),
            State::Connecting { .. } | State::Open { .. } | State::Idle | State::Ended => {}
        }
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

/// SIGQUIT: at once.
pub(super) async fn quit() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::quit()) {
        Ok(mut quit) => _ = quit.recv().await,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_others_cover_are_left_out() {
        let left = |filters: &[&str]| {
            let filters: Vec<Filter> = filters.iter().map(|f| f.parse().unwrap()).collect();
            distinct(&filters).iter().map(|f| f.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(left(&["a/b", "a", "c", "a/c", "c"]), ["a", "c"]);
        assert_eq!(left(&["a/+/x", "a/b"]), ["a/+/x", "a/b"]);
    }
}
