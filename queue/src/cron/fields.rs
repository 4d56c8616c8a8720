//! The five fields: read from text, then sets of numbers.

use super::CronError;
use jiff::civil::Date;

/// What one field may say.
struct Kind {
    name: &'static str,
    least: u8,
    most: u8,
    /// Names of the values from `least` on.
    names: &'static [&'static str],
}

const MINUTE: Kind = Kind { name: "minute", least: 0, most: 59, names: &[] };
const HOUR: Kind = Kind { name: "hour", least: 0, most: 23, names: &[] };
const DAY: Kind = Kind { name: "day of the month", least: 1, most: 31, names: &[] };
const MONTH: Kind = Kind {
    name: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Kind = Kind {
    name: "day of the week",
    least: 0,
    most: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// Numbers from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn has(self, n: u8) -> bool {
        self.0 >> n & 1 == 1
    }

    fn first(self) -> u8 {
        u8::try_from(self.0.trailing_zeros()).unwrap_or(u8::MAX)
    }

    fn after(self, n: u8) -> Option<u8> {
        let above = self.0 & (u64::MAX << n << 1);
        (above != 0).then(|| Set(above).first())
    }
}

/// Five fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    /// Sunday is 0.
    weekdays: Set,
    /// Both day fields are restricted: either is enough.
    either_day: bool,
}

impl Fields {
    pub(super) fn parse(text: &str) -> Result<Fields, CronError> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else { return Err(CronError::Fields) };
        let weekdays = set(&WEEKDAY, weekday)?;
        Ok(Fields {
            minutes: set(&MINUTE, minute)?,
            hours: set(&HOUR, hour)?,
            days: set(&DAY, day)?,
            months: set(&MONTH, month)?,
            weekdays: Set((weekdays.0 | weekdays.0 >> 7) & 0x7f),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    /// Is there no such day in any year? A restricted day of the week that is enough by itself always comes.
    pub(super) fn never(&self) -> bool {
        let days_of = |month: u8| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let months = (1..=12).filter(|month| self.months.has(*month));
        !self.either_day && months.map(days_of).max().is_none_or(|most| self.days.first() > most)
    }

    pub(super) fn in_every_hour(&self) -> bool {
        self.hours.0 == (1 << 24) - 1
    }

    pub(super) fn has_date(&self, date: Date) -> bool {
        let number = |n: i8| u8::try_from(n).unwrap_or(0);
        let day = self.days.has(number(date.day()));
        let weekday = self.weekdays.has(number(date.weekday().to_sunday_zero_offset()));
        self.has_month(date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    pub(super) fn has_month(&self, month: i8) -> bool {
        u8::try_from(month).is_ok_and(|n| self.months.has(n))
    }

    pub(super) fn has_hour(&self, hour: i8) -> bool {
        u8::try_from(hour).is_ok_and(|n| self.hours.has(n))
    }

    pub(super) fn has_minute(&self, minute: i8) -> bool {
        u8::try_from(minute).is_ok_and(|n| self.minutes.has(n))
    }

    pub(super) fn first_hour(&self) -> i8 {
        small(self.hours.first())
    }

    pub(super) fn first_minute(&self) -> i8 {
        small(self.minutes.first())
    }

    pub(super) fn hour_after(&self, hour: i8) -> Option<i8> {
        self.hours.after(u8::try_from(hour).ok()?).map(small)
    }

    pub(super) fn minute_after(&self, minute: i8) -> Option<i8> {
        self.minutes.after(u8::try_from(minute).ok()?).map(small)
    }
}

fn small(n: u8) -> i8 {
    i8::try_from(n).unwrap_or(i8::MAX)
}

fn set(kind: &Kind, text: &str) -> Result<Set, CronError> {
    let wrong = |reason: String| CronError::Field { field: kind.name, text: text.into(), reason };
    text.split(',').try_fold(Set(0), |all, part| Ok(Set(all.0 | part_of(kind, part).map_err(wrong)?.0)))
}

fn part_of(kind: &Kind, part: &str) -> Result<Set, String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => {
            (range, Some(number(step).filter(|n| *n > 0).ok_or("has a step that is no number")?))
        }
        None => (part, None),
    };
    let (first, last) = match range.split_once('-') {
        _ if range == "*" => (kind.least, kind.most),
        Some((first, last)) => {
            let (first, last) = (value(kind, first)?, value(kind, last)?);
            // as the end of a range Sunday is the seventh day
            (first, if last == 0 && first > 0 && kind.most == 7 { 7 } else { last })
        }
        None if step.is_some() => {
            return Err(format!("has a step without a range; write {range}-{}/…", kind.most));
        }
        None => {
            let only = value(kind, range)?;
            (only, only)
        }
    };
    if first > last {
        return Err("has a range that ends before it begins".into());
    }
    let step = usize::from(step.unwrap_or(1));
    Ok(Set((first..=last).step_by(step).fold(0, |all, n| all | 1 << n)))
}

fn value(kind: &Kind, text: &str) -> Result<u8, String> {
    let named = kind.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    let named = named.and_then(|place| u8::try_from(place).ok()).map(|place| kind.least + place);
    let found = named.or_else(|| number(text).filter(|n| (kind.least..=kind.most).contains(n)));
    found.ok_or_else(|| {
        let names = match kind.names {
            [first, .., last] => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        format!("must be *, values from {} to {}{names}, ranges or steps of them", kind.least, kind.most)
    })
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
