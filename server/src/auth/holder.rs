//! The rules that hold now. They are swapped as a whole.

use super::table::Table;
use crate::http::origin::Rules;
use arc_swap::ArcSwap;
use minium_bus::{Grant, Revoked};
use std::sync::Arc;

/// The rules of one moment.
pub(crate) struct Current {
    pub(crate) table: Table,
    pub(crate) origins: Rules,
}

/// Holds them.
pub(crate) struct Auth(ArcSwap<Current>);

impl Auth {
    /// With the first ones.
    pub(crate) fn new(current: Current) -> Auth {
        Auth(ArcSwap::from_pointee(current))
    }

    /// What holds now; whoever has it keeps it whole.
    pub(crate) fn now(&self) -> Arc<Current> {
        self.0.load_full()
    }

    /// From now on these hold.
    pub(crate) fn replace(&self, current: Current) {
        self.0.store(Arc::new(current));
    }

    /// Does a grant hold by the rules of this moment?
    pub(crate) fn judge(&self, grant: Option<&Grant>) -> Result<(), Revoked> {
        self.0.load().table.judge(grant)
    }
}
