//! On a made machine, on an empty one, and on this one.

use super::*;
use minium_bus::{Pattern, Schemas};
use minium_protocol::{EnqueueRequest, ErrorCode, Job, State};
use minium_queue::Backend;
use minium_worker::{StoreSource, WorkerOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn put(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const CPUINFO: &str = "processor\t: 0\nmodel name\t: Quick Silver 9000\nphysical id\t: 0\ncore id\t: 0\nflags\t\t: fpu vmx aes avx2\n\n\
processor\t: 1\nmodel name\t: Quick Silver 9000\nphysical id\t: 0\ncore id\t: 0\nflags\t\t: fpu vmx aes avx2\n\n\
processor\t: 2\nmodel name\t: Quick Silver 9000\nphysical id\t: 1\ncore id\t: 0\nflags\t\t: fpu vmx aes avx2\n";

/// A machine with two sockets, two disks and three interfaces.
fn made() -> (TempDir, Roots) {
    let dir = TempDir::new().unwrap();
    let at = dir.path();
    put(at, "proc/sys/kernel/hostname", "rack3 node/7\n");
    put(at, "proc/sys/kernel/osrelease", "6.12.1-made\n");
    put(at, "proc/cpuinfo", CPUINFO);
    put(at, "proc/meminfo", "MemTotal:       2048 kB\nMemAvailable:   1024 kB\nSwapTotal:         0 kB\n");
    put(at, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "3600000\n");
    put(at, "sys/block/sda/size", "1000\n");
    put(at, "sys/block/sda/device/model", "  Old Disk   \n");
    put(at, "sys/block/sda/queue/rotational", "1\n");
    put(at, "sys/block/nvme0n1/size", "2000\n");
    put(at, "sys/block/nvme0n1/device/serial", "S1\n");
    put(at, "sys/block/loop0/size", "77\n");
    put(at, "sys/class/net/lo/type", "772\n");
    put(at, "sys/class/net/bonding_masters", "\n");
    put(at, "sys/class/net/br0/address", "00:00:00:00:00:00\n");
    put(at, "sys/class/net/eth0/address", "52:54:00:12:34:56\n");
    put(at, "sys/class/net/eth0/operstate", "up\n");
    put(at, "sys/class/net/eth0/speed", "10000\n");
    put(at, "sys/class/net/eth0/device/vendor", "0x1\n");
    std::os::unix::fs::symlink("../../drivers/quicknet", at.join("sys/class/net/eth0/device/driver"))
        .unwrap();
    put(at, "sys/class/net/eth1/speed", "-1\n");
    put(at, "sys/class/net/eth1/device/vendor", "0x1\n");
    put(at, "sys/class/dmi/id/sys_vendor", "Cinnabar\n");
    put(at, "sys/class/dmi/id/product_serial", "SN-7\n");
    put(at, "sys/class/dmi/id/board_name", "\u{0}B1\n");
    let roots = Roots { proc: at.join("proc"), sys: at.join("sys") };
    (dir, roots)
}

type Published = Arc<Mutex<Vec<(String, Value)>>>;

/// Judges as the bus does, and remembers.
fn listener() -> (Published, Publish) {
    let published = Published::default();
    let keep = published.clone();
    let schemas = Schemas::built_in();
    let publish: Publish = Arc::new(move |topic, text| {
        let message: Value = serde_json::from_slice(&text).unwrap();
        let schema = schemas.governing(Pattern::Sub, topic.as_str()).expect("livesys is governed");
        let answer = schema
            .check(&message)
            .map_err(|faults| Problem::new(ErrorCode::SchemaViolation, format!("{faults:?}")));
        keep.lock().unwrap().push((topic.to_string(), message));
        Box::pin(async { answer })
    });
    (published, publish)
}

/// Runs one job of the task on a worker, to its end.
async fn run(roots: Roots, publish: Publish, args: Value) -> (Job, Vec<String>) {
    let backend = Backend::open(&"sqlite::memory:".parse().unwrap()).await.unwrap();
    backend.migrate().await.unwrap();
    let store = backend.store();
    let stop = CancellationToken::new();
    let worker = Worker::new(StoreSource::new(store.clone()), WorkerOptions::default());
    let working = tokio::spawn(task(worker, roots, publish).run(stop.clone()));
    let args = serde_json::value::to_raw_value(&args).unwrap();
    let id = store.enqueue(&[EnqueueRequest::new(TASK, args)]).await.unwrap()[0].id;
    let ended = async {
        loop {
            let job = store.get(id).await.unwrap().unwrap().job().unwrap();
            if job.state.is_ended() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let job = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the job ends");
    stop.cancel();
    working.await.unwrap().unwrap();
    let Backend::Sqlite(sqlite) = backend else { panic!("it is SQLite") };
    let steps = sqlite.call(|conn| {
        let sql = "select data ->> '$.progress.text' from entry where data ->> '$.progress.text' is not null \
               and type = 'task.progress' order by seq";
        let mut read = conn.prepare(sql).unwrap();
        let rows = read.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<String>>()
    });
    (job, steps.await.unwrap())
}

fn result(job: &Job) -> Value {
    assert_eq!(job.state, State::Finished, "{job:?}");
    serde_json::from_str(job.result.as_ref().unwrap().get()).unwrap()
}

#[tokio::test]
async fn a_machine_is_read_step_by_step_and_its_report_is_published() {
    let (_dir, roots) = made();
    let (published, publish) = listener();
    let (job, steps) = run(roots, publish, json!([])).await;
    let report = result(&job);
    assert_eq!(*published.lock().unwrap(), [("livesys/rack3-node-7".to_owned(), report.clone())]);
    assert_eq!(
        (&report["type"], &report["host"], &report["job"]),
        (&json!("inventory"), &json!("rack3 node/7"), &json!(job.id))
    );
    assert_eq!(
        report["cpu"],
        json!({"model": "Quick Silver 9000", "packages": 2, "cores": 2, "threads": 3, "mhz_max": 3600.0,
               "flags": ["aes", "avx2", "vmx"], "flag_count": 4})
    );
    assert_eq!(
        report["memory"],
        json!({"total_bytes": 2_097_152, "available_bytes": 1_048_576, "swap_bytes": 0})
    );
    let disks = report["block"].as_array().unwrap();
    assert_eq!(disks.len(), 2, "a loop is no disk");
    assert_eq!(
        (&disks[0]["name"], &disks[0]["serial"], &disks[0]["size_bytes"]),
        (&json!("nvme0n1"), &json!("S1"), &json!(1_024_000))
    );
    assert_eq!(
        (&disks[1]["model"], &disks[1]["rotational"], &disks[1]["removable"]),
        (&json!("Old Disk"), &json!(true), &Value::Null)
    );
    let names: Vec<_> =
        report["network"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["eth0", "eth1", "br0"], "no loopback, real ones first");
    assert_eq!(
        report["network"][0],
        json!({"name": "eth0", "mac": "52:54:00:12:34:56", "state": "up", "speed_mbps": 10_000, "mtu": null,
               "driver": "quicknet", "physical": true})
    );
    assert_eq!(
        (&report["network"][1]["speed_mbps"], &report["network"][2]["mac"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&report["dmi"]["vendor"], &report["dmi"]["serial"], &report["dmi"]["board"]),
        (&json!("Cinnabar"), &json!("SN-7"), &json!("B1"))
    );
    assert_eq!(job.notes["topic"], "livesys/rack3-node-7");
    let words: Vec<_> =
        Section::ALL.iter().map(|s| s.words()).chain(["publishing the report", "done"]).collect();
    assert_eq!(steps, words, "each step was an event of its own");
}

#[tokio::test]
async fn a_machine_that_shows_nothing_is_a_report_full_of_nulls() {
    let dir = TempDir::new().unwrap();
    let roots = Roots { proc: dir.path().join("no-proc"), sys: dir.path().join("no-sys") };
    let (published, publish) = listener();
    let (job, _) = run(roots, publish, json!([])).await;
    let report = result(&job);
    for member in ["kernel", "cpu", "memory", "block", "network", "dmi"] {
        assert_eq!(report[member], Value::Null, "{member}");
    }
    assert_eq!(published.lock().unwrap()[0].0, "livesys/unknown");
}

#[tokio::test]
async fn this_very_machine_can_be_read() {
    let (_, publish) = listener();
    let (job, _) = run(Roots::default(), publish, json!([])).await;
    let report = result(&job);
    assert!(report["cpu"]["threads"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["memory"]["total_bytes"].as_u64().unwrap() > 1 << 20, "{report}");
    assert_eq!(report["host"], std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
}

#[tokio::test]
async fn only_the_sections_that_were_asked_for_are_read() {
    let (_dir, roots) = made();
    let (_, publish) = listener();
    let (job, steps) = run(roots, publish, json!([{"sections": ["memory"], "serial": "SN-7"}])).await;
    let report = result(&job);
    assert_eq!((&report["cpu"], &report["dmi"]), (&Value::Null, &Value::Null));
    assert_eq!(report["memory"]["total_bytes"], 2_097_152);
    assert_eq!(steps, ["measuring memory", "publishing the report", "done"]);
}

#[tokio::test]
async fn a_job_for_another_machine_fails_and_says_which_this_is() {
    let (_dir, roots) = made();
    let (published, publish) = listener();
    let (job, _) = run(roots, publish, json!([{"serial": "SN-8"}])).await;
    assert_eq!(job.state, State::Failed);
    assert_eq!(job.error.as_deref(), Some("this machine's serial number is SN-7, not SN-8"));
    assert!(published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_report_that_could_not_be_published_is_a_failure() {
    let (_dir, roots) = made();
    let publish: Publish =
        Arc::new(|_, _| Box::pin(async { Err(Problem::new(ErrorCode::Unavailable, "the bus is closed")) }));
    let (job, _) = run(roots, publish, json!([])).await;
    assert_eq!(job.state, State::Failed);
    let error = job.error.unwrap();
    assert!(error.contains("livesys/rack3-node-7") && error.contains("the bus is closed"), "{error}");
}

#[test]
fn any_host_name_makes_a_topic() {
    assert_eq!(topic("rack3.example.com").as_str(), "livesys/rack3.example.com");
    assert_eq!(topic("ä b/c").as_str(), "livesys/--b-c");
    for odd in ["", ".", ".."] {
        assert_eq!(topic(odd).as_str(), "livesys/unknown");
    }
    assert_eq!(topic(&"x".repeat(500)).as_str().len(), "livesys/".len() + 128);
}
