//! Schedules: work that repeats. Their definitions live in the database, so that every node fires the same ones.
//!
//! Each due time is fired once, however many nodes look: who fires a schedule locks its row, enqueues, and moves what is
//! due in one transaction. What fires when is decided in [`due`], without clock or await. `docs/job-states.md` has it in
//! words.

pub mod due;
mod stored;

pub(crate) use stored::{Stored, request_text};

use crate::cron::Cron;
use crate::error::QueueError;
use crate::locks::check_name;
use crate::rules;
use crate::store::Enqueued;
use async_trait::async_trait;
use jiff::tz::TimeZone;
use minium_protocol::{EnqueueRequest, Missed, ScheduleRequest, ScheduleView};
use std::time::Duration;
use tokio::sync::watch;

/// A database keeps so many schedules.
pub const SCHEDULES_MAX: usize = 10_000;
/// Nothing fires more often.
pub const EVERY_MIN: Duration = Duration::from_secs(1);

/// When a schedule fires.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// Again and again after so long, in step with its first firing.
    Every(Duration),
    /// When the clock of a zone shows what the expression says.
    Cron {
        /// The expression.
        cron: Cron,
        /// The zone.
        zone: TimeZone,
        /// Its name, as it was given.
        zone_name: String,
    },
}

impl Timing {
    /// What `every`, `cron` and `zone` say together: one of the first two, and the third only with the second.
    ///
    /// # Errors
    /// [`QueueError::Invalid`].
    pub fn new(
        every: Option<Duration>,
        cron: Option<&str>,
        zone: Option<&str>,
    ) -> Result<Timing, QueueError> {
        let wrong = |words: String| Err(QueueError::Invalid(words));
        match (every, cron) {
            (None, None) => wrong("it needs every or cron to say when it fires".into()),
            (Some(_), Some(_)) => wrong("every and cron exclude each other".into()),
            (Some(_), None) if zone.is_some_and(|zone| zone != "UTC") => {
                wrong("zone says nothing about every; it goes with cron".into())
            }
            (Some(every), None) if every < EVERY_MIN => wrong("every is less than a second".into()),
            (Some(every), None) if every > rules::SPAN_MAX => wrong("every is longer than 100 years".into()),
            (Some(every), None) => Ok(Timing::Every(every)),
            (None, Some(text)) => {
                let cron = Cron::parse(text).map_err(|error| QueueError::Invalid(error.to_string()))?;
                let zone_name = zone.unwrap_or("UTC").to_owned();
                let zone = zone_of(&zone_name)?;
                Ok(Timing::Cron { cron, zone, zone_name })
            }
        }
    }
}

/// The zone of a name.
///
/// # Errors
/// [`QueueError::Invalid`] for one that is not known here.
pub fn zone_of(name: &str) -> Result<TimeZone, QueueError> {
    if name == "UTC" {
        return Ok(TimeZone::UTC); // needs no data
    }
    TimeZone::get(name).map_err(|_| {
        let shown: String = name.chars().take(60).collect();
        let words = format!(
            "the time zone {shown:?} is not known here: it must be a name as Europe/Berlin, and this machine must have \
             time zone data (the package tzdata)"
        );
        QueueError::Invalid(words)
    })
}

/// Work that repeats.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it fires.
    pub timing: Timing,
    /// What it enqueues.
    pub request: EnqueueRequest,
    /// What becomes of firings that nobody was there for.
    pub missed: Missed,
}

impl Schedule {
    /// A schedule as somebody asks for it.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for what breaks a rule.
    pub fn new(name: impl Into<String>, wanted: ScheduleRequest) -> Result<Schedule, QueueError> {
        let ScheduleRequest { request, every, cron, zone, missed } = wanted;
        let timing = Timing::new(every, cron.as_deref(), zone.as_deref())?;
        let schedule = Schedule { name: name.into(), timing, request, missed };
        schedule.check()?;
        Ok(schedule)
    }

    /// Checks it by itself, before it is kept.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] or [`QueueError::TooLarge`].
    pub fn check(&self) -> Result<(), QueueError> {
        check_name("schedule", &self.name)?;
        if let Timing::Every(every) = self.timing {
            Timing::new(Some(every), None, None)?;
        }
        let options = &self.request.options;
        if !options.parents.is_empty() || options.origin.is_some() || options.trace.is_some() {
            let words = "parents, origin and traceparent belong to one job; a schedule has none".into();
            return Err(QueueError::Invalid(words));
        }
        rules::check_requests(std::slice::from_ref(&self.request))
    }

    /// What it enqueues at each firing: the job says where it comes from.
    pub(crate) fn job(&self) -> EnqueueRequest {
        let mut request = self.request.clone();
        request.options.schedule = Some(self.name.clone());
        request
    }
}

/// Checks several, each by its name.
pub(crate) fn check_all(schedules: &[Schedule]) -> Result<(), QueueError> {
    if schedules.len() > SCHEDULES_MAX {
        return Err(QueueError::Invalid(too_many()));
    }
    let named = |s: &Schedule, e: QueueError| QueueError::Invalid(format!("schedule {:?}: {e}", s.name));
    schedules.iter().try_for_each(|s| s.check().map_err(|e| named(s, e)))
}

pub(crate) fn too_many() -> String {
    format!("a database keeps {SCHEDULES_MAX} schedules at most")
}

/// Which schedules to list.
#[derive(Debug, Clone)]
pub struct ScheduleFilter {
    /// Only names behind this one, in the order of their bytes: the cursor.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl Default for ScheduleFilter {
    fn default() -> ScheduleFilter {
        ScheduleFilter { after: None, limit: 50 }
    }
}

impl ScheduleFilter {
    /// So many rows are read for a page: one more than it shows, to know whether there is a next.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit.clamp(1, rules::PAGE_MAX)) + 1
    }
}

/// One page of schedules, by name.
#[derive(Debug)]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<ScheduleView>,
    /// `after` of the next page, if there is one.
    pub next: Option<String>,
}

impl SchedulePage {
    pub(crate) fn new(mut schedules: Vec<ScheduleView>, filter: &ScheduleFilter) -> SchedulePage {
        let shown = usize::try_from(filter.rows() - 1).unwrap_or(usize::MAX);
        let more = schedules.len() > shown;
        schedules.truncate(shown);
        let next = schedules.last().filter(|_| more).map(|last| last.name.clone());
        SchedulePage { schedules, next }
    }
}

/// Keeps the schedules, and fires them. All times are the database's.
#[async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// Puts a schedule, in place of one of its name. True when there was none. A schedule by `every` that nobody has seen
    /// before is due at once; one by `cron` waits for its next time. One that is paused stays so.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for what breaks a rule; [`QueueError::Configured`] when the name is the configuration's.
    async fn put_schedule(&self, schedule: &Schedule) -> Result<bool, QueueError>;

    /// Puts all schedules of the configuration: those that were of it before and are not among these are removed, those
    /// that were made otherwise stay, unless one of these has their name. What is paused stays paused.
    ///
    /// # Errors
    /// [`QueueError::Invalid`], which names the schedule: nothing was changed.
    async fn put_configured_schedules(&self, all: &[Schedule]) -> Result<(), QueueError>;

    /// Removes a schedule. Jobs that it enqueued stay.
    ///
    /// # Errors
    /// [`QueueError::NoSchedule`]; [`QueueError::Configured`] for one of the configuration.
    async fn remove_schedule(&self, name: &str) -> Result<(), QueueError>;

    /// One schedule, if it exists.
    async fn schedule(&self, name: &str) -> Result<Option<ScheduleView>, QueueError>;

    /// A page of schedules, by name.
    async fn schedules(&self, filter: &ScheduleFilter) -> Result<SchedulePage, QueueError>;

    /// Lets a schedule rest, or go on with its next time: what it did not fire while it was paused is not made up.
    ///
    /// # Errors
    /// [`QueueError::NoSchedule`].
    async fn pause_schedule(&self, name: &str, paused: bool) -> Result<(), QueueError>;

    /// Enqueues its job now, also while it is paused. When it is due next does not move.
    ///
    /// # Errors
    /// [`QueueError::NoSchedule`]; what an enqueue is refused for.
    async fn run_schedule(&self, name: &str) -> Result<Enqueued, QueueError>;

    /// Enqueues what is due, each due time once however many processes call. Answers how long until the next is due, if
    /// any is to come.
    async fn fire_schedules(&self) -> Result<Option<Duration>, QueueError>;

    /// Changes when this process has changed a schedule: what is due next may have moved nearer.
    fn schedule_changes(&self) -> watch::Receiver<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_every_and_cron_says_when() {
        let hour = Some(Duration::from_secs(3_600));
        assert_eq!(Timing::new(hour, None, None).unwrap(), Timing::Every(Duration::from_secs(3_600)));
        let berlin = Timing::new(None, Some("0 3 * * *"), Some("Europe/Berlin")).unwrap();
        assert!(matches!(berlin, Timing::Cron { zone_name, .. } if zone_name == "Europe/Berlin"));
        let says = |every, cron, zone, word: &str| {
            let error = Timing::new(every, cron, zone).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        says(None, None, None, "every or cron");
        says(hour, Some("* * * * *"), None, "exclude");
        says(hour, None, Some("Europe/Berlin"), "zone");
        says(Some(Duration::from_millis(999)), None, None, "less than a second");
        says(Some(rules::SPAN_MAX + EVERY_MIN), None, None, "100 years");
        says(None, Some("* * * *"), None, "five fields");
        says(None, Some("* * * * *"), Some("Mars/Olympus"), "Mars/Olympus");
        says(None, Some("* * * * *"), Some(""), "not known");
    }
}
