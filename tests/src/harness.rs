//! What the support itself promises: databases of one's own, clusters that survive being killed.

use crate::support::postgres::{Cluster, ClusterOptions, Database, connect};

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, other) = (Database::create().await, Database::create().await);
    one.connect().await.batch_execute("create table t (n int)").await.unwrap();
    assert!(other.connect().await.batch_execute("select * from t").await.is_err());
    let url = one.url().to_owned();
    drop(one);
    assert!(connect(&url).await.is_err(), "a database is dropped with its value");
}

#[tokio::test]
async fn a_private_cluster_keeps_what_was_committed_when_it_is_killed() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true }).await;
    let url = cluster.create_database("kept").await;
    connect(&url).await.unwrap().batch_execute("create table t as select 42 as n").await.unwrap();
    for end in [Cluster::kill, Cluster::stop_immediately, Cluster::stop] {
        end(&mut cluster);
        assert!(connect(&url).await.is_err(), "it is down");
        cluster.restart().await;
        let row = connect(&url).await.unwrap().query_one("select n from t", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 42);
    }
}
