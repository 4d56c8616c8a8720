//! What is not done: private addresses, redirects, receivers that do not want it, and work in the node's name.

use super::{Heard, Receiver, done, enqueue, started, webhook};
use crate::support::node::{Node, Options};
use crate::trust::{Guarded, token};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::TcpListener;

/// The one delivery of the one event of a job.
async fn delivered(node: &Node) -> Value {
    enqueue(node).await;
    done(node, 1).await.remove(0)
}

/// O-4: an address of this machine is not connected to, however it is written or resolved.
#[tokio::test]
async fn nothing_private_is_connected_to() {
    // a machine may have no IPv6; then that address is judged all the same
    let listeners: Vec<TcpListener> =
        ["127.0.0.1:0", "[::1]:0"].iter().filter_map(|address| TcpListener::bind(address).ok()).collect();
    let port = |i: usize| listeners.get(i).map_or(9, |listener| listener.local_addr().unwrap().port());
    let hosts = [
        format!("127.0.0.1:{}", port(0)),
        format!("localhost:{}", port(0)),
        format!("2130706433:{}", port(0)),
        format!("[::1]:{}", port(1)),
        format!("[::ffff:127.0.0.1]:{}", port(0)),
    ];
    let sink = |(i, host): (usize, &String)| {
        webhook(&format!("s{i}"), &format!("http://{host}/"), "attempts = 1")
            .replace("allow_private = true\n", "")
    };
    let config: String = hosts.iter().enumerate().map(sink).collect();
    let names: Vec<String> = (0..hosts.len()).map(|i| format!("s{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let node = started(Options::memory().config(&config), &names).await;
    enqueue(&node).await;
    for job in done(&node, hosts.len()).await {
        let error = job["error"].as_str().unwrap();
        assert!(job["state"] == "failed" && error.contains("no public address"), "{job}");
    }
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        let asked = listener.accept().map_err(|error| error.kind());
        assert_eq!(asked.unwrap_err(), std::io::ErrorKind::WouldBlock, "somebody connected");
    }
}

/// O-3: a redirect is a failure, and nobody goes there.
#[tokio::test]
async fn redirects_are_not_followed() {
    let receiver = Receiver::start(|_, _| "307 Temporary Redirect\r\nlocation: /other".into()).await;
    let sink = webhook("ops", &receiver.url("/hook"), "attempts = 1");
    let node = started(Options::memory().config(&sink), &["ops"]).await;
    let job = delivered(&node).await;
    assert!(job["error"].as_str().unwrap().contains("redirects are not followed"), "{job}");
    let paths: Vec<String> = receiver.heard().into_iter().map(|one| one.path).collect();
    assert_eq!(paths, ["/hook"]);
}

/// O-3: 410 is the end of it, whatever attempts are left.
#[tokio::test]
async fn a_receiver_that_is_gone_is_not_asked_again() {
    let receiver = Receiver::start(|_, _| "410 Gone".into()).await;
    let node = started(Options::memory().config(&webhook("ops", &receiver.url("/"), "")), &["ops"]).await;
    let job = delivered(&node).await;
    assert_eq!((&job["state"], &job["attempt"], &job["attempts"]), (&json!("failed"), &json!(1), &json!(15)));
    assert_eq!(receiver.heard().len(), 1);
}

/// O-3: a receiver that says when to come again is not let down, and no attempt is used up.
#[tokio::test]
async fn a_busy_receiver_says_when_to_come_again() {
    let busy = |place: usize, _: &Heard| match place {
        0 => "429 Too Many Requests\r\nretry-after: 1".to_owned(),
        1 => "503 Service Unavailable\r\nretry-after: 1".to_owned(),
        _ => "200 OK".to_owned(),
    };
    let receiver = Receiver::start(busy).await;
    let sink = webhook("ops", &receiver.url("/"), "attempts = 1");
    let node = started(Options::memory().config(&sink), &["ops"]).await;
    let job = delivered(&node).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("finished"), &json!(1)));
    assert_eq!(receiver.heard().len(), 3);
    let log = node.get(&format!("/api/v1/jobs/{}/log", job["id"])).await;
    assert!(log.text().contains("429") && log.text().contains("503"), "{}", log.text());
}

/// what the node says in its own name is said by nobody else but `admin`.
#[tokio::test]
async fn the_nodes_own_tasks_are_for_admin() {
    let guarded = Guarded::start(
        "[channels.minium]\ndurable = true\npatterns = [\"push\"]\n[channels.miniumx]\ndurable = true\n",
    )
    .await;
    let node = &guarded.node;
    let bearer = |scopes: &str| format!("Bearer {}", token(scopes));
    let (ours, admin) = (bearer("jobs:write push:minium push:miniumx sub:task"), bearer("admin"));
    let job = |task: &str| json!({ "task": task, "args": [] });
    let ask = async |who: &str, method: Method, path: &str, body: Value| {
        node.request(method, path, &[("authorization", who)], body.to_string()).await
    };
    for task in ["minium", "minium/deliver"] {
        ask(&ours, Method::POST, "/api/v1/jobs", job(task)).await.problem(403, "forbidden");
        ask(&ours, Method::POST, "/api/v1/jobs", json!([job("miniumx"), job(task)]))
            .await
            .problem(403, "forbidden");
        let follower = json!({ "task": "miniumx", "on_success": job(task) });
        ask(&ours, Method::POST, "/api/v1/jobs", follower).await.problem(403, "forbidden");
        ask(&ours, Method::POST, &format!("/push/{task}"), json!([])).await.problem(403, "forbidden");
    }
    let schedule = json!({ "task": "minium/deliver", "every": "1h" });
    ask(&ours, Method::PUT, "/api/v1/schedules/s", schedule).await.problem(403, "forbidden");
    let confirmed = json!({ "position": "1:0", "topics": ["task"] });
    ask(&ours, Method::PUT, "/api/v1/recorders/sink%2Fops", confirmed).await.problem(403, "forbidden");
    let lock = json!({ "owner": "me", "for": "1m" });
    ask(&ours, Method::POST, "/api/v1/locks/minium%2Fsink%2Fops", lock.clone())
        .await
        .problem(403, "forbidden");
    // nor is the hold of a node ended or kept by others
    let own = "/api/v1/locks/minium%2Fsink%2Fops";
    let hold = ask(&admin, Method::POST, own, lock.clone()).await.expect(201);
    let longer = json!({ "token": hold["token"], "for": "1m" });
    ask(&ours, Method::PATCH, own, longer.clone()).await.problem(403, "forbidden");
    ask(&ours, Method::DELETE, own, Value::Null).await.problem(403, "forbidden");
    let by_token = format!("{own}?lock_token={}", hold["token"].as_str().unwrap());
    ask(&ours, Method::DELETE, &by_token, Value::Null).await.problem(403, "forbidden");
    ask(&admin, Method::PATCH, own, longer).await.expect(200);
    ask(&admin, Method::DELETE, own, Value::Null).await.expect(200);
    ask(&ours, Method::POST, "/api/v1/locks/miniumx", lock).await.expect(201);
    ask(&ours, Method::POST, "/api/v1/jobs", job("miniumx")).await.expect(201);
    ask(&admin, Method::POST, "/api/v1/jobs", job("minium/deliver")).await.expect(201);
}
