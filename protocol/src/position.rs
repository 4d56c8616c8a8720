//! Positions in the journal: where a reader is, and where it asks to begin.

use std::fmt;
use std::str::FromStr;

/// A place in the journal. Written `E:O`, as in SSE ids and `?after=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Generation of the numbering.
    pub epoch: u64,
    /// Dense number within the generation, from 1; 0 is before the first.
    pub offset: u64,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum After {
    /// With what comes from now on.
    #[default]
    Latest,
    /// With the oldest entry that is kept.
    Earliest,
    /// Behind this offset, in whatever epoch holds now.
    Offset(u64),
    /// Behind this position; another epoch is answered `epoch_changed`.
    Position(Position),
    /// With the last so many entries that match.
    Last(u32),
}

/// A position that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a position is E:O, O, earliest or latest, with decimal numbers, not {0:?}")]
pub struct PositionError(String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|n| *n <= i64::MAX as u64)
}

impl FromStr for Position {
    type Err = PositionError;
    fn from_str(text: &str) -> Result<Position, PositionError> {
        let parts = text.split_once(':').and_then(|(e, o)| Some((number(e)?, number(o)?)));
        let (epoch, offset) = parts.ok_or_else(|| PositionError(text.chars().take(40).collect()))?;
        Ok(Position { epoch, offset })
    }
}

impl FromStr for After {
    type Err = PositionError;
    fn from_str(text: &str) -> Result<After, PositionError> {
        match text {
            "latest" => Ok(After::Latest),
            "earliest" => Ok(After::Earliest),
            _ => match number(text) {
                Some(offset) => Ok(After::Offset(offset)),
                None => text.parse().map(After::Position),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let p = Position { epoch: 3, offset: 12_345 };
        assert_eq!(p.to_string().parse(), Ok(p));
        assert_eq!("3:12345".parse(), Ok(After::Position(p)));
        assert_eq!("7".parse(), Ok(After::Offset(7)));
        assert_eq!("earliest".parse(), Ok(After::Earliest));
        assert_eq!("latest".parse(), Ok(After::Latest));
    }

    #[test]
    fn refuses_what_is_no_position() {
        for bad in ["", ":", "1:", ":1", "-1", "+1", "1:+2", "0x1", "1:2:3", "99999999999999999999", "Latest"]
        {
            assert!(bad.parse::<After>().is_err(), "{bad}");
        }
    }
}
