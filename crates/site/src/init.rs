//! The text of a first `site.toml`, made from the settings of a daemon: it says the same, and shows what else there is.

use protocol::duration;

use crate::{Image, Runtime, Settings};

const HEAD: &str = "\
# What this site runs, and where. docs/site.md explains every key; `hpc-consumer site check` says what is wrong here,
# and `hpc-consumer site explain JOB.json` what would become of a job. Lines with # are examples.
";

const REST: &str = r##"
# How much of it a job gets that does not ask for something else. Without memory here, none is counted.
# slot = { cpus = 1, memory = "2GiB" }
# How many accepted jobs may wait here; more stay in the queue.
# hold = 2000

# A second pool: make one for another shape of machine, another image or another secret, not for another program.
# [pool.gpu]
# image = "/images/cuda.sif"
# slot = { cpus = 4, memory = "16GiB", gpus = 1 }
# capacity = { cpus = 8, memory = "64GiB", gpus = 2 }
# secrets = { vendor = "secrets/vendor.token" }

# What may run. Without any such section every task may; with one, only those that have a section.
# [task.simulate]
# pool = "default"
# command = ["task-runner"]
# time_limit = "1h"
# network = false

# The most specific name counts: a name before a glob, a longer glob before a shorter one.
# [task."train-*"]
# pool = "gpu"

# All pools together take no more than this.
# [quota]
# cpus = 16
"##;

impl Settings {
    /// The text of a file that says the same.
    pub fn to_file(&self) -> String {
        self.to_file_with(&format!(
            "# How much of this node its jobs have together.\ncapacity = {{ cpus = {} }}",
            self.slots
        ))
    }

    /// The same, but for where jobs run: in allocations of this partition of Slurm.
    pub fn to_file_in_slurm(&self, partition: &str) -> String {
        self.to_file_with(&format!(
            "# Jobs run in allocations of Slurm, which come and go with the work; none runs longer than one of them.\n\
             where = \"slurm\"\nslurm = {{ partition = {}, time = \"4h\" }}\nworkers = {{ max = 4 }}",
            quoted(partition)
        ))
    }

    /// With these lines that say where jobs run.
    fn to_file_with(&self, place: &str) -> String {
        let mut lines = vec![HEAD.to_owned(), "[pool.default]".to_owned()];
        lines.push("# It takes what no section below sends elsewhere.\ndefault = true".to_owned());
        match self.runtime {
            Runtime::Apptainer => {
                if let Some(image) = &self.image {
                    lines.push(format!("image = {}", image_in_words(image)));
                }
            }
            Runtime::Bare => {
                lines.push("# This isolates nothing: a job can do all that you can do.\nruntime = \"bare\"".to_owned());
            }
        }
        lines.push(format!("command = {}", list(&self.command)));
        if self.runtime == Runtime::Apptainer {
            let lists = [("binds", &self.binds), ("arguments", &self.arguments)];
            let given = lists.into_iter().filter(|(_, items)| !items.is_empty());
            lines.extend(given.map(|(key, items)| format!("{key} = {}", list(items))));
        }
        lines.push(place.to_owned());
        let longest = duration::shown(self.defaults.time_limit);
        lines.push(format!(
            "# Jobs may run for {longest}, as JOB_TIME_LIMIT_SECONDS says, unless their task says something else."
        ));
        lines.join("\n") + REST
    }
}

fn image_in_words(image: &Image) -> String {
    match image {
        Image::File { path, pull: None } => quoted(&path.to_string_lossy()),
        Image::File { path, pull: Some(from) } => {
            format!("{{ file = {}, pull = {} }}", quoted(&path.to_string_lossy()), quoted(from))
        }
        Image::Reference { .. } => quoted(&image.to_string()),
    }
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
}

/// A text as TOML has it, between quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
