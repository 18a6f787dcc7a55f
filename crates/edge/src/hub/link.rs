//! What sites say, over a link or by reports alone.

use std::time::Duration;

use protocol::JobState;
use protocol::link::{Down, Hello, JOBS_MAX, MESSAGE_BYTES_MAX, Report, Up, Upload, VERSION};

use super::database::Database;
use super::jobs::Said;
use super::sites::Daemon;
use super::view::View;
use super::{Effect, Follower, Hub, Socket, Step, jobs, sites};
use crate::{Problem, Response};

/// A site that reports without a link does so every 30 seconds. One that has not for so long is gone.
pub(crate) const REPORT_PATIENCE: Duration = Duration::from_secs(90);

/// How many jobs a site may tell of before all of them are told: more than any holds.
const TOLD_MAX: usize = 200_000;

/// How many messages of cancelled jobs follow a `hello` at the most.
const CANCEL_MESSAGES_MAX: usize = 100;

/// The longest text by which a daemon calls itself.
const NAME_BYTES_MAX: usize = 128;

/// Codes with which a link is closed; those from 4000 on are for programs to choose.
mod close {
    pub(super) const REFUSED: u16 = 4400;
    pub(super) const NAME_TAKEN: u16 = 4409;
    pub(super) const REPLACED: u16 = 4410;
    pub(super) const TOO_LARGE: u16 = 1009;
}

/// Why a site is not listened to.
struct Refused {
    close: u16,
    code: &'static str,
    detail: String,
}

impl Refused {
    fn message(detail: impl Into<String>) -> Self {
        Self { close: close::REFUSED, code: "bad_message", detail: detail.into() }
    }
}

impl Hub {
    /// A site says something over its link.
    pub(super) fn heard<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        socket: &Socket,
        text: &str,
    ) -> Result<(), D::Error> {
        let outcome = match read(text) {
            Ok(up) => self.heard_up(step, socket, up)?,
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(downs) => downs.iter().for_each(|down| step.effects.push(Effect::Send(socket.clone(), down.to_json()))),
            Err(Refused { close, code, detail }) => {
                let down = Down::Refused { code: code.to_owned(), detail };
                step.effects.push(Effect::Send(socket.clone(), down.to_json()));
                step.effects.push(Effect::Close(socket.clone(), close, code));
                self.unlinked(step, socket)?;
            }
        }
        Ok(())
    }

    fn heard_up<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        socket: &Socket,
        up: Up,
    ) -> Result<Result<Vec<Down>, Refused>, D::Error> {
        if let Up::Hello(hello) = &up {
            return self.hello(step, hello, Some(socket));
        }
        // Between two messages the object may have been put to sleep: only the tables know whose link it is.
        let Some(daemon) = sites::of_socket(step.db, socket)? else {
            return Ok(Err(Refused::message("the first message of a link is `hello`")));
        };
        match up {
            Up::Hello(_) | Up::Unknown => Ok(Ok(Vec::new())),
            Up::Report(report) => self.report(step, &daemon, Some(socket), report),
            Up::Log(piece) => {
                self.printed(step, &piece)?;
                Ok(Ok(Vec::new()))
            }
        }
    }

    fn hello<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        hello: &Hello,
        socket: Option<&Socket>,
    ) -> Result<Result<Vec<Down>, Refused>, D::Error> {
        let names = [&hello.daemon, &hello.results, &hello.version, &hello.host];
        if names.iter().any(|name| name.len() > NAME_BYTES_MAX) || hello.daemon.is_empty() {
            return Ok(Err(Refused::message("`hello` names who speaks in up to 128 bytes each")));
        }
        if sites::is_name_taken(step.db, hello, step.millis())? {
            let detail = format!(
                "another site by the name {} is linked, with another results directory; set SITE_NAME of one of them",
                hello.site
            );
            return Ok(Err(Refused { close: close::NAME_TAKEN, code: "name_taken", detail }));
        }
        let before = sites::find(step.db, &hello.daemon)?.and_then(|daemon| daemon.socket);
        if let Some(before) = before.filter(|before| Some(before) != socket) {
            self.told.remove(&before);
            // The same daemon again: its earlier connection is dead, and nobody has noticed yet.
            step.effects.push(Effect::Close(before, close::REPLACED, "replaced"));
        }
        sites::hello(step.db, hello, socket.map(String::as_str), step.millis())?;
        if let Some(socket) = socket {
            self.asking.may_be_needed();
            self.told.insert(socket.clone(), Default::default());
        }
        let mut downs = vec![Down::Welcome { v: VERSION }];
        let mut cursor = Some(0);
        while let Some(after) = cursor
            && downs.len() <= CANCEL_MESSAGES_MAX
        {
            let (jobs, next) = jobs::cancelling(step.db, after, JOBS_MAX)?;
            if !jobs.is_empty() {
                downs.push(Down::Cancel { jobs });
            }
            cursor = next;
        }
        self.tell_of_site(step, &hello.daemon)?;
        if let Some(socket) = socket {
            self.tails_anew(step, &hello.daemon, socket)?;
        }
        Ok(Ok(downs))
    }

    fn report<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        daemon: &Daemon,
        socket: Option<&Socket>,
        report: Report,
    ) -> Result<Result<Vec<Down>, Refused>, D::Error> {
        if report.jobs.len() > JOBS_MAX {
            let detail =
                format!("a report tells of {JOBS_MAX} jobs at the most, and this one of {}", report.jobs.len());
            return Ok(Err(Refused { close: close::TOO_LARGE, code: "too_many_jobs", detail }));
        }
        let Ok(site) = daemon.site.parse() else { return Ok(Ok(Vec::new())) };
        for job in &report.jobs {
            if let Some(told) = socket.and_then(|socket| self.told.get_mut(socket))
                && told.len() < TOLD_MAX
            {
                told.insert(job.job_id.clone());
            }
            let said = View::reported(job, &site, &daemon.daemon, step.now);
            // Who knows nothing of a job says nothing of it to those who know something.
            if job.state == JobState::Unknown && !jobs::is_held_by(step.db, &job.job_id, &daemon.daemon)? {
                continue;
            }
            self.learn(step, Said { job_id: &job.job_id, view: said, input: None })?;
            if job.state == JobState::Queued {
                self.ring_for_others(step, socket, job)?;
            }
        }
        if report.site.is_some() || report.pools.is_some() {
            let (site, pools) = (report.site.as_ref(), report.pools.as_deref());
            sites::report(step.db, &daemon.daemon, site, pools, step.millis())?;
            self.tell_of_site(step, &daemon.daemon)?;
        }
        let mut downs = vec![Down::Ack { number: report.number }];
        let told = match socket {
            Some(socket) if report.complete => self.told.remove(socket),
            // Between two requests nothing is remembered, so all of it has to be in this one.
            None if report.complete && report.number == 1 => {
                Some(report.jobs.iter().map(|job| job.job_id.clone()).collect())
            }
            _ => None,
        };
        if let Some(told) = told {
            let believed = jobs::held_by(step.db, &daemon.site)?.into_iter();
            let untold: Vec<_> = believed
                .filter(|(job_id, said_by)| said_by.as_ref() == Some(&daemon.daemon) && !told.contains(job_id))
                .map(|(job_id, _)| job_id)
                .collect();
            downs.extend(untold.chunks(JOBS_MAX).map(|jobs| Down::Ask { jobs: jobs.to_vec() }));
        }
        Ok(Ok(downs))
    }

    /// A site that has no link tells, and is told what there is to say.
    pub(super) fn uploaded<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        follower: Follower,
        upload: Upload,
    ) -> Result<(), D::Error> {
        let mut downs = Vec::new();
        let mut daemon = None;
        for up in upload.up {
            let outcome = match (up, &daemon) {
                (Up::Hello(hello), _) => {
                    let outcome = self.hello(step, &hello, None)?;
                    daemon = Some(Daemon { daemon: hello.daemon, site: hello.site.to_string(), socket: None });
                    outcome
                }
                (_, None) => Err(Refused::message("the first of `up` is `hello`")),
                (Up::Report(report), Some(daemon)) => self.report(step, daemon, None, report)?,
                (Up::Log(_) | Up::Unknown, Some(_)) => Ok(Vec::new()),
            };
            match outcome {
                Ok(more) => downs.extend(more),
                Err(refused) => {
                    step.refuse(follower, Problem::SiteRefused { code: refused.code, detail: refused.detail });
                    return Ok(());
                }
            }
        }
        let (queued, _) = jobs::queued(step.db)?;
        if queued > 0
            && let Some(daemon) = daemon
        {
            downs.push(Down::Wake { after_ms: 0 });
            downs.extend(self.question(step, &daemon.daemon)?);
        }
        step.answer(follower, Response::of(200, &protocol::link::Download { down: downs }));
        Ok(())
    }

    /// A link is gone.
    pub(super) fn unlinked<D: Database>(&mut self, step: &mut Step<'_, D>, socket: &Socket) -> Result<(), D::Error> {
        self.told.remove(socket);
        if let Some(daemon) = sites::of_socket(step.db, socket)? {
            sites::unlink(step.db, &daemon.daemon, step.millis())?;
            self.tell_of_site(step, &daemon.daemon)?;
        }
        Ok(())
    }

    /// The object begins: what its tables say of links that are gone is not so any more.
    pub(super) fn restarted<D: Database>(
        &mut self,
        step: &mut Step<'_, D>,
        sockets: &[Socket],
    ) -> Result<(), D::Error> {
        for daemon in sites::linked(step.db)? {
            if daemon.socket.as_ref().is_some_and(|socket| !sockets.contains(socket)) {
                sites::unlink(step.db, &daemon.daemon, step.millis())?;
            }
        }
        Ok(())
    }
}

fn read(text: &str) -> Result<Up, Refused> {
    if text.len() > MESSAGE_BYTES_MAX {
        let detail = format!("a message has {MESSAGE_BYTES_MAX} bytes at the most");
        return Err(Refused { close: close::TOO_LARGE, code: "too_large", detail });
    }
    serde_json::from_str(text).map_err(|error| Refused::message(format!("a message cannot be read: {error}")))
}
