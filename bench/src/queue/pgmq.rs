//! pgmq's way, written down as plain SQL: its table of a queue, and what its functions `send`, `send_batch`, `read`,
//! `delete` do, as prepared statements. The functions themselves put their text together and plan it at each call, so
//! this is a little faster than the extension. A message has no states, no retries and no result: a lower bound on work.

use super::database::{Connection, Database};
use super::load::{Pickups, Work, filler};
use anyhow::ensure;
use futures::future::try_join_all;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio_postgres::Statement;

/// How many messages one read takes.
const READ: i64 = 100;
/// `read_with_poll` looks so often by default.
const POLL: Duration = Duration::from_millis(100);
const CONNECTIONS: usize = 2;

const TABLES: &str = "
create schema pgmq;
create table pgmq.q_noop (
  msg_id       bigint primary key generated always as identity,
  read_ct      int default 0 not null,
  enqueued_at  timestamptz default now() not null,
  vt           timestamptz not null,
  message      jsonb,
  headers      jsonb
);
create index q_noop_vt_idx on pgmq.q_noop (vt asc)";

const SEND: &str = "
insert into pgmq.q_noop (vt, message, headers) values (clock_timestamp(), $1::text::jsonb, null) returning msg_id";

const SEND_BATCH: &str = "
insert into pgmq.q_noop (vt, message, headers)
select clock_timestamp(), unnest($1::text[])::jsonb, null returning msg_id";

const READ_SOME: &str = "
with cte as (
  select msg_id from pgmq.q_noop where vt <= clock_timestamp() order by msg_id asc limit $1 for update skip locked)
update pgmq.q_noop m
   set vt = clock_timestamp() + interval '60 seconds', read_ct = read_ct + 1
  from cte where m.msg_id = cte.msg_id
returning m.msg_id, m.read_ct, m.enqueued_at, m.vt, m.message, m.headers";

const DELETE: &str = "delete from pgmq.q_noop where msg_id = any ($1) returning msg_id";

pub(super) struct Pgmq {
    all: Vec<Prepared>,
}

struct Prepared {
    connection: Connection,
    send: Statement,
    send_batch: Statement,
    read: Statement,
    delete: Statement,
}

impl Pgmq {
    /// As many connections as any load needs.
    pub(super) async fn open(database: &Database) -> anyhow::Result<Pgmq> {
        database.look.client.batch_execute(TABLES).await?;
        let mut all = Vec::new();
        for _ in 0..4 {
            let connection = database.connect().await?;
            let client = &connection.client;
            let (send, send_batch) = (client.prepare(SEND).await?, client.prepare(SEND_BATCH).await?);
            let (read, delete) = (client.prepare(READ_SOME).await?, client.prepare(DELETE).await?);
            all.push(Prepared { connection, send, send_batch, read, delete });
        }
        Ok(Pgmq { all })
    }

    pub(super) async fn bulk(&self, work: Work, call: usize) -> anyhow::Result<()> {
        let mut left = work.jobs as usize;
        while left > 0 {
            let messages = vec![json!({ "p": filler(work.bytes) }).to_string(); left.min(call)];
            left -= messages.len();
            let one = &self.all[0];
            let ids = one.connection.client.query(&one.send_batch, &[&messages]).await?;
            ensure!(ids.len() == messages.len(), "{} of {} messages were sent", ids.len(), messages.len());
        }
        Ok(())
    }

    pub(super) async fn singles(&self, work: Work, connections: usize) -> anyhow::Result<()> {
        let each = async |one: &Prepared| -> anyhow::Result<()> {
            for _ in 0..work.jobs as usize / connections {
                one.send(&json!({ "p": filler(work.bytes) }).to_string()).await?;
            }
            Ok(())
        };
        try_join_all(self.all.iter().take(connections).map(each)).await.map(drop)
    }

    /// Two connections, each reading, doing nothing, and deleting, until there is nothing; answers how many there were.
    pub(super) async fn drain(&self) -> anyhow::Result<u64> {
        let each = async |one: &Prepared| -> anyhow::Result<u64> {
            let mut done = 0;
            loop {
                let ids = one.read(READ).await?;
                if ids.is_empty() {
                    return Ok(done);
                }
                done += one.delete(&ids).await?;
            }
        };
        let done = try_join_all(self.all.iter().take(CONNECTIONS).map(each)).await?;
        Ok(done.iter().sum())
    }

    pub(super) async fn pickup(&self, pickups: Pickups) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let sender = async {
            let (mut clock, mut times) = (tokio::time::interval(pickups.every), Vec::new());
            for n in 0..pickups.jobs {
                clock.tick().await;
                let called = Instant::now();
                self.all[0].send(&json!({ "p": filler(pickups.bytes), "n": n }).to_string()).await?;
                times.push((called, Instant::now()));
            }
            anyhow::Ok(times)
        };
        let receiver = async {
            let (one, mut started) = (&self.all[1], Vec::new());
            while started.len() < pickups.jobs {
                // one connection sends, in the order of the ids
                let ids = one.read(1).await?;
                if ids.is_empty() {
                    tokio::time::sleep(POLL).await;
                } else {
                    started.push(Instant::now());
                    one.delete(&ids).await?;
                }
            }
            anyhow::Ok(started)
        };
        let (times, started) = tokio::try_join!(sender, receiver)?;
        Ok(pickups.delays(&times, &started))
    }

    pub(super) async fn kept(database: &Database) -> anyhow::Result<i64> {
        database.number("select count(*) from pgmq.q_noop").await
    }
}

impl Prepared {
    async fn send(&self, message: &str) -> anyhow::Result<()> {
        self.connection.client.query_one(&self.send, &[&message]).await?;
        Ok(())
    }

    async fn read(&self, count: i64) -> anyhow::Result<Vec<i64>> {
        let rows = self.connection.client.query(&self.read, &[&count]).await?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    async fn delete(&self, ids: &[i64]) -> anyhow::Result<u64> {
        Ok(self.connection.client.query(&self.delete, &[&ids]).await?.len() as u64)
    }
}
