//! Requests to a node, and answers that a failing test can show whole.

use super::node::Node;
use super::wait;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    async fn read(response: Response) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = wait::within("the rest of an answer", response.bytes()).await.unwrap().to_vec();
        Answer { status, headers, body }
    }

    /// One header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Asserts the status and gives the body as JSON.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Asserts that this is the problem `code`, complete by RFC 9457, and gives it.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["type"], format!("/problems/{code}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["title"].is_string() && problem["retryable"].is_boolean(), "{problem}");
        problem
    }
}

impl Node {
    /// Its database is there, and whatever else it needs.
    pub(crate) async fn whole(&self) {
        wait::until("the node to come whole", async || {
            (self.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }

    /// Any request.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = reqwest::Client::new().request(method, self.http(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let what = format!("an answer of {path}");
        Answer::read(wait::within(&what, request.send()).await.unwrap()).await
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    /// POST of a message.
    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.request(Method::POST, path, &[], body).await
    }

    /// POST of JSON.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], "").await
    }

    /// Enqueues one job and gives its id.
    pub(crate) async fn enqueue(&self, job: &Value) -> i64 {
        self.post_json("/api/v1/jobs", job).await.expect(201)["id"].as_i64().unwrap()
    }

    /// A job as it stands.
    pub(crate) async fn job(&self, id: i64) -> Value {
        self.get(&format!("/api/v1/jobs/{id}")).await.expect(200)
    }

    /// A job when it is over, however it ended.
    pub(crate) async fn ended(&self, id: i64) -> Value {
        wait::until(&format!("the end of job {id}"), async || {
            let job = self.job(id).await;
            ["finished", "failed", "cancelled"].contains(&job["state"].as_str().unwrap()).then_some(job)
        })
        .await
    }

    /// What happened to a job, once the last of it is this: the journal numbers events a moment after they are written.
    pub(crate) async fn events(&self, id: i64, last: &str) -> Vec<Value> {
        wait::until(&format!("{last} of job {id}"), async || {
            let page = self.get(&format!("/api/v1/jobs/{id}/events")).await.expect(200);
            let events = page["events"].as_array().unwrap();
            events.last().is_some_and(|event| event["type"] == last).then(|| events.clone())
        })
        .await
    }

    /// One figure of `/metrics`, summed over its labels; 0 while it does not exist.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").await;
        let of_it = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        };
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        answer.text().lines().filter(of_it).map(value).sum()
    }
}
