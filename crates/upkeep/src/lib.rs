//! A program of ours as a service of its user: started with the machine or the session and again when it has died, by
//! whoever does that here; stopped, looked at, taken away.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `words` | what a program is called, and what it leaves at work, for what is said of it |
//! | `place` | where its files are, and what it is given of the environment |
//! | `desk` | the commands |
//! | `install` | of them, `install` and `uninstall` |
//! | `steps` | what is to be done, in its order |
//! | `managers` | what the service managers of this machine say |
//! | `detached` | the program that none of them holds |
//! | `ask` | asking other programs, and starting ours |
//! | `notify` | the program's own part: that it is up, and that it lives |
//!
//! Out of scope: the texts that service managers read, and which of them is the best (the crate `service`); what a
//! program does, and its settings.
//!
//! Invariants: nothing is changed before the settings were found right; what is wrong with the service is told to whom
//! asks, and nothing is guessed.

mod ask;
mod desk;
mod detached;
mod install;
mod managers;
mod notify;
mod place;
mod steps;
mod words;

pub use desk::{Found, found, run, tried};
pub use notify::{Listener, Notify};
pub use place::Place;
pub use words::{Asked, Install, Words};
