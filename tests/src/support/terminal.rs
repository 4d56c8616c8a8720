//! A terminal: a real pseudo-terminal with a program in it, and what its screen shows.
//!
//! Only as much of a terminal as a full-screen program needs: the cursor, clearing, and the other screen. What it does not know
//! it keeps, so that a test can say that nothing of the kind was sent.

use super::wait;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// A terminal and the program in it, which is killed with this value.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

/// What has come out of the program.
#[derive(Debug)]
struct Seen {
    raw: Vec<u8>,
    screen: Screen,
}

impl Terminal {
    /// Starts a program in a terminal of its own.
    pub(crate) fn start(command: &Command, columns: u16, rows: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(&path).unwrap());
        // who makes it the terminal of its session, so that it is told of new sizes
        let mut setsid = Command::new("setsid");
        setsid.arg("--ctty").arg(command.get_program()).args(command.get_args());
        setsid.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            setsid.current_dir(dir);
        }
        let child = setsid.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Seen { raw: Vec::new(), screen: Screen::new(columns, rows) }));
        let (mut reader, told) = (master.try_clone().unwrap(), seen.clone());
        // it blocks; it ends when nobody has the other side open any more
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let mut seen = told.lock().unwrap();
                seen.raw.extend_from_slice(&bytes[..count]);
                seen.screen.take(&bytes[..count]);
            }
        });
        Terminal { master, child, seen }
    }

    /// Types.
    pub(crate) fn send(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    /// Makes it larger or smaller.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.seen.lock().unwrap().screen = Screen::new(columns, rows);
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
    }

    /// How it is set.
    pub(crate) fn settings(&self) -> Termios {
        tcgetattr(&self.master).unwrap()
    }

    /// What is on the screen, a line each.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().screen.text()
    }

    /// Everything that was ever sent to it.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().raw).into_owned()
    }

    /// Sequences that this terminal does not know.
    pub(crate) fn strange(&self) -> Vec<String> {
        self.seen.lock().unwrap().screen.strange.clone()
    }

    /// Waits until the screen holds what is looked for, and gives the screen.
    pub(crate) async fn shows(&self, what: &str) -> String {
        self.shows_that(what, |screen| screen.contains(what)).await
    }

    /// The same for a condition; a failing test shows the screen.
    pub(crate) async fn shows_that(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let looking = wait::until(what, async || {
            let screen = self.screen();
            condition(&screen).then_some(screen)
        });
        let shown = Shown(self);
        let screen = looking.await;
        std::mem::forget(shown);
        screen
    }

    /// The process of the program.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits until the program has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait::until("the program in the terminal to end", async || child.try_wait().unwrap()).await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // it may have ended by itself
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Shows the screen when a wait for it fails.
struct Shown<'a>(&'a Terminal);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- screen\n{}--- end of screen", self.0.screen());
        }
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The cells, and where the cursor is.
#[derive(Debug)]
struct Screen {
    columns: usize,
    cells: Vec<char>,
    at: usize,
    /// The beginning of a sequence or of a character.
    open: Vec<u8>,
    strange: Vec<String>,
}

impl Screen {
    fn new(columns: u16, rows: u16) -> Screen {
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        Screen { columns, cells: vec![' '; columns * rows], at: 0, open: vec![], strange: vec![] }
    }

    fn text(&self) -> String {
        let line = |cells: &[char]| format!("{}\n", cells.iter().collect::<String>().trim_end());
        self.cells.chunks(self.columns).map(line).collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.open.push(*byte);
            let done = match self.open[..] {
                [0x1b] | [0x1b, b'['] => false,
                [0x1b, b'[', .., last] => (0x40..=0x7e).contains(&last),
                [0x1b, ..] => true,
                _ => match std::str::from_utf8(&self.open) {
                    Ok(_) => true,
                    // the rest of a character is still to come
                    Err(error) => error.error_len().is_some(),
                },
            };
            if done {
                let open = std::mem::take(&mut self.open);
                self.obey(&String::from_utf8_lossy(&open));
            }
        }
    }

    fn obey(&mut self, word: &str) {
        let Some(sequence) = word.strip_prefix("\u{1b}[") else {
            return match word {
                "\r" => self.at -= self.at % self.columns,
                "\n" => self.at += self.columns,
                word if word.starts_with('\u{1b}') || word.chars().any(char::is_control) => {
                    self.strange.push(word.to_owned());
                }
                word => self.print(word.chars().next().unwrap()),
            };
        };
        let numbers = |text: &str| -> Vec<usize> { text.split(';').filter_map(|n| n.parse().ok()).collect() };
        match sequence.chars().last().unwrap() {
            'H' => {
                let place = numbers(&sequence[..sequence.len() - 1]);
                let [row, column] = [0, 1].map(|n| place.get(n).copied().unwrap_or(1).max(1) - 1);
                self.at = row * self.columns + column;
            }
            'J' if sequence == "2J" => self.cells.fill(' '),
            'J' | 'K' => {
                let end =
                    if sequence.ends_with('K') { self.columns - self.at % self.columns } else { usize::MAX };
                let end = self.at.saturating_add(end).min(self.cells.len());
                let from = self.at.min(end);
                self.cells[from..end].fill(' ');
            }
            'm' => {}
            'h' | 'l' if ["?1049h", "?1049l", "?25h", "?25l", "?7h", "?7l"].contains(&sequence) => {}
            _ => self.strange.push(word.to_owned()),
        }
    }

    fn print(&mut self, c: char) {
        // between a new size and the first drawing for it there may be what was for the old one
        if let Some(cell) = self.cells.get_mut(self.at) {
            *cell = c;
        }
        self.at += 1;
    }
}
