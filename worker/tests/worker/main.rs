//! The worker over a real store and with real processes.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod control;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod kin;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod source;
#[cfg(test)]
mod spooled;
#[cfg(test)]
mod tasks;
