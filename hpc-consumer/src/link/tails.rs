//! What jobs print, read from their logs while somebody looks, and sent as it comes.
//!
//! A task for each stream of a job that is looked at. It reads no further while what it has read is not taken by the
//! hub, and ends when the run has ended and all is sent, or when nobody has asked for a while.
//!
//! Offsets count the bytes of the log as it is kept, `stdout.log` and `stderr.log`: what is beyond
//! `OUTPUT_LOG_BYTES_MAX` is not in it, and its last bytes come once the run has ended, after a line that tells how
//! much was left out. A job that empties its own log goes on where it was.
//!
//! Invariant: a log is of the attempt that it is said to be of. Another attempt takes the names of the files when it
//! is claimed, so after a file was opened it is looked whether the job is still as far as before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifecycle::{Changes, Lifecycle, Phase};
use protocol::link::{LOG_BYTES_MAX, LogPiece, Stream, TAIL_SECONDS, Up};
use protocol::{JobId, JobResult};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Said;
use crate::job::ResultsDir;
use crate::{blocking, lock};

/// How many streams are read at once.
const TAILS_MAX: usize = 50;

/// How often it is looked for more.
const PAUSE: Duration = Duration::from_millis(200);

/// How soon it is looked again for what the loop is about to say.
const UNSAID_PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked for the record of a job that is not held here.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// How far the jobs are at which somebody looks. The loop keeps it up to date.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed(Arc<Mutex<BTreeMap<JobId, At>>>);

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// The loop has not said it yet.
    #[default]
    Unsaid,
    NotHeld,
    /// With the attempt that has begun last, or 0.
    Held(Phase, u32),
}

impl Followed {
    fn at(&self, job_id: &JobId) -> At {
        lock(&self.0).get(job_id).copied().unwrap_or_default()
    }

    /// Looks at those that have changed; at all without any.
    pub(super) fn look(&self, lifecycle: &Lifecycle, changes: Option<&Changes>) {
        for (job_id, at) in &mut *lock(&self.0) {
            if changes.is_none_or(|changes| changes.contains_key(job_id)) {
                let held = lifecycle.phase_of(job_id);
                *at = held.map_or(At::NotHeld, |phase| At::Held(phase, lifecycle.begun(job_id)));
            }
        }
    }
}

/// One stream that is looked at.
#[derive(Debug)]
struct Wanted {
    until: Instant,
    /// Where to go on from, as it was said last and not heeded yet.
    from: Option<i64>,
    /// Which of those of this stream it is.
    number: u64,
}

type Streams = Arc<Mutex<BTreeMap<(JobId, Stream), Wanted>>>;

/// The streams that are looked at over one connection. With it they end.
pub(super) struct Tails {
    results: ResultsDir,
    followed: Followed,
    said: mpsc::Sender<Said>,
    pieces: mpsc::Sender<Up>,
    streams: Streams,
    tasks: JoinSet<()>,
    next_number: u64,
}

impl Tails {
    pub(super) fn new(
        results: ResultsDir,
        followed: Followed,
        said: mpsc::Sender<Said>,
        pieces: mpsc::Sender<Up>,
    ) -> Self {
        let (streams, tasks) = (Streams::default(), JoinSet::new());
        Self { results, followed, said, pieces, streams, tasks, next_number: 0 }
    }

    /// Somebody looks.
    pub(super) async fn open(&mut self, job_id: JobId, stream: Stream, from: i64) {
        // What has ended.
        while self.tasks.try_join_next().is_some() {}
        let until = Instant::now() + Duration::from_secs(TAIL_SECONDS);
        {
            let mut streams = lock(&self.streams);
            if let Some(wanted) = streams.get_mut(&(job_id.clone(), stream)) {
                (wanted.until, wanted.from) = (until, Some(from));
                return;
            }
            if streams.len() >= TAILS_MAX {
                tracing::debug!(%job_id, "{TAILS_MAX} logs are looked at; no further one is sent");
                return;
            }
            let wanted = Wanted { until, from: Some(from), number: self.next_number };
            streams.insert((job_id.clone(), stream), wanted);
        }
        lock(&self.followed.0).entry(job_id.clone()).or_default();
        let _ = self.said.send(Said::Followed).await;
        let tail = Tail {
            results: self.results.clone(),
            followed: self.followed.clone(),
            pieces: self.pieces.clone(),
            streams: self.streams.clone(),
            job_id,
            stream,
            number: self.next_number,
            heeded: false,
            reading: None,
            ended: None,
        };
        self.next_number += 1;
        self.tasks.spawn(tail.send());
    }

    /// Nobody looks any more.
    pub(super) fn close(&mut self, job_id: JobId, stream: Stream) {
        lock(&self.streams).remove(&(job_id, stream));
    }
}

impl Drop for Tails {
    fn drop(&mut self) {
        lock(&self.followed.0).clear();
    }
}

/// A stream of a job on its way.
struct Tail {
    results: ResultsDir,
    followed: Followed,
    pieces: mpsc::Sender<Up>,
    streams: Streams,
    job_id: JobId,
    stream: Stream,
    number: u64,
    /// Was it heeded where to begin?
    heeded: bool,
    reading: Option<Reading>,
    /// The attempt of which all is sent.
    ended: Option<u32>,
}

/// A log that is being read.
struct Reading {
    attempt: u32,
    /// None as long as nothing was printed.
    file: Option<Arc<File>>,
    /// Where the next piece begins, in the stream and in the file.
    offset: u64,
    position: u64,
}

/// What was read.
struct Chunk {
    bytes: Vec<u8>,
    /// Where it stands, in the stream and in the file.
    offset: u64,
    position: u64,
    /// Is there more at once?
    more: bool,
}

/// What is to be done next.
enum Next {
    Again,
    Later(Duration),
    Done,
}

impl Tail {
    async fn send(mut self) {
        loop {
            // Only then is anything read.
            let Ok(room) = self.pieces.clone().reserve_owned().await else { return };
            match self.look(room).await {
                Next::Again => {}
                Next::Later(pause) => tokio::time::sleep(pause).await,
                Next::Done => break,
            }
            if !self.is_wanted() {
                break;
            }
        }
        let mut streams = lock(&self.streams);
        let key = (self.job_id.clone(), self.stream);
        if streams.get(&key).is_some_and(|wanted| wanted.number == self.number) {
            streams.remove(&key);
        }
        if !streams.keys().any(|(job_id, _)| *job_id == self.job_id) {
            lock(&self.followed.0).remove(&self.job_id);
        }
    }

    fn is_wanted(&self) -> bool {
        let streams = lock(&self.streams);
        let wanted = streams.get(&(self.job_id.clone(), self.stream));
        wanted.is_some_and(|wanted| wanted.number == self.number && wanted.until > Instant::now())
    }

    /// Where it is to go on from, if that was said anew.
    fn asked_from(&self) -> Option<i64> {
        lock(&self.streams).get_mut(&(self.job_id.clone(), self.stream))?.from.take()
    }

    async fn look(&mut self, room: mpsc::OwnedPermit<Up>) -> Next {
        let at = self.followed.at(&self.job_id);
        // The attempt whose log has its name now, and whether it is over.
        let now = match at {
            At::Unsaid => return Next::Later(UNSAID_PAUSE),
            At::Held(Phase::Running, attempt) => Some((attempt, false)),
            At::Held(
                Phase::Ending | Phase::Uploading | Phase::Recorded | Phase::Waiting | Phase::Staging | Phase::Parked,
                attempt,
            ) if attempt > 0 => Some((attempt, true)),
            At::Held(..) => None,
            // It has ended before, or comes yet.
            At::NotHeld => match self.recorded().await {
                Some(attempt) => Some((attempt, true)),
                None => return Next::Later(RECORD_PAUSE),
            },
        };
        if let Some(reading) = &self.reading {
            // A further attempt may have taken the name of the file, and not this one.
            let over = now.is_none_or(|(attempt, over)| attempt != reading.attempt || over);
            return self.read_on(room, over, at).await;
        }
        match now {
            Some((attempt, _)) if self.ended == Some(attempt) => {
                if is_final(at) {
                    Next::Done
                } else {
                    Next::Later(PAUSE)
                }
            }
            Some((attempt, _)) => {
                self.reading = Some(Reading { attempt, file: None, offset: 0, position: 0 });
                Next::Again
            }
            None => Next::Later(PAUSE),
        }
    }

    /// Which attempt of a job that is not held was its last, if it has ended.
    async fn recorded(&self) -> Option<u32> {
        let (results, job_id) = (self.results.clone(), self.job_id.clone());
        let record = blocking(move || results.final_record(&job_id)).await.ok().flatten()?;
        // It may have come to be held meanwhile.
        (self.followed.at(&self.job_id) == At::NotHeld).then_some(())?;
        JobResult::parse(&record).ok().map(|result| result.attempt)
    }

    async fn read_on(&mut self, room: mpsc::OwnedPermit<Up>, over: bool, at: At) -> Next {
        let asked = self.asked_from();
        let Some(reading) = &mut self.reading else { return Next::Again };
        if reading.file.is_none() {
            let (results, job_id) = (self.results.clone(), self.job_id.clone());
            let stream = match self.stream {
                Stream::Stdout => program::Stream::Stdout,
                Stream::Stderr => program::Stream::Stderr,
            };
            let opened = blocking(move || results.open_log(&job_id, stream)).await;
            let same = self.followed.at(&self.job_id) == at;
            let claimed_anew = matches!(at, At::Held(Phase::Claiming | Phase::Ready, _));
            let another = matches!(at, At::Held(_, attempt) if attempt != reading.attempt);
            if claimed_anew || another {
                // Nothing of it can be found by its name any more.
            } else if same {
                reading.file = opened.ok().flatten().map(Arc::new);
            } else {
                put_back(&self.streams, &self.job_id, self.stream, asked);
                return Next::Again;
            }
        }
        let Some(file) = reading.file.clone() else {
            put_back(&self.streams, &self.job_id, self.stream, asked);
            if over {
                return self.end(room, at);
            }
            return Next::Later(PAUSE);
        };
        let first = asked.is_some() && !std::mem::replace(&mut self.heeded, true);
        let (offset, position) = (reading.offset, reading.position);
        let read = blocking(move || read_chunk(&file, offset, position, asked, first));
        let Ok(Chunk { bytes, offset, position, more }) = read.await else {
            return if over { self.end(room, at) } else { Next::Later(PAUSE) };
        };
        (reading.offset, reading.position) = (offset + bytes.len() as u64, position + bytes.len() as u64);
        if bytes.is_empty() {
            return if over { self.end(room, at) } else { Next::Later(PAUSE) };
        }
        let piece = LogPiece {
            job_id: self.job_id.clone(),
            attempt: reading.attempt,
            stream: self.stream,
            offset,
            data: STANDARD.encode(bytes),
            end: false,
        };
        room.send(Up::Log(piece));
        // What came before it was over is all read first.
        if more || over { Next::Again } else { Next::Later(PAUSE) }
    }

    /// All of an attempt is sent.
    fn end(&mut self, room: mpsc::OwnedPermit<Up>, at: At) -> Next {
        let Some(Reading { attempt, offset, .. }) = self.reading.take() else { return Next::Again };
        let (job_id, stream) = (self.job_id.clone(), self.stream);
        room.send(Up::Log(LogPiece { job_id, attempt, stream, offset, data: String::new(), end: true }));
        self.ended = Some(attempt);
        if is_final(at) { Next::Done } else { Next::Again }
    }
}

/// Does no further attempt follow?
fn is_final(at: At) -> bool {
    matches!(at, At::NotHeld | At::Held(Phase::Recorded, _))
}

/// What was said and could not be heeded yet counts unless something newer was said.
fn put_back(streams: &Streams, job_id: &JobId, stream: Stream, from: Option<i64>) {
    if let Some(wanted) = lock(streams).get_mut(&(job_id.clone(), stream)) {
        wanted.from = wanted.from.or(from);
    }
}

/// Reads on. Where it was said anew from where, it goes there: the first time in either direction, later only back.
fn read_chunk(file: &File, offset: u64, position: u64, asked: Option<i64>, first: bool) -> io::Result<Chunk> {
    let length = file.metadata()?.size();
    // Emptied by its job: what comes next is at its beginning.
    let mut position = if length < position { 0 } else { position };
    let base = offset.saturating_sub(position);
    if let Some(asked) = asked {
        let wanted = match u64::try_from(asked) {
            Ok(from) => from.saturating_sub(base).min(length),
            Err(_) => length.saturating_sub(asked.unsigned_abs()),
        };
        if first || wanted < position {
            position = wanted;
        }
    }
    let mut bytes = vec![0; LOG_BYTES_MAX];
    let read = file.read_at(&mut bytes, position)?;
    bytes.truncate(read);
    Ok(Chunk { more: read == LOG_BYTES_MAX, bytes, offset: base + position, position })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    struct Looked {
        tails: Tails,
        pieces: mpsc::Receiver<Up>,
        said: mpsc::Receiver<Said>,
        job_id: JobId,
        folder: tempfile::TempDir,
    }

    /// Somebody looks at this stream of a job; up to so many pieces are on their way.
    async fn looked(room: usize) -> Looked {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("j1")).unwrap();
        let (send_pieces, pieces) = mpsc::channel(room);
        let (say, said) = mpsc::channel(100);
        let results = ResultsDir::new(folder.path().to_owned());
        let tails = Tails::new(results, Followed::default(), say, send_pieces);
        Looked { tails, pieces, said, job_id: "j1".parse().unwrap(), folder }
    }

    impl Looked {
        async fn open(&mut self, from: i64) {
            self.tails.open(self.job_id.clone(), Stream::Stdout, from).await;
        }

        fn is(&self, at: At) {
            lock(&self.tails.followed.0).insert(self.job_id.clone(), at);
        }

        fn log(&self) -> std::path::PathBuf {
            self.folder.path().join("j1/stdout.log")
        }

        fn print(&self, text: &str) {
            let file = fs::File::options().create(true).append(true).open(self.log());
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        async fn piece(&mut self) -> (u32, u64, String, bool) {
            let piece = timeout(LONG, self.pieces.recv()).await.expect("a piece comes").unwrap();
            let Up::Log(piece) = piece else { panic!("{piece:?}") };
            let bytes = STANDARD.decode(piece.data).unwrap();
            (piece.attempt, piece.offset, String::from_utf8(bytes).unwrap(), piece.end)
        }

        async fn is_over(&self) -> bool {
            let over = async {
                while !lock(&self.tails.streams).is_empty() || !lock(&self.tails.followed.0).is_empty() {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(LONG, over).await.is_ok()
        }
    }

    fn record(folder: &Path, attempt: u32) {
        let text = format!(r#"{{"v":1,"job_id":"j1","status":"completed","attempt":{attempt}}}"#);
        fs::write(folder.join("j1.json"), text).unwrap();
    }

    #[tokio::test]
    async fn each_attempt_is_sent_whole_and_from_its_beginning() {
        let mut looked = looked(4).await;
        looked.open(0).await;
        assert!(matches!(looked.said.recv().await, Some(Said::Followed)), "the loop is to say how far it is");
        // It waits, and what an earlier life of the job has left is none of it.
        looked.print("of another life");
        looked.is(At::Held(Phase::Waiting, 0));
        sleep(2 * PAUSE).await;
        assert!(looked.pieces.try_recv().is_err());
        fs::remove_file(looked.log()).unwrap();
        looked.print("one\n");
        looked.is(At::Held(Phase::Running, 1));
        assert_eq!(looked.piece().await, (1, 0, "one\n".to_owned(), false));
        looked.print("two\n");
        assert_eq!(looked.piece().await, (1, 4, "two\n".to_owned(), false));
        // The next attempt is claimed, and takes the name: what was printed last is not lost.
        looked.print("three\n");
        fs::rename(looked.log(), looked.folder.path().join("j1/stdout.attempt-1.log")).unwrap();
        looked.is(At::Held(Phase::Ready, 1));
        assert_eq!(looked.piece().await, (1, 8, "three\n".to_owned(), false));
        assert_eq!(looked.piece().await, (1, 14, String::new(), true));
        looked.is(At::Held(Phase::Running, 2));
        looked.print("again\n");
        assert_eq!(looked.piece().await, (2, 0, "again\n".to_owned(), false));
        looked.print("end\n");
        record(looked.folder.path(), 2);
        looked.is(At::NotHeld);
        assert_eq!(looked.piece().await, (2, 6, "end\n".to_owned(), false));
        assert_eq!(looked.piece().await, (2, 10, String::new(), true));
        assert!(looked.is_over().await);
    }

    #[tokio::test]
    async fn what_has_ended_is_sent_from_where_it_is_wanted() {
        for (from, offset, text) in [(0, 0, "0123456789"), (-4, 6, "6789"), (-100, 0, "0123456789"), (8, 8, "89")] {
            let mut looked = looked(4).await;
            looked.print("0123456789");
            record(looked.folder.path(), 3);
            looked.open(from).await;
            looked.is(At::NotHeld);
            assert_eq!(looked.piece().await, (3, offset, text.to_owned(), false));
            assert_eq!(looked.piece().await, (3, 10, String::new(), true));
            assert!(looked.is_over().await);
        }
        let mut printed_nothing = looked(4).await;
        record(printed_nothing.folder.path(), 1);
        printed_nothing.open(70).await;
        printed_nothing.is(At::NotHeld);
        assert_eq!(printed_nothing.piece().await, (1, 0, String::new(), true));
    }

    #[tokio::test]
    async fn who_asks_again_has_it_go_back_and_never_on() {
        let mut looked = looked(4).await;
        looked.print("0123456789");
        looked.open(-2).await;
        looked.is(At::Held(Phase::Running, 1));
        assert_eq!(looked.piece().await, (1, 8, "89".to_owned(), false));
        looked.open(5).await;
        assert_eq!(looked.piece().await, (1, 5, "56789".to_owned(), false));
        looked.open(1_000).await;
        looked.print("ab");
        assert_eq!(looked.piece().await, (1, 10, "ab".to_owned(), false));
        // A job that empties its log goes on where it was.
        fs::write(looked.log(), "").unwrap();
        sleep(2 * PAUSE).await;
        looked.print("anew");
        assert_eq!(looked.piece().await, (1, 12, "anew".to_owned(), false));
        looked.tails.close(looked.job_id.clone(), Stream::Stdout);
        assert!(looked.is_over().await);
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_taken_and_nobody_looks_for_ever() {
        let mut looked = looked(1).await;
        looked.print(&"x".repeat(10 * LOG_BYTES_MAX));
        looked.open(0).await;
        looked.is(At::Held(Phase::Running, 1));
        sleep(2 * PAUSE).await;
        let Some(reading) = lock(&looked.tails.streams).len().checked_sub(1) else { panic!("it is read") };
        assert_eq!((reading, looked.pieces.len()), (0, 1), "the next one waits");
        let mut offset = 0;
        while offset < 10 * LOG_BYTES_MAX as u64 {
            let (_, at, text, _) = looked.piece().await;
            assert_eq!((at, text.len()), (offset, LOG_BYTES_MAX));
            offset += text.len() as u64;
        }
        lock(&looked.tails.streams).values_mut().for_each(|wanted| wanted.until = Instant::now());
        assert!(looked.is_over().await);
        for no in 0..2 * TAILS_MAX {
            looked.tails.open(format!("k{no}").parse().unwrap(), Stream::Stderr, 0).await;
        }
        assert_eq!(lock(&looked.tails.streams).len(), TAILS_MAX);
    }
}
