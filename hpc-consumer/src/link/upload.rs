//! Where no WebSocket gets through: requests with what there is to tell, every half minute, whose answers have what the
//! hub has to say. What jobs print cannot be looked at in this way.

use protocol::link::{Down, Download, Hello, JOBS_MAX, MESSAGE_BYTES_MAX, Report, Up, Upload};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::answers::{Trouble, body};
use super::contact::Contact;
use super::socket::{Socket, Unwanted};
use super::{KEY_HEADER, LinkState, Said, Target};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

impl Contact {
    /// Tells the hub by requests until a WebSocket gets through after all, which is tried from time to time, or until
    /// the requests do not get through either. `why` is what is wrong with the WebSocket.
    pub(super) async fn report(&self, hello: &Hello, unwanted: &Unwanted, why: String) -> Result<Socket, Trouble> {
        let (reports, mut to_report) = mpsc::channel(1);
        let mut reports = Some(reports);
        let mut again = Instant::now() + self.timing.again;
        let outcome = loop {
            let report: Option<Report> = to_report.try_recv().ok();
            let is_full = report.as_ref().is_some_and(|report| report.jobs.len() == JOBS_MAX);
            let said = match self.target.upload(&self.http, hello, report).await {
                Ok(Download { down }) => down,
                Err(trouble) => break Err(trouble),
            };
            let is_first = reports.is_some();
            if let Some(reports) = reports.take() {
                self.tell(LinkState::Reporting, Some(why.clone()));
                let _ = self.said.send(Said::Connected(super::Up { reports, rings: false })).await;
            }
            if let Some(trouble) = self.hear_all(said, unwanted).await {
                break Err(trouble);
            }
            // What there is to tell at first, and what a report could not hold, follows soon.
            sleep(if is_first || is_full { self.timing.first } else { self.timing.report }).await;
            if Instant::now() >= again {
                again = Instant::now() + self.timing.again;
                if let Ok(socket) = self.connect().await {
                    break Ok(socket);
                }
            }
        };
        if reports.is_none() {
            let _ = self.said.send(Said::Disconnected).await;
        }
        outcome
    }

    /// Does what follows from an answer; returns why the hub does not take us, if it does not.
    async fn hear_all(&self, said: Vec<Down>, unwanted: &Unwanted) -> Option<Trouble> {
        for down in said {
            let said = match down {
                Down::Refused { code, detail } => return Some(self.target.refused(&code, &detail)),
                Down::Ack { number } => Said::Stored(number),
                // Without a link it is heard late, and the next answer says it again.
                Down::Wake { .. } => Said::Woken,
                Down::Ask { jobs } => Said::Asked(jobs),
                Down::Cancel { jobs } => {
                    let _ = unwanted.send(jobs).await;
                    continue;
                }
                Down::Welcome { .. } | Down::Tail { .. } | Down::Untail { .. } | Down::Unknown => continue,
            };
            let _ = self.said.send(said).await;
        }
        None
    }
}

impl Target {
    /// One request.
    pub(super) async fn upload(
        &self,
        http: &reqwest::Client,
        hello: &Hello,
        report: Option<Report>,
    ) -> Result<Download, Trouble> {
        let address = self.at("report")?;
        let up = [Up::Hello(hello.clone())].into_iter().chain(report.map(Up::Report)).collect();
        let request = http.post(address.url().clone()).header(KEY_HEADER, self.key.clone());
        let response = request.json(&Upload { up }).send().await.map_err(|error| self.unanswered(&error))?;
        if !response.status().is_success() {
            return Err(self.trouble(response, false).await);
        }
        let answer = body(response, ANSWER_BYTES_MAX).await.and_then(|body| serde_json::from_slice(&body).ok());
        answer.ok_or_else(|| Trouble::Passing(format!("{} does not answer as a hub does", self.edge)))
    }
}
