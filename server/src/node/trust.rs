//! The rules of a node: who may do what, from the configuration at start, and again on SIGHUP.

use super::asked::Asked;
use crate::auth::{Auth, Current, Table, build};
use crate::config::Config;
use crate::exit::{Exit, fault};
use crate::http::origin::Rules;
use minium_bus::{Bus, Grant, Review};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Reads the configuration again.
pub(crate) type Reread = Arc<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// What does not change while the node runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Where it listens, or that of several addresses by which most can come.
    pub(super) address: SocketAddr,
    /// Whoever reaches the port may do everything.
    pub(super) insecure: bool,
}

impl Place {
    /// Must somebody who comes show who they are? Refused where everybody could come who has to show nothing.
    fn check(self, guarded: bool) -> anyhow::Result<()> {
        if guarded && self.insecure {
            let words = "[auth] says who may do what, and --insecure-no-auth that nobody is asked: take away one of them";
            return Err(fault(Exit::Usage, words));
        }
        if guarded || self.insecure || self.address.ip().is_loopback() {
            return Ok(());
        }
        Err(fault(
            Exit::Usage,
            format!(
                "A node on {} without keys in [auth] would be open to everybody who reaches it. Configure \
                 [auth.keys], listen on 127.0.0.1, or say --insecure-no-auth if that is what you want",
                self.address
            ),
        ))
    }
}

/// Says at the start that whoever listens on the way reads tokens.
pub(super) fn mind_tokens(config: &Config, place: Place, tls: bool) {
    let address = place.address;
    if config.is_guarded() && !tls && !address.ip().is_loopback() {
        warn!("Tokens go over plain HTTP on {address}: use [server.tls], or a proxy that speaks TLS.");
    }
}

/// The rules as the configuration has them; `old` are those before.
pub(super) fn rules(config: &Config, place: Place, old: Option<&Table>) -> anyhow::Result<Current> {
    place.check(config.is_guarded())?;
    let table =
        build(config, old).map_err(|wrong| fault(Exit::Usage, format!("[auth]: {}", wrong.join("; "))))?;
    let origins = Rules {
        allowed: config.auth.allowed_origins.iter().filter_map(|o| o.parse().ok()).collect(),
        required: config.auth.require_origin,
        public_url: config.server.public_url.as_ref().map(|url| url.0.clone()),
        loopback_only: !table.is_guarded() && !place.insecure,
    };
    Ok(Current { table, origins })
}

/// Who works with the rules.
pub(super) struct Watch {
    pub(super) auth: Arc<Auth>,
    pub(super) bus: Bus,
    pub(super) place: Place,
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
    /// An upgrade takes no longer than that.
    pub(super) patience: Duration,
}

/// Reads the rules again whenever it is asked to, and has all sessions judged by them. Rules that are wrong leave those
/// before.
pub(super) async fn watch(watch: Watch, reread: Reread, asked: Arc<Asked>) {
    let Watch { auth, bus, place, tasks, closing, patience } = watch;
    let judge = auth.clone();
    let review: Arc<Review> = Arc::new(move |grant: Option<&Grant>| judge.judge(grant));
    let rounds = async {
        loop {
            asked.notified().await;
            let (reread, old) = (reread.clone(), auth.now());
            // files are read where nobody waits for them
            let read = move || {
                let config = reread()?;
                rules(&config, place, Some(&old.table))
            };
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok(current)) => {
                    current.table.keep_sets(&tasks, &closing);
                    auth.replace(current);
                    bus.review(&review);
                    info!("Who may do what was read again.");
                    // those whose upgrade was on its way by the old rules
                    let (bus, review) = (bus.clone(), review.clone());
                    let late = async move {
                        tokio::time::sleep(patience).await;
                        bus.review(&review);
                    };
                    tasks.spawn(closing.clone().run_until_cancelled_owned(late));
                }
                Ok(Err(error)) => {
                    error!(error = format!("{error:#}"), "[auth] cannot be read again; it stays as it was.")
                }
                Err(_) => return,
            }
        }
    };
    closing.run_until_cancelled(rounds).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_let_in_unasked_by_mistake() {
        let place = |address: &str, insecure| Place { address: address.parse().unwrap(), insecure };
        for (address, insecure, guarded, good) in [
            ("127.0.0.1:1", false, false, true),
            ("127.0.0.1:1", false, true, true),
            ("[::1]:1", false, false, true),
            ("0.0.0.0:1", false, false, false),
            ("10.0.0.1:1", false, false, false),
            ("0.0.0.0:1", false, true, true),
            ("0.0.0.0:1", true, false, true),
            ("127.0.0.1:1", true, true, false),
        ] {
            let got = place(address, insecure).check(guarded).is_ok();
            assert_eq!(got, good, "{address} insecure={insecure} guarded={guarded}");
        }
    }
}
