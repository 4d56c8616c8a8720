//! The screen, drawn into memory: every pane in every size, with nothing, with much, and with names that would steer a
//! terminal.

use super::draw;
use super::look::{FailureRow, Lag, Look, QueueRow, SessionRow, WorkerRow, text};
use super::model::{Action, EVENTS_MAX, EventRow, Model, News, Pane, Stream};
use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn drawn(model: &Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::screen(model, at(60), frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen as text, a line each. The second half of a wide character is no character.
fn shown(model: &Model, width: u16, height: u16) -> String {
    let buffer = drawn(model, width, height);
    let mut text = String::new();
    for y in 0..height {
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += (ratatui::text::Span::raw(symbol).width() as u16).max(1);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn empty() -> Model {
    Model::new("http://127.0.0.1:3000".into(), Look { at: at(0), ..Look::default() }, true)
}

fn queue(name: &str, ready: i64) -> QueueRow {
    QueueRow { name: text(name), ready, paused: None }
}

fn worker(id: i64, host: &str, runs: &str) -> WorkerRow {
    WorkerRow {
        id,
        host: text(host),
        kind: "worker".into(),
        state: "processing".into(),
        paused: false,
        running: 2,
        concurrency: 4,
        performed: 1_234_567,
        heartbeat: at(0),
        queues: "default".into(),
        runs: text(runs),
    }
}

fn failure(job: i64, task: &str, error: &str) -> FailureRow {
    let (task, error) = (text(task), text(error));
    FailureRow { job, task, queue: "default".into(), at: Some(at(1)), attempt: 1, attempts: 3, error }
}

fn session(filters: &str) -> SessionRow {
    SessionRow {
        id: 7,
        mode: "minium.v1".into(),
        filters: text(filters),
        who: text("ops 127.0.0.1"),
        since: at(0),
        sent: 12,
        received: 3,
        behind: true,
    }
}

fn event(job: i64, task: &str, what: &'static str, gist: &str) -> News {
    let row =
        EventRow { at: Some(at(2)), what, job, task: text(task), queue: "default".into(), gist: text(gist) };
    News::Event { row, live: true, wait: Some(0.25), run: None }
}

/// A node with something everywhere.
fn busy(name: &str) -> Model {
    let mut look = Look { at: at(50), lag: Some(Lag { events: 12.0, seconds: 0.5 }), ..Look::default() };
    look.stats.inactive = 1_234_567;
    look.stats.active = 3;
    look.stats.failed = i64::MAX;
    look.stats.uptime = 90_000;
    look.stats.position = Some("1:42".into());
    look.queues = vec![queue(name, 10_000), QueueRow { paused: Some(at(0)), ..queue("rest", 0) }];
    look.workers = vec![worker(5, name, name)];
    look.sessions = vec![session(name)];
    look.failures = vec![failure(9, name, name), failure(8, "other", "no such file")];
    let mut model = Model::new("http://127.0.0.1:3000".into(), look, true);
    model.tell(News::Stream(Stream::Live), at(50));
    model.tell(event(11, name, "enqueue", name), at(50));
    model.tell(event(12, "other", "failed", "no such file"), at(51));
    model
}

fn panes(model: &Model) -> Vec<Model> {
    let turned = |pane| {
        let mut turned = model.clone();
        turned.pane = pane;
        turned
    };
    Pane::ALL.into_iter().map(turned).collect()
}

#[test]
fn the_overview_tells_what_there_is() {
    let screen = shown(&busy("import"), 80, 24);
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("minium top  http://127.0.0.1:3000  ready  up 1 d 1 h"), "{screen}");
    assert!(lines[0].ends_with("08:01:00 Z"), "{screen}");
    assert!(lines[1].starts_with(" 1 Overview   2 Queues   3 Workers"), "{screen}");
    for word in
        ["ready       1.23 M", "active           3", "failed   9223372 T", "12 behind, 500 ms", "1:42"]
    {
        assert!(screen.contains(word), "{word}: {screen}");
    }
    assert!(screen.contains("enqueued") && screen.contains("waited   250 ms, 95 % 250 ms│"), "{screen}");
    let newest = lines.iter().position(|line| line.contains("#12") && line.contains("no such file"));
    let older = lines.iter().position(|line| line.contains("#11") && line.contains("import"));
    assert!(newest < older && newest.is_some(), "{screen}");
    assert!(lines[23].starts_with("q quit"), "{screen}");
    // on a large one queues and workers are there, too
    assert!(!screen.contains("Workers ─"), "{screen}");
    let screen = shown(&busy("import"), 120, 40);
    assert!(
        screen.contains("Queues ─") && screen.contains("Workers ─") && screen.contains("10,000+"),
        "{screen}"
    );
}

#[test]
fn each_pane_has_its_lines() {
    let words = ["#12", "paused since 08:00:00", "1.23 M", "behind", "no such file", "import"];
    for (model, word) in panes(&busy("import")).iter().zip(words) {
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            let screen = shown(model, width, height);
            assert!(screen.contains(word), "{word}: {screen}");
            assert_eq!(screen.lines().count(), height as usize);
        }
    }
}

#[test]
fn an_empty_node_says_so_in_each_pane() {
    let words = [
        "No event yet.",
        "No jobs wait",
        "No worker is there",
        "No session.",
        "No job has failed.",
        "No event yet.",
    ];
    for (model, word) in panes(&empty()).iter().zip(words) {
        let screen = shown(model, 80, 24);
        assert!(screen.contains(word), "{word}: {screen}");
    }
}

#[test]
fn a_terminal_that_is_too_small_is_told() {
    for (width, height) in [(79, 24), (80, 23), (40, 10), (20, 3), (1, 1)] {
        let screen = shown(&busy("import"), width, height);
        assert!(!screen.contains("Overview"), "{screen}");
    }
    let words = shown(&busy("import"), 60, 24).replace('\n', " ");
    assert!(words.contains("has 60 columns and 24 lines. minium top needs 80"), "{words}");
}

/// What would move the cursor, change the title, ring, or turn the direction of writing.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}b\rc\nd\u{0}\u{200f}\u{7f}";

#[test]
fn names_cannot_steer_the_terminal() {
    let mut model = busy(HOSTILE);
    model.tell(News::Away(text(HOSTILE)), at(52));
    for model in panes(&model) {
        for help in [false, true] {
            let mut model = model.clone();
            model.help = help;
            let buffer = drawn(&model, 120, 40);
            for cell in buffer.content() {
                assert!(!cell.symbol().chars().any(char::is_control), "{:?}", cell.symbol());
                assert!(!cell.symbol().contains(['\u{202e}', '\u{1b}']), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn long_and_wide_names_stay_in_their_columns() {
    for name in ["x".repeat(5_000), "作業".repeat(2_000), "🦀".repeat(300), "e\u{301}".repeat(400)] {
        for model in panes(&busy(&name)) {
            for (width, height) in [(80, 24), (81, 25), (120, 40)] {
                let screen = shown(&model, width, height);
                for line in screen.lines() {
                    let columns = ratatui::text::Span::raw(line).width();
                    assert!(columns <= width as usize, "{columns} of {width}: {line}");
                }
                // what stands to the right of the names is where it is without them
                if model.pane == Pane::Events {
                    let row = screen.lines().find(|line| line.contains("#11")).unwrap();
                    assert!(row.contains(" enqueue "), "{row}");
                }
            }
        }
    }
    assert_eq!(draw::fit("作業作業", 5), "作業…");
    assert_eq!(draw::fit("作業作業", 4), "作…");
    assert_eq!((draw::fit("作業", 4).as_str(), draw::fit("ab", 0).as_str()), ("作業", ""));
}

#[test]
fn without_colour_there_is_none() {
    let mut model = busy("import");
    model.colour = false;
    for model in panes(&model) {
        for cell in drawn(&model, 80, 24).content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        }
    }
    assert!(drawn(&busy("import"), 80, 24).content().iter().any(|cell| cell.fg != Color::Reset));
}

#[test]
fn a_node_that_is_away_is_told_with_since_when_and_comes_back() {
    let mut model = busy("import");
    model.tell(News::Away("no server at http://h:1".into()), at(30));
    model.tell(News::Away("connection refused".into()), at(45));
    let screen = shown(&model, 80, 24);
    assert!(
        screen.contains("AWAY since 08:00:30 (30 s)") && screen.contains("connection refused"),
        "{screen}"
    );
    assert!(screen.contains("1.23 M"), "what was seen last stays: {screen}");
    model.tell(News::Look(Box::new(Look { at: at(59), ..Look::default() })), at(59));
    assert!(!shown(&model, 80, 24).contains("AWAY"));
    model.tell(
        News::Look(Box::new(Look { down: Some("not ready: database".into()), ..Look::default() })),
        at(59),
    );
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("NOT READY") && screen.contains("not ready: database"), "{screen}");
    model.tell(News::Look(Box::default()), at(59));
    model.tell(News::Stream(Stream::Shut("forbidden: this takes sub:task".into())), at(59));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("events: forbidden") && screen.contains("no events come"), "{screen}");
}

#[test]
fn keys_lead_through_the_panes_and_their_lines() {
    let mut model = busy("import");
    assert!(model.act(Action::Previous, at(60)) && model.pane == Pane::Events);
    assert!(model.act(Action::Next, at(60)) && model.pane == Pane::Overview);
    assert!(model.act(Action::Show(4), at(60)) && model.pane == Pane::Failures);
    assert!(model.act(Action::Show(8), at(60)) && model.pane == Pane::Failures);
    assert!(shown(&model, 80, 24).contains("#9 import in default"), "the first line is chosen");
    model.act(Action::Down, at(60));
    assert!(shown(&model, 80, 24).contains("#8 other in default: no such file"));
    for _ in 0..5 {
        model.act(Action::Down, at(60));
    }
    model.act(Action::Up, at(60));
    assert_eq!(model.line(2), 0, "it does not go beyond the end");
    model.act(Action::Last, at(60));
    assert_eq!(model.line(2), 1);
    // the list got shorter
    model.tell(News::Look(Box::default()), at(60));
    assert!(shown(&model, 80, 24).contains("No job has failed."));
    assert!(!model.act(Action::Quit, at(60)) && !model.act(Action::Back, at(60)));
}

#[test]
fn long_lists_scroll_to_the_chosen_line() {
    let mut model = empty();
    for job in 0..1_000 {
        model.tell(event(job, "import", "enqueue", ""), at(1));
    }
    model.act(Action::Show(5), at(60));
    assert_eq!(model.seen().events.len(), EVENTS_MAX);
    assert!(shown(&model, 80, 24).contains("#999"));
    model.act(Action::Last, at(60));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("#800") && !screen.contains("#999"), "{screen}");
    // what comes in above does not move the line under the reader's eyes
    model.act(Action::Up, at(60));
    model.act(Action::First, at(60));
    model.act(Action::Down, at(60));
    assert!(shown(&model, 80, 24).contains("#998 import in default"));
    model.tell(event(1_000, "import", "enqueue", ""), at(1));
    assert!(shown(&model, 80, 24).contains("#998 import in default"));
}

#[test]
fn the_filter_leaves_tasks_with_its_text() {
    let mut model = busy("import");
    model.act(Action::Filter, at(60));
    for c in "OTHx".chars() {
        model.act(Action::Type(c), at(60));
    }
    model.act(Action::Erase, at(60));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("/OTH") && screen.contains("#11"), "not before enter: {screen}");
    model.act(Action::Accept, at(60));
    let screen = shown(&model, 80, 24);
    assert!(
        screen.contains("#12") && !screen.contains("#11") && screen.contains("tasks with “OTH”"),
        "{screen}"
    );
    model.act(Action::Filter, at(60));
    model.act(Action::Type('z'), at(60));
    assert!(model.act(Action::Back, at(60)) && model.filter == "OTH", "esc leaves what was");
    assert!(model.act(Action::Back, at(60)) && model.filter.is_empty(), "and then takes it away");
    for _ in 0..1_000 {
        model.act(Action::Filter, at(60));
        model.act(Action::Type('z'), at(60));
        model.act(Action::Accept, at(60));
    }
    assert!(model.filter.len() < 100);
}

#[test]
fn while_it_stands_still_nothing_moves_but_the_news_that_the_node_is_away() {
    let mut model = busy("import");
    model.act(Action::Pause, at(53));
    model.tell(event(13, "import", "enqueue", ""), at(54));
    model.tell(News::Away("cut".into()), at(54));
    let screen = shown(&model, 80, 24);
    assert!(!screen.contains("#13") && screen.contains("AWAY"), "{screen}");
    model.tell(News::Look(Box::default()), at(55));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("1.23 M") && screen.contains("PAUSED at 08:00:53, 7 s ago"), "{screen}");
    model.act(Action::Pause, at(60));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("#13") && !screen.contains("PAUSED"), "{screen}");
}

#[test]
fn help_tells_the_keys() {
    let mut model = busy("import");
    model.act(Action::Help, at(60));
    let screen = shown(&model, 80, 24);
    assert!(screen.contains("the next pane") && screen.contains("ctrl-c"), "{screen}");
    assert!(model.act(Action::Back, at(60)) && !shown(&model, 80, 24).contains("ctrl-c"));
}

#[test]
fn numbers_and_spans_are_short() {
    assert_eq!([0, 999, 1_000, 99_999].map(draw::short), ["0", "999", "1,000", "99,999"]);
    assert_eq!([123_456, 1_234_567, 12_345_678_901].map(draw::short), ["123 k", "1.23 M", "12.35 G"]);
    assert_eq!(draw::count(-1_234_567), "-1,234,567");
    assert_eq!(
        [0.0, 0.000_4, 0.25, 1.5, 100.0, 7_200.0].map(draw::seconds),
        ["0 µs", "400 µs", "250 ms", "1.5 s", "2 min", "2 h"]
    );
    assert_eq!([0.0, 0.5, 12.34, 12_345.0].map(draw::rate), ["0", "0.50", "12.3", "12,345"]);
}
