//! What commands take in: a word of the command line, a file, or stdin as a whole or by lines.
//!
//! stdin is read by a thread, since reading it cannot be cancelled; the process does not wait for that thread.

use crate::exit::{Exit, fault};
use anyhow::Context;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// More than any message or argument may have; keeps a mistaken pipe from filling the memory.
const BYTES_MAX: u64 = 16 << 20;
/// Lines that wait to be sent. Beyond, stdin is not read.
const LINES_WAITING_MAX: usize = 64;

/// Where data comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// It stands in the command line.
    Here(String),
    /// `@FILE`.
    File(PathBuf),
    /// `-`.
    Stdin,
}

impl Input {
    pub(super) fn parse(text: &str) -> Input {
        match text.strip_prefix('@') {
            Some(path) => Input::File(path.into()),
            None if text == "-" => Input::Stdin,
            None => Input::Here(text.into()),
        }
    }
}

/// All of stdin.
pub(super) async fn whole() -> anyhow::Result<Vec<u8>> {
    let read = || {
        let mut data = Vec::new();
        io::stdin().lock().take(BYTES_MAX + 1).read_to_end(&mut data).map(|_| data)
    };
    let data = tokio::task::spawn_blocking(read).await.context("The reader of stdin failed")?;
    let data = data.context("Cannot read stdin")?;
    if data.len() as u64 > BYTES_MAX { Err(too_long()) } else { Ok(data) }
}

/// The lines of stdin, without their ends. The last item may say why there are no more.
pub(super) fn lines() -> mpsc::Receiver<anyhow::Result<Vec<u8>>> {
    let (out, lines) = mpsc::channel(LINES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let mut stdin = io::stdin().lock();
        while let Some(line) = line(&mut stdin).transpose() {
            let last = line.is_err();
            // Nobody takes them any more when the session is over.
            if out.blocking_send(line).is_err() || last {
                break;
            }
        }
    });
    lines
}

/// The next line; `None` at the end.
fn line(from: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(BYTES_MAX + 1).read_until(b'\n', &mut line).context("Cannot read stdin")?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() as u64 > BYTES_MAX {
        return Err(too_long());
    }
    Ok(Some(line))
}

fn too_long() -> anyhow::Error {
    fault(Exit::Usage, format!("stdin has more than {} MiB in one piece", BYTES_MAX >> 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_where_data_comes_from() {
        assert_eq!(Input::parse("{}"), Input::Here("{}".into()));
        assert_eq!(Input::parse("@a/b.json"), Input::File("a/b.json".into()));
        assert_eq!(Input::parse("-"), Input::Stdin);
        assert_eq!(Input::parse("-5"), Input::Here("-5".into()));
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let mut text: &[u8] = b"a\r\n\n b \n\xff\nlast";
        let mut lines = Vec::new();
        while let Some(line) = line(&mut text).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [b"a".to_vec(), b"".to_vec(), b" b ".to_vec(), b"\xff".to_vec(), b"last".to_vec()]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(line(&mut endless).unwrap_err().to_string().contains("16 MiB"));
    }
}
