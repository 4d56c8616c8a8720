//! Receivers that speak TLS: a certificate of one's own authority is believed for its name, and for no other.

use super::{Receiver, done, enqueue, started, webhook};
use crate::support::node::Options;
use crate::tls::{Authority, text};
use std::collections::BTreeMap;

/// O-4: the name of the URL must stand in the certificate, and the authority must be the one that was said.
#[tokio::test]
async fn a_receiver_is_who_its_certificate_says() {
    let (authority, other) = (Authority::new("of receivers"), Authority::new("of somebody else"));
    let receiver = Receiver::secured(&authority, &["localhost"]).await;
    let port = receiver.address.port();
    let sink = |name: &str, host: &str, vouches: &Authority| {
        let more = format!("attempts = 1\nca_file = {:?}", text(&vouches.path("ca.pem")));
        webhook(name, &format!("https://{host}:{port}/{name}"), &more)
    };
    let config = format!(
        "{}{}{}",
        sink("good", "localhost", &authority),
        sink("name", "127.0.0.1", &authority),
        sink("issuer", "localhost", &other)
    );
    let node = started(Options::memory().config(&config), &["good", "name", "issuer"]).await;
    enqueue(&node).await;
    let jobs = done(&node, 3).await;
    let ended: BTreeMap<&str, &str> = jobs
        .iter()
        .map(|job| (job["notes"]["sink"].as_str().unwrap(), job["state"].as_str().unwrap()))
        .collect();
    assert_eq!(ended, BTreeMap::from([("good", "finished"), ("name", "failed"), ("issuer", "failed")]));
    for job in jobs.iter().filter(|job| job["state"] == "failed") {
        assert!(job["error"].as_str().unwrap().contains("certificate"), "{job}");
    }
    let paths: Vec<String> = receiver.heard().into_iter().map(|one| one.path).collect();
    assert_eq!(paths, ["/good"]);
}
