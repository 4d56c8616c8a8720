//! One contender under one load: what it did, and what CPU and memory that took.

use super::dialect::Dialect;
use super::load::{Flow, Load, Pace, Plan, Tally};
use super::scenario::{self as figure, Contender, Dress, Flood};
use super::server::Running;
use crate::machine;
use crate::report::{Figures, rounded};
use std::time::Duration;

/// So many are there before idle ones are counted.
const FIRST_SESSIONS: usize = 1_000;
/// Every session is pinged within so long, by a server that pings every 30 s.
const HOLD: Duration = Duration::from_secs(32);
/// Peers do not ping that often: their memory alone is taken.
const HOLD_PEER: Duration = Duration::from_secs(1);

/// CPU time of all sides, since it was begun.
struct Watch {
    pid: u32,
    machine: Duration,
    server: Duration,
    client: Duration,
}

impl Watch {
    fn begin(pid: u32) -> anyhow::Result<Watch> {
        let (machine, server) = (machine::cpu_of_machine(), machine::cpu_of(pid)?);
        Ok(Watch { pid, machine, server, client: machine::cpu_of(std::process::id())? })
    }

    /// Adds what was used; answers the server's seconds, at least one tick of the clock that counts them.
    fn end(&self, figures: &mut Figures) -> anyhow::Result<f64> {
        let machine = machine::cpu_of_machine().saturating_sub(self.machine);
        let server = machine::cpu_of(self.pid)?.saturating_sub(self.server);
        let client = machine::cpu_of(std::process::id())?.saturating_sub(self.client);
        let mut put = |name: &str, value: Duration| figures.insert(name.into(), rounded(value.as_secs_f64()));
        put(figure::SERVER_CPU, server);
        put(figure::CLIENT_CPU, client);
        put(figure::FOREIGN_CPU, machine.saturating_sub(server).saturating_sub(client));
        figures.insert(figure::RSS.into(), rounded(machine::rss_of(self.pid)? as f64));
        Ok(server.as_secs_f64().max(0.01))
    }
}

fn plan(server: &Running, contender: &Contender) -> Plan {
    let (dialect, topic) = match contender.dress {
        Dress::Plain | Dress::Stalled => (contender.server.dialect(), "bench"),
        Dress::Checked => (contender.server.dialect(), "bench/checked"),
        Dress::V1 => (Dialect::V1, "bench"),
    };
    Plan {
        address: server.address.clone(),
        dialect,
        tls: server.tls.clone(),
        topic: topic.into(),
        topics: 1,
        subscribers: 1,
        parent: false,
        publishers: true,
        stalled: usize::from(contender.dress == Dress::Stalled),
    }
}

/// Flat out.
pub(super) fn flood(
    server: &Running,
    contender: &Contender,
    flood: &Flood,
    time: Duration,
) -> anyhow::Result<Figures> {
    let Flood { topics, subscribers, parent, size, window } = *flood;
    let plan = Plan { topics, subscribers, parent, ..plan(server, contender) };
    let mut load = Load::open(plan)?;
    let mut figures = Figures::new();
    let watch = Watch::begin(server.pid)?;
    let tally = load.publish(&Flow { size, time, pace: Pace::Window(window) })?;
    let cpu = watch.end(&mut figures)?;
    count(&mut figures, &tally, &load);
    figures.insert(figure::PER_CPU.into(), rounded((tally.delivered as f64 / cpu).round()));
    Ok(figures)
}

/// At a steady rate.
pub(super) fn steady(
    server: &Running,
    contender: &Contender,
    (subscribers, size, rate): (usize, usize, u64),
    time: Duration,
) -> anyhow::Result<Figures> {
    let plan = Plan { subscribers, ..plan(server, contender) };
    let mut load = Load::open(plan)?;
    let mut figures = Figures::new();
    let before = machine::peak_rss_of(server.pid)?;
    let watch = Watch::begin(server.pid)?;
    let tally = load.publish(&Flow { size, time, pace: Pace::Rate(rate) })?;
    let cpu = watch.end(&mut figures)?;
    count(&mut figures, &tally, &load);
    figures.insert(figure::PER_CPU.into(), rounded((tally.delivered as f64 / cpu).round()));
    for (name, percent) in [(figure::P50, 50.0), (figure::P99, 99.0), (figure::P999, 99.9)] {
        figures.insert(name.into(), rounded(tally.latencies.percentile(percent) as f64 / 1e6));
    }
    let grown = machine::peak_rss_of(server.pid)?.saturating_sub(before);
    figures.insert(figure::PEAK_GROWTH.into(), rounded(grown as f64));
    Ok(figures)
}

/// Sessions that do nothing.
pub(super) fn idle(server: &Running, contender: &Contender, sessions: usize) -> anyhow::Result<Figures> {
    let plan = Plan { subscribers: sessions, publishers: false, ..plan(server, contender) };
    // what the first ones cost once, code that is touched and buffers that are kept, is nobody's share
    let _first = Load::open(Plan { subscribers: FIRST_SESSIONS, ..plan.clone() })?;
    let before = machine::rss_of(server.pid)?;
    let mut load = Load::open(plan)?;
    let mut figures = Figures::new();
    let hold = if contender.server.is_peer() { HOLD_PEER } else { HOLD };
    let watch = Watch::begin(server.pid)?;
    load.hold(hold)?;
    let cpu = watch.end(&mut figures)?;
    let grown = machine::rss_of(server.pid)?.saturating_sub(before);
    figures.insert(figure::RSS_EACH.into(), rounded((grown as f64 / sessions as f64).round()));
    figures.insert(figure::SECONDS.into(), rounded(hold.as_secs_f64()));
    figures.insert(figure::ENDED.into(), rounded(load.ended() as f64));
    if !contender.server.is_peer() {
        figures.insert(figure::CPU_PERCENT.into(), rounded(100.0 * cpu / hold.as_secs_f64()));
    }
    Ok(figures)
}

/// Opening sessions.
pub(super) fn openings(server: &Running, contender: &Contender, sessions: usize) -> anyhow::Result<Figures> {
    let plan = Plan { subscribers: sessions, publishers: false, ..plan(server, contender) };
    let mut figures = Figures::new();
    let watch = Watch::begin(server.pid)?;
    let load = Load::open(plan)?;
    let cpu = watch.end(&mut figures)?;
    let (count, seconds) = (sessions as f64, load.opened_in.as_secs_f64());
    figures.insert(figure::SECONDS.into(), rounded(seconds));
    figures.insert(figure::ENDED.into(), rounded(load.ended() as f64));
    figures.insert(figure::OPENINGS.into(), rounded((count / seconds).round()));
    figures.insert(figure::OPENINGS_PER_CPU.into(), rounded((count / cpu).round()));
    Ok(figures)
}

fn count(figures: &mut Figures, tally: &Tally, load: &Load) {
    let seconds = tally.time.as_secs_f64();
    let mut put = |name: &str, value: f64| figures.insert(name.into(), rounded(value));
    put(figure::SECONDS, seconds);
    put(figure::PER_SECOND, (tally.delivered as f64 / seconds).round());
    put(figure::LOST, tally.expected as f64 - tally.delivered as f64);
    put(figure::DISORDERED, tally.disordered as f64);
    put(figure::ENDED, load.ended() as f64);
}
