//! A real Minion of Perl's, attached: what its jobs go through becomes events of ours, and it notices nothing.

mod command;
mod guards;
mod life;
mod mapping;
mod minion;
mod relayed;
