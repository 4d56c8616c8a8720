//! `minium token`, and the clients' ways to bring a token.

use super::{Guarded, token};
use crate::support::node::Node;
use crate::support::wait;
use std::process::{Output, Stdio};
use tokio::io::AsyncBufReadExt;

/// Runs a command beside the node, with more of the environment.
fn run(node: &Node, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = node.command();
    command.args(args).envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

///
#[tokio::test]
async fn a_minted_token_is_taken_and_can_be_looked_at() {
    let guarded = Guarded::start("[auth]\naudience = \"minium\"\nissuer = \"me\"").await;
    let node = &guarded.node;
    let mint = [
        "token",
        "mint",
        "--key",
        "ops",
        "--subject",
        "alice",
        "--scope",
        "pub:a jobs:read",
        "--scope",
        "sub:b",
    ];
    let minted = run(node, &[], &mint);
    assert!(minted.status.success(), "{}", err(&minted));
    let minted = out(&minted).trim().to_owned();
    let file = node.dir().join("token");
    std::fs::write(&file, format!("{minted}\n")).unwrap();
    let file = file.display().to_string();

    let publish = ["pub", "a", "hello"];
    assert!(run(node, &[("MINIUM_TOKEN", &minted)], &publish).status.success());
    assert!(run(node, &[], &["pub", "a", "hello", "--token", &minted]).status.success());
    assert!(
        run(node, &[("MINIUM_TOKEN", "rubbish")], &["pub", "a", "hello", "--token-file", &file])
            .status
            .success()
    );
    assert!(run(node, &[("MINIUM_TOKEN", &minted)], &["job", "ls"]).status.success());
    let without = run(node, &[], &publish);
    assert_eq!(without.status.code(), Some(4), "{}", err(&without));
    assert!(
        err(&without).contains("unauthorized") && err(&without).contains("--token-file"),
        "{}",
        err(&without)
    );
    let lacking = run(node, &[("MINIUM_TOKEN", &minted)], &["job", "enqueue", "x"]);
    assert_eq!(lacking.status.code(), Some(4));
    assert!(err(&lacking).contains("jobs:write"), "{}", err(&lacking));

    // looked at without a node, by whoever has the configuration
    let look =
        run(node, &[("MINIUM_TOKEN", &minted), ("MINIUM_URL", "http://127.0.0.1:1")], &["token", "inspect"]);
    let text = out(&look);
    assert!(look.status.success(), "{}", err(&look));
    for line in [
        "verdict    valid",
        "key        ops",
        "subject    alice",
        "scopes     pub:a jobs:read sub:b",
        "audience   minium",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains(", in 59m") || text.contains(", in 60m") || text.contains(", in 1h"), "{text}");
    let foreign = run(node, &[], &["token", "inspect", &token("admin"), "--json"]);
    assert_eq!(foreign.status.code(), Some(4));
    let json: serde_json::Value = serde_json::from_str(&out(&foreign)).unwrap();
    assert_eq!(
        (&json["valid"], &json["key"], &json["claims"]["scope"]),
        (&false.into(), &"ops".into(), &"admin".into())
    );
    assert!(err(&foreign).contains("iss"), "{}", err(&foreign));
}

///
#[tokio::test]
async fn what_cannot_be_minted_says_why() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    std::fs::write(node.dir().join("short"), "short").unwrap();
    for (args, told) in [
        (&["--subject", "a", "--scope", "admin"][..], "--key"),
        (&["--key", "ops", "--scope", "admin"], "--subject"),
        (&["--key", "ops", "--subject", "a"], "--scope"),
        (&["--key", "ops", "--subject", "a", "--scope", "everything"], "is no scope"),
        (&["--key", "ops", "--subject", "a", "--scope", "admin", "--expires", "soon"], "is not a duration"),
        (&["--key", "nobody", "--subject", "a", "--scope", "admin"], "there are: ops"),
        (&["--secret-file", "short", "--subject", "a", "--scope", "admin"], "needs at least 32"),
        (&["--private-key", "short", "--subject", "a", "--scope", "admin"], "no private key in PEM"),
        (&["--private-key", "nowhere", "--subject", "a", "--scope", "admin"], "cannot be read"),
    ] {
        let output = run(node, &[], &[&["token", "mint"][..], args].concat());
        assert_eq!(
            (output.status.code(), out(&output).as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            err(&output)
        );
        assert!(err(&output).contains(told), "{args:?}: {}", err(&output));
    }
}

/// the configuration is shown without what must not be seen.
#[tokio::test]
async fn config_show_names_the_files_of_secrets_and_not_what_is_in_them() {
    let guarded = Guarded::start("[auth.anonymous]\nscopes = [\"sub:public\"]").await;
    let shown = run(&guarded.node, &[], &["config", "show", "--config", "minium.toml"]);
    assert!(shown.status.success(), "{}", err(&shown));
    let text = out(&shown);
    assert!(
        text.contains("[auth.keys.ops]") && text.contains("ops.key") && text.contains("sub:public"),
        "{text}"
    );
    assert!(!text.contains(super::SECRET));
}

///
#[tokio::test]
async fn a_node_on_all_addresses_wants_to_know_who_asks() {
    let guarded = Guarded::start("").await;
    let node = &guarded.node;
    let open = run(
        node,
        &[],
        &["serve", "--config", "/dev/null", "--listen", "0.0.0.0:0", "--database", "sqlite::memory:"],
    );
    assert_eq!(open.status.code(), Some(2));
    assert!(
        err(&open).contains("[auth.keys]") && err(&open).contains("--insecure-no-auth"),
        "{}",
        err(&open)
    );
    let both = run(
        node,
        &[],
        &["serve", "--config", "minium.toml", "--insecure-no-auth", "--database", "sqlite::memory:"],
    );
    assert_eq!(both.status.code(), Some(2));
    assert!(err(&both).contains("take away one of them"), "{}", err(&both));

    // with keys it may listen anywhere; it says so in its first line, and is ended by the test
    let mut child = node.tokio_command();
    child.args([
        "serve",
        "--config",
        "minium.toml",
        "--listen",
        "0.0.0.0:0",
        "--database",
        "sqlite::memory:",
    ]);
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let mut warned = 0;
    let listening = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it goes on");
            warned += line.matches("WARN Tokens go over plain HTTP on 0.0.0.0:0: use [server.tls]").count();
            if let Some(url) = line.strip_prefix("listening on ") {
                return url.to_owned();
            }
        }
    };
    let url = wait::within("the node to listen", listening).await;
    assert_eq!(warned, 1, "it says that tokens can be read on their way");
    assert_eq!(reqwest::get(format!("{url}/healthz")).await.unwrap().status(), 200);
    assert_eq!(reqwest::get(format!("{url}/api/v1/jobs")).await.unwrap().status(), 401);
}
