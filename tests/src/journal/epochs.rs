//! Numbers that could be given twice belong to different epochs: after a failover, a restored dump, a copy from the
//! past.

use super::{Fixture, Node, assert_dense, number_all, read_all, write};
use crate::support::wait;
use futures::{SinkExt, TryStreamExt};
use minium_notifier::RelayState;
use std::pin::pin;
use tokio_postgres::Client;

async fn cursor_epoch(client: &Client) -> i64 {
    client.query_one("select epoch from minium.journal_bounds()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn another_cluster_or_timeline_begins_a_new_epoch_and_offsets_go_on_upward() {
    for moved in ["timeline = timeline + 1", "system_identifier = system_identifier - 1"] {
        let fixture = Fixture::new().await;
        let client = fixture.client().await;
        write(&client, &[1, 2], "task.enqueue").await;
        number_all(&client).await;
        client.batch_execute(&format!("update minium.journal_cursor set {moved}")).await.unwrap();
        write(&client, &[3], "task.enqueue").await;
        let node = Node::start(&fixture.journal);
        let position = node.relayed(3).await;
        assert_eq!((position.epoch, position.offset), (2, 3), "{moved}");
        write(&client, &[4], "task.enqueue").await;
        assert_eq!(node.relayed(4).await.epoch, 2);
        assert_dense(&client).await;
        node.stop().await;
        let again = Node::start(&fixture.another().await);
        assert_eq!(again.begun().await.epoch, 2, "it is bumped once");
        again.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_runs_through_a_failover_begins_the_new_epoch() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let node = Node::start(&fixture.journal);
    node.begun().await;
    write(&client, &[1], "task.enqueue").await;
    node.relayed(1).await;
    client.batch_execute("update minium.journal_cursor set timeline = timeline + 1").await.unwrap();
    write(&client, &[2], "task.enqueue").await;
    assert_eq!(node.relayed(2).await.epoch, 2);
    assert_dense(&client).await;
    node.stop().await;
}

/// Copies a table as a dump would: its rows, nothing of where they lived.
async fn copy(from: &Client, to: &Client, table: &str, columns: &str) {
    let rows = from.copy_out(&format!("copy (select {columns} from {table}) to stdout")).await.unwrap();
    let rows: Vec<bytes::Bytes> = pin!(rows).try_collect().await.unwrap();
    let sink = to.copy_in(&format!("copy {table} ({columns}) from stdin")).await.unwrap();
    let mut sink = pin!(sink);
    for chunk in rows {
        sink.send(chunk).await.unwrap();
    }
    sink.finish().await.unwrap();
}

#[tokio::test]
async fn a_dump_read_back_keeps_its_offsets_and_what_had_none_gets_one_once() {
    let old = Fixture::new().await;
    let writer = old.client().await;
    write(&writer, &[1, 2, 3], "task.enqueue").await;
    number_all(&writer).await;
    write(&writer, &[4, 5], "task.enqueue").await;

    let new = Fixture::new().await;
    let reader = new.client().await;
    reader.batch_execute("delete from minium.journal_cursor").await.unwrap();
    copy(&writer, &reader, "minium.entry", "seq, xid, at, id, topic, type, subject, trace, late, data").await;
    copy(&writer, &reader, "minium.entry_offset", "\"offset\", at, xid, seq, topic").await;
    let cursor = "epoch, next_offset, snapshot, target, target_seq, system_identifier, timeline, home";
    copy(&writer, &reader, "minium.journal_cursor", cursor).await;
    // the other cluster was far ahead of this one
    let far = "update minium.entry set xid = (xid::text::bigint + 1000000)::text::xid8;
               update minium.entry_offset set xid = (xid::text::bigint + 1000000)::text::xid8;
               update minium.journal_cursor set snapshot = '1000500:1000500:';
               select setval('minium.entry_seq_seq', 5)";
    reader.batch_execute(far).await.unwrap();

    let node = Node::start(&new.journal);
    let position = node.relayed(5).await;
    assert_eq!((position.epoch, position.offset), (2, 5));
    write(&reader, &[6], "task.enqueue").await;
    node.relayed(6).await;
    assert_dense(&reader).await;
    let topics: Vec<_> =
        read_all(&*new.journal.history(), "task", 2).await.iter().map(|r| r.topic.to_string()).collect();
    assert_eq!(topics, (1..=6).map(super::topic).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test]
async fn a_copy_from_the_past_is_noticed_by_who_knows_the_future() {
    let fixture = Fixture::new().await;
    let client = fixture.client().await;
    let node = Node::start(&fixture.journal);
    write(&client, &[1, 2, 3], "task.enqueue").await;
    node.relayed(3).await;
    // everything but the first entry never was; then the connection is lost, as it would be
    let rewind = "begin;
        delete from minium.entry where subject <> '1'; delete from minium.entry_offset where \"offset\" > 1;
        update minium.journal_cursor set next_offset = 2 where next_offset = (select max(next_offset) from minium.journal_cursor);
        delete from minium.journal_cursor where next_offset > 2;
        commit;
        select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'minium'";
    client.batch_execute(rewind).await.unwrap();
    let mut states = node.relay.states();
    let bumped = |s: &RelayState| matches!(s, RelayState::Relaying(p) if p.epoch == 2);
    wait::within("the new epoch", states.wait_for(bumped)).await.unwrap();
    assert_eq!(cursor_epoch(&client).await, 2);
    write(&client, &[9], "task.enqueue").await;
    let position = node.relayed(2).await;
    assert_eq!((position.epoch, position.offset), (2, 2));
    node.stop().await;
}
