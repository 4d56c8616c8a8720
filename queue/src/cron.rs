//! Five fields that say when: `0 3 * * mon-fri`, in the clock time of a zone. Pure: what is now is said by the caller.
//!
//! **Fields.** Minute 0–59, hour 0–23, day of the month 1–31, month 1–12 or `jan`–`dec`, day of the week 0–7 or `sun`–`sat`
//! (0 and 7 are Sunday); each `*`, a value, a range `a-b`, either of the last two stepped (`*/5`, `a-b/2`), or a list of
//! these. `@yearly` (`@annually`), `@monthly`, `@weekly`, `@daily` (`@midnight`) and `@hourly` stand for five fields.
//!
//! **Days.** As in Vixie's cron: where both day fields are restricted, that is, begin with no `*`, a day needs to match
//! either; else both.
//!
//! **Changes of the clock.** A firing at a time that the clock leaps over comes once, at the moment of the leap; one at a
//! time that the clock shows twice comes once, at the first. An expression that fires in every hour of the day is not bound to
//! hours: it goes by each minute that really passes, so that `*/10 * * * *` neither pauses for an hour nor doubles.

mod fields;

use fields::Fields;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use std::fmt;
use std::str::FromStr;

/// Longer expressions are mistakes.
pub const CRON_BYTES_MAX: usize = 255;
/// The rarest days (29 February on a certain day of the week, over a year 2100 that does not leap) are 40 years apart.
const YEARS_AHEAD_MAX: i16 = 41;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// Not five fields, and none of the words for them.
    #[error(
        "a cron expression has five fields (minute, hour, day of the month, month, day of the week), as in \"0 3 * * *\", or \
         is @yearly, @monthly, @weekly, @daily or @hourly"
    )]
    Fields,
    /// A field that says nothing that is understood here.
    #[error("the {field} {text:?} of a cron expression {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No day is such a day.
    #[error("the cron expression {0:?} never fires: none of its months has such a day")]
    Never(String),
}

/// A cron expression that has been understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    fields: Fields,
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Cron, CronError> {
        Cron::parse(text)
    }
}

/// As it was written.
impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Cron {
    /// Understands an expression.
    ///
    /// # Errors
    /// [`CronError`], which names the field.
    pub fn parse(text: &str) -> Result<Cron, CronError> {
        let text = text.trim();
        if text.len() > CRON_BYTES_MAX {
            return Err(CronError::Fields);
        }
        let fields = match text.to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => Fields::parse("0 0 1 1 *")?,
            "@monthly" => Fields::parse("0 0 1 * *")?,
            "@weekly" => Fields::parse("0 0 * * 0")?,
            "@daily" | "@midnight" => Fields::parse("0 0 * * *")?,
            "@hourly" => Fields::parse("0 * * * *")?,
            five => Fields::parse(five)?,
        };
        if fields.never() {
            return Err(CronError::Never(text.into()));
        }
        Ok(Cron { text: text.into(), fields })
    }

    /// The first firing after a moment. `None` only at the end of all time that can be reckoned with.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.fields.in_every_hour() {
            self.next_as_time_passes(after, zone)
        } else {
            self.next_by_the_clock(after, zone)
        }
    }

    /// For what is bound to hours: each time that the clock should show is one firing.
    fn next_by_the_clock(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut shown = zone.to_datetime(after);
        // Times that the clock shows again fire at the first: they may lie behind us, and are passed over.
        loop {
            shown = self.next_shown(shown)?;
            let at = moment(shown, zone)?;
            if at > after {
                return Some(at);
            }
        }
    }

    /// For what fires in every hour: each minute that passes is asked what the clock shows.
    fn next_as_time_passes(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = after;
        loop {
            let offset = zone.to_offset(from);
            let at = offset.to_timestamp(self.next_shown(offset.to_datetime(from))?).ok()?;
            let change = zone.following(from).next().map(|t| t.timestamp());
            // up to the next change of the clock it goes on as it does now
            let Some(change) = change.filter(|change| *change <= at) else { return Some(at) };
            if self.shows(zone.to_datetime(change)) {
                return Some(change);
            }
            from = change;
        }
    }

    /// Does it fire when the clock shows this?
    fn shows(&self, shown: DateTime) -> bool {
        shown.second() == 0
            && shown.subsec_nanosecond() == 0
            && self.fields.has_minute(shown.minute())
            && self.fields.has_hour(shown.hour())
            && self.fields.has_date(shown.date())
    }

    /// The next time behind this one that the clock should show.
    fn next_shown(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        if self.fields.has_date(date)
            && let Some(time) = self.next_time(after.time())
        {
            return Some(date.to_datetime(time));
        }
        let last_year = date.year().saturating_add(YEARS_AHEAD_MAX);
        while date.year() <= last_year {
            date = self.next_date(date)?;
            if self.fields.has_date(date) {
                let time = Time::new(self.fields.first_hour(), self.fields.first_minute(), 0, 0).ok()?;
                return Some(date.to_datetime(time));
            }
        }
        None
    }

    /// The next day, over months that do not match.
    fn next_date(&self, date: Date) -> Option<Date> {
        if self.fields.has_month(date.month()) {
            date.tomorrow().ok()
        } else {
            date.first_of_month().checked_add(1.month()).ok()
        }
    }

    /// The next time behind this one on the same day.
    fn next_time(&self, after: Time) -> Option<Time> {
        let time = |hour, minute| Time::new(hour, minute, 0, 0).ok();
        if self.fields.has_hour(after.hour())
            && let Some(minute) = self.fields.minute_after(after.minute())
        {
            return time(after.hour(), minute);
        }
        time(self.fields.hour_after(after.hour())?, self.fields.first_minute())
    }
}

/// When the clock shows this for the first time; for what it leaps over, the moment of the leap.
fn moment(shown: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(shown).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(shown).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // by the clock after the leap, what was leapt over lies before it
            let before = after.to_timestamp(shown).ok()?;
            zone.following(before).next().map(|leap| leap.timestamp())
        }
    }
}

#[cfg(test)]
mod tests;
