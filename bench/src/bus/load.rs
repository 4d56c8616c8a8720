//! The load: all connections on one thread and one epoll, so that its own cost is small and known.
//!
//! Flat out, so many messages may be on their way (published, and not yet with everybody); what a turn of the loop makes
//! room for leaves in one write, as from a client that has more to say: of several publishers one after the other says
//! as much as a write holds. At a steady rate, latency counts from when a message was *due*, so that a stall is not hidden.

use super::conn::{Conn, Phase};
use super::dialect::{Dialect, Role};
use super::histogram::Histogram;
use super::link::Link;
use super::wire::Stamp;
use anyhow::bail;
use memchr::memmem;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustls::ClientConfig;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many handshakes are under way at once.
const OPENING_AT_ONCE: usize = 128;
/// Nothing has happened for so long: it won't.
const QUIET: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 256 * 1024;
/// So much of one publisher waits for its socket, and no more.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
const EVENTS: usize = 512;

/// Who connects where.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) address: String,
    pub(super) dialect: Dialect,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The topic; of several, what stands above `/t/N`.
    pub(super) topic: String,
    pub(super) topics: usize,
    /// To each topic.
    pub(super) subscribers: usize,
    /// One more subscriber, above all topics.
    pub(super) parent: bool,
    /// Is there somebody to publish? One to a topic.
    pub(super) publishers: bool,
    /// So many more subscribers of the first topic never read.
    pub(super) stalled: usize,
}

/// What is published, and how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) size: usize,
    pub(super) time: Duration,
    pub(super) pace: Pace,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// So many messages of all publishers together may be on their way.
    Window(u64),
    /// So many messages a second in all.
    Rate(u64),
}

/// What arrived.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    pub(super) expected: u64,
    /// Came out of order, or twice.
    pub(super) disordered: u64,
    /// From the first message to the last delivery.
    pub(super) time: Duration,
    /// Nanoseconds.
    pub(super) latencies: Histogram,
}

pub(super) struct Load {
    plan: Plan,
    epoll: OwnedFd,
    conns: Vec<Conn>,
    first_publisher: usize,
    events: Vec<Event>,
    buffer: Vec<u8>,
    finder: memmem::Finder<'static>,
    scratch: [Vec<u8>; 2],
    tally: Tally,
    began: Instant,
    /// When something arrived for the last time, since `began`.
    last: Duration,
    ready: usize,
    dead: usize,
    /// How long it took to open everything.
    pub(super) opened_in: Duration,
}

/// A connection that is to be made: for what, to which topic of which number.
struct Place {
    role: Role,
    topic: String,
    number: u16,
    /// How many publishers it hears.
    hears: usize,
}

impl Plan {
    fn topic(&self, number: usize) -> String {
        if self.topics == 1 { self.topic.clone() } else { format!("{}/t/{number}", self.topic) }
    }

    /// How many get each message.
    fn fan(&self) -> u64 {
        self.subscribers as u64 + u64::from(self.parent)
    }

    /// Subscribers of each topic, the one above, those that stall, publishers: in this order.
    fn places(&self) -> Vec<Place> {
        let place = |role, t: usize| Place { role, topic: self.topic(t), number: t as u16, hears: 1 };
        let each =
            |role, count: usize| (0..self.topics).flat_map(move |t| std::iter::repeat_n((role, t), count));
        let mut places: Vec<_> = each(Role::Subscriber, self.subscribers).map(|(r, t)| place(r, t)).collect();
        if self.parent {
            places.push(Place {
                topic: self.topic.clone(),
                hears: self.topics,
                ..place(Role::Subscriber, 0)
            });
        }
        places.extend((0..self.stalled).map(|_| place(Role::Subscriber, 0)));
        places.extend(each(Role::Publisher, usize::from(self.publishers)).map(|(r, t)| place(r, t)));
        places
    }
}

impl Load {
    /// Opens every connection of the plan.
    pub(super) fn open(plan: Plan) -> anyhow::Result<Load> {
        let places = plan.places();
        let publishers = if plan.publishers { plan.topics } else { 0 };
        let mut load = Load {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            conns: Vec::with_capacity(places.len()),
            first_publisher: places.len() - publishers,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; READ_BYTES],
            finder: memmem::Finder::new(b"@@"),
            scratch: Default::default(),
            tally: Tally::default(),
            began: Instant::now(),
            last: Duration::ZERO,
            ready: 0,
            dead: 0,
            opened_in: Duration::ZERO,
            plan,
        };
        while load.ready < places.len() {
            while load.conns.len() < places.len() && load.conns.len() - load.ready < OPENING_AT_ONCE {
                load.connect(&places[load.conns.len()])?;
            }
            load.turn(Duration::from_millis(1))?;
            if let Some(conn) = load.conns.iter().find(|c| load.dead > 0 && c.phase == Phase::Dead) {
                bail!("opening a connection: {}", conn.last_words.as_deref().unwrap_or("it ended"));
            }
            if load.began.elapsed() > load.last + QUIET {
                bail!("{} of {} connections opened, then none", load.ready, places.len());
            }
        }
        load.opened_in = load.began.elapsed();
        let stalled = load.first_publisher - load.plan.stalled..load.first_publisher;
        for conn in &load.conns[stalled] {
            epoll::delete(&load.epoll, conn.link())?;
        }
        Ok(load)
    }

    fn connect(&mut self, place: &Place) -> anyhow::Result<()> {
        let (plan, number) = (&self.plan, self.conns.len());
        let link = Link::open(&plan.address, plan.tls.as_ref())?;
        let mut conn = Conn::open(link, &plan.address, plan.dialect, place.role, &place.topic, number);
        (conn.topic, conn.next) = (place.number, vec![0; place.hears]);
        conn.flush();
        let data = EventData::new_u64(number as u64);
        epoll::add(&self.epoll, conn.link(), data, EventFlags::IN)?;
        self.conns.push(conn);
        Ok(())
    }

    /// Publishes, and waits until everything has arrived, or nothing more does.
    pub(super) fn publish(&mut self, flow: &Flow) -> anyhow::Result<Tally> {
        let publishers = self.conns.len() - self.first_publisher;
        self.tally = Tally::default();
        (self.began, self.last) = (Instant::now(), Duration::ZERO);
        let (mut sent, mut next) = (vec![0; publishers], 0);
        loop {
            let now = self.began.elapsed();
            let sending = now < flow.time;
            let mut pause = Duration::from_millis(5);
            if sending {
                match flow.pace {
                    Pace::Window(window) => self.fill(flow.size, window, &mut sent, &mut next),
                    Pace::Rate(rate) => pause = self.send_due(flow.size, rate, now, &mut sent),
                }
            }
            let expected = sent.iter().sum::<u64>() * self.plan.fan();
            let done = !sending && self.tally.delivered >= expected;
            if done || self.began.elapsed() > self.last.max(Duration::from_secs(1)) + QUIET {
                let tally = std::mem::take(&mut self.tally);
                return Ok(Tally { expected, time: self.last, ..tally });
            }
            self.turn(pause)?;
        }
    }

    /// As many messages as the window has room for. Each publisher says as much as a write holds before it is the next
    /// one's turn; who was next when the room ended is first when there is some.
    fn fill(&mut self, size: usize, window: u64, sent: &mut [u64], next: &mut usize) {
        let under_way = sent.iter().sum::<u64>() - self.tally.delivered / self.plan.fan();
        let mut room = window.saturating_sub(under_way);
        for _ in 0..sent.len() {
            let p = *next;
            let conn = &mut self.conns[self.first_publisher + p];
            let before = sent[p];
            while room > 0 && conn.unsent() < UNSENT_BYTES_MAX {
                let at = self.began.elapsed().as_nanos() as u64;
                let stamp = Stamp { at, publisher: p as u16, sequence: sent[p] };
                conn.publish(&self.plan.topic(p), size, stamp, &mut self.scratch);
                (sent[p], room) = (sent[p] + 1, room - 1);
            }
            if sent[p] > before {
                conn.flush();
                self.watch(p + self.first_publisher);
            }
            if room == 0 {
                break;
            }
            *next = (p + 1) % sent.len();
        }
    }

    /// What is due by now; answers how long it is until the next.
    fn send_due(&mut self, size: usize, rate: u64, now: Duration, sent: &mut [u64]) -> Duration {
        let now = now.as_nanos() as u64;
        loop {
            let count: u64 = sent.iter().sum();
            let due = count * 1_000_000_000 / rate;
            if due > now {
                return Duration::from_nanos(due - now);
            }
            let p = count as usize % sent.len();
            let stamp = Stamp { at: due, publisher: p as u16, sequence: sent[p] };
            let conn = &mut self.conns[self.first_publisher + p];
            conn.publish(&self.plan.topic(p), size, stamp, &mut self.scratch);
            sent[p] += 1;
            conn.flush();
            self.watch(p + self.first_publisher);
        }
    }

    /// Does nothing for so long but answer pings.
    pub(super) fn hold(&mut self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.turn((time - began.elapsed()).min(Duration::from_millis(100)))?;
        }
        Ok(())
    }

    /// Connections that ended, among those that are read.
    pub(super) fn ended(&self) -> usize {
        self.dead
    }

    /// Waits for sockets, at most so long, and reads what is there.
    fn turn(&mut self, pause: Duration) -> anyhow::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let pause = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in &events {
            self.serve(event.data.u64() as usize);
        }
        self.events = events;
        Ok(())
    }

    fn serve(&mut self, number: usize) {
        let (conn, tally) = (&mut self.conns[number], &mut self.tally);
        let before = conn.phase;
        if before == Phase::Dead {
            return;
        }
        if conn.unsent() > 0 {
            conn.flush();
        }
        let now = self.began.elapsed();
        let at = now.as_nanos() as u64;
        conn.readable(&mut self.buffer, &self.finder, |stamp, in_order| {
            tally.delivered += 1;
            tally.disordered += u64::from(!in_order);
            tally.latencies.add(at.saturating_sub(stamp.at));
        });
        self.last = now;
        if before != Phase::Ready && conn.phase == Phase::Ready {
            self.ready += 1;
        }
        if conn.phase == Phase::Dead {
            self.dead += 1;
            // an error would say that it is gone already
            let _gone = epoll::delete(&self.epoll, conn.link());
            return;
        }
        self.watch(number);
    }

    /// Asks to be told when a socket takes more, as long as there is more.
    fn watch(&mut self, number: usize) {
        let conn = &mut self.conns[number];
        let wants = conn.unsent() > 0;
        if wants != std::mem::replace(&mut conn.watched, wants) {
            let flags = if wants { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            // it fails for one that has just ended, which its next read says
            let _gone = epoll::modify(&self.epoll, conn.link(), EventData::new_u64(number as u64), flags);
        }
    }
}
