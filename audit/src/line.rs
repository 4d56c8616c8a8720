//! What an archive needs to know of an event without reading it as JSON: its position and its time.
//!
//! Events are written by one hand (`minium_protocol::Envelope`): the members stand in one order, `epoch` and `sequence`
//! side by side before `data`. A quote inside of a JSON string is escaped, so the first `,"epoch":"` of a line is the
//! member itself. An event that was written otherwise is read as JSON.

use memchr::memmem::{Finder, FinderRev};
use minium_protocol::Position;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::LazyLock;

/// So many bytes does a time have that is compared as text, as `2026-11-22T02:00:00.123456Z`.
const TIME_BYTES: usize = 27;

/// What was found of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark<'a> {
    pub(crate) position: Position,
    /// In the one form that sorts as text, or nothing.
    pub(crate) time: Option<&'a str>,
}

/// Looks at an event.
pub(crate) fn mark(line: &str) -> Option<Mark<'_>> {
    quick(line).or_else(|| thorough(line))
}

/// A searcher is made once: to make one for every event costs more than the search.
static EPOCH: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(",\"epoch\":\""));
static DATA: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("\"data\":"));
static TIME: LazyLock<FinderRev<'_>> = LazyLock::new(|| FinderRev::new(",\"time\":\""));

fn quick(line: &str) -> Option<Mark<'_>> {
    const SEQUENCE: &str = "\",\"sequence\":\"";
    let at = EPOCH.find(line.as_bytes())?;
    let (head, rest) = (&line[..at], &line[at + EPOCH.needle().len()..]);
    // behind `data` it could be anybody's
    if DATA.find(head.as_bytes()).is_some() {
        return None;
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let epoch = rest[..digits].parse().ok()?;
    let rest = rest[digits..].strip_prefix(SEQUENCE)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let offset = rest[..digits].parse().ok()?;
    rest[digits..].starts_with('"').then_some(())?;
    let time =
        TIME.rfind(head.as_bytes()).and_then(|at| head.get(at + TIME.needle().len()..)?.get(..TIME_BYTES));
    Some(Mark { position: Position { epoch, offset }, time: time.filter(|time| sorts(time)) })
}

fn thorough(line: &str) -> Option<Mark<'_>> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        epoch: Cow<'a, str>,
        #[serde(borrow)]
        sequence: Cow<'a, str>,
        #[serde(borrow, default)]
        time: Option<&'a str>,
    }
    let found: Members<'_> = serde_json::from_str(line).ok()?;
    let position = format!("{}:{}", found.epoch, found.sequence).parse().ok()?;
    Some(Mark { position, time: found.time.filter(|time| sorts(time)) })
}

/// Is it a time in the form that all of ours have?
pub(crate) fn sorts(time: &str) -> bool {
    const FORM: &[u8; TIME_BYTES] = b"0000-00-00T00:00:00.000000Z";
    time.len() == TIME_BYTES
        && time.bytes().zip(FORM).all(|(c, form)| if *form == b'0' { c.is_ascii_digit() } else { c == *form })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"x","type":"message","subject":"a","time":"2026-11-22T02:00:00.123456Z","epoch":"3","sequence":"00000000000000012345","data":{"a":1}}"#;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn position_and_time_are_found() {
        let found = mark(EVENT).unwrap();
        assert_eq!(found, Mark { position: at(3, 12_345), time: Some("2026-11-22T02:00:00.123456Z") });
        assert_eq!(quick(EVENT), thorough(EVENT));
    }

    #[test]
    fn what_the_data_says_is_not_believed() {
        let inner = EVENT.replace(r#"{"a":1}"#, r#"{"x":1,"epoch":"9","sequence":"00000000000000000001"}"#);
        assert_eq!(mark(&inner).unwrap().position, at(3, 12_345));
        // members in another order
        let turned =
            r#"{"data":{"x":1,"epoch":"9","sequence":"00000000000000000001"},"epoch":"3","sequence":"7"}"#;
        assert_eq!(mark(turned).unwrap(), Mark { position: at(3, 7), time: None });
        let quoted = EVENT.replace(r#""subject":"a""#, r#""subject":",\"epoch\":\"9\",\"sequence\":\"1\"""#);
        assert_eq!(mark(&quoted).unwrap().position, at(3, 12_345));
    }

    #[test]
    fn what_is_no_event_has_no_position() {
        for text in ["", "{}", "[1]", r#"{"epoch":"1"}"#, r#"{"epoch":"x","sequence":"1"}"#, "grün"] {
            assert_eq!(mark(text), None, "{text}");
        }
        let odd = EVENT.replace("123456Z", "12345Z");
        assert_eq!(mark(&odd).unwrap().time, None);
    }
}
