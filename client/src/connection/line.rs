//! The task behind one socket, and the one after it, and so on: it connects, comes back, and moves what handles say and
//! what the server says between the socket and the [`Desk`].
//!
//! While a handle does not take what is for it, the socket is not read: so a slow program slows its sender by the
//! socket itself. Pings cannot be read then either; pongs that nobody asked for (RFC 6455, 5.5.3) say that we live.

use super::board::Board;
use super::desk::{Command, Desk, Left};
use super::frames::read;
use super::options::ConnectOptions;
use super::wire::{Turn, Wire};
use crate::client::{Client, Mode};
use crate::error::ClientError;
use crate::socket::{self, Refused, Route};
use crate::subscription::wait_in;
use minium_protocol::{CloseCode, ErrorCode};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

/// Silence is looked at so often within the time after which a silent server is pinged.
const LOOKS: u32 = 4;
/// The longest wait that a server may ask for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The end of a line that handles hold. When the last one is gone, so is the line.
#[derive(Debug)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    gone: Arc<Gone>,
    ended: Arc<OnceLock<ClientError>>,
    _stop: DropGuard,
}

/// What handles that were dropped left behind. As many as there are handles at most.
#[derive(Debug, Default)]
struct Gone {
    left: Mutex<Vec<Left>>,
    notify: Notify,
}

impl Handle {
    /// Asks for something. Waits while too much is asked for.
    ///
    /// # Errors
    /// When the line has ended: why.
    pub(super) async fn ask(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| self.why())
    }

    /// Why it ended.
    pub(super) fn why(&self) -> ClientError {
        self.ended.get().map_or(ClientError::ClientClosed, ClientError::again)
    }

    /// Why it ended, unless that was orderly.
    pub(super) fn failure(&self) -> Option<ClientError> {
        self.ended.get().map(ClientError::again)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.commands.is_closed()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Tells of a handle that is gone.
    pub(super) fn leave(&self, left: Left) {
        self.gone.left.lock().expect("nobody panics while holding the list").push(left);
        self.gone.notify.notify_one();
    }
}

impl Gone {
    fn take(&self) -> Vec<Left> {
        std::mem::take(&mut *self.left.lock().expect("nobody panics while holding the list"))
    }
}

pub(super) struct Line {
    /// Nodes, and whose turn it is.
    clients: Vec<Client>,
    turn: usize,
    serial: u64,
    options: Arc<ConnectOptions>,
    board: Arc<Board>,
    desk: Desk,
    commands: mpsc::Receiver<Command>,
    gone: Arc<Gone>,
    ended: Arc<OnceLock<ClientError>>,
    stop: CancellationToken,
    /// In a row, since something came.
    failures: u32,
    connected: bool,
    random: fastrand::Rng,
}

/// How a socket ended.
enum End {
    /// Orderly: nothing more is to come.
    Over,
    /// This one is of no use any more: another one, now.
    Anew,
    /// The node goes down: elsewhere.
    Drain,
    /// Otherwise. The error decides whether to come back.
    Broken(Refused),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> End {
        End::Broken(error.into())
    }
}

impl Line {
    /// Starts one. It connects by itself.
    pub(super) fn start(
        clients: Vec<Client>,
        serial: u64,
        options: Arc<ConnectOptions>,
        board: Arc<Board>,
        stop: CancellationToken,
    ) -> Handle {
        let client = clients[0].clone();
        let (commands, taken) = mpsc::channel(client.options().buffered_messages_max.max(1));
        let (gone, ended) = (Arc::<Gone>::default(), Arc::<OnceLock<_>>::default());
        board.connecting(serial, 0, None);
        let line = Line {
            clients,
            turn: 0,
            serial,
            options,
            board,
            desk: Desk::default(),
            commands: taken,
            gone: gone.clone(),
            ended: ended.clone(),
            stop: stop.clone(),
            failures: 0,
            connected: false,
            random: fastrand::Rng::new(),
        };
        client.tasks().spawn(line.run());
        Handle { commands, gone, ended, _stop: stop.drop_guard() }
    }

    async fn run(mut self) {
        let error = match self.go_on().await {
            Ok(()) => ClientError::ClientClosed,
            Err(error) => {
                debug!(%error, "A connection ended.");
                // set once, and before anybody can see that it has ended
                self.ended.set(error.again()).ok();
                error
            }
        };
        self.desk.end(&error);
        self.commands.close();
        self.board.ended(self.serial);
    }

    /// One socket after the other, until an orderly end or an error that coming back does not mend.
    async fn go_on(&mut self) -> Result<(), ClientError> {
        let stop = self.stop.clone();
        loop {
            let route = Route { path: "ws".into(), query: vec![], mode: Mode::V1 };
            let opening = socket::open(self.client(), &route);
            let end = match stop.run_until_cancelled(opening).await {
                None => return Ok(()),
                Some(Err(refused)) => End::Broken(refused),
                Some(Ok(opened)) => {
                    self.connected = true;
                    self.board.open(self.serial);
                    // boxed, since it is large
                    Box::pin(self.live(Wire::new(opened.stream))).await
                }
            };
            let (error, wait) = match end {
                End::Over => return Ok(()),
                End::Anew => {
                    self.desk.cut(&socket::cut(self.client(), "a puller left"));
                    continue;
                }
                End::Drain => (socket::cut(self.client(), "the node goes down"), None),
                End::Broken(Refused { error, wait }) => (error, wait),
            };
            self.desk.cut(&error);
            match stop.run_until_cancelled(self.come_back(error, wait)).await {
                None => return Ok(()),
                Some(result) => result?,
            }
        }
    }

    fn client(&self) -> &Client {
        &self.clients[self.turn % self.clients.len()]
    }

    /// Waits until the next attempt, or says that there is none.
    async fn come_back(&mut self, error: ClientError, wait: Option<Duration>) -> Result<(), ClientError> {
        let first = !self.connected && !self.options.patient;
        if error.code() == Some(ErrorCode::Unauthorized) {
            self.renew(error.again()).await?;
        } else if first || !error.is_passing_for(self.connected) {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        let backoff = &self.options.backoff;
        if backoff.gives_up(self.failures) {
            let failures = self.failures;
            return Err(ClientError::GaveUp { failures, last: Box::new(error) });
        }
        self.turn = (self.turn + 1) % self.clients.len();
        let pause =
            backoff.pause(self.failures, &mut self.random).max(wait.unwrap_or_default().min(WAIT_MAX));
        debug!(%error, ?pause, failures = self.failures, "Coming back.");
        self.board.connecting(self.serial, self.failures, Some(error.to_string()));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Gets a new token.
    async fn renew(&mut self, error: ClientError) -> Result<(), ClientError> {
        let Some(tokens) = &self.options.tokens else { return Err(error) };
        let limit = self.client().options().request_timeout;
        let late = |_| ClientError::Timeout { what: "a new token".into(), limit };
        let token = timeout(limit, tokens.token()).await.map_err(late)?.ok_or(error)?;
        for client in &mut self.clients {
            *client = client.with_token(&token)?;
        }
        Ok(())
    }

    /// Lives with one socket to its end.
    async fn live(&mut self, mut wire: Wire) -> End {
        let look_every = self.client().options().idle / LOOKS;
        let mut looks = interval(look_every.max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        let mut silence = Silence::default();
        let mut ask_again: Option<Instant> = None;
        let (stop, gone) = (self.stop.clone(), self.gone.clone());
        self.desk.connected();
        loop {
            let full = self.prepare(&mut wire);
            if self.desk.is_done() && wire.is_written() {
                self.leave(&mut wire).await;
                return End::Over;
            }
            if self.desk.is_stale() {
                self.leave(&mut wire).await;
                return End::Anew;
            }
            if !self.desk.is_waiting() {
                ask_again = None;
            } else if ask_again.is_none() {
                ask_again = Some(Instant::now() + self.options.backoff.pause(3, &mut self.random));
            }
            let unanswered_max = self.options.unanswered_max.max(1);
            let takes = wire.has_room() && self.desk.unanswered() < unanswered_max;
            let again_at = ask_again.unwrap_or_else(Instant::now);
            tokio::select! {
                () = stop.cancelled() => {
                    self.leave(&mut wire).await;
                    return End::Over;
                }
                () = gone.notify.notified() => {}
                // Whoever has no room is waited for; a handle that is dropped counts as room.
                () = room(full.as_ref()), if full.is_some() => {}
                turn = wire.turn(full.is_none()) => {
                    silence.heard(&turn);
                    if let Some(end) = self.turned(&mut wire, turn).await {
                        return end;
                    }
                }
                command = self.commands.recv(), if takes => match command {
                    Some(command) => {
                        self.let_go();
                        self.desk.take(command);
                    }
                    None => {
                        self.leave(&mut wire).await;
                        return End::Over;
                    }
                },
                () = sleep_until(again_at), if ask_again.is_some() => {
                    ask_again = None;
                    self.desk.ask_again();
                }
                _ = looks.tick() => match silence.look(full.is_some()) {
                    Look::Say(frame) if wire.has_room() => wire.say(frame),
                    Look::Say(_) | Look::Wait => {}
                    Look::Dead => {
                        return socket::cut(self.client(), "the server does not answer pings").into();
                    }
                },
            }
        }
    }

    /// Moves what can be moved without waiting. Answers who must make room first.
    fn prepare(&mut self, wire: &mut Wire) -> Option<mpsc::Sender<super::desk::Item>> {
        self.let_go();
        let full = self.desk.deliver();
        while wire.has_room()
            && let Some(frame) = self.desk.next_frame()
        {
            wire.say(Message::text(frame));
        }
        full
    }

    fn let_go(&mut self) {
        for left in self.gone.take() {
            self.desk.left(left);
        }
    }

    /// Acts on what a turn of the socket brought.
    async fn turned(&mut self, wire: &mut Wire, turn: Turn) -> Option<End> {
        let frame = match turn {
            Turn::Written => return None,
            Turn::Ended => return Some(socket::cut(self.client(), "it was ended").into()),
            Turn::Failed(error) => return Some(socket::failed(self.client(), &error).into()),
            Turn::Heard(frame) => frame,
        };
        match frame {
            Message::Text(text) => {
                let heard = match read(text.as_str()) {
                    Ok(heard) => heard,
                    Err(error) => {
                        self.leave(wire).await;
                        return Some(error.into());
                    }
                };
                let stays = self.desk.hear(heard);
                if self.desk.is_alive() {
                    self.failures = 0;
                }
                if let Some(error) = self.desk.take_refused() {
                    self.leave(wire).await;
                    return Some(error.into());
                }
                if !stays {
                    self.leave(wire).await;
                    return Some(End::Drain);
                }
                None
            }
            Message::Close(frame) => {
                socket::drain(wire.stream(), self.client().options().close_timeout).await;
                Some(end_of(socket::closed(frame)))
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    /// Closes orderly, as far as the server lets us in time.
    async fn leave(&self, wire: &mut Wire) {
        let limit = self.client().options().close_timeout;
        wire.say(socket::goodbye());
        if let Ok(Ok(())) = timeout(limit, wire.flush()).await {
            socket::drain(wire.stream(), limit).await;
        }
    }
}

/// For how many looks the server has been silent.
#[derive(Default)]
struct Silence(u32);

/// What a look at the silence asks for.
enum Look {
    Say(Message),
    Wait,
    Dead,
}

impl Silence {
    fn heard(&mut self, turn: &Turn) {
        if matches!(turn, Turn::Heard(_)) {
            self.0 = 0;
        }
    }

    /// While we do not read, nothing can be heard: then the server hears that we live.
    fn look(&mut self, held: bool) -> Look {
        self.0 = if held { 0 } else { self.0 + 1 };
        match self.0 {
            0 => Look::Say(Message::Pong(Default::default())),
            LOOKS => Look::Say(Message::Ping(Default::default())),
            n if n >= 2 * LOOKS => Look::Dead,
            _ => Look::Wait,
        }
    }
}

/// Until there is room, or nobody who wants it.
async fn room(out: Option<&mpsc::Sender<super::desk::Item>>) {
    if let Some(out) = out {
        drop(out.reserve().await);
    }
}

/// What the server's Close asks for. With 4029 the wait stands in the reason.
fn end_of(error: ClientError) -> End {
    match &error {
        ClientError::Closed { code, .. } if *code == CloseCode::Normal.code() => End::Over,
        ClientError::Closed { code, .. } if *code == CloseCode::Draining.code() => End::Drain,
        ClientError::Closed { code, reason } if *code == CloseCode::RateLimited.code() => {
            let wait = wait_in(reason);
            End::Broken(Refused { error, wait })
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_says_how_long_to_stay_away() {
        let closed = |code, reason: &str| end_of(ClientError::Closed { code, reason: reason.into() });
        assert!(
            matches!(closed(4029, "wait 2s"), End::Broken(Refused { wait: Some(w), .. }) if w.as_secs() == 2)
        );
        assert!(matches!(closed(4000, "wait 2s"), End::Broken(Refused { wait: None, .. })));
        assert!(matches!((closed(1000, ""), closed(4002, "")), (End::Over, End::Drain)));
    }

    #[test]
    fn silence_is_asked_about_once_and_then_believed() {
        let mut silence = Silence::default();
        let looks: Vec<_> = (0..2 * LOOKS).map(|_| silence.look(false)).collect();
        let pings = looks.iter().filter(|l| matches!(l, Look::Say(Message::Ping(_)))).count();
        assert!(pings == 1 && matches!(looks.last(), Some(Look::Dead)));
        assert!(matches!(silence.look(true), Look::Say(Message::Pong(_))));
        assert!(matches!(silence.look(false), Look::Wait), "what was not read counts for nothing");
    }
}
