//! Logs: tracing to stderr, as text or JSON. What is data goes to stdout, and never through here.

use std::io::Write;
use std::sync::OnceLock;
use tracing::info;
use tracing_subscriber::EnvFilter;

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

/// Begins to log. `MINIUM_LOG`, else `RUST_LOG`, else `info` says what.
pub(crate) fn start(format: LogFormat) {
    FORMAT.set(format).ok();
    let said = ["MINIUM_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter =
        said.and_then(|text| EnvFilter::try_new(text).ok()).unwrap_or_else(|| EnvFilter::new("info"));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber is refused; then the first one serves.
    match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            lines.with_ansi(colour).try_init().ok();
        }
        LogFormat::Json => {
            lines.json().flatten_event(true).try_init().ok();
        }
    }
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
