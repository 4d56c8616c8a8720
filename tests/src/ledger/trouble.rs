//! The kinds of trouble, each with several seeds. The nodes and databases of a test stay; each seed has topics of its
//! own.

use super::proxy::Proxy;
use super::publisher::Course;
use super::reader::Pause;
use super::stage::{Stage, options};
use super::{SEEDS, Seed, assert_kept, seeds};
use crate::support::node::{Node, Options};
use crate::support::postgres::{Cluster, ClusterOptions, Database};
use crate::support::{on_both, wait};

on_both! {
    /// P-3, V-4, V-5, V-6, V-12, V-13: kill -9 of the node in the midst of publishing, and the start of another in its place.
    nothing_is_lost_when_the_node_is_killed;
    /// P-3, V-6, V-12, V-13: TCP connections are cut in both directions at random bytes.
    nothing_is_lost_when_connections_are_cut;
}

async fn nothing_is_lost_when_the_node_is_killed(backend: Options) {
    let nodes = [Node::start(options(backend)).await];
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let kills = async |course: &Course, random: &mut fastrand::Rng| {
            for _ in 0..2 {
                course.acks(random.u64(20..200)).await;
                nodes[0].kill().await;
                nodes[0].restart().await;
            }
        };
        let books = Stage::new(seed, &nodes).act(kills).await;
        assert!(books.inboxes[0].sockets.len() > 2, "the readers came back");
        assert_kept(&books, seed);
    }
}

async fn nothing_is_lost_when_connections_are_cut(backend: Options) {
    let nodes = [Node::start(options(backend)).await];
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(!seed);
        let cut_bytes_max = 1 << random.u32(11..16);
        let proxy = Proxy::cutting(nodes[0].address(), cut_bytes_max, random).await;
        let cuts = async |course: &Course, _: &mut fastrand::Rng| {
            wait::until("enough cuts", async || (proxy.cuts() >= 60).then_some(())).await;
            proxy.calm();
            course.acks(1).await;
        };
        let stage = Stage { addresses: vec![proxy.address], ..Stage::new(seed, &nodes) };
        let books = stage.act(cuts).await;
        assert_kept(&books, seed);
    }
}

/// P-3, V-6: PostgreSQL is stopped immediately, under load, and started again.
#[tokio::test]
async fn nothing_is_lost_when_postgres_is_stopped_immediately() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("minium").await;
    let nodes = [Node::start(options(Options::on(&url))).await];
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let stops = async |course: &Course, random: &mut fastrand::Rng| {
            course.acks(random.u64(20..300)).await;
            cluster.stop_immediately();
            cluster.restart().await;
        };
        let books = Stage::new(seed, &nodes).act(stops).await;
        assert_kept(&books, seed);
    }
}

/// P-3, V-6: all connections to PostgreSQL are terminated, again and again.
#[tokio::test]
async fn nothing_is_lost_when_database_connections_are_terminated() {
    let database = Database::create().await;
    let killer = database.connect().await;
    let nodes = [Node::start(options(Options::on(database.url()))).await];
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                      where datname = current_database() and application_name = 'minium'";
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let terminations = async |course: &Course, random: &mut fastrand::Rng| {
            for _ in 0..4 {
                course.acks(random.u64(10..80)).await;
                killer.query_one(terminate, &[]).await.unwrap();
            }
        };
        let books = Stage::new(seed, &nodes).act(terminations).await;
        assert_kept(&books, seed);
    }
}

/// P-3, V-6: two nodes on one PostgreSQL; one is killed, and its clients move to the other.
#[tokio::test]
async fn nothing_is_lost_when_one_of_two_nodes_is_killed() {
    let database = Database::create().await;
    let backend = options(Options::on(database.url()));
    let nodes = [Node::start(backend.clone()).await, Node::start(backend).await];
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let kills = async |course: &Course, random: &mut fastrand::Rng| {
            let first = random.usize(..2);
            for node in [&nodes[first], &nodes[1 - first]] {
                course.acks(random.u64(20..200)).await;
                node.kill().await;
                course.acks(random.u64(1..100)).await;
                node.restart().await;
            }
        };
        let books = Stage::new(seed, &nodes).act(kills).await;
        assert_kept(&books, seed);
    }
}

/// P-3, V-12, V-14: readers that stop reading are overtaken by what is kept in memory for them, and read on from the journal.
#[tokio::test]
async fn nothing_is_lost_when_readers_are_overtaken() {
    // a ring of the bus holds 16 MiB, and three of four topics must be more than that
    const BEHIND_BYTES: usize = 24 << 20;
    const PADDING: usize = 100_000;
    let nodes = [Node::start(options(Options::file())).await];
    for seed in seeds(SEEDS) {
        let _seed = Seed(seed);
        let pause = Pause { after: fastrand::Rng::with_seed(seed).usize(1..20), ..Pause::default() };
        let stage = Stage { padding: PADDING, pause: Some(pause), ..Stage::new(seed, &nodes) };
        let before = nodes[0].metric("minium_bus_slow_consumers_total").await;
        let wait_for_it = async |course: &Course, _: &mut fastrand::Rng| {
            course.acks((BEHIND_BYTES / (PADDING * 3 / 2)) as u64).await;
            stage.pause.as_ref().expect("it was just given").goes_on.set(true);
        };
        let books = stage.act(wait_for_it).await;
        let overtaken = nodes[0].metric("minium_bus_slow_consumers_total").await - before;
        assert!(overtaken >= 2.0, "{overtaken} subscriptions were overtaken");
        assert_kept(&books, seed);
    }
}
