//! The commands that look at what this node can do.

use std::path::PathBuf;

use clap::Args;
use program::{FileArgs, Origins, OutputFormat, TrustArgs};

use crate::config::{RunSettings, RuntimeSettings, StateSettings};
use crate::run::{Own, Runtime};
use crate::{doctor, service, store};

/// The settings of `hpc-consumer command`.
#[derive(Debug, Args)]
pub(crate) struct ShowCommand {
    /// The directory that the command sees as its job directory
    #[arg(long, value_name = "DIR")]
    job_dir: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    state: StateSettings,
    #[command(flatten)]
    runtime: RuntimeSettings,
}

impl ShowCommand {
    /// The command line, quoted for a shell.
    pub(crate) fn render(self, origins: &Origins) -> anyhow::Result<String> {
        let job_dir = std::path::absolute(&self.job_dir)?;
        if !job_dir.is_dir() {
            tracing::warn!(
                "the directory {} is not there; make it, with the job in its input.json, before you run the command",
                job_dir.display()
            );
        }
        let job_id = protocol::JobId::from_random([0; 16]);
        let Self { trust, state, runtime, .. } = self;
        let state_dir = || state.resolve(origins);
        let runtime = runtime.resolve(&job_dir, state_dir, origins)?;
        if let Runtime::Apptainer(apptainer) = &runtime {
            // The line names files that the daemon makes when it starts.
            store::make_private(apptainer.containment.state_dir(), &trust.resolve()?)?;
            apptainer.containment.prepare().map_err(anyhow::Error::msg)?;
        }
        let (command, _) = runtime.command(&job_id, &job_dir, &Own::default());
        Ok(command.to_shell_line())
    }
}

/// The settings of `hpc-consumer doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Make at Cloudflare what is missing, once it was shown and agreed to
    #[arg(long)]
    pub(crate) fix: bool,
    /// With --fix, do not ask
    #[arg(long, requires = "fix")]
    pub(crate) yes: bool,
    /// How to print it
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) settings: RunSettings,
}

impl Doctor {
    /// What is asked, with what is known of the settings.
    pub(crate) fn resolve(
        self,
        files: &FileArgs,
        origins: &Origins,
        mut warnings: Vec<String>,
    ) -> anyhow::Result<doctor::Asked> {
        let Self { fix, yes, output: format, settings } = self;
        warnings.extend(settings.notices(origins));
        let (queues, site) = (settings.queues(origins), settings.site_of(origins));
        let settings = settings.refuse_root().and_then(|()| settings.resolve(origins));
        let file = files.to_arguments()?;
        let words = ["hpc-consumer", "doctor"].into_iter().chain(file.iter().map(String::as_str)).chain(["--fix"]);
        Ok(doctor::Asked {
            settings_words: shell_words::join(&file),
            fix_command: shell_words::join(words),
            fix,
            yes,
            format,
            warnings,
            settings: settings.map(Box::new).map_err(|error| format!("{error:#}")),
            queues,
            site,
            service: service::place().map_err(|error| format!("{error:#}")),
        })
    }
}
