//! From arguments, environment and file to settings and their origins.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const SOURCES: Sources = Sources {
    files: Files::Dotenv,
    shared: &[
        Shared { name: "APPTAINER_BIND", bare: Bare::Counts },
        Shared { name: "API_KEY", bare: Bare::Beside("PRODUCER_URL") },
    ],
};

#[derive(Debug, Parser)]
#[command(name = "program")]
struct Cli {
    #[command(flatten)]
    _file: FileArgs,
    #[arg(long, global = true, env = "HPC_QUEUE_LOG", default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, clap::Subcommand)]
enum Commands {
    Run(Run),
    Show,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[arg(long, env = "MAX_PARALLEL_JOBS", value_parser = |text: &str| crate::whole(text, 1..=100))]
    max_parallel_jobs: Option<u64>,
    #[arg(long, env = "HPC_QUEUE_LOG_FORMAT", default_value = "text")]
    form: crate::LogFormat,
    #[arg(long, env = "CONTAINER_CMD", default_value = "task-runner")]
    container_cmd: String,
    #[arg(long, env = "APPTAINER_BIND")]
    apptainer_bind: Option<String>,
    #[arg(long, env = "PRODUCER_URL")]
    producer_url: Option<String>,
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    #[arg(long = "api-key-file", env = "API_KEY_FILE")]
    _api_key_file: Option<PathBuf>,
    #[arg(long, env = "LOCAL_EDGE_FAULTS", action = clap::ArgAction::SetTrue,
          value_parser = clap::builder::FalseyValueParser::new())]
    faults: bool,
}

/// What the program was told by these arguments, variables and lines of a file.
fn told(arguments: &[&str], variables: &[(&str, &str)], lines: &str) -> Result<Given<Cli>, Stop> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.env");
    fs::write(&file, lines).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["program", "--env-file", file.to_str().unwrap()];
    let arguments = words.iter().chain(arguments).map(OsString::from).collect();
    parse(arguments, &SOURCES, Environment::of(variables))
}

fn run(arguments: &[&str], variables: &[(&str, &str)], lines: &str) -> (Run, Given<()>) {
    let arguments: Vec<&str> = [&["run"], arguments].concat();
    let given = told(&arguments, variables, lines).unwrap_or_else(|stop| panic!("{stop:?}"));
    let Commands::Run(run) = given.cli.command else { panic!("another command") };
    (run, Given { cli: (), origins: given.origins, warnings: given.warnings })
}

fn refused(arguments: &[&str], variables: &[(&str, &str)], lines: &str) -> String {
    match told(arguments, variables, lines).expect_err("it is refused") {
        Stop::Setting(error) => error.to_string(),
        Stop::Arguments(error) => error.to_string(),
    }
}

/// The name of the file is new each time.
fn without_folder(text: &str) -> String {
    let word = |word: &str| if word.ends_with("/a.env") { "a.env".to_owned() } else { word.to_owned() };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_setting_has_the_value_of_the_first_that_sets_it_and_knows_which() {
    let lines = "CONTAINER_CMD='from file'\nMAX_PARALLEL_JOBS=1\nHPC_QUEUE_LOG=warn\n";
    let (run, given) =
        run(&["--max-parallel-jobs", "3"], &[("MAX_PARALLEL_JOBS", "2"), ("LOCAL_EDGE_FAULTS", "1")], lines);
    assert_eq!((run.max_parallel_jobs, run.container_cmd.as_str(), run.faults), (Some(3), "from file", true));
    assert_eq!(run.form, crate::LogFormat::Text);
    let named = |name| without_folder(&given.origins.named(name));
    assert_eq!(named("MAX_PARALLEL_JOBS"), "--max-parallel-jobs");
    assert_eq!(named("CONTAINER_CMD"), "CONTAINER_CMD from a.env line 1");
    assert_eq!(named("HPC_QUEUE_LOG"), "HPC_QUEUE_LOG from a.env line 3");
    assert_eq!(
        (named("HPC_QUEUE_LOG_FORMAT"), given.origins.of("HPC_QUEUE_LOG_FORMAT")),
        ("HPC_QUEUE_LOG_FORMAT".to_owned(), None)
    );
    assert!(given.warnings.is_empty(), "{given:?}");
}

#[test]
fn a_global_flag_counts_on_either_side_of_the_command() {
    for arguments in [["--log", "debug", "show"], ["show", "--log", "debug"]] {
        let given = told(&arguments, &[("HPC_QUEUE_LOG", "error")], "").unwrap();
        assert_eq!((given.cli.log.as_str(), given.origins.named("HPC_QUEUE_LOG").as_str()), ("debug", "--log"));
    }
    assert_eq!(told(&["show"], &[("HPC_QUEUE_LOG", "error")], "").unwrap().cli.log, "error");
}

#[test]
fn a_wrong_value_is_told_by_the_name_that_was_written() {
    for (variables, lines, text) in [
        (
            &[][..],
            "\nMAX_PARALLEL_JOBS=lots\n",
            "MAX_PARALLEL_JOBS from a.env line 2 is \"lots\", which cannot be used: it is a whole number, 1 to 100",
        ),
        (
            &[("HPC_QUEUE_MAX_PARALLEL_JOBS", "0")],
            "",
            "HPC_QUEUE_MAX_PARALLEL_JOBS from the environment is \"0\", which cannot be used: it is a whole number, 1 to 100",
        ),
        (
            &[("HPC_QUEUE_LOG_FORMAT", "xml")],
            "",
            "HPC_QUEUE_LOG_FORMAT from the environment is \"xml\", which cannot be used: it is one of text, json",
        ),
        (
            &[],
            "CONTAINER_CMD=python /app/run.py\n",
            "CONTAINER_CMD from a.env line 1 cannot be understood; a value with spaces, quotes, $ or # stands between \
             single quotes: CONTAINER_CMD='python /app/run.py'",
        ),
    ] {
        assert_eq!(without_folder(&refused(&["run"], variables, lines)), text);
        // Who does not need it is not ended by it.
        assert!(told(&["show"], variables, lines).is_ok());
    }
    let flag = refused(&["run", "--max-parallel-jobs", "x"], &[("MAX_PARALLEL_JOBS", "y")], "");
    assert!(flag.contains("'x' for '--max-parallel-jobs") && flag.contains("a whole number, 1 to 100"), "{flag}");
    let (run, _) = run(&["--container-cmd", "a"], &[], "CONTAINER_CMD=python /app/run.py\n");
    assert_eq!(run.container_cmd, "a");
}

#[test]
fn help_names_the_variables_and_never_their_values() {
    let help = refused(&["run", "--help"], &[("API_KEY", "s3cret")], "API_KEY=s3cret\nCONTAINER_CMD=mine\n");
    assert!(help.contains("[env: CONTAINER_CMD]") && help.contains("[default: task-runner]"), "{help}");
    assert!(help.contains("[env: API_KEY]") && !help.contains("s3cret") && !help.contains("mine"), "{help}");
}

#[test]
fn variables_that_others_set_as_well_are_told() {
    let (taken, given) = run(&[], &[("APPTAINER_BIND", "/site")], "APPTAINER_BIND=/mine\n");
    assert_eq!(taken.apptainer_bind.as_deref(), Some("/mine"));
    let [warning] = given.warnings.as_slice() else { panic!("{given:?}") };
    assert!(warning.contains("/mine") && warning.contains("/site") && warning.contains("HPC_QUEUE_APPTAINER_BIND"));

    let key = ("API_KEY", "s3cret");
    let (without, given) = run(&[], &[key], "PRODUCER_URL=https://edge\n");
    assert_eq!((without.api_key, without.producer_url.is_some(), given.warnings.len()), (None, true, 1));
    assert!(given.warnings[0].contains("name it HPC_QUEUE_API_KEY"), "{given:?}");
    let (with, given) = run(&[], &[key, ("PRODUCER_URL", "https://edge")], "");
    assert_eq!((with.api_key.as_deref(), given.warnings.len()), (Some("s3cret"), 1));
    let (ours, given) = run(&[], &[key], "API_KEY=ours\n");
    assert_eq!((ours.api_key.as_deref(), given.warnings.len()), (Some("ours"), 0), "{given:?}");
    assert!(!format!("{given:?}").contains("s3cret"));
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "s3cret\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let path = key.to_str().unwrap();
    let line = format!("API_KEY_FILE={path}\n");
    let (variable, own) = (("API_KEY_FILE", path), ("HPC_QUEUE_API_KEY", "other"));
    for (arguments, variables, lines, value, named) in [
        (&["--api-key-file", path][..], &[own][..], "API_KEY=other\n", "s3cret", "(--api-key-file)"),
        (&[], &[variable], "API_KEY=other\n", "s3cret", "(API_KEY_FILE from the environment)"),
        (&[], &[], line.as_str(), "s3cret", "a.env line 1)"),
        (&["--api-key", "other"], &[variable], line.as_str(), "other", "--api-key"),
        (&[], &[own], line.as_str(), "other", "HPC_QUEUE_API_KEY from the environment"),
    ] {
        let (run, given) = run(arguments, variables, lines);
        assert_eq!(run.api_key.as_deref(), Some(value), "{arguments:?} {variables:?} {lines}");
        let origin = given.origins.named("API_KEY");
        assert!(origin.ends_with(named) && origin.contains(path) == (value == "s3cret"), "{origin}");
        assert!(given.warnings.is_empty() && !format!("{given:?}").contains("s3cret"), "{given:?}");
    }
    for (arguments, variables, lines) in [
        (&["--api-key-file", path, "--api-key", "other"][..], &[][..], ""),
        (&[], &[variable, own], ""),
        (&[], &[], &*format!("API_KEY=other\n{line}")),
    ] {
        let refusal = refused(&[&["run"], arguments].concat(), variables, lines);
        assert!(refusal.contains("both set API_KEY") && !refusal.contains("other"), "{refusal}");
    }
    let missing = refused(&["run", "--api-key-file", "/no/such/file"], &[], "");
    assert!(missing.starts_with("--api-key-file: cannot read /no/such/file"), "{missing}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (_, given) = run(&["--api-key-file", path], &[], "");
    assert!(given.warnings.iter().any(|warning| warning.contains("can be read by others")), "{given:?}");
}

#[test]
fn a_profile_is_a_file_in_the_directory_for_settings() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/hpc-queue");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("site-a.env"), "CONTAINER_CMD=b\n").unwrap();
    let variables = [("HOME", home.path().to_str().unwrap())];
    let parse = |arguments: &[&str]| {
        let arguments = ["program"].iter().chain(arguments).map(OsString::from).collect();
        parse::<Cli>(arguments, &SOURCES, Environment::of(&variables))
    };
    let given = parse(&["run", "--profile", "site-a"]).unwrap();
    assert!(matches!(given.cli.command, Commands::Run(run) if run.container_cmd == "b"));
    for (name, says) in [("none", "none.env"), ("../site-a", "--env-file"), ("", "--env-file")] {
        let Err(Stop::Setting(error)) = parse(&["run", "--profile", name]) else { panic!("{name} is taken") };
        assert!(error.to_string().contains(says), "{error}");
    }
    let both = parse(&["--profile", "site-a", "run", "--env-file", "x"]);
    assert!(matches!(both, Err(Stop::Setting(error)) if error.to_string().contains("one of them")));
}
