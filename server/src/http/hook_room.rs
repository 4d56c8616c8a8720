//! Room for the bodies of deliveries: so many at one moment, and so many of them from one address.
//!
//! A body has to be read before its signature can be judged, so strangers hold this room, and whoever sends slowly holds
//! it for long. What must hold: one address never has more than its share, so it keeps nobody else out; and whoever
//! waits for his share has nothing of the room yet.

use super::limit::{Remote, one_client};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// Bodies of deliveries that are in memory at one moment.
pub(crate) const BODIES_MAX: usize = 32;

/// Bodies that are in memory now.
pub(super) const BODIES: &str = "minium_hooks_bodies";
/// Deliveries that found no room in time, by `full`.
pub(super) const CROWDED: &str = "minium_hooks_crowded_total";

/// Addresses that have gone are looked for when so many are known, or twice as many as were left the last time.
const SWEEP_MIN: usize = 64;

/// The room.
#[derive(Debug)]
pub(crate) struct BodyRoom {
    all: Semaphore,
    /// So much of it one address has at most.
    share: usize,
    shares: Mutex<Shares>,
}

/// Shares that somebody has or waits for. There are no more of them than there are requests.
#[derive(Debug)]
struct Shares {
    by_address: HashMap<IpAddr, Weak<Semaphore>>,
    sweep_at: usize,
}

/// Room for one body, as long as this lives.
#[derive(Debug)]
pub(super) struct Held<'a> {
    _share: OwnedSemaphorePermit,
    _room: SemaphorePermit<'a>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The address has its share.
    Address,
    /// All of it is held, by several.
    Node,
}

impl Full {
    fn label(self) -> &'static str {
        match self {
            Full::Address => "address",
            Full::Node => "node",
        }
    }
}

impl BodyRoom {
    /// With so much for one address.
    pub(crate) fn new(share: usize) -> BodyRoom {
        let shares = Shares { by_address: HashMap::new(), sweep_at: SWEEP_MIN };
        BodyRoom { all: Semaphore::new(BODIES_MAX), share, shares: Mutex::new(shares) }
    }

    /// Waits for room, no longer than `patience`.
    pub(super) async fn take(&self, remote: Option<&Remote>, patience: Duration) -> Result<Held<'_>, Full> {
        let taken = self.within(remote, Instant::now() + patience).await;
        match &taken {
            Ok(_) => metrics::gauge!(BODIES).increment(1.0),
            Err(full) => metrics::counter!(CROWDED, "full" => full.label()).increment(1),
        }
        taken
    }

    async fn within(&self, remote: Option<&Remote>, deadline: Instant) -> Result<Held<'_>, Full> {
        // who has no address shares one with all who have none
        let address = remote.map_or(Ipv4Addr::UNSPECIFIED.into(), |remote| one_client(remote.0.ip()));
        let share = timeout_at(deadline, self.share_of(address).acquire_owned()).await;
        let share = share.ok().and_then(Result::ok).ok_or(Full::Address)?;
        let room = timeout_at(deadline, self.all.acquire()).await;
        let room = room.ok().and_then(Result::ok).ok_or(Full::Node)?;
        Ok(Held { _share: share, _room: room })
    }

    fn share_of(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.by_address.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        if shares.by_address.len() >= shares.sweep_at {
            shares.by_address.retain(|_, share| share.strong_count() > 0);
            shares.sweep_at = SWEEP_MIN.max(shares.by_address.len() * 2);
        }
        let share = Arc::new(Semaphore::new(self.share));
        shares.by_address.insert(address, Arc::downgrade(&share));
        share
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        metrics::gauge!(BODIES).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn from(address: &str) -> Remote {
        Remote(SocketAddr::new(address.parse().unwrap(), 4_711))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_and_others_have_theirs() {
        let room = BodyRoom::new(4);
        let take = async |address: &str| room.take(Some(&from(address)), PATIENCE).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(take("10.0.0.1").await.unwrap());
        }
        assert_eq!(take("10.0.0.1").await.unwrap_err(), Full::Address);
        assert_eq!(take("::ffff:10.0.0.1").await.unwrap_err(), Full::Address, "the same, spelled as IPv6");
        for n in 0..4 {
            held.push(take(&format!("2001:db8::{n}")).await.unwrap());
        }
        assert_eq!(take("2001:db8::9").await.unwrap_err(), Full::Address, "a network of IPv6 is one client");
        held.push(take("2001:db8:0:1::1").await.unwrap());
        drop(held);
        take("10.0.0.1").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_comes_in_when_there_is_room() {
        let room = BodyRoom::new(1);
        let one = from("10.0.0.1");
        let held = room.take(Some(&one), PATIENCE).await.unwrap();
        let waits = room.take(Some(&one), PATIENCE);
        let leaves = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(held);
        };
        let (came, ()) = tokio::join!(waits, leaves);
        came.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_it_is_bounded_and_those_who_wait_have_nothing() {
        let room = BodyRoom::new(4);
        let take = async |n: u8| room.take(Some(&from(&format!("10.0.0.{n}"))), PATIENCE).await;
        let mut held = Vec::new();
        for n in 0..32 {
            held.push(take(n / 4).await.unwrap());
        }
        assert_eq!(take(100).await.unwrap_err(), Full::Node);
        held.pop();
        take(100).await.unwrap();
    }

    #[tokio::test]
    async fn addresses_that_are_gone_are_forgotten() {
        let room = BodyRoom::new(4);
        for n in 0..10_000u32 {
            let remote = Remote(SocketAddr::new(Ipv4Addr::from_bits(n).into(), 1));
            drop(room.take(Some(&remote), PATIENCE).await.unwrap());
        }
        assert!(room.shares.lock().unwrap().by_address.len() <= SWEEP_MIN);
    }
}
