//! A sandbox that is asked for and cannot be had: nothing runs, and the worker says why.

use super::{enqueue, machine_has, output, result, run, task};
use crate::support::node::{Node, Options};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use tokio::process::Command;

/// Runs a worker on the node's database to its end: it must not get to its job.
pub(super) async fn refused(node: &Node, command: &mut Command, sandbox: &[&str]) -> String {
    let id = enqueue(node, "x", json!([])).await;
    command.args(["worker", "--task", "x=/bin/true", "--database", &node.database()]);
    for word in sandbox {
        command.args(["--sandbox", word]);
    }
    let output = output(command).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("sandbox_unavailable: "), "{sandbox:?}: {said}");
    assert_eq!(node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"], "inactive", "{sandbox:?}");
    said
}

/// K-1: programs, directories and paths that are not there.
#[tokio::test]
async fn what_is_not_there_is_told_at_the_start() {
    let node = Node::start(Options::file()).await;
    let bare = |path: &str| {
        let mut command = node.tokio_command();
        command.env("PATH", path);
        command
    };
    let said = refused(&node, &mut bare("/nowhere"), &["bwrap"]).await;
    assert!(said.contains("cannot run bwrap: No such file"), "{said}");
    let said = refused(&node, &mut bare("/nowhere"), &["basic", "scope_memory=1GiB"]).await;
    assert!(said.contains("systemd-run"), "{said}");
    let said = refused(&node, &mut node.tokio_command(), &["basic", "work_dir=/no/such/place"]).await;
    assert!(said.contains("/no/such/place"), "{said}");
    if machine_has(&node, "landlock").await {
        let said = refused(&node, &mut node.tokio_command(), &["landlock", "read=/no/such/place"]).await;
        assert!(said.contains("/no/such/place"), "{said}");
    }
}

/// K-1: a node whose commands cannot have their sandbox ends.
#[tokio::test]
async fn a_node_does_not_start_without_it() {
    let place = Node::memory().await;
    std::fs::write(place.dir().join("asks.toml"), task("x", "true", "mode = \"bwrap\"")).unwrap();
    let mut command = place.tokio_command();
    command.args([
        "serve",
        "--config",
        "asks.toml",
        "--database",
        "sqlite::memory:",
        "--listen",
        "127.0.0.1:0",
    ]);
    let output = output(command.env("PATH", "/nowhere")).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("sandbox_unavailable: cannot run bwrap"),
        "{said}"
    );
}

/// Becomes a program for which the kernel has no Landlock, as an older kernel has none: its system calls (444 to 446) give
/// ENOSYS.
const WITHOUT_LANDLOCK: &str = r#"
import ctypes, os, struct, sys
op = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
# the call's number; below 444 or above 446: allow; else ENOSYS
code = op(0x20, 0, 0, 0) + op(0x35, 0, 2, 444) + op(0x25, 1, 0, 446) + op(0x06, 0, 0, 0x50000 | 38) + op(0x06, 0, 0, 0x7fff0000)
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Prog(len(code) // 8, code)), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// K-1: on a kernel without Landlock nothing runs that is to be behind it.
#[tokio::test]
async fn without_landlock_nothing_runs() {
    let node = Node::start(Options::file()).await;
    let python = std::env::var_os("MINIUM_TEST_PYTHON").expect("run ./scripts/test");
    let without = || {
        let mut command = Command::new(&python);
        command.current_dir(node.dir()).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("XDG_STATE_HOME", node.dir().join("state")).env("HOME", node.dir());
        command.args(["-c", WITHOUT_LANDLOCK]).arg(crate::support::node::binary());
        command
    };
    let said = refused(&node, &mut without(), &["landlock"]).await;
    assert!(said.contains("files need version 3 of Landlock") && said.contains("has none"), "{said}");
    let doctor = output(without().arg("doctor")).await;
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("landlock: not in this kernel"), "{said}");
}

/// K-4: a scope of systemd's stands around the sandbox. This stands in for systemd-run, which needs a systemd that runs: like it,
/// it becomes what stands behind `--`.
const SCOPE: &str = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do case $1 in *=*) echo \"$1\" >> DIR/properties;; esac; shift; done; shift\nexec \"$@\"\n";

/// K-4
#[tokio::test]
async fn a_scope_stands_around_the_sandbox() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("systemd-run");
    std::fs::write(&program, SCOPE.replace("DIR", &dir.path().display().to_string())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let sandbox = "mode = \"basic\", scope_memory = \"64MiB\", scope_processes = 50";
    let config = task("x", "umask; echo $PPID", sandbox);
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let node = Node::start(Options { env: vec![("PATH", path)], ..Options::memory().config(&config) }).await;
    let job = run(&node, "x").await;
    assert_eq!(*result(&job), format!("0077\n{}", node.pid().as_raw_nonzero()));
    let properties = std::fs::read_to_string(dir.path().join("properties")).unwrap();
    assert!(properties.ends_with("MemoryMax=67108864\nMemorySwapMax=0\nTasksMax=50\n"), "{properties}");
    let id = enqueue(&node, "x", json!([])).await;
    assert_eq!(node.ended(id).await["state"], "finished");
}

/// K-1: the doctor says what is asked for and cannot be had.
#[tokio::test]
async fn the_doctor_looks_for_what_is_asked_for() {
    let node = Node::memory().await;
    std::fs::write(node.dir().join("asks.toml"), task("x", "true", "mode = \"bwrap\"")).unwrap();
    let doctor = async |path: &str| {
        let mut command = node.tokio_command();
        let output = output(
            command.args(["doctor", "--config", "asks.toml", "--listen", "127.0.0.1:0"]).env("PATH", path),
        )
        .await;
        String::from_utf8(output.stdout).unwrap()
    };
    let said = doctor("/nowhere").await;
    let line = said.lines().find(|line| line.contains("bwrap: ")).unwrap();
    assert!(line.starts_with("fail") && line.contains("cannot be run"), "{said}");
}
