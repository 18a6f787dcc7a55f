//! What jobs leave that their users want: found, written down, sent to the store of files.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`walk`] | a look at a directory in which a stranger's program did what it liked |
//! | [`notes`] | what is said of what was not found, or not sent |
//! | [`plan`] | what is sent by itself, and what in packs |
//! | [`manifest`] | what is sent, on disk before it is sent |
//! | [`resend`] | what was not sent, or is not there any more, sent by hand |
//!
//! A run that has ended is sent as a whole: its record is written when all of it is there (`conclude`). A process that
//! dies in between is gone on with: the manifest says which files and packs there are, and the store which parts.
//!
//! Out of scope: requests and their repetition (`transfer`), when it is tried again (`lifecycle`).

mod manifest;
mod notes;
mod plan;
mod resend;
mod walk;

use std::io;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use lifecycle::{Problem, Run, Uploaded};
use protocol::{Content, JobFile, JobMessage, Outputs, WorkPath};
use transfer::{Class, Local, News, Step, Store};

use self::manifest::{Entry, Uploads, output_path};
pub(super) use self::manifest::{Manifest, Wanted};
use self::plan::{Limit, Plan};
pub(crate) use self::resend::{Resent, Unsent};
use self::walk::{Stopped, open_file};
use super::JobFiles;
use super::files::Place;
use super::inputs::away;
use super::job_dir::JobDir;
use super::results_dir::ResultsDir;
use super::size::{in_words, of_in_words};
use crate::blocking;

/// How often files are looked at anew that change while they are read, before it is left for a while.
const TRIES: u32 = 3;

/// Of how many contents at a time it is looked whether they are there.
const LOOKS_AT_ONCE: usize = 8;

/// Who is believed that a content is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The edge, which knows of what was sent just now.
    Edge,
    /// Only the store itself: what was sent long ago may be lost, and nobody knows.
    Nobody,
}

/// Says how far it is, for people.
pub(crate) type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// What is sent, and how much of it may be.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) uploads: Uploads,
    bytes_max: u64,
}

/// Why it is not all there.
enum Trouble {
    /// It passes.
    Away(Problem),
    /// It passes as well, once RESULTS_DIR takes what is written.
    Disk(io::Error),
    /// It does not; the end of a sentence about the job.
    Refused(String),
    /// A file has changed, and is looked at anew.
    Changed(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<transfer::Error> for Trouble {
    fn from(error: transfer::Error) -> Self {
        match error.class() {
            Class::Changed => Self::Changed(error.to_string()),
            Class::Refused | Class::NoStore => {
                Self::Refused(format!("what it has left was not taken by the store of files: {error}"))
            }
            Class::Local => Self::Disk(error.into()),
            Class::Away | Class::Denied | Class::Gone | Class::Wrong => Self::Away(away(&error)),
        }
    }
}

impl Outgoing {
    pub(super) fn new(results: &ResultsDir, bytes_max: u64) -> Self {
        Self { uploads: Uploads::new(results.path()), bytes_max }
    }

    /// Forgets what was sent of runs whose jobs have their records.
    pub(super) fn clean(&self, is_over: impl Fn(&Run) -> bool) -> io::Result<()> {
        self.uploads.clean(is_over)
    }

    /// The same for who sends by hand: what daemons write down is left alone.
    pub(super) fn by_hand(self) -> Self {
        Self { uploads: self.uploads.by_hand(), ..self }
    }

    /// How much of this may be sent.
    fn limit(&self, wanted: &Wanted) -> Limit {
        let ours = Limit { bytes: self.bytes_max, setting: "OUTPUT_FILES_BYTES_MAX" };
        match wanted.files_max {
            Some(bytes) if bytes < ours.bytes => Limit { bytes, setting: "`output_files_max` of its task" },
            _ => ours,
        }
    }

    /// May a file of this size be sent at all?
    pub(super) fn allows(&self, bytes: u64) -> bool {
        bytes <= self.bytes_max
    }

    /// Was it already said of a run that its outputs are to be sent? Then it is known whose fault its end was.
    pub(super) fn has_begun(&self, run: &Run) -> bool {
        self.uploads.has(run)
    }

    /// What was sent of what is wanted of a run, if all of it is there or will never be; otherwise it is written down
    /// what is wanted.
    pub(super) fn sent(&self, run: &Run, wanted: Wanted) -> io::Result<Option<Manifest>> {
        let known = self.uploads.manifest(run)?.filter(|manifest| manifest.wanted == wanted);
        if known.is_none() {
            self.uploads.write(run, &Manifest::new(wanted))?;
        }
        Ok(known.filter(|manifest| manifest.complete))
    }
}

impl JobFiles {
    /// Sends what is wanted of a run, and goes on with what was sent before. Where there is nothing to be sent, the run
    /// is to be looked at once more.
    pub(crate) async fn upload(self: &Arc<Self>, job: &JobMessage, run: &Run, tell: &Tell) -> Uploaded {
        self.upload_all(job, run, tell, Trust::Edge).await
    }

    async fn upload_all(self: &Arc<Self>, job: &JobMessage, run: &Run, tell: &Tell, trust: Trust) -> Uploaded {
        let store = match self.store() {
            Ok(store) => store,
            Err(missing) => return Uploaded::Away(missing),
        };
        let of_disk = |error: io::Error| {
            Uploaded::Away(self.claims.results().in_numbers("what the job has left cannot be sent", &error))
        };
        for _ in 0..TRIES {
            match self.send(job, run, store, tell, trust).await {
                Ok(()) => return Uploaded::Done,
                Err(Trouble::Away(problem)) => return Uploaded::Away(problem),
                Err(Trouble::Disk(error)) => return of_disk(error),
                Err(Trouble::Refused(why)) => {
                    return match self.change_manifest(run, move |manifest| manifest.refused(why)).await {
                        Ok(()) => Uploaded::Done,
                        Err(error) => of_disk(error),
                    };
                }
                Err(Trouble::Changed(what)) => {
                    tracing::warn!(job_id = %run.job_id, "{what}; it is sent anew");
                    let noted = self.change_manifest(run, |manifest| Manifest {
                        note: Some(and_also(
                            manifest.note.as_deref(),
                            "a file changed while it was sent, and was sent anew",
                        )),
                        ..manifest
                    });
                    if let Err(error) = noted.await {
                        return of_disk(error);
                    }
                }
            }
        }
        Uploaded::Away("what the job has left changes while it is sent: a process of it may still be there".into())
    }

    async fn send(
        self: &Arc<Self>,
        job: &JobMessage,
        run: &Run,
        store: &Store,
        tell: &Tell,
        trust: Trust,
    ) -> Result<(), Trouble> {
        let (files, this) = (self.clone(), run.clone());
        let (outputs, brought) = (job.spec.outputs.clone(), job.spec.files.clone());
        let planned = blocking(move || files.plan_upload(&this, outputs.as_ref(), &brought)).await?;
        let Some((dir, mut manifest)) = planned else { return Ok(()) };
        let contents = self.hash(run, dir, &mut manifest, tell).await?;
        let (files, this, written) = (self.clone(), run.clone(), manifest.clone());
        blocking(move || files.outgoing.uploads.write(&this, &written)).await?;
        let (tell, job_id) = (tell.clone(), run.job_id.clone());
        let listener = move |news: News| match news {
            News::Progress { step: Step::Put, done, total } => {
                tell(format!("uploading, {}", of_in_words(done, total)));
            }
            News::Progress { .. } => {}
            News::Note(what) => tracing::info!(%job_id, "{what}"),
        };
        if trust == Trust::Nobody {
            // What cannot be seen is not there for us, which is told when it is put.
            let all: Vec<Content> = contents.iter().map(Local::content).collect();
            let looks = stream::iter(all).map(|content| store.look(content));
            looks.buffer_unordered(LOOKS_AT_ONCE).for_each(|_| async {}).await;
        }
        store.put(&contents, &listener).await?;
        let (files, this) = (self.clone(), run.clone());
        blocking(move || {
            files.outgoing.uploads.write(&this, &Manifest { complete: true, ..manifest })?;
            files.outgoing.uploads.remove_packs(&this)
        })
        .await?;
        Ok(())
    }

    /// What is to be sent of a run, from what was written down of it, or else from a look at its directory. Nothing if
    /// nothing is to be sent, or the run is not ours any more: that is seen when it is concluded.
    fn plan_upload(
        &self,
        run: &Run,
        outputs: Option<&Outputs>,
        brought: &[JobFile],
    ) -> Result<Option<(JobDir, Manifest)>, Trouble> {
        let (results, uploads) = (self.claims.results(), &self.outgoing.uploads);
        results.must_be_it()?;
        let Some(manifest) = uploads.manifest(run)?.filter(|manifest| !manifest.complete) else { return Ok(None) };
        let dir = match results.open_job_dir(&run.job_id)? {
            Place::Dir(dir) => Some(dir),
            Place::Nothing | Place::Foreign => None,
        };
        if !self.claims.is_ours(dir.as_ref(), run)? {
            return Ok(None);
        }
        let Some(dir) = dir else {
            let note = Some("the job has removed its directory".to_owned());
            uploads.write(run, &Manifest { files: None, output: None, note, complete: true, ..manifest })?;
            return Ok(None);
        };
        let is_there = |entry: &Entry| !entry.pack || uploads.pack(run, &entry.path).exists();
        let is_planned = manifest.files.as_ref().is_some_and(|entries| entries.iter().all(is_there));
        let Some(outputs) = outputs.filter(|_| manifest.wanted.files && !is_planned) else {
            return Ok(Some((dir, manifest)));
        };
        let place = uploads.make(run)?;
        uploads.remove_packs(run)?;
        let limit = self.outgoing.limit(&manifest.wanted);
        let plan = || {
            let planned = plan::plan(dir.as_fd(), outputs, brought, &place, limit);
            if planned.is_err() {
                // What is half there takes the room that others need.
                uploads.remove_packs(run)?;
            }
            planned
        };
        let mut planned = plan();
        if planned.as_ref().is_err_and(Stopped::is_no_room) && self.incoming.give_way()? > 0 {
            planned = plan();
        }
        let Plan { alone, packs, note } = planned.map_err(|stopped| match stopped {
            Stopped::TooMuch(why) => Trouble::Refused(format!("its directory {why}")),
            Stopped::Io(error) => Trouble::Disk(error),
        })?;
        let entry = |path: WorkPath, pack: bool| Entry { path, pack, content: None };
        let alone = alone.into_iter().map(|found| entry(found.path, false));
        let packs = packs.into_iter().map(|name| entry(name, true));
        let manifest = Manifest { files: Some(alone.chain(packs).collect()), note, ..manifest };
        uploads.write(run, &manifest)?;
        Ok(Some((dir, manifest)))
    }

    /// Reads and hashes all that is to be sent, and writes into the manifest what it is.
    async fn hash(
        self: &Arc<Self>,
        run: &Run,
        dir: JobDir,
        manifest: &mut Manifest,
        tell: &Tell,
    ) -> Result<Vec<Local>, Trouble> {
        let (dir, directory) = (Arc::new(dir), self.claims.results().job_dir(&run.job_id));
        let limit = self.outgoing.limit(&manifest.wanted);
        let (mut contents, mut bytes, mut gone) = (Vec::new(), 0_u64, Vec::new());
        let mut output = Entry { path: output_path(), pack: false, content: None };
        let wanted = manifest.wanted.output.then_some(&mut output);
        for entry in manifest.files.iter_mut().flatten().chain(wanted) {
            let (dir, path, pack) = (dir.clone(), entry.path.clone(), entry.pack);
            let place = if pack { self.outgoing.uploads.pack(run, &path) } else { directory.join(path.as_str()) };
            let from = place.clone();
            let opening = move || if pack { files::open_own(&from).map(Some) } else { open_file(dir.as_fd(), &path) };
            let file = match blocking(opening).await {
                Ok(Some(file)) => file,
                Ok(None) => {
                    entry.content = None;
                    gone.push(format!("`{}` was there, and is gone", entry.path));
                    continue;
                }
                // What a job has locked stays where it is.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    entry.content = None;
                    gone.push(format!("`{}` cannot be read: {error}", entry.path));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let (tell, before) = (tell.clone(), bytes);
            let listener = move |news: News| {
                if let News::Progress { done, .. } = news {
                    tell(format!("its outputs are read before they are sent: {} so far", in_words(before + done)));
                }
            };
            let local = Local::opened(file, &place, &listener).await?;
            bytes = bytes.saturating_add(local.content().size);
            entry.content = Some(local.content());
            contents.push(local);
        }
        manifest.output = output.content;
        for what in gone {
            manifest.note = Some(and_also(manifest.note.as_deref(), &what));
        }
        if bytes > limit.bytes {
            // It has grown since it was looked at.
            return Err(Trouble::Refused(format!(
                "what it has left is {}, and {} allows {}",
                in_words(bytes),
                limit.setting,
                in_words(limit.bytes)
            )));
        }
        Ok(contents)
    }

    async fn change_manifest(
        self: &Arc<Self>,
        run: &Run,
        change: impl FnOnce(Manifest) -> Manifest + Send + 'static,
    ) -> io::Result<()> {
        let (files, run) = (self.clone(), run.clone());
        blocking(move || {
            let uploads = &files.outgoing.uploads;
            let Some(manifest) = uploads.manifest(&run)? else { return Ok(()) };
            uploads.write(&run, &change(manifest))?;
            Ok(())
        })
        .await
    }
}

fn and_also(before: Option<&str>, sentence: &str) -> String {
    match before {
        Some(before) if before.contains(sentence) => before.to_owned(),
        Some(before) => format!("{before}. {sentence}"),
        None => sentence.to_owned(),
    }
}
