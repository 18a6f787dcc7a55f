//! Attacks that worked once, each under its name and as it was carried out: with the real programs, by ordinary users
//! of one machine against each other, or by a job. `docs/security.md` says what stops each of them.

mod attacker;
mod bare;
mod contained;
#[expect(clippy::unwrap_used, reason = "all of it is test")]
mod files;
mod hidden;
mod input;
mod keeper;
mod listener;
mod local_edge;
mod private;
mod users;
