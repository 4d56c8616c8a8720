//! The rules of docs/minion-attach.md once more, written without a look at the SQL that keeps them: what the event says of
//! a row of Minion's.

use super::minion::{Entry, Minion};
use serde_json::{Value, json};

/// A row of Minion's jobs, and the worker that it names if Minion knows it.
pub(super) async fn row(minion: &Minion, id: i64) -> Value {
    let sql = "select to_jsonb(j)::text, j.result::text,
                      (select to_jsonb(w)::text from minion_workers w where w.id = j.worker)
                 from minion_jobs j where j.id = $1";
    let row = minion.admin.query_one(sql, &[&id]).await.unwrap();
    let mut job: Value = serde_json::from_str(row.get(0)).unwrap();
    let (result, worker): (Option<String>, Option<String>) = (row.get(1), row.get(2));
    job["result_text"] = result.into();
    job["known_worker"] = worker.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    job
}

/// What an event must say of it.
pub(super) fn snapshot(row: &Value) -> Value {
    let number = |name: &str| row[name].as_i64().unwrap();
    let state = row["state"].as_str().unwrap();
    let (retries, ended) = (number("retries"), matches!(state, "finished" | "failed"));
    let has_run_since = match state {
        "active" | "finished" => true,
        "inactive" => false,
        _ => row["started"].is_string() && time(&row["retried"]) <= time(&row["started"]),
    };
    let attempt = match has_run_since {
        true => retries + 1,
        false if row["started"].is_null() => 0,
        false => retries,
    };
    let known = &row["known_worker"];
    let worker = match row["worker"].as_i64() {
        None => Value::Null,
        Some(id) => json!({ "id": id, "host": known["host"], "pid": known["pid"] }),
    };
    let error = match &row["result"] {
        Value::String(text) => json!(text),
        Value::Null => Value::Null,
        _ => row["result_text"].clone(),
    };
    json!({
        "id": row["id"], "task": row["task"], "queue": row["queue"], "state": state, "priority": row["priority"],
        "args": row["args"], "notes": row["notes"], "attempt": attempt, "attempts": number("attempts").max(1) + retries,
        "retries": retries, "parents": row["parents"], "lax": row["lax"], "key": null, "schedule": null, "worker": worker,
        "result": if state == "finished" { row["result"].clone() } else { Value::Null },
        "error": if state == "failed" { error } else { Value::Null },
        "progress": null, "origin": null,
        "created": time(&row["created"]), "delayed": time(&row["delayed"]), "expires": time(&row["expires"]),
        "started": time(&row["started"]), "finished": if ended { time(&row["finished"]) } else { None },
        "retried": time(&row["retried"]),
    })
}

/// A time as events have it: in UTC, with microseconds.
fn time(value: &Value) -> Option<String> {
    let at: jiff::Timestamp = value.as_str()?.parse().unwrap();
    Some(format!("{at:.6}"))
}

/// Asserts that an entry says what its row says, and that it is one of Minion's.
pub(super) fn assert_says(entry: &Entry, row: &Value) {
    assert_eq!(entry.data, snapshot(row), "{} of {row}", entry.kind);
    assert_eq!(entry.source.as_deref(), Some("/minion/app"));
}
