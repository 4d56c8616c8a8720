//! `examples/openaddresses/` as it stands, against a server that stands in for GitHub and for those who have the data.

use super::push;
use crate::support::node::{Node, Options, checkout};
use crate::support::standin::{Asked, StandIn, Told};
use crate::support::wait;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Usual slots of the node's worker.
const SLOTS: usize = 2;
/// More than those.
const COUNTIES: usize = 4;
const SHA: &str = "4f2a5c1e8b7d6a90314c2e5f8a7b6c5d4e3f2a1b";
const ALAMEDA: &str = "sources/us/ca/alameda.json";
const BAD: &str = "sources/de/bad.json";
const CSV: &str = "\u{feff}LON,LAT,NUM,PRE,NAME,CITY\n\
                   -122.25,37.8,12,N,Main St,Oakland\n-122.26,37.81,14,,\"Ünter, den Linden\",\n\
                   ,,16,,Nowhere,\n200,37,18,,Off the map,\n-122.27,37.82,20,,Third,Oakland\n";

fn county(n: usize) -> String {
    format!("sources/us/xx/county-{n}.json")
}

/// Files of the repository: before the push the counties alone, and one file that is no source.
fn files(pushed: bool) -> Vec<String> {
    let pushed = [ALAMEDA, BAD].into_iter().filter(|_| pushed).map(str::to_owned);
    (0..COUNTIES).map(county).chain(pushed).chain(["README.md".to_owned()]).collect()
}

/// What a source file says; its data is here, too.
fn source(path: &str, base: &str) -> Value {
    let street = if path == BAD { json!("STREET") } else { json!(["PRE", "NAME"]) };
    let name = path.rsplit('/').next().unwrap().trim_end_matches(".json");
    json!({ "schema": 2, "layers": { "addresses": [{
        "name": "county", "data": format!("{base}/data/{name}.csv"), "protocol": "http",
        "conform": { "format": "csv", "number": "NUM", "street": street, "lon": "LON", "lat": "LAT", "city": "CITY" }
    }] } })
}

/// The world: the data of counties is held back until the gate is open.
async fn world(open: watch::Receiver<bool>) -> StandIn {
    StandIn::start(move |asked: Asked| {
        let mut open = open.clone();
        async move {
            let base = format!("http://{}", asked.header("host"));
            if asked.path.starts_with("/data/county-") {
                open.wait_for(|open| *open).await.unwrap();
            }
            let open = *open.borrow();
            told(&asked, &base, open)
        }
    })
    .await
}

/// What the world says. The tree has what was pushed once the gate is open.
fn told(asked: &Asked, base: &str, open: bool) -> Told {
    let json = |value: Value| (200, vec![], value.to_string().into_bytes());
    if asked.path.starts_with("/data/") {
        let tag = "\"one\"";
        return match asked.header("if-none-match") {
            has if has == tag => (304, vec![], vec![]),
            _ => (200, vec![("ETag", tag.to_owned())], CSV.into()),
        };
    }
    if asked.path == "/repos/open/addresses/git/trees/HEAD?recursive=1" {
        let tree: Vec<Value> =
            files(open).iter().map(|path| json!({ "path": path, "type": "blob" })).collect();
        return json(json!({ "sha": SHA, "tree": tree }));
    }
    let path = asked.path.strip_prefix(&format!("/raw/{SHA}/")).unwrap_or_default();
    match files(true).iter().any(|name| name == path) {
        true => json(source(path, base)),
        false => (404, vec![], vec![]),
    }
}

/// The node of the example, in a directory of its own.
async fn node(world: &StandIn) -> Node {
    let example = checkout().join("examples/openaddresses");
    let config = std::fs::read_to_string(example.join("minium.toml")).unwrap();
    // the night comes when the test says so, and not by the clock
    let config = config.replace("\"0 2 * * *\"", "\"0 2 29 2 *\"");
    // each slot is a process of Python's, and two that stand still are a full backlog, too
    let config = config.replace("\nconcurrency = 4\n", "\nconcurrency = 2\n");
    assert!(config.contains("29 2 *") && config.contains("concurrency = 2"));
    let mut options = Options::file().config(&config);
    options.env = vec![
        ("MINIUM_HOOKS__SOURCES__SECRETS", super::OLD.into()),
        ("OPENADDRESSES_REPOSITORY", "open/addresses".into()),
        ("OPENADDRESSES_RAW", world.url("/raw")),
        ("OPENADDRESSES_API", world.url("")),
    ];
    let node = Node::start(options).await;
    // with its rights
    std::fs::copy(example.join("openaddresses.py"), node.dir().join("openaddresses.py")).unwrap();
    node
}

/// The runs that a job has enqueued, by their source.
async fn runs(node: &Node, origin: i64, state: &str) -> Vec<Value> {
    let path = format!("/api/v1/jobs?task=openaddresses/run&origin={origin}&state={state}&limit=100");
    node.get(&path).await.expect(200)["jobs"].as_array().unwrap().clone()
}

/// Enqueues the nightly job by hand, and gives its id when it has enqueued its runs.
async fn night(node: &Node, sources: usize) -> i64 {
    let answer = node.post_json("/api/v1/schedules/openaddresses-nightly/run", &json!({})).await.expect(201);
    let job = node.ended(answer["id"].as_i64().unwrap()).await;
    assert_eq!((&job["state"], &job["priority"]), (&json!("finished"), &json!(-100)), "{job}");
    assert_eq!(job["result"], json!({ "sources": sources }));
    job["id"].as_i64().unwrap()
}

/// So many runs of a job when they are over.
async fn all(node: &Node, origin: i64, count: usize) -> Vec<Value> {
    wait::until("all runs to end", async || {
        let ended = runs(node, origin, "finished,failed").await;
        (ended.len() == count).then_some(ended)
    })
    .await
}

/// G-1, G-4, G-6: what is pushed is dealt with while a full backlog of the night stands still, once, and rightly.
#[tokio::test]
async fn a_pushed_source_runs_at_once_and_the_night_goes_on() {
    let (gate, open) = watch::channel(false);
    let world = world(open).await;
    let node = node(&world).await;
    let first = night(&node, COUNTIES).await;
    wait::until("all usual slots to be taken by the night", async || {
        (runs(&node, first, "active").await.len() == SLOTS).then_some(())
    })
    .await;

    let commits = json!([
        { "added": [ALAMEDA, "README.md"], "modified": [], "removed": [] },
        { "added": [county(999)], "modified": [BAD], "removed": ["sources/us/old.json"] },
        { "added": [], "modified": [], "removed": [county(999)] }
    ]);
    let payload = json!({
        "ref": "refs/heads/main", "after": SHA, "repository": { "full_name": "open/addresses" }, "commits": commits
    });
    let answer = push(&node, "sources", "delivery-1", &payload).await.expect(202);
    let pushed = node.ended(answer["job"].as_i64().unwrap()).await;
    assert_eq!(pushed["result"], json!({ "sources": [ALAMEDA, BAD] }), "{pushed}");
    let id = pushed["id"].as_i64().unwrap();
    let mut urgent = all(&node, id, 2).await;
    urgent.sort_by_key(|job| job["state"].to_string());
    // overtaken: nothing of the night has been done
    assert_eq!(runs(&node, first, "finished,failed").await.len(), 0);
    good_and_bad(&node, &urgent[0], &urgent[1]).await;

    let last = node.get(&format!("/api/v1/jobs?task=openaddresses/summary&origin={id}")).await.expect(200);
    let last = node.ended(last["jobs"][0]["id"].as_i64().unwrap()).await;
    assert_eq!((&last["state"], &last["notes"]["sha"]), (&json!("failed"), &json!(SHA)), "{last}");
    assert_eq!(last["error"], format!("{BAD}: the data has no column STREET"));

    let again = push(&node, "sources", "delivery-1", &payload).await.expect(202);
    assert_eq!((&again["job"], &again["status"]), (&json!(id), &json!("existing")));

    gate.send_replace(true);
    let ended = all(&node, first, COUNTIES).await;
    assert!(ended.iter().all(|job| job["state"] == "finished"), "{ended:?}");
    assert!(ended.iter().all(|job| job["result"].get("skipped").is_none()), "{ended:?}");
    // the next night finds nothing new, what was pushed among it
    let second = night(&node, COUNTIES + 2).await;
    for job in all(&node, second, COUNTIES + 2).await {
        if job["notes"]["source"] == BAD {
            assert_eq!(job["state"], "failed", "{job}");
        } else {
            assert_eq!(job["result"]["skipped"], "its data has not changed", "{job}");
        }
    }
    let fetched = world.asked("/data/county-3.csv");
    let tags: Vec<_> = fetched.iter().map(|asked| asked.header("if-none-match")).collect();
    assert_eq!(tags, ["", "\"one\""]);
}

/// What became of the two sources of the push.
async fn good_and_bad(node: &Node, bad: &Value, good: &Value) {
    assert_eq!((&bad["state"], &bad["attempt"]), (&json!("failed"), &json!(1)), "no other attempt: {bad}");
    assert_eq!(bad["error"], "the data has no column STREET");
    assert_eq!((&good["state"], &good["priority"]), (&json!("finished"), &json!(100)), "{good}");
    let written = std::fs::read_to_string(node.dir().join("output/us/ca/alameda.ndjson")).unwrap();
    let rows: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |number: &str, street: &str, city: &str, lon: f64, lat: f64| json!({ "number": number, "street": street, "unit": "", "city": city, "postcode": "", "lon": lon, "lat": lat });
    let expected = [
        row("12", "N Main St", "Oakland", -122.25, 37.8),
        row("14", "Ünter, den Linden", "", -122.26, 37.81),
        row("20", "Third", "Oakland", -122.27, 37.82),
    ];
    assert_eq!(rows, expected);
    let digest: String =
        digest(&SHA256, written.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(good["result"], json!({ "addresses": 3, "rejected": 2, "sha256": digest }));
    assert!(!node.dir().join("output/de/bad.ndjson").exists());
    let id = good["id"].as_i64().unwrap();
    let events = node.get(&format!("/api/v1/jobs/{id}/events")).await.expect(200);
    let kinds: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.first().zip(kinds.last()), Some((&"task.enqueue", &"task.finished")));
    assert!(kinds.contains(&"task.progress"), "{kinds:?}");
}
