//! What a program was told: its arguments, and behind them the environment, a settings file and defaults.
//!
//! [`read`] parses the arguments by themselves first, so that what is wrong with them is told in the parser's words.
//! Then it gives each setting that no flag sets the value that [`layers`] finds, and remembers its [`Origin`], so that
//! what is wrong with it, then or later, is told by the name and the line that a person wrote.
//!
//! A secret may stand in a file of its own: where a command has a setting NAME that is hidden, its setting NAME_FILE
//! names that file.
//!
//! Invariants: the environment of this process gains only what is another program's ([`names`]); no text shows a
//! secret; nobody but us and root has a say in what is read ([`trust`]).

mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod layers;
mod names;
mod origin;
mod trust;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Parser};

use self::file::SettingsFile;
use self::layers::Layers;
pub use self::layers::{Bare, Shared};
pub use self::origin::{Origin, Origins};
use self::trust::SecretFile;
pub use self::trust::read_trusted;
use crate::directory::{self, UserDirectory};
use crate::environment::Environment;
use crate::exit::Failure;

/// Which file holds settings. A program that reads one flattens this into its arguments.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// Read settings from FILE instead of .env
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Read settings from ~/.config/hpc-queue/NAME.env instead of .env
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
}

impl FileArgs {
    /// The arguments that name the same file from any directory.
    pub fn to_arguments(&self) -> anyhow::Result<Vec<String>> {
        let Some(path) = &self.env_file else {
            let profile = self.profile.iter().flat_map(|name| ["--profile".to_owned(), name.clone()]);
            return Ok(profile.collect());
        };
        let path = std::path::absolute(path).with_context(|| format!("where {} is cannot be told", path.display()))?;
        let text = path.into_os_string().into_string();
        let text = text.map_err(|path| Failure::usage(format!("{} is no text in UTF-8", path.display())))?;
        Ok(vec!["--env-file".to_owned(), text])
    }
}

/// Does a program read settings files?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// No: it has settings from flags and the environment only.
    None,
    /// The one that [`FileArgs`] name, else `.env` in the current directory.
    Dotenv,
}

/// Where a program has its settings from.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// Which files it reads.
    pub files: Files,
    /// Which of its settings have names that others use as well.
    pub shared: &'static [Shared],
}

/// What a program was told.
#[derive(Debug)]
pub struct Given<C> {
    /// The arguments, with the settings in their places.
    pub cli: C,
    /// Where each setting comes from.
    pub origins: Origins,
    /// What a person should know of them; to be logged once logging has begun.
    pub warnings: Vec<String>,
}

/// Why there is nothing to go on with.
#[derive(Debug)]
enum Stop {
    /// The arguments are wrong, or ask for help.
    Arguments(clap::Error),
    /// A setting is.
    Setting(anyhow::Error),
}

/// Reads what this process was told. Wrong arguments, and a wish for help, end it in here.
///
/// To be called before any thread starts: variables of other programs in a settings file go into the environment.
pub fn read<C: Parser>(sources: &Sources) -> anyhow::Result<Given<C>> {
    let environment = Environment::of_this_process();
    parse(std::env::args_os().collect(), sources, environment).map_err(|stop| match stop {
        Stop::Arguments(error) => error.exit(),
        Stop::Setting(error) => error,
    })
}

fn parse<C: Parser>(arguments: Vec<OsString>, sources: &Sources, environment: Environment) -> Result<Given<C>, Stop> {
    let matches = without_variables(C::command(), &|_| None)
        .try_get_matches_from(&arguments)
        .map_err(|error| Stop::Arguments(with_variables_in_help::<C>(error, &arguments)))?;
    let file = match sources.files {
        Files::None => SettingsFile::default(),
        Files::Dotenv => settings_file(&matches, &environment).map_err(usage)?,
    };
    file.pass_on().map_err(usage)?;
    let mut warnings = file.warnings.clone();
    warnings.extend(environment.names(names::OWN).filter_map(names::advice_on_variable));
    let layers = Layers { environment, file, shared: sources.shared };

    // Not earlier: a wish for help and wrong arguments have ended above, and this builds all commands there are.
    let mut described = C::command();
    described.build();
    let asked = settings_of(&described, &matches);
    let by_flag = |name: &str| asked.iter().any(|setting| setting.name == name && setting.by_flag);
    let (mut values, mut origins) = (BTreeMap::new(), BTreeMap::new());
    let mut unclear = Vec::new();
    for setting in &asked {
        let name = setting.name.clone();
        if setting.by_flag {
            origins.insert(name, Origin::Flag(flag(setting.arg)));
            continue;
        }
        let found = layers.find(&name, &by_flag);
        warnings.extend(warning(setting, &found));
        match found.value {
            Some(Ok((value, origin))) => {
                values.insert(name.clone(), value);
                origins.insert(name, origin);
            }
            Some(Err(why)) => unclear.push(why),
            None => {}
        }
    }
    for setting in &asked {
        if unclear.is_empty()
            && let Some(file) = secret_file(setting, &asked, &values, &origins).map_err(usage)?
        {
            warnings.extend(file.warning);
            let by = Box::new(origins[&setting.name].clone());
            let name = names::secret_in_file(&setting.name).unwrap_or_default().to_owned();
            values.insert(name.clone(), file.secret);
            origins.insert(name, Origin::SecretFile { path: file.path, by });
        }
    }
    if !unclear.is_empty() {
        return Err(Stop::Setting(Failure::usage(unclear.join("; "))));
    }
    let origins = Origins(origins);
    let told = without_variables(C::command(), &|name| values.get(name).cloned()).try_get_matches_from(&arguments);
    let told = told.map_err(|error| in_words(error, &asked, &origins))?;
    let cli = C::from_arg_matches(&told).map_err(|error| in_words(error, &asked, &origins))?;
    Ok(Given { cli, origins, warnings })
}

fn usage(error: anyhow::Error) -> Stop {
    Stop::Setting(Failure::usage(error))
}

/// The secret in the file that this setting names, if it is one that does, and unless the secret itself is set by what
/// goes before it.
fn secret_file(
    setting: &Setting<'_>,
    asked: &[Setting<'_>],
    values: &BTreeMap<String, OsString>,
    origins: &BTreeMap<String, Origin>,
) -> anyhow::Result<Option<SecretFile>> {
    let Some(name) = names::secret_in_file(&setting.name).filter(|name| asked.iter().any(|other| other.name == *name))
    else {
        return Ok(None);
    };
    let (Some(path), Some(origin)) =
        (setting.flag_value.as_ref().or_else(|| values.get(&setting.name)), origins.get(&setting.name))
    else {
        return Ok(None);
    };
    match origins.get(name).map(Origin::rank) {
        Some(rank) if rank > origin.rank() => return Ok(None),
        Some(rank) if rank == origin.rank() => {
            anyhow::bail!("{} and {origin} both set {name}; take one of them out", origins[name])
        }
        _ => {}
    }
    SecretFile::read(&origin.to_string(), Path::new(path)).map(Some)
}

/// The file that the arguments name, or that is found.
fn settings_file(matches: &ArgMatches, environment: &Environment) -> anyhow::Result<SettingsFile> {
    let named = matches.get_one::<PathBuf>("env_file");
    match (named, matches.get_one::<String>("profile")) {
        (Some(_), Some(_)) => anyhow::bail!("--env-file and --profile both name a settings file; give one of them"),
        (Some(path), None) => SettingsFile::named(path),
        (None, Some(name)) => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(is_name) {
                anyhow::bail!("--profile is a name of letters, digits, - and _; to name a file, use --env-file");
            }
            let Some(folder) = directory::within(UserDirectory::Config, environment) else {
                anyhow::bail!("--profile names a file in ~/.config/hpc-queue, and HOME is not set; use --env-file");
            };
            SettingsFile::named(&folder.join(format!("{name}.env")))
        }
        (None, None) => Ok(SettingsFile::found(Path::new(".env"))?.unwrap_or_default()),
    }
}

/// The same command without variables behind its arguments, and with the given values as their defaults.
fn without_variables(command: Command, value: &dyn Fn(&str) -> Option<OsString>) -> Command {
    let given = |arg: Arg| match arg.get_env().map(|name| name.to_string_lossy().into_owned()) {
        None => arg,
        Some(name) => {
            let arg = arg.env(None::<&'static str>);
            if let Some(value) = value(&name) { arg.default_value(value) } else { arg }
        }
    };
    command.mut_args(given).mut_subcommands(|command| without_variables(command, value))
}

/// Help names the variable of each setting. Its value is not shown: it may come from elsewhere.
fn with_variables_in_help<C: Parser>(error: clap::Error, arguments: &[OsString]) -> clap::Error {
    fn hidden(command: Command) -> Command {
        command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(hidden)
    }
    let asks_for_help = [ErrorKind::DisplayHelp, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
    if !asks_for_help.contains(&error.kind()) {
        return error;
    }
    match hidden(C::command()).try_get_matches_from(arguments) {
        Err(help) if help.kind() == error.kind() => help,
        _ => error,
    }
}

/// A setting of the command that was asked for.
struct Setting<'a> {
    arg: &'a Arg,
    name: String,
    by_flag: bool,
    /// What the flag says, where it has a value.
    flag_value: Option<OsString>,
}

/// The settings of the command that was asked for, and of the commands around it.
fn settings_of<'a>(described: &'a Command, matches: &ArgMatches) -> Vec<Setting<'a>> {
    let (mut command, mut matches) = (described, matches);
    let mut settings: Vec<Setting<'a>> = Vec::new();
    loop {
        for arg in command.get_arguments() {
            let Some(name) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else { continue };
            let by_flag = matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
            let value = || matches.get_raw(arg.get_id().as_str())?.next().map(OsString::from);
            let flag_value = by_flag.then(value).flatten();
            match settings.iter_mut().find(|setting| setting.name == name) {
                Some(known) => {
                    known.by_flag |= by_flag;
                    known.flag_value = known.flag_value.take().or(flag_value);
                }
                None => settings.push(Setting { arg, name, by_flag, flag_value }),
            }
        }
        let Some((name, of_subcommand)) = matches.subcommand() else { return settings };
        let Some(subcommand) = command.find_subcommand(name) else { return settings };
        (command, matches) = (subcommand, of_subcommand);
    }
}

fn flag(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.to_string(), |long| format!("--{long}"))
}

/// What to say about the variable of a shared name.
fn warning(setting: &Setting<'_>, found: &layers::Found) -> Option<String> {
    let (name, own) = (&setting.name, names::own(&setting.name));
    let is_secret = setting.arg.is_hide_env_values_set();
    if found.taken_bare && is_secret {
        return Some(format!("{name} is taken from the environment; {own} is the name that no other program uses"));
    }
    let passed_over = found.passed_over.as_ref()?;
    match &found.value {
        None => Some(format!(
            "{name} in the environment is not used, because it may be meant for another program; if it is meant for \
             this one, name it {own}"
        )),
        // Whose key it is that lies about in the environment is no concern of ours.
        Some(_) if is_secret => None,
        Some(Ok((value, origin))) => Some(format!(
            "{origin} is used, which is {}, and not the variable in the environment, which is {}; {own} goes before both",
            value.display(),
            passed_over.display()
        )),
        Some(Err(_)) => None,
    }
}

/// A value that cannot be used, told by the setting and not by the flag that nobody wrote. All arguments that were
/// written have been parsed before.
fn in_words(error: clap::Error, asked: &[Setting<'_>], origins: &Origins) -> Stop {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let setting = context(ContextKind::InvalidArg)
        .and_then(|shown| asked.iter().find(|setting| !setting.by_flag && setting.arg.to_string() == shown));
    let Some(setting) = setting else { return Stop::Arguments(error) };
    let why = match (error.get(ContextKind::ValidValue), std::error::Error::source(&error)) {
        (Some(ContextValue::Strings(values)), _) if !values.is_empty() => format!("it is one of {}", values.join(", ")),
        (_, Some(source)) => source.to_string(),
        _ => "it is not valid".to_owned(),
    };
    let value = match context(ContextKind::InvalidValue) {
        Some(value) if !setting.arg.is_hide_env_values_set() => format!(" is {value:?}, which"),
        _ => String::new(),
    };
    Stop::Setting(Failure::usage(format!("{}{value} cannot be used: {why}", origins.named(&setting.name))))
}

#[cfg(test)]
mod tests;
