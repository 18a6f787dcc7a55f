//! Contents on their way in.
//!
//! What is small is put as a whole, and known to the store only once it is there. What is large is put in parts: its
//! upload is begun once, whoever offers it, and is the same until it is complete, so that what was put is not put
//! again.

use std::collections::HashMap;

use protocol::files::{Complete, DonePart, Offered, Part, Place};
use protocol::{Content, Digest, timestamp_from_millis};

use super::store::{EXPIRES_SECONDS, Question, WHOLE_BYTES_MAX, part_bytes};
use super::tables::{self, State};
use super::{Asker, Files, Settings, StoreAnswer, Trouble, xml};
use crate::hub::{Database, Follower, Step};
use crate::{Problem, Response};

/// How many addresses of parts are in one answer. Who needs more asks again.
const PARTS_PER_ANSWER: usize = 1_000;

/// How often the store is asked for one answer: on the free plan of Cloudflare a request may ask others 50 times.
const ASKS_PER_ANSWER: usize = 40;

/// How many offers may wait for the store.
const OFFERS_MAX: usize = 1_000;

/// A content that is offered again is kept longer, and that is written this seldom, in milliseconds.
const TOUCHED_EVERY: i64 = 60 * 60 * 1_000;

/// An offer that waits for the store.
#[derive(Debug)]
pub(super) struct Offering {
    asker: Asker,
    files: Vec<Content>,
    /// Of the first ones.
    places: Vec<Place>,
    /// Parts of the next one that are there, as far as the store has listed them, and their lengths.
    done: Vec<(DonePart, u64)>,
    /// How often the store was asked.
    asked: usize,
    /// The upload of the next one, of which the store lists no part, or which it does not know (`true`): it may have
    /// made an object of it.
    looked_for: Option<(String, bool)>,
}

/// Contents whose upload is being begun: for those who have this key, and these wait.
pub(super) type Creating = HashMap<Content, (&'static str, Vec<Follower>)>;

impl Files {
    pub(super) fn offered<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        asker: Asker,
        files: Vec<Content>,
    ) -> Result<(), D::Error> {
        let Some(settings) = &self.settings else { return Ok(()) };
        if self.offers.len() >= OFFERS_MAX {
            step.refuse(follower, Problem::HubBusy);
            return Ok(());
        }
        let mut new: HashMap<Digest, u64> = HashMap::new();
        for content in &files {
            if !tables::of(step.db, &content.sha256)?.iter().any(|row| row.content == *content) {
                new.insert(content.sha256, content.size);
            }
        }
        let size = new.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        let total = tables::total(step.db, asker.owner())?;
        if size > 0 && total.saturating_add(size) > settings.bytes_max {
            step.refuse(follower, Problem::FilesFull { limit: settings.bytes_max, total, size });
            return Ok(());
        }
        self.sweep_at.get_or_insert(step.millis() + super::expiry::HOUR);
        let places = Vec::with_capacity(files.len());
        self.offers.insert(follower, Offering { asker, files, places, done: Vec::new(), asked: 0, looked_for: None });
        self.go_on(step, follower)
    }

    /// Goes on with an offer until the store has to be asked, or all is known.
    fn go_on<D: Database>(&mut self, step: &mut Step<'_, D>, follower: Follower) -> Result<(), D::Error> {
        let now = step.millis();
        loop {
            let (Some(offering), Some(settings)) = (self.offers.get_mut(&follower), &self.settings) else {
                return Ok(());
            };
            let Some(content) = offering.files.get(offering.places.len()).copied() else {
                let expires_at = timestamp_from_millis(now + EXPIRES_SECONDS * 1_000);
                let offered = Offered { files: std::mem::take(&mut offering.places), expires_at };
                self.offers.remove(&follower);
                step.answer(follower, Response::of(200, &offered));
                return Ok(());
            };
            let rows = tables::of(step.db, &content.sha256)?;
            let known = rows.iter().find(|row| row.content == content);
            // What is doubted can be had until it is there anew.
            let unless_doubted = |state| known.filter(|row| row.state == State::Doubted).map_or(state, |row| row.state);
            if let Some(here) = rows.iter().find(|row| row.state == State::Here) {
                if here.content != content {
                    let detail = format!(
                        "{} has {} bytes, and was offered with {}",
                        content.sha256, here.content.size, content.size
                    );
                    self.refuse_offer(step, follower, Problem::UploadRefused { detail });
                    return Ok(());
                }
                if now - here.at > TOUCHED_EVERY {
                    tables::set(step.db, &content, State::Here, now)?;
                }
                offering.places.push(Place::Have { sha256: content.sha256 });
            } else if rows.iter().any(|row| row.state == State::Going) {
                let detail = "one of the contents is just being removed there".to_owned();
                self.refuse_offer(step, follower, Problem::StoreUnavailable { detail });
                return Ok(());
            } else if content.size <= WHOLE_BYTES_MAX {
                match known {
                    Some(_) => tables::set(step.db, &content, unless_doubted(State::Offered), now)?,
                    None => tables::insert(step.db, &content, None, offering.asker.owner(), now)?,
                }
                let (url, headers) = settings.store.put(&content.sha256, &offering.asker.origin, step.now);
                offering.places.push(Place::Put { sha256: content.sha256, url, headers });
            } else if offering.asked >= ASKS_PER_ANSWER {
                // Whoever sees that parts are missing of which none is named asks again.
                let upload = known.and_then(|row| row.upload.clone()).unwrap_or_default();
                let (sha256, part_bytes) = (content.sha256, part_bytes(&content));
                offering.places.push(Place::Parts { sha256, upload, part_bytes, parts: Vec::new(), done: Vec::new() });
            } else if let Some(upload) = known.and_then(|row| row.upload.clone()) {
                offering.done.clear();
                offering.asked += 1;
                tables::set(step.db, &content, unless_doubted(State::Uploading), now)?;
                self.ask(step, Some(follower), content, Question::Parts { upload, after: 0 });
                return Ok(());
            } else if let Some((_, waiting)) = self.creating.get_mut(&content) {
                waiting.push(follower);
                return Ok(());
            } else {
                offering.asked += 1;
                self.creating.insert(content, (offering.asker.owner(), vec![follower]));
                self.ask(step, None, content, Question::Create);
                return Ok(());
            }
        }
    }

    fn refuse_offer<D: Database>(&mut self, step: &mut Step<'_, D>, follower: Follower, problem: Problem) {
        if self.offers.remove(&follower).is_some() {
            step.refuse(follower, problem);
        }
    }

    /// An upload was begun, or could not be.
    pub(super) fn created<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        content: Content,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        // After a start nobody waits any more, and yet the upload is there.
        let (owner, waiting) = self.creating.remove(&content).unwrap_or(("people", Vec::new()));
        let problem = match outcome {
            Ok(answer) => match xml::text(&answer.body, "UploadId").filter(|upload| !upload.is_empty()) {
                Some(upload) => {
                    let known = tables::of(step.db, &content.sha256)?;
                    if known.iter().any(|row| row.content == content) {
                        tables::set_upload(step.db, &content, Some(&upload), step.millis())?;
                    } else {
                        tables::insert(step.db, &content, Some(&upload), owner, step.millis())?;
                    }
                    for follower in waiting {
                        self.place_parts(step, follower, content, &upload)?;
                    }
                    return Ok(());
                }
                None => "it names no upload that it was asked to begin".to_owned(),
            },
            Err(Trouble::Refused(_, words)) => format!("it does not begin an upload: {words}"),
            Err(Trouble::Denied(problem) | Trouble::Away(problem)) => {
                waiting.iter().for_each(|follower| self.refuse_offer(step, *follower, problem.clone()));
                return Ok(());
            }
        };
        for follower in waiting {
            self.refuse_offer(step, follower, Problem::StoreUnavailable { detail: problem.clone() });
        }
        Ok(())
    }

    /// The store has listed parts that are there.
    pub(super) fn listed<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Option<Follower>,
        content: Content,
        upload: &str,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        let Some((follower, offering)) =
            follower.and_then(|follower| Some((follower, self.offers.get_mut(&follower)?)))
        else {
            return Ok(());
        };
        match outcome {
            Ok(answer) => {
                for part in xml::elements(&answer.body, "Part") {
                    let number = xml::text(part, "PartNumber").and_then(|number| number.parse().ok());
                    let size = xml::text(part, "Size").and_then(|size| size.parse().ok());
                    if let (Some(number), Some(size), Some(etag)) = (number, size, xml::text(part, "ETag")) {
                        offering.done.push((DonePart { number, etag: etag.into_owned() }, size));
                    }
                }
                let last = offering.done.last().map_or(0, |(part, _)| part.number);
                let more = xml::text(&answer.body, "IsTruncated").as_deref() == Some("true");
                let marker = xml::text(&answer.body, "NextPartNumberMarker").and_then(|number| number.parse().ok());
                match marker.filter(|marker: &u32| more && *marker >= last && last > 0) {
                    Some(after) => {
                        offering.asked += 1;
                        let question = Question::Parts { upload: upload.to_owned(), after };
                        self.ask(step, Some(follower), content, question);
                        Ok(())
                    }
                    None if offering.done.is_empty() => {
                        self.look_for(step, follower, content, upload, false);
                        Ok(())
                    }
                    None => self.place_parts(step, follower, content, upload),
                }
            }
            // The store has forgotten it, or has made an object of it and nobody has heard of that. Whether it refuses
            // everything is seen by the answer, too.
            Err(Trouble::Refused(404, _) | Trouble::Denied(_)) => {
                self.look_for(step, follower, content, upload, true);
                Ok(())
            }
            Err(Trouble::Refused(_, words)) => {
                let detail = format!("it does not list the parts of an upload: {words}");
                self.refuse_offer(step, follower, Problem::StoreUnavailable { detail });
                Ok(())
            }
            Err(Trouble::Away(problem)) => {
                self.refuse_offer(step, follower, problem);
                Ok(())
            }
        }
    }

    /// Says where the parts are put that are missing, and goes on.
    fn place_parts<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        content: Content,
        upload: &str,
    ) -> Result<(), D::Error> {
        let (Some(offering), Some(Settings { store, .. })) = (self.offers.get_mut(&follower), &self.settings) else {
            return Ok(());
        };
        let placed = offering.places.iter().map(|place| match place {
            Place::Parts { parts, .. } => parts.len(),
            _ => 0,
        });
        let room = PARTS_PER_ANSWER.saturating_sub(placed.sum());
        let part_bytes = part_bytes(&content);
        let count = u32::try_from(content.size.div_ceil(part_bytes)).unwrap_or(u32::MAX);
        let length = |number: u32| part_bytes.min(content.size.saturating_sub(part_bytes * u64::from(number - 1)));
        // One of another length was put by somebody who counts otherwise.
        let mut done = std::mem::take(&mut offering.done);
        done.retain(|(part, size)| (1..=count).contains(&part.number) && *size == length(part.number));
        done.sort_by_key(|(part, _)| part.number);
        done.dedup_by_key(|(part, _)| part.number);
        let done: Vec<DonePart> = done.into_iter().map(|(part, _)| part).collect();
        let is_missing = |number: &u32| done.binary_search_by_key(number, |part| part.number).is_err();
        let parts = (1..=count).filter(is_missing).take(room).map(|number| Part {
            number,
            url: store.put_part(&content.sha256, upload, number, &offering.asker.origin, step.now),
        });
        let (sha256, upload, parts) = (content.sha256, upload.to_owned(), parts.collect());
        offering.places.push(Place::Parts { sha256, upload, part_bytes, parts, done });
        self.go_on(step, follower)
    }

    pub(super) fn completed<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        digest: Digest,
        complete: Complete,
    ) -> Result<(), D::Error> {
        let rows = tables::of(step.db, &digest)?;
        if rows.iter().any(|row| row.state == State::Here) {
            step.answer(follower, have(digest));
            return Ok(());
        }
        let Some(upload) = complete.upload else {
            match rows.first() {
                Some(row) => self.ask(step, Some(follower), row.content, Question::Look),
                None => step.refuse(follower, Problem::UnknownFile),
            }
            return Ok(());
        };
        let Some(row) = rows.iter().find(|row| row.upload.as_deref() == Some(upload.as_str())) else {
            let detail = "there is no such upload of this content any more; offer it again".to_owned();
            step.refuse(follower, Problem::UploadRefused { detail });
            return Ok(());
        };
        let (count, named) = (row.content.size.div_ceil(part_bytes(&row.content)), complete.parts.len());
        if count != named as u64 {
            let detail = format!("the content has {count} parts, and {named} were named");
            step.refuse(follower, Problem::UploadRefused { detail });
            return Ok(());
        }
        self.ask(step, Some(follower), row.content, Question::Finish { upload, parts: complete.parts });
        Ok(())
    }

    /// The store has made an object of the parts, or has not.
    pub(super) fn finished<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Option<Follower>,
        content: Content,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        match outcome {
            // One that it does not know was complete before, and the answer was lost; or was given up.
            Ok(_) | Err(Trouble::Refused(404, _) | Trouble::Denied(_)) => {
                self.ask(step, follower, content, Question::Look)
            }
            Err(Trouble::Refused(_, words)) => {
                let detail = format!("the store does not put the parts together: {words}");
                refuse(step, follower, Problem::UploadRefused { detail });
            }
            Err(Trouble::Away(problem)) => refuse(step, follower, problem),
        }
        Ok(())
    }

    /// Asks whether a content is there whose upload may be over.
    fn look_for<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        content: Content,
        upload: &str,
        is_unknown: bool,
    ) {
        let Some(offering) = self.offers.get_mut(&follower) else { return };
        offering.asked += 1;
        offering.looked_for = Some((upload.to_owned(), is_unknown));
        self.ask(step, Some(follower), content, Question::Look);
    }

    /// The store has said whether it is.
    fn looked_for<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        content: Content,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        let looked_for = self.offers.get_mut(&follower).and_then(|offering| offering.looked_for.take());
        let Some((upload, is_unknown)) = looked_for else { return Ok(()) };
        let is_there = match outcome {
            Ok(answer) => answer.length == Some(content.size),
            Err(Trouble::Refused(404, _)) => false,
            Err(Trouble::Refused(_, words)) => {
                let detail = format!("it does not say whether it has an object: {words}");
                self.refuse_offer(step, follower, Problem::StoreUnavailable { detail });
                return Ok(());
            }
            Err(Trouble::Denied(problem) | Trouble::Away(problem)) => {
                self.refuse_offer(step, follower, problem);
                return Ok(());
            }
        };
        let rows = tables::of(step.db, &content.sha256)?;
        // Somebody else may have begun another one meanwhile.
        let row = rows.iter().find(|row| row.content == content && row.upload.as_deref() == Some(upload.as_str()));
        // In the place of what is doubted it may be just that.
        let is_here = is_there && row.is_some_and(|row| row.state == State::Uploading);
        if row.is_some() && (is_here || is_unknown) {
            tables::set_upload(step.db, &content, None, step.millis())?;
        }
        if is_here {
            tables::set(step.db, &content, State::Here, step.millis())?;
        } else if row.is_some() && !is_unknown {
            return self.place_parts(step, follower, content, &upload);
        }
        self.go_on(step, follower)
    }

    /// The store has said how long a content is.
    pub(super) fn looked<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Option<Follower>,
        content: Content,
        outcome: Result<StoreAnswer, Trouble>,
    ) -> Result<(), D::Error> {
        if let Some(follower) = follower.filter(|follower| self.offers.contains_key(follower)) {
            return self.looked_for(step, follower, content, outcome);
        }
        let problem = match outcome {
            Ok(answer) => {
                let rows = tables::of(step.db, &content.sha256)?;
                let fits = |length| rows.iter().find(|row| row.content.size == length && row.state != State::Going);
                match answer.length.map(|length| (length, fits(length))) {
                    Some((_, Some(row))) => {
                        tables::set_upload(step.db, &row.content, None, step.millis())?;
                        tables::set(step.db, &row.content, State::Here, step.millis())?;
                        if let Some(follower) = follower {
                            step.answer(follower, have(content.sha256));
                        }
                        return Ok(());
                    }
                    Some((length, None)) => {
                        let detail = format!(
                            "what was put has {length} bytes, and the content was offered with {}; put it again",
                            content.size
                        );
                        Problem::UploadRefused { detail }
                    }
                    None => Problem::StoreUnavailable { detail: "it does not say how long an object is".to_owned() },
                }
            }
            Err(Trouble::Refused(404, _)) => {
                let detail = "the store does not have it: put it there, and say then that it is complete".to_owned();
                Problem::UploadRefused { detail }
            }
            Err(Trouble::Refused(_, words)) => {
                Problem::StoreUnavailable { detail: format!("it does not say whether it has an object: {words}") }
            }
            Err(Trouble::Denied(problem) | Trouble::Away(problem)) => problem,
        };
        refuse(step, follower, problem);
        Ok(())
    }
}

fn refuse<D: Database>(step: &mut Step<'_, D>, follower: Option<Follower>, problem: Problem) {
    if let Some(follower) = follower {
        step.refuse(follower, problem);
    }
}

fn have(sha256: Digest) -> Response {
    Response::of(200, &Place::Have { sha256 })
}
