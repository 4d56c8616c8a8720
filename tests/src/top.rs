//! `minium top` in a real terminal, before a real node; and without a terminal.

use crate::support::node::{Node, Options};
use crate::support::terminal::Terminal;
use crate::support::wait;
use crate::trust::{Guarded, token};
use rustix::process::{Signal, kill_process};
use rustix::termios::{InputModes, LocalModes, OutputModes, Termios};
use serde_json::{Value, json};
use std::process::Output;

/// A task that fails with what would clear the screen, change the title and turn the text red.
const HOSTILE: &str = "[tasks.\"hostile\"]\nshell = true\n\
                       command = [\"printf 'x\\\\033[2J\\\\033]0;owned\\\\007\\\\033[31my' >&2; exit 3\"]\n";

fn start(node: &Node, args: &[&str], columns: u16, rows: u16) -> Terminal {
    let mut command = node.command();
    command.args(["top", "--interval", "100ms"]).args(args);
    Terminal::start(&command, columns, rows)
}

/// What a program can change about a terminal and must give back.
fn modes(settings: &Termios) -> (InputModes, OutputModes, LocalModes) {
    (settings.input_modes, settings.output_modes, settings.local_modes)
}

/// It has left the other screen, shows the cursor, and the terminal is set as it was.
fn assert_given_back(terminal: &Terminal, before: &Termios) {
    let raw = terminal.raw();
    let last = |word: &str| raw.rfind(word).unwrap_or_else(|| panic!("{word:?} is not in {raw:?}"));
    assert!(last("\u{1b}[?1049l") > last("\u{1b}[?1049h"), "the other screen is left");
    assert!(last("\u{1b}[?25h") > last("\u{1b}[?25l"), "the cursor is seen again");
    assert_eq!(modes(&terminal.settings()), modes(before));
}

/// What happens is seen as it happens, in every pane; what others wrote does not reach the terminal; the end leaves no
/// trace.
#[tokio::test]
async fn it_shows_what_happens_and_gives_the_terminal_back() {
    let node = Node::start(Options::memory().config(HOSTILE)).await;
    let mut terminal = start(&node, &[], 100, 30);
    let before = terminal.settings();
    terminal.shows("Events, live").await;
    assert_ne!(modes(&terminal.settings()), modes(&before), "keys come one by one");
    let id = node.enqueue(&json!({ "task": "import", "args": [{ "rack": 7 }] })).await;
    let told = format!("#{id}");
    terminal
        .shows_that("the job's event", |screen| {
            [&told, "import", "enqueue"].iter().all(|word| screen.contains(*word))
        })
        .await;
    terminal.shows_that("one job is ready", |screen| screen.contains("ready            1")).await;

    let failed = node.enqueue(&json!({ "task": "hostile", "args": [] })).await;
    node.ended(failed).await;
    terminal.shows(&format!("#{failed}")).await;
    terminal.send("5");
    terminal
        .shows_that("failures", |screen| screen.contains("Failed jobs") && screen.contains("Chosen"))
        .await;
    terminal.shows("owned").await;
    assert!(!terminal.raw().contains("\u{1b}]"), "no title is set");
    assert_eq!(terminal.strange(), Vec::<String>::new());

    // filtered, in the pane of events
    terminal.send("6");
    terminal.shows(&format!("#{id}")).await;
    terminal.send("/host\r");
    terminal
        .shows_that("only what is filtered", |screen| {
            screen.contains("tasks with “host”") && !screen.contains(" import ")
        })
        .await;
    terminal.send("3");
    terminal.shows("done").await;

    terminal.resize(60, 20);
    terminal.shows("This terminal has 60 columns and 20 lines").await;
    terminal.resize(120, 40);
    terminal.shows("Sessions").await;
    terminal.send("1");
    terminal.shows("Throughput").await;

    terminal.send("q");
    assert!(terminal.ended().await.success());
    wait::until("all that it said", async || terminal.raw().contains("\u{1b}[?1049l").then_some(())).await;
    assert_given_back(&terminal, &before);
}

/// A node that goes away is told, with since when, and one that comes back is seen again by itself.
#[tokio::test]
async fn a_node_that_goes_away_is_told_and_comes_back() {
    let node = Node::start(Options::file()).await;
    let mut terminal = start(&node, &[], 80, 24);
    terminal.shows("Events, live").await;
    node.kill().await;
    terminal.shows("AWAY since").await;
    node.restart().await;
    terminal
        .shows_that("it is back", |screen| !screen.contains("AWAY") && screen.contains("Events, live"))
        .await;
    let id = node.enqueue(&json!({ "task": "import", "args": [] })).await;
    terminal.shows(&format!("#{id}")).await;
    // ctrl-c is a key here
    terminal.send("\u{3}");
    assert!(terminal.ended().await.success());
}

/// A signal ends it as a key does.
#[tokio::test]
async fn a_signal_gives_the_terminal_back() {
    let node = Node::memory().await;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = start(&node, &[], 80, 24);
        let before = terminal.settings();
        terminal.shows("Throughput").await;
        kill_process(terminal.pid(), signal).unwrap();
        assert!(terminal.ended().await.success(), "{signal:?}");
        wait::until("all that it said", async || terminal.raw().contains("\u{1b}[?1049l").then_some(()))
            .await;
        assert_given_back(&terminal, &before);
    }
}

/// No colour where none is wanted.
#[tokio::test]
async fn no_colour_where_none_is_wanted() {
    let node = Node::memory().await;
    let colours = async |variable: &str| {
        let mut command = node.command();
        command.args(["top"]).env("NO_COLOR", variable);
        let terminal = Terminal::start(&command, 80, 24);
        terminal.shows("Throughput").await;
        let raw = terminal.raw();
        ["\u{1b}[3", "\u{1b}[4", "\u{1b}[9"].iter().any(|begin| {
            raw.match_indices(begin).any(|(at, _)| {
                let sequence = raw[at..].split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |s| s.0);
                // 39 and 49 are the terminal's own
                raw[at + sequence.len()..].starts_with('m')
                    && !["\u{1b}[39", "\u{1b}[49", "\u{1b}[39;49"].contains(&sequence)
            })
        })
    };
    assert!(colours("").await, "there is colour otherwise");
    assert!(!colours("1").await);
}

async fn run(node: &Node, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = node.tokio_command();
    command.arg("top").args(args).envs(env.iter().copied());
    wait::within("minium top", command.output()).await.unwrap()
}

/// Without a terminal it is one look, for people or for programs.
#[tokio::test]
async fn without_a_terminal_it_is_one_look() {
    let node = Node::start(Options::memory().config(HOSTILE)).await;
    let failed = node.enqueue(&json!({ "task": "hostile", "args": [] })).await;
    node.ended(failed).await;
    node.enqueue(&json!({ "task": "import", "args": [], "queue": "slow" })).await;
    let output = run(&node, &[], &[]).await;
    assert!(output.status.success(), "{output:?}");
    let asked = "minium_http_requests_total{route=\"/api/v1/stats\",status=\"200\"}";
    assert!((node.metric(asked).await - 1.0).abs() < f64::EPSILON, "it asks for the figures once");
    let said = String::from_utf8(output.stdout).unwrap();
    for word in [": ready, ", "slow", "FAILED", "hostile", "owned"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let output = run(&node, &["--json"], &[]).await;
    let look: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&look["stats"]["failed"], &look["queues"][0]["name"]), (&json!(1), &json!("slow")), "{look}");
    assert_eq!((&look["down"], &look["missing"]), (&Value::Null, &json!({})), "{look}");
    // who cannot look is told before any screen is made
    let nowhere = run(&node, &["--url", "http://127.0.0.1:1"], &[]).await;
    assert_eq!(nowhere.status.code(), Some(5), "{nowhere:?}");
    assert_eq!(run(&node, &["--interval", "1ms"], &[]).await.status.code(), Some(2));
}

/// What a token may not see is missing, and said to be.
#[tokio::test]
async fn what_a_token_may_not_see_is_told() {
    let Guarded { node, .. } = &Guarded::start("").await;
    let none = run(node, &[], &[]).await;
    assert_eq!(none.status.code(), Some(4), "{none:?}");
    let wrong = run(node, &[], &[("MINIUM_TOKEN", &token("sub:task"))]).await;
    assert_eq!(wrong.status.code(), Some(4), "{wrong:?}");
    let mut command = node.command();
    command.args(["top", "--interval", "100ms"]).env("MINIUM_TOKEN", token("jobs:read"));
    let terminal = Terminal::start(&command, 100, 30);
    let told = ["events: forbidden", "no events come", "ready"];
    terminal.shows_that("why no events come", |screen| told.iter().all(|word| screen.contains(word))).await;
}
