//! The terminal while it is ours, and its keys.
//!
//! What must hold: however this ends (a key, a signal, an error, a panic), the terminal is given back as it was. Two
//! things see to it: [`Screen`]'s drop, and the panic hook that ratatui sets, which gives it back before the panic is told.

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Keys and sizes that wait for the loop. Nobody types faster than it takes them.
const WAITING_MAX: usize = 64;
/// How long the reader of keys waits before it looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What comes from the terminal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input {
    Key(KeyEvent),
    /// It has another size.
    Resize,
}

/// The terminal, in raw mode and on its other screen, until this is dropped.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) terminal: DefaultTerminal,
    stop: CancellationToken,
}

impl Screen {
    /// Takes the terminal. What is typed comes out of the receiver, which ends when the terminal is gone.
    ///
    /// # Errors
    /// There is no terminal, or it cannot be set.
    pub(super) fn open() -> io::Result<(Screen, mpsc::Receiver<Input>)> {
        let terminal = ratatui::try_init()?;
        let stop = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let screen = Screen { terminal, stop: stop.clone() };
        // It blocks, and ends with the process at the latest: the runtime does not wait for it.
        tokio::task::spawn_blocking(move || read(&sender, &stop));
        Ok((screen, receiver))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop.cancel();
        // A terminal that is gone cannot be given back.
        ratatui::try_restore().ok();
    }
}

fn read(sender: &mpsc::Sender<Input>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let input = match event::poll(LOOK_EVERY) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            // the terminal is gone
            Err(_) => return,
        };
        let input = match input {
            Ok(Event::Key(key)) => Input::Key(key),
            Ok(Event::Resize(_, _)) => Input::Resize,
            Ok(_) => continue,
            Err(_) => return,
        };
        if sender.blocking_send(input).is_err() {
            return;
        }
    }
}
