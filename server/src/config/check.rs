//! What one key alone cannot say: ranges, keys that need each other, what this version does not do yet.

use super::section::{Mistake, Origins, path_of};
use super::{Config, LimitOf, NDJSON, Task, channels, check_auth, check_hooks, check_schedules, sinks};
use crate::http::HOOK_BODIES_MAX;
use minium_protocol::Topic;
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
    tls(config, &mut findings);
    if let Err(error) = config.database.url.parse::<DatabaseUrl>() {
        findings.add("database.url".into(), error.to_string());
    }
    channels::check(&config.channels, &mut findings);
    check_schedules::check(config, &mut findings);
    check_hooks::check(config, &mut findings);
    for (name, task) in &config.tasks {
        check_task(name, task, &mut findings);
    }
    check_sandboxes(config, &mut findings);
    for queue in config.retention.keys() {
        check_retention(queue, &mut findings);
    }
    for (task, limit) in &config.limits {
        check_limit(task, limit, &mut findings);
    }
    check_auth::check(config, &mut findings);
    sinks::check(config, &mut findings);
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
        ("notifier.lag_events", config.notifier.lag_events),
    ];
    if !(1..=HOOK_BODIES_MAX).contains(&(limits.hook_bodies_per_address as usize)) {
        let what = format!("must be 1 to {HOOK_BODIES_MAX}");
        findings.add("server.limits.hook_bodies_per_address".into(), what);
    }
    if config.server.shards.is_some_and(|n| !(1..=64).contains(&n)) {
        findings.add("server.shards".into(), "must be 1 to 64");
    }
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
    if config.notifier.lag < Duration::from_secs(1) {
        findings.add("notifier.lag".into(), "must be 1s or more");
    }
    for (path, have, least) in spans {
        if have < least || have > Duration::from_secs(86_400) {
            let least = minium_protocol::format_duration(least);
            findings.add(path.into(), format!("must be {least} to 1d"));
        }
    }
}

fn tls(config: &Config, findings: &mut Findings<'_>) {
    let tls = &config.server.tls;
    let path = |key: &str| format!("server.tls.{key}");
    match (&tls.certificate_file, &tls.key_file) {
        (Some(_), None) => findings.add(path("key_file"), "a certificate needs its key"),
        (None, Some(_)) => findings.add(path("certificate_file"), "a key needs its certificate"),
        (None, None) if tls.client_ca_file.is_some() => {
            findings
                .add(path("client_ca_file"), "clients show certificates over TLS only: set certificate_file");
        }
        _ => {}
    }
    match tls.client_auth.as_deref() {
        None | Some("required" | "optional") if tls.client_auth.is_none() || tls.client_ca_file.is_some() => {
        }
        Some("required" | "optional") => {
            findings.add(path("client_auth"), "says nothing without client_ca_file");
        }
        _ => findings.add(path("client_auth"), "must be \"required\" or \"optional\""),
    }
}

fn check_retention(queue: &str, findings: &mut Findings<'_>) {
    if let Err(error) = queue.parse::<Topic>() {
        findings.add(path_of(&["retention", queue]), error.to_string());
    }
}

fn check_limit(task: &str, limit: &LimitOf, findings: &mut Findings<'_>) {
    if let Err(error) = minium_queue::check_limits(&[limit.limit(task)]) {
        findings.add(path_of(&["limits", task]), error.to_string());
    }
}

impl LimitOf {
    /// As the queue has it.
    pub(crate) fn limit(&self, task: &str) -> minium_queue::Limit {
        minium_queue::Limit {
            task: task.to_owned(),
            running: self.running,
            per_partition: self.per_partition,
            rate: self.rate.map(|count| minium_queue::Rate { count, per: self.per }),
        }
    }
}

/// What is wrong with the worker's is told once, and not with each task that it holds for.
fn check_sandboxes(config: &Config, findings: &mut Findings<'_>) {
    let outer = &config.worker.sandbox;
    if let Err((key, why)) = outer.build() {
        return findings.add(path_of(&["worker", "sandbox", key]), why);
    }
    for (name, task) in &config.tasks {
        if let Err((key, why)) = task.sandbox.or(outer).build() {
            findings.add(path_of(&["tasks", name, "sandbox", key]), why);
        }
    }
}

fn check_task(name: &str, task: &Task, findings: &mut Findings<'_>) {
    let path = |key: &str| path_of(&["tasks", name, key]);
    if let Err(error) = Topic::of_job(name, i64::MAX) {
        findings.add(path_of(&["tasks", name]), error.to_string());
    }
    if task.command.is_empty() {
        findings.add(path("command"), "is missing; it must be a list, as in [\"./burn-in.sh\", \"--fast\"]");
    } else if task.shell && task.command.len() != 1 {
        findings.add(path("command"), "must be one text when shell is true");
    }
    if task.timeout.is_some_and(|t| t.is_zero()) {
        findings.add(path("timeout"), "must be more than 0s");
    }
    for (key, count) in [("limit", task.limit), ("recycle_jobs", task.recycle_jobs)] {
        if count == Some(0) {
            findings.add(path(key), "must be 1 or more");
        }
    }
    let recycles = task.recycle_jobs.is_some() || task.recycle_after.is_some();
    match task.mode.as_str() {
        NDJSON if task.start_timeout.is_zero() => findings.add(path("start_timeout"), "must be more than 0s"),
        NDJSON => {}
        "once" if recycles => findings.add(path("mode"), "must be \"ndjson\" for processes to be replaced"),
        "once" => {}
        _ => findings.add(path("mode"), "must be \"once\" or \"ndjson\""),
    }
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
        assert!(
            wrong("[server.limits]\nhook_bodies_per_address = 33")
                .contains("server.limits.hook_bodies_per_address: must be 1 to 32")
        );
        assert!(wrong("[server]\nshards = 0").contains("server.shards: must be 1 to 64"));
        assert!(wrong("[worker]\nlease = \"1ms\"").contains("worker.lease: must be 1s to 1d"));
        assert!(wrong("[notifier]\nlag_events = 0").contains("notifier.lag_events: must be 1 or more"));
        assert!(wrong("[notifier]\nlag = \"0s\"").contains("notifier.lag: must be 1s or more"));
        assert!(wrong("[database]\nurl = \"mysql://x\"").contains("database.url: "));
        assert!(wrong("[schedules.x]\nevery = \"1s\"\ntask = \"a b\"").contains("schedules.x: task"));
        let task = |words: &str| wrong(&format!("[tasks.x]\ncommand = [\"x\"]\n{words}"));
        assert!(task("mode = \"forever\"").contains("tasks.x.mode: must be \"once\" or"));
        assert!(task("recycle_jobs = 3").contains("tasks.x.mode"));
        assert!(task("sandbox.memory = \"1GiB\"").contains("tasks.x.sandbox.mode: is missing"));
        assert!(
            task("sandbox = { mode = \"basic\", network = false }")
                .contains("tasks.x.sandbox.network: needs")
        );
        assert!(wrong("[worker.sandbox]\nmode = \"on\"").contains("worker.sandbox.mode: must be"));
    }

    #[test]
    fn what_could_not_be_read_is_told_once() {
        let told = wrong("[tasks.x]\ncommand = \"ls\"");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}
