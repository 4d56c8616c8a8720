//! Rates over HTTP: how many sessions an address may open, and how many messages a token, or an address without one,
//! may send. Messages on sockets are the bus's to count.

use super::problem::Refusal;
use crate::config::{Config, rate};
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::header::{HeaderValue, RETRY_AFTER};
use minium_bus::{Grant, Rate};
use minium_protocol::ErrorCode;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Addresses that are counted at one moment. So many that are all busy are refused more.
const ADDRESSES_MAX: usize = 65_536;

/// Where a request comes from; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

type Store = HashMapStateStore<IpAddr>;

/// One rate for each address.
struct Addresses(RateLimiter<IpAddr, Store, DefaultClock>);

impl Addresses {
    fn new(rate: Rate) -> Addresses {
        Addresses(RateLimiter::hashmap(Quota::per_second(rate.per_second).allow_burst(rate.burst)))
    }

    fn take(&self, address: IpAddr) -> Result<(), Duration> {
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain_recent();
            self.0.shrink_to_fit();
            if self.0.len() >= ADDRESSES_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        self.0
            .check_key(&one_client(address))
            .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }
}

/// Whoever has one IPv6 address has all of its network.
pub(super) fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The rates of a node; all of them may be absent.
#[derive(Default)]
pub(crate) struct Limiter {
    openings: Option<Addresses>,
    messages: Option<Addresses>,
}

impl Limiter {
    /// As the configuration says.
    pub(crate) fn new(config: &Config) -> Limiter {
        let limits = &config.server.limits;
        let openings = rate(limits.openings_per_second, limits.openings_burst);
        let messages = rate(limits.session_messages_per_second, limits.session_messages_burst);
        Limiter { openings: openings.map(Addresses::new), messages: messages.map(Addresses::new) }
    }

    /// One session more from this address.
    pub(super) fn opening(&self, remote: Option<&Remote>) -> Result<(), Refusal> {
        let (Some(openings), Some(remote)) = (&self.openings, remote) else { return Ok(()) };
        openings.take(remote.0.ip()).map_err(|wait| later(wait, "this address opens sessions too fast"))
    }

    /// One message, or one request that changes something: a token's, or this address's.
    pub(super) fn message(&self, grant: Option<&Grant>, remote: Option<&Remote>) -> Result<(), Refusal> {
        let named = grant.filter(|grant| grant.key.is_some());
        if let Some(allowance) = named.and_then(|grant| grant.allowance.as_ref()) {
            return allowance.take(1).map_err(|wait| later(wait, "this token sends too fast"));
        }
        match (&self.messages, remote) {
            (Some(messages), Some(remote)) if named.is_none() => {
                messages.take(remote.0.ip()).map_err(|wait| later(wait, "this address sends too fast"))
            }
            _ => Ok(()),
        }
    }
}

fn later(wait: Duration, detail: &str) -> Refusal {
    let seconds = (wait.as_secs_f64().ceil() as u64).max(1);
    Refusal::new(ErrorCode::RateLimited, detail).with_header(RETRY_AFTER, HeaderValue::from(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZero;

    fn addresses(burst: u32) -> Addresses {
        let count = |n| NonZero::new(n).unwrap();
        Addresses::new(Rate { per_second: count(1), burst: count(burst) })
    }

    #[test]
    fn each_address_has_a_rate_of_its_own() {
        let addresses = addresses(2);
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert!(addresses.take(one).is_ok() && addresses.take(one).is_ok());
        let wait = addresses.take(one).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
        assert!(addresses.take(other).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |text: &str| one_client(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1:2:3"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"), "the same address, spelled as IPv6");
        assert_ne!(client("::ffff:10.0.0.1"), client("::ffff:10.0.0.2"));
    }

    #[test]
    fn addresses_are_forgotten_and_never_too_many() {
        let addresses = addresses(1);
        for n in 0..ADDRESSES_MAX as u32 + 10 {
            addresses.take(IpAddr::V4(n.into())).ok();
            assert!(addresses.0.len() <= ADDRESSES_MAX);
        }
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        use axum::response::IntoResponse;
        for (wait, told) in [(1, "1"), (999, "1"), (1_001, "2")] {
            let response = later(Duration::from_millis(wait), "x").into_response();
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()[RETRY_AFTER], told);
        }
    }
}
