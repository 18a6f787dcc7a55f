//! Whole files or none: who reads a name finds all of the content or no file, whatever dies in between.
//!
//! | to | use |
//! | --- | --- |
//! | put a file in place of another | [`replace`] |
//! | the same for everybody to read | [`replace_for_all`] |
//! | make a file, never over an earlier one | [`Creator`] |
//! | claim a name, and write the file later | [`create_new`] |
//! | give what was made aside its name | [`put`], [`put_new`] |
//! | make a small file when the disk is full | [`Spares`] |
//! | remove what a stranger's program made | [`remove`], [`discard`] |
//! | know how much it takes | [`measure`] |
//! | keep something for a person, and not without bound | [`prune`] |
//! | take from it what would lend our rights to others | [`disarm`] |
//! | have a directory in which nobody else changes anything | [`private_dir`], [`own_dir`] |
//! | replace a large file, and keep the one before | [`Versions`] |
//! | know whether a list lets others in whom the mode does not tell | [`lets_others_in`], [`lets_others_into`] |
//! | open a file only if it is ours | [`open_own`], [`read_own`], [`open_lock`], [`open_append`], [`overwrite`] |
//!
//! It is not: locks, or what the files mean. Nothing here is asynchronous; a call may wait for the disk.
//!
//! Guarded: files and directories that are made here are their owner's only ([`FILE_MODE`], [`DIR_MODE`]), no link is
//! followed where a file is made or opened or a tree removed, a file of another user is never taken for ours, and how
//! long something lasts is said by each caller ([`Durability`]) and never left to chance.

mod aside;
mod create;
mod disarm;
mod list;
mod measure;
mod own;
mod private;
mod remove;
mod spare;
mod tree;
mod versions;
mod write;

pub use aside::{Bounds, prune};
pub use create::Creator;
pub use disarm::{Disarmed, disarm};
pub use list::{lets_others_in, lets_others_into};
pub use measure::{Held, measure};
pub use own::{copy_own, make_own, open_append, open_lock, open_own, overwrite, read_own, read_own_text, rewrite};
pub use private::{Access, NobodyElse, NotPrivate, Secured, Trust, new_dir, own_dir, private_dir};
pub use remove::{Leftover, discard, remove, remove_at};
pub use spare::{Spares, is_no_room};
pub use tree::{Remains, Stuck};
pub use versions::{Versions, remove_abandoned};
pub use write::{
    DIR_MODE, Durability, FILE_MODE, create_new, make_dir, name_also, name_first, put, put_new, replace,
    replace_for_all, replace_through, set_mode, sync_all_around, sync_dir, write_new,
};
