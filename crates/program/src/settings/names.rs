//! The names of all settings of all programs, and which of them was meant by a name that is none.
//!
//! One file serves all programs, so each must know the names of the others. The names are those of `.env.example`,
//! which a test compares with the help of every program.

use std::sync::LazyLock;

/// Any setting may be named with this in front, which no other program uses.
pub(super) const OWN: &str = "HPC_QUEUE_";

/// Nobody else's names begin like this.
const OURS: [&str; 4] = [OWN, "CF_QUEUES_", "LAPTOP_", "LOCAL_EDGE_"];

/// What libraries in our programs and Apptainer read themselves, and a settings file may set for them.
pub(super) const PASSED_ON: [&str; 15] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "APPTAINER_CACHEDIR",
    "APPTAINER_CONFIGDIR",
    "APPTAINER_DOCKER_PASSWORD",
    "APPTAINER_DOCKER_USERNAME",
    "APPTAINER_TMPDIR",
];

/// What names a program, arguments that can name one (`--config`), or a file whose content is sent to a server.
const OF_A_NAMED_FILE: [&str; 8] = [
    "APPTAINER_BIN",
    "APPTAINER_ARGS",
    "CONTAINER_CMD",
    "SITE_FILE",
    "API_KEY_FILE",
    "SITE_KEY_FILE",
    "CF_QUEUES_API_TOKEN_FILE",
    "REGISTRY_AUTH_FILE",
];

/// The setting that names the file in which a secret is has this behind the name of the secret's own.
const FILE: &str = "_FILE";

static SETTINGS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let example = include_str!("../../../../.env.example");
    let name = |line: &'static str| {
        let (name, _) = line.trim_start_matches(['#', ' ']).split_once('=')?;
        is_name(name).then_some(name)
    };
    example.lines().filter_map(name).collect()
});

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Does a program of ours have a setting of this name?
pub(super) fn is_ours(name: &str) -> bool {
    SETTINGS.contains(&name) || name.strip_prefix(OWN).is_some_and(|rest| SETTINGS.contains(&rest))
}

/// Is this only taken from a settings file that a person has named? One that merely lies in the current directory may
/// be part of what somebody has sent.
pub(super) fn is_of_a_named_file(name: &str) -> bool {
    OF_A_NAMED_FILE.contains(&name.strip_prefix(OWN).unwrap_or(name))
}

/// Is the value of this a secret?
pub(super) fn is_secret(name: &str) -> bool {
    secret_in_file(name).is_none() && ["KEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|word| name.contains(word))
}

/// Whether a setting names the file of a secret, and which secret that is.
pub(super) fn secret_in_file(name: &str) -> Option<&str> {
    name.strip_suffix(FILE).filter(|name| is_secret(name))
}

/// The name of a setting that no other program uses.
pub(super) fn own(name: &str) -> String {
    if name.starts_with(OWN) { name.to_owned() } else { format!("{OWN}{name}") }
}

/// What to say of a name in a settings file that is none of ours and looks like it; `None` when it is somebody else's.
pub(super) fn advice(name: &str) -> Option<String> {
    if is_ours(name) || PASSED_ON.contains(&name) || !is_name(name) {
        return None;
    }
    match meant(name) {
        Some(setting) => Some(format!("no setting is named {name}; {setting} is meant?")),
        None if OURS.iter().any(|prefix| name.starts_with(prefix)) => {
            Some(format!("no setting is named {name}; .env.example has all of them"))
        }
        None => None,
    }
}

/// What to say of a variable that has our prefix and is nearly a setting. Programs find others there which are not
/// settings: of a job, of an installer, of tests.
pub(super) fn advice_on_variable(name: &str) -> Option<String> {
    let setting = meant(name).filter(|_| !is_ours(name))?;
    Some(format!("no setting is named {name}, which is set in the environment; {OWN}{setting} is meant?"))
}

/// The setting that a name is most like.
fn meant(name: &str) -> Option<&'static str> {
    let bare = name.strip_prefix(OWN).unwrap_or(name);
    let (_, setting) = SETTINGS.iter().filter_map(|setting| Some((likeness(bare, setting)?, *setting))).max()?;
    Some(setting)
}

/// How much a name is like one of ours; `None` if it is not. A letter or two are wrong in a long name, or it begins
/// with the same word and most of the others are the same.
fn likeness(name: &str, setting: &str) -> Option<usize> {
    let wrong = strsim::damerau_levenshtein(name, setting);
    // Short names are close to each other without meaning each other.
    if wrong <= setting.len() / 6 && wrong <= 2 {
        return Some(100 - wrong);
    }
    let (words, others): (Vec<&str>, Vec<&str>) = (name.split('_').collect(), setting.split('_').collect());
    let same = words.iter().filter(|word| others.contains(word)).count();
    let most = words.len().max(others.len());
    (words[0] == others[0] && same >= 2 && 3 * same >= 2 * most).then_some(10 * same / most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_ours_are_told_with_the_one_meant() {
        for (name, setting) in [
            ("RESULT_DIR", "RESULTS_DIR"),
            ("MAX_CONCURRENT_JOBS", "MAX_PARALLEL_JOBS"),
            ("VISIBLITY_TIMEOUT_MS", "VISIBILITY_TIMEOUT_MS"),
            ("CF_QUEUE_API_TOKEN", "CF_QUEUES_API_TOKEN"),
            ("CF_QUEUES_TOKEN", "CF_QUEUES_API_TOKEN"),
            ("HPC_QUEUE_RESULT_DIR", "RESULTS_DIR"),
            ("APPTAINER_IMAGES", "APPTAINER_IMAGE"),
            ("JOB_TIME_LIMIT", "JOB_TIME_LIMIT_SECONDS"),
            ("POLL_INTERVAL", "POLL_INTERVAL_SECONDS"),
        ] {
            let advice = advice(name).unwrap_or_else(|| panic!("{name} is not told"));
            assert!(advice.contains(&format!("; {setting} is meant?")), "{advice}");
        }
        assert!(advice("HPC_QUEUE_COLOUR").unwrap().contains(".env.example"));
    }

    #[test]
    fn variables_with_our_prefix_are_told_only_where_one_is_meant() {
        let told = advice_on_variable("HPC_QUEUE_RESULT_DIR").unwrap();
        assert!(told.ends_with("; HPC_QUEUE_RESULTS_DIR is meant?"), "{told}");
        for name in ["HPC_QUEUE_POOL", "HPC_QUEUE_CPUS", "HPC_QUEUE_RESULTS_DIR", "HPC_QUEUE_LOG", "HPC_QUEUE_RUN"] {
            assert_eq!(advice_on_variable(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "RESULTS_DIR",
            "HPC_QUEUE_API_KEY",
            "HPC_QUEUE_LOG",
            "DATABASE_URL",
            "NODE_ENV",
            "PORT",
            "HOST",
            "API_URL",
            "API_BASE_URL",
            "OPENAI_API_KEY",
            "DATA_DIR",
            "LOG_DIR",
            "SECRET_KEY",
            "HTTPS_PROXY",
            "CF_ACCESS_CLIENT_ID",
            "next.public",
        ] {
            assert_eq!(advice(name), None, "{name}");
        }
    }
}
