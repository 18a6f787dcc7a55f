//! The text of a launchd agent of macOS.

use std::fmt::Write as _;

use crate::start::{Start, Unwritable};

/// An agent to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent<'a> {
    /// Its name, as in `hpc-queue.laptop-consumer`; the file has it, too.
    pub label: &'a str,
    /// Which program, as in `laptop-consumer`.
    pub name: &'a str,
    /// Of which version.
    pub version: &'a str,
    /// What is started.
    pub start: &'a Start,
    /// Where its log goes.
    pub log: &'a str,
}

impl Agent<'_> {
    /// Its text.
    pub fn text(&self) -> Result<String, Unwritable> {
        self.start.check()?;
        let Start { program, arguments, directory, environment } = self.start;
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!-- Made by {} {}: `{} service install` makes it anew, and changes in here are lost then. -->\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <plist version=\"1.0\">\n<dict>\n",
            self.name, self.version, self.name
        );
        let string = |value: &str| format!("<string>{}</string>", escaped(value));
        let mut key = |name: &str, value: &str| {
            let _ = writeln!(text, "  <key>{}</key>\n  {value}", escaped(name));
        };
        key("Label", &string(self.label));
        let words: Vec<String> = [program].into_iter().chain(arguments).map(|word| string(word)).collect();
        key("ProgramArguments", &format!("<array>\n    {}\n  </array>", words.join("\n    ")));
        key("WorkingDirectory", &string(directory));
        if !environment.is_empty() {
            let pairs =
                environment.iter().map(|(name, value)| format!("<key>{}</key>{}", escaped(name), string(value)));
            key(
                "EnvironmentVariables",
                &format!("<dict>\n    {}\n  </dict>", pairs.collect::<Vec<_>>().join("\n    ")),
            );
        }
        key("RunAtLoad", "<true/>");
        // Ended by a person, or for good: not again.
        key("KeepAlive", "<dict><key>SuccessfulExit</key><false/></dict>");
        key("ThrottleInterval", "<integer>60</integer>");
        key("ProcessType", &string("Background"));
        key("StandardOutPath", &string("/dev/null"));
        key("StandardErrorPath", &string(self.log));
        text.push_str("</dict>\n</plist>\n");
        Ok(text)
    }
}

/// The version of the program that has made this agent, if one of that name has.
pub fn made_by<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    let rest = text.lines().nth(1)?.strip_prefix("<!-- Made by ")?.strip_prefix(name)?.strip_prefix(' ')?;
    rest.split_once(": ").map(|(version, _)| version)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_as_it_was() {
        let start = Start {
            program: "/Users/me/bin/laptop-consumer".into(),
            arguments: ["tail", "--env-file", "/Users/me/R&D/hpc queue.env"].map(str::to_owned).into(),
            directory: "/Users/me".into(),
            environment: [("PATH", "/usr/bin:/bin"), ("HTTPS_PROXY", "http://proxy:3128")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let agent = Agent {
            label: "hpc-queue.laptop-consumer",
            name: "laptop-consumer",
            version: "1.2.3",
            start: &start,
            log: "/Users/me/.local/state/hpc-queue/laptop-service/receiver.log",
        };
        assert_eq!(agent.text().unwrap(), include_str!("../tests/golden/laptop-consumer.plist"));
    }

    #[test]
    fn texts_are_no_markup() {
        let start = Start {
            program: "/a<b>&/laptop-consumer".into(),
            arguments: vec!["tail".into()],
            directory: "/d".into(),
            environment: [("PATH".into(), "/usr/bin:/<".into())].into(),
        };
        let agent = Agent { label: "l", name: "laptop-consumer", version: "1.2.3", start: &start, log: "/l&" };
        let text = agent.text().unwrap();
        assert!(text.contains("<string>/a&lt;b&gt;&amp;/laptop-consumer</string>"), "{text}");
        assert!(text.contains("<key>PATH</key><string>/usr/bin:/&lt;</string>"), "{text}");
        assert!(text.contains("<key>StandardErrorPath</key>\n  <string>/l&amp;</string>"), "{text}");
        assert_eq!(made_by("laptop-consumer", &text), Some("1.2.3"));
        let wrong = Start { arguments: vec!["\n".into()], ..start.clone() };
        assert!(Agent { start: &wrong, ..agent }.text().is_err());
    }
}
