//! `minium pub`, `minium push` and `minium bus`: one message by POST, or one per line of stdin over one socket.
//!
//! Lines go in `minium.v1`: each is acknowledged, and said again with its id when the connection was cut. A line that
//! is JSON goes as JSON, other text as a JSON string, which is the text again where it is heard; what is no text has no
//! frame there and is sent by POST in its turn.

use super::job_enqueue::unreadable;
use super::output::{Output, quietly};
use super::remote::{Remote, explain, told};
use super::stream::{Told, stopped};
use super::stream_input::{Input, lines};
use super::stream_render::write;
use crate::exit::{Exit, exit_of, fault};
use clap::Args;
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{Stream, StreamExt};
use minium_client::{
    Client, ClientError, ConnectOptions, Connection, Message, Payload, PeerEvent, PeerSender, Pending,
    Receipt, plain,
};
use minium_protocol::Topic;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lines whose answers are awaited. Beyond, stdin is not read.
const UNANSWERED_MAX: usize = 512;
/// After a signal, what is on its way may take so long.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

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
            None => each_line(&client, Verb::Pub, &topic).await,
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
            None => each_line(&client, Verb::Push, &topic).await,
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

/// What is done with lines.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Pub,
    Push,
}

/// Sends each line of stdin. Refusals are told as they come; the first decides the exit code.
async fn each_line(client: &Client, verb: Verb, topic: &Topic) -> anyhow::Result<()> {
    let connection = client.connect(ConnectOptions::default()).map_err(explain)?;
    let result = send_lines(client, &connection, verb, topic).await;
    client.close().await;
    result
}

async fn send_lines(
    client: &Client,
    connection: &Connection,
    verb: Verb,
    topic: &Topic,
) -> anyhow::Result<()> {
    let output = Output::new(false);
    let mut input = lines();
    let mut answers = FuturesOrdered::new();
    let mut refusals = Refusals { output, count: 0, first: None };
    let mut sent = 0_u64;
    let mut state = Told::new(connection);
    let mut stop = std::pin::pin!(stopped());
    let mut asked = false;
    let read = loop {
        tokio::select! {
            () = &mut stop => {
                asked = true;
                break Ok(());
            }
            () = state.changed(output) => {}
            Some(answer) = answers.next() => refusals.take(answer)?,
            line = input.recv(), if answers.len() < UNANSWERED_MAX => match line {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok(line)) => {
                    sent += 1;
                    match send(connection, verb, topic, Payload::guess(line)).await.map_err(explain)? {
                        Sent::Pending(pending) => answers.push_back(pending),
                        Sent::Bare(bytes) => {
                            // behind what was sent before it
                            while let Some(answer) = answers.next().await {
                                refusals.take(answer)?;
                            }
                            refusals.take(post(client, verb, topic, bytes).await)?;
                        }
                    }
                }
            },
        }
    };
    // whoever said stop does not wait for a server that is not there
    let mut overdue = std::pin::pin!(async {
        if !asked {
            stop.await;
        }
        tokio::time::sleep(LAST_ANSWERS).await;
    });
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => refusals.take(answer)?,
                None => break,
            },
            () = state.changed(output) => {}
            () = &mut overdue => {
                return Err(fault(Exit::NoConnection, "what was sent last was not acknowledged"));
            }
        }
    }
    read?;
    refusals.result(sent)
}

/// A line on its way.
enum Sent {
    Pending(Pending<Receipt>),
    /// It has no frame.
    Bare(bytes::Bytes),
}

async fn send(
    connection: &Connection,
    verb: Verb,
    topic: &Topic,
    payload: Payload,
) -> Result<Sent, ClientError> {
    if let Payload::Binary(bytes) = payload {
        return Ok(Sent::Bare(bytes));
    }
    let pending = match verb {
        Verb::Pub => connection.offer(topic, payload, None).await,
        Verb::Push => connection.hand_out(topic, payload, None).await,
    };
    pending.map(Sent::Pending)
}

async fn post(
    client: &Client,
    verb: Verb,
    topic: &Topic,
    bytes: bytes::Bytes,
) -> Result<Receipt, ClientError> {
    match verb {
        Verb::Pub => client.publish(topic, bytes).await?,
        Verb::Push => client.push(topic, bytes).await?,
    }
    Ok(Receipt { position: None, job: None })
}

/// What went wrong with some of many messages.
struct Refusals {
    output: Output,
    count: u64,
    first: Option<(Exit, String)>,
}

impl Refusals {
    /// One message's answer. An error that is about all of them is given back.
    fn take(&mut self, answer: Result<Receipt, ClientError>) -> anyhow::Result<()> {
        let (exit, word) = match answer {
            Ok(_) => return Ok(()),
            Err(ClientError::Problem(problem)) => {
                self.output.notice(&format!("minium: {}", told(&problem)));
                (exit_of(problem.code), problem.code.to_string())
            }
            Err(ClientError::Cut { .. }) => {
                self.output.notice("minium: a message may be lost: the connection was cut.");
                (Exit::NoConnection, "cut".into())
            }
            Err(error) => return Err(explain(error)),
        };
        self.count += 1;
        self.first.get_or_insert((exit, word));
        Ok(())
    }

    fn result(self, sent: u64) -> anyhow::Result<()> {
        let Some((exit, word)) = self.first else { return Ok(()) };
        Err(fault(exit, format!("{word}: {} of {sent} messages were refused", self.count)))
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
        let output = Output::new(self.json);
        let (speaker, heard) = join(&client, &topic, self.echo).await?;
        let result = converse(speaker, heard, self.count, lines(), output).await;
        client.close().await;
        quietly(result)
    }
}

/// What a peer hears; `None` where messages may be missing.
type Heard = BoxStream<'static, Result<Option<Message>, ClientError>>;

/// How a peer speaks.
enum Speaker {
    V1(PeerSender),
    /// `minium.v1` has no word for hearing oneself.
    Echoed(Option<plain::Speaker>),
}

async fn join(client: &Client, topic: &Topic, echo: bool) -> anyhow::Result<(Speaker, Heard)> {
    if echo {
        let (speaker, peer) = client.plain_peer(topic, true).await.map_err(explain)?.split();
        return Ok((Speaker::Echoed(speaker), peer.map(|m| m.map(Some)).boxed()));
    }
    let connection = client.connect(ConnectOptions::default()).map_err(explain)?;
    let peer = connection.bus(topic).await.map_err(explain)?;
    let message = |event| match event {
        PeerEvent::Message(m) => Some(m.payload.into_message(false)),
        _ => None,
    };
    Ok((Speaker::V1(peer.sender()), peer.map(move |e| e.map(message)).boxed()))
}

impl Speaker {
    /// `false` when the session is over: the listening half says why.
    async fn send(&self, line: Vec<u8>) -> anyhow::Result<bool> {
        match self {
            Speaker::V1(sender) => match Payload::guess(line) {
                Payload::Binary(_) => Err(fault(Exit::Usage, "a line is no text: send it as @FILE")),
                payload @ Payload::Json(_) => Ok(sender.send(payload).await.is_ok()),
            },
            Speaker::Echoed(Some(speaker)) => Ok(speaker.send(Message::guess(line)).await),
            Speaker::Echoed(None) => Ok(false),
        }
    }

    /// Nothing more is to be sent.
    async fn finish(self) {
        if let Speaker::V1(sender) = self {
            sender.finish().await;
        }
    }
}

/// Sends lines and writes what others send, until stdin has ended or `count` messages have come. Both go on at the
/// same time: a server that cannot write to us does not read from us.
async fn converse(
    speaker: Speaker,
    heard: Heard,
    count: Option<u64>,
    mut input: mpsc::Receiver<anyhow::Result<Vec<u8>>>,
    output: Output,
) -> anyhow::Result<()> {
    let speak = async {
        while let Some(line) = input.recv().await {
            if !speaker.send(line?).await? {
                // the listening half says why the session is over
                break;
            }
        }
        if count.is_some() {
            // whoever waits for a number of messages listens on in silence
            std::future::pending::<()>().await;
        }
        speaker.finish().await;
        anyhow::Ok(())
    };
    let mut listen = std::pin::pin!(listen(heard, count, output));
    tokio::select! {
        () = stopped() => Ok(()),
        heard = &mut listen => heard,
        spoken = speak => {
            spoken?;
            // the speaker is gone: what still comes, comes before the server's answer to our Close
            listen.await
        }
    }
}

/// Writes what others send. Refusals are told as they come; the first decides the exit code.
async fn listen(
    mut heard: impl Stream<Item = Result<Option<Message>, ClientError>> + Unpin,
    count: Option<u64>,
    output: Output,
) -> anyhow::Result<()> {
    let mut left = count.unwrap_or(u64::MAX);
    let mut first = None;
    while left > 0 {
        match heard.next().await {
            None => break,
            Some(Ok(Some(message))) => {
                write(output, &message)?;
                left -= 1;
            }
            Some(Ok(None)) => output.notice("minium: messages may be missing here: the connection was cut."),
            Some(Err(ClientError::Problem(problem))) => {
                output.notice(&format!("minium: {}", told(&problem)));
                first.get_or_insert(ClientError::Problem(problem));
            }
            Some(Err(error)) => return Err(explain(error)),
        }
    }
    first.map_or(Ok(()), |problem| Err(explain(problem)))
}
