//! What a command reaches behind a wall: files, ports, processes. And the environment, with a wall or without.

use super::{enqueue, error, machine_has, result, run, task};
use crate::support::node::{Node, Options};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// Files in reach and out of it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("minium-place-").tempdir().unwrap();
        for name in ["open", "out", "shut", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("open/data"), "data").unwrap();
        std::fs::write(dir.path().join("shut/secret"), "secret").unwrap();
        Place(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A wall with a gap for `open` and `out`.
    fn wall(&self, mode: &str) -> String {
        format!("mode = {mode:?}, read = [{:?}], write = [{:?}]", self.path("open"), self.path("out"))
    }

    /// Tries, in a child of the command, what may be done and what may not.
    fn trial(&self) -> String {
        let try_each = [
            ("read", "cat open/data", "data"),
            ("write", "echo x > out/new", ""),
            ("read a secret", "cat shut/secret", "secret"),
            ("list secrets", "ls shut", "secret"),
            ("write what is read", "echo x > open/new", ""),
            ("write elsewhere", "echo x > shut/new", ""),
            ("empty a secret", "truncate -s 0 shut/other", ""),
            ("move in", "mv shut/third out/", ""),
        ];
        let root = self.0.path().display();
        let each = |(what, line, _): &(&str, &str, &str)| {
            format!("if sh -c 'cd {root} && {line}' >/dev/null 2>&1; then echo '{what}'; fi; ")
        };
        try_each.iter().map(each).collect()
    }

    fn renew(&self) {
        for name in ["other", "third"] {
            std::fs::write(self.0.path().join("shut").join(name), "x").unwrap();
        }
    }
}

/// K-3: behind a wall what is named can be reached, and nothing else; not by children either. Where a wall cannot be had, there
/// is no run.
async fn wall_holds(mode: &str) {
    let place = Place::new();
    place.renew();
    let config =
        task("held", &place.trial(), &place.wall(mode)) + &task("free", &place.trial(), "mode = \"basic\"");
    if !machine_has(&Node::memory().await, mode).await {
        return refused(mode, &place).await;
    }
    let node = Node::start(Options::memory().config(&config)).await;
    assert_eq!(result(&run(&node, "held").await), "read\nwrite");
    assert_eq!(std::fs::read_to_string(place.path("out/new")).unwrap(), "x\n");
    let all = "read\nwrite\nread a secret\nlist secrets\nwrite what is read\nwrite elsewhere\nempty a secret\nmove in";
    assert_eq!(result(&run(&node, "free").await), all, "without the wall it can");
}

/// A worker that cannot have its wall runs nothing.
async fn refused(mode: &str, place: &Place) {
    let node = Node::start(Options::file()).await;
    let read = format!("read={}", place.path("open"));
    super::refusals::refused(&node, &mut node.tokio_command(), &[mode, &read]).await;
}

/// K-3
#[tokio::test]
async fn landlock_lets_through_what_is_named_and_nothing_else() {
    wall_holds("landlock").await;
}

/// K-3
#[tokio::test]
async fn bwrap_lets_through_what_is_named_and_nothing_else() {
    wall_holds("bwrap").await;
}

/// K-3: ports that are not named cannot be reached, and processes outside not be signalled.
#[tokio::test]
async fn landlock_keeps_ports_and_processes() {
    let node = Node::start(Options::memory()).await;
    if !machine_has(&node, "landlock").await {
        return;
    }
    let port = node.address().port();
    let call = "perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => shift) ? 1 : \"$!\"' ";
    let call = format!("{call} {port}");
    let bind = "perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\") ? 1 : \"$!\"'";
    let signal = "kill -0 $PPID 2>/dev/null && echo 1 || echo no";
    let other = Node::start(
        Options::memory().config(
            &[
                task("call/free", &call, "mode = \"landlock\""),
                task("call/named", &call, &format!("mode = \"landlock\", connect = [{port}]")),
                task("call/none", &call, "mode = \"landlock\", connect = []"),
                task("bind/free", bind, "mode = \"landlock\", connect = []"),
                task("bind/none", bind, "mode = \"landlock\", bind = []"),
                task("signal/free", signal, "mode = \"landlock\""),
                task("signal/none", signal, "mode = \"landlock\", alone = true"),
            ]
            .concat(),
        ),
    );
    let other = other.await;
    let expected = [
        ("call/free", json!(1)),
        ("call/named", json!(1)),
        ("call/none", json!("Permission denied")),
        ("bind/free", json!(1)),
        ("bind/none", json!("Permission denied")),
        ("signal/free", json!(1)),
        ("signal/none", json!("no")),
    ];
    for (name, result) in expected {
        assert_eq!(run(&other, name).await["result"], result, "{name}");
    }
}

/// K-3: behind `bwrap` there may be no network at all.
#[tokio::test]
async fn bwrap_takes_the_network_away() {
    let node = Node::start(Options::memory()).await;
    if !machine_has(&node, "bwrap").await {
        return;
    }
    let line = "perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => shift) ? 1 : 0'";
    let line = format!("{line} {}", node.address().port());
    let config =
        task("free", &line, "mode = \"bwrap\"") + &task("held", &line, "mode = \"bwrap\", network = false");
    let other = Node::start(Options::memory().config(&config)).await;
    assert_eq!(*result(&run(&other, "free").await), 1);
    assert_eq!(*result(&run(&other, "held").await), 0);
}

/// K-2: in a sandbox a command sees what is usual and what is named, without one all but our own.
#[tokio::test]
async fn a_secret_of_the_worker_is_not_seen() {
    let names = "env | cut -d= -f1 | sort";
    let config = task("free", names, "mode = \"off\"")
        + &task("held", names, "mode = \"basic\"")
        + &task("named", names, "mode = \"basic\", environment = [\"DISK*\"]");
    let env = [
        ("PGPASSWORD", "x"),
        ("DISK_1", "y"),
        ("MINIUM_TOKEN", "z"),
        ("MINIUM_URL", "http://h"),
        ("TZ", "UTC"),
    ];
    let env = env.map(|(name, value)| (name, value.to_owned())).into();
    let node = Node::start(Options { env, ..Options::memory().config(&config) }).await;
    let seen_by =
        |job: &Value| result(job).as_str().unwrap().lines().map(str::to_owned).collect::<Vec<String>>();
    let sees = async |task: &str| seen_by(&run(&node, task).await);
    let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
    let free = sees("free").await;
    assert!(has(&free, "PGPASSWORD") && has(&free, "DISK_1") && !has(&free, "MINIUM_TOKEN"), "{free:?}");
    assert!(has(&free, "MINIUM_URL"), "what it enqueues goes where the worker's user says: {free:?}");
    let parent = run(&node, "free").await["id"].clone();
    let of_a_parent = json!({ "task": "held", "parents": [parent] });
    let held = seen_by(&node.ended(node.enqueue(&of_a_parent).await).await);
    // what the shell sets by itself aside
    let own: Vec<&str> =
        held.iter().map(String::as_str).filter(|n| !["PWD", "SHLVL", "OLDPWD", "_"].contains(n)).collect();
    assert_eq!(
        own,
        ["HOME", "MINIUM_ATTEMPT", "MINIUM_JOB_ID", "MINIUM_PARENTS", "MINIUM_TASK", "PATH", "TZ"]
    );
    let named = sees("named").await;
    assert!(has(&named, "DISK_1") && !has(&named, "PGPASSWORD"), "{named:?}");
}

/// K-5: a run works in a directory of its own, which is gone after it, however it ended.
#[tokio::test]
async fn a_run_has_a_directory_of_its_own() {
    let place = Place::new();
    let work = place.path("work");
    let line = "ls -A && pwd && test \"$TMPDIR\" = \"$(pwd)\" && mkdir -p a/b && echo x > a/b/c && chmod 500 a && stat -c %a .";
    let own = |mode: &str| format!("mode = {mode:?}, work_dir = {work:?}");
    let mut config = task("plain", line, &own("basic")) + &task("bad", "touch x; exit 1", &own("basic"));
    let probe = Node::memory().await;
    let mut names = vec!["plain", "plain"];
    for mode in ["landlock", "bwrap"] {
        if machine_has(&probe, mode).await {
            config += &task(mode, line, &own(mode));
            names.push(mode);
        }
    }
    let node = Node::start(Options::memory().config(&config)).await;
    let mut seen: Vec<Value> = Vec::new();
    for name in names {
        let said = result(&run(&node, name).await).clone();
        let text = said.as_str().unwrap();
        assert!(
            text.starts_with(&format!("{work}/minium-run-")) && text.ends_with("\n700"),
            "{name}: {text}"
        );
        assert!(!seen.contains(&said), "{name}: a fresh one");
        seen.push(said);
    }
    assert_eq!(error(&run(&node, "bad").await), "exited with code 1");
    assert_eq!(std::fs::read_dir(Path::new(&work)).unwrap().count(), 0);
}

/// K-1: what cannot be had any more when a job comes fails its run, in words of its own.
#[tokio::test]
async fn a_run_that_cannot_have_its_sandbox_fails() {
    let place = Place::new();
    let node = Node::memory().await;
    if !machine_has(&node, "landlock").await {
        return;
    }
    let gone = place.path("work");
    let config = task("x", "echo it ran > ran", &format!("mode = \"landlock\", read = [{gone:?}]"));
    let node = Node::start(Options::memory().config(&config)).await;
    assert!(error(&run(&node, "x").await).starts_with("exited with code"), "it cannot write");
    std::fs::remove_dir(&gone).unwrap();
    let told = run(&node, "x").await;
    let expected = format!("sandbox_unavailable: cannot let {gone} through: No such file");
    assert!(error(&told).starts_with(&expected), "{told}");
    let id = enqueue(&node, "x", json!([])).await;
    assert_eq!(node.ended(id).await["state"], "failed");
}
