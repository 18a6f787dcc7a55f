//! Files of this machine on their way to a job: found, looked at, packed where they are many, and sent.
//!
//! Out of scope: the store (`transfer`), arguments and what is printed (the programs).
//!
//! Invariants: all that is wrong with a name or a file is known before anything is sent; no link is followed but one
//! that a person has named itself; a job gets what its files held when they were sent.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use files::Bounds;
use protocol::{Content, JobFile, WorkPath, job_dir, limits, meets, text};
use transfer::{Class, Error, Listener, Local, News, PACK_MEMBERS_MAX, Packer, Step, Store};
use unicode_normalization::UnicodeNormalization as _;

/// A directory with more files than this is packed: each of them would cost two requests, and room in the message.
const LISTED_MAX: usize = 32;

/// Files of a directory that are longer than this stay out of its pack: they are gone on with by themselves, and are
/// not sent again when another file changes.
const PACKED_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A pack is not longer than this, or by one file.
const PACK_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A larger tree is no directory that somebody meant.
const WALKED_MAX: usize = 3_000_000;

/// How often files are read anew that change while they are sent.
const TRIES_MAX: u32 = 3;

/// How many links a sentence names.
const NAMED_MAX: usize = 3;

/// Packs that a program has left that was killed.
const PACKS_LEFT: Bounds = Bounds { count: 100, bytes: u64::MAX, age: Duration::from_hours(24) };

/// A file or a directory that somebody has named, and where it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Where it is.
    pub from: PathBuf,
    /// Where it is to be below the job's directory; nothing, if it is a directory whose files are to be there.
    pub path: Option<WorkPath>,
    /// Does the job only read it?
    pub read_only: bool,
}

/// What cannot be sent, as a sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

/// A file, and where it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is to be.
    pub path: WorkPath,
    /// Where it is.
    pub from: PathBuf,
    /// In bytes, when it was looked at.
    pub size: u64,
    /// Does the job only read it? Of what is in a pack that means nothing.
    pub read_only: bool,
}

/// Many files that travel as one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pack {
    path: WorkPath,
    members: Vec<Found>,
}

/// Files that were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    files: Vec<Found>,
    packs: Vec<Pack>,
    /// What a person should know of them.
    pub notes: Vec<String>,
}

/// An input that is too large to travel in a message.
#[derive(Debug, Clone)]
pub enum Input {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    File(PathBuf),
}

/// What is in the store now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// The files, as a job names them.
    pub files: Vec<JobFile>,
    /// The input.
    pub input: Option<Content>,
}

impl Given {
    /// Reads `PATH` or `PATH:WORKPATH`. A path below a job's directory has no colon in it, others may.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let whole = Path::new(text);
        if let Some((from, path)) = text.rsplit_once(':')
            && fs::symlink_metadata(whole).is_err()
        {
            let path = path.strip_prefix("./").unwrap_or(path);
            let path = path.strip_suffix('/').unwrap_or(path);
            let path = if path == "." { Ok(None) } else { path.parse().map(Some) };
            let path = path.map_err(|error| Unfit(format!("{}: where it is to be {error}", shown(text))))?;
            return Ok(Self { from: PathBuf::from(from), path, read_only: false });
        }
        Ok(Self { from: whole.to_owned(), path: name_of(whole)?, read_only: false })
    }

    /// The same of what the job only reads.
    pub fn parse_read_only(text: &str) -> Result<Self, Unfit> {
        Ok(Self { read_only: true, ..Self::parse(text)? })
    }
}

/// Where a file is to be that is named by its path alone: at the same path, where that leads down from here, and
/// otherwise under its own name. A directory that we are in has no name.
fn name_of(path: &Path) -> Result<Option<WorkPath>, Unfit> {
    let unfit = |problem: &str| Unfit(format!("{}: {problem}; name another one, as PATH:NAME", shown_path(path)));
    let parts: Vec<Component<'_>> = path.components().filter(|part| *part != Component::CurDir).collect();
    if parts.is_empty() && path.components().next().is_some() {
        return Ok(None);
    }
    let leads_down = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    let names: Vec<&OsStr> = if leads_down {
        parts.iter().map(|part| part.as_os_str()).collect()
    } else {
        path.file_name().into_iter().collect()
    };
    let names: Option<Vec<&str>> = names.into_iter().map(OsStr::to_str).collect();
    let name = names.filter(|names| !names.is_empty()).ok_or_else(|| unfit("it has no name that a job can read"))?;
    name.join("/").parse().map(Some).map_err(|error| unfit(&format!("its name {error}")))
}

/// Text of others in a sentence: harmless, and not longer than a person reads.
fn shown(name: &str) -> String {
    let shown: String = text::escaped(name).chars().take(120).collect();
    if shown.len() < name.len() && shown.chars().count() == 120 { format!("{shown}…") } else { shown }
}

fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

fn cannot(doing: &str, path: &Path, error: &std::io::Error) -> Unfit {
    Unfit(format!("cannot {doing} {}: {error}", shown_path(path)))
}

impl Gathered {
    /// Looks at what was named. It blocks.
    pub fn of(given: &[Given]) -> Result<Self, Unfit> {
        let mut gathered = Self::default();
        for given in given {
            let metadata = fs::metadata(&given.from).map_err(|error| cannot("read", &given.from, &error))?;
            if metadata.is_dir() {
                gathered.add_directory(given)?;
            } else {
                let path = given.path.clone().ok_or_else(|| {
                    Unfit(format!("{} is no directory, and needs a name: PATH:NAME", shown_path(&given.from)))
                })?;
                gathered.files.push(Found { read_only: given.read_only, ..look(path, given.from.clone())? });
            }
        }
        gathered.check()?;
        Ok(gathered)
    }

    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.packs.is_empty()
    }

    /// The files one by one, if none of them is in a pack.
    pub fn singles(&self) -> Option<&[Found]> {
        self.packs.is_empty().then_some(self.files.as_slice())
    }

    /// What the job has a line for: files, and packs of files.
    pub fn paths(&self) -> impl Iterator<Item = &WorkPath> {
        self.files.iter().map(|found| &found.path).chain(self.packs.iter().map(|pack| &pack.path))
    }

    /// How many there are, and how many bytes in all.
    pub fn count(&self) -> (usize, u64) {
        let all = || self.all();
        (all().count(), all().map(|found| found.size).sum())
    }

    fn all(&self) -> impl Iterator<Item = &Found> {
        self.files.iter().chain(self.packs.iter().flat_map(|pack| &pack.members))
    }

    fn add_directory(&mut self, given: &Given) -> Result<(), Unfit> {
        let mut walk = Walk::default();
        walk.walk(&given.from, given.path.as_ref())?;
        let Walk { mut files, links, .. } = walk;
        files.iter_mut().for_each(|found| found.read_only = given.read_only);
        if !links.is_empty() {
            let named: Vec<String> = links.iter().take(NAMED_MAX).map(|link| shown_path(link)).collect();
            let more = links.len().saturating_sub(NAMED_MAX);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            self.notes.push(format!("symbolic links are left out: {}{more}", named.join(", ")));
        }
        if files.is_empty() {
            self.notes.push(format!("there is no file in {}", shown_path(&given.from)));
        }
        if files.len() <= LISTED_MAX {
            self.files.append(&mut files);
            return Ok(());
        }
        let (small, large): (Vec<Found>, Vec<Found>) =
            files.into_iter().partition(|found| found.size <= PACKED_BYTES_MAX);
        // Very many large ones go as small ones do.
        let (packed, mut listed) =
            if large.len() <= limits::FILES_COUNT_MAX / 2 { (small, large) } else { ([small, large].concat(), vec![]) };
        self.files.append(&mut listed);
        let (count, bytes) = (packed.len(), packed.iter().map(|found| found.size).sum::<u64>());
        let mut packs: Vec<Vec<Found>> = Vec::new();
        let mut last_bytes = 0;
        for found in packed {
            match packs.last_mut() {
                Some(last) if last.len() < PACK_MEMBERS_MAX && last_bytes < PACK_BYTES_MAX => {
                    last_bytes += found.size;
                    last.push(found);
                }
                _ => {
                    last_bytes = found.size;
                    packs.push(vec![found]);
                }
            }
        }
        let what = if packs.len() == 1 { "a pack".to_owned() } else { format!("{} packs", packs.len()) };
        let unpacked = if given.read_only { ", and each job has a copy of them" } else { "" };
        let from = shown_path(&given.from);
        self.notes.push(format!("{count} files of {from} ({bytes} bytes) travel as {what}{unpacked}"));
        for members in packs {
            let path = self.pack_path(given.path.as_ref());
            self.packs.push(Pack { path, members });
        }
        Ok(())
    }

    /// A pack's path is only what it is called.
    fn pack_path(&self, directory: Option<&WorkPath>) -> WorkPath {
        let name = directory.map_or("files", |directory| directory.as_str().rsplit('/').next().unwrap_or_default());
        let number = self.packs.len() + 1;
        let path = format!("{name}.{number}.pack").parse();
        path.unwrap_or_else(|_| format!("files.{number}.pack").parse().expect("it is a plain name"))
    }

    /// What is wrong with all of them together.
    fn check(&self) -> Result<(), Unfit> {
        let travel = self.files.len() + self.packs.len();
        if travel > limits::FILES_COUNT_MAX {
            return Err(Unfit(format!(
                "{travel} files are too many for one job, which has {} at the most; put them into one directory, and \
                 name that: it travels as a pack",
                limits::FILES_COUNT_MAX
            )));
        }
        let taken = self.all().find_map(|found| Some((found, job_dir::taken_by(&found.path)?)));
        if let Some((found, name)) = taken {
            return Err(Unfit(format!(
                "{}: `{name}` has a meaning of its own in every job directory; give it another name, as PATH:NAME",
                shown_path(&found.from),
            )));
        }
        match meets(self.all().map(|found| &found.path)) {
            Some((one, other)) if one == other => {
                return Err(Unfit(format!(
                    "there is another file of the name {one}; give one of them another, as PATH:NAME"
                )));
            }
            Some((one, other)) => {
                return Err(Unfit(format!(
                    "`{one}` and `{other}` cannot be beside each other on every system; give one of them another name"
                )));
            }
            None => {}
        }
        // The same letters, written in two ways: some systems take them for one name.
        let composed: Vec<WorkPath> =
            self.all().filter_map(|found| found.path.as_str().nfc().collect::<String>().parse().ok()).collect();
        if let Some((one, _)) = meets(composed.iter()) {
            return Err(Unfit(format!(
                "the name `{one}` is there twice, in two normal forms of Unicode (NFC and NFD), which look the same; \
                 give one of the files another name"
            )));
        }
        Ok(())
    }
}

/// What was found in a directory.
#[derive(Debug, Default)]
struct Walk {
    files: Vec<Found>,
    links: Vec<PathBuf>,
    seen: usize,
}

impl Walk {
    fn walk(&mut self, top: &Path, path: Option<&WorkPath>) -> Result<(), Unfit> {
        let mut directories = vec![(top.to_owned(), path.cloned())];
        while let Some((directory, below)) = directories.pop() {
            let entries = fs::read_dir(&directory).map_err(|error| cannot("read", &directory, &error))?;
            let entries: Result<Vec<_>, _> = entries.collect();
            let mut entries = entries.map_err(|error| cannot("read", &directory, &error))?;
            // The same tree makes the same pack.
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                self.seen += 1;
                if self.seen > WALKED_MAX {
                    let what = format!("{} holds more than {WALKED_MAX} files", shown_path(top));
                    return Err(Unfit(format!("{what}; pack them yourself (tar), and send that")));
                }
                let from = entry.path();
                let kind = entry.file_type().map_err(|error| cannot("look at", &from, &error))?;
                if kind.is_symlink() {
                    self.links.push(from);
                    continue;
                }
                let name = entry.file_name();
                let inside = name.to_str().and_then(|name| match &below {
                    Some(below) => format!("{below}/{name}").parse().ok(),
                    None => name.parse().ok(),
                });
                let Some(inside) = inside else {
                    return Err(Unfit(format!("{}: {}", shown_path(&from), protocol::InvalidWorkPath)));
                };
                if kind.is_dir() {
                    directories.push((from, Some(inside)));
                } else {
                    self.files.push(look(inside, from)?);
                }
            }
        }
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }
}

/// Opens a file, to know that it is one that can be read.
fn look(path: WorkPath, from: PathBuf) -> Result<Found, Unfit> {
    let file = transfer::open(&from).map_err(|error| Unfit(text::escaped(&error.to_string())))?;
    let size = file.metadata().as_ref().map(Metadata::len).map_err(|error| cannot("look at", &from, error))?;
    Ok(Found { path, from, size, read_only: false })
}

/// A pack on the disk, which goes with this value.
struct Packed(PathBuf);

impl Drop for Packed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Puts files and an input into the store. Packs are written into the directory `aside`, and removed. What changes
/// while it is sent is read anew, a few times.
pub async fn send(
    store: &Store,
    gathered: &Gathered,
    input: Option<&Input>,
    aside: &Path,
    listener: &Listener<'_>,
) -> Result<Sent, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match send_once(store, gathered, input, aside, listener).await {
            Err(error) if error.class() == Class::Changed && tries < TRIES_MAX => {
                listener(News::Note(format!("{error}; it is read and sent anew")));
            }
            Err(error) if error.class() == Class::Changed => {
                let what = format!("{error}, {tries} times; send a copy that nothing writes to");
                return Err(Error::new(Class::Changed, what));
            }
            sent => return sent,
        }
    }
}

async fn send_once(
    store: &Store,
    gathered: &Gathered,
    input: Option<&Input>,
    aside: &Path,
    listener: &Listener<'_>,
) -> Result<Sent, Error> {
    let total = gathered.count().1;
    let mut before = 0;
    let (mut locals, mut files, mut packs) = (Vec::new(), Vec::new(), Vec::new());
    let file_of = |path: &WorkPath, local: &Local, pack, read_only| {
        let Content { sha256, size } = local.content();
        JobFile { path: path.clone(), size, sha256, pack, read_only }
    };
    for found in &gathered.files {
        let local = hashed(&found.from, before, total, listener).await?;
        before += local.content().size;
        files.push(file_of(&found.path, &local, false, found.read_only));
        locals.push(local);
    }
    for pack in &gathered.packs {
        let packed = packed(&pack.members, aside).await?;
        let local = hashed(&packed.0, before, total, listener).await?;
        before += pack.members.iter().map(|found| found.size).sum::<u64>();
        files.push(file_of(&pack.path, &local, true, false));
        locals.push(local);
        packs.push(packed);
    }
    let input = match input {
        None => None,
        Some(Input::Bytes(bytes)) => Some(Local::bytes(bytes.clone())),
        Some(Input::File(path)) => Some(Local::file(path, listener).await?),
    };
    let input_content = input.as_ref().map(Local::content);
    locals.extend(input);
    store.put(&locals, listener).await?;
    Ok(Sent { files, input: input_content })
}

async fn hashed(from: &Path, before: u64, total: u64, listener: &Listener<'_>) -> Result<Local, Error> {
    let of_all = |news: News| match news {
        News::Progress { step: Step::Hash, done, .. } => {
            listener(News::Progress { step: Step::Hash, done: (before + done).min(total), total });
        }
        other => listener(other),
    };
    Local::file(from, &of_all).await
}

async fn packed(members: &[Found], aside: &Path) -> Result<Packed, Error> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let (members, aside) = (members.to_vec(), aside.to_owned());
    let writing = tokio::task::spawn_blocking(move || {
        let made = pack(&members, &aside, number);
        made.map_err(|error| match error.is_no_room() {
            true => {
                let bytes: u64 = members.iter().map(|found| found.size).sum();
                let what = format!(
                    "there is no room in {} for a pack of {bytes} bytes, which is made there before it is sent: {error}",
                    aside.display()
                );
                error.told(what)
            }
            false => error,
        })
    });
    writing.await.map_err(|_| Error::new(Class::Local, "the thread that writes a pack has ended too early"))?
}

/// It blocks.
fn pack(members: &[Found], aside: &Path, number: u64) -> Result<Packed, Error> {
    files::own_dir(aside).map_err(|error| Error::io("use", aside, error))?;
    // What cannot be removed does no harm.
    let _ = files::prune(aside, &PACKS_LEFT, SystemTime::now());
    let packed = Packed(aside.join(format!("{}-{number}.pack", std::process::id())));
    let _ = fs::remove_file(&packed.0);
    let file = files::create_new(&packed.0).map_err(|error| Error::io("write", &packed.0, error))?;
    let mut packer = Packer::new(file);
    for Found { path, from, size, .. } in members {
        let mut file = transfer::open(from)?;
        let metadata = file.metadata().map_err(|error| Error::io("look at", from, error))?;
        let runs = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
        if metadata.len() != *size {
            return Err(Error::changed(from));
        }
        packer.add(path, *size, runs, &mut file)?;
    }
    packer.finish()?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn gathered(given: &[(&Path, Option<&str>)]) -> Result<Gathered, String> {
        let given = given.iter().map(|(from, path)| Given {
            from: (*from).to_owned(),
            path: path.map(|path| path.parse().unwrap()),
            read_only: false,
        });
        Gathered::of(&given.collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    fn paths(gathered: &Gathered) -> Vec<&str> {
        gathered.files.iter().map(|found| found.path.as_str()).collect()
    }

    #[test]
    fn an_argument_says_where_a_file_is_and_where_it_is_to_be() {
        let parse = |text: &str| Given::parse(text).map(|given| (given.from, given.path.map(String::from)));
        for (text, from, path) in [
            ("in.melt", "in.melt", Some("in.melt")),
            ("./data/big.dat", "./data/big.dat", Some("data/big.dat")),
            ("/home/me/x.py", "/home/me/x.py", Some("x.py")),
            ("../x.py", "../x.py", Some("x.py")),
            ("big.dat:data/big.dat", "big.dat", Some("data/big.dat")),
            ("/tmp/a:b:./data/c/", "/tmp/a:b", Some("data/c")),
            (".", ".", None),
            ("plots:.", "plots", None),
        ] {
            assert_eq!(parse(text), Ok((PathBuf::from(from), path.map(str::to_owned))), "{text}");
        }
        for text in
            ["..", "/", "", "a:../b", "a:/b", "a:b//c", "a\nb", "a:\u{202e}", &format!("a:{}", "x".repeat(4_000))]
        {
            let told = parse(text).unwrap_err().to_string();
            assert!(told.len() < 700 && !told.contains(['\n', '\u{202e}']), "{told}");
        }
        let temp = tempfile::tempdir().unwrap();
        let odd = temp.path().join("a:b");
        fs::write(&odd, "").unwrap();
        let given = parse(odd.to_str().unwrap()).unwrap_err().to_string();
        assert!(given.contains("as PATH:NAME"), "it is there, and no path of a job has a colon: {given}");
    }

    #[test]
    fn a_directory_is_listed_or_packed_and_links_in_it_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("in");
        fs::create_dir_all(top.join("deep/er")).unwrap();
        for name in ["b", "a", "deep/er/c"] {
            fs::write(top.join(name), name).unwrap();
        }
        symlink("/etc/passwd", top.join("link")).unwrap();
        let few = gathered(&[(&top, Some("data"))]).unwrap();
        assert_eq!(paths(&few), ["data/a", "data/b", "data/deep/er/c"]);
        assert!(few.notes.iter().any(|note| note.contains("left out") && note.contains("link")), "{:?}", few.notes);
        assert_eq!(paths(&gathered(&[(&top, None)]).unwrap()), ["a", "b", "deep/er/c"]);
        // A link that is named is followed.
        symlink(top.join("a"), temp.path().join("to-a")).unwrap();
        assert_eq!(paths(&gathered(&[(&temp.path().join("to-a"), Some("x"))]).unwrap()), ["x"]);

        for number in 0..LISTED_MAX {
            fs::write(top.join(format!("n{number}")), "x").unwrap();
        }
        fs::File::create(top.join("large")).unwrap().set_len(PACKED_BYTES_MAX + 1).unwrap();
        let many = gathered(&[(&top, Some("data"))]).unwrap();
        assert_eq!(paths(&many), ["data/large"]);
        assert_eq!((many.packs.len(), many.packs[0].members.len()), (1, LISTED_MAX + 3));
        assert_eq!(many.packs[0].path.as_str(), "data.1.pack");
        assert!(
            many.notes.iter().any(|note| note.contains("35 files of") && note.ends_with("travel as a pack")),
            "{:?}",
            many.notes
        );
        let read = Given { from: top.clone(), path: Some("data".parse().unwrap()), read_only: true };
        let read = Gathered::of(std::slice::from_ref(&read)).unwrap();
        assert!(
            read.files.iter().all(|found| found.read_only) && read.notes.iter().any(|note| note.contains("a copy"))
        );
    }

    #[test]
    fn a_directory_of_very_many_files_travels_as_several_packs() {
        let temp = tempfile::tempdir().unwrap();
        for number in 0..=PACK_MEMBERS_MAX {
            fs::File::create(temp.path().join(number.to_string())).unwrap();
        }
        let many = gathered(&[(temp.path(), Some("data"))]).unwrap();
        assert_eq!(many.packs.iter().map(|pack| pack.members.len()).collect::<Vec<_>>(), [PACK_MEMBERS_MAX, 1]);
        assert_eq!(
            many.packs.iter().map(|pack| pack.path.as_str()).collect::<Vec<_>>(),
            ["data.1.pack", "data.2.pack"]
        );
        assert_eq!((many.paths().count(), many.count().0), (2, PACK_MEMBERS_MAX + 1));
        assert!(many.notes.iter().any(|note| note.ends_with("travel as 2 packs")), "{:?}", many.notes);
    }

    #[test]
    fn what_cannot_travel_is_told_by_name_before_anything_is_sent() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let refused = |given: &[(&Path, Option<&str>)]| gathered(given).unwrap_err();
        for name in ["a", "A", "b"] {
            fs::write(path(name), name).unwrap();
        }
        fs::create_dir(path("dir")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("dir/fifo"), rustix::fs::Mode::RUSR).unwrap();
        fs::create_dir(path("odd")).unwrap();
        fs::write(path("odd/two\nlines"), "").unwrap();
        for (given, says) in [
            (vec![("none", Some("x"))], "none: No such file"),
            (vec![("dir/fifo", Some("x"))], "dir/fifo is a named pipe, and only files travel"),
            (vec![("dir", Some("x"))], "dir/fifo is a named pipe"),
            (vec![("odd", Some("x"))], "odd/two\\nlines: must be a path"),
            (vec![("a", Some("x")), ("b", Some("x"))], "another file of the name x"),
            (vec![("a", Some("x")), ("A", Some("X"))], "`x` and `X` cannot be beside each other"),
            (vec![("a", Some("x")), ("b", Some("x/y"))], "cannot be beside each other"),
            (vec![("a", Some("\u{e9}")), ("b", Some("e\u{301}"))], "two normal forms of Unicode"),
            (vec![("a", Some("output.json"))], "`output.json` has a meaning of its own"),
            (vec![("a", Some("children/1.json"))], "`children` has a meaning of its own"),
            (vec![("a", None)], "needs a name"),
        ] {
            let given: Vec<(PathBuf, Option<&str>)> = given.into_iter().map(|(from, to)| (path(from), to)).collect();
            let given: Vec<(&Path, Option<&str>)> = given.iter().map(|(from, to)| (from.as_path(), *to)).collect();
            let told = refused(&given);
            assert!(told.contains(says), "{says}: {told}");
        }
        fs::File::create(path("sparse")).unwrap().set_len(2_000_000_000_000).unwrap();
        assert!(refused(&[(&path("sparse"), Some("x"))]).contains("it is sparse"));
        let many: Vec<PathBuf> = (0..=limits::FILES_COUNT_MAX).map(|_| path("a")).collect();
        let names: Vec<String> = (0..many.len()).map(|number| number.to_string()).collect();
        let many: Vec<(&Path, Option<&str>)> =
            many.iter().zip(&names).map(|(from, name)| (from.as_path(), Some(name.as_str()))).collect();
        assert!(refused(&many).contains("501 files are too many for one job"));
    }
}
