//! Contents on their way out.

use std::collections::HashSet;

use protocol::files::{JobFileLink, JobFiles};
use protocol::job_dir::OUTPUT;
use protocol::{Content, Digest, JobFile, JobId};
use serde::Deserialize;

use super::store::Question;
use super::tables::{self, State};
use super::{Asker, Files, StoreAnswer, Trouble, redirect};
use crate::hub::{Database, Follower, Step, job_result};
use crate::{Problem, Response};

/// As which types files are shown by the ends of their names. Whatever may hold a program is text.
const TYPES: [(&str, &str); 12] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("svg", "image/svg+xml"),
    ("pdf", "application/pdf"),
    ("json", "application/json"),
    ("csv", "text/csv"),
    ("txt", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
];

/// As much of a result as is needed here.
#[derive(Deserialize)]
struct Left {
    #[serde(default)]
    files: Vec<JobFile>,
    output_file: Option<Content>,
}

impl Left {
    /// All of it. The output is called what the task has called it.
    fn files(self) -> Vec<JobFile> {
        let mut files = self.files;
        if let Some(Content { sha256, size }) = self.output_file
            && let Ok(path) = OUTPUT.parse()
            && !files.iter().any(|file| file.path.as_str() == OUTPUT)
        {
            files.push(JobFile { path, size, sha256, pack: false, read_only: false });
        }
        files
    }
}

impl Files {
    pub(super) fn get<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        asker: &Asker,
        digest: &Digest,
    ) -> Result<(), D::Error> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let rows = tables::of(step.db, digest)?;
        if rows.iter().any(|row| row.is_here()) {
            let url = settings.store.get(digest, &[], &asker.origin, step.now);
            step.answer(follower, redirect(url));
        } else if rows.is_empty() {
            // The tables may have been lost, and what jobs need and have left is in the store all the same.
            let content = Content { sha256: *digest, size: 0 };
            self.ask(step, Some(follower), content, Question::Find(asker.clone()));
        } else {
            step.refuse(follower, Problem::UnknownFile);
        }
        Ok(())
    }

    /// Somebody was handed something else than this content, or nothing. It may be a broken line, or a lie: so nothing
    /// is taken away, and whoever offers it next puts it anew.
    pub(super) fn doubted<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        digest: Digest,
    ) -> Result<(), D::Error> {
        let rows = tables::of(step.db, &digest)?;
        let Some(row) = rows.iter().find(|row| row.is_here()) else {
            step.refuse(follower, Problem::UnknownFile);
            return Ok(());
        };
        if row.state == State::Here {
            tables::set(step.db, &row.content, State::Doubted, row.at)?;
        }
        step.answer(follower, Response::of(202, &row.content));
        Ok(())
    }

    /// The store has said whether it has a content that the tables did not know.
    pub(super) fn found<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Option<Follower>,
        asker: &Asker,
        digest: &Digest,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        let Some(follower) = follower else { return Ok(()) };
        let size = match outcome {
            Ok(StoreAnswer { length: Some(size), .. }) => size,
            Err(Trouble::Away(problem)) => {
                step.refuse(follower, problem);
                return Ok(());
            }
            // Stores that may not be listed refuse what they do not have.
            Ok(_) | Err(Trouble::Refused(..) | Trouble::Denied(_)) => {
                step.refuse(follower, Problem::UnknownFile);
                return Ok(());
            }
        };
        // Others may have asked for it, or offered it, meanwhile: then they tell.
        if tables::of(step.db, digest)?.is_empty() {
            let content = Content { sha256: *digest, size };
            tables::insert(step.db, &content, None, asker.owner(), step.millis())?;
            tables::set(step.db, &content, State::Here, step.millis())?;
            self.sweep_at.get_or_insert(step.millis() + super::expiry::HOUR);
        }
        if tables::of(step.db, digest)?.iter().any(|row| row.is_here()) {
            self.get(step, follower, asker, digest)
        } else {
            step.refuse(follower, Problem::UnknownFile);
            Ok(())
        }
    }

    pub(super) fn of_job<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        asker: &Asker,
        job_id: &JobId,
    ) -> Result<(), D::Error> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let Some(result) = job_result(step.db, job_id)? else {
            step.refuse(follower, Problem::UnknownJob);
            return Ok(());
        };
        // A result without files, or none yet, is one that lists none.
        let left = result.and_then(|result| serde_json::from_str::<Left>(&result).ok());
        let left = left.map_or_else(Vec::new, Left::files);
        let digests: Vec<Digest> = left.iter().map(|file| file.sha256).collect();
        let here = if digests.is_empty() { HashSet::new() } else { tables::here(step.db, &digests)? };
        let (left, gone): (Vec<JobFile>, Vec<JobFile>) = left.into_iter().partition(|file| here.contains(&file.sha256));
        let link = |file: JobFile| {
            let shown_as = shown_as(&file);
            let shown_as: Vec<(&str, &str)> = shown_as.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let url = settings.store.get(&file.sha256, &shown_as, &asker.origin, step.now);
            JobFileLink { file, url }
        };
        let files = left.into_iter().map(link).collect();
        step.answer(follower, Response::of(200, &JobFiles { files, gone }));
        Ok(())
    }
}

/// What the store is to say of a file: its type, and its name to whoever saves it.
fn shown_as(file: &JobFile) -> [(&'static str, String); 2] {
    let name = file.path.as_str().rsplit('/').next().unwrap_or_default();
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    let found = TYPES.iter().find(|(known, _)| *known == ending);
    let content_type = found.map_or("application/octet-stream", |(_, content_type)| content_type);
    // Both forms of RFC 6266: some readers know only the first one.
    let plain: String = name.chars().map(|c| if c.is_ascii_graphic() && c != '"' { c } else { '_' }).collect();
    let disposition = format!("inline; filename=\"{plain}\"; filename*=UTF-8''{}", super::sigv4::encode(name));
    [("response-content-type", content_type.to_owned()), ("response-content-disposition", disposition)]
}
