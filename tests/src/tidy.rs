//! The source looks after itself: what the documents say of the code is held against the code.

use crate::documents::documents;
use crate::support::node::checkout;
use minium_protocol::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may depend on whom, as in ARCHITECTURE.md. Arrows never turn back.
const CRATE_GRAPH: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("queue", &["protocol"]),
    ("bus", &["protocol"]),
    ("client", &["protocol"]),
    ("audit", &["protocol", "client"]),
    ("notifier", &["protocol", "queue", "bus"]),
    ("worker", &["protocol", "queue", "client"]),
    ("bench", &["protocol", "queue", "worker"]),
    ("server", &["protocol", "queue", "bus", "notifier", "worker", "client", "audit", "bench"]),
    ("tests", &["protocol", "queue", "bus", "notifier", "worker", "client", "audit"]),
];

/// Crates that only some may use: SQL stays in queue and notifier, HTTP in the server.
const WRAPPED: &[(&str, &[&str])] = &[
    ("rusqlite", &["queue", "notifier", "tests"]),
    ("tokio-postgres", &["queue", "notifier", "bench", "tests"]),
    ("deadpool-postgres", &["queue", "notifier"]),
    ("axum", &["server"]),
    ("jsonschema", &["bus"]),
    ("zstd", &["audit"]),
    ("object_store", &["audit"]),
    ("parquet", &["audit"]),
    ("ratatui", &["server"]),
    ("utoipa", &["server"]),
    ("opentelemetry", &["server", "worker"]),
    ("opentelemetry-otlp", &["server"]),
];

/// A longer file has more than one subject.
const LINES_MAX: usize = 600;

/// The letters of clauses in docs/protocol.md.
const CLAUSE_LETTERS: &str = "ATBWPESHQCLVJMRNDKXGO";

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn document(name: &str) -> String {
    read(&checkout().join("docs").join(name))
}

/// All Rust files below the crates' `src`.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<_> = CRATE_GRAPH.iter().map(|(name, _)| checkout().join(name).join("src")).collect();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > CRATE_GRAPH.len(), "no sources below {}", checkout().display());
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(checkout()).unwrap().display().to_string()
}

fn manifest(name: &str) -> toml::Table {
    read(&checkout().join(name).join("Cargo.toml")).parse().unwrap()
}

fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    sections.iter().filter_map(|s| manifest.get(*s)?.as_table()).flat_map(|t| t.keys().cloned()).collect()
}

#[test]
fn the_crate_graph_is_that_of_the_design() {
    let root: toml::Table = read(&checkout().join("Cargo.toml")).parse().unwrap();
    let members: BTreeSet<_> =
        root["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    assert_eq!(
        members,
        CRATE_GRAPH.iter().map(|(name, _)| *name).collect(),
        "each member has a place in the graph"
    );
    let mut wrong = Vec::new();
    for (name, allowed) in CRATE_GRAPH {
        let manifest = manifest(name);
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{name} takes the workspace's lints"
        );
        let dependencies = dependencies(&manifest);
        for to in allowed.iter().filter(|to| !dependencies.contains(&format!("minium-{to}"))) {
            wrong.push(format!("{name} ──► {to} is an arrow of ARCHITECTURE.md that nothing follows"));
        }
        for dependency in dependencies {
            let ours = dependency.strip_prefix("minium-");
            if ours.is_some_and(|to| !allowed.contains(&to)) {
                wrong.push(format!("{name} ──► {dependency} is no arrow of ARCHITECTURE.md"));
            }
            let wrapped = WRAPPED.iter().find(|(wrapped, _)| *wrapped == dependency);
            if wrapped.is_some_and(|(_, users)| !users.contains(name)) {
                wrong.push(format!("{name} ──► {dependency}, which only {:?} may use", wrapped.unwrap().1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn both_databases_have_the_same_migrations() {
    let numbers = |kind: &str| -> BTreeMap<u32, String> {
        let dir = checkout().join("migrations").join(kind);
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.map(|name| (name.split('_').next().unwrap().parse().unwrap(), name)).collect()
    };
    let postgres = numbers("postgres");
    assert_eq!(postgres, numbers("sqlite"), "the same numbers and names");
    assert!(postgres.keys().copied().eq(1..=postgres.len() as u32), "no number is left out: {postgres:?}");
}

/// Clause numbers in a text, as in `B-12`. A letter or digit before them makes them something else, as in UTF-8.
fn clauses(text: &str) -> BTreeSet<String> {
    let bytes = text.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(b' ');
    let starts = (0..bytes.len()).filter(|i| {
        let alone = *i == 0 || !(at(i - 1).is_ascii_alphanumeric() || at(i - 1) == b'-' || at(i - 1) == b'_');
        alone
            && CLAUSE_LETTERS.as_bytes().contains(&at(*i))
            && at(i + 1) == b'-'
            && at(i + 2).is_ascii_digit()
    });
    let whole = |i: usize| {
        let digits = bytes[i + 2..].iter().take_while(|b| b.is_ascii_digit()).count();
        text[i..i + 2 + digits].to_owned()
    };
    starts.map(whole).collect()
}

#[test]
fn each_clause_is_cited_by_a_test_and_each_citation_exists() {
    let protocol = document("protocol.md");
    let stated = |line: &str| Some(line.strip_prefix("- **")?.split_once("**")?.0.to_owned());
    let all: Vec<String> = protocol.lines().filter_map(stated).collect();
    let defined: BTreeSet<String> = all.iter().cloned().collect();
    assert!(defined.len() > 50 && defined.len() == all.len(), "each number is given once");
    let mut cited = BTreeSet::new();
    for path in sources() {
        let text = read(&path);
        let comments: String =
            text.lines().filter(|l| l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
        for clause in clauses(&comments) {
            assert!(
                defined.contains(&clause),
                "{} cites {clause}, which is not in docs/protocol.md",
                shown(&path)
            );
            cited.insert(clause);
        }
    }
    let missing: Vec<_> = defined.difference(&cited).collect();
    assert!(missing.is_empty(), "no test cites {missing:?}");
}

/// Names of our metrics in a text, without what a histogram adds.
fn metrics(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("minium_").map(|(at, _)| &text[at..]);
    starts
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap())
        .map(|name| name.trim_end_matches("_bucket"))
        .collect()
}

#[test]
fn alerts_and_dashboards_know_the_metrics_and_each_alert_its_entry() {
    let (known, operations) = (document("metrics.md"), document("operations.md"));
    let rules = read(&checkout().join("deploy/prometheus/minium.rules.yml"));
    let dashboard = read(&checkout().join("deploy/grafana/minium.json"));
    let panels: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(panels["panels"].as_array().unwrap().len() > 10);
    for (text, count) in [(&rules, 10), (&dashboard, 15)] {
        let used = metrics(text);
        assert!(used.len() >= count, "{used:?}");
        for metric in used {
            assert!(known.contains(&format!("| `{metric}` |")), "{metric} is not in docs/metrics.md");
        }
    }
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(
            operations.contains(&format!("\n| `{alert}` | ")),
            "{alert} has no entry in docs/operations.md"
        );
    }
}

#[test]
fn each_error_code_has_its_section() {
    let errors = document("errors.md");
    for code in ErrorCode::ALL {
        let section = format!("\n## {code}\n\n{} ", code.status().as_u16());
        assert!(
            errors.contains(&section),
            "docs/errors.md has no section of {code} that begins with its status"
        );
        let part = errors.split(&section).nth(1).unwrap().split("\n## ").next().unwrap();
        let again = if code.retryable() { "Retry: yes" } else { "Retry: no" };
        assert!(part.contains(again), "docs/errors.md says otherwise whether {code} may be retried");
    }
    let sections = errors.lines().filter_map(|l| l.strip_prefix("## "));
    for section in sections {
        assert!(ErrorCode::ALL.iter().any(|c| c.as_str() == section), "there is no code {section}");
    }
}

#[test]
fn no_file_has_grown_beyond_its_subject() {
    let long: Vec<_> = sources()
        .iter()
        .map(|path| (read(path).lines().count(), shown(path)))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:?}");
}

#[test]
fn each_file_says_why_it_exists_and_each_crate_what_must_hold() {
    for path in sources() {
        let text = read(&path);
        assert!(text.starts_with("//! "), "{} has no head comment", shown(&path));
        let head = text.lines().take_while(|l| l.starts_with("//!")).count();
        let is_library = path.ends_with("src/lib.rs") && !path.starts_with(checkout().join("tests"));
        assert!(
            !is_library || head > 5 && text.contains("//! **Invariants"),
            "{} names no invariants",
            shown(&path)
        );
    }
}

#[test]
fn nothing_is_silenced_or_left_undone() {
    let mut found = Vec::new();
    // put together, so that this list does not find itself
    let marks =
        [["to", "do!("], ["unimple", "mented!("], ["#[ig", "nore"], ["FIX", "ME"], ["allow(dead", "_code"]];
    for path in sources() {
        for (number, line) in read(&path).lines().enumerate() {
            if let Some(mark) = marks.iter().map(|m| m.concat()).find(|m| line.contains(m.as_str())) {
                found.push(format!("{}:{}: {mark}", shown(&path), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_runs_detached_and_no_queue_is_without_bound() {
    let forbidden =
        ["tokio::spawn(", "unbounded_channel(", "mpsc::channel()", "flume::unbounded", "process::exit("];
    let mut found = Vec::new();
    for path in sources() {
        let inside = path.strip_prefix(checkout()).unwrap_or(&path);
        let is_test = path.ends_with("tests.rs") || inside.iter().any(|part| part == "tests");
        let text = read(&path);
        let product =
            if is_test { "" } else { text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default() };
        for (number, line) in product.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            if let Some(what) = forbidden.iter().find(|f| line.contains(**f)) {
                found.push(format!("{}:{}: {what}", shown(&path), number + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "tasks belong to a TaskTracker or JoinSet, queues have bounds:\n{}",
        found.join("\n")
    );
}

/// The guarantees name the tests that prove them; the tests must exist.
#[test]
fn each_guarantee_names_tests_that_exist() {
    let all: String = sources().iter().map(|path| read(path)).collect();
    let guarantees = document("guarantees.md");
    let rows: Vec<&str> =
        guarantees.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| promise")).collect();
    assert!(rows.len() >= 10, "docs/guarantees.md has a table of promises");
    for row in rows {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|n| n.contains("::")).collect();
        assert!(!names.is_empty(), "no test proves: {row}");
        for name in names {
            let function = name.rsplit("::").next().unwrap();
            assert!(all.contains(&format!("fn {function}(")), "there is no test {name}");
        }
    }
}

#[test]
fn each_document_is_in_the_index() {
    let index = document("README.md");
    let entries = std::fs::read_dir(checkout().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let missing: Vec<_> = names
        .filter(|name| name.ends_with(".md") && name != "README.md")
        .filter(|name| !index.contains(&format!("]({name})")))
        .collect();
    assert!(missing.is_empty(), "docs/README.md does not list {missing:?}");
}

/// As the headings of a document are addressed.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// Targets of links in a text, as `](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|to| !to.contains("://"))
}

/// Links of documents below `root` that lead nowhere.
pub(crate) fn dead_links(root: &Path, documents: &[String]) -> Vec<String> {
    let mut dead = Vec::new();
    for name in documents {
        let path = root.join(name);
        let text = read(&path);
        // what stands in a block is no link
        let prose: String = text.split("```").step_by(2).collect();
        for link in links(&prose) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let found = target.exists() && (anchor.is_empty() || anchors(&read(&target)).contains(anchor));
            if !found {
                dead.push(format!("{name}: {link}"));
            }
        }
    }
    dead
}

#[test]
fn each_link_of_a_document_leads_somewhere() {
    let dead = dead_links(&checkout(), &documents(&checkout()));
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}
