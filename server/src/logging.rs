//! Logs: tracing to stderr, as text or JSON. What is data goes to stdout, and never through here.

use crate::telemetry::Spans;
use std::io::{self, Write};
use std::sync::OnceLock;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, registry};

/// What these say below `info` holds frames, headers or the arguments of statements, and with them payloads and
/// tokens. No setting brings it into the log.
const DISCREET: &[&str] = &[
    "tungstenite",
    "tokio_tungstenite",
    "hyper",
    "hyper_util",
    "rustls",
    "tokio_postgres",
    "rusqlite",
    "reqwest",
    "axum",
];

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The format that holds, for [`announce`].
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Begins to log. `MINIUM_LOG`, else `RUST_LOG`, else `info` says what; what cannot be read is told, and `info` holds. What is
/// exported is no matter of the log's level.
pub(crate) fn start(format: LogFormat, spans: Option<Spans>) {
    FORMAT.set(format).ok();
    let said = ["MINIUM_LOG", "RUST_LOG"].iter().find_map(|name| Some((name, std::env::var(name).ok()?)));
    let (filter, unread) = match said.map(|(name, text)| (name, EnvFilter::try_new(text))) {
        Some((_, Ok(filter))) => (filter, None),
        Some((name, Err(error))) => (EnvFilter::new("info"), Some((name, error))),
        None => (EnvFilter::new("info"), None),
    };
    let discreet = DISCREET.iter().filter_map(|name| format!("{name}=info").parse::<Directive>().ok());
    let filter = discreet.fold(filter, EnvFilter::add_directive);
    // A second subscriber is refused; then the first one serves.
    match spans {
        None => registry().with(lines(format)).with(filter).try_init().ok(),
        // spans are filtered by themselves: this filter is the log's alone
        Some(spans) => {
            let lines = lines::<Layered<Spans, Registry>>(format).with_filter(filter);
            registry().with(spans).with(lines).try_init().ok()
        }
    };
    if let Some((variable, error)) = unread {
        warn!(variable, %error, "What is to be logged cannot be read; info and above is.");
    }
}

/// The lines, as text or JSON.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(|| OneLine).with_target(false);
    match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            lines.with_ansi(colour).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Writes each record as one line. tracing escapes what would steer a terminal; line ends are left, and with them
/// whoever chose a part of a record could write records of their own.
struct OneLine;

impl Write for OneLine {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&one_line(record)).map(|()| record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The record with escapes for all control characters but its own end, and colours.
fn one_line(record: &[u8]) -> Vec<u8> {
    const ESCAPE: u8 = 0x1b;
    let (body, end) = match record.strip_suffix(b"\n") {
        Some(body) => (body, &b"\n"[..]),
        None => (record, &b""[..]),
    };
    let mut line = Vec::with_capacity(record.len());
    for byte in body {
        if byte.is_ascii_control() && *byte != ESCAPE {
            line.extend(byte.escape_ascii());
        } else {
            line.push(*byte);
        }
    }
    line.extend_from_slice(end);
    line
}

/// Says where the node listens: whatever the log's level, since scripts that take a free port read it. As text it is
/// the line `listening on http://ADDRESS`; as JSON a line with the member `url`.
pub(crate) fn announce(url: &str) {
    if FORMAT.get() == Some(&LogFormat::Json) {
        info!(url, "Listening.");
        return;
    }
    // A closed stderr is no reason not to run.
    writeln!(std::io::stderr(), "listening on {url}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[test]
    fn a_record_is_one_line_whoever_chose_its_words() {
        assert_eq!(one_line(b"a\nb\r\n"), b"a\\nb\\r\n");
        assert_eq!(one_line(b"a\0\tb\x7f"), b"a\\x00\\tb\\x7f");
        assert_eq!(one_line(b"\x1b[31mERROR\x1b[0m \xc3\xa4\n"), b"\x1b[31mERROR\x1b[0m \xc3\xa4\n");
    }
}
