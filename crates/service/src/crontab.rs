//! Our lines in a crontab, or in that of Slurm (`scrontab`). All others are a person's, and stay as they are.

use crate::start::{Start, Unwritable};

/// How often a daemon is looked for that is to run, in minutes.
pub const MINUTES: u32 = 5;

/// Where our lines begin and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Which program, as in `hpc-consumer`.
    pub name: &'a str,
}

/// A block of ours of which the end is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the crontab has the line {0:?} and no line that ends what begins there; take these lines out by hand")]
pub struct Unclosed(String);

impl Block<'_> {
    fn begin(self) -> String {
        format!("# Begin of {} ", self.name)
    }

    fn end(self) -> String {
        format!("# End of {}", self.name)
    }

    /// The whole block.
    fn text(self, version: &str, lines: &[String]) -> String {
        let begin = format!("{}{version}: `{} service uninstall` takes it out", self.begin(), self.name);
        [begin].iter().chain(lines).chain([&self.end()]).flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Where it lies in a crontab, by the numbers of its first and its last line.
    fn lies(self, crontab: &str) -> Result<Option<(usize, usize)>, Unclosed> {
        let Some(first) = crontab.lines().position(|line| line.starts_with(&self.begin())) else { return Ok(None) };
        match crontab.lines().skip(first).position(|line| line == self.end()) {
            Some(length) => Ok(Some((first, first + length))),
            None => Err(Unclosed(crontab.lines().nth(first).unwrap_or_default().to_owned())),
        }
    }

    /// The version that has written our lines, if there are any.
    pub fn version(self, crontab: &str) -> Option<&str> {
        let rest = crontab.lines().find_map(|line| line.strip_prefix(&self.begin()))?;
        rest.split_once(": ").map(|(version, _)| version)
    }

    /// The crontab with these lines as ours, in the place of earlier ones.
    pub fn put(self, crontab: &str, version: &str, lines: &[String]) -> Result<String, Unclosed> {
        let at = self.lies(crontab)?;
        let (before, after) = around(crontab, at);
        Ok(before + &self.text(version, lines) + &after)
    }

    /// The crontab without our lines.
    pub fn without(self, crontab: &str) -> Result<String, Unclosed> {
        let at = self.lies(crontab)?;
        let (before, after) = around(crontab, at);
        Ok(before + &after)
    }
}

/// What stands before and after some lines; without any, all stands before.
fn around(crontab: &str, at: Option<(usize, usize)>) -> (String, String) {
    let (first, last) = at.unwrap_or((usize::MAX, usize::MAX));
    let mut parts = (String::new(), String::new());
    for (number, line) in crontab.lines().enumerate() {
        let part = match number {
            _ if number < first => &mut parts.0,
            _ if number > last => &mut parts.1,
            _ => continue,
        };
        part.push_str(line);
        part.push('\n');
    }
    parts
}

/// The lines of cron: a start with the machine, and a look every few minutes. Both do the same.
pub fn cron_lines(watch: &Start) -> Result<Vec<String>, Unwritable> {
    watch.check()?;
    // cron takes a percent sign for the end of the command, and mails what is printed: the log has it.
    let line = watch.to_shell_line().replace('%', "\\%") + " >/dev/null 2>&1";
    Ok(vec![format!("@reboot {line}"), format!("*/{MINUTES} * * * * {line}")])
}

/// The lines of `scrontab`. Slurm starts no second job of a line while the first one is there, so one line keeps the
/// daemon running; what it starts is told two minutes before its time is over.
pub fn scrontab_lines(run: &Start, name: &str, log: &str, options: &[String]) -> Result<Vec<String>, Unwritable> {
    run.check()?;
    let own = [
        format!("--job-name={name}"),
        format!("--output={}", log.replace('%', "%%")),
        "--open-mode=append".to_owned(),
        "--signal=B:TERM@120".to_owned(),
    ];
    if let Some(text) = options.iter().find(|text| text.contains(char::is_control)) {
        return Err(Unwritable::Control(text.clone()));
    }
    let options = own.iter().chain(options).map(|option| format!("#SCRON {option}"));
    Ok(options.chain([format!("*/{MINUTES} * * * * {}", run.to_shell_line())]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Block<'static> = Block { name: "hpc-consumer" };

    fn start() -> Start {
        Start {
            program: "/p/hpc-consumer".into(),
            arguments: vec!["service".into(), "watch".into(), "/100%/x".into()],
            directory: "/d".into(),
            environment: Default::default(),
        }
    }

    #[test]
    fn the_lines_of_a_person_stay_as_they_are() {
        let persons = "MAILTO=me\n# Begin of something\n0 1 * * * backup # End of hpc-consumer\n";
        let lines = cron_lines(&start()).unwrap();
        let put = OURS.put(persons, "0.1.0", &lines).unwrap();
        assert!(put.starts_with(persons), "{put}");
        assert_eq!(OURS.version(&put), Some("0.1.0"));
        // More of a person's behind ours, and a newer version.
        let put = put + "1 2 * * * other\n";
        let again = OURS.put(&put, "0.2.0", &lines[..1]).unwrap();
        assert_eq!(OURS.version(&again), Some("0.2.0"));
        assert_eq!(OURS.without(&again).unwrap(), format!("{persons}1 2 * * * other\n"));
        assert_eq!((OURS.without(persons).unwrap().as_str(), OURS.version(persons)), (persons, None));
        assert_eq!(OURS.without("").unwrap(), "");
    }

    #[test]
    fn a_block_of_another_program_is_not_ours() {
        let other = Block { name: "laptop-consumer" };
        let put = other.put("", "0.1.0", &["x".to_owned()]).unwrap();
        assert_eq!(OURS.version(&put), None);
        assert_eq!(OURS.without(&put).unwrap(), put);
    }

    #[test]
    fn half_a_block_takes_nothing_with_it() {
        let put = OURS.put("", "0.1.0", &["x".to_owned()]).unwrap();
        let half = put.replace("# End of hpc-consumer\n", "") + "1 2 * * * a person's\n";
        assert!(OURS.without(&half).is_err() && OURS.put(&half, "0.1.0", &[]).is_err());
    }

    #[test]
    fn cron_and_slurm_read_the_lines_as_they_are_meant() {
        assert_eq!(
            cron_lines(&start()).unwrap(),
            [
                r"@reboot cd /d && exec /p/hpc-consumer service watch '/100\%/x' >/dev/null 2>&1",
                r"*/5 * * * * cd /d && exec /p/hpc-consumer service watch '/100\%/x' >/dev/null 2>&1"
            ]
        );
        let lines = scrontab_lines(&start(), "hpc-consumer", "/l%/log", &["--partition=cron".into()]).unwrap();
        assert_eq!(lines[..2], ["#SCRON --job-name=hpc-consumer", "#SCRON --output=/l%%/log"]);
        assert_eq!(lines[4], "#SCRON --partition=cron");
        assert_eq!(lines[5], "*/5 * * * * cd /d && exec /p/hpc-consumer service watch '/100%/x'");
        assert!(scrontab_lines(&start(), "n", "/l", &["a\n* * * * * evil".into()]).is_err());
    }
}
