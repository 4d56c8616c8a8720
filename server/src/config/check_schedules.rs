//! Schedules of the configuration: what may be wrong with them, and what the queue is given.

use super::check::Findings;
use super::section::path_of;
use super::{Config, Schedule};
use minium_protocol::EnqueueRequest;
use minium_queue::schedules::{EVERY_MIN, zone_of};
use minium_queue::{Cron, Timing};
use serde_json::Value;

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    for (name, schedule) in &config.schedules {
        check_one(name, schedule, findings);
    }
}

fn check_one(name: &str, schedule: &Schedule, findings: &mut Findings<'_>) {
    let path = |key: &str| path_of(&["schedules", name, key]);
    match (schedule.every, &schedule.cron) {
        (None, None) => findings.add(path("every"), "is missing; say every or cron"),
        (Some(_), Some(_)) => findings.add(path("cron"), "every and cron exclude each other"),
        (Some(every), None) if every < EVERY_MIN => findings.add(path("every"), "must be 1s or more"),
        (None, Some(cron)) => {
            if let Err(error) = Cron::parse(cron) {
                findings.add(path("cron"), error.to_string());
            }
        }
        (Some(_), None) => {}
    }
    match &schedule.zone {
        Some(_) if schedule.cron.is_none() => findings.add(path("zone"), "says nothing without cron"),
        Some(zone) => {
            if let Err(error) = zone_of(zone) {
                findings.add(path("zone"), error.to_string());
            }
        }
        None => {}
    }
    if schedule.notes.as_ref().is_some_and(|notes| !notes.0.is_object()) {
        findings.add(path("notes"), "must be a table");
    }
    if schedule.task.is_none() {
        findings.add(path("task"), "is missing; it must be the name of a task");
    } else if let Err(why) = schedule.request().check() {
        findings.add(path_of(&["schedules", name]), why);
    } else if let Some(Err(error)) = schedule.of_queue(name).map(|schedule| schedule.check()) {
        findings.add(path_of(&["schedules", name]), error.to_string());
    }
}

impl Schedule {
    /// What it enqueues.
    fn request(&self) -> EnqueueRequest {
        let args = self.args.as_ref().map_or_else(|| "[]".into(), |args| args.0.to_string());
        let args = serde_json::value::RawValue::from_string(args).expect("a JSON value prints as JSON");
        let mut request = EnqueueRequest::new(self.task.clone().unwrap_or_default(), args);
        let options = &mut request.options;
        options.queue.clone_from(&self.queue);
        options.priority = self.priority;
        options.attempts = self.attempts;
        options.expire = self.expire;
        options.timeout = self.timeout;
        options.backoff = self.backoff;
        options.key.clone_from(&self.key);
        if let Some(Value::Object(notes)) = self.notes.as_ref().map(|notes| &notes.0) {
            options.notes.clone_from(notes);
        }
        request
    }

    /// As the queue keeps it; none while something is wrong with its timing.
    fn of_queue(&self, name: &str) -> Option<minium_queue::Schedule> {
        let timing = Timing::new(self.every, self.cron.as_deref(), self.zone.as_deref()).ok()?;
        let (name, request) = (name.to_owned(), self.request());
        Some(minium_queue::Schedule { name, timing, request, missed: self.missed })
    }
}

impl Config {
    /// All schedules, as the queue keeps them.
    pub(crate) fn schedules(&self) -> Vec<minium_queue::Schedule> {
        // those with mistakes were refused when the configuration was read
        self.schedules.iter().filter_map(|(name, schedule)| schedule.of_queue(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;

    fn wrong(text: &str) -> String {
        from_text(text).unwrap_err().iter().map(|m| format!("{m}\n")).collect()
    }

    #[test]
    fn what_a_schedule_says_reaches_the_queue() {
        let text = "[schedules.\"a b\"]\ntask = \"x/y\"\ncron = \"0 3 * * mon-fri\"\nzone = \"Europe/Berlin\"\nmissed = \"all\"\n\
                    args = [1]\nqueue = \"slow\"\nexpire = \"1h\"\ntimeout = \"5m\"\nbackoff = \"9s\"\nkey = \"k\"\nnotes = { n = 1 }";
        let schedules = from_text(text).unwrap().schedules();
        let told = format!("{:?}", schedules[0]);
        for word in [
            "a b",
            "x/y",
            "mon-fri",
            "Europe/Berlin",
            "All",
            "[1]",
            "slow",
            "3600s",
            "300s",
            "9s",
            "Some(\"k\")",
            "\"n\"",
        ] {
            assert!(told.contains(word), "{word} in {told}");
        }
    }

    #[test]
    fn mistakes_are_told_at_their_keys() {
        let told = wrong(
            "[schedules.a]\ntask = \"x\"\nevery = \"10ms\"\nzone = \"Europe/Berlin\"\nnotes = [1]\n\
             [schedules.b]\ntask = \"x\"\nevery = \"1h\"\nattempts = 0\n\
             [schedules.\"..\"]\ntask = \"x\"\nevery = \"1h\"\n",
        );
        for start in [
            "schedules.a.every: must be 1s",
            "schedules.a.zone: says nothing",
            "schedules.a.notes: ",
            "schedules.b: attempts",
            "schedules.\"..\": ",
        ] {
            assert!(told.lines().any(|line| line.starts_with(start)), "{start} in {told}");
        }
    }
}
