//! Whom an access control list lets in beside the owner, the group and all others: users and groups by name. The mode
//! shows the most that any of them may do as the rights of the group (acl(5)).
//!
//! Out of scope: lists of NFSv4, and systems that keep theirs in another way than Linux does.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

/// The rights of an entry.
pub(crate) const ANY: u16 = 7;
pub(crate) const WRITE: u16 = 2;

/// Where Linux keeps it (posix_acl_xattr.h): a version, and then entries of eight bytes, each a tag, rights and an id.
const NAME: &str = "system.posix_acl_access";
const VERSION_BYTES: usize = 4;
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// As long as any attribute may be.
const BYTES_MAX: usize = 64 << 10;

/// Whom an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    User(u32),
    Group(u32),
}

/// Those whom the list of what has this name gives one of these rights. No link is followed.
pub(crate) fn named(path: &Path, rights: u16) -> io::Result<Vec<Named>> {
    read(|list| rustix::fs::lgetxattr(path, NAME, list), rights)
}

/// Does the list of an open file let somebody do anything with it, beside its owner, its group and all others?
pub fn lets_others_in(file: impl AsFd) -> io::Result<bool> {
    read(|list| rustix::fs::fgetxattr(file, NAME, list), ANY).map(|named| !named.is_empty())
}

/// The same of a directory, wherever a link leads to it.
pub fn lets_others_into(directory: &Path) -> io::Result<bool> {
    read(|list| rustix::fs::getxattr(directory, NAME, list), ANY).map(|named| !named.is_empty())
}

fn read(get: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>, rights: u16) -> io::Result<Vec<Named>> {
    if !cfg!(target_os = "linux") {
        return Ok(Vec::new());
    }
    let mut list = vec![0; BYTES_MAX];
    match get(&mut list) {
        Ok(length) => Ok(entries(list.get(..length).unwrap_or_default(), rights)),
        // It has none, or its file system has none at all.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn entries(list: &[u8], rights: u16) -> Vec<Named> {
    let entries = list.get(VERSION_BYTES..).unwrap_or_default().chunks_exact(8);
    let entries = entries.map(|entry| {
        let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        (half(0), half(2), u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]))
    });
    let mask = entries.clone().find(|(tag, ..)| *tag == MASK).map_or(ANY, |(_, rights, _)| rights);
    let may = entries.filter(|(_, given, _)| given & mask & rights != 0);
    may.filter_map(|(tag, _, id)| match tag {
        USER => Some(Named::User(id)),
        GROUP => Some(Named::Group(id)),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A list that gives a user and a group these rights, within this mask.
    pub(crate) fn list(user: (u16, u32), group: (u16, u32), mask: u16) -> Vec<u8> {
        let mut list = 2_u32.to_le_bytes().to_vec();
        let all = u32::MAX;
        for (tag, rights, id) in [
            (0x01, 7, all),
            (USER, user.0, user.1),
            (0x04, 0, all),
            (GROUP, group.0, group.1),
            (MASK, mask, all),
            (0x20, 0, all),
        ] {
            list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
        }
        list
    }

    #[test]
    fn who_is_named_and_may_do_it_is_told() {
        let (user, group) = (Named::User(7), Named::Group(8));
        for (list, rights, told) in [
            (list((7, 7), (5, 8), 7), ANY, &[user, group][..]),
            (list((7, 7), (5, 8), 7), WRITE, &[user]),
            (list((7, 7), (7, 8), 5), WRITE, &[]),
            (list((0, 7), (1, 8), 7), ANY, &[group]),
            (list((7, 7), (7, 8), 0), ANY, &[]),
            (Vec::new(), ANY, &[]),
            (vec![2, 0, 0, 0, 2, 0], ANY, &[]),
        ] {
            assert_eq!(entries(&list, rights), told, "{list:?} {rights}");
        }
    }
}
