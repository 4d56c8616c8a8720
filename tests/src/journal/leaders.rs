//! One leader among several: whoever wins a step, and nobody's offsets twice.

use super::{Fixture, Node, Stepped, assert_dense, offsets, read_all, step, step_inside, write};
use crate::support::postgres::{Cluster, ClusterOptions, connect};
use crate::support::wait;
use minium_notifier::RelayState;
use minium_queue::UpkeepRules;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn numbered(first: i64, last: i64) -> Stepped {
    Stepped { outcome: "numbered".into(), first, last, more: false }
}

#[tokio::test]
async fn a_second_leader_steps_back_while_the_first_has_not_committed() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.client().await, fixture.client().await);
    write(&one, &[1, 2, 3], "task.enqueue").await;
    one.batch_execute("begin isolation level repeatable read").await.unwrap();
    assert_eq!(step_inside(&one, 100).await.unwrap(), numbered(1, 3));
    assert_eq!(step(&other, 100).await.unwrap().outcome, "busy");
    one.batch_execute("commit").await.unwrap();
    assert_eq!(step(&other, 100).await.unwrap().outcome, "idle");
    assert_dense(&one).await;
}

#[tokio::test]
async fn a_leader_that_looked_before_the_others_commit_is_refused_and_gives_no_offset_twice() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.client().await, fixture.client().await);
    write(&one, &[1, 2, 3], "task.enqueue").await;
    other.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    assert_eq!(step(&one, 100).await.unwrap(), numbered(1, 3));
    let refused = step_inside(&other, 100).await.unwrap_err();
    let code = refused.code().unwrap().code();
    assert!(["40001", "23505"].contains(&code), "{refused:?}");
    other.batch_execute("rollback").await.unwrap();
    assert_dense(&one).await;
}

/// A commit that notifies waits for those before it: nobody is to pay for a reader that has gone.
#[tokio::test]
async fn writers_notify_only_a_reader_that_is_there() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let armed = async |wanted: bool, what: &str| {
        let sql = "select from minium.wake where name = 'journal' and armed = $1 and (not armed or until > now() + '25 s')";
        wait::until(what, async || client.query_opt(sql, &[&wanted]).await.unwrap()).await;
    };
    armed(false, "a journal that nobody has read").await;
    let node = Node::start(&fixture.journal);
    armed(true, "the relay to sleep").await;
    client
        .batch_execute("update minium.wake set until = now() + '20 s' where name = 'journal'")
        .await
        .unwrap();
    armed(true, "the relay to say again that it is there").await;
    fixture.backend.store().upkeep(&UpkeepRules::default()).await.unwrap();
    armed(true, "it to be left as it is").await;
    node.stop().await;
    client.batch_execute("update minium.wake set until = now() where name = 'journal'").await.unwrap();
    fixture.backend.store().upkeep(&UpkeepRules::default()).await.unwrap();
    armed(false, "nobody to be notified").await;
}

#[tokio::test]
async fn a_step_wants_a_transaction_of_its_own() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    assert!(step_inside(&client, 100).await.is_err(), "READ COMMITTED is refused");
    client.batch_execute("begin isolation level repeatable read; select pg_current_xact_id()").await.unwrap();
    assert!(step_inside(&client, 100).await.is_err(), "a snapshot older than its own id is refused");
}

#[tokio::test]
async fn a_backlog_is_numbered_in_pieces_while_writers_go_on() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    write(&client, &(0..95).collect::<Vec<_>>(), "task.enqueue").await;
    let first = step(&client, 10).await.unwrap();
    assert_eq!(first, Stepped { more: true, ..numbered(1, 10) });
    // what comes in meanwhile waits for the end of the piece's snapshot, behind what was there before
    write(&client, &[1_000], "task.enqueue").await;
    while step(&client, 10).await.unwrap().outcome == "numbered" {}
    assert_dense(&client).await;
    let relayed = read_all(&*fixture.journal.history(), "task", 1_000).await;
    let topics: Vec<_> = relayed.iter().map(|r| r.topic.to_string()).collect();
    let due: Vec<_> = (0..95).chain([1_000]).map(super::topic).collect();
    assert_eq!(topics, due);
}

#[tokio::test]
async fn a_backlog_that_is_deleted_under_the_numbering_does_not_stop_it() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    write(&client, &[1, 2, 3], "task.enqueue").await;
    assert_eq!(step(&client, 2).await.unwrap(), Stepped { more: true, ..numbered(1, 2) });
    client.batch_execute("delete from minium.entry where subject = '3'").await.unwrap();
    write(&client, &[4], "task.enqueue").await;
    wait::until("the rest to be numbered", async || {
        step(&client, 2).await.unwrap();
        (offsets(&client).await.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_sequencers_tile_the_offsets_without_a_double_or_a_gap() {
    let fixture = Fixture::new().await;
    let done = CancellationToken::new();
    let mut sequencers = JoinSet::new();
    for _ in 0..3 {
        let (client, done) = (fixture.client().await, done.clone());
        sequencers.spawn(async move {
            let mut ranges = Vec::new();
            let mut gave_way = 0;
            loop {
                let ending = done.is_cancelled();
                match step(&client, 7).await {
                    Ok(s) if s.outcome == "numbered" => ranges.push((s.first, s.last)),
                    Ok(s) if s.outcome == "idle" && ending => return (ranges, gave_way),
                    Ok(_) => {}
                    Err(e) => {
                        let code = e.code().unwrap_or_else(|| panic!("{e}")).code().to_owned();
                        assert!(["40001", "23505"].contains(&code.as_str()), "{e}");
                        gave_way += 1;
                    }
                }
            }
        });
    }
    let writer = fixture.client().await;
    for n in 0..300 {
        write(&writer, &[n, n + 1, n + 2], "task.enqueue").await;
    }
    done.cancel();
    let ended = wait::within("the sequencers", sequencers.join_all()).await;
    eprintln!("steps and refusals: {:?}", ended.iter().map(|(r, g)| (r.len(), *g)).collect::<Vec<_>>());
    let mut ranges: Vec<_> = ended.into_iter().flat_map(|(ranges, _)| ranges).collect();
    ranges.sort_unstable();
    let mut next = 1;
    for (first, last) in ranges {
        assert_eq!(first, next, "ranges follow one another");
        next = last + 1;
    }
    assert_eq!(next, 901);
    assert_dense(&writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_relays_everything_whoever_numbers_and_one_takes_over_from_another() {
    let fixture = Fixture::new().await;
    let other = fixture.another().await;
    let writer = fixture.client().await;
    let (one, two) = (Node::start(&fixture.journal), Node::start(&other));
    one.begun().await;
    two.begun().await;
    for n in 0..50 {
        write(&writer, &[n, n + 1], "task.enqueue").await;
    }
    one.relayed(100).await;
    two.relayed(100).await;
    one.stop().await;
    write(&writer, &[1, 2, 3], "task.enqueue").await;
    two.relayed(103).await;
    assert_dense(&writer).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_only_follow_take_over_what_nobody_numbers() {
    let fixture = Fixture::new().await;
    let other = fixture.another().await;
    let (leader, writer) = (fixture.client().await, fixture.client().await);
    let (one, two) = (Node::start(&fixture.journal), Node::start(&other));
    one.begun().await;
    two.begun().await;
    // a third leader: in the middle of a step that does not end
    write(&writer, &[1], "task.enqueue").await;
    one.relayed(1).await;
    two.relayed(1).await;
    leader.batch_execute("begin; select pg_advisory_xact_lock(29958897753022828)").await.unwrap();
    write(&writer, &[2], "task.enqueue").await;
    let since: jiff::Timestamp = writer.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
    // only who follows looks at the bounds without stepping
    wait::until("both nodes to follow", async || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database()
                    and query like '%journal_bounds%' and application_name = 'minium' and query_start > $1";
        (writer.query_one(sql, &[&since]).await.unwrap().get::<_, i64>(0) >= 2).then_some(())
    })
    .await;
    leader.batch_execute("rollback").await.unwrap();
    one.relayed(2).await;
    two.relayed(2).await;
    one.stop().await;
    write(&writer, &[3], "task.enqueue").await;
    two.relayed(3).await;
    assert_dense(&writer).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequencer_whose_backend_is_killed_between_steps_goes_on_without_a_gap() {
    let fixture = Fixture::new().await;
    let (writer, killer) = (fixture.client().await, fixture.client().await);
    let node = Node::start(&fixture.journal);
    node.begun().await;
    let mut killed = 0;
    for n in 0..60_i64 {
        write(&writer, &[n, n + 1], "task.enqueue").await;
        if n % 10 == 5 {
            let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                        where datname = current_database() and application_name = 'minium'";
            killed += killer.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        }
    }
    assert!(killed > 0, "there was something to kill");
    node.relayed(120).await;
    assert_dense(&writer).await;
    assert_eq!(read_all(&*fixture.journal.history(), "task", 1_000).await.len(), 120);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_relayed_survives_a_crash_of_the_database_even_when_writers_did_not_wait_for_it() {
    let mut cluster = Cluster::start(ClusterOptions { fsync: true, ..ClusterOptions::default() }).await;
    let url = cluster.create_database("kept").await;
    let admin = connect(&url).await.unwrap();
    // nobody waits for the log, and nothing else writes it soon
    admin.batch_execute("alter system set wal_writer_delay = '10s'").await.unwrap();
    admin
        .batch_execute("select pg_reload_conf(); alter database kept set synchronous_commit = off")
        .await
        .unwrap();
    let (_backend, journal) = super::open(&url).await;
    admin.batch_execute("checkpoint").await.unwrap();
    let node = Node::start(&journal);
    node.begun().await;
    let writer = connect(&url).await.unwrap();
    write(&writer, &[1, 2, 3], "task.enqueue").await;
    let position = node.relayed(3).await;
    let before = read_all(&*journal.history(), "task", 10).await;

    cluster.stop_immediately();
    let mut states = node.relay.states();
    let waiting = |s: &RelayState| matches!(s, RelayState::Waiting { .. });
    wait::within("the relay to notice", states.wait_for(waiting)).await.unwrap();
    cluster.restart().await;

    let writer = connect(&url).await.unwrap();
    write(&writer, &[4], "task.enqueue").await;
    assert_eq!(node.relayed(4).await.epoch, position.epoch, "a crash is no new numbering");
    let after = read_all(&*journal.history(), "task", 10).await;
    assert_eq!(
        before.iter().map(|r| &r.event).collect::<Vec<_>>(),
        after[..3].iter().map(|r| &r.event).collect::<Vec<_>>()
    );
    assert_dense(&writer).await;
    node.stop().await;
}
