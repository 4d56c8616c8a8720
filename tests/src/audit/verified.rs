//! `minium audit verify` by the command line: what it says, and its exit status.

use super::{archive_of, audit, audit_fails, audit_ok, enqueue_idle, record_once, verdict};
use crate::support::node::Node;
use serde_json::Value;

/// A byte that was changed is named with its file and block; signatures and heads show what a chain alone cannot.
#[tokio::test]
async fn what_was_changed_is_named_and_heads_and_signatures_are_held_against_it() {
    let node = Node::memory().await;
    let dir = archive_of(&node);
    let pem = |name: &str| node.dir().join(name).display().to_string();
    let (key, public, other) = (pem("key.pem"), pem("public.pem"), pem("other.pem"));
    for name in [&key, &other] {
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", name]);
    }
    openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    enqueue_idle(&node, 3).await;
    record_once(&node, &["--sign", &key]).await;
    enqueue_idle(&node, 3).await;
    record_once(&node, &["--sign", &key]).await;
    let to = dir.to_str().unwrap();
    audit_fails(&node, &["record", "--once", "--to", to], 2).await;
    audit_fails(&node, &["record", "--once", "--to", to, "--sign", &other], 2).await;
    let (found, status) = verdict(&node, &["--key", &public]).await;
    assert_eq!(
        (status, &found["events"], found["blocks"].as_u64()),
        (Some(0), &Value::from(6), Some(2)),
        "{found}"
    );
    let words = audit_ok(&node, &["verify", to]).await;
    assert!(words.contains("as it was written") && words.contains("signed by"), "{words}");
    // the other half is no public key, and another's is not this one
    audit_fails(&node, &["verify", to, "--key", &key], 2).await;
    let others = pem("others.pem");
    openssl(&["pkey", "-in", &other, "-pubout", "-out", &others]);
    assert_eq!(verdict(&node, &["--key", &others]).await.1, Some(1));

    let head = found["head"].as_str().unwrap().to_owned();
    assert_eq!(verdict(&node, &["--head", &head]).await.1, Some(0));
    let segment = dir.join("000001.ndjson.zst");
    let whole = std::fs::read(&segment).unwrap();
    let mut changed = whole.clone();
    changed[100] ^= 1;
    std::fs::write(&segment, &changed).unwrap();
    let output = audit(&node, &["verify", to]).await;
    let words = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("FOUND      000001.ndjson.zst at byte 0: "), "{words}");
    // the last block taken away: only who kept its head sees that
    let second = second_block(&whole);
    std::fs::write(&segment, &whole[..second]).unwrap();
    assert_eq!(verdict(&node, &[]).await.1, Some(0));
    let (found, status) = verdict(&node, &["--head", &head]).await;
    assert_eq!(status, Some(1), "{found}");
    audit_fails(&node, &["verify", to, "--head", "abc"], 2).await;
    audit_fails(&node, &["verify", "/nowhere"], 3).await;
}

/// Where the second block begins: at the second frame that zstd does not skip.
fn second_block(bytes: &[u8]) -> usize {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    bytes.windows(4).enumerate().filter(|(_, four)| *four == magic).map(|(at, _)| at).nth(1).unwrap()
}

fn openssl(args: &[&str]) {
    let output = std::process::Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {output:?}");
}
