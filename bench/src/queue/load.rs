//! Loads that everybody is put under alike: drain, bulk enqueue, enqueue one by one, pickup. Each round begins on an empty
//! database, tells what it cost, and fails when a job was lost or done twice.

use super::database::{Database, Meter};
use super::ours::{Claims, Ours};
use super::peers::Drivers;
use super::pgmq::Pgmq;
use super::rows::{self, Who};
use crate::report::{Figures, rounded};
use crate::samples::percentile;
use anyhow::ensure;
use std::time::{Duration, Instant};

/// So many jobs, with arguments of so many bytes as JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) jobs: u64,
    pub(super) bytes: usize,
}

/// Single jobs into an idle queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pickups {
    pub(super) jobs: usize,
    pub(super) every: Duration,
    pub(super) bytes: usize,
}

impl Pickups {
    /// Milliseconds to the start of each handler, from acknowledgement and from call. Who is quicker than the
    /// acknowledgement has less than nothing.
    pub(super) fn delays(&self, times: &[(Instant, Instant)], started: &[Instant]) -> (Vec<f64>, Vec<f64>) {
        let between = |from: Instant, to: Instant| {
            let (later, earlier) = (to.saturating_duration_since(from), from.saturating_duration_since(to));
            (later.as_secs_f64() - earlier.as_secs_f64()) * 1e3
        };
        let each = || times.iter().zip(started);
        let from_ack = each().map(|((_, acked), started)| between(*acked, *started)).collect();
        (from_ack, each().map(|((called, _), started)| between(*called, *started)).collect())
    }
}

/// As much text as makes `{"p":"…"}` so many bytes long.
pub(super) fn filler(bytes: usize) -> String {
    "x".repeat(bytes.saturating_sub(8))
}

/// Jobs of the first, unmeasured drain: connections, prepared statements and just-in-time compilers are warm behind it.
fn warm_up(jobs: u64) -> u64 {
    (jobs / 10).clamp(1, 2_000)
}

/// Whoever is under load.
enum Contestant {
    Ours(Box<Ours>),
    Pgmq(Pgmq),
    Drivers(Drivers),
}

/// A contender on its database.
pub(super) struct Contest<'a> {
    contestant: Contestant,
    database: &'a Database,
}

impl Contest<'_> {
    pub(super) async fn open(who: Who, claims: Claims, database: &Database) -> anyhow::Result<Contest<'_>> {
        let contestant = match who {
            Who::Minium(dress) => Contestant::Ours(Box::new(Ours::open(dress, claims, database).await?)),
            Who::Pgmq => Contestant::Pgmq(Pgmq::open(database).await?),
            Who::Peer(peer) => Contestant::Drivers(Drivers::open(peer, database).await?),
        };
        Ok(Contest { contestant, database })
    }

    fn meter(&self) -> Meter {
        let (drivers, node) = match &self.contestant {
            Contestant::Ours(ours) => (vec![], ours.node().map(|n| n.pid)),
            Contestant::Pgmq(_) => (vec![], None),
            Contestant::Drivers(drivers) => (drivers.pids(), None),
        };
        Meter::begin(self.database, drivers, node)
    }

    async fn bulk(&mut self, work: Work, call: usize) -> anyhow::Result<()> {
        match &mut self.contestant {
            Contestant::Ours(ours) => ours.bulk(work, call).await,
            Contestant::Pgmq(pgmq) => pgmq.bulk(work, call).await,
            Contestant::Drivers(drivers) => drivers.bulk(work, call).await,
        }
    }

    /// Works until every job is done in the database; of a peer, answers how long it took to begin.
    async fn drain(&mut self, jobs: u64) -> anyhow::Result<Option<Duration>> {
        let done = match &mut self.contestant {
            Contestant::Ours(ours) => ours.drain().await?,
            Contestant::Pgmq(pgmq) => pgmq.drain().await?,
            Contestant::Drivers(drivers) => return drivers.drain(jobs, self.database).await.map(Some),
        };
        ensure!(done == jobs, "{jobs} jobs were enqueued, {done} were done");
        Ok(None)
    }

    async fn rest(&mut self, jobs: u64) -> anyhow::Result<()> {
        match &mut self.contestant {
            Contestant::Ours(_) | Contestant::Pgmq(_) => Ok(()),
            Contestant::Drivers(drivers) => drivers.rest(jobs).await,
        }
    }

    /// Where somebody numbers the journal: waits until all of it is. Answers how much was not when it began.
    async fn all_numbered(&self) -> anyhow::Result<Option<i64>> {
        match &self.contestant {
            Contestant::Ours(ours) if ours.node().is_some() => {
                ours.all_numbered(self.database).await.map(Some)
            }
            Contestant::Ours(_) | Contestant::Pgmq(_) | Contestant::Drivers(_) => Ok(None),
        }
    }

    /// Nothing was lost, nothing was doubled, and all is done.
    async fn check_done(&self, jobs: u64) -> anyhow::Result<()> {
        match &self.contestant {
            Contestant::Ours(ours) => ours.check(jobs, "finished", 3, self.database).await,
            Contestant::Pgmq(_) => {
                let kept = Pgmq::kept(self.database).await?;
                ensure!(kept == 0, "{kept} messages were left");
                Ok(())
            }
            Contestant::Drivers(drivers) => drivers.check_done(jobs, self.database).await,
        }
    }

    async fn check_enqueued(&self, jobs: u64) -> anyhow::Result<()> {
        match &self.contestant {
            Contestant::Ours(ours) => ours.check(jobs, "inactive", 1, self.database).await,
            Contestant::Pgmq(_) => {
                let kept = Pgmq::kept(self.database).await?;
                ensure!(kept == jobs as i64, "{jobs} messages were sent, {kept} are there");
                Ok(())
            }
            Contestant::Drivers(drivers) => drivers.check_kept(jobs, self.database).await,
        }
    }

    /// Preloaded jobs that do nothing, worked off.
    pub(super) async fn measure_drain(&mut self, work: Work) -> anyhow::Result<Figures> {
        let warm = Work { jobs: warm_up(work.jobs), ..work };
        self.bulk(warm, rows::BULK).await?;
        self.drain(warm.jobs).await?;
        self.rest(warm.jobs).await?;
        self.bulk(work, rows::BULK).await?;
        self.all_numbered().await?;
        self.database.settle().await?;
        let (mut figures, wal) = (Figures::new(), self.database.wal_position().await?);
        let meter = self.meter();
        let first = self.drain(work.jobs).await?;
        meter.end(work.jobs, &mut figures);
        if let Some(first) = first {
            figures.insert(rows::FIRST.into(), rounded(first.as_secs_f64() * 1e3));
        }
        let wal = self.database.wal_position().await? - wal;
        if let Some(behind) = self.all_numbered().await? {
            figures.insert(rows::BEHIND.into(), rounded(behind as f64));
            figures.insert(rows::RELAYED_SECONDS.into(), rounded(meter.seconds()));
        }
        figures.insert(rows::WAL.into(), rounded((wal as f64 / work.jobs as f64).round()));
        self.rest(work.jobs).await?;
        self.check_done(warm.jobs + work.jobs).await?;
        Ok(figures)
    }

    /// Many jobs in each call.
    pub(super) async fn measure_bulk(&mut self, work: Work, call: usize) -> anyhow::Result<Figures> {
        let warm = Work { jobs: warm_up(work.jobs), ..work };
        self.bulk(warm, call).await?;
        self.database.settle().await?;
        let (mut figures, meter) = (Figures::new(), self.meter());
        self.bulk(work, call).await?;
        meter.end(work.jobs, &mut figures);
        self.check_enqueued(warm.jobs + work.jobs).await?;
        Ok(figures)
    }

    /// One job in each call, each connection waiting for the answer before it sends the next.
    pub(super) async fn measure_singles(
        &mut self,
        work: Work,
        connections: usize,
    ) -> anyhow::Result<Figures> {
        let even = |jobs: u64| jobs.div_ceil(connections as u64) * connections as u64;
        let (warm, work) =
            (Work { jobs: even(warm_up(work.jobs)), ..work }, Work { jobs: even(work.jobs), ..work });
        self.singles(warm, connections).await?;
        self.database.settle().await?;
        let (mut figures, meter) = (Figures::new(), self.meter());
        self.singles(work, connections).await?;
        meter.end(work.jobs, &mut figures);
        self.check_enqueued(warm.jobs + work.jobs).await?;
        Ok(figures)
    }

    async fn singles(&mut self, work: Work, connections: usize) -> anyhow::Result<()> {
        match &mut self.contestant {
            Contestant::Ours(ours) => ours.singles(work, connections).await,
            Contestant::Pgmq(pgmq) => pgmq.singles(work, connections).await,
            Contestant::Drivers(drivers) => drivers.singles(work, connections).await,
        }
    }

    /// Single jobs into an idle queue, from call and acknowledgement to the start of the handler.
    pub(super) async fn measure_pickup(&mut self, pickups: Pickups) -> anyhow::Result<Figures> {
        self.database.settle().await?;
        let (mut figures, meter) = (Figures::new(), self.meter());
        let (mut from_ack, mut from_call) = match &mut self.contestant {
            Contestant::Ours(ours) => ours.pickup(pickups, self.database).await?,
            Contestant::Pgmq(pgmq) => pgmq.pickup(pickups).await?,
            Contestant::Drivers(drivers) => drivers.pickup(pickups).await?,
        };
        meter.end(pickups.jobs as u64, &mut figures);
        // at one job each so many milliseconds it says nothing
        figures.remove(rows::PER_SECOND);
        ensure!(from_ack.len() == pickups.jobs, "{} of {} jobs ran", from_ack.len(), pickups.jobs);
        self.check_done(pickups.jobs as u64).await?;
        for (times, p50, p99) in
            [(&mut from_ack, rows::ACK_P50, rows::ACK_P99), (&mut from_call, rows::CALL_P50, rows::CALL_P99)]
        {
            figures.insert(p50.into(), rounded(percentile(times, 50.0)));
            figures.insert(p99.into(), rounded(percentile(times, 99.0)));
        }
        Ok(figures)
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        match self.contestant {
            Contestant::Ours(ours) => ours.end().await,
            Contestant::Pgmq(_) => Ok(()),
            Contestant::Drivers(drivers) => drivers.end().await,
        }
    }
}
