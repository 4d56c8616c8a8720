//! `minium pub`, `minium push` and `minium bus`: one message by POST, or one per line of stdin over one socket.

use super::job_enqueue::unreadable;
use super::output::{Output, quietly};
use super::remote::{Remote, explain, told};
use super::stream::stopped;
use super::stream_input::{Input, lines};
use super::stream_render::write;
use crate::exit::{Exit, exit_of, fault};
use clap::Args;
use futures::StreamExt;
use minium_client::{Client, ClientError, Message, Peer, Publisher};
use minium_protocol::{Problem, Topic};
use std::io::IsTerminal;
use tokio::sync::mpsc;

/// What to send, and where.
#[derive(Debug, Args)]
struct Sending {
    /// The topic
    topic: Topic,
    /// One message; @FILE is one too; - sends each line of stdin
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Arguments of `minium pub`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minium pub livesys/7 '{\"command\":\"reboot\"}'\n  minium pub livesys/7 \
    @report.json\n  tail -f events.ndjson | minium pub log/rack3 -"
)]
pub(crate) struct Pub {
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `minium push`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each message goes to exactly one puller of this very topic, in turn.\n\nExamples:\n  minium \
    push render '{\"frame\":1}'\n  seq 100 | minium push render -"
)]
pub(crate) struct Push {
    #[command(flatten)]
    sending: Sending,
}

/// Arguments of `minium bus`.
#[derive(Debug, Args)]
#[command(
    after_help = "With DATA, sends one message to all peers and ends. Without, joins the bus: lines of stdin are \
    sent, and what the others send is written, until stdin ends.

Examples:
  minium bus ops 'node 3 goes down'
  minium bus ops
  minium bus ops -n 5 </dev/null               hear five messages, say nothing"
)]
pub(crate) struct Bus {
    #[command(flatten)]
    sending: Sending,
    /// Hear one's own messages, too
    #[arg(long)]
    echo: bool,
    /// End after so many messages from others
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// One line of JSON per message, on a terminal too
    #[arg(long, display_order = 800)]
    json: bool,
}

impl Pub {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Sending { topic, data, remote } = self.sending;
        let client = remote.client()?;
        match one_message(data.as_deref(), "publish").await? {
            Some(message) => client.publish(&topic, message).await.map_err(explain),
            None => each_line(client.publisher(&topic).await.map_err(explain)?, &client).await,
        }
    }
}

impl Push {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Sending { topic, data, remote } = self.sending;
        let client = remote.client()?;
        match one_message(data.as_deref(), "push").await? {
            Some(message) => client.push(&topic, message).await.map_err(explain),
            None => each_line(client.pusher(&topic).await.map_err(explain)?, &client).await,
        }
    }
}

/// The message that the command line names; `None`: the lines of stdin.
async fn one_message(data: Option<&str>, word: &str) -> anyhow::Result<Option<Message>> {
    match data.map(Input::parse) {
        Some(Input::Here(text)) => Ok(Some(text.into())),
        Some(Input::File(path)) => {
            let data = tokio::fs::read(&path).await.map_err(|e| unreadable(&path, &e))?;
            Ok(Some(Message::guess(data)))
        }
        Some(Input::Stdin) => Ok(None),
        None if std::io::stdin().is_terminal() => Err(fault(
            Exit::Usage,
            format!("nothing to {word}: give DATA, @FILE, or - for the lines of stdin"),
        )),
        None => Ok(None),
    }
}

/// Sends each line of stdin. Refusals are told as they come; the first decides the exit code.
async fn each_line(mut publisher: Publisher, client: &Client) -> anyhow::Result<()> {
    let output = Output::new(false);
    let mut input = lines();
    let mut refusals = Refusals { output, count: 0, first: None };
    let mut sent = 0_u64;
    let mut stop = std::pin::pin!(stopped());
    let read = loop {
        tokio::select! {
            () = &mut stop => break Ok(()),
            Some(problem) = publisher.refused() => refusals.take(problem),
            line = input.recv() => match line {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(line)) => {
                    publisher.send(Message::guess(line)).await.map_err(explain)?;
                    sent += 1;
                }
            },
        }
    };
    // The server's answer to our Close comes behind the refusals that are still on their way.
    publisher.finish();
    while let Some(problem) = publisher.refused().await {
        refusals.take(problem);
    }
    let closed = publisher.close().await;
    client.close().await;
    read?;
    closed.map_err(explain)?;
    refusals.result(sent)
}

/// What the server refused of many messages.
struct Refusals {
    output: Output,
    count: u64,
    first: Option<Problem>,
}

impl Refusals {
    fn take(&mut self, problem: Problem) {
        self.output.notice(&format!("minium: {}", told(&problem)));
        self.count += 1;
        self.first.get_or_insert(problem);
    }

    fn result(self, sent: u64) -> anyhow::Result<()> {
        let Some(first) = self.first else { return Ok(()) };
        Err(fault(
            exit_of(first.code),
            format!("{}: {} of {sent} messages were refused", first.code, self.count),
        ))
    }
}

impl Bus {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Sending { topic, data, remote } = self.sending;
        let client = remote.client()?;
        let message = match data.as_deref() {
            None => None,
            some => one_message(some, "send").await?,
        };
        if let Some(message) = message {
            return client.send(&topic, message).await.map_err(explain);
        }
        let peer = client.peer(&topic, self.echo).await.map_err(explain)?;
        let output = Output::new(self.json);
        let result = converse(peer, self.count, lines(), output).await;
        client.close().await;
        quietly(result)
    }
}

/// Sends lines and writes what others send, until stdin has ended or `count` messages have come. Both go on at the
/// same time: a server that cannot write to us does not read from us.
async fn converse(
    peer: Peer,
    count: Option<u64>,
    mut input: mpsc::Receiver<anyhow::Result<Vec<u8>>>,
    output: Output,
) -> anyhow::Result<()> {
    let (speaker, peer) = peer.split();
    let speak = async {
        // Dropped when stdin has ended: then nothing more is to be sent.
        let speaker = speaker.expect("nobody has split or finished this peer");
        while let Some(line) = input.recv().await {
            if !speaker.send(Message::guess(line?)).await {
                // The listening half says why the session is over.
                break;
            }
        }
        if count.is_some() {
            // Whoever waits for a number of messages listens on in silence.
            std::future::pending::<()>().await;
        }
        anyhow::Ok(())
    };
    let mut listen = std::pin::pin!(listen(peer, count, output));
    tokio::select! {
        () = stopped() => Ok(()),
        heard = &mut listen => heard,
        spoken = speak => {
            spoken?;
            // The speaker is gone: what still comes, comes before the server's answer to our Close.
            listen.await
        }
    }
}

/// Writes what others send. Refusals are told as they come; the first decides the exit code.
async fn listen(mut peer: Peer, count: Option<u64>, output: Output) -> anyhow::Result<()> {
    let mut left = count.unwrap_or(u64::MAX);
    let mut first = None;
    while left > 0 {
        match peer.next().await {
            None => break,
            Some(Ok(message)) => {
                write(output, &message)?;
                left -= 1;
            }
            Some(Err(ClientError::Problem(problem))) => {
                output.notice(&format!("minium: {}", told(&problem)));
                first.get_or_insert(ClientError::Problem(problem));
            }
            Some(Err(error)) => return Err(explain(error)),
        }
    }
    first.map_or(Ok(()), |problem| Err(explain(problem)))
}
