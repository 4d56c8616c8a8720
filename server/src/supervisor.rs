//! Whoever started this process and wants to hear how it is: systemd's protocol, datagrams to `NOTIFY_SOCKET`.
//!
//! The socket is opened once and hardly waited for: a supervisor that does not read loses words, and the process goes on.
//! Without one every word goes nowhere. What is said, and when, is decided by those who know: [`crate::node`] and the
//! worker's command.

use sd_notify::NotifyState as Word;
use std::convert::Infallible;
use std::fmt::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};

/// Names the supervisor's socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// A supervisor that is busy is given so long to take a word. They are few, and some of them are said only once.
const SAY_WITHIN: Duration = Duration::from_millis(100);
/// While something takes long, the supervisor is asked for patience so often, and each time for [`EXTENSION`].
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Far more than [`ASK_AGAIN`]: on a machine that is busy the next word may be late.
const EXTENSION: Duration = Duration::from_secs(60);
/// Who waits longer for what does not come is up without it: whoever waits for the start must not hang for ever.
const UP_AFTER: Duration = Duration::from_secs(60);

/// The one who started this process, if he wants to hear of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervisor {
    socket: Option<Arc<UnixDatagram>>,
}

impl Supervisor {
    /// As the environment says.
    pub(crate) fn of_environment() -> Supervisor {
        let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else {
            return Supervisor::default();
        };
        let open = || {
            let address = match name.as_encoded_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&name)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.set_write_timeout(Some(SAY_WITHIN))?;
            Ok::<_, std::io::Error>(socket)
        };
        match open() {
            Ok(socket) => Supervisor { socket: Some(Arc::new(socket)) },
            Err(error) => {
                warn!(%error, "The supervisor that NOTIFY_SOCKET names cannot be told anything.");
                Supervisor::default()
            }
        }
    }

    /// Does anybody want to hear anything?
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    fn say(&self, words: &[Word<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut text = String::new();
        for word in words {
            writeln!(text, "{word}").ok();
        }
        if let Err(error) = socket.send(text.as_bytes()) {
            debug!(%error, "The supervisor could not be told how this process is.");
        }
    }

    /// What it does now, in words for `systemctl status`.
    pub(crate) fn status(&self, words: &str) {
        self.say(&[Word::Status(&one_line(words))]);
    }

    /// It has come up, or has read again what it was told to.
    pub(crate) fn ready(&self, words: &str) {
        self.say(&[Word::Ready, Word::Status(&one_line(words))]);
    }

    /// It reads its configuration again, until it is [`Supervisor::ready`].
    pub(crate) fn reloading(&self) {
        // without the time newer systemds take it for an earlier reload
        let since = Word::monotonic_usec_now().ok();
        let words = [Word::Reloading, Word::Status("Reading the configuration again")];
        self.say(&words.into_iter().chain(since).collect::<Vec<_>>());
    }

    /// It goes down.
    pub(crate) fn stopping(&self, words: &str) {
        self.say(&[Word::Stopping, Word::Status(&one_line(words))]);
    }

    /// Asks for patience as long as this takes.
    pub(crate) async fn patiently<T>(&self, what: impl Future<Output = T>) -> T {
        let usec = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
        let mut what = std::pin::pin!(what);
        loop {
            self.say(&[Word::ExtendTimeoutUsec(usec)]);
            if let Ok(done) = tokio::time::timeout(ASK_AGAIN, &mut what).await {
                return done;
            }
        }
    }

    /// Waits for something without which it is not up; where that takes very long, it is up all the same, and waits on.
    pub(crate) async fn up_with<T>(&self, what: impl Future<Output = T>, waiting: &str) -> T {
        let mut what = std::pin::pin!(what);
        self.status(waiting);
        match self.patiently(tokio::time::timeout(UP_AFTER, &mut what)).await {
            Ok(done) => done,
            Err(_) => {
                self.ready(waiting);
                what.await
            }
        }
    }

    /// Says again and again that the process is alive, after `turn` has gone through: as often as the supervisor wants
    /// to hear it, and as long as `turn` answers yes. Whatever a turn waits for is what the supervisor judges by.
    pub(crate) async fn keep_alive<Turn: Future<Output = bool>>(&self, turn: impl Fn() -> Turn) {
        let Some(patience) = sd_notify::watchdog_enabled().filter(|_| self.socket.is_some()) else { return };
        self.beat(patience / 2, turn).await;
    }

    /// The same for whoever turns as long as this is polled.
    pub(crate) async fn keep_alive_for_ever(&self) -> Infallible {
        self.keep_alive(|| std::future::ready(true)).await;
        std::future::pending().await
    }

    async fn beat<Turn: Future<Output = bool>>(&self, pause: Duration, turn: impl Fn() -> Turn) {
        let mut beats = tokio::time::interval(pause.max(Duration::from_millis(1)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let mut turning = std::pin::pin!(turn());
            let through = tokio::select! {
                biased;
                through = &mut turning => through,
                () = tokio::time::sleep(pause) => {
                    error!("A part of this process does not turn; its supervisor is not told that it is alive.");
                    turning.await
                }
            };
            if !through {
                return;
            }
            self.say(&[Word::Watchdog]);
        }
    }
}

/// A line is a word of the protocol.
fn one_line(words: &str) -> String {
    words.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::Semaphore;

    fn supervised() -> (Supervisor, UnixDatagram) {
        let (mine, theirs) = UnixDatagram::pair().unwrap();
        mine.set_write_timeout(Some(SAY_WITHIN)).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Supervisor { socket: Some(Arc::new(mine)) }, theirs)
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        let next =
            || socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_status_is_one_line_and_none_is_needed() {
        let (supervisor, hears) = supervised();
        supervisor.ready("well\nREADY=0");
        supervisor.reloading();
        let heard = heard(&hears);
        assert_eq!(heard[0], "READY=1\nSTATUS=well READY=0\n");
        assert!(heard[1].starts_with("RELOADING=1\n") && heard[1].contains("\nMONOTONIC_USEC="), "{heard:?}");
        Supervisor::default().stopping("nobody hears it");
    }

    #[test]
    fn a_supervisor_that_does_not_read_holds_up_nothing() {
        let (supervisor, hears) = supervised();
        let socket = supervisor.socket.as_ref().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.send(b"full").is_ok() {}
        socket.set_nonblocking(false).unwrap();
        supervisor.status("lost");
        assert!(heard(&hears).iter().all(|word| word == "full"), "it was not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_alive_as_long_as_its_turns_go_through() {
        let (supervisor, hears) = supervised();
        let (turns, goes_on) = (Semaphore::new(2), AtomicBool::new(true));
        let turn = || async {
            turns.acquire().await.unwrap().forget();
            goes_on.load(Ordering::Relaxed)
        };
        let pause = Duration::from_secs(5);
        let mut beating = std::pin::pin!(supervisor.beat(pause, turn));
        let mut wait = async |time| _ = tokio::time::timeout(time, &mut beating).await;
        wait(pause * 100).await;
        assert_eq!(heard(&hears), ["WATCHDOG=1\n"; 2], "then a turn hangs");
        turns.add_permits(1);
        wait(pause / 2).await;
        assert_eq!(heard(&hears), ["WATCHDOG=1\n"; 1], "it went through after all");
        goes_on.store(false, Ordering::Relaxed);
        turns.add_permits(100);
        wait(pause * 100).await;
        assert_eq!(heard(&hears), [""; 0], "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_not_waited_for_for_ever() {
        let (supervisor, hears) = supervised();
        supervisor.up_with(async {}, "soon").await;
        assert!(!heard(&hears).iter().any(|word| word.contains("READY")), "who called says it");
        supervisor.up_with(tokio::time::sleep(UP_AFTER * 2), "waiting").await;
        let words = heard(&hears);
        assert_eq!(words.iter().filter(|word| *word == "READY=1\nSTATUS=waiting\n").count(), 1, "{words:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_asked_for_as_long_as_it_takes() {
        let (supervisor, hears) = supervised();
        let long = tokio::time::sleep(EXTENSION * 10);
        supervisor.patiently(long).await;
        let asked = heard(&hears);
        assert!(
            asked.len() > 100 && asked.iter().all(|a| a == "EXTEND_TIMEOUT_USEC=60000000\n"),
            "{asked:?}"
        );
    }
}
