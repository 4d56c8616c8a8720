//! How much a command may use: each limit with a command that would use more, beside one without the limit.

use super::{enqueue, error, result, run, task};
use crate::support::node::{Node, Options, binary};
use crate::support::wait;
use rustix::process::getuid;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

/// K-4: memory, files, descriptors and processor time have their bounds, in children too.
#[tokio::test]
async fn a_command_that_uses_more_than_it_may_fails() {
    let dir = tempfile::tempdir().unwrap();
    let work = format!("work_dir = {:?}", dir.path());
    let memory = "perl -e 'my $x = \"x\" x (256 << 20); print length $x'; exit $?";
    let file = "head -c 2000000 /dev/zero > f; exit $?";
    let files = "perl -e 'for (1..100) { open my $f, \"<\", \"/dev/null\" or die \"no more: $!\"; push @f, $f } print 1'";
    let cases = [
        ("memory", memory, "memory = \"128MiB\"", "Out of memory"),
        ("file", file, "file_size = \"1MiB\"", "exited with code 153"),
        ("files", files, "open_files = 32", "Too many open files"),
    ];
    let mut config = task("cpu", "perl -e '1 while 1'; exit $?", "mode = \"basic\", cpu = \"1s\"");
    for (name, line, limit, _) in cases {
        config += &task(&format!("held/{name}"), line, &format!("mode = \"basic\", {work}, {limit}"));
        config += &task(&format!("free/{name}"), line, &format!("mode = \"basic\", {work}"));
    }
    let node = Node::start(Options::memory().config(&config)).await;
    // a signal of 24, XCPU, as the shell has it
    assert!(error(&run(&node, "cpu").await).starts_with("exited with code 152"));
    for (name, _, _, why) in cases {
        let held = run(&node, &format!("held/{name}")).await;
        assert!(error(&held).contains(why), "{held}");
        result(&run(&node, &format!("free/{name}")).await);
    }
}

/// K-4: what every sandbox has: no core dumps, no new privileges, files that are one's own.
#[tokio::test]
async fn every_sandbox_has_these() {
    let line = "ulimit -Hc; umask; grep NoNewPrivs /proc/self/status | cut -f2";
    let config = task("basic", line, "mode = \"basic\"")
        + &task("loose", line, "mode = \"basic\", new_privileges = true, umask = \"027\"");
    let node = Node::start(Options::memory().config(&config)).await;
    assert_eq!(*result(&run(&node, "basic").await), "0\n0077\n1");
    let loose = run(&node, "loose").await;
    assert_eq!(*result(&loose), "0\n0027\n0");
}

/// Threads of this user's, which a limit of processes counts.
fn threads_of(uid: u32) -> usize {
    let field = |status: &str, name: &str| -> Option<usize> {
        status.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let threads = |dir: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(dir.ok()?.path().join("status")).ok()?;
        (field(&status, "Uid:")? == uid as usize).then(|| field(&status, "Threads:"))?
    };
    std::fs::read_dir("/proc").unwrap().filter_map(threads).sum()
}

/// A fork bomb that says how far it came.
const BOMB: &str = "perl -e 'for $n (0..5000) { $pid = fork; if (!defined $pid) { print $n; exit } if (!$pid) { sleep 1000; exit } } print 5000'";

/// K-4: a fork bomb ends at the limit of processes, and all that it has made is gone after the run. The limit does not hold
/// root, so where this is root the worker is somebody else.
#[tokio::test]
async fn a_fork_bomb_is_bounded() {
    let node = Node::start(Options::memory().config("[channels.bomb]\ndurable = true\n")).await;
    let home = tempfile::Builder::new().prefix("minium-other-").tempdir().unwrap();
    let program = home.path().join("minium");
    let uid = if getuid().is_root() { 61_000 + fastrand::u32(..1_000) } else { getuid().as_raw() };
    let mut command = if getuid().is_root() {
        std::fs::copy(binary(), &program).unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (spool, id) = (home.path().join("spool"), uid.to_string());
        std::fs::create_dir(&spool).unwrap();
        std::os::unix::fs::chown(&spool, Some(uid), Some(uid)).unwrap();
        let mut command = tokio::process::Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&program);
        command
    } else {
        tokio::process::Command::new(binary())
    };
    let most = threads_of(uid) + 60;
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let _worker = command
        .args(["worker", "--url", &node.ws(""), "--shell", "--task", &format!("bomb={BOMB}")])
        .args(["--sandbox", "basic", "--sandbox", &format!("processes={most}"), "--spool"])
        .arg(home.path().join("spool"))
        .current_dir(home.path())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let id = node.post("/push/bomb", "[]").await.expect(200)["job"].as_i64().unwrap();
    let job = node.ended(id).await;
    let said = std::fs::read_to_string(home.path().join("log")).unwrap();
    assert_eq!(job["state"], "finished", "{job} {said}");
    let forked = job["result"].as_u64().unwrap();
    assert!(forked > 0 && forked <= most as u64, "{forked} of {most}");
    wait::until("its processes to be gone", async || (threads_of(uid) <= most - 10).then_some(())).await;
}

/// K-1, K-4: a limit that would hold nobody is refused.
#[tokio::test]
async fn a_limit_of_processes_is_refused_to_root() {
    let node = Node::start(Options::file()).await;
    let id = enqueue(&node, "x", json!([])).await;
    let mut command = node.tokio_command();
    command.args(["worker", "--task", "x=true", "--database", &node.database()]);
    command.args(["--sandbox", "basic", "--sandbox", "processes=10000"]).stderr(std::process::Stdio::piped());
    let worker = command.spawn().unwrap();
    if !getuid().is_root() {
        assert_eq!(node.ended(id).await["state"], "finished");
        return;
    }
    let output = wait::within("the worker to end", worker.wait_with_output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("does not hold root"), "{said}");
    assert_eq!(node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"], "inactive");
}
