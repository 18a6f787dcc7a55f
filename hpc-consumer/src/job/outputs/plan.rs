//! What is sent of what a job has left: files by themselves, and many small ones as packs.
//!
//! A result names what is sent and has a bound, so only so many files travel by themselves: the largest. The others
//! are written into packs beside the job's directory, as they are found; of very many nothing is kept in memory.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use protocol::{JobFile, Outputs, WorkPath};
use transfer::{Class, Packer};

use super::notes::{Left, Notes};
use super::walk::{Found, Stopped, open_entry, open_file, walk};
use crate::job::size::in_words;

/// So many files travel by themselves,
const ALONE_MAX: usize = 100;

/// if they can be named in so many bytes. Besides them there is room for all else that a result says, but for an output
/// of full length.
const LIST_BYTES_MAX: usize = 24_000;

/// What the name of one takes besides its path.
const LISTED_BYTES: usize = 160;

/// Where there are packs, files up to this go into one.
const SMALL_MAX: u64 = 1 << 20;

/// How large a pack becomes, at least, before another one is begun: so many make a list of bounded length.
const PACK_BYTES: u64 = 1 << 30;
const PACKS_MAX: u64 = 50;

/// How many files are sent at most.
const FILES_MAX: u64 = 1_000_000;

/// A file that is longer than this,
const SPARSE_BYTES_MIN: u64 = 64 << 30;

/// and of which less than this part is on the disk, is nothing but holes, all of which would travel.
const SPARSE_PART: u64 = 64;

/// How often a file is read anew that changes meanwhile.
const TRIES: u32 = 3;

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) alone: Vec<Found>,
    /// By their names in the directory for packs, and in the list.
    pub(super) packs: Vec<WorkPath>,
    pub(super) note: Option<String>,
}

/// How much may be sent, and which setting says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    pub(super) setting: &'static str,
}

/// How much there is.
#[derive(Debug, Default)]
struct Totals {
    files: u64,
    bytes: u64,
    list_bytes: usize,
}

/// Looks what is wanted of a directory, and writes the packs into another one, `place`. There may be no more than so
/// many bytes of it. What the job has brought to read only is not among it.
pub(super) fn plan(
    directory: BorrowedFd<'_>,
    outputs: &Outputs,
    brought: &[JobFile],
    place: &Path,
    limit: Limit,
) -> Result<Plan, Stopped> {
    let brought: HashSet<&str> = brought.iter().filter(|file| file.read_only).map(|file| file.path.as_str()).collect();
    let mut totals = Totals::default();
    walk(directory, outputs, &mut Notes::new(outputs), |_, _, found, _| {
        if brought.contains(found.path.as_str()) {
            return Ok(());
        }
        totals.files += 1;
        totals.bytes = totals.bytes.saturating_add(found.size);
        totals.list_bytes = totals.list_bytes.saturating_add(listed(&found.path));
        if found.size > SPARSE_BYTES_MIN && found.on_disk < found.size / SPARSE_PART {
            return Err(Stopped::TooMuch(format!(
                "has `{}` in it, which is {} long, and of which only {} are on the disk (it is sparse): have the job compress it",
                found.path,
                in_words(found.size),
                in_words(found.on_disk)
            )));
        }
        Ok(())
    })?;
    if totals.bytes > limit.bytes {
        return Err(Stopped::TooMuch(format!(
            "has {} in {} files that are wanted, and {} allows {}",
            in_words(totals.bytes),
            totals.files,
            limit.setting,
            in_words(limit.bytes)
        )));
    }
    if totals.files > FILES_MAX {
        return Err(Stopped::TooMuch(format!(
            "has {} files that are wanted, and {FILES_MAX} can be sent: have the job pack them",
            totals.files
        )));
    }
    let are_packed = totals.files > ALONE_MAX as u64 || totals.list_bytes > LIST_BYTES_MAX;
    let (mut notes, mut alone) = (Notes::new(outputs), Vec::new());
    let mut packs = Packs::new(place, (limit.bytes / PACKS_MAX).max(PACK_BYTES));
    let mut names = Names::default();
    walk(directory, outputs, &mut notes, |at, name, found, notes| {
        if brought.contains(found.path.as_str()) {
            notes.pass_over(Left::ReadOnly, found.path.as_str().as_bytes(), None);
            Ok(())
        } else if are_packed && !names.take(&found.path) {
            // A pack in which two are one file on some systems is unpacked by nobody.
            notes.pass_over(Left::Meeting, found.path.as_str().as_bytes(), None);
            Ok(())
        } else if are_packed && found.size <= SMALL_MAX {
            packs.add(&found, notes, || open_entry(at, name))
        } else {
            alone.push(found);
            Ok(())
        }
    })?;
    // The largest first, so that what goes into a pack is at the end.
    alone.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.path.cmp(&other.path)));
    let mut list_bytes: usize = alone.iter().map(|found| listed(&found.path)).sum();
    while alone.len() > ALONE_MAX || list_bytes > LIST_BYTES_MAX {
        let Some(found) = alone.pop() else { break };
        list_bytes -= listed(&found.path);
        packs.add(&found, &mut notes, || open_file(directory, &found.path))?;
    }
    alone.sort_by(|one, other| one.path.cmp(&other.path));
    let (packs, packed) = packs.finish()?;
    if let Some(last) = packs.last() {
        let which =
            if packs.len() == 1 { "one pack".to_owned() } else { format!("{} packs, the last one", packs.len()) };
        notes.say(format!("{packed} files are in {which} `{last}` (tar), where each has its own path"));
    }
    Ok(Plan { alone, packs, note: notes.text() })
}

fn listed(path: &WorkPath) -> usize {
    path.as_str().len() + LISTED_BYTES
}

/// Which names are taken where no letter is told apart by its case, by what would be another number for each.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    files: HashSet<u64>,
    directories: HashSet<u64>,
}

impl Names {
    /// Takes a name, unless it would meet another one.
    fn take(&mut self, path: &WorkPath) -> bool {
        let path = path.as_str().to_lowercase();
        let above: Vec<u64> = path.match_indices('/').map(|(at, _)| self.hasher.hash_one(&path[..at])).collect();
        let number = self.hasher.hash_one(path.as_str());
        if self.directories.contains(&number) || above.iter().any(|above| self.files.contains(above)) {
            return false;
        }
        self.directories.extend(above);
        self.files.insert(number)
    }
}

/// The packs that are being written.
struct Packs<'a> {
    place: &'a Path,
    bytes: u64,
    whole: Vec<WorkPath>,
    open: Option<(WorkPath, Packer)>,
    packed: u64,
}

impl<'a> Packs<'a> {
    fn new(place: &'a Path, bytes: u64) -> Self {
        Self { place, bytes, whole: Vec::new(), open: None, packed: 0 }
    }

    /// Adds a file as it is now.
    fn add(
        &mut self,
        found: &Found,
        notes: &mut Notes,
        open: impl Fn() -> io::Result<Option<fs::File>>,
    ) -> Result<(), Stopped> {
        let mut packer = self.packer()?;
        for number in 1..=TRIES {
            let mut file = match open() {
                Ok(Some(file)) => file,
                Ok(None) => {
                    notes.say(format!("`{}` was there, and is gone", found.path));
                    return Ok(());
                }
                // What a job has locked stays where it is.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    notes.pass_over(Left::Unreadable, found.path.as_str().as_bytes(), Some(error));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let size = file.metadata()?.len();
            match packer.add(&found.path, size, found.runs, &mut file) {
                Ok(()) => {
                    self.packed += 1;
                    return self.close_if_full();
                }
                Err(error) if error.class() == Class::Changed && number < TRIES => packer = self.packer()?,
                Err(error) => return Err(Stopped::Io(error.into())),
            }
        }
        Ok(())
    }

    fn packer(&mut self) -> io::Result<&mut Packer> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let name = format!("files-{}.tar", self.whole.len() + 1);
                let file = files::create_new(&self.place.join(&name))?;
                (name.parse().map_err(io::Error::other)?, Packer::new(file))
            }
        };
        Ok(&mut self.open.insert(open).1)
    }

    fn close_if_full(&mut self) -> Result<(), Stopped> {
        if self.open.as_mut().is_some_and(|(_, packer)| packer.bytes() >= self.bytes) { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), Stopped> {
        if let Some((pack, packer)) = self.open.take() {
            packer.finish().map_err(io::Error::from)?;
            self.whole.push(pack);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<WorkPath>, u64), Stopped> {
        self.close()?;
        Ok((self.whole, self.packed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Case {
        job: tempfile::TempDir,
        place: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Self {
            Self { job: tempfile::tempdir().unwrap(), place: tempfile::tempdir().unwrap() }
        }

        fn write(&self, path: &str, size: usize) {
            let path = self.job.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7; size]).unwrap();
        }

        fn plan(&self, patterns: &[&str], bytes_max: u64) -> Result<Plan, Stopped> {
            self.plan_beside(&[], patterns, bytes_max)
        }

        fn plan_beside(&self, brought: &[JobFile], patterns: &[&str], bytes_max: u64) -> Result<Plan, Stopped> {
            let outputs =
                Outputs { patterns: patterns.iter().map(|pattern| pattern.parse().unwrap()).collect(), when: None };
            let job = File::open(self.job.path()).unwrap();
            let limit = Limit { bytes: bytes_max, setting: "OUTPUT_FILES_BYTES_MAX" };
            plan(job.as_fd(), &outputs, brought, self.place.path(), limit)
        }

        /// Paths and modes.
        fn packed(&self, plan: &Plan) -> Vec<(String, u32)> {
            let mut members = Vec::new();
            for pack in &plan.packs {
                let mut archive = tar::Archive::new(File::open(self.place.path().join(pack.as_str())).unwrap());
                for entry in archive.entries().unwrap() {
                    let mut entry = entry.unwrap();
                    let (mut content, size) = (Vec::new(), entry.size());
                    entry.read_to_end(&mut content).unwrap();
                    assert_eq!(content.len() as u64, size);
                    members.push((entry.path().unwrap().to_str().unwrap().to_owned(), entry.header().mode().unwrap()));
                }
            }
            members.sort();
            members
        }
    }

    const NO_LIMIT: u64 = u64::MAX;

    #[test]
    fn a_few_files_travel_by_themselves() {
        let case = Case::new();
        (0..ALONE_MAX).for_each(|number| case.write(&format!("plots/{number}.png"), 10));
        let plan = case.plan(&["plots/*.png"], NO_LIMIT).unwrap();
        assert_eq!((plan.alone.len(), plan.packs.len(), plan.note), (ALONE_MAX, 0, None));
    }

    #[test]
    fn what_a_job_has_brought_to_read_only_is_no_output() {
        let case = Case::new();
        ["data/big", "data/own", "data/made"].iter().for_each(|path| case.write(path, 10));
        let brought = |path: &str, read_only| {
            let (path, sha256) = (path.parse().unwrap(), protocol::Digest::new([1; 32]));
            JobFile { path, size: 10, sha256, pack: false, read_only }
        };
        let plan = case.plan_beside(&[brought("data/big", true), brought("data/own", false)], &["data"], 20).unwrap();
        let mut paths: Vec<&str> = plan.alone.iter().map(|found| found.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["data/made", "data/own"]);
        let note = plan.note.unwrap();
        assert!(note.contains("1 that the job has brought to read only: data/big"), "{note}");
    }

    #[test]
    fn many_small_files_are_one_pack_and_large_ones_are_not_in_it() {
        let case = Case::new();
        (0..2 * ALONE_MAX).for_each(|number| case.write(&format!("many/{number}"), number));
        case.write("large", SMALL_MAX as usize + 1);
        fs::set_permissions(case.job.path().join("many/1"), fs::Permissions::from_mode(0o755)).unwrap();
        let plan = case.plan(&["**"], NO_LIMIT).unwrap();
        assert_eq!(plan.alone.iter().map(|found| found.path.as_str()).collect::<Vec<_>>(), ["large"]);
        let packed = case.packed(&plan);
        assert_eq!(packed.len(), 2 * ALONE_MAX);
        assert!(packed.contains(&("many/1".to_owned(), 0o700)) && packed.contains(&("many/2".to_owned(), 0o600)));
        assert_eq!(
            plan.note.as_deref(),
            Some("200 files are in one pack `files-1.tar` (tar), where each has its own path")
        );
    }

    #[test]
    fn of_many_large_files_the_largest_travel_by_themselves() {
        let case = Case::new();
        for number in 0..ALONE_MAX + 3 {
            case.write(&format!("{number}"), SMALL_MAX as usize + 1 + number);
        }
        let plan = case.plan(&["*"], NO_LIMIT).unwrap();
        assert_eq!(plan.alone.len(), ALONE_MAX);
        let packed: Vec<String> = case.packed(&plan).into_iter().map(|(path, _)| path).collect();
        assert_eq!(packed, ["0", "1", "2"]);
    }

    #[test]
    fn the_list_has_a_bound_however_long_its_names_are() {
        let case = Case::new();
        let long = vec!["x".repeat(200); 4].join("/");
        (0..ALONE_MAX).for_each(|number| case.write(&format!("{long}/{number}"), 1));
        let plan = case.plan(&["**"], NO_LIMIT).unwrap();
        assert_eq!((plan.alone.len(), case.packed(&plan).len()), (0, ALONE_MAX));
    }

    #[test]
    fn what_would_meet_in_a_pack_is_left_and_said() {
        let case = Case::new();
        (0..=ALONE_MAX).for_each(|number| case.write(&format!("{number}"), 1));
        for path in ["A", "a", "b/c", "B"] {
            case.write(path, 1);
        }
        let plan = case.plan(&["**"], NO_LIMIT).unwrap();
        assert_eq!(case.packed(&plan).len(), ALONE_MAX + 3);
        assert!(plan.note.unwrap().contains("2 that differ from others only in the case of letters"));
    }

    #[test]
    fn what_is_too_much_is_told_in_numbers() {
        let case = Case::new();
        case.write("a", 1_500_000);
        case.write("b", 1_500_000);
        case.write("c", 1_500_000);
        let told = case.plan(&["a", "b"], 2_000_000).unwrap_err().to_string();
        assert_eq!(told, "has 3.0 MB in 2 files that are wanted, and OUTPUT_FILES_BYTES_MAX allows 2.0 MB");
        assert!(case.plan(&["a"], 2_000_000).is_ok());
        // A terabyte of nothing.
        File::options().write(true).open(case.job.path().join("c")).unwrap().set_len(1 << 40).unwrap();
        let told = case.plan(&["c"], NO_LIMIT).unwrap_err().to_string();
        assert!(told.contains("`c`") && told.contains("sparse"), "{told}");
    }
}
