//! The ledger test. Publishers write down what they sent and what was acknowledged, readers what came, while processes
//! are killed, databases stopped and connections cut, by seed. Then the ledgers must add up ([`audit`]): acked −
//! delivered = ∅, no position twice, no inversion, the same bytes for everybody. [`planted`] shows that they would not
//! if the server broke its promises.
//!
//! A run that fails prints its seed. `MINIUM_TEST_SEED=7` runs that one alone, `MINIUM_TEST_SEEDS=50` so many for each
//! kind of trouble, from `MINIUM_TEST_SEED` (or 1) on; `just ledger` is the recipe.

mod audit;
mod book;
mod judged;
mod planted;
mod proxy;
mod publisher;
mod reader;
mod stage;
mod trouble;
mod wire;

use audit::audit;
use book::Books;
use std::fmt::Write;

/// Seeds of each kind of trouble, unless the environment says otherwise.
const SEEDS: u64 = 5;

/// A failing test shows so many violations.
const VIOLATIONS_SHOWN: usize = 12;

/// The seeds of this run, so many unless the environment says otherwise.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|e| panic!("{name} is no number: {text:?}: {e}")))
    };
    let first = number("MINIUM_TEST_SEED");
    let count = number("MINIUM_TEST_SEEDS").unwrap_or(if first.is_some() { 1 } else { usual });
    let first = first.unwrap_or(1);
    first..first + count
}

/// Tells the seed when the run fails, whatever it fails of.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- this was seed {0}: MINIUM_TEST_SEED={0} runs it alone", self.0);
        }
    }
}

/// All promises are kept, and there was something to keep.
fn assert_kept(books: &Books, seed: u64) {
    let acked: usize = books.outboxes.iter().map(|o| o.acked.len()).sum();
    let sockets: usize = books.inboxes.iter().map(|i| i.sockets.len()).sum();
    let arrived: usize = books.inboxes.iter().map(|i| i.arrivals().count()).sum();
    eprintln!("seed {seed}: {acked} acknowledged, {arrived} delivered over {sockets} connections");
    let violations = audit(books);
    let mut shown = String::new();
    for violation in violations.iter().take(VIOLATIONS_SHOWN) {
        writeln!(shown, "{violation:?}").unwrap();
    }
    assert!(violations.is_empty(), "{} promises broken, first of them:\n{shown}", violations.len());
}
