//! Attacks that worked once, each under its name and as it was carried out: with the real programs, by ordinary users of
//! one machine against each other. `docs/security.md` says what stops each of them.

mod input;
mod private;
mod users;
