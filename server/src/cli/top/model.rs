//! What the screen is a function of: what was seen of the node, and where the reader looks.
//!
//! What must hold: all text in here is [`clean`](super::super::output::clean), so nothing that others wrote can steer the
//! terminal; everything is bounded; nothing here asks for the time, it is told.

use super::look::Look;
use super::rates::Rates;
use jiff::Timestamp;
use std::collections::VecDeque;

/// Events that are kept for the list.
pub(super) const EVENTS_MAX: usize = 200;
/// Longer filters are not typed.
const FILTER_CHARS_MAX: usize = 60;

/// What is shown, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Overview,
    Queues,
    Workers,
    Sessions,
    Failures,
    Events,
}

impl Pane {
    pub(super) const ALL: [Pane; 6] =
        [Pane::Overview, Pane::Queues, Pane::Workers, Pane::Sessions, Pane::Failures, Pane::Events];

    pub(super) fn title(self) -> &'static str {
        match self {
            Pane::Overview => "Overview",
            Pane::Queues => "Queues",
            Pane::Workers => "Workers",
            Pane::Sessions => "Sessions",
            Pane::Failures => "Failures",
            Pane::Events => "Events",
        }
    }

    fn place(self) -> usize {
        Pane::ALL.iter().position(|pane| *pane == self).expect("ALL has all of them")
    }
}

/// One task event, as a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventRow {
    pub(super) at: Option<Timestamp>,
    /// What happened, without `task.`.
    pub(super) what: &'static str,
    pub(super) job: i64,
    pub(super) task: String,
    pub(super) queue: String,
    /// Why it failed, how far it has come, who has it.
    pub(super) gist: String,
}

/// How it stands with the stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stream {
    /// It is about to be opened.
    Opening,
    /// Events come as they happen.
    Live,
    /// None come, and why.
    Shut(String),
}

/// Since when the node cannot be reached, and what the network said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) since: Timestamp,
    pub(super) why: String,
}

/// All that was seen of the node.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) look: Look,
    /// The newest first.
    pub(super) events: VecDeque<EventRow>,
    pub(super) rates: Rates,
    pub(super) stream: Stream,
    pub(super) away: Option<Away>,
}

/// Something new.
#[derive(Debug)]
pub(super) enum News {
    /// What the node answered.
    Look(Box<Look>),
    /// It did not answer.
    Away(String),
    /// Something happened. `live`: just now, not before this began.
    Event { row: EventRow, live: bool, wait: Option<f64>, run: Option<f64> },
    /// How it stands with the stream.
    Stream(Stream),
}

/// What the reader does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Next,
    Previous,
    Show(usize),
    Down,
    Up,
    First,
    Last,
    Pause,
    Filter,
    Help,
    /// Leaves help or the filter; else the program.
    Back,
    Type(char),
    Erase,
    Accept,
}

/// The whole.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Whose node it is.
    pub(super) url: String,
    pub(super) colour: bool,
    pub(super) pane: Pane,
    /// The chosen line of each pane.
    lines: [usize; Pane::ALL.len()],
    pub(super) help: bool,
    /// What is being typed behind `/`.
    pub(super) typed: Option<String>,
    /// Only tasks with this text in their name; empty means all.
    pub(super) filter: String,
    live: Seen,
    /// What stands still while the reader looks at it, and since when.
    frozen: Option<(Box<Seen>, Timestamp)>,
}

impl Model {
    pub(super) fn new(url: String, look: Look, colour: bool) -> Model {
        let live = Seen {
            look,
            events: VecDeque::new(),
            rates: Rates::default(),
            stream: Stream::Opening,
            away: None,
        };
        Model {
            url,
            colour,
            pane: Pane::Overview,
            lines: [0; Pane::ALL.len()],
            help: false,
            typed: None,
            filter: String::new(),
            live,
            frozen: None,
        }
    }

    /// What is to be shown.
    pub(super) fn seen(&self) -> &Seen {
        self.frozen.as_ref().map_or(&self.live, |(seen, _)| seen)
    }

    /// How the node is now, also while what is shown stands still.
    pub(super) fn away(&self) -> Option<&Away> {
        self.live.away.as_ref()
    }

    pub(super) fn paused_since(&self) -> Option<Timestamp> {
        self.frozen.as_ref().map(|(_, since)| *since)
    }

    /// The line that is chosen, of so many.
    pub(super) fn line(&self, count: usize) -> usize {
        self.lines[self.pane.place()].min(count.saturating_sub(1))
    }

    /// Is this task to be shown?
    pub(super) fn admits(&self, task: &str) -> bool {
        self.filter.is_empty() || task.to_lowercase().contains(&self.filter.to_lowercase())
    }

    pub(super) fn tell(&mut self, news: News, now: Timestamp) {
        match news {
            News::Look(look) => {
                self.live.away = None;
                self.live.look.renew(*look);
            }
            News::Away(why) => {
                let since = self.live.away.as_ref().map_or(now, |away| away.since);
                self.live.away = Some(Away { since, why });
            }
            News::Event { row, live, wait, run } => {
                if live {
                    self.live.rates.count(row.what, &row.queue, wait, run, now);
                }
                // whoever reads down the list keeps the line that was chosen
                let chosen = &mut self.lines[Pane::Events.place()];
                if *chosen > 0 && self.frozen.is_none() {
                    *chosen = (*chosen + 1).min(EVENTS_MAX - 1);
                }
                self.live.events.push_front(row);
                self.live.events.truncate(EVENTS_MAX);
            }
            News::Stream(stream) => {
                // the past comes once more
                if stream == Stream::Opening {
                    self.live.events.clear();
                }
                self.live.stream = stream;
            }
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.live.rates.pass(now);
    }

    /// Does what the reader wants. Answers whether to go on.
    pub(super) fn act(&mut self, action: Action, now: Timestamp) -> bool {
        match action {
            Action::Quit => return false,
            Action::Back if self.typed.take().is_some() => {}
            Action::Back if self.help => self.help = false,
            Action::Back if !self.filter.is_empty() => self.filter.clear(),
            Action::Back => return false,
            Action::Next => self.turn(1),
            Action::Previous => self.turn(Pane::ALL.len() - 1),
            Action::Show(place) => self.pane = Pane::ALL.get(place).copied().unwrap_or(self.pane),
            Action::Down => self.go(|line| line.saturating_add(1)),
            Action::Up => self.go(|line| line.saturating_sub(1)),
            Action::First => self.go(|_| 0),
            Action::Last => self.go(|_| usize::MAX),
            Action::Pause => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some((Box::new(self.live.clone()), now)),
                }
            }
            Action::Filter => self.typed = Some(self.filter.clone()),
            Action::Help => self.help = !self.help,
            Action::Type(c) => {
                if let Some(typed) = &mut self.typed
                    && typed.chars().count() < FILTER_CHARS_MAX
                {
                    typed.push(c);
                }
            }
            Action::Erase => {
                if let Some(typed) = &mut self.typed {
                    typed.pop();
                }
            }
            Action::Accept => {
                if let Some(typed) = self.typed.take() {
                    self.filter = typed;
                    self.lines = [0; Pane::ALL.len()];
                }
            }
        }
        true
    }

    fn turn(&mut self, by: usize) {
        self.pane = Pane::ALL[(self.pane.place() + by) % Pane::ALL.len()];
    }

    fn go(&mut self, to: impl Fn(usize) -> usize) {
        let count = self.count();
        let line = self.line(count);
        self.lines[self.pane.place()] = to(line).min(count.saturating_sub(1));
    }

    /// How many lines the pane has.
    fn count(&self) -> usize {
        let Seen { look, events, .. } = self.seen();
        match self.pane {
            Pane::Overview => 0,
            Pane::Queues => look.queues.len(),
            Pane::Workers => look.workers.len(),
            Pane::Sessions => look.sessions.len(),
            Pane::Failures => look.failures.iter().filter(|row| self.admits(&row.task)).count(),
            Pane::Events => events.iter().filter(|row| self.admits(&row.task)).count(),
        }
    }
}
