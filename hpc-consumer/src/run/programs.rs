//! What is said of a program that is missing.

use super::Says;

/// What only a shell understands, as a word of its own.
const SHELL_WORDS: [&str; 12] = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1", "2>", "|&", "&>"];

/// What only a shell can do, as the first word.
const SHELL_COMMANDS: [&str; 14] =
    [".", "cd", "eval", "exec", "export", "for", "if", "module", "set", "source", "ulimit", "umask", "unset", "while"];

/// That the program of a command is missing there, and what to do.
pub(super) fn missing(command: &[String], there: &str, says: &Says) -> String {
    let program = command.first().map_or("", String::as_str);
    if let Says::Site { command: key, .. } = says {
        let hint = if is_for_a_shell(command) {
            ". It is not given to a shell, which would be [\"sh\", \"-c\", \"…\"]"
        } else {
            "; correct it in the site's file, or install the program"
        };
        return format!("there is no program {program:?}, which `{key}` names, {there}{hint}");
    }
    let told = format!("there is no program {program:?}, which CONTAINER_CMD names, {there}");
    if !is_for_a_shell(command) {
        return format!("{told}; correct CONTAINER_CMD, or install the program");
    }
    let line = shell_words::join(["sh", "-c", &shell_line(command)]);
    let line = line.replace('\\', r"\\").replace('"', "\\\"").replace('$', r"\$");
    format!("{told}. CONTAINER_CMD is not given to a shell; this line is: CONTAINER_CMD=\"{line}\"")
}

fn is_for_a_shell(command: &[String]) -> bool {
    let sets_a_variable = |word: &str| {
        let name = word.split_once('=').map_or("", |(name, _)| name);
        name.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
            && name.chars().all(|letter| letter == '_' || letter.is_ascii_alphanumeric())
    };
    let first = command.first().map_or("", String::as_str);
    SHELL_COMMANDS.contains(&first)
        || sets_a_variable(first)
        || command.iter().any(|word| SHELL_WORDS.contains(&word.as_str()) || word.ends_with(';'))
}

/// The words as a shell is to read them: what it understands stays as it is.
fn shell_line(command: &[String]) -> String {
    let is_plain =
        |word: &str| word.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-=./:,+;".contains(letter));
    let stays = |word: &str| SHELL_WORDS.contains(&word) || (is_plain(word) && !word.is_empty());
    let words = command.iter().map(|word| if stays(word) { word.as_str().into() } else { shell_words::quote(word) });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_the_line_that_would_work() {
        let told = |line: &str| missing(&shell_words::split(line).unwrap(), "in the image a.sif", &Says::Settings);
        assert_eq!(
            told("pyhton run.py"),
            "there is no program \"pyhton\", which CONTAINER_CMD names, in the image a.sif; correct CONTAINER_CMD, or \
             install the program"
        );
        for (line, works) in [
            ("cd /app && python run.py", "cd /app && python run.py"),
            ("A=1 python 'my run.py' \"$HOME\"", "A=1 python 'my run.py' '$HOME'"),
            ("cd /app; python run.py > out", "cd /app; python run.py > out"),
        ] {
            let told = told(line);
            let (_, shown) = told.split_once("this line is: ").unwrap();
            // A settings file understands double quotes as a shell does.
            let words = shell_words::split(shown).unwrap();
            let [value] = &words[..] else { panic!("{told}") };
            let value = value.strip_prefix("CONTAINER_CMD=").unwrap();
            assert_eq!(shell_words::split(value).unwrap(), ["sh", "-c", works], "{told}");
        }
        assert!(told("cd /app && python run.py").ends_with(r#"CONTAINER_CMD="sh -c 'cd /app && python run.py'""#));
    }
}
