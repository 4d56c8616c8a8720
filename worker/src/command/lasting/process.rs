//! One long-lived process: started until it is ready, led through a job, and ended.

use super::words::{self, Word};
use crate::command::lines::{Splitter, Tail};
use crate::command::process::{Group, Limits, keep, number, read, until};
use crate::command::{Stderr, how};
use crate::context::JobContext;
use crate::run_dir::RunDir;
use crate::task::Failure;
use rustix::process::Signal;
use serde_json::value::RawValue;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// Room in a line besides a result: errors, backtraces, notes.
const LINE_BYTES_MORE: usize = 256 * 1024;

/// A process that takes jobs, one after the other.
pub(super) struct Companion {
    group: Group,
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    limits: Limits,
    /// To be written; what was written is cut off at the front.
    input: Vec<u8>,
    /// Read from stdout, and no line yet.
    line: Vec<u8>,
    splitter: Splitter,
    tail: Tail,
    /// Where reads go.
    out: Box<[u8]>,
    err: Box<[u8]>,
    /// How many jobs it has had.
    pub(super) jobs: u64,
    pub(super) born: Instant,
    dir: Option<RunDir>,
}

/// What comes of a process.
enum Event {
    /// A line of stdout.
    Line(Vec<u8>),
    /// A line of stdout that has no end within its bound.
    TooLong,
    /// stdout has ended.
    Closed,
}

impl Companion {
    /// Starts one, and waits until it says that it is ready.
    pub(super) async fn start(
        (mut command, dir): (Command, Option<RunDir>),
        limits: &Limits,
        patience: Duration,
        stderr: &Stderr,
    ) -> Result<Companion, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(|e| e.to_string())?;
        let mut companion = Companion {
            group: Group::of(&child),
            stdin: child.stdin.take().expect("it is piped"),
            stdout: child.stdout.take().expect("it is piped"),
            stderr: child.stderr.take(),
            child,
            limits: limits.clone(),
            input: Vec::new(),
            line: Vec::new(),
            out: vec![0; 16 * 1024].into(),
            err: vec![0; 8 * 1024].into(),
            splitter: Splitter::new(limits.line_bytes_max),
            tail: Tail::new(limits.tail_bytes_max),
            jobs: 0,
            born: Instant::now(),
            dir,
        };
        let mut line = |text: &str| {
            stderr.pass_on(text);
            true
        };
        let first = timeout(patience, companion.event(&mut line)).await;
        let why = match first {
            Ok(Event::Line(text)) => match Word::read(&text) {
                Ok(Word::Ready) => return Ok(companion),
                Ok(_) => "its process speaks of jobs before it is ready".into(),
                Err(why) => why,
            },
            Ok(Event::TooLong) => "its process wrote a line without an end".into(),
            Ok(Event::Closed) => companion.died(&mut line).await,
            Err(_) => {
                format!("its process was not ready within {}", minium_protocol::format_duration(patience))
            }
        };
        companion.discard().await;
        Err(why)
    }

    /// Can it take a job? Not when it has ended or said something that nobody asked for.
    pub(super) fn is_sound(&mut self) -> bool {
        let quiet = self.line.is_empty() && waiting(&self.stdout, &mut self.line) == Waiting::Nothing;
        quiet && matches!(self.child.try_wait(), Ok(None))
    }

    /// Leads it through a job. Says how that ended, and whether it may have another one.
    pub(super) async fn run(
        &mut self,
        context: &JobContext,
        args: &RawValue,
        stderr: &Stderr,
    ) -> (Result<Box<RawValue>, Failure>, bool) {
        self.jobs += 1;
        // what it said while it had no job is nobody's
        self.read_rest_of_stderr(&mut |_| false);
        self.splitter = Splitter::new(self.limits.line_bytes_max);
        self.tail = Tail::new(self.limits.tail_bytes_max);
        // behind what is left of the words on the job before
        self.input.extend(words::job(context, args).into_bytes());
        let mut line = |text: &str| stderr.heed(context, text);
        let ended = self.lead(context, &mut line).await;
        let (sound, result) = match ended {
            Ok(result) => {
                self.read_rest_of_stderr(&mut line);
                // a last line without an end is this job's, too
                self.splitter.finish(|text| keep(&mut self.tail, text, &mut line));
                (true, result)
            }
            Err(why) => (false, Err(Failure::retryable(why))),
        };
        (result, sound)
    }

    /// Until its word on how the job has ended, or until it has none to give any more.
    async fn lead(
        &mut self,
        context: &JobContext,
        line: &mut (impl FnMut(&str) -> bool + Send),
    ) -> Result<Result<Box<RawValue>, Failure>, String> {
        let (stop, signals) = (context.cancelled(), context.signals());
        signals.take_all();
        // from being told to stop to SIGTERM to SIGKILL
        let mut stricter = [Signal::TERM, Signal::KILL].into_iter();
        let (mut stopping, mut deadline) = (false, None);
        loop {
            tokio::select! {
                event = self.event(line) => match event {
                    Event::Line(text) => if let Some(over) = self.heard(context, &text)? {
                        return Ok(over);
                    },
                    Event::TooLong => return Err("its process wrote a line without an end".into()),
                    Event::Closed => return Err(self.died(line).await),
                },
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.input.extend(words::cancel(context.id()).into_bytes());
                    deadline = Some(Instant::now() + self.limits.stop_grace);
                }
                signal = signals.next() => self.group.signal(number(signal)),
                () = until(deadline), if deadline.is_some() => {
                    deadline = stricter.next().map(|signal| {
                        self.group.signal(signal);
                        Instant::now() + self.limits.stop_grace
                    });
                }
            }
        }
    }

    /// Takes a line. The job is over with its outcome, and that must be the last that is said.
    fn heard(
        &mut self,
        context: &JobContext,
        text: &[u8],
    ) -> Result<Option<Result<Box<RawValue>, Failure>>, String> {
        let word = Word::read(text)?;
        let (Word::Progress(id, _) | Word::Notes(id, _) | Word::Log(id, ..) | Word::Over(id, _)) = &word
        else {
            return Err("its process says that it is ready, and has a job".into());
        };
        if *id != context.id() {
            return Err(format!("its process speaks of job {id}, which it does not have"));
        }
        match word {
            Word::Progress(_, progress) => context.report(progress),
            Word::Notes(_, notes) => notes.into_iter().for_each(|(key, value)| context.note(key, value)),
            Word::Log(_, level, text) => context.log(level, text),
            Word::Over(_, ending) => {
                let more = !self.line.is_empty() || waiting(&self.stdout, &mut self.line) == Waiting::Bytes;
                return match more {
                    true => Err("its process said more after the job's outcome".into()),
                    false => Ok(Some(ending)),
                };
            }
            Word::Ready => {}
        }
        Ok(None)
    }

    /// The next line of stdout; meanwhile writes what is to be written and reads stderr. Nothing is lost when it is dropped.
    async fn event(&mut self, line: &mut (impl FnMut(&str) -> bool + Send)) -> Event {
        let line_bytes_max = self.limits.stdout_bytes_max + LINE_BYTES_MORE;
        loop {
            if let Some(end) = self.line.iter().position(|b| *b == b'\n') {
                let rest = self.line.split_off(end + 1);
                let mut text = std::mem::replace(&mut self.line, rest);
                text.pop();
                return Event::Line(text);
            }
            if self.line.len() > line_bytes_max {
                return Event::TooLong;
            }
            tokio::select! {
                written = self.stdin.write(&self.input), if !self.input.is_empty() => match written {
                    Ok(n) => _ = self.input.drain(..n),
                    // it is about to end, or reads no more: stdout tells
                    Err(_) => self.input.clear(),
                },
                read = self.stdout.read(&mut self.out) => match read {
                    Ok(n) if n > 0 => self.line.extend_from_slice(&self.out[..n]),
                    Ok(_) | Err(_) => return Event::Closed,
                },
                read = read(&mut self.stderr, &mut self.err) => match read {
                    Ok(n) if n > 0 => {
                        self.splitter.feed(&self.err[..n], |text| keep(&mut self.tail, text, line));
                    }
                    Ok(_) | Err(_) => self.stderr = None,
                },
            }
        }
    }

    /// It has closed its stdout: says how it ended, with its last words.
    async fn died(&mut self, line: &mut (impl FnMut(&str) -> bool + Send)) -> String {
        let status = timeout(self.limits.pipe_grace, self.child.wait()).await;
        self.group.signal(Signal::KILL);
        self.read_rest_of_stderr(line);
        self.splitter.finish(|text| keep(&mut self.tail, text, line));
        let tail = std::mem::replace(&mut self.tail, Tail::new(0)).into_text();
        match status {
            Ok(Ok(status)) => match how(status, &tail) {
                words if words == tail => words,
                words => format!("its process {words}"),
            },
            Ok(Err(error)) => format!("its process is lost: {error}"),
            Err(_) => "its process closed its stdout".into(),
        }
    }

    /// What it has written to stderr up to now.
    fn read_rest_of_stderr(&mut self, line: &mut impl FnMut(&str) -> bool) {
        let Some(stderr) = &self.stderr else { return };
        let mut rest = Vec::new();
        // as much as a pipe holds, and no more: it may go on writing
        for _ in 0..8 {
            if waiting(stderr, &mut rest) != Waiting::Bytes {
                break;
            }
        }
        self.splitter.feed(&rest, |text| keep(&mut self.tail, text, line));
    }

    /// Ends it in an orderly way: the end of its input, then the signals.
    pub(super) async fn end(self) {
        let Companion { group, mut child, stdin, stdout, stderr, limits, dir, .. } = self;
        drop(stdin);
        // it may say farewell, and must not get stuck in that
        let reading = async { tokio::join!(sink(Some(stdout)), sink(stderr)) };
        let waiting = async {
            if timeout(limits.stop_grace, child.wait()).await.is_err() {
                group.signal(Signal::TERM);
                timeout(limits.stop_grace, child.wait()).await.ok();
            }
        };
        tokio::select! {
            () = waiting => {}
            () = async { reading.await; std::future::pending::<()>().await } => {}
        }
        drop((group, child));
        if let Some(dir) = dir {
            dir.remove().await;
        }
    }

    /// Ends it at once.
    pub(super) async fn discard(self) {
        let Companion { group, mut child, limits, dir, .. } = self;
        group.signal(Signal::KILL);
        timeout(limits.pipe_grace, child.wait()).await.ok();
        drop(group);
        if let Some(dir) = dir {
            dir.remove().await;
        }
    }
}

async fn sink(from: Option<impl AsyncRead + Unpin>) {
    if let Some(mut from) = from {
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await.ok();
    }
}

/// What stands in a pipe at this moment.
#[derive(Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Bytes,
    End,
}

/// Takes what a pipe holds, without waiting: pipes of children do not block.
fn waiting(pipe: &impl AsFd, into: &mut Vec<u8>) -> Waiting {
    let mut buffer = [0; 8 * 1024];
    match rustix::io::read(pipe, &mut buffer[..]) {
        Ok(0) => Waiting::End,
        Ok(n) => {
            into.extend_from_slice(&buffer[..n]);
            Waiting::Bytes
        }
        Err(_) => Waiting::Nothing,
    }
}
