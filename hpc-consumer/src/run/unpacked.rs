//! The image of the runtime `apptainer`, unpacked once on the node's own disk: a container starts sooner from a
//! directory than from a file that has to be mounted first.
//!
//! ```text
//! APPTAINER_UNPACK_DIR/
//!   <image>-<16 hex>/        the digits stand for the path, the length and the time of the image file
//!     rootfs/                what containers start from
//!   .partial-<pid>-<hex>/    the same while it is being unpacked
//! ```
//!
//! Out of scope: starting containers (`apptainer`), and removing what was unpacked of images that are used no more.
//!
//! Invariants: a directory that has its final name is whole and on the disk, and it is closed to all other users: the
//! programs in it may be setuid. Nothing that goes wrong here is a broken node, because the image file is still there.

use std::env::split_paths;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use files::Durability;
use rustix::fs::StatVfsMountFlags;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::apptainer::{Apptainer, last_lines};
use crate::blocking;

/// The longest that reading the table of contents of an image may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest that unpacking an image may take.
const UNPACK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The age at which nobody can be unpacking into a directory any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(2 * UNPACK_TIMEOUT.as_secs());

/// How long it is tried to remove what is of no use.
const REMOVED_WITHIN: Duration = Duration::from_secs(600);

const ROOT_NAME: &str = "rootfs";
const PARTIAL_PREFIX: &str = ".partial-";
const UNSQUASHFS: &str = "unsquashfs";

/// What `unsquashfs` may fail at, with exit code 2, without harm: device nodes, since containers have a `/dev` of their
/// own, and owners, which not even root can keep everywhere.
const HARMLESS: [&str; 3] = [" character device ", " block device ", "failed to change uid and gids on "];

/// Where images are unpacked, and whether containers start from there.
#[derive(Debug)]
pub(crate) struct Unpacked {
    directory: PathBuf,
    /// The place that was last filled, or could not be; one task at a time tries.
    tried: Mutex<Option<PathBuf>>,
    /// A container has started from there.
    proven: AtomicBool,
    /// No container is started from there any more.
    given_up: AtomicBool,
}

impl Unpacked {
    /// `arguments` are those of `apptainer exec`.
    pub(crate) fn new(directory: PathBuf, arguments: &[String]) -> Result<Self, String> {
        if let Some(argument) = arguments.iter().find(|argument| asks_to_write(argument)) {
            return Err(format!(
                "APPTAINER_UNPACK_DIR is set and APPTAINER_ARGS has {argument}: jobs would write into the one directory \
                 that all of them start from; leave one of the two out"
            ));
        }
        Ok(Self {
            directory,
            tried: Mutex::default(),
            proven: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        })
    }

    /// What containers start from instead of the image as it is now, if it is there.
    pub(super) fn root(&self, image: &Path) -> Option<PathBuf> {
        let place = self.place(image)?;
        is_private(&place).then(|| place.join(ROOT_NAME))
    }

    /// Unpacks the image, unless that was done or has failed before. What hinders it is said once for each image.
    pub(super) async fn prepare(&self, apptainer: &Apptainer) {
        let mut tried = self.tried.lock().await;
        let Some(place) = self.place(&apptainer.image) else { return };
        if is_private(&place) || tried.as_ref() == Some(&place) {
            return;
        }
        *tried = Some(place.clone());
        let image = apptainer.image.display();
        match self.unpack(apptainer, &place).await {
            Ok(()) => tracing::info!("{image} is unpacked in {}; containers start from there", place.display()),
            Err(problem) => {
                tracing::warn!("containers start from {image} and not from APPTAINER_UNPACK_DIR: {problem}");
            }
        }
    }

    /// A container has started from what was unpacked.
    pub(super) fn works(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Containers start from the image and not, or not any more, from what was unpacked of it. An error if that was
    /// otherwise before: then jobs may have failed for it since.
    pub(super) fn give_up(&self, image: &Path, problem: String) -> Result<(), String> {
        self.given_up.store(true, Ordering::Relaxed);
        tracing::warn!(
            "{problem}; it can from {}, and does so until the daemon starts anew; remove what is in {} to have it \
             unpacked again",
            image.display(),
            self.directory.display()
        );
        if self.proven.load(Ordering::Relaxed) { Err(problem) } else { Ok(()) }
    }

    /// Where the image as it is now belongs, whether it is there or not.
    fn place(&self, image: &Path) -> Option<PathBuf> {
        if self.given_up.load(Ordering::Relaxed) {
            return None;
        }
        let metadata = fs::metadata(image).ok().filter(Metadata::is_file)?;
        let time = (metadata.mtime(), metadata.mtime_nsec());
        Some(self.directory.join(name_for(image, metadata.len(), time)))
    }

    async fn unpack(&self, apptainer: &Apptainer, place: &Path) -> Result<(), String> {
        let path = apptainer.inherited.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let program = find_unsquashfs(&apptainer.program, path.unwrap_or_default()).ok_or(
            "there is no program unsquashfs, neither beside apptainer nor on the PATH; it is in the package squashfs-tools",
        )?;
        let offset = offset_in(apptainer).await?;
        tracing::info!("unpacking {} into {}, once", apptainer.image.display(), place.display());
        let directory = self.directory.clone();
        let partial = blocking(move || make_partial(&directory)).await?;
        let mut outcome = extract(apptainer, program, offset, &partial.join(ROOT_NAME)).await;
        if outcome.is_ok() && self.place(&apptainer.image).as_deref() != Some(place) {
            outcome = Err("the image was changed while it was unpacked".to_owned());
        }
        let place = place.to_owned();
        blocking(move || finish(&partial, &place, outcome)).await
    }
}

/// Does this argument of `apptainer exec` make the root file system writable?
pub(super) fn asks_to_write(argument: &str) -> bool {
    let short = |letters: &str| letters.contains('w') && letters.chars().all(|letter| letter.is_ascii_alphabetic());
    match argument.strip_prefix("--") {
        Some(long) => long.split('=').next() == Some("writable"),
        None => argument.strip_prefix('-').is_some_and(short),
    }
}

/// The name of the directory for an image.
fn name_for(image: &Path, length: u64, (seconds, nanoseconds): (i64, i64)) -> OsString {
    let mut digest = Sha256::new();
    digest.update(image.as_os_str().as_bytes());
    // No path has this byte.
    digest.update([0]);
    digest.update(length.to_le_bytes());
    digest.update(seconds.to_le_bytes());
    digest.update(nanoseconds.to_le_bytes());
    let digits: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut name = image.file_stem().unwrap_or(OsStr::new("image")).to_owned();
    name.push(format!("-{digits}"));
    name
}

/// Where in the image its root file system begins.
async fn offset_in(apptainer: &Apptainer) -> Result<u64, String> {
    let words = vec![apptainer.program.clone().into(), "sif".into(), "list".into(), apptainer.image.clone().into()];
    let said = apptainer.output_of(words, &apptainer.inherited, LIST_TIMEOUT).await?;
    if !said.status.success() {
        return Err(format!("`apptainer sif list` fails: {}", last_lines(&said.stderr)));
    }
    let problem =
        "the image is not one plain Squashfs file system; one that is encrypted or has an overlay cannot be unpacked";
    squashfs_offset(&said.stdout).ok_or_else(|| problem.to_owned())
}

/// The offset of the one file system that `apptainer sif list` names, if that is a Squashfs to be mounted at the root.
fn squashfs_offset(listing: &str) -> Option<u64> {
    let mut file_systems = listing.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, _, _, position, kind] = columns[..] else { return None };
        Some((position, kind.strip_prefix("FS (")?))
    });
    let (Some((position, kind)), None) = (file_systems.next(), file_systems.next()) else { return None };
    if !kind.starts_with("Squashfs/*System") {
        return None;
    }
    position.split_once('-')?.0.parse().ok()
}

/// The program, beside apptainer as it is named or as it is, or else on the `PATH`.
fn find_unsquashfs(apptainer: &Path, path: &OsStr) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let on_path = |name: &Path| split_paths(path).map(|directory| directory.join(name)).find(executable);
    let named =
        if apptainer.as_os_str().as_bytes().contains(&b'/') { Some(apptainer.to_owned()) } else { on_path(apptainer) };
    let real = named.as_ref().and_then(|named| fs::canonicalize(named).ok());
    let mut beside = [named, real].into_iter().flatten().map(|program| program.with_file_name(UNSQUASHFS));
    beside.find(executable).or_else(|| on_path(Path::new(UNSQUASHFS)))
}

async fn extract(apptainer: &Apptainer, program: PathBuf, offset: u64, root: &Path) -> Result<(), String> {
    let mut words: Vec<OsString> = vec![program.into()];
    // File capabilities, which are extended attributes, have no effect in a container: it gains no privileges.
    words.extend(["-quiet", "-no-progress", "-no-xattrs", "-o"].map(OsString::from));
    words.extend([offset.to_string().into(), "-d".into(), root.into(), apptainer.image.clone().into()]);
    let said = apptainer.output_of(words, &apptainer.inherited, UNPACK_TIMEOUT).await?;
    match said.status.code() {
        Some(0) => Ok(()),
        Some(2) if is_harmless(&said.stderr) => Ok(()),
        _ => Err(format!("unsquashfs ended with {}: {}", said.status, last_lines(&said.stderr))),
    }
}

/// Is all that `unsquashfs` complains of without harm?
fn is_harmless(stderr: &str) -> bool {
    let mut complaints = stderr.lines().filter(|line| !line.trim().is_empty()).peekable();
    complaints.peek().is_some() && complaints.all(|line| HARMLESS.iter().any(|harmless| line.contains(harmless)))
}

/// Makes a directory to unpack into, where nobody else can put anything in its place, or look into it.
fn make_partial(directory: &Path) -> Result<PathBuf, String> {
    let named = directory.display();
    let failed = |error: io::Error| format!("{named} cannot be used: {error}");
    files::make_dir(directory).map_err(failed)?;
    let metadata = fs::metadata(directory).map_err(failed)?;
    let safe =
        [0, own_id()].contains(&metadata.uid()) && (metadata.mode() & 0o022 == 0 || metadata.mode() & 0o1000 != 0);
    if !safe {
        return Err(format!("other users can rename what is in {named}; name a directory that is yours alone"));
    }
    let mounted = rustix::fs::statvfs(directory).map_err(|error| failed(error.into()))?;
    if mounted.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(format!("{named} is on a file system from which nothing can be executed (noexec)"));
    }
    remove_abandoned(directory);
    let partial = directory.join(format!("{PARTIAL_PREFIX}{}-{:016x}", std::process::id(), fastrand::u64(..)));
    files::new_dir(&partial).map_err(failed)?;
    Ok(partial)
}

/// Removes what was left by daemons that were killed while they unpacked an image.
fn remove_abandoned(directory: &Path) {
    let old = |metadata: &Metadata| {
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age > ABANDONED_AFTER)
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let partial = entry.file_name().as_bytes().starts_with(PARTIAL_PREFIX.as_bytes());
        if partial && is_private(&entry.path()) && entry.metadata().is_ok_and(|metadata| old(&metadata)) {
            remove_tree(&entry.path());
        }
    }
}

/// Gives the directory its final name, or removes it where it is not whole or another daemon was faster.
fn finish(partial: &Path, place: &Path, outcome: Result<(), String>) -> Result<(), String> {
    let outcome = outcome.and_then(|()| {
        put(partial, place).map_err(|error| format!("{} cannot be put in place: {error}", place.display()))
    });
    if outcome.is_err() {
        remove_tree(partial);
    }
    match outcome {
        _ if is_private(place) => Ok(()),
        Ok(()) => Err(format!("{} is not kept with its owner and mode by its file system", place.display())),
        Err(problem) => Err(problem),
    }
}

/// All that is in it is on the disk before the name says so: a machine that goes down must not leave empty programs.
fn put(partial: &Path, place: &Path) -> io::Result<()> {
    files::put(partial, place, Durability::Content)
}

/// Is there a directory of our own that no other user can look into?
fn is_private(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own_id() && metadata.mode() & 0o077 == 0)
}

fn own_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Removes a directory and all in it, even where the image has directories that their owner cannot write to.
fn remove_tree(path: &Path) {
    if let Err(error) = files::remove(path, REMOVED_WITHIN) {
        tracing::warn!("{} is of no use and cannot be removed: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::process::Command;

    use super::*;

    const LISTING: &str = "\
        ID   |GROUP   |LINK    |SIF POSITION (start-end)  |TYPE\n\
        ------------------------------------------------------------------------------\n\
        1    |1       |NONE    |32176-32251               |Def.FILE\n\
        3    |1       |NONE    |36864-413696              |FS (Squashfs/*System/amd64)\n";

    #[test]
    fn only_an_image_that_is_one_plain_squashfs_has_an_offset() {
        assert_eq!(squashfs_offset(LISTING), Some(36_864));
        assert_eq!(squashfs_offset(&LISTING.replace("Squashfs", "Encrypted squashfs")), None);
        assert_eq!(squashfs_offset(&LISTING.replace("Squashfs", "Ext3")), None);
        let overlay = "4    |1       |NONE    |413696-500000             |FS (Ext3/Overlay/amd64)\n";
        assert_eq!(squashfs_offset(&format!("{LISTING}{overlay}")), None, "its files would be missing");
        assert_eq!(squashfs_offset(""), None);
    }

    #[test]
    fn an_image_that_was_changed_has_another_directory() {
        let name = |path: &str, length, time| name_for(Path::new(path), length, time).into_string().unwrap();
        let first = name("/images/my.sif", 5, (7, 0));
        assert_eq!(first, name("/images/my.sif", 5, (7, 0)));
        assert!(first.starts_with("my-") && first.len() == "my-".len() + 16, "{first}");
        for other in [("/others/my.sif", 5, (7, 0)), ("/images/my.sif", 6, (7, 0)), ("/images/my.sif", 5, (7, 1))] {
            assert_ne!(first, name(other.0, other.1, other.2));
        }
    }

    #[test]
    fn an_argument_for_a_writable_root_is_refused() {
        for argument in ["--writable", "--writable=true", "-w", "-ew"] {
            let problem = Unpacked::new("/x".into(), &["--nv".to_owned(), argument.to_owned()]).unwrap_err();
            assert!(problem.contains(argument), "{problem}");
        }
        for argument in ["--writable-tmpfs", "--nv", "-B/work:/w", "/w", "-e"] {
            assert!(Unpacked::new("/x".into(), &[argument.to_owned()]).is_ok(), "{argument}");
        }
    }

    #[test]
    fn missing_devices_are_harmless_and_missing_files_are_not() {
        let device = "create_inode: could not create character device p/dev/null, because you're not superuser!\n";
        assert!(is_harmless(device));
        assert!(!is_harmless(&format!("{device}create_inode: failed to create symlink p/bin, because File exists\n")));
        assert!(!is_harmless(""), "it does not say what failed");
    }

    /// Written by another process: a program that any process has open for writing cannot be executed.
    fn write_script(path: &Path, text: &str) {
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#;
        assert!(Command::new("sh").args(["-c", write]).arg(path).arg(text).status().unwrap().success());
    }

    fn apptainer(home: &Path) -> Apptainer {
        Apptainer {
            program: home.join("apptainer"),
            image: home.join("my.sif"),
            oci_ref: None,
            cache: None,
            binds: Vec::new(),
            arguments: Vec::new(),
            command: vec!["true".to_owned()],
            as_root: false,
            inherited: vec![("PATH".into(), "/usr/bin:/bin".into())],
            passed: Vec::new(),
            proxies: Vec::new(),
            registry_auth: None,
            unpacked: Some(Unpacked::new(home.join("unpacked"), &[]).unwrap()),
            keyring: false,
            containment: super::super::containment::Containment::nothing(home),
            path: None,
            secrets: Default::default(),
            says: super::super::Says::Settings,
            seen: Default::default(),
        }
    }

    #[tokio::test]
    async fn what_was_unpacked_is_used_for_as_long_as_containers_start_from_it() {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path();
        let shown = home.display();
        // They look for the last word of the probe and do not find it; from a directory only as long as it is `good`.
        let script = format!(
            "case \"$*\" in sif*) echo '3|1|NONE|36864-413696|FS (Squashfs/*System/amd64)'; exit 0;; \
             *rootfs*) test -e {shown}/good || {{ echo no directories here >&2; exit 255; }};; esac\n\
             for word; do :; done; echo \"$word\" >&2; exit 255"
        );
        write_script(&home.join("apptainer"), &script);
        // Locked, as an image may be; it must be removed all the same.
        let unpack = format!(
            "echo \"$5\" >> {shown}/offsets; mkdir -p \"$7/locked/deep\" && chmod 500 \"$7/locked\"; exec test -e {shown}/room"
        );
        write_script(&home.join("unsquashfs"), &unpack);
        fs::write(home.join("my.sif"), "1").unwrap();
        let image = home.join("my.sif").display().to_string();
        let starts_from = |apptainer: &Apptainer| {
            let words = apptainer.command(&"j1".parse().unwrap(), home, &Default::default()).0.words;
            words[words.len() - 2].to_str().unwrap().to_owned()
        };
        let entries = || fs::read_dir(home.join("unpacked")).unwrap().count();

        let full = apptainer(home);
        full.try_here(home).await.unwrap();
        full.try_here(home).await.unwrap();
        assert_eq!((starts_from(&full), entries()), (image.clone(), 0), "nothing is left of what was not unpacked");
        assert_eq!(fs::read_to_string(home.join("offsets")).unwrap(), "36864\n", "it was not tried again");

        fs::write(home.join("room"), "").unwrap();
        let refused = apptainer(home);
        refused.try_here(home).await.unwrap();
        assert_eq!((starts_from(&refused), entries()), (image.clone(), 1));

        fs::write(home.join("good"), "").unwrap();
        let used = apptainer(home);
        used.try_here(home).await.unwrap();
        assert!(starts_from(&used).ends_with("/rootfs"), "{}", starts_from(&used));
        assert_eq!(entries(), 1, "it was not unpacked again");
        fs::remove_file(home.join("good")).unwrap();
        let problem = used.try_here(home).await.unwrap_err();
        assert!(problem.contains("no directories here"), "jobs may have failed for it: {problem}");
        used.try_here(home).await.unwrap();
        assert_eq!(starts_from(&used), image);
        // A directory of the test must be removable.
        files::remove(&home.join("unpacked"), REMOVED_WITHIN).unwrap();
    }

    #[test]
    fn the_program_is_looked_for_beside_apptainer_first() {
        let temp = tempfile::tempdir().unwrap();
        let [bin, other] = ["bin", "other"].map(|name| temp.path().join(name));
        for (directory, program) in [(&bin, "apptainer"), (&bin, UNSQUASHFS), (&other, UNSQUASHFS)] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join(program), "").unwrap();
            fs::set_permissions(directory.join(program), Permissions::from_mode(0o700)).unwrap();
        }
        let both = std::env::join_paths([&other, &bin]).unwrap();
        let found = |apptainer: &Path, path: &OsStr| find_unsquashfs(apptainer, path);
        assert_eq!(found(Path::new("apptainer"), &both), Some(bin.join(UNSQUASHFS)));
        std::os::unix::fs::symlink(bin.join("apptainer"), temp.path().join("link")).unwrap();
        assert_eq!(
            found(&temp.path().join("link"), other.as_os_str()),
            Some(fs::canonicalize(&bin).unwrap().join(UNSQUASHFS))
        );
        fs::remove_file(bin.join(UNSQUASHFS)).unwrap();
        assert_eq!(found(&bin.join("apptainer"), &both), Some(other.join(UNSQUASHFS)));
        assert_eq!(found(&bin.join("apptainer"), bin.as_os_str()), None);
    }
}
