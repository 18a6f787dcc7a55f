//! `chaos JOBS SEED RUNTIME MINUTES FILES`: a long chaos (see `testkit::chaos`), for `cargo xtask chaos`, which builds
//! the programs and says where they are. Exits with 1 when a job was lost, ran too often, or has two results.

use std::process::ExitCode;
use std::time::Duration;

use testkit::chaos::{self, Plan, Runtime};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = plan(&arguments) else {
        eprintln!(
            "usage: chaos JOBS SEED bare|apptainer|slurm MINUTES PERCENT; `cargo xtask chaos --help` tells what they are"
        );
        return ExitCode::from(2);
    };
    let report = chaos::run(&plan);
    println!("{report}");
    if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let [jobs, seed, runtime, minutes, files] = arguments else { return None };
    let runtime = match runtime.as_str() {
        "bare" => Runtime::Bare,
        "apptainer" => Runtime::Apptainer,
        "slurm" => Runtime::Slurm,
        _ => return None,
    };
    let bound = Duration::from_secs(minutes.parse::<u64>().ok()?.checked_mul(60)?);
    let jobs = jobs.parse::<usize>().ok().filter(|jobs| *jobs > 0)?;
    let files_percent = files.parse::<usize>().ok().filter(|percent| *percent <= 100)?;
    Some(Plan { files_percent, ..Plan::new(jobs, seed.parse::<u64>().ok()?, runtime, bound) })
}
