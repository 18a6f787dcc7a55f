//! Requests that wait, and streams: who looks at what, and what they are sent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use protocol::hub::{LogEvent, Pools};
use protocol::link::{Down, LOG_BYTES_MAX, LogPiece, Stream};
use protocol::text::escaped_log;
use protocol::{JobId, JobResult};
use serde::Serialize;

use super::database::Database;
use super::logs::{Bytes, Reader, decode};
use super::request::From;
use super::view::View;
use super::{Effect, FOLLOWERS_MAX, Follower, Hub, Socket, Step, jobs, sites};
use crate::{Problem, Response};

/// After so long a stream is sent something, so that nobody on the way takes it for dead, and sites are asked again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long a job that nobody has told of yet may still be on its way here.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// How long a site may take to send what a job has printed.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// Those who wait or listen.
#[derive(Debug, Default)]
pub(super) struct Followers {
    all: HashMap<Follower, Following>,
    /// Those who look at one job.
    of_job: HashMap<JobId, BTreeSet<Follower>>,
    /// Those who look at everything.
    of_all: BTreeSet<Follower>,
}

#[derive(Debug)]
enum Following {
    /// A job to end.
    End(JobId),
    /// Everything.
    Events,
    /// What a job prints.
    Log(Log),
}

#[derive(Debug, Clone)]
struct Log {
    job_id: JobId,
    reader: Reader,
    /// Go on while the job prints? Otherwise what is there is answered at once, as text.
    follow: bool,
    text: String,
    /// The job has ended in this state; what is still to come comes within [`LOG_PATIENCE`].
    ended: Option<String>,
}

impl Followers {
    fn insert(&mut self, follower: Follower, following: Following) {
        match &following {
            Following::End(job_id) | Following::Log(Log { job_id, .. }) => {
                self.of_job.entry(job_id.clone()).or_default().insert(follower);
            }
            Following::Events => drop(self.of_all.insert(follower)),
        }
        self.all.insert(follower, following);
    }

    fn remove(&mut self, follower: Follower) -> Option<Following> {
        let following = self.all.remove(&follower)?;
        match &following {
            Following::End(job_id) | Following::Log(Log { job_id, .. }) => {
                if let Some(followers) = self.of_job.get_mut(job_id) {
                    followers.remove(&follower);
                    if followers.is_empty() {
                        self.of_job.remove(job_id);
                    }
                }
            }
            Following::Events => drop(self.of_all.remove(&follower)),
        }
        Some(following)
    }

    fn of_job(&self, job_id: &JobId) -> Vec<Follower> {
        self.of_job.get(job_id).into_iter().flatten().copied().collect()
    }

    /// Does anybody look at a stream of a job?
    fn any_reads(&self, job_id: &JobId, stream: Stream) -> bool {
        self.of_job.get(job_id).into_iter().flatten().any(|follower| {
            matches!(self.all.get(follower), Some(Following::Log(log)) if log.reader.streams.contains(&stream))
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= FOLLOWERS_MAX
    }
}

/// A server-sent event.
fn event(name: &str, id: Option<&str>, data: &impl Serialize) -> Arc<str> {
    // JSON of this kind has no line breaks.
    let data = serde_json::to_string(data).expect("it holds only strings, numbers and JSON");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

/// The event that was made of a piece last. Nearly all who look at a log are at the same place in it: they are given
/// the same text, which is there once however many they are.
struct Made {
    id: String,
    data: LogEvent,
    text: Arc<str>,
}

/// The data of the last event of a log.
#[derive(Serialize)]
struct LogEnd<'a> {
    state: &'a str,
}

impl Hub {
    /// Somebody waits for the end of a job, which has not come, or for a job that is not known yet.
    pub(super) fn wait_for_end<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        job_id: JobId,
        wait: Duration,
    ) {
        self.followers.insert(follower, Following::End(job_id));
        step.effects.push(Effect::Wait(follower, wait.max(ON_ITS_WAY)));
    }

    pub(super) fn listen<D: Database>(&mut self, step: &mut Step<'_, D>, follower: Follower) {
        self.followers.insert(follower, Following::Events);
        step.effects.push(Effect::Stream(follower));
        step.effects.push(Effect::Piece(follower, ": everything from now on\n\n".into()));
        step.effects.push(Effect::Wait(follower, KEEP_ALIVE));
    }

    /// Somebody wants to see what a job prints, or has printed.
    pub(super) fn read_log<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        (job_id, view): (JobId, &View),
        reader: Reader,
        follow: bool,
    ) -> Result<(), D::Error> {
        let ended = view.has_ended().then(|| view.state().to_owned());
        let log = Log { job_id: job_id.clone(), reader, follow, text: String::new(), ended };
        let patience = if follow && log.ended.is_none() { KEEP_ALIVE } else { LOG_PATIENCE };
        if follow {
            step.effects.push(Effect::Stream(follower));
        }
        step.effects.push(Effect::Wait(follower, patience));
        let streams = log.reader.streams.clone();
        self.followers.insert(follower, Following::Log(log));
        let socket = self.socket_of(step, view)?;
        for stream in streams {
            self.tails.open(&job_id, stream);
            self.look(step, follower, stream, socket.as_ref())?;
        }
        let is_there = self.followers.all.contains_key(&follower);
        // From nowhere anything will come: what is here is all there is.
        if is_there && socket.is_none() && (view.has_ended() || !follow) {
            self.give_up_log(step, follower)?;
        }
        Ok(())
    }

    /// Gives somebody what is kept of a stream, or has the site send it.
    fn look<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        stream: Stream,
        socket: Option<&Socket>,
    ) -> Result<(), D::Error> {
        let Some(Following::Log(log)) = self.followers.all.get(&follower) else { return Ok(()) };
        let place = log.reader.place(stream);
        let job_id = log.job_id.clone();
        if let Some((attempt, offset, bytes, end)) = self.tails.from(&job_id, stream, place) {
            let piece = Bytes { attempt, offset, bytes: &bytes, end };
            return self.give(step, follower, stream, piece, true, &mut None);
        }
        if let Some(socket) = socket {
            let from = place.wanted();
            step.effects.push(Effect::Send(socket.clone(), Down::Tail { job_id, stream, from }.to_json()));
        }
        Ok(())
    }

    /// A piece of what a job has printed has come.
    pub(super) fn printed<D: Database>(&mut self, step: &mut Step<'_, D>, piece: &LogPiece) -> Result<(), D::Error> {
        let Some(bytes) = decode(piece) else { return Ok(()) };
        let (job_id, stream) = (&piece.job_id, piece.stream);
        let bytes = Bytes { attempt: piece.attempt, offset: piece.offset, bytes: &bytes, end: piece.end };
        self.tails.keep(job_id, stream, bytes);
        let mut made = None;
        for follower in self.followers.of_job(job_id) {
            self.give(step, follower, stream, bytes, bytes.bytes.len() < LOG_BYTES_MAX, &mut made)?;
        }
        Ok(())
    }

    /// Gives somebody what of a piece is new. `all`: the piece reaches the end of what was printed so far.
    fn give<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        stream: Stream,
        piece: Bytes<'_>,
        all: bool,
        made: &mut Option<Made>,
    ) -> Result<(), D::Error> {
        let Some(Following::Log(log)) = self.followers.all.get_mut(&follower) else { return Ok(()) };
        if !log.reader.streams.contains(&stream) {
            return Ok(());
        }
        let new = log.reader.take(stream, piece);
        if log.follow {
            if let Some(new) = new {
                let id = log.reader.event_id();
                if made.as_ref().is_some_and(|made| made.id != id || made.data != new) {
                    *made = None;
                }
                let made = made.get_or_insert_with(|| Made { text: event("log", Some(&id), &new), id, data: new });
                step.effects.push(Effect::Piece(follower, Arc::clone(&made.text)));
            }
            if let Some(state) = log.ended.clone()
                && log.reader.is_through()
            {
                return self.end_log(step, follower, &state);
            }
        } else {
            log.text.extend(new.map(|new| new.text));
            if all || piece.end {
                let text = std::mem::take(&mut log.text);
                return self.answer_log(step, follower, &text);
            }
        }
        Ok(())
    }

    fn answer_log<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        text: &str,
    ) -> Result<(), D::Error> {
        self.forget(step, follower)?;
        step.answer(follower, Response::text(escaped_log(text)));
        Ok(())
    }

    fn end_log<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        state: &str,
    ) -> Result<(), D::Error> {
        self.forget(step, follower)?;
        step.effects.push(Effect::Piece(follower, event("end", None, &LogEnd { state })));
        step.effects.push(Effect::End(follower));
        Ok(())
    }

    /// The site does not send what somebody wants to see: what came with the result is given, if there is one.
    fn give_up_log<D: Database>(&mut self, step: &mut Step<'_, D>, follower: Follower) -> Result<(), D::Error> {
        let Some(Following::Log(log)) = self.followers.all.get(&follower) else { return Ok(()) };
        let log = log.clone();
        let view = jobs::find(step.db, &log.job_id)?.map(|row| row.view).unwrap_or_default();
        let result = view.result().and_then(|result| JobResult::parse(result.as_str()).ok());
        let tail = |stream| match (stream, &result) {
            (Stream::Stdout, Some(result)) => result.stdout_tail.clone(),
            (Stream::Stderr, Some(result)) => result.stderr_tail.clone(),
            (_, None) => None,
        };
        // Where in the stream that was is not known: it is for who has seen nothing else.
        let unseen = |stream: &Stream| log.reader.attempt == 0 || log.reader.place(*stream).next.is_none();
        let tails = log.reader.streams.iter().filter(|stream| unseen(stream)).filter_map(|stream| {
            let text = tail(*stream).filter(|text| !text.is_empty())?;
            let next = text.len() as u64;
            Some(LogEvent { attempt: view.attempt(), stream: *stream, offset: 0, next, text })
        });
        if log.follow {
            for tail in tails.collect::<Vec<_>>() {
                step.effects.push(Effect::Piece(follower, event("log", None, &tail)));
            }
            return self.end_log(step, follower, view.state());
        }
        let text = log.text.clone() + &tails.map(|tail| tail.text).collect::<String>();
        // A result without an end of this stream says nothing of it.
        let is_told = log.reader.streams.iter().any(|stream| tail(*stream).is_some());
        if text.is_empty() && !is_told && log.reader.attempt == 0 {
            self.forget(step, follower)?;
            step.refuse(follower, Problem::NoLogs { state: view.state().to_owned() });
            return Ok(());
        }
        self.answer_log(step, follower, &text)
    }

    /// The link over which a job can be looked at.
    fn socket_of<D: Database>(&self, step: &mut Step<'_, D>, view: &View) -> Result<Option<Socket>, D::Error> {
        let Some(daemon) = view.daemon() else { return Ok(None) };
        Ok(sites::find(step.db, daemon)?.and_then(|daemon| daemon.socket))
    }

    /// A daemon has a new link: over it comes what its jobs print.
    pub(super) fn tails_anew<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        daemon: &str,
        socket: &Socket,
    ) -> Result<(), D::Error> {
        let read: BTreeSet<JobId> = self.followers.all.values().filter_map(Following::log_of).cloned().collect();
        for job_id in read {
            let view = jobs::find(step.db, &job_id)?.map(|row| row.view).unwrap_or_default();
            if view.daemon() == Some(daemon) {
                self.ask_for_tails(step, &job_id, socket);
            }
        }
        Ok(())
    }

    /// Asks a site for all that somebody still wants to see of a job.
    fn ask_for_tails<D: Database>(&mut self, step: &mut Step<'_, D>, job_id: &JobId, socket: &Socket) {
        for stream in Stream::ALL {
            let logs =
                self.followers.of_job(job_id).into_iter().filter_map(|follower| self.followers.all.get(&follower));
            let places = logs.filter_map(|following| match following {
                Following::Log(log) if log.reader.streams.contains(&stream) => Some(log.reader.place(stream)),
                _ => None,
            });
            // The one who has had the least; who wants the end of it has had nothing.
            let least = places.filter(|place| !place.end).map(super::logs::Place::wanted).min();
            if let Some(from) = least {
                let tail = Down::Tail { job_id: job_id.clone(), stream, from };
                step.effects.push(Effect::Send(socket.clone(), tail.to_json()));
            }
        }
    }

    /// Something has become of a job: those who look are told.
    pub(super) fn tell<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        job_id: &JobId,
        before: &View,
        after: &View,
    ) -> Result<(), D::Error> {
        if !self.followers.of_all.is_empty() && before.brief(job_id) != after.brief(job_id) {
            self.tell_all(step, &event("job", None, &after.brief(job_id)));
        }
        let has_ended = after.has_ended() && !before.has_ended();
        let is_elsewhere = after.daemon() != before.daemon() || after.state() != before.state();
        let mut asks = false;
        for follower in self.followers.of_job(job_id) {
            match self.followers.all.get_mut(&follower) {
                Some(Following::End(_)) if after.has_ended() => {
                    self.forget(step, follower)?;
                    self.answer_status(step, follower, job_id)?;
                }
                Some(Following::Log(log)) => {
                    asks |= is_elsewhere && log.ended.is_none();
                    if has_ended {
                        log.ended = Some(after.state().to_owned());
                        if log.reader.is_through() {
                            self.end_log(step, follower, after.state())?;
                        } else {
                            step.effects.push(Effect::Wait(follower, LOG_PATIENCE));
                        }
                    }
                }
                _ => {}
            }
        }
        if asks && let Some(socket) = self.socket_of(step, after)? {
            self.ask_for_tails(step, job_id, &socket);
        }
        Ok(())
    }

    /// Something has become of a daemon.
    pub(super) fn tell_of_site<D: Database>(&mut self, step: &mut Step<'_, D>, daemon: &str) -> Result<(), D::Error> {
        if self.followers.of_all.is_empty() {
            return Ok(());
        }
        let now = step.millis();
        let pools = sites::pools(step.db, Some(daemon), false, now)?;
        let sites = super::answers::sites(step.db, Some(daemon), now)?;
        self.tell_all(step, &event("sites", None, &sites));
        self.tell_all(step, &event("pools", None, &Pools { pools }));
        Ok(())
    }

    fn tell_all<D: Database>(&self, step: &mut Step<'_, D>, piece: &Arc<str>) {
        let pieces = self.followers.of_all.iter().map(|follower| Effect::Piece(*follower, piece.clone()));
        step.effects.extend(pieces);
    }

    /// Somebody has waited for as long as was said.
    pub(super) fn timed_out<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
    ) -> Result<(), D::Error> {
        match self.followers.all.get(&follower) {
            None => Ok(()),
            Some(Following::End(job_id)) => {
                let job_id = job_id.clone();
                self.forget(step, follower)?;
                self.answer_status(step, follower, &job_id)
            }
            Some(Following::Events) => {
                self.keep_alive(step, follower);
                Ok(())
            }
            Some(Following::Log(log)) if log.follow && log.ended.is_none() => {
                let job_id = log.job_id.clone();
                self.keep_alive(step, follower);
                let view = jobs::find(step.db, &job_id)?.map(|row| row.view).unwrap_or_default();
                if let Some(socket) = self.socket_of(step, &view)? {
                    self.ask_for_tails(step, &job_id, &socket);
                }
                Ok(())
            }
            Some(Following::Log(_)) => self.give_up_log(step, follower),
        }
    }

    fn keep_alive<D: Database>(&mut self, step: &mut Step<'_, D>, follower: Follower) {
        step.effects.push(Effect::Piece(follower, ":\n\n".into()));
        step.effects.push(Effect::Wait(follower, KEEP_ALIVE));
    }

    /// Somebody does not listen any more, or has its answer: forgets it, and what only it looked at.
    pub(super) fn forget<D: Database>(&mut self, step: &mut Step<'_, D>, follower: Follower) -> Result<(), D::Error> {
        let Some(Following::Log(log)) = self.followers.remove(follower) else { return Ok(()) };
        for stream in log.reader.streams {
            if self.followers.any_reads(&log.job_id, stream) {
                continue;
            }
            self.tails.close(&log.job_id, stream);
            // Whichever site sends it.
            for socket in sites::linked(step.db)?.into_iter().filter_map(|daemon| daemon.socket) {
                let untail = Down::Untail { job_id: log.job_id.clone(), stream };
                step.effects.push(Effect::Send(socket, untail.to_json()));
            }
        }
        Ok(())
    }
}

impl Following {
    fn log_of(&self) -> Option<&JobId> {
        match self {
            Self::Log(log) => Some(&log.job_id),
            _ => None,
        }
    }
}

/// Where somebody begins to read.
pub(super) fn reader(stream: Option<Stream>, follow: bool, from: From) -> Reader {
    // What is not followed is one text.
    let stream = if follow { stream } else { Some(stream.unwrap_or(Stream::Stdout)) };
    Reader::new(stream, from)
}
