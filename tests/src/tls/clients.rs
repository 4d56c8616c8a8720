//! Our own clients over TLS: the commands, a worker, and what they say to a server that they may not trust.

use super::listener::{HOSTS, config, start, start_on};
use super::{Authority, text};
use crate::cli::Running;
use crate::support::node::{Node, Options, checkout};
use crate::support::wait;
use minium_client::TlsFault;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::process::Child;

const CHANNELS: &str = "[channels.kept]\ndurable = true\n[channels.import]\ndurable = true\n[channels.livesys]\ndurable = true\n";

/// Runs `minium …` with more of the environment.
async fn minium(node: &Node, args: &[&str], env: &[(&str, &str)]) -> Output {
    let what = format!("minium {}", args.join(" "));
    let mut command = node.tokio_command();
    command.args(args).envs(env.iter().copied());
    wait::within(&what, command.output()).await.unwrap()
}

/// Asserts success and gives stdout.
async fn ok(node: &Node, args: &[&str], env: &[(&str, &str)]) -> String {
    let output = minium(node, args, env).await;
    assert!(output.status.success(), "minium {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts the exit status, and that stderr is one line that begins with the fault's code.
async fn refused(node: &Node, args: &[&str], env: &[(&str, &str)], status: i32, fault: TlsFault) {
    let output = minium(node, args, env).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), &*output.stdout), (Some(status), &b""[..]), "minium {args:?}: {told}");
    assert!(told.contains(&format!("minium: {}: ", fault.code())), "minium {args:?}: {told}");
}

fn worker(node: &Node, args: &[&str]) -> Child {
    let log = node.log_file();
    let mut command = node.tokio_command();
    command.args(["worker", "--url", &node.ws(""), "--task", "livesys/7=cat"]).args(args);
    command.arg("--spool").arg(node.dir().join("spool"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// C-4, C-7, H-9: every command that asks a node does so over TLS, by POST and by WebSocket.
#[tokio::test]
async fn commands_and_a_worker_speak_tls() {
    let authority = Authority::new("ours");
    let node = start_on(Options::file(), &authority, CHANNELS, &[]).await;
    let ca = text(&authority.path("ca.pem"));
    let env = [("MINIUM_CA", ca.as_str())];
    let wss = node.ws("");

    let sub = ["sub", "kept", "--after", "earliest", "--topic", "-n", "3", "--url", &wss, "--ca", &ca];
    let mut reader = Running::start(&node, &sub);
    ok(&node, &["pub", "kept/a", "{\"n\":1}"], &env).await;
    let mut writer = Running::start(&node, &["pub", "kept/a", "-", "--ca", &ca]);
    writer.say("{\"n\":2}").await;
    for n in 1..=2 {
        assert_eq!(reader.line().await["data"], json!({ "n": n }));
    }
    // both come back over TLS
    node.kill().await;
    writer.say("{\"n\":3}").await;
    node.restart().await;
    writer.end_of_input();
    assert_eq!(reader.line().await["data"], json!({ "n": 3 }));
    assert_eq!((reader.ended().await, writer.ended().await), (0, 0));

    let mut puller = Running::start(&node, &["pull", "import", "--ack", "-n", "1", "--ca", &ca]);
    ok(&node, &["push", "import", "{\"n\":4}"], &env).await;
    assert_eq!((puller.line().await, puller.ended().await), (json!({ "n": 4 }), 0));

    let mut worker = worker(&node, &["--ca", &ca]);
    let result = ok(&node, &["job", "enqueue", "livesys/7", "[\"x\"]", "--wait=60s"], &env).await;
    assert_eq!(result.trim(), "[\"x\"]");
    let listed = ok(&node, &["job", "ls", "--task", "livesys/7", "--json"], &env).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["jobs"][0]["state"], "finished", "{listed}");
    let pid = Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(wait::within("the worker to end", worker.wait()).await.unwrap().success());

    // the system's authorities are where the system says that they are
    ok(&node, &["job", "ls"], &[("SSL_CERT_FILE", &ca)]).await;
}

/// C-2, C-7: who is not to be trusted is told of at once, by a code that stands in the documents, and nothing is sent.
#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_refused_by_every_command() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let node = start(&authority, CHANNELS, &[]).await;
    let (ca, wrong) = (text(&authority.path("ca.pem")), text(&other.path("ca.pem")));
    let commands: [&[&str]; 5] = [
        &["pub", "kept/a", "{}"],
        &["sub", "kept"],
        &["pull", "livesys/8"],
        &["job", "enqueue", "livesys/7"],
        &["worker", "--task", "livesys/7=cat", "--spool", "spool"],
    ];
    let (wss, http) = (node.ws(""), format!("http://{}", node.address()));
    for command in commands {
        let secure = [command, &["--url", &wss]].concat();
        refused(&node, &secure, &[("MINIUM_CA", &wrong)], 5, TlsFault::UnknownAuthority).await;
        let plain = [command, &["--url", &http]].concat();
        refused(&node, &plain, &[], 2, TlsFault::Wanted).await;
    }
    let mut lines = Running::start(&node, &["pub", "kept/a", "-", "--ca", &wrong]);
    lines.say("{}").await;
    assert_eq!(lines.ended().await, 5, "without waiting for the end of the lines");
    refused(&node, &["job", "ls"], &[("SSL_CERT_FILE", &wrong)], 5, TlsFault::UnknownAuthority).await;
    assert_eq!(ok(&node, &["sub", "kept", "--last", "9", "-n", "0", "--ca", &ca], &[]).await, "");

    let plain = Node::memory().await;
    let https = format!("https://{}", plain.address());
    for command in [&["job", "ls"][..], &["sub", "kept"]] {
        let args = [command, &["--url", &https, "--ca", &ca]].concat();
        refused(&plain, &args, &[], 2, TlsFault::NotSpoken).await;
    }
    let none = minium(&node, &["job", "ls", "--ca", "/no/such/file"], &[]).await;
    assert_eq!(none.status.code(), Some(2), "{none:?}");

    let security = std::fs::read_to_string(checkout().join("docs/security.md")).unwrap();
    for fault in TlsFault::ALL {
        let row = format!("| `{}` |", fault.code());
        assert!(security.contains(&row), "docs/security.md does not say what {fault} means");
    }
}

/// C-7: names, addresses and times of the certificate count.
#[tokio::test]
async fn certificates_for_others_and_of_the_past_are_refused() {
    let authority = Authority::new("ours");
    let ca = text(&authority.path("ca.pem"));
    let cases = [
        (authority.issue("node", &["localhost"]), TlsFault::WrongName),
        (authority.issue_until("node", HOSTS, 2020), TlsFault::Expired),
    ];
    for (certificate, fault) in cases {
        authority.put("node", certificate);
        let https = Some(vec!["--insecure".to_owned()]);
        let node = Node::start(Options { https, ..Options::memory().config(&config(&authority, "")) }).await;
        let with_ca = |args: &[&'static str]| [args, &["--ca"]].concat();
        for command in [&["job", "ls"][..], &["sub", "kept"], &["worker", "--task", "x=cat", "--spool", "s"]]
        {
            let mut args = with_ca(command);
            args.push(&ca);
            let wss = node.ws("");
            args.extend(["--url", &wss]);
            refused(&node, &args, &[], 5, fault).await;
        }
    }
}

/// A-10, C-7, H-11: a command shows a certificate where one is asked for, and may do what its name may.
#[tokio::test]
async fn commands_show_a_certificate_of_their_own() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    authority.write("image-7", &[]);
    other.write("image-7", &[]);
    let files = |a: &Authority| ["image-7.pem", "image-7.key"].map(|name| text(&a.path(name)));
    let ([certificate, key], [bad_certificate, bad_key]) = (files(&authority), files(&other));
    let ca = text(&authority.path("ca.pem"));
    let more = format!(
        "client_ca_file = {ca:?}\nclient_auth = \"required\"\n[auth.certificates.\"image-7\"]\n\
         scopes = [\"pub:rack/7\", \"sub:rack/7\"]\n"
    );
    let curl = ["--cert", &certificate, "--key", &key].map(str::to_owned);
    let node = start(&authority, &more, &curl).await;
    let env = [("MINIUM_CA", &*ca), ("MINIUM_CERT", &certificate), ("MINIUM_CERT_KEY", &key)];
    let shown = ["--ca", &ca, "--cert", &certificate, "--cert-key", &key];
    let mut reader = Running::start(&node, &[&["sub", "rack/7", "-n", "1"][..], &shown].concat());
    let heard = async {
        loop {
            ok(&node, &["pub", "rack/7", "{\"on\":true}"], &env).await;
            // until the reader is there
            if let Ok(line) = tokio::time::timeout(std::time::Duration::from_millis(200), reader.line()).await
            {
                return line;
            }
        }
    };
    assert_eq!(wait::within("the message", heard).await, json!({ "on": true }));
    let forbidden = minium(&node, &["pub", "rack/8", "{}"], &env).await;
    assert_eq!(forbidden.status.code(), Some(4), "{forbidden:?}");
    let ca_alone = [("MINIUM_CA", &*ca)];
    let bad = [("MINIUM_CA", &*ca), ("MINIUM_CERT", &bad_certificate), ("MINIUM_CERT_KEY", &bad_key)];
    for command in [&["pub", "rack/7", "{}"][..], &["sub", "rack/7"]] {
        refused(&node, command, &ca_alone, 4, TlsFault::Refused).await;
        refused(&node, command, &bad, 4, TlsFault::Refused).await;
    }
}
