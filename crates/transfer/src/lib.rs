//! Contents to and from the store of files: put there, had from there, verified, and gone on with whatever breaks.
//!
//! The edge carries no file (`protocol::files`): it says which contents are there, and hands out addresses at which
//! parts are put and whole contents are had in ranges. Contents are named by their SHA-256, so what is there is not
//! sent again, whoever has put it there.
//!
//! ```text
//! Local::file ──hash──► Store::put ──offer──► have it │ put the whole │ put its parts ──complete──► there
//! Store::get ──where?──► ranges, several at a time ──in order──► the partial file ──SHA-256──► whole
//! Packer ──► one archive of many small files      unpack ──► its members, each looked at
//! ```
//!
//! How a program uses it, here the daemon:
//!
//! - *Stage*: [`Store::get`] into a partial file on the file system of its cache, always of the same name for the same
//!   content. What an earlier call, or an earlier process, has left there is gone on with. When the call returns, the
//!   file is whole, verified and synced; the caller gives it its name (`files::put`). [`Store::get_file`] does both.
//! - *Upload*: [`Local::opened`] of each file, opened as the daemon opens what a job has left, and [`Store::put`] of
//!   them all. Parts that an earlier process has put are not put again: the edge knows them.
//! - An error says by its [`Class`] what follows: [`Class::Away`] passes, and the same call goes on later;
//!   [`Class::Changed`] is begun anew with [`Local::opened`]; all others stay.
//! - The future of a call can be dropped at any time; what was done is gone on with by the next call.
//! - Where the call itself tries again is bounded by [`Store::patient_for`].
//!
//! Out of scope: which files a job has, and where they lie (the programs); what a path may be (`protocol`).
//!
//! Invariants: a content is had as a whole and verified, or not at all; what is put was read just as it was hashed, or
//! nothing is said to be complete; memory has a bound that no length of a file changes; the key goes to the edge alone.

mod aside;
mod body;
mod clocks;
pub mod edge;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod get;
mod going;
mod local;
mod packer;
mod partial;
mod put;
mod store;
mod unpack;

pub use files::Durability;

pub use self::edge::Edge;
pub use self::error::{Class, Error};
pub use self::get::Kept;
pub use self::local::{Local, open};
pub use self::packer::{PACK_MEMBERS_MAX, Packer};
pub use self::store::Store;
pub use self::unpack::{Bounds, make_dir, place, unpack};

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// So far it is, in bytes.
    Progress {
        /// What is being done.
        step: Step,
        /// So much of it is done, what was there before included.
        done: u64,
        /// All of it.
        total: u64,
    },
    /// Something that a person may want to know.
    Note(String),
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Files are read and hashed.
    Hash,
    /// Contents are put.
    Put,
    /// A content is had.
    Get,
}

/// Hears what happens meanwhile; it is called often, and from several threads.
pub type Listener<'a> = dyn Fn(News) + Send + Sync + 'a;

/// Hears nothing.
pub fn nobody(_: News) {}
