//! RFC 6455 by Autobahn's cases, which no one here wrote: the package `kosoku` runs them against an echoing peer.

use crate::support::node::{Node, Options, checkout};
use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The largest message of a case has 16 MiB, and some come in many pieces.
const CONFIG: &str = "[server.limits]\nmessage_bytes = \"20MiB\"\n";

/// Far above the dozen seconds that all cases take.
const DEADLINE: Duration = Duration::from_secs(300);

/// So many cases there are in groups 1 to 10; fewer mean that the suite did not run.
const CASES: usize = 301;

/// And in groups 12 and 13, which are about compression.
const COMPRESSED: usize = 216;

/// What a case came to.
#[derive(Debug, Deserialize)]
struct Case {
    case: String,
    behavior: String,
    close: String,
    about: String,
    why: String,
}

impl Case {
    fn group(&self) -> u32 {
        self.case.split('.').next().and_then(|g| g.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }

    /// NON-STRICT is within the RFC: a frame that breaks it ends the session before the echo of the one before.
    fn passed(&self) -> bool {
        ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&&*self.behavior) && self.closed_well()
    }

    /// The extension was not agreed on, as it may be, and the session ended as it should.
    fn declined(&self) -> bool {
        self.behavior == "UNIMPLEMENTED" && self.closed_well()
    }

    fn closed_well(&self) -> bool {
        ["OK", "INFORMATIONAL"].contains(&&*self.close)
    }

    fn shown(&self) -> String {
        format!("{} ({}): {}, close {}: {}", self.case, self.about, self.behavior, self.close, self.why)
    }
}

async fn run(url: &str) -> Vec<Case> {
    let python = std::env::var("MINIUM_TEST_PYTHON")
        .unwrap_or_else(|_| panic!("MINIUM_TEST_PYTHON is not set: run ./scripts/test"));
    let mut command = Command::new(python);
    command.arg(checkout().join("tests/clients/autobahn.py")).arg(url);
    let output = command.stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output).await.expect("the cases end").unwrap();
    assert!(output.status.success(), "{}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// B-5, W-6, W-7, W-8, W-20: every case of Autobahn passes; those about compression find it declined, not broken.
#[tokio::test]
async fn every_case_passes() {
    let node = Node::start(Options::memory().config(CONFIG)).await;
    let cases = run(&node.ws("/bus/autobahn?echo=1")).await;
    let (compressed, plain): (Vec<_>, Vec<_>) = cases.into_iter().partition(|c| c.group() >= 12);
    let failed: Vec<_> = plain
        .iter()
        .filter(|c| !c.passed())
        .chain(compressed.iter().filter(|c| !c.declined()))
        .map(Case::shown)
        .collect();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    assert_eq!((plain.len(), compressed.len()), (CASES, COMPRESSED), "all cases were run");
    node.assert_well().await;
}
