//! What one key alone cannot say: ranges, keys that need each other, what this version does not do yet.

use super::section::{Mistake, Origins};
use super::{Channel, Config, Schedule, Task, check_auth};
use minium_protocol::{EnqueueRequest, Filter, Topic};
use minium_queue::DatabaseUrl;
use std::time::Duration;

/// Where mistakes go.
pub(super) struct Findings<'a> {
    origins: &'a Origins,
    mistakes: &'a mut Vec<Mistake>,
}

impl Findings<'_> {
    pub(super) fn add(&mut self, path: String, what: impl Into<String>) {
        // A key that could not be read has been told of already, and holds its default here.
        if self.mistakes.iter().all(|m| m.path != path) {
            let origin = self.origins.get(&path).cloned();
            self.mistakes.push(Mistake { path, origin, what: what.into() });
        }
    }
}

/// Looks at the whole.
pub(super) fn check(config: &Config, origins: &Origins, mistakes: &mut Vec<Mistake>) {
    let mut findings = Findings { origins, mistakes };
    limits(config, &mut findings);
    if let Err(error) = config.database.url.parse::<DatabaseUrl>() {
        findings.add("database.url".into(), error.to_string());
    }
    for (name, channel) in &config.channels {
        check_channel(name, channel, &mut findings);
    }
    for (name, schedule) in &config.schedules {
        check_schedule(name, schedule, &mut findings);
    }
    for (name, task) in &config.tasks {
        check_task(name, task, &mut findings);
    }
    check_auth::check(config, &mut findings);
    for queue in &config.worker.queues {
        if let Err(error) = queue.parse::<Topic>() {
            findings.add("worker.queues".into(), format!("{queue:?}: {error}"));
        }
    }
}

fn limits(config: &Config, findings: &mut Findings<'_>) {
    let limits = &config.server.limits;
    let sizes = [
        ("message_bytes", limits.message_bytes.0, 1, 64 << 20),
        ("request_bytes", limits.request_bytes.0, 1_024, 1 << 30),
        ("header_bytes", limits.header_bytes.0, 8_192, 1 << 20),
    ];
    for (key, have, least, most) in sizes {
        if !(least..=most).contains(&have) {
            let what = format!("is {have} bytes, it must be {least} to {most}");
            findings.add(format!("server.limits.{key}"), what);
        }
    }
    let counts = [
        ("server.limits.connections", limits.connections),
        ("server.limits.sessions", limits.sessions),
        ("server.limits.waits", limits.waits),
        ("database.pool", config.database.pool),
        ("worker.concurrency", config.worker.concurrency),
    ];
    for (path, have) in counts {
        if have == 0 {
            findings.add(path.into(), "must be 1 or more");
        }
    }
    let spans = [
        ("server.limits.handshake_timeout", limits.handshake_timeout, Duration::from_millis(100)),
        ("server.shutdown_grace", config.server.shutdown_grace, Duration::from_millis(100)),
        ("worker.lease", config.worker.lease, Duration::from_secs(1)),
    ];
    for (path, have, least) in spans {
        if have < least || have > Duration::from_secs(86_400) {
            let least = minium_protocol::format_duration(least);
            findings.add(path.into(), format!("must be {least} to 1d"));
        }
    }
}

fn check_channel(name: &str, channel: &Channel, findings: &mut Findings<'_>) {
    let path = |key: &str| format!("channels.{}.{key}", quoted(name));
    if let Err(error) = name.parse::<Filter>() {
        findings.add(format!("channels.{}", quoted(name)), error.to_string());
        return;
    }
    let task = name == "task";
    match (task, channel.durable) {
        (true, Some(false)) => findings.add(path("durable"), "task is always durable"),
        (false, Some(true)) => {
            findings
                .add(path("durable"), "is not supported by this version; only task is durable, and always");
        }
        _ => {}
    }
    let retention = &channel.retention;
    if !task && (retention.age.is_some() || retention.count.is_some()) {
        findings.add(
            path("retention"),
            "only durable channels keep anything, and only task is durable in this version",
        );
    }
    if retention.age.is_some_and(|age| age < Duration::from_secs(1)) {
        findings.add(path("retention.age"), "must be 1s or more");
    }
    if retention.count == Some(0) {
        findings.add(path("retention.count"), "must be 1 or more");
    }
    match (task, channel.slow.as_deref()) {
        (_, None) | (true, Some("replay")) | (false, Some("close")) => {}
        (true, Some("close" | "gap")) | (false, Some("replay" | "gap")) => {
            let only = if task { "replay" } else { "close" };
            findings.add(path("slow"), format!("is not supported by this version here; only {only:?} is"));
        }
        (_, Some(other)) => {
            findings.add(path("slow"), format!("{other:?} must be \"replay\", \"close\" or \"gap\""));
        }
    }
}

fn check_schedule(name: &str, schedule: &Schedule, findings: &mut Findings<'_>) {
    let path = |key: &str| format!("schedules.{}.{key}", quoted(name));
    match schedule.every {
        None => findings.add(path("every"), "is missing; it must be a duration, as in \"10s\""),
        Some(every) if every < Duration::from_secs(1) => findings.add(path("every"), "must be 1s or more"),
        Some(_) => {}
    }
    match &schedule.task {
        None => findings.add(path("task"), "is missing; it must be the name of a task"),
        Some(_) => {
            if let Err(why) = schedule.request(name).check() {
                findings.add(format!("schedules.{}", quoted(name)), why);
            }
        }
    }
}

impl Schedule {
    /// What it enqueues.
    pub(crate) fn request(&self, name: &str) -> EnqueueRequest {
        let args = self.args.as_ref().map_or_else(|| "[]".into(), |args| args.0.to_string());
        let args = serde_json::value::RawValue::from_string(args).expect("a JSON value prints as JSON");
        let mut request = EnqueueRequest::new(self.task.clone().unwrap_or_default(), args);
        request.options.queue.clone_from(&self.queue);
        request.options.priority = self.priority;
        request.options.attempts = self.attempts;
        request.options.schedule = Some(name.to_owned());
        request
    }
}

fn check_task(name: &str, task: &Task, findings: &mut Findings<'_>) {
    let path = |key: &str| format!("tasks.{}.{key}", quoted(name));
    if let Err(error) = Topic::of_job(name, i64::MAX) {
        findings.add(format!("tasks.{}", quoted(name)), error.to_string());
    }
    if task.command.is_empty() {
        findings.add(path("command"), "is missing; it must be a list, as in [\"./burn-in.sh\", \"--fast\"]");
    } else if task.shell && task.command.len() != 1 {
        findings.add(path("command"), "must be one text when shell is true");
    }
    if task.timeout.is_some_and(|t| t.is_zero()) {
        findings.add(path("timeout"), "must be more than 0s");
    }
}

/// A name as it stands in a dotted key.
pub(super) fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;

    fn wrong(text: &str) -> String {
        from_text(text).unwrap_err().iter().map(|m| format!("{m}\n")).collect()
    }

    #[test]
    fn ranges_are_checked_after_kinds() {
        assert!(wrong("[database]\npool = 0").contains("database.pool: must be 1 or more"));
        assert!(wrong("[server.limits]\nheader_bytes = 10").contains("8192 to 1048576"));
        assert!(wrong("[worker]\nlease = \"1ms\"").contains("worker.lease: must be 1s to 1d"));
        assert!(wrong("[database]\nurl = \"mysql://x\"").contains("database.url: "));
        assert!(wrong("[channels.task]\ndurable = false").contains("always durable"));
        assert!(wrong("[channels.task]\nslow = \"drop\"").contains("must be \"replay\""));
        assert!(wrong("[channels.x]\nretention = { age = \"1d\" }").contains("only task is durable"));
        assert!(
            wrong("[channels.task]\nretention = { bytes = \"1GiB\" }")
                .contains("channels.task.retention.bytes: is not supported")
        );
        assert!(wrong("[schedules.x]\nevery = \"1s\"\ntask = \"a b\"").contains("schedules.x: task"));
    }

    #[test]
    fn what_could_not_be_read_is_told_once() {
        let told = wrong("[tasks.x]\ncommand = \"ls\"");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}
