//! How commands find the server, and how its errors are told to people.

use super::trust::Trust;
use crate::exit::{Exit, fault};
use clap::Args;
use minium_client::{Client, ClientError, ClientOptions, TlsFault};
use minium_protocol::{ErrorCode, Problem};
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Write;
use std::path::PathBuf;

/// Which server a command talks to.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// Base URL of the server; with https:// and wss:// it is reached by TLS
    #[arg(long, value_name = "URL", env = "MINIUM_URL", default_value = "http://127.0.0.1:3000")]
    #[arg(hide_env_values = true, display_order = 900)]
    url: String,
    /// Token that shows who asks; others on this machine can see it, so better set MINIUM_TOKEN or a file
    #[arg(long, value_name = "TOKEN", env = "MINIUM_TOKEN", hide_env_values = true, display_order = 901)]
    token: Option<SecretString>,
    /// File that holds the token; it counts before the others
    #[arg(long, value_name = "FILE", display_order = 902)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

impl Remote {
    /// A client of that server. Nothing is connected yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        self.client_with(&ClientOptions::default())
    }

    /// The same within other bounds; whom it trusts is what was said here.
    pub(crate) fn client_with(&self, bounds: &ClientOptions) -> anyhow::Result<Client> {
        let token = read_token(self.token.as_ref(), self.token_file.as_ref())?;
        let options = ClientOptions { tls: self.trust.options()?, ..bounds.clone() };
        Client::with_options(&self.url, token, options).map_err(explain)
    }
}

/// A client of a server, by what was said of it.
pub(crate) fn client(url: &str, token: Option<String>, trust: &Trust) -> anyhow::Result<Client> {
    let options = ClientOptions { tls: trust.options()?, ..ClientOptions::default() };
    Client::with_options(url, token, options).map_err(explain)
}

/// The token, wherever it was given; a file counts before the others.
pub(crate) fn read_token(
    token: Option<&SecretString>,
    file: Option<&PathBuf>,
) -> anyhow::Result<Option<String>> {
    let of_file = |path: &PathBuf| {
        let text = std::fs::read_to_string(path);
        text.map_err(|error| {
            fault(Exit::Usage, format!("The token in {} cannot be read: {error}", path.display()))
        })
    };
    let text = match (file, token) {
        (Some(path), _) => Some(of_file(path)?),
        (None, Some(token)) => Some(token.expose_secret().to_owned()),
        (None, None) => None,
    };
    // an empty variable is none
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// An error of the client in words for people, with a hint where one helps, and with its exit code.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
pub(crate) fn explain(error: ClientError) -> anyhow::Error {
    explained(&error)
}

/// The same of an error that others have, too.
pub(crate) fn explained(error: &ClientError) -> anyhow::Error {
    let exit = exit(error);
    let mut message = error.to_string();
    if let Some(problem) = error.problem() {
        places(&mut message, problem);
    }
    if let Some(hint) = hint(error) {
        write!(message, " — {hint}").expect("memory takes every byte");
    }
    fault(exit, message)
}

/// The exit code of an error of the client.
pub(crate) fn exit(error: &ClientError) -> Exit {
    match error.exit_code() {
        2 => Exit::Usage,
        3 => Exit::NotFound,
        4 => Exit::NotAllowed,
        5 => Exit::NoConnection,
        6 => Exit::Schema,
        7 => Exit::Conflict,
        8 => Exit::TimedOut,
        _ => Exit::Failed,
    }
}

/// A problem that does not end the command, for stderr.
pub(crate) fn told(problem: &Problem) -> String {
    let mut message = problem.to_string();
    places(&mut message, problem);
    message
}

/// Where a schema was broken: the first places on the same line.
fn places(message: &mut String, problem: &Problem) {
    const SHOWN_MAX: usize = 3;
    for fault in problem.errors.iter().take(SHOWN_MAX) {
        let pointer = if fault.pointer.is_empty() { "the top" } else { &fault.pointer };
        write!(message, "; at {pointer}: {}", fault.detail).expect("memory takes every byte");
    }
    if let more @ 1.. = problem.errors.len().saturating_sub(SHOWN_MAX) {
        write!(message, "; and {more} more").expect("memory takes every byte");
    }
}

fn hint(error: &ClientError) -> Option<String> {
    match error {
        ClientError::Connect { .. } => Some("is `minium serve` running? Set --url or MINIUM_URL".into()),
        ClientError::Tls { fault, .. } => tls_hint(*fault).map(str::to_owned),
        ClientError::TlsSetup { .. } => Some("look at --ca, --cert and --cert-key".into()),
        ClientError::GaveUp { last, .. } => hint(last),
        ClientError::Problem(problem) => match problem.code {
            ErrorCode::EpochChanged | ErrorCode::OffsetExpired => {
                let first = problem.earliest.as_deref();
                Some(format!(
                    "begin with --after earliest{}",
                    first.map_or(String::new(), |p| format!(" ({p})"))
                ))
            }
            ErrorCode::Unauthorized => Some(
                "say --token-file or set MINIUM_TOKEN; `minium token inspect` says what is wrong with one"
                    .into(),
            ),
            ErrorCode::NoPuller => Some("start one with `minium pull`".into()),
            ErrorCode::Unavailable => Some("the server says what is missing at /readyz".into()),
            _ => None,
        },
        ClientError::Closed { code: 1009, .. } => Some("the message is above the server's limit".into()),
        _ => None,
    }
}

fn tls_hint(fault: TlsFault) -> Option<&'static str> {
    match fault {
        TlsFault::UnknownAuthority => Some("name its authority by --ca FILE or MINIUM_CA, if you trust it"),
        TlsFault::WrongName => Some("use a name that it is for, or have one issued for this name"),
        TlsFault::Expired => Some("it is to be renewed at the server, unless this machine's clock is wrong"),
        TlsFault::NotYetValid => Some("is this machine's clock right?"),
        TlsFault::Refused => {
            Some("show one that the server's client_ca_file issued, by --cert and --cert-key")
        }
        TlsFault::Wanted => Some("say https:// or wss://"),
        TlsFault::NotSpoken => {
            Some("is it the right port? Say http:// or ws:// where nobody listens in between")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::SchemaFault;

    #[test]
    fn an_error_is_one_line_with_its_code_and_a_hint() {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        let error = explain(ClientError::Connect { url: "http://h:1".into(), source }).to_string();
        assert!(error.starts_with("no server at http://h:1") && error.contains("minium serve"), "{error}");
        let mut problem = Problem::new(ErrorCode::SchemaViolation, "2 faults");
        let detail = "is no number".to_owned();
        problem.errors = vec![SchemaFault { pointer: "/0/serial".into(), schema: "/type".into(), detail }; 5];
        let error = explain(problem.into()).to_string();
        assert!(error.starts_with("schema_violation: 2 faults; at /0/serial: is no number"), "{error}");
        assert!(error.ends_with("; and 2 more") && !error.contains('\n'), "{error}");
        let mut problem = Problem::new(ErrorCode::EpochChanged, "the numbering has begun anew");
        problem.earliest = Some("2:0".into());
        assert!(explain(problem.into()).to_string().ends_with("--after earliest (2:0)"));
    }
}
