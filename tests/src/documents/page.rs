//! A document, read for what it tells its reader to type: fenced blocks in their order, and marks that no reader sees.
//!
//! A mark is an HTML comment of its own on the line before a block:
//!
//! | mark | the block |
//! |---|---|
//! | `<!-- not run: WHY -->` | is not run; every such block is listed by a test |
//! | `<!-- background -->` | is one command that goes on, as in another terminal |
//! | `<!-- file: NAME -->` | is written to this file |
//! | `<!-- part of: FILE -->` | stands in this file of the checkout, line by line, which is compiled or run elsewhere |
//!
//! Without a mark a block is run as its language says; one without a language is a picture. A `text` block is what the block before it prints, where `…` stands for
//! anything. Two comments are commands themselves, for what a page takes for granted:
//! `<!-- run:` … `-->` and `<!-- background:` … `-->`; and `<!-- page: URL shows TEXT -->` is a look into a browser.

use std::path::{Path, PathBuf};

/// What is to be done with a block or comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Shell, to its end.
    Run,
    /// One command of the shell that goes on.
    Background,
    /// SQL, by psql.
    Sql,
    /// Configuration that must load.
    Config,
    /// JSON; what has a member `op` must be a frame.
    Json,
    /// Text for a file.
    File(String),
    /// Lines of a file of the checkout.
    PartOf(String),
    /// A page shows a text.
    Page { url: String, text: String },
    /// Left out, for this reason.
    NotRun(String),
}

/// A block or a comment that asks for something.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Where its first line of text stands, from 1.
    pub(super) line: usize,
    pub(super) step: Step,
    pub(super) text: String,
    /// What it prints, where the page shows that.
    pub(super) prints: Option<String>,
}

/// A document.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) blocks: Vec<Block>,
}

/// A fence or comment as it stands there.
enum Piece<'a> {
    Fence { line: usize, kind: &'a str, text: String },
    Comment { line: usize, text: String },
}

/// Fences and comments of the page, in their order.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if let Some(kind) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().map(|(_, l)| l).take_while(|l| l.trim() != "```").collect();
            found.push(Piece::Fence { line: at + 2, kind: kind.trim(), text: body.join("\n") });
        } else if let Some(begun) = line.strip_prefix("<!--") {
            let mut text = begun.to_owned();
            while !text.contains("-->") {
                let (_, more) = lines.next().expect("a comment ends");
                text = format!("{text}\n{more}");
            }
            let inner = text.split("-->").next().unwrap().to_owned();
            found.push(Piece::Comment { line: at + 1, text: inner });
        }
    }
    found
}

/// What a comment asks for by itself, or the mark of the block behind it.
fn commanded(text: &str, line: usize) -> Option<Block> {
    let (word, rest) = text.trim().split_once(':')?;
    let step = match word {
        "run" => Step::Run,
        "background" => Step::Background,
        "page" => {
            let (url, text) = rest.split_once(" shows ").expect("page: URL shows TEXT");
            Step::Page { url: url.trim().to_owned(), text: text.trim().to_owned() }
        }
        _ => return None,
    };
    Some(Block { line, step, text: rest.to_owned(), prints: None })
}

/// What is done with a block in this language under this mark.
fn step(kind: &str, mark: Option<&str>) -> Option<Step> {
    if let Some(mark) = mark {
        let (word, rest) = mark.split_once(':').unwrap_or((mark, ""));
        let rest = rest.trim().to_owned();
        return match word.trim() {
            "not run" => Some(Step::NotRun(rest)),
            "background" if rest.is_empty() => Some(Step::Background),
            "file" => Some(Step::File(rest)),
            "part of" => Some(Step::PartOf(rest)),
            _ => None,
        };
    }
    match kind {
        "sh" => Some(Step::Run),
        "sql" => Some(Step::Sql),
        "toml" => Some(Step::Config),
        "json" => Some(Step::Json),
        _ => None,
    }
}

impl Page {
    /// Reads a document of the checkout. A block that nobody knows what to do with fails the test.
    pub(super) fn read(checkout: &Path, name: &str) -> Page {
        let path = checkout.join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        Page::parse(name, &text)
    }

    fn parse(name: &str, text: &str) -> Page {
        let mut blocks: Vec<Block> = Vec::new();
        let mut mark: Option<String> = None;
        for piece in pieces(text) {
            match piece {
                Piece::Comment { line, text } => match commanded(&text, line) {
                    Some(block) => blocks.push(block),
                    None => mark = Some(text.trim().to_owned()),
                },
                Piece::Fence { kind: "", line, text } => {
                    let is_picture = text.contains(['─', '│', '►']);
                    assert!(is_picture, "{name}:{line}: a block that is no picture says what it is");
                    mark = None;
                }
                Piece::Fence { kind: "text", line, text } if mark.is_none() => {
                    let printing = blocks.last_mut().filter(|b| b.prints.is_none());
                    let block = printing.unwrap_or_else(|| panic!("{name}:{line}: nothing prints this"));
                    block.prints = Some(text);
                }
                Piece::Fence { line, kind, text } => {
                    let step = step(kind, mark.take().as_deref())
                        .unwrap_or_else(|| panic!("{name}:{line}: what is to be done with {kind:?}?"));
                    blocks.push(Block { line, step, text, prints: None });
                }
            }
        }
        Page { blocks }
    }

    /// Whether there is anything to do.
    pub(super) fn has_work(&self) -> bool {
        self.blocks.iter().any(|b| !matches!(b.step, Step::NotRun(_)))
    }
}

/// Every document of the checkout: those of the root, of docs/ and below examples/ and deploy/.
pub(crate) fn documents(checkout: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(checkout.to_owned(), false)];
    open.extend(["docs", "examples", "deploy"].map(|dir| (checkout.join(dir), true)));
    while let Some((dir, deep)) = open.pop() {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if deep && path.is_dir() {
                open.push((path, true));
            } else if path.extension().is_some_and(|e| e == "md") {
                let path: PathBuf = path.strip_prefix(checkout).unwrap().to_owned();
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Whether `said` is what the page shows, where `…` stands for any text within a line, and a line of `…` alone for any
/// lines.
pub(super) fn matches(shown: &str, said: &str) -> bool {
    let shown: Vec<&str> = shown.trim_end().lines().map(str::trim_end).collect();
    let said: Vec<&str> = said.trim_end().lines().map(str::trim_end).collect();
    lines_match(&shown, &said)
}

fn lines_match(shown: &[&str], said: &[&str]) -> bool {
    match shown {
        [] => said.is_empty(),
        [first, rest @ ..] if first.trim() == "…" => {
            (0..=said.len()).any(|skipped| lines_match(rest, &said[skipped..]))
        }
        [first, rest @ ..] => {
            said.first().is_some_and(|line| line_matches(first, line)) && lines_match(rest, &said[1..])
        }
    }
}

fn line_matches(shown: &str, said: &str) -> bool {
    let Some((head, rest)) = shown.split_once('…') else { return shown == said };
    said.strip_prefix(head).is_some_and(|behind| {
        behind
            .char_indices()
            .map(|(at, _)| at)
            .chain([behind.len()])
            .any(|at| line_matches(rest, &behind[at..]))
    })
}

#[test]
fn marks_say_what_is_done() {
    let text = "```\na ─► b\n```\n```sh\ntrue\n```\n\n```text\nout\n```\n<!-- not run: needs root -->\n```sh\nsudo x\n```\n\
                <!-- run:\nmkdir a\n-->\n<!-- file: a.toml -->\n```toml\nx\n```\n<!-- background -->\n```sh\nminium serve\n```\n\
                <!-- page: http://h/ shows two words -->\n";
    let page = Page::parse("x.md", text);
    let steps: Vec<_> = page.blocks.iter().map(|b| (b.line, b.step.clone())).collect();
    let shown = Step::Page { url: "http://h/".into(), text: "two words".into() };
    assert_eq!(
        steps,
        [
            (5, Step::Run),
            (13, Step::NotRun("needs root".into())),
            (15, Step::Run),
            (20, Step::File("a.toml".into())),
            (24, Step::Background),
            (26, shown),
        ]
    );
    assert_eq!(page.blocks[0].prints.as_deref(), Some("out"));
    assert_eq!(page.blocks[2].text.trim(), "mkdir a");
}

#[test]
fn what_is_printed_is_compared_with_its_wildcards() {
    assert!(matches("a\n…\nz", "a\nb\nc\nz\n"));
    assert!(matches("{\"id\":…,\"b\":1}", "{\"id\":42,\"b\":1}"));
    assert!(matches("…done", "all done"));
    assert!(!matches("a\nz", "a\nb\nz"));
    assert!(!matches("id …", "job 7"));
    assert!(!matches("a", "a\nb"));
}
