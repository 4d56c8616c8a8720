//! Jobs with side effects, whatever is done to those who run them. Commands write down each run in a file of their own; workers
//! are killed, stopped for longer than their leases and let go on, the database and the node are stopped and killed, by seed.
//! Then the books must add up ([`audit`]): every job has ended, every run has exactly one outcome, what was brought is on
//! record, as the outcome or as a late one, and what was done is what was given out. [`planted`] shows that it would be seen.
//!
//! A run that fails prints its seed. `MINIUM_TEST_SEED=7` runs that one alone, `MINIUM_TEST_SEEDS=50` so many.

mod audit;
mod late;
mod planted;
mod stage;
mod storms;
