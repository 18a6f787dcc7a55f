//! What completes the arguments of a program in shells. Where it knows jobs, their ids are completed, too: the script
//! asks the program for them, by a hidden command `ids`, so that they are those of the moment.
//!
//! The library has an engine of its own for this, which is not stable yet. This is what is needed of one: the commands
//! that take a job as an argument, and nothing of their flags.

use clap::{Command, CommandFactory};
pub use clap_complete::Shell;

/// The hidden command that prints ids, one a line.
const IDS: &str = "ids";

/// What an argument that is a job is called in help: `JOB`, or `JOB|@FILE`.
const JOB: &str = "JOB";

/// The settings that say where jobs are, and go from the line that is completed to the program that is asked.
const PASSED: [&str; 3] = ["--env-file", "--profile", "--data-dir"];

/// The script of this shell.
pub fn completions<C: CommandFactory>(shell: Shell) -> String {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Bash {
        // In a name with a dash, the library (4.6.12) takes the dash for the end of a command in one of two places, so
        // that no flag of a command is completed.
        script = script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
    }
    if command.find_subcommand(IDS).is_none() {
        return script;
    }
    let taking = taking_jobs(&command);
    match shell {
        Shell::Bash => match function_in(&script).map(|function| bash(&name, function, &taking)) {
            Some(more) => script + &more,
            None => script,
        },
        Shell::Zsh => zsh(&name, &script),
        Shell::Fish => script + &fish(&name, &taking),
        _ => script,
    }
}

/// The commands of which an argument is a job.
fn taking_jobs(command: &Command) -> Vec<String> {
    let is_job = |arg: &clap::Arg| {
        arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.split('|').next() == Some(JOB)))
    };
    let taking = command.get_subcommands().filter(|command| command.get_positionals().any(is_job));
    taking.flat_map(|command| command.get_name_and_visible_aliases().into_iter().map(str::to_owned)).collect()
}

/// The function of the library, by the line that has Bash use it.
fn function_in(script: &str) -> Option<&str> {
    script.split_once("complete -F ")?.1.split(' ').next()
}

/// A function around the one that the library has written.
fn bash(name: &str, function: &str, taking: &[String]) -> String {
    format!(
        r#"
# The ids of jobs, for commands that take one: they are asked of the program.
_{name}_with_ids() {{
    {function} "$@"
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command='' word index
    local -a passed=()
    [[ $current != -* ]] || return 0
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        case $word in
            {passed}) passed+=("$word" "${{COMP_WORDS[index+1]}}"); ((index++)) ;;
            {taking}) command=$word; break ;;
        esac
    done
    # What follows a flag may be its value.
    [[ -n $command && $previous != -* ]] || return 0
    COMPREPLY=($(compgen -W "$("${{COMP_WORDS[0]}}" "${{passed[@]}}" {IDS} 2>/dev/null)" -- "$current"))
}}
complete -F _{name}_with_ids -o nosort -o bashdefault -o default {name} 2>/dev/null ||
    complete -F _{name}_with_ids -o bashdefault -o default {name}
"#,
        passed = PASSED.join("|"),
        taking = taking.join("|"),
    )
}

/// In the script of the library, a job is an argument that may be anything.
fn zsh(name: &str, script: &str) -> String {
    let is_job = |line: &str| {
        let line = line.trim_start_matches(['\'', '*', ':']);
        line.starts_with("job -- ") || line.starts_with("jobs -- ") || line.starts_with("words -- ")
    };
    let function = format!("_{name}_ids");
    let mut text = String::new();
    for line in script.lines() {
        match line.strip_suffix(":_default' \\").filter(|_| is_job(line)) {
            Some(line) => text.push_str(&format!("{line}:{function}' \\")),
            None => text.push_str(line),
        }
        text.push('\n');
        // Before anything of the script runs.
        if line == "autoload -U is-at-least" {
            text.push_str(&format!(
                r#"
# The ids of jobs: they are asked of the program.
{function}() {{
    # Of $words, what stands before the command is gone.
    local -a ids passed line=("${{(Q@)${{(z)BUFFER}}}}")
    local index
    for ((index = 2; index < $#line; index++)); do
        case ${{line[index]}} in
            {passed}) passed+=("${{line[index]}}" "${{line[index+1]}}") ;;
        esac
    done
    ids=(${{(f)"$({name} $passed {IDS} 2>/dev/null)"}})
    compadd -V ids -a ids
}}
"#,
                passed = PASSED.join("|"),
            ));
        }
    }
    text
}

fn fish(name: &str, taking: &[String]) -> String {
    let helper = format!("__fish_{}_using_subcommand", name.replace('-', "_"));
    format!(
        "\n# The ids of jobs: they are asked of the program.\ncomplete -c {name} -n \"{helper} {}\" -k -f -a \"({name} {IDS} 2>/dev/null)\"\n",
        taking.join(" ")
    )
}
