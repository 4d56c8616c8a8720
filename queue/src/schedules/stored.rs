//! A schedule as both databases keep it, and what is read out of it.

use super::{Schedule, Timing, due};
use crate::rules::micros;
use jiff::Timestamp;
use minium_protocol::{EnqueueRequest, Missed, ScheduleView};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// A row of the table of schedules. Times are microseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// The request as JSON; none where only the time is known yet.
    pub(crate) request: Option<String>,
    pub(crate) every_us: Option<i64>,
    pub(crate) cron: Option<String>,
    pub(crate) zone: String,
    pub(crate) missed: String,
    pub(crate) paused: bool,
    pub(crate) configured: bool,
    pub(crate) due: i64,
    /// `due` was told, and is not only where a new row begins.
    pub(crate) is_due_known: bool,
    pub(crate) fired: Option<i64>,
    pub(crate) job: Option<i64>,
}

/// What of a schedule is kept as one column each: interval, expression, zone.
pub(crate) struct TimingColumns<'a> {
    pub(crate) every_us: Option<i64>,
    pub(crate) cron: Option<String>,
    pub(crate) zone: &'a str,
}

impl Timing {
    pub(crate) fn columns(&self) -> TimingColumns<'_> {
        match self {
            Timing::Every(every) => TimingColumns { every_us: Some(micros(*every)), cron: None, zone: "UTC" },
            Timing::Cron { cron, zone_name, .. } => {
                TimingColumns { every_us: None, cron: Some(cron.to_string()), zone: zone_name }
            }
        }
    }
}

/// A request as it is kept: what a client would send.
pub(crate) fn request_text(request: &EnqueueRequest) -> String {
    serde_json::to_string(request).expect("a checked request is JSON")
}

impl Stored {
    /// When it fires; an error in words when that cannot be told here.
    pub(crate) fn timing(&self) -> Result<Timing, String> {
        let every = self.every_us.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros);
        let zone = self.cron.as_ref().map(|_| self.zone.as_str());
        Timing::new(every, self.cron.as_deref(), zone).map_err(|error| error.to_string())
    }

    /// The schedule. An error in words when it cannot be read: it was put by a newer program, or on a machine that knows
    /// its zone.
    pub(crate) fn schedule(&self) -> Result<Schedule, String> {
        let request = self.request.as_deref().ok_or("its definition is not there yet")?;
        let request = serde_json::from_str(request).map_err(|error| error.to_string())?;
        let missed = self.missed.parse()?;
        Ok(Schedule { name: self.name.clone(), timing: self.timing()?, request, missed })
    }

    /// When it is due once this timing is put in its place.
    pub(crate) fn due_when_put(&self, timing: &Timing, now: i64) -> i64 {
        match (&self.request, self.timing()) {
            (Some(_), Ok(before)) => due::at_put(Some((&before, self.due)), timing, now),
            // a program of before, which knew intervals alone, has left its time
            (None, _) if self.is_due_known && matches!(timing, Timing::Every(_)) => {
                due::at_put(Some((timing, self.due)), timing, now)
            }
            _ => due::at_put(None, timing, now),
        }
    }

    /// Task and arguments, for whoever hides some of them.
    pub(crate) fn task_and_args(&self) -> Option<(String, String)> {
        let members = self.members()?;
        let task = serde_json::from_str(members.get("task")?.get()).ok()?;
        Some((task, members.get("args")?.get().to_owned()))
    }

    /// As everybody may see it: with these arguments, where not all of them are shown. None without a definition.
    pub(crate) fn view(&self, args_shown: Option<String>) -> Option<ScheduleView> {
        let mut members = self.members()?;
        if let Some(shown) = args_shown {
            members.insert("args".into(), RawValue::from_string(shown).ok()?);
        }
        let request = serde_json::value::to_raw_value(&members).ok()?;
        let timestamp = |us: i64| Timestamp::from_microsecond(us).unwrap_or(Timestamp::MAX);
        Some(ScheduleView {
            name: self.name.clone(),
            request,
            every: self.every_us.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros),
            cron: self.cron.clone(),
            zone: self.zone.clone(),
            missed: self.missed.parse::<Missed>().unwrap_or_default(),
            paused: self.paused,
            configured: self.configured,
            due: timestamp(self.due),
            fired: self.fired.map(timestamp),
            job: self.job,
        })
    }

    fn members(&self) -> Option<BTreeMap<String, Box<RawValue>>> {
        serde_json::from_str(self.request.as_deref()?).ok()
    }
}
