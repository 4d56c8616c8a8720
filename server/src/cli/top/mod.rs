//! `minium top`: what the console's overview shows, in a terminal.
//!
//! `feed` asks the node and follows its events by the public API, `model` is what is known and where the reader looks,
//! `draw` makes the screen of it as a pure function, `terminal` has the terminal. Where stdout is none, `plain` writes one
//! look.

mod draw;
mod feed;
mod keys;
mod lists;
mod look;
mod model;
mod overview;
mod plain;
mod rates;
mod terminal;
#[cfg(test)]
mod tests;

use super::output::{Output, Style, quietly};
use super::remote::{Remote, explain};
use super::stream::{quit, stopped};
use crate::exit::{Exit, fault};
use clap::Args;
use jiff::Timestamp;
use look::Look;
use minium_client::Client;
use minium_protocol::parse_duration;
use model::{Model, News};
use std::time::Duration;
use terminal::{Input, Screen};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// News that wait for the screen.
const NEWS_MAX: usize = 1_024;
/// The screen is drawn at most this often, however much happens.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// The clock goes on though nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// A node is not asked more often.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Arguments of `minium top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: tab and 1 to 6 choose a pane, j and k a line, p lets the screen stand still, / shows only tasks with a \
    text in their name, ? tells all keys, q ends it. It needs a terminal of 80 columns and 24 lines. Where stdout is no \
    terminal it prints what there is once.

With [auth] it takes the scopes jobs:read and, for what happens live, sub:task.

Examples:
  minium top
  minium top --url https://hub:3000 --token-file ops.jwt
  minium top --json | jq .stats.active"
)]
pub(crate) struct Top {
    /// How often the node is asked
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    /// Print what there is once
    #[arg(long)]
    once: bool,
    /// Print one JSON document
    #[arg(long, display_order = 800)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Top {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        if self.interval < INTERVAL_MIN {
            return Err(fault(Exit::Usage, "--interval: 100ms is the least"));
        }
        let output = Output::new(self.json);
        let client = self.remote.client()?;
        // A node that is not there, or does not let us look, is told before the screen is taken.
        let look = Look::first(&client).await.map_err(explain)?;
        let result = match output.style() {
            Style::People { colour } if !self.once => Box::pin(self.watch(&client, look, colour)).await,
            Style::People { .. } | Style::Plain | Style::Json => {
                plain::write(output, client.base_url(), &look)
            }
        };
        client.close().await;
        quietly(result)
    }

    async fn watch(&self, client: &Client, look: Look, colour: bool) -> anyhow::Result<()> {
        let tasks = TaskTracker::new();
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        tasks.spawn(feed::look(client.clone(), self.interval, sender.clone()));
        tasks.spawn(feed::listen(client.clone(), sender));
        // before the terminal is taken: a signal that comes in between must find somebody who gives it back
        let mut stop = std::pin::pin!(ended());
        if futures::poll!(&mut stop).is_ready() {
            return Ok(());
        }
        let (mut screen, mut inputs) = Screen::open()?;
        let mut model = Model::new(look::text(client.base_url()), look, colour);
        let mut next = Instant::now();
        loop {
            model.tick(Timestamp::now());
            if next <= Instant::now() {
                screen.terminal.draw(|frame| {
                    draw::screen(&model, Timestamp::now(), frame.area(), frame.buffer_mut());
                })?;
                next = Instant::now() + TICK;
            }
            let soon = Instant::now() + DRAW_EVERY;
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                input = inputs.recv() => {
                    match input {
                        // the terminal is gone, and with it whoever looked
                        None => return Ok(()),
                        // drawing looks how large it is
                        Some(Input::Resize) => {}
                        Some(Input::Key(key)) => {
                            let action = keys::action(key, model.typed.is_some());
                            if action.is_some_and(|action| !model.act(action, Timestamp::now())) {
                                return Ok(());
                            }
                        }
                    }
                    next = Instant::now();
                }
                Some(word) = news.recv() => {
                    take(&mut model, word, &mut news);
                    next = next.min(soon);
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }
}

/// Tells the model all that waits, so that a fast stream costs one drawing for many events.
fn take(model: &mut Model, first: News, news: &mut mpsc::Receiver<News>) {
    let now = Timestamp::now();
    model.tell(first, now);
    for _ in 0..NEWS_MAX {
        match news.try_recv() {
            Ok(word) => model.tell(word, now),
            Err(_) => return,
        }
    }
}

/// SIGINT, SIGTERM, SIGQUIT, or SIGHUP: the terminal was closed.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let hangup = async {
        match signal(SignalKind::hangup()) {
            Ok(mut hangup) => _ = hangup.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stopped() => {}
        () = quit() => {}
        () = hangup => {}
    }
}
