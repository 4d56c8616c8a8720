//! The console in a real Chromium, on real nodes: each page, what people do with it, what happens while things break,
//! and who is offered what. The scripts are `tests/clients/console_*.mjs`; each says a line when a piece of it is done,
//! so that a deadline is one of a piece. Its pure parts are tested by Node's own runner.

use crate::clients::sdk::{Script, checked, node_script, node_tests};
use crate::support::node::{Node, Options, checkout};
use crate::support::wait;
use crate::trust::{Guarded, token};
use serde_json::{Value, json};

/// Something of everything that a page shows.
const CONFIG: &str = r#"
[channels.livesys]
durable = true
[schedules.nightly]
task = "echo"
cron = "0 3 1 1 *"
[tasks.echo]
command = ["cat"]
[tasks.fails]
command = ["sh", "-c", "echo 'line 17 has no serial' >&2; exit 3"]
[tasks.slow]
command = ["sh", "-c", "echo '::progress 40 half' >&2; echo '::log info first words' >&2; exec sleep 600"]
[tasks.judged]
command = ["cat"]
"#;

/// The arguments of `judged`, in the node's own directory of schemas.
const JUDGED: &str = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"Judged","type":"object",
"required":["serial"],"properties":{"serial":{"type":"string","minLength":3},"site":{"enum":["north","lab"]},
"rows":{"type":"integer"},"dry":{"type":"boolean"}}}"#;

/// Arguments that a form can hardly show: long names, lists, alternatives, patterns that are none.
const WIDE: &str = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["mode"],
"properties":{"a-name-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on":{"type":"string","description":"<b>not bold</b>"},
"mode":{"oneOf":[{"const":"fast"},{"const":"a-value-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on-and-on"}]},
"tags":{"type":"array","items":{"type":"string"}},"at":{"type":"string","format":"date-time"},
"disks":{"type":"array","items":{"$ref":"#/$defs/disk"}},"main":{"$ref":"#/$defs/disk"}},
"$defs":{"disk":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},"size":{"type":"integer","minimum":1}}}}}"##;

/// A node with these tasks.
async fn node(options: Options) -> Node {
    let node = Node::start(options.config(CONFIG)).await;
    let tasks = node.dir().join("schemas/tasks");
    std::fs::create_dir(&tasks).unwrap();
    std::fs::write(tasks.join("judged.json"), JUDGED).unwrap();
    std::fs::write(tasks.join("wide.json"), WIDE).unwrap();
    node.kill().await;
    node.restart().await;
    node
}

/// The next line of a script, when a piece is done.
async fn piece(script: &mut Script, what: &str) -> Value {
    wait::within(what, script.line()).await
}

/// Goes on to the end of a script.
async fn to_the_end(script: &mut Script, what: &str) {
    while piece(script, what).await["done"] != "end" {}
}

async fn all_pages(scheme: &str) {
    let node = node(Options::file()).await;
    let failed = node.post_json("/api/v1/jobs", &json!({ "task": "fails" })).await.expect(201);
    let family = json!([{ "task": "echo", "args": [1] }, { "task": "slow", "after": [0] }]);
    let ids = node.post_json("/api/v1/jobs", &family).await.expect(201);
    let slow = &ids["ids"][1];
    node.post_json("/api/v1/jobs", &json!({ "task": "echo", "parents": [slow] })).await.expect(201);
    node.post("/api/v1/queues/slow/pause", "").await.expect(200);
    node.post_json("/api/v1/locks/backup", &json!({ "for": "1h", "owner": "rack3" })).await.expect(201);
    for message in [
        json!({ "type": "status", "host": "rack-01", "state": "ready" }),
        json!({ "type": "command", "command": "burn-in", "id": "c1" }),
        json!({ "type": "status", "host": "rack-01", "state": "busy", "text": "pass 1", "answers": "c1" }),
    ] {
        node.post_json("/pub/livesys/rack-01", &message).await.expect(200);
    }
    wait::until("the failure and the run", async || {
        let state =
            async |id: &Value| node.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["state"].clone();
        (state(&failed["id"]).await == "failed" && state(slow).await == "active").then_some(())
    })
    .await;
    let mut script =
        Script::start(&mut node_script("console_pages.mjs"), &[&node.http(""), scheme, &slow.to_string()]);
    while piece(&mut script, "a page").await["page"] != "end" {}
}

/// H-12: each page, light: no error, nothing wider than the window from 390 to 1,920 px, nothing serious for axe-core.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_is_whole_in_the_light() {
    all_pages("light").await;
}

/// H-12: and dark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_is_whole_in_the_dark() {
    all_pages("dark").await;
}

/// H-12: what people do with it, and what shows by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_work_with_it() {
    let node = node(Options::file()).await;
    node.post("/api/v1/queues/slow/pause", "").await.expect(200);
    let status = json!({ "type": "status", "host": "rack-01", "state": "ready" });
    node.post_json("/pub/livesys/rack-01", &status).await.expect(200);
    let mut script = Script::start(&mut node_script("console_work.mjs"), &[&node.http("")]);
    to_the_end(&mut script, "a piece of work").await;
}

/// H-12, P-9: a journal of any length is walked, narrowed and saved; what a machine was told stands together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_walked() {
    let node = node(Options::file()).await;
    let mut script = Script::start(&mut node_script("console_audit.mjs"), &[&node.http("")]);
    to_the_end(&mut script, "a piece of the journal").await;
}

/// H-12: machines that take what they are told as work: the node of examples/livesys, and its own program as two of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_pull_are_shown() {
    let example = checkout().join("examples/livesys");
    let shipped = std::fs::read_to_string(example.join("minium.toml")).unwrap();
    let node = Node::start(Options::file().config(&shipped)).await;
    // as its page says: in its directory
    let image = |name: &str| {
        let spool = node.dir().join(format!("spool-{name}"));
        let mut command = node.tokio_command();
        command.current_dir(&example).args(["worker", "--url", &node.ws(""), "--spool"]).arg(spool);
        command.args(["--task", &format!("livesys/{name}=./command.sh")]);
        let log = node.log_file();
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    };
    let images = ["7", "8"].map(image);
    let mut script = Script::start(&mut node_script("console_livesys.mjs"), &[&node.http("")]);
    to_the_end(&mut script, "a machine that pulls").await;
    drop(images);
    node.assert_alive();
}

/// H-12: lists and a past that are longer than a page of the node's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_cut_in_silence() {
    let node = node(Options::memory()).await;
    let mut script = Script::start(&mut node_script("console_long.mjs"), &[&node.http("")]);
    to_the_end(&mut script, "a long list").await;
}

/// H-12: what is long, many or meant to do harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_bears_what_is_hostile() {
    let node = node(Options::file()).await;
    let mut script = Script::start(&mut node_script("console_hostile.mjs"), &[&node.http("")]);
    to_the_end(&mut script, "a hostile piece").await;
}

/// H-12: a node that is killed and comes back, garbage on the socket, nobody who looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_what_breaks() {
    let node = node(Options::file()).await;
    let mut script = Script::start(&mut node_script("console_cuts.mjs"), &[&node.http("")]);
    through_cuts(&mut script, &node).await;
    node.assert_alive();
}

/// Does what the script wants done to its node, to its end.
async fn through_cuts(script: &mut Script, node: &Node) {
    loop {
        let said = piece(script, "what breaks next").await;
        match said["want"].as_str() {
            Some("kill") => node.kill().await,
            Some("start") => node.restart().await,
            _ if said["done"] == "end" => break,
            _ => continue,
        }
        script.say(said["want"].as_str().unwrap()).await;
    }
}

/// H-12: a journal that is another one when the node comes back: what is on the screen is read anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_rows_are_read_anew() {
    let node = node(Options::memory()).await;
    let mut script = Script::start(&mut node_script("console_gaps.mjs"), &[&node.http("")]);
    through_cuts(&mut script, &node).await;
    node.assert_alive();
}

/// H-8: the dashboard that docs/clients.md shows does what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_is_a_few_lines() {
    let node = node(Options::file()).await;
    let mut script = Script::start(&mut node_script("console_dashboard.mjs"), &[&node.http("")]);
    through_cuts(&mut script, &node).await;
    node.assert_alive();
}

/// H-12, A-5: tokens are asked for, stand in no address, and show what they allow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_what_a_token_allows() {
    let guarded = Guarded::start("").await;
    let (reader, writer) = (token("jobs:read sub:task"), token("jobs:write sub:task"));
    let mut script = node_script("console_tokens.mjs");
    let mut script = Script::start(&mut script, &[&guarded.node.http(""), &reader, &writer, &token("admin")]);
    to_the_end(&mut script, "tokens").await;
}

/// H-12: the files come with a tag, a strict policy and the right type; what a browser has is not sent again.
#[tokio::test]
async fn its_files_are_served_with_care() {
    let node = Node::memory().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/console/app.js", "text/javascript"),
        ("/console/style.css", "text/css"),
        ("/console/mark.svg", "image/svg+xml"),
        ("/console/vendor/preact.js", "text/javascript"),
        ("/console/vendor/LICENSE-preact", "text/plain"),
    ] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").starts_with(kind), "{path}: {answer:?}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'self';"), "{path}");
        let tag = answer.header("etag").to_owned();
        let again = node.request(reqwest::Method::GET, path, &[("if-none-match", &tag)], "").await;
        assert_eq!((again.status, again.text()), (304, ""), "{path}");
        let other = node.request(reqwest::Method::GET, path, &[("if-none-match", "\"other\"")], "").await;
        assert_eq!((other.status, other.body), (200, answer.body), "{path}");
    }
    for path in [
        "/console/nothing.js",
        "/console/",
        "/console/vendor/README.md",
        "/console/..%2fbench%2fruns%2f2026-11-26-vm%2fbus-latency.svg",
    ] {
        node.get(path).await.problem(404, "not_found");
    }
    let page = node.get("/").await;
    let page = page.text();
    assert!(
        !page.contains("<script>") && !page.contains("style="),
        "nothing stands in the page itself: {page}"
    );
}

/// The parts that need no page, by Node's own runner.
#[tokio::test]
async fn its_pure_parts_are_right() {
    let output = wait::within("node --test", node_tests("console_parts.mjs").output()).await.unwrap();
    checked("console_parts.mjs", &output);
}

/// Everything that it is made of is linked from its own files: nothing is loaded from elsewhere, and each import is there.
#[test]
fn nothing_comes_from_elsewhere() {
    let mut open = vec![checkout().join("console")];
    let mut seen = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            if path.extension().is_none_or(|e| e != "js") {
                continue;
            }
            seen += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for import in text.split(" from \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                if text.lines().any(|l| l.trim_start().starts_with("//") && l.contains(import)) {
                    continue;
                }
                assert!(import.starts_with('.'), "{}: {import}", path.display());
                assert!(dir.join(import).exists(), "{}: {import}", path.display());
            }
            assert!(
                path.starts_with(checkout().join("console/vendor")) || text.starts_with("// @ts-check"),
                "{path:?}"
            );
        }
    }
    assert!(seen > 30, "{seen} files");
}
