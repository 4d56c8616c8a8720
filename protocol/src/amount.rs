//! Durations and sizes as people write them: `90s`, `5m`, `256KiB`.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A duration or a size that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// Not a duration.
    #[error("{0:?} is not a duration; write seconds, or a number with ms, s, m, h or d, as in \"90s\"")]
    Duration(String),
    /// Not a size.
    #[error("{0:?} is not a size; write bytes, or a number with KiB, MiB or GiB, as in \"256KiB\"")]
    Bytes(String),
}

/// Longer than any lease, delay or retention makes sense; keeps sums of times inside what databases hold.
const DURATION_SECONDS_MAX: f64 = 100.0 * 365.25 * 86_400.0;

/// Seconds (`90`, `0.5`) or a number with a unit (`250ms`, `90s`, `5m`, `2h`, `30d`).
pub fn parse_duration(text: &str) -> Result<Duration, AmountError> {
    let fault = || AmountError::Duration(text.chars().take(40).collect());
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match &text[digits..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(fault()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| fault())?;
    let seconds = number * factor;
    if seconds > DURATION_SECONDS_MAX {
        return Err(fault());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| fault())
}

/// The shortest of the forms that [`parse_duration`] reads.
pub fn format_duration(d: Duration) -> String {
    let ms = d.as_millis();
    match ms {
        _ if !ms.is_multiple_of(1_000) || ms == 0 => format!("{ms}ms"),
        _ if ms.is_multiple_of(86_400_000) => format!("{}d", ms / 86_400_000),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ => format!("{}s", ms / 1_000),
    }
}

/// Bytes (`1024`) or a number with `B`, `KiB`, `MiB`, `GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, AmountError> {
    let fault = || AmountError::Bytes(text.chars().take(40).collect());
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(fault()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| fault())?;
    number.checked_mul(1 << shift).ok_or_else(fault)
}

/// For serde: a number of seconds or a text as in [`parse_duration`].
pub(crate) fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Seconds(f64),
        Text(String),
    }
    let read = |raw| match raw {
        Raw::Seconds(s) => parse_duration(&s.to_string()),
        Raw::Text(t) => parse_duration(&t),
    };
    let raw = Option::<Raw>::deserialize(d)
        .map_err(|_| serde::de::Error::custom("a duration is a number of seconds or a text as \"90s\""))?;
    raw.map(read).transpose().map_err(serde::de::Error::custom)
}

/// As [`duration`], where there must be one.
pub(crate) fn duration_given<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let missing = || serde::de::Error::custom("a duration is a number of seconds or a text as \"90s\"");
    duration(d)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let ms = |t: &str| parse_duration(t).map(|d| d.as_millis());
        assert_eq!(ms("90s"), Ok(90_000));
        assert_eq!(ms("5m"), Ok(300_000));
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("1.5h"), Ok(5_400_000));
        assert_eq!(ms("10"), Ok(10_000));
        for bad in ["", "s", "-1s", "1w", "1e9", "5 m", "99999999d", ".", "1.2.3s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_survive_a_round_trip() {
        for text in ["250ms", "90s", "5m", "2h", "30d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_bytes("256KiB"), Ok(262_144));
        assert_eq!(parse_bytes("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("12"), Ok(12));
        for bad in ["", "KiB", "1KB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
