//! Attacks that worked once, each as it was carried out: with the real programs, as ordinary users of one machine.
//! `docs/security.md` says what stops each of them.

mod input;
