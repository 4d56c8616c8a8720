//! TLS towards a real PostgreSQL.

use super::{Authority, text};
use crate::support::node::free_port;
use crate::support::postgres::{Cluster, ClusterOptions};
use minium_queue::Backend;
use minium_queue::postgres::PgOptions;
use std::error::Error;

/// Speaks over it, and says whether the database sees TLS.
async fn speaks(url: &str) -> Result<bool, String> {
    let options = PgOptions { listen: false, ..PgOptions::default() };
    let backend = Backend::open_postgres(url, options).map_err(|e| e.to_string())?;
    let words = |e: &dyn Error| {
        let mut words = e.to_string();
        let mut next = e.source();
        while let Some(cause) = next {
            words = format!("{words}: {cause}");
            next = cause.source();
        }
        words
    };
    backend.migrate().await.map_err(|e| words(&e))?;
    let Backend::Postgres(store) = &backend else { unreachable!("the URL is one of PostgreSQL") };
    let client = store.pool().get().await.map_err(|e| words(&e))?;
    let row = client.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
    Ok(row.map_err(|e| words(&e))?.get(0))
}

/// Each `sslmode` checks what it says, and no more.
#[tokio::test]
async fn each_sslmode_checks_what_it_says() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let port = free_port();
    let mut cluster = Cluster::prepare(ClusterOptions { tls_port: Some(port), ..ClusterOptions::default() });
    let (certificate, key) = ours.issue("database", &["localhost"]);
    cluster.put("server.crt", &certificate);
    cluster.put("server.key", &key);
    cluster.restart().await;
    let (ca, wrong_ca) = (text(&ours.path("ca.pem")), text(&other.path("ca.pem")));
    let at = |host: &str, query: &str| format!("postgres://minium@{host}:{port}/postgres?{query}");

    assert_eq!(speaks(&at("localhost", "sslmode=disable")).await, Ok(false));
    assert_eq!(speaks(&at("localhost", "")).await, Ok(true), "TLS where it can be had");
    assert_eq!(speaks(&at("127.0.0.1", "sslmode=require")).await, Ok(true), "nothing is checked");
    let query = |mode: &str, ca: &str| format!("sslmode={mode}&sslrootcert={ca}");
    for (mode, host) in [("verify-full", "localhost"), ("verify-ca", "localhost"), ("verify-ca", "127.0.0.1")]
    {
        assert_eq!(speaks(&at(host, &query(mode, &ca))).await, Ok(true), "{mode} {host}");
    }
    let refused = [
        ("verify-full", "127.0.0.1", &ca, "not valid for name"),
        ("verify-full", "localhost", &wrong_ca, "UnknownIssuer"),
        ("verify-ca", "localhost", &wrong_ca, "UnknownIssuer"),
        ("require", "localhost", &wrong_ca, "UnknownIssuer"),
    ];
    for (mode, host, ca, word) in refused {
        let why = speaks(&at(host, &query(mode, ca))).await.unwrap_err();
        assert!(why.contains(word), "{mode} {host}: {why}");
    }
    // over the socket there is no TLS, and none is asked for
    assert_eq!(speaks(&cluster.url("postgres")).await, Ok(false));
}

/// Who asks for TLS never gets a connection without.
#[tokio::test]
async fn a_database_without_tls_is_refused_by_who_requires_it() {
    let database = crate::support::postgres::Database::create().await;
    let why = speaks(&format!("{}&sslmode=require", database.url())).await.unwrap_err();
    assert!(why.contains("does not support TLS"), "{why}");
}
