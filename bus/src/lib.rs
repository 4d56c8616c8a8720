//! (head comment to come)

mod history;

pub use history::{Bounds, History, HistoryError, Page, Relayed};
