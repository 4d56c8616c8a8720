//! `console/sdk.js` in Node and in Chromium: what it does, and that its types are in order.

use crate::support::node::{Node, Options, checkout};
use crate::support::wait;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Where `scripts/test` has put the packages of tests/clients/package.json.
fn packages() -> PathBuf {
    std::env::var_os("MINIUM_TEST_NODE_MODULES").expect("run ./scripts/test").into()
}

/// Node, with a WebSocket whatever its age.
pub(crate) fn node() -> Command {
    let mut command = Command::new("node");
    command.arg("--import").arg(checkout().join("tests/clients/sdk_websocket.mjs")).kill_on_drop(true);
    command.env("MINIUM_TEST_NODE_MODULES", packages());
    command
}

/// Node with a script of tests/clients.
pub(crate) fn node_script(name: &str) -> Command {
    let mut command = node();
    command.arg(checkout().join("tests/clients").join(name));
    command
}

/// A file of tests of tests/clients, by Node's own runner.
pub(crate) fn node_tests(name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg("--test").arg(checkout().join("tests/clients").join(name)).kill_on_drop(true);
    command
}

/// As [`node_script`], in a page of Chromium.
pub(crate) fn page_script(name: &str) -> Command {
    let mut command = node_script("browser.mjs");
    command.arg(name);
    command
}

/// A script that talks in lines.
pub(crate) struct Script {
    lines: Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
    _process: Child,
}

impl Script {
    pub(crate) fn start(command: &mut Command, args: &[&str]) -> Script {
        let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        Script { lines, stdin: process.stdin.take().expect("stdin is piped"), _process: process }
    }

    /// The next line, as JSON. Nothing is lost when this is dropped.
    pub(crate) async fn line(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().expect("the script goes on");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.stdin.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    }
}

pub(crate) fn checked(what: &str, output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
}

/// H-8: the node serves the file that the tests run.
#[tokio::test]
async fn the_node_serves_it() {
    let node = Node::memory().await;
    let served = node.get("/sdk.js").await;
    assert_eq!(served.status, 200);
    assert!(served.header("content-type").starts_with("text/javascript"), "{served:?}");
    assert_eq!(served.text(), std::fs::read_to_string(checkout().join("console/sdk.js")).unwrap());
}

/// P-2, P-3, P-4, B-3, B-5: everything that it can do, by a script that says what must come.
#[tokio::test]
async fn it_does_what_it_says() {
    let config = "[channels.kept]\ndurable = true\n[channels.import]\ndurable = true\n";
    let node = Node::start(Options::memory().config(config)).await;
    let mut tour = node_script("sdk_tour.mjs");
    let output = wait::within("the tour", tour.arg(node.http("")).output()).await.unwrap();
    checked("sdk_tour.mjs", &output);
}

/// The same, where dashboards live.
#[tokio::test]
async fn it_does_the_same_in_a_page() {
    let config = "[channels.kept]\ndurable = true\n[channels.import]\ndurable = true\n";
    let node = Node::start(Options::memory().config(config)).await;
    let mut tour = page_script("sdk_tour.mjs");
    let tour = tour.arg(node.http("")).stdin(Stdio::null());
    let output = wait::within("the tour", tour.output()).await.unwrap();
    checked("sdk_tour.mjs in Chromium", &output);
}

/// `tsc --checkJs` has nothing to say about it, nor about the console, which is made with it.
#[tokio::test]
async fn its_types_are_in_order() {
    let mut check = Command::new("node");
    check.arg(packages().join("typescript/bin/tsc"));
    check.args([
        "--noEmit",
        "--allowJs",
        "--checkJs",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "es2022",
    ]);
    check.args(["--moduleResolution", "bundler", "--lib", "es2023,dom,dom.iterable"]);
    check.args(["console/sdk.js", "console/app.js"].map(|file| checkout().join(file)));
    let output = wait::within("tsc", check.output()).await.unwrap();
    checked("tsc", &output);
}
