//! The roles of deploy/postgres/roles.sql: with each of them everything that it is for, and nothing that it is not for; and the
//! doctor, which names every grant that is missing, and what mends it.
//!
//! Roles belong to a cluster, so each test has one of its own.

use super::database;
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions, connect};
use crate::support::wait;
use minium_queue::postgres::{DatabaseRole, PgOptions, PgStore, ROLES_SQL};
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A database whose schema belongs to `owner`, who is nobody special, and somebody in each role.
struct Roles {
    cluster: Cluster,
    /// A superuser's.
    admin: Client,
}

impl Roles {
    async fn start() -> Roles {
        let cluster = Cluster::start(ClusterOptions::default()).await;
        let admin = connect(&cluster.create_database("jobs").await).await.unwrap();
        let setup = "create role owner login; create schema minium authorization owner;
                     create role worker login; create role enqueuer login; create role reader login;
                     create role nobody login";
        admin.batch_execute(setup).await.unwrap();
        Roles { cluster, admin }
    }

    /// Where the database is for somebody.
    fn url(&self, user: &str) -> String {
        self.cluster.url("jobs").replace("user=minium", &format!("user={user}"))
    }

    /// A node of the owner's, which makes the schema; then the roles, twice, as after an upgrade.
    async fn node(&self, config: &str) -> Node {
        let node = Node::start(Options::on(&self.url("owner")).config(config)).await;
        let owner = connect(&self.url("owner")).await.unwrap();
        self.admin.batch_execute(ROLES_SQL).await.unwrap();
        self.admin.batch_execute(ROLES_SQL).await.unwrap();
        drop(owner);
        let grants =
            "grant minium_worker to worker; grant minium_enqueuer to enqueuer; grant minium_reader to reader";
        self.admin.batch_execute(grants).await.unwrap();
        node
    }

    /// What somebody is refused.
    async fn refused(&self, user: &str, statements: &[&str]) {
        let client = connect(&self.url(user)).await.unwrap();
        for statement in statements {
            let error = client.batch_execute(statement).await.err();
            let code = error.as_ref().and_then(|error| error.code()).cloned();
            assert_eq!(code, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{user}: {statement}: {error:?}");
        }
    }
}

/// Whoever is in a role has what the doctor looks for; whoever is in none lacks it, and each missing grant is told with the
/// statement that mends it, and mended by that.
#[tokio::test]
async fn the_doctor_names_each_missing_grant_and_its_remedy_mends_it() {
    let roles = Roles::start().await;
    let node = roles.node("").await;
    for role in ["worker", "enqueuer", "reader"] {
        let found = database(&node, &roles.url(role), role).await;
        found.is_well();
        found.has("ok database.permissions: ", &[role]);
        let found = database(&node, &roles.url("nobody"), role).await;
        assert_eq!(found.code, Some(1), "{:#?}", found.lines);
        found.has(
            "fail database.permissions: ",
            &["nobody lacks usage on the schema minium", "→ grant usage"],
        );
    }
    let owner = database(&node, &roles.url("owner"), "node").await;
    owner.is_well();
    assert!(owner.with("warn database.superuser").is_empty(), "{:#?}", owner.lines);
    let worker = database(&node, &roles.url("worker"), "node").await;
    worker.has("fail database.permissions: ", &["worker does not own the schema minium", "log in as owner"]);

    // from nothing to all by the remedies alone
    for (role, wanted) in [
        ("worker", DatabaseRole::Worker),
        ("enqueuer", DatabaseRole::Enqueuer),
        ("reader", DatabaseRole::Reader),
    ] {
        let name = format!("bare_{role}");
        roles.admin.batch_execute(&format!("create role {name} login")).await.unwrap();
        let store =
            PgStore::open(&roles.url(&name), PgOptions { listen: false, ..PgOptions::default() }).unwrap();
        let missing = store.missing_grants(wanted).await.unwrap();
        assert!(missing.len() > 1, "{missing:?}");
        for (mended, grant) in missing.iter().enumerate() {
            let left = store.missing_grants(wanted).await.unwrap();
            assert_eq!(left, missing[mended..], "{role}: one is mended after the other");
            roles
                .admin
                .batch_execute(&grant.remedy)
                .await
                .unwrap_or_else(|e| panic!("{}: {e}", grant.remedy));
        }
        assert_eq!(store.missing_grants(wanted).await.unwrap(), []);
    }
    // one grant less
    roles.admin.batch_execute("revoke insert on minium.entry from minium_worker").await.unwrap();
    let found = database(&node, &roles.url("worker"), "worker").await;
    assert_eq!(
        found.with("fail "),
        [
            "fail database.permissions: worker lacks insert on minium.entry → grant insert on minium.entry to worker;"
        ]
    );
}

const TASKS: [&str; 4] = [
    "good=sh -c 'echo ::step one >&2; echo ::progress 50 half >&2; echo ::note a=1 >&2; echo 7'",
    "bad=sh -c 'echo no >&2; exit 1'",
    "slow=sleep 1000",
    "counted=true",
];

/// A worker under the worker's role does all that a worker does: a whole life of jobs of every kind, under limits, with
/// logs, parents, handlers, retries, commands, and the upkeep that workers see to.
#[tokio::test]
async fn a_worker_in_its_role_does_all_that_a_worker_does() {
    let roles = Roles::start().await;
    let config = "[limits.counted]\nrunning = 1\n";
    let node = roles.node(config).await;
    let spool = node.dir().join("spool");
    let log = node.dir().join("worker.log");
    let mut command = node.tokio_command();
    command
        .args(["worker", "--database", &roles.url("worker"), "-j", "4", "--spare", "1", "--spool"])
        .arg(&spool);
    command.args(TASKS.iter().flat_map(|task| ["--task", task]));
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut worker = command.spawn().unwrap();

    let parent = node.enqueue(&json!({ "task": "good", "args": [1], "key": "once" })).await;
    let child = node.enqueue(&json!({ "task": "good", "args": [2], "parents": [parent] })).await;
    let failing = node.enqueue(&json!({ "task": "bad", "args": [], "attempts": 2, "backoff": 0.01 })).await;
    let handler =
        node.enqueue(&json!({ "task": "good", "args": [], "parents": [failing], "when": "failure" })).await;
    let delayed = node.enqueue(&json!({ "task": "good", "args": [], "delay": 0.1, "priority": 9 })).await;
    let counted = [0, 1, 2].map(|n| json!({ "task": "counted", "args": [n] }));
    let counted = node.post_json("/api/v1/jobs", &json!(counted)).await.expect(201)["ids"].clone();
    let slow = node.enqueue(&json!({ "task": "slow", "args": [] })).await;
    for id in [parent, child, handler, delayed] {
        assert_eq!(node.ended(id).await["state"], "finished");
    }
    for id in counted.as_array().unwrap() {
        assert_eq!(node.ended(id.as_i64().unwrap()).await["state"], "finished");
    }
    let failed = node.ended(failing).await;
    assert_eq!((&failed["state"], &failed["attempt"]), (&json!("failed"), &json!(2)), "{failed}");
    let done = node.job(parent).await;
    assert_eq!((&done["result"], &done["notes"]["a"]), (&json!(7), &json!(1)), "{done}");
    let lines = node.get(&format!("/api/v1/jobs/{parent}/log")).await.expect(200);
    assert!(lines.to_string().contains("one"), "{lines}");
    wait::until("the slow one to run", async || (node.job(slow).await["state"] == "active").then_some(()))
        .await;
    node.post_json(&format!("/api/v1/jobs/{slow}/cancel"), &json!({})).await;
    assert_eq!(node.ended(slow).await["state"], "cancelled");
    // what a node does not do for it: the worker alone looks after the queue now
    let id = worker_id(&node).await;
    let pause = node
        .post_json(&format!("/api/v1/workers/{id}/command"), &json!({ "command": "pause", "args": [] }))
        .await;
    assert!(pause.status < 300, "{pause:?}");
    wait::until("the worker to pause", async || (the_worker(&node).await["paused"] == true).then_some(()))
        .await;
    let resume = json!({ "command": "resume", "args": [] });
    node.post_json(&format!("/api/v1/workers/{id}/command"), &resume).await;
    node.kill().await;
    tend(&roles).await;
    let later = "select minium.enqueue('good', '[]')";
    let later: i64 = roles.admin.query_one(later, &[]).await.unwrap().get(0);
    wait::until("work to go on without a node", async || {
        let state = "select state::text from minium.job where id = $1";
        let state: String = roles.admin.query_one(state, &[&later]).await.unwrap().get(0);
        (state == "finished").then_some(())
    })
    .await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(wait::within("the worker to end", worker.wait()).await.unwrap().success());
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!said.contains("denied") && !said.contains("42501"), "{said}");
    let listed = "select count(*) from minium.worker where kind = 'worker'";
    let left: i64 = roles.admin.query_one(listed, &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "it took its name off the list");
}

async fn the_worker(node: &Node) -> Value {
    let workers = node.get("/api/v1/workers").await.expect(200);
    let list = workers["workers"].as_array().unwrap();
    list.iter().find(|worker| worker["tasks"].to_string().contains("counted")).cloned().unwrap_or_default()
}

async fn worker_id(node: &Node) -> i64 {
    wait::until("the worker to be listed", async || the_worker(node).await["id"].as_i64()).await
}

/// Every step of the upkeep has something to do, and the worker's role may do it.
async fn tend(roles: &Roles) {
    use minium_queue::{Locks, Retention, Store, UpkeepRules};
    let url = roles.url("worker");
    let store = PgStore::open(&url, PgOptions { listen: false, ..PgOptions::default() }).unwrap();
    let broken = "select minium.enqueue('never', '[]', '{\"expire\":0.000001}');
                  select minium.enqueue('held', '[]', '{\"delay\":0.000001}');
                  insert into minium.lock (name, token, owner, limit_n, taken, until)
                    values ('gone', gen_random_uuid(), 'x', 1, now(), now() - interval '1 day');
                  update minium.worker set heartbeat = now() - interval '1 day' where kind <> 'worker'";
    roles.admin.batch_execute(broken).await.unwrap();
    let rules = UpkeepRules { keep: Retention::for_ever(), ..UpkeepRules::default() };
    store.upkeep(&rules).await.unwrap();
    let lease = std::time::Duration::from_secs(30);
    let held = store.lock("mine", "me", lease, 1).await.unwrap().unwrap();
    assert!(store.extend_lock("mine", held.token, lease).await.unwrap().is_some());
    assert!(store.unlock("mine", held.token).await.unwrap());
}

/// What each role is not for.
#[tokio::test]
async fn roles_may_not_do_what_they_are_not_for() {
    let roles = Roles::start().await;
    let node = roles.node("").await;
    node.enqueue(&json!({ "task": "import", "args": [1] })).await;
    const SCHEMA: [&str; 6] = [
        "drop table minium.job",
        "alter table minium.job add column x int",
        "truncate minium.job",
        "create table minium.x (i int)",
        "drop schema minium cascade",
        "create or replace function minium.enqueue(task text, args jsonb, options jsonb default '{}') returns bigint language sql as 'select 1'",
    ];
    const JOURNAL: [&str; 7] = [
        "delete from minium.entry",
        "update minium.entry set data = '{}'",
        "truncate minium.entry",
        "delete from minium.entry_default",
        "update minium.entry_offset set \"offset\" = 7",
        "delete from minium.journal_cursor",
        "update minium.journal_floor set first_offset = 1000",
    ];
    for user in ["worker", "enqueuer", "reader", "nobody"] {
        roles.refused(user, &SCHEMA).await;
        roles.refused(user, &JOURNAL).await;
        roles
            .refused(user, &["select * from minium.recorder", "update minium.migration set number = 1"])
            .await;
    }
    let worker = [
        "select * from minium.entry",
        "update minium.limit_rule set running = 1000",
        "delete from minium.mask",
        "delete from minium.paused_queue",
        "insert into minium.schedule (name) values ('x')",
        "delete from minium.schedule",
    ];
    roles.refused("worker", &worker).await;
    let others =
        ["select * from minium.job", "insert into minium.job default values", "delete from minium.job"];
    for user in ["enqueuer", "reader", "nobody"] {
        roles.refused(user, &others).await;
    }
    roles
        .refused(
            "enqueuer",
            &["select * from minium.jobs", "select * from minium.journal", "select * from minium.bulk"],
        )
        .await;
    roles
        .refused(
            "reader",
            &["select minium.enqueue('x', '[]')", "insert into minium.bulk (task, args) values ('x', '[]')"],
        )
        .await;

    // and what they are for
    let enqueuer = connect(&roles.url("enqueuer")).await.unwrap();
    let id: i64 = enqueuer.query_one("select minium.enqueue('x', '[1]')", &[]).await.unwrap().get(0);
    enqueuer.batch_execute("insert into minium.bulk (task, args) values ('x', '[2]')").await.unwrap();
    assert_eq!(node.job(id).await["args"], json!([1]));
    let reader = connect(&roles.url("reader")).await.unwrap();
    let jobs: i64 =
        reader.query_one("select count(*) from minium.jobs where phase = 'ready'", &[]).await.unwrap().get(0);
    assert_eq!(jobs, 3);
    wait::until("the journal to be numbered", async || {
        let events: i64 = reader.query_one("select count(*) from minium.journal", &[]).await.unwrap().get(0);
        (events == 3).then_some(())
    })
    .await;
}
