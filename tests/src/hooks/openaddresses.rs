//! `examples/openaddresses/` as it stands, against a server that stands in for GitHub and for those who have the data.

use super::push;
use crate::sinks::{done, registered};
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
/// Commits whose sources are held back like the night's data: one has them all right, the other not.
const GOOD: &str = "00000000000000000000000000000000000900d1";
const WRONG: &str = "000000000000000000000000000000000000bad1";
const ALAMEDA: &str = "sources/us/ca/alameda.json";
/// Its data is GeoJSON; that of all others is CSV.
const BERLIN: &str = "sources/de/berlin.json";
const BAD: &str = "sources/de/bad.json";
const CSV: &str = "\u{feff}LON,LAT,NUM,PRE,NAME,CITY\n\
                   -122.25,37.8,12,N,Main St,Oakland\n-122.26,37.81,14,,\"Ünter, den Linden\",\n\
                   ,,16,,Nowhere,\n200,37,18,,Off the map,\n-122.27,37.82,20,,Third,Oakland\n";

/// Below it, what commits are told.
const STATUSES: &str = "/repos/open/addresses/statuses/";

/// Two houses, one that is an area, and one without a number.
fn features() -> Value {
    let point = |lon: f64, lat: f64| json!({ "type": "Point", "coordinates": [lon, lat] });
    let area = json!({ "type": "Polygon", "coordinates": [[[13, 52], [13, 53], [14, 53], [13, 52]]] });
    let feature = |number: Value, street: &str, place: Value| json!({ "type": "Feature", "properties": { "NR": number, "STR": street, "PLZ": 10117 }, "geometry": place });
    let all = [
        feature(json!(7), "Unter den Linden", point(13.39, 52.517)),
        feature(json!(8.0), "Pariser Platz", point(13.378, 52.516)),
        feature(json!("9"), "Platz der Republik", area),
        feature(Value::Null, "Tiergarten", point(13.36, 52.51)),
    ];
    json!({ "type": "FeatureCollection", "features": all })
}

fn county(n: usize) -> String {
    format!("sources/us/xx/county-{n}.json")
}

/// Files of the repository: before the push the counties alone, and one file that is no source.
fn files(pushed: bool) -> Vec<String> {
    let pushed = [ALAMEDA, BERLIN, BAD].into_iter().filter(|_| pushed).map(str::to_owned);
    (0..COUNTIES).map(county).chain(pushed).chain(["README.md".to_owned()]).collect()
}

/// What a source file says; its data is here, too.
fn source(path: &str, base: &str) -> Value {
    let name = path.rsplit('/').next().unwrap().trim_end_matches(".json");
    let street = if path == BAD { json!("STREET") } else { json!(["PRE", "NAME"]) };
    let conform = if path == BERLIN {
        json!({ "format": "geojson", "number": "NR", "street": "STR", "postcode": "PLZ" })
    } else {
        json!({ "format": "csv", "number": "NUM", "street": street, "lon": "LON", "lat": "LAT", "city": "CITY" })
    };
    let data = format!("{base}/data/{name}.{}", conform["format"].as_str().unwrap());
    json!({ "schema": 2, "layers": { "addresses": [
        { "name": "county", "data": data, "protocol": "http", "conform": conform }
    ] } })
}

/// The world: the data of counties, and the sources of two commits, are held back until the gate is open.
async fn world(open: watch::Receiver<bool>) -> StandIn {
    StandIn::start(move |asked: Asked| {
        let mut open = open.clone();
        async move {
            let base = format!("http://{}", asked.header("host"));
            let held = ["/data/county-".to_owned(), format!("/raw/{GOOD}/"), format!("/raw/{WRONG}/")];
            if held.iter().any(|path| asked.path.starts_with(path)) {
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
            _ if asked.path.ends_with(".geojson") => {
                (200, vec![("ETag", tag.to_owned())], features().to_string().into_bytes())
            }
            _ => (200, vec![("ETag", tag.to_owned())], CSV.into()),
        };
    }
    if asked.path.starts_with(STATUSES) {
        return (201, vec![], b"{}".to_vec());
    }
    if asked.path == "/repos/open/addresses/git/trees/HEAD?recursive=1" {
        let tree: Vec<Value> =
            files(open).iter().map(|path| json!({ "path": path, "type": "blob" })).collect();
        return json(json!({ "sha": SHA, "tree": tree }));
    }
    let path = |sha: &&str| asked.path.strip_prefix(&format!("/raw/{sha}/"));
    let path = [SHA, GOOD, WRONG].iter().find_map(path).unwrap_or_default();
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
        ("MINIUM_SINKS__STATUSES__TOKEN", "a token".into()),
        ("MINIUM_SINKS__STATUSES__BASE_URL", world.url("")),
        ("MINIUM_SINKS__STATUSES__ALLOW_PRIVATE", "true".into()),
    ];
    let node = Node::start(options).await;
    // with its rights
    std::fs::copy(example.join("openaddresses.py"), node.dir().join("openaddresses.py")).unwrap();
    // from then on it follows what happens
    registered(&node, &["statuses"]).await;
    node
}

/// What a push says, as far as it matters.
fn payload(sha: &str, commits: &Value) -> Value {
    json!({
        "ref": "refs/heads/main", "after": sha, "repository": { "full_name": "open/addresses" }, "commits": commits
    })
}

/// All that commits were told so far: which, and what.
fn statuses(world: &StandIn) -> Vec<(String, Value)> {
    let told = |asked: Asked| {
        assert_eq!((asked.method.as_str(), asked.header("authorization")), ("POST", "Bearer a token"));
        (asked.path[STATUSES.len()..].to_owned(), serde_json::from_slice(&asked.body).unwrap())
    };
    world.asked(STATUSES).into_iter().map(told).collect()
}

/// The same of one commit, when it was told this, which is the last that it is told.
async fn status(world: &StandIn, sha: &str, state: &str) -> Value {
    wait::until(&format!("{sha} to be told {state}"), async || {
        let last = statuses(world).into_iter().rfind(|(commit, _)| commit == sha);
        last.map(|(_, told)| told).filter(|told| told["state"] == state)
    })
    .await
}

/// The runs that a job has enqueued, by their source.
async fn runs(node: &Node, origin: i64, state: &str) -> Vec<Value> {
    let path = format!("/api/v1/jobs?task=openaddresses/run&origin={origin}&state={state}&limit=100");
    node.get(&path).await.expect(200)["jobs"].as_array().unwrap().clone()
}

/// Enqueues the nightly job by hand, and gives its id when it has enqueued its runs, which are all for later.
async fn night(node: &Node, sources: usize) -> i64 {
    let answer = node.post_json("/api/v1/schedules/openaddresses-nightly/run", &json!({})).await.expect(201);
    let job = node.ended(answer["id"].as_i64().unwrap()).await;
    assert_eq!((&job["state"], &job["priority"]), (&json!("finished"), &json!(-100)), "{job}");
    assert_eq!(job["result"], json!({ "sources": sources }));
    let id = job["id"].as_i64().unwrap();
    let runs = runs(node, id, "inactive,active,finished,failed").await;
    assert_eq!(runs.len(), sources);
    assert!(runs.iter().all(|run| run["priority"] == -100), "{runs:?}");
    id
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
        { "added": [ALAMEDA, BERLIN, "README.md"], "modified": [], "removed": [] },
        { "added": [county(999)], "modified": [BAD], "removed": ["sources/us/old.json"] },
        { "added": [], "modified": [], "removed": [county(999)] }
    ]);
    let payload = payload(SHA, &commits);
    let answer = push(&node, "sources", "delivery-1", &payload).await.expect(202);
    let pushed = node.ended(answer["job"].as_i64().unwrap()).await;
    assert_eq!(pushed["result"], json!({ "sources": [ALAMEDA, BERLIN, BAD] }), "{pushed}");
    let id = pushed["id"].as_i64().unwrap();
    let urgent = all(&node, id, 3).await;
    // overtaken: nothing of the night has been done
    assert_eq!(runs(&node, first, "finished,failed").await.len(), 0);
    assert!(urgent.iter().all(|run| run["priority"] == 100), "{urgent:?}");
    let of = |source: &str| urgent.iter().find(|run| run["notes"]["source"] == source).unwrap();
    is_refused(&node, of(BAD));
    is_a_table(&node, of(ALAMEDA)).await;
    are_features(&node, of(BERLIN));

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
    let second = night(&node, COUNTIES + 3).await;
    for job in all(&node, second, COUNTIES + 3).await {
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

/// O-6: the commit of a push is told that it is pending, and what came of all its sources. No other commit is told anything.
#[tokio::test]
async fn the_commit_of_a_push_hears_how_its_sources_ended() {
    let (gate, open) = watch::channel(true);
    let world = world(open).await;
    let node = node(&world).await;
    // of what comes before a push in the journal all is told before it
    let night = night(&node, COUNTIES + 3).await;
    all(&node, night, COUNTIES + 3).await;
    gate.send_replace(false);
    for (sha, sources) in [(GOOD, vec![ALAMEDA, BERLIN]), (WRONG, vec![BERLIN, BAD])] {
        let commits = json!([{ "added": sources, "modified": [], "removed": [] }]);
        push(&node, "sources", sha, &payload(sha, &commits)).await.expect(202);
    }
    for sha in [GOOD, WRONG] {
        let told = status(&world, sha, "pending").await;
        assert_eq!(told, json!({ "state": "pending", "context": "addresses", "description": "waiting" }));
    }
    gate.send_replace(true);
    assert_eq!(status(&world, GOOD, "success").await["description"], "finished");
    let told = status(&world, WRONG, "failure").await;
    assert_eq!(told["description"], format!("{BAD}: the data has no column STREET"));
    // one for the beginning and one for the end of each push; until they have ended they may speak again
    let delivered = done(&node, 4).await;
    assert!(delivered.iter().all(|job| job["state"] == "finished"), "{delivered:?}");
    for (sha, expected) in [(GOOD, ["pending", "success"]), (WRONG, ["pending", "failure"])] {
        let of = |(commit, told): (String, Value)| {
            (commit == sha).then(|| told["state"].as_str().unwrap().to_owned())
        };
        let mut states: Vec<String> = statuses(&world).into_iter().filter_map(of).collect();
        states.dedup();
        assert_eq!(states, expected);
    }
    assert!(statuses(&world).iter().all(|(sha, _)| [GOOD, WRONG].contains(&sha.as_str())));
}

/// What a source file said that no data is as.
fn is_refused(node: &Node, bad: &Value) {
    assert_eq!((&bad["state"], &bad["attempt"]), (&json!("failed"), &json!(1)), "no other attempt: {bad}");
    assert_eq!(bad["error"], "the data has no column STREET");
    assert!(!node.dir().join("output/de/bad.ndjson").exists());
}

/// What a run wrote: its lines, and that its result is about them.
fn rows(node: &Node, run: &Value, place: &str, rejected: usize) -> Vec<Value> {
    let written = std::fs::read_to_string(node.dir().join("output").join(place)).unwrap();
    let rows: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let digest: String =
        digest(&SHA256, written.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(run["state"], "finished", "{run}");
    assert_eq!(run["result"], json!({ "addresses": rows.len(), "rejected": rejected, "sha256": digest }));
    rows
}

/// What became of a source with CSV.
async fn is_a_table(node: &Node, run: &Value) {
    let row = |number: &str, street: &str, city: &str, lon: f64, lat: f64| json!({ "number": number, "street": street, "unit": "", "city": city, "postcode": "", "lon": lon, "lat": lat });
    let expected = [
        row("12", "N Main St", "Oakland", -122.25, 37.8),
        row("14", "Ünter, den Linden", "", -122.26, 37.81),
        row("20", "Third", "Oakland", -122.27, 37.82),
    ];
    assert_eq!(rows(node, run, "us/ca/alameda.ndjson", 2), expected);
    let events = node.events(run["id"].as_i64().unwrap(), "task.finished").await;
    let kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"task.enqueue"));
    assert!(kinds.contains(&"task.progress"), "{kinds:?}");
}

/// What became of a source with GeoJSON.
fn are_features(node: &Node, run: &Value) {
    let row = |number: &str, street: &str, lon: f64, lat: f64| json!({ "number": number, "street": street, "unit": "", "city": "", "postcode": "10117", "lon": lon, "lat": lat });
    let expected = [row("7", "Unter den Linden", 13.39, 52.517), row("8", "Pariser Platz", 13.378, 52.516)];
    assert_eq!(rows(node, run, "de/berlin.ndjson", 2), expected);
}
