//! `[sinks.NAME]` and `[deliveries]`: who is told of events outside, and what may be wrong with that.

use super::Config;
use super::check::Findings;
use super::secret::{Secret, Secrets};
use super::section::{path_of, section};
use super::value::BaseUrl;
use crate::sinks::parse_url;
use minium_notifier::FORGET_AFTER_MIN;
use minium_protocol::{Filter, State};
use minium_queue::rules;
use std::path::PathBuf;
use std::time::Duration;

section! {
    /// Who is told of events outside, as in `[sinks.ops]`.
    Sink {
        /// `webhook` or `github-status`.
        kind: Option<String> = "";
        /// Where a sink begins that was not there before: with what comes from `now` on, or with the `earliest` event that is
        /// kept.
        from: String = "now";
        /// How often an event is sent at most. 15 are spread over about 25 hours, unless `backoff` is said.
        attempts: u32 = "15";
        /// Pause between attempts. Without it 15, 16, 31, 96 and so on seconds (the fourth power of their number, and 15).
        backoff: Option<Duration> = "";
        /// How long an attempt may take, 1s to 5m.
        timeout: Duration = "15s";
        /// May the address that is connected to be of a private network, or of this machine?
        allow_private: bool = "false";
        /// Authorities of one's own that vouch for the receiver's certificate, as PEM, in place of the system's.
        ca_file: Option<PathBuf> = "";
        /// Of a webhook: where events are posted to.
        url: Option<String> = "";
        /// Of a webhook: secrets, `whsec_` and base64 behind it. Each signs, so that receivers can change theirs without a gap.
        secrets: Secrets = "";
        /// Of a webhook: files with one secret each, besides or in place of `secrets`.
        secret_files: Option<Vec<String>> = "";
        /// Of a webhook: what it follows. Without it `["task"]`, which is all task events.
        topics: Option<Vec<String>> = "";
        /// Of a webhook: of task events only those whose snapshot has one of these states, as in `["finished", "failed"]`. Without
        /// it all.
        states: Option<Vec<String>> = "";
        /// Of a webhook: a file with a token that goes along as `Authorization: Bearer`.
        bearer_file: Option<PathBuf> = "";
        /// Of commit statuses: where the API is, such as `https://github.example.com/api/v3`. Without it `https://api.github.com`.
        base_url: Option<BaseUrl> = "";
        /// Of commit statuses: the token that may write them.
        token: Option<Secret> = "";
        /// Of commit statuses: a file with the token.
        token_file: Option<PathBuf> = "";
        /// Of commit statuses: the tasks, each with those below it. Without it all.
        tasks: Option<Vec<String>> = "";
        /// Of commit statuses: where `owner/repository` stands in a job's snapshot, as a JSON pointer: `"/args/0/repository"`. A job
        /// without it has no status.
        repository: Option<String> = "";
        /// Of commit statuses: where the commit stands (40 or 64 hexadecimal digits), likewise: `"/notes/sha"`.
        sha: Option<String> = "";
        /// Of commit statuses: what tells this status from others of the same commit. Without it the task.
        context: Option<String> = "";
        /// Of commit statuses: where *details* leads; `{job}` stands for the job's number.
        target_url: Option<String> = "";
    }
}

section! {
    /// The worker inside the node that sends what sinks are told. Without sinks there is none.
    Deliveries {
        /// Requests at one moment.
        concurrency: u32 = "8";
        /// A sink that stands in no configuration is let go of when no node has followed it for so long: until then the
        /// journal waits for it, and what was to be sent waits for a node that knows it. 2m or more.
        forget_after: Duration = "1h";
        /// An event that is read again within this is not told again. It is as long as all nodes may be away after one of them
        /// was killed; each event has a row in the database for so long. 10m to 30d.
        remember: Duration = "1d";
    }
}

/// The kinds of sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkKind {
    /// Standard Webhooks.
    Webhook,
    /// Statuses of commits, as GitHub has them.
    GithubStatus,
}

/// More sinks than this are a mistake; each is a recorder, and a label of metrics.
const SINKS_MAX: usize = 50;
/// So many topics or tasks of one sink.
const TOPICS_MAX: usize = 20;
/// No attempt takes longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// More attempts are a loop.
const ATTEMPTS_MAX: u32 = 100;
/// Far longer than another node needs to take over, or a database to fail over.
const REMEMBER_MIN: Duration = Duration::from_secs(600);
const REMEMBER_MAX: Duration = Duration::from_secs(30 * 86_400);

impl Sink {
    /// What it is, if that was said.
    pub(crate) fn kind(&self) -> Option<SinkKind> {
        match self.kind.as_deref()? {
            "webhook" => Some(SinkKind::Webhook),
            "github-status" => Some(SinkKind::GithubStatus),
            _ => None,
        }
    }

    /// What is in the journal for it. What is no filter was told when it was read.
    pub(crate) fn filters(&self) -> Vec<Filter> {
        let texts: Vec<String> = match (self.kind(), &self.topics, &self.tasks) {
            (Some(SinkKind::GithubStatus), _, Some(tasks)) => {
                tasks.iter().map(|task| format!("task/{task}")).collect()
            }
            (Some(SinkKind::Webhook), Some(topics), _) => topics.clone(),
            (Some(SinkKind::Webhook | SinkKind::GithubStatus) | None, _, _) => vec!["task".into()],
        };
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// Keys that only one kind has, and were said.
    fn said(&self) -> [(&'static str, SinkKind, bool); 14] {
        use SinkKind::{GithubStatus, Webhook};
        [
            ("url", Webhook, self.url.is_some()),
            ("secrets", Webhook, !self.secrets.is_empty()),
            ("secret_files", Webhook, self.secret_files.is_some()),
            ("topics", Webhook, self.topics.is_some()),
            ("states", Webhook, self.states.is_some()),
            ("bearer_file", Webhook, self.bearer_file.is_some()),
            ("base_url", GithubStatus, self.base_url.is_some()),
            ("token", GithubStatus, self.token.is_some()),
            ("token_file", GithubStatus, self.token_file.is_some()),
            ("tasks", GithubStatus, self.tasks.is_some()),
            ("repository", GithubStatus, self.repository.is_some()),
            ("sha", GithubStatus, self.sha.is_some()),
            ("context", GithubStatus, self.context.is_some()),
            ("target_url", GithubStatus, self.target_url.is_some()),
        ]
    }
}

pub(super) fn check(config: &Config, findings: &mut Findings<'_>) {
    if config.sinks.len() > SINKS_MAX {
        findings.add("sinks".into(), format!("has {} sinks, more than {SINKS_MAX}", config.sinks.len()));
    }
    if !(1..=1_000).contains(&config.deliveries.concurrency) {
        findings.add("deliveries.concurrency".into(), "must be 1 to 1000");
    }
    if config.deliveries.forget_after < FORGET_AFTER_MIN {
        let what = "must be 2m or more: a sink whose node is only late would be forgotten";
        findings.add("deliveries.forget_after".into(), what);
    }
    if !(REMEMBER_MIN..=REMEMBER_MAX).contains(&config.deliveries.remember) {
        findings.add("deliveries.remember".into(), "must be 10m to 30d");
    }
    for (name, sink) in &config.sinks {
        check_one(name, sink, findings);
    }
}

fn check_one(name: &str, sink: &Sink, findings: &mut Findings<'_>) {
    let path = |key: &str| path_of(&["sinks", name, key]);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
        findings.add(
            path_of(&["sinks", name]),
            "the name of a sink must be 1 to 64 of the characters A-Z a-z 0-9 _ -",
        );
    }
    if !["now", "earliest"].contains(&sink.from.as_str()) {
        findings.add(path("from"), "must be \"now\" or \"earliest\"");
    }
    if !(1..=ATTEMPTS_MAX).contains(&sink.attempts) {
        findings.add(path("attempts"), format!("must be 1 to {ATTEMPTS_MAX}"));
    }
    if sink.backoff.is_some_and(|backoff| backoff > rules::BACKOFF_MAX) {
        findings.add(path("backoff"), "must be 30d at most");
    }
    if !(Duration::from_secs(1)..=TIMEOUT_MAX).contains(&sink.timeout) {
        findings.add(path("timeout"), "must be 1s to 5m");
    }
    let Some(kind) = sink.kind() else {
        return findings.add(path("kind"), "must be \"webhook\" or \"github-status\"");
    };
    for (key, _, _) in sink.said().iter().filter(|(_, of, said)| *said && *of != kind) {
        findings.add(path(key), "does not go with a sink of this kind");
    }
    match kind {
        SinkKind::Webhook => check_webhook(sink, &path, findings),
        SinkKind::GithubStatus => check_status(sink, &path, findings),
    }
}

fn check_webhook(sink: &Sink, path: &dyn Fn(&str) -> String, findings: &mut Findings<'_>) {
    match sink.url.as_deref().map(parse_url) {
        None => findings.add(path("url"), "is missing"),
        Some(Err(why)) => findings.add(path("url"), why),
        Some(Ok(_)) => {}
    }
    if sink.secrets.is_empty() && sink.secret_files.as_ref().is_none_or(Vec::is_empty) {
        findings.add(path("secret_files"), "is missing; a webhook is signed by one secret at least");
    }
    check_filters("topics", sink.topics.as_deref(), "", path, findings);
    for state in sink.states.iter().flatten() {
        if let Err(why) = state.parse::<State>() {
            findings.add(path("states"), why);
        }
    }
}

fn check_status(sink: &Sink, path: &dyn Fn(&str) -> String, findings: &mut Findings<'_>) {
    if let Some(Err(why)) = sink.base_url.as_ref().map(|url| parse_url(&url.0)) {
        findings.add(path("base_url"), why);
    }
    match (&sink.token, &sink.token_file) {
        (None, None) => findings.add(path("token_file"), "is missing"),
        (Some(_), Some(_)) => findings.add(path("token"), "token and token_file exclude each other"),
        (Some(_), None) | (None, Some(_)) => {}
    }
    check_filters("tasks", sink.tasks.as_deref(), "task/", path, findings);
    for (key, pointer) in [("repository", &sink.repository), ("sha", &sink.sha)] {
        match pointer {
            None => findings.add(path(key), "is missing"),
            Some(pointer) if !pointer.starts_with('/') => {
                findings.add(path(key), "must be a JSON pointer, as in \"/args/0/repository\"");
            }
            Some(_) => {}
        }
    }
    if sink.context.as_ref().is_some_and(|context| context.is_empty() || context.len() > 255) {
        findings.add(path("context"), "must have 1 to 255 bytes");
    }
    // a page may be behind a fragment
    if let Some(Err(why)) = sink
        .target_url
        .as_ref()
        .map(|url| parse_url(url.replace("{job}", "1").split('#').next().unwrap_or_default()))
    {
        findings.add(path("target_url"), why);
    }
}

fn check_filters(
    key: &str,
    filters: Option<&[String]>,
    below: &str,
    path: &dyn Fn(&str) -> String,
    findings: &mut Findings<'_>,
) {
    let Some(filters) = filters else { return };
    if filters.is_empty() || filters.len() > TOPICS_MAX {
        findings.add(path(key), format!("must have 1 to {TOPICS_MAX} entries"));
    }
    for filter in filters {
        if let Err(error) = format!("{below}{filter}").parse::<Filter>() {
            findings.add(path(key), format!("{filter:?}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::from_text;
    use super::super::show;

    fn wrong(text: &str) -> String {
        from_text(text).unwrap_err().iter().map(|m| format!("{m}\n")).collect()
    }

    const WEBHOOK: &str = "[sinks.ops]\nkind = \"webhook\"\nurl = \"https://example.com/hook\"\n\
                           secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
    const STATUS: &str = "[sinks.ci]\nkind = \"github-status\"\ntoken_file = \"t\"\nrepository = \"/args/0/repository\"\n\
                          sha = \"/notes/sha\"\n";

    #[test]
    fn each_kind_is_whole_with_little() {
        let config = from_text(&format!("{WEBHOOK}{STATUS}tasks = [\"ci\", \"build/+\"]")).unwrap();
        let filters = |name: &str| -> Vec<String> {
            config.sinks[name].filters().iter().map(|f| f.as_str().to_owned()).collect()
        };
        assert_eq!(filters("ops"), ["task"]);
        assert_eq!(filters("ci"), ["task/ci", "task/build/+"]);
        let shown = show(&config);
        assert!(!shown.contains("MfKQ9r8") && shown.contains("secrets = [\"***\"]"), "{shown}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let told = wrong(
            "[deliveries]\nconcurrency = 0\nforget_after = \"119s\"\nremember = \"9m\"\n\
             [sinks.\"a b\"]\nkind = \"mail\"\n\
             [sinks.a]\nkind = \"webhook\"\nurl = \"ftp://x\"\nfrom = \"then\"\nattempts = 0\ntimeout = \"1h\"\n\
             states = [\"done\"]\ntopics = [\"a//b\"]\ntoken_file = \"t\"\n\
             [sinks.b]\nkind = \"github-status\"\ntoken = \"x\"\ntoken_file = \"t\"\nrepository = \"args\"\nurl = \"https://x\"\n\
             target_url = \"javascript:x\"\n",
        );
        for start in [
            "deliveries.concurrency: must be 1",
            "deliveries.forget_after: must be 2m or more",
            "deliveries.remember: must be 10m to 30d",
            "sinks.\"a b\": the name",
            "sinks.\"a b\".kind: must be",
            "sinks.a.url: ",
            "sinks.a.from: ",
            "sinks.a.attempts: ",
            "sinks.a.timeout: ",
            "sinks.a.states: ",
            "sinks.a.topics: ",
            "sinks.a.secret_files: is missing",
            "sinks.a.token_file: does not go with",
            "sinks.b.token: token and token_file",
            "sinks.b.repository: must be a JSON pointer",
            "sinks.b.sha: is missing",
            "sinks.b.url: does not go with",
            "sinks.b.target_url: ",
        ] {
            assert!(told.lines().any(|line| line.starts_with(start)), "{start} in {told}");
        }
    }
}
