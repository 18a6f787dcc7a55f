//! What is to be said of what was seen of this node. Nothing in here looks at anything.

use std::path::Path;

use doctor::Line;
use protocol::PoolName;
use upkeep::Found;

use crate::job::Tried;
use crate::run::told;
use crate::store::Held;

/// Fewer processes are not enough for a daemon, its keeper and some jobs.
const PROCESSES_FEW: u64 = 256;

/// A program says its version, or why it does not.
pub(super) fn apptainer(program: &Path, answer: Result<String, String>) -> Line {
    let check = "Apptainer";
    if !program.is_absolute() {
        let text = format!("there is no {} on the PATH, so no container can be started", program.display());
        return Line::failure(check, text, "module load apptainer   (or set APPTAINER_BIN to where it is)");
    }
    match answer {
        Ok(said) => Line::ok(check, format!("{}: {}", program.display(), said.trim())),
        Err(why) => {
            let next = format!("{} --version", program.display());
            Line::failure(check, format!("{} cannot be used: {why}", program.display()), next)
        }
    }
}

/// The quantum machines that running jobs may ask.
pub(super) fn lease(offer: Result<Vec<String>, String>) -> Line {
    match offer {
        Ok(machines) => Line::ok("lease", format!("running jobs may ask {}", machines.join(", "))),
        Err(why) => Line::failure("lease", why, "hpc-consumer site check"),
    }
}

/// The settings of the kernel that decide about user namespaces, where it has them.
#[derive(Debug, Clone, Default)]
pub(super) struct UserNamespaces {
    /// `user.max_user_namespaces`
    pub(super) max: Option<String>,
    /// `kernel.unprivileged_userns_clone`, of Debian.
    pub(super) clone: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu.
    pub(super) apparmor: Option<String>,
}

pub(super) fn user_namespaces(seen: &UserNamespaces) -> Line {
    let is = |value: &Option<String>, text: &str| value.as_deref().map(str::trim) == Some(text);
    let check = "user namespaces";
    let ask = |setting: &str| format!("sysctl {setting}   (and ask who runs this machine to allow them)");
    let without = "Apptainer starts containers only where it was installed with setuid";
    if is(&seen.max, "0") {
        Line::warning(check, format!("there are none here: {without}"), ask("user.max_user_namespaces"))
    } else if is(&seen.clone, "0") {
        let text = format!("ordinary users may make none: {without}");
        Line::warning(check, text, ask("kernel.unprivileged_userns_clone"))
    } else if is(&seen.apparmor, "1") {
        let text =
            "AppArmor gives them only to programs that it knows, as an Apptainer that was installed as a package";
        Line::ok(check, text)
    } else {
        Line::ok(check, "may be made by ordinary users")
    }
}

/// Can `/dev/fuse` be opened? Where images are unpacked it is needed by nobody.
pub(super) fn fuse(answer: Result<(), String>, is_unpacked: bool) -> Line {
    match answer {
        Ok(()) => Line::ok("/dev/fuse", "can be used"),
        Err(why) if is_unpacked => Line::ok("/dev/fuse", format!("{why}; images are unpacked (APPTAINER_UNPACK_DIR)")),
        Err(why) => Line::warning(
            "/dev/fuse",
            format!("{why}: an Apptainer without setuid unpacks the image for every job, which takes its time"),
            "set APPTAINER_UNPACK_DIR to a directory on this node's own disk: the image is unpacked there once",
        ),
    }
}

/// What limits the memory and the processes of all that runs here, in the numbers of the system.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// Of one process, by `ulimit -v`.
    pub(super) address_space: Option<u64>,
    /// Of all of them, by `ulimit -u`.
    pub(super) processes: Option<u64>,
    /// Of all that is in the control group of this process.
    pub(super) memory: Option<u64>,
}

pub(super) fn limits(seen: Limits) -> Line {
    let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    if let Some(bytes) = seen.address_space {
        let text =
            format!("a process may have {} of address space here, for which programs that map files fail", gb(bytes));
        return Line::warning("limits", text, "ulimit -v unlimited");
    }
    if let Some(count) = seen.processes.filter(|count| *count < PROCESSES_FEW) {
        let text = format!("this user may have {count} processes and threads, which is not enough for jobs");
        return Line::warning("limits", text, "ulimit -u unlimited");
    }
    Line::ok(
        "limits",
        match seen.memory {
            Some(bytes) => format!("all that runs here has {} of memory together", gb(bytes)),
            None => "nothing limits memory here".to_owned(),
        },
    )
}

/// Who holds `STATE_DIR`, and whether its file system has locks.
pub(super) fn held(state_dir: &Path, seen: Result<Held, String>) -> Line {
    let (check, shown) = ("STATE_DIR", state_dir.display());
    match seen {
        Ok(Held::No) => Line::ok(check, format!("{shown} is there for a daemon, and no daemon runs with it")),
        Ok(Held::Yes(Some(holder))) => Line::ok(
            check,
            format!("{shown} is in use by the daemon with process id {} on {}", holder.pid, holder.host),
        ),
        Ok(Held::Yes(None)) => Line::ok(check, format!("{shown} is in use by a daemon")),
        Ok(Held::Elsewhere(holder)) => Line::failure(
            check,
            format!("{shown} belongs to the daemon that was started on {} and has not released it", holder.host),
            format!(
                "ssh {} hpc-consumer status   (if that machine is down: hpc-consumer run --take-over)",
                holder.host
            ),
        ),
        Err(why) => {
            Line::failure(check, why, format!("df -T {shown}   (a local disk, NFS, GPFS or Lustre with flock will do)"))
        }
    }
}

/// What was tried of a pool. Without a site's file there is one, which nobody has named.
pub(super) fn pool(name: Option<&PoolName>, tried: &Tried) -> Line {
    let check = name.map_or_else(|| "a job".to_owned(), |name| format!("pool {name}"));
    match tried {
        Tried::Ready(facts) => Line::ok(&check, format!("can be run here; isolation of jobs: {}", told(facts))),
        Tried::ToBePulled(image) => {
            let text = format!("not tried: the image {} is to be pulled first", image.display());
            Line::warning(&check, text, "hpc-consumer run   (the daemon pulls it before the first job)")
        }
        Tried::Not(problem) => Line::failure(
            &check,
            format!("cannot be run here: {problem}"),
            "hpc-consumer command --job-dir DIR   (it prints the command of a job, to be tried by hand)",
        ),
    }
}

/// `runs` says whether a daemon holds `STATE_DIR`, whoever started it.
pub(super) fn service(seen: Result<Option<Found>, String>, runs: bool) -> Vec<Line> {
    let check = "service";
    let seen = match seen {
        Err(why) => return vec![Line::warning(check, why, "hpc-consumer service status")],
        Ok(None) if runs => {
            let text = "none is installed; a daemon runs, for as long as it is let";
            return vec![Line::ok(check, text)];
        }
        Ok(None) => {
            let text = "none is installed, and no daemon runs: no job is taken here";
            return vec![Line::warning(check, text, "hpc-consumer service install   (or hpc-consumer run)")];
        }
        Ok(Some(seen)) => seen,
    };
    let Found { way, version, ours, running, said, advice } = seen;
    let mut lines = vec![match way {
        _ if running => Line::ok(check, format!("by {way}, {said}")),
        service::Way::Scrontab => Line::ok(check, format!("by {way}; {said}")),
        _ => Line::failure(check, format!("by {way}, {said}"), "hpc-consumer service start"),
    }];
    if version != ours {
        let text = format!("it was installed by hpc-consumer {version}, and this is hpc-consumer {ours}");
        lines.push(Line::warning(check, text, "hpc-consumer service install   (with the arguments of the first time)"));
    }
    let next = if way == service::Way::Systemd { "loginctl enable-linger" } else { "hpc-consumer service status" };
    lines.extend(advice.into_iter().map(|advice| Line::warning(check, advice, next)));
    lines
}

/// Whether Slurm would take what a pool asks for.
pub(super) fn slurm(pool: &PoolName, answer: Result<String, String>) -> Line {
    let check = format!("Slurm, {pool}");
    match answer {
        Ok(words) => Line::ok(&check, format!("it would take an allocation: {words}")),
        Err(why) => {
            Line::failure(&check, why, "hpc-consumer site check   (it says where that stands in the site's file)")
        }
    }
}

/// How the hub was reached; nothing: it is not to be.
pub(super) fn hub(seen: Option<(String, Result<(), String>)>) -> Line {
    match seen {
        None => Line::ok("hub", "none, because SITE_KEY is not set: jobs are found by polling"),
        Some((hub, Ok(()))) => Line::ok("hub", format!("{hub} takes the key of this site")),
        Some((hub, Err(why))) => Line::failure("hub", why, format!("curl -sS {hub}/health")),
    }
}

#[cfg(test)]
mod tests {
    use doctor::Verdict;
    use protocol::Isolation;
    use service::Way;

    use super::*;

    fn told_of(line: &Line) -> (Verdict, &str, &str) {
        (line.verdict, line.text.as_str(), line.next.as_deref().unwrap_or_default())
    }

    #[test]
    fn apptainer_is_there_or_told() {
        let of = |program: &str, answer: Result<&str, &str>| {
            apptainer(Path::new(program), answer.map(str::to_owned).map_err(str::to_owned))
        };
        let line = of("/usr/bin/apptainer", Ok("apptainer version 1.4.1\n"));
        assert_eq!(told_of(&line), (Verdict::Ok, "/usr/bin/apptainer: apptainer version 1.4.1", ""));
        assert!(of("apptainer", Err("")).next.is_some_and(|next| next.starts_with("module load apptainer")));
        let line = of("/a/apptainer", Err("there is no such file"));
        assert_eq!(
            told_of(&line),
            (Verdict::Failure, "/a/apptainer cannot be used: there is no such file", "/a/apptainer --version")
        );
    }

    #[test]
    fn user_namespaces_are_told_by_the_setting_that_keeps_them() {
        let some = |text: &str| Some(text.to_owned());
        let default = UserNamespaces { max: some("62000\n"), ..UserNamespaces::default() };
        assert_eq!(user_namespaces(&default).verdict, Verdict::Ok);
        for (seen, setting) in [
            (UserNamespaces { max: some("0\n"), ..default.clone() }, "user.max_user_namespaces"),
            (UserNamespaces { clone: some("0\n"), ..default.clone() }, "kernel.unprivileged_userns_clone"),
        ] {
            let line = user_namespaces(&seen);
            assert_eq!(line.verdict, Verdict::Warning);
            assert!(line.next.is_some_and(|next| next.starts_with(&format!("sysctl {setting} "))), "{setting}");
        }
        let line = user_namespaces(&UserNamespaces { apparmor: some("1\n"), ..default });
        assert!(line.verdict == Verdict::Ok && line.text.contains("AppArmor"));
        assert_eq!(fuse(Ok(()), false).verdict, Verdict::Ok);
        let closed = |is_unpacked| fuse(Err("it is not there".into()), is_unpacked);
        assert!(closed(false).verdict == Verdict::Warning && closed(false).text.starts_with("it is not there: "));
        assert_eq!(closed(true).verdict, Verdict::Ok, "{}", closed(true).text);
    }

    #[test]
    fn limits_that_end_jobs_are_told() {
        assert_eq!(limits(Limits::default()).text, "nothing limits memory here");
        let of_all = limits(Limits { memory: Some(16_000_000_000), ..Limits::default() });
        assert_eq!(told_of(&of_all), (Verdict::Ok, "all that runs here has 16.0 GB of memory together", ""));
        let line = limits(Limits { address_space: Some(4_000_000_000), ..Limits::default() });
        assert_eq!((line.verdict, line.next.as_deref()), (Verdict::Warning, Some("ulimit -v unlimited")));
        let line = limits(Limits { processes: Some(100), ..Limits::default() });
        assert_eq!((line.verdict, line.next.as_deref()), (Verdict::Warning, Some("ulimit -u unlimited")));
        assert_eq!(limits(Limits { processes: Some(4_096), ..Limits::default() }).verdict, Verdict::Ok);
    }

    #[test]
    fn a_state_is_free_or_somebodys_or_cannot_be_locked() {
        let of = |seen| held(Path::new("/s"), seen);
        assert!(of(Ok(Held::No)).text.ends_with("no daemon runs with it"));
        assert!(of(Ok(Held::Yes(None))).text.ends_with("in use by a daemon"));
        let line = of(Err("cannot lock /s/lock; …".into()));
        assert!(line.verdict == Verdict::Failure && line.next.is_some_and(|next| next.starts_with("df -T /s")));
    }

    #[test]
    fn a_pool_is_ready_or_told() {
        let name: PoolName = "gpu".parse().unwrap();
        let line = pool(Some(&name), &Tried::Ready(Isolation::default()));
        assert_eq!((line.check.as_str(), line.verdict), ("pool gpu", Verdict::Ok));
        let line = pool(None, &Tried::ToBePulled("/i.sif".into()));
        assert!(line.verdict == Verdict::Warning && line.text.contains("/i.sif"));
        let line = pool(None, &Tried::Not("the image /i.sif is not there".to_owned().into()));
        assert_eq!((line.check.as_str(), line.verdict), ("a job", Verdict::Failure));
        assert!(line.text.ends_with("the image /i.sif is not there"), "{line:?}");
    }

    #[test]
    fn a_service_is_told_with_what_starts_it() {
        let seen = |way, running, version: &str, advice: &[&str]| {
            let (advice, said) = (advice.iter().map(|&text| text.to_owned()).collect(), "said".to_owned());
            service(Ok(Some(Found { way, version: version.into(), ours: "2", running, said, advice })), false)
        };
        let well = seen(Way::Systemd, true, "2", &[]);
        assert_eq!(well.iter().map(told_of).collect::<Vec<_>>(), [(Verdict::Ok, "by systemd, said", "")]);
        let stopped = seen(Way::Cron, false, "2", &[]);
        assert_eq!(told_of(&stopped[0]), (Verdict::Failure, "by cron, said", "hpc-consumer service start"));
        let older = seen(Way::Systemd, true, "1", &["lingering is off"]);
        assert!(older[1].text.contains("installed by hpc-consumer 1, and this is hpc-consumer 2"), "{older:?}");
        assert_eq!(told_of(&older[2]), (Verdict::Warning, "lingering is off", "loginctl enable-linger"));
        let slurms = seen(Way::Scrontab, false, "2", &[]);
        assert_eq!(slurms[0].verdict, Verdict::Ok);
        assert_eq!(service(Ok(None), true)[0].verdict, Verdict::Ok);
        assert!(
            service(Ok(None), false)[0]
                .next
                .as_deref()
                .is_some_and(|next| next.starts_with("hpc-consumer service install"))
        );
        assert_eq!(service(Err("why".into()), true)[0].verdict, Verdict::Warning);
    }

    #[test]
    fn slurm_and_the_hub_say_why_not() {
        let name: PoolName = "big".parse().unwrap();
        assert_eq!(slurm(&name, Ok("soon".into())).verdict, Verdict::Ok);
        assert_eq!(slurm(&name, Err("no such partition".into())).verdict, Verdict::Failure);
        assert_eq!(hub(None).verdict, Verdict::Ok);
        assert_eq!(hub(Some(("https://e".into(), Ok(())))).verdict, Verdict::Ok);
        let line = hub(Some(("https://e".into(), Err("refused".into()))));
        assert_eq!(told_of(&line), (Verdict::Failure, "refused", "curl -sS https://e/health"));
    }
}
