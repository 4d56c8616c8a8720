//! A document as one session: what it says is typed into one shell, one block after the other, in a scratch directory.
//!
//! What differs from what a reader types, and nothing else does:
//! - port 3000 is the test's own, and 8080 is another one;
//! - every `postgres://…` URL, and the database of SQL blocks, is a fresh database of the test's;
//! - `cargo run` and `cargo build` build nothing: what they would build was built before, and is started;
//! - `$CHECKOUT` says where the examples are, to comments that copy some;
//! - `minium serve` and `minium dev` end the node that the page had before: both want the same port.

use super::page::{Block, Page, Step, matches};
use crate::clients::sdk::node_script;
use crate::support::node::{binary, checkout, free_port};
use crate::support::postgres::Database;
use crate::support::wait;
use minium_protocol::{CLIENT_OPS, read_client_frame};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A failing test shows so much of what was said at the end.
const SAID_SHOWN_BYTES: usize = 4 * 1024;

/// In place of cargo: what would be built is there.
const CARGO: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in
    build) exit 0 ;;
    --example) example=$2; shift ;;
    --) shift; break ;;
    esac
    shift
done
if [ -n "${example:-}" ]; then exec "TARGET/examples/$example" "$@"; fi
exec minium "$@"
"#;

/// Who applications connect as. In a URL they stay who they are, and everybody else is the owner of the database.
const ROLES: [&str; 2] = ["minion", "app"];

/// A command that goes on.
struct Background {
    block: Block,
    pid: u32,
    is_node: bool,
}

/// The shell that a document is typed into.
pub(super) struct Session {
    page: String,
    dir: TempDir,
    database: Database,
    port: u16,
    pages_port: u16,
    shell: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    backgrounds: Vec<Background>,
}

impl Session {
    /// A shell in a directory of its own; a page of an example has that example's files there.
    pub(super) async fn open(page: &str) -> Session {
        let dir = tempfile::Builder::new().prefix("minium-page-").tempdir().unwrap();
        for name in ["bin", "home", "blocks", "work", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let bin = dir.path().join("bin");
        std::os::unix::fs::symlink(binary(), bin.join("minium")).unwrap();
        let cargo = CARGO.replace("TARGET", &binary().parent().unwrap().display().to_string());
        std::fs::write(bin.join("cargo"), cargo).unwrap();
        std::fs::set_permissions(bin.join("cargo"), std::fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(example) = page.strip_suffix("README.md").filter(|p| p.starts_with("examples/")) {
            copy(&checkout().join(example), &dir.path().join("work"));
        }
        let database = Database::create().await;
        // of the whole cluster, and other tests want them at the same time
        for role in ROLES {
            let sql = format!(
                "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
                 grant create on schema public to {role}"
            );
            database.connect().await.batch_execute(&sql).await.unwrap();
        }
        let (port, pages_port) = (free_port(), free_port());
        let mut shell = shell(dir.path(), port);
        let stdin = shell.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(shell.stdout.take().expect("stdout is piped")).lines();
        let page = page.to_owned();
        let backgrounds = Vec::new();
        let mut session =
            Session { page, dir, database, port, pages_port, shell, stdin, answers, backgrounds };
        // what fails ends the shell, which says where
        session.say("set -eEuo pipefail; trap 'echo \"${BASH_SOURCE:-}:$LINENO: $BASH_COMMAND\" >&2' ERR; echo ok").await;
        session
    }

    /// Runs the whole page.
    pub(super) async fn follow(mut self, page: &Page) {
        for block in &page.blocks {
            self.step(block).await;
        }
        self.end().await;
    }

    async fn step(&mut self, block: &Block) {
        match &block.step {
            Step::NotRun(_) => {}
            Step::Run => self.run(block).await,
            Step::Background => self.start(block).await,
            Step::Sql => self.sql(block).await,
            Step::Config => self.config(block).await,
            Step::Json => self.json(block),
            Step::File(name) => {
                std::fs::write(self.dir.path().join("work").join(name), self.here(&block.text) + "\n")
                    .unwrap();
            }
            Step::PartOf(file) => self.part_of(block, file),
            Step::Page { url, text } => self.look(block, url, text).await,
        }
    }

    /// The text with the test's own ports and database.
    fn here(&self, text: &str) -> String {
        // by way of letters that are in no document: one number may contain the other
        let text =
            text.replace("hub:3000", "127.0.0.1:3000").replace(":3000", ":\u{1}").replace("8080", "\u{2}");
        let text =
            text.replace('\u{1}', &self.port.to_string()).replace('\u{2}', &self.pages_port.to_string());
        let mut here = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("postgres://") {
            here.push_str(&rest[..at]);
            rest = &rest[at..];
            let is_end = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | ')');
            let (url, behind) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            let role = ROLES.into_iter().find(|role| url.starts_with(&format!("postgres://{role}@")));
            here.push_str(&self.database_url(role));
            rest = behind;
        }
        here + rest
    }

    /// As one of the roles, or the owner. Without `&` and `?`, which mean something to a shell.
    fn database_url(&self, role: Option<&str>) -> String {
        let url = self.database.url().strip_prefix("postgres:///").expect("it is on a unix socket");
        let (name, rest) = url.split_once("?host=").expect("it names its directory");
        let (directory, user) = rest.split_once("&user=").expect("it names its user");
        format!("postgres://{}@{}/{name}", role.unwrap_or(user), directory.replace('/', "%2F"))
    }

    /// The block as a file whose lines have the numbers of the page's.
    fn file(&self, block: &Block, text: &str) -> PathBuf {
        let name = format!("{}.{}", self.page.replace('/', "-"), block.line);
        let path = self.dir.path().join("blocks").join(name);
        std::fs::write(&path, "\n".repeat(block.line - 1) + text + "\n").unwrap();
        path
    }

    /// Types a line and gives the answer, or fails the test when the shell has ended.
    async fn say(&mut self, line: &str) -> String {
        // whether it still reads is seen by its answer
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.ok();
        let what = format!("{}: {line}", self.page);
        match wait::within(&what, self.answers.next_line()).await.unwrap() {
            Some(answer) => answer,
            None => panic!("{}: it failed{}", self.page, self.said()),
        }
    }

    /// The last that anything has said.
    fn said(&self) -> String {
        let mut said = String::new();
        let entries = std::fs::read_dir(self.dir.path().join("blocks")).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.push(self.dir.path().join("shell.err"));
        paths.retain(|path| path.extension().is_some_and(|e| e == "out" || e == "err"));
        paths.sort_by_key(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok());
        for path in paths {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let from = text.floor_char_boundary(text.len().saturating_sub(SAID_SHOWN_BYTES));
            if !text.is_empty() {
                let name = path.file_name().unwrap_or_default().display().to_string();
                write!(said, "\n--- {name}\n{}", &text[from..]).unwrap();
            }
        }
        said
    }

    /// Runs a line of the shell for a block; what it says is compared with what the page shows.
    async fn command(&mut self, block: &Block, file: &Path, line: &str) {
        let at = file.display();
        self.say(&format!("{{ {line}; }} >{at}.out 2>{at}.err </dev/null; echo ok")).await;
        let said = std::fs::read(format!("{at}.out")).unwrap();
        let said = String::from_utf8_lossy(&said);
        if let Some(shown) = &block.prints {
            let shown = self.here(shown);
            assert!(
                matches(&shown, &said),
                "{}:{}: shown is\n{shown}\n--- and it says\n{said}{}",
                self.page,
                block.line,
                self.said()
            );
        }
    }

    async fn run(&mut self, block: &Block) {
        let file = self.file(block, &self.here(&block.text));
        self.command(block, &file, &format!(". {}", file.display())).await;
    }

    async fn sql(&mut self, block: &Block) {
        let file = self.file(block, &self.here(&block.text));
        let psql = format!("psql -Xq -v ON_ERROR_STOP=1 -f {} '{}'", file.display(), self.database_url(None));
        self.command(block, &file, &psql).await;
    }

    async fn config(&mut self, block: &Block) {
        let file = self.file(block, &self.here(&block.text));
        self.command(block, &file, &format!("minium config show --config {}", file.display())).await;
    }

    fn json(&self, block: &Block) {
        let place = format!("{}:{}", self.page, block.line);
        let values = serde_json::Deserializer::from_str(&block.text).into_iter::<serde_json::Value>();
        for value in values {
            let value = value.unwrap_or_else(|e| panic!("{place}: {e}"));
            let op = value["op"].as_str().unwrap_or_default();
            if CLIENT_OPS.contains(&op) {
                // `…` is no lease
                let text = value.to_string().replace('…', "00000000-0000-4000-8000-000000000000");
                assert!(read_client_frame(&text).is_ok(), "{place}: {:?}", read_client_frame(&text));
            }
        }
    }

    /// Indentation aside, the lines stand in the file one behind the other.
    fn part_of(&self, block: &Block, file: &str) {
        let whole = std::fs::read_to_string(checkout().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let lines = |text: &str| text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>().join("\n");
        assert!(
            lines(&whole).contains(&lines(&block.text)),
            "{}:{}: this is not in {file}",
            self.page,
            block.line
        );
    }

    async fn look(&self, block: &Block, url: &str, text: &str) {
        let url = self.here(url);
        let mut browser = node_script("page.mjs");
        browser.args([&url, text]).stdin(Stdio::null());
        let output = wait::within(&format!("{url} to show {text:?}"), browser.output()).await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:{}: {url}: {told}{}", self.page, block.line, self.said());
    }

    /// Starts a command that goes on. A node is waited for; another one takes its place.
    async fn start(&mut self, block: &Block) {
        let text = self.here(block.text.trim());
        assert_eq!(text.lines().count(), 1, "{}:{}: one command goes on", self.page, block.line);
        let is_node = ["minium serve", "minium dev", "-- dev"].iter().any(|word| text.contains(word));
        let before = self.backgrounds.iter().position(|b| b.is_node).filter(|_| is_node);
        if let Some(before) = before {
            let before = self.backgrounds.remove(before);
            self.finish(before).await;
        }
        let file = self.file(block, &format!("exec {text}"));
        let at = file.display();
        let pid = self.say(&format!("( . {at} ) >{at}.out 2>{at}.err </dev/null & echo $!")).await;
        let pid = pid.parse().unwrap_or_else(|e| panic!("{e}: {pid:?}"));
        self.backgrounds.push(Background { block: block.clone(), pid, is_node });
        if is_node {
            let ready = format!("http://127.0.0.1:{}/readyz", self.port);
            self.until(&format!("the node of {at}{}", block.text), pid, async || {
                reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        }
    }

    /// Waits for a condition while the process lives.
    async fn until(&self, what: &str, pid: u32, mut condition: impl AsyncFnMut() -> bool) {
        wait::until(what, async || {
            // looked at first: what it did before its end counts
            let lives = lives(pid);
            let holds = condition().await;
            assert!(holds || lives, "{}: {what}: it has ended{}", self.page, self.said());
            holds.then_some(())
        })
        .await;
    }

    /// Ends a command that went on, after it has said what the page shows.
    async fn finish(&mut self, background: Background) {
        let Background { block, pid, .. } = background;
        let place = format!("{}:{}", self.page, block.line);
        if let Some(shown) = block.prints.as_deref().map(|shown| self.here(shown)) {
            let said = self.dir.path().join("blocks").join(format!(
                "{}.{}.out",
                self.page.replace('/', "-"),
                block.line
            ));
            self.until(&format!("{place} to say\n{shown}"), pid, async || {
                matches(&shown, &String::from_utf8_lossy(&std::fs::read(&said).unwrap()))
            })
            .await;
        }
        let ask = format!(
            "if kill -TERM {pid} 2>/dev/null; then echo alive; else wait {pid} && echo 0 || echo $?; fi"
        );
        let ended = self.say(&ask).await;
        assert!(ended == "alive" || ended == "0", "{place}: it ended with {ended}{}", self.said());
        self.say(&format!("wait {pid} && echo 0 || echo $?")).await;
    }

    async fn end(&mut self) {
        // whoever came last needs what was there before
        while let Some(background) = self.backgrounds.pop() {
            self.finish(background).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // whatever the page has started is of the shell's group
        if let Some(pid) = self.shell.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

/// Whether the shell has not reaped it yet.
fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process has a number");
    test_kill_process(pid).is_ok()
}

/// Bash in the scratch directory, with Minium, PostgreSQL's programs and the tests' Python in its path.
fn shell(dir: &Path, port: u16) -> Child {
    let named = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: run ./scripts/test"));
    let python = PathBuf::from(named("MINIUM_TEST_PYTHON"));
    let path = format!(
        "{}:{}:{}:{}",
        dir.join("bin").display(),
        python.parent().expect("it is a program in a directory").display(),
        named("MINIUM_TEST_PG_BIN"),
        named("PATH")
    );
    let error = std::fs::File::create(dir.join("shell.err")).unwrap();
    Command::new("bash")
        .args(["--noprofile", "--norc", "-s"])
        .current_dir(dir.join("work"))
        .env_clear()
        .env("PATH", path)
        .env("HOME", dir.join("home"))
        .env("TMPDIR", dir.join("tmp"))
        .env("LANG", "C.UTF-8")
        .env("MINIUM_URL", format!("http://127.0.0.1:{port}"))
        .env("MINIUM_SERVER__LISTEN", format!("127.0.0.1:{port}"))
        // what crosses shards shall do so on every machine
        .env("MINIUM_SERVER__SHARDS", "2")
        .env("CHECKOUT", checkout())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(error)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// The files of a directory, and those below it.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
