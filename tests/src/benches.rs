//! The benches run, with loads too small to say anything: what they count is held against the database by themselves, so
//! a run that ends well has lost and doubled nothing. No figure is judged here.

use crate::support::node::binary;
use crate::support::postgres::Database;
use crate::support::wait;
use serde_json::Value;
use std::process::Output;

async fn bench(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary());
    command.arg("bench").args(args).kill_on_drop(true);
    wait::within("minium bench", command.output()).await.unwrap()
}

async fn figures(args: &[&str]) -> Value {
    let output = bench(args).await;
    assert!(output.status.success(), "minium bench {args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_plain_queue_bench_tells_its_figures_by_name() {
    let told = figures(&["queue", "--jobs", "500", "--bulk", "100", "--batch", "50", "--json"]).await;
    assert_eq!((&told["jobs"], &told["events"]), (&500.into(), &1500.into()), "{told}");
    for name in ["enqueue_seconds", "drain_seconds", "enqueue_jobs_per_second", "drain_jobs_per_second"] {
        assert!(told[name].as_f64().is_some_and(|v| v > 0.0), "{name}: {told}");
    }
}

/// Every row, by those of its contenders that are Minium: nothing has to be fetched for them.
#[tokio::test]
async fn every_row_of_the_queue_bench_runs_without_peers() {
    let listed = bench(&["queue", "--list"]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    let rows: Vec<&str> = listed.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(rows.len() >= 10, "{listed}");
    let database = Database::create().await;
    let sizes = "--runs 1 --jobs 100 --singles 20 --pickups 3 --seconds 1 --ready 100 --rate 90 --kept 200 --batch 20";
    for name in rows {
        let of_row = ["queue", "--json", "--database", database.url(), "--only", name];
        let args: Vec<&str> = of_row.into_iter().chain(sizes.split(' ')).collect();
        let told = figures(&args).await;
        let row = &told["rows"][0];
        assert_eq!(row["name"], name, "{told}");
        let contenders = row["contenders"].as_array().unwrap();
        let measured = |c: &Value| c["runs"].as_array().is_some_and(|runs| runs.len() == 1);
        assert!(!contenders.is_empty() && contenders.iter().all(measured), "{row}");
        // those that speak of peers say nothing; every other one is measured
        let peers = ["peer", "pgmq", "pg-boss"];
        for aim in row["aims"].as_array().unwrap() {
            let words = aim["aim"].as_str().unwrap();
            assert_eq!(aim["measured"].is_number(), !peers.iter().any(|p| words.contains(p)), "{aim}");
        }
    }
}

#[tokio::test]
async fn a_row_that_is_not_there_is_said_with_those_that_are() {
    let output = bench(&["queue", "--only", "drains"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("no row drains") && said.contains("enqueue-1"),
        "{said}"
    );
}
