//! What takes another machine: the kernel of a cluster that is not new, control groups of version 2 that a systemd has
//! delegated to an ordinary user, and a file system that keeps no modes.

use std::collections::HashMap;

use serde_json::Value;
use testkit::parts;
use testkit::vm::{VirtualMachine, user};

/// An edge, and how it is asked; `$programs` is set. What the settings of a site have besides is in `site.env`.
const EDGE: &str = r#"
inbox=inbox
"$programs/local-edge" serve --listen 127.0.0.1:0 --data-dir edge --env-file edge.env 2>edge.log &
until grep -q "listens on" edge.log; do sleep 0.1; done
ask() { "$programs/laptop-consumer" --env-file edge.env --data-dir $inbox "$@"; }
submitted() { ask submit --task t --input "\"$1\"" --id; }
ended() { echo "$1 $(ask --output json wait "$2" --timeout 100s)"; }
settings() { (cat edge.env; printf '%s\n' RUNTIME=bare STATE_DIR=${state:-$HOME/state} "$@") > site.env; chmod 600 site.env; }
"#;

/// What the word in the input of a job asks for.
const TASK: &str = r#"
case "$(sed -n 's/.*"input": *"\([a-z]*\)".*/\1/p' input.json)" in
  hog) head -c 300m /dev/zero | tail | wc -c; echo survived ;;
  family) setsid sleep 4242 & head -c 300m /dev/zero | tail | wc -c ;;
  fits) head -c 20m /dev/zero | tail | wc -c ;;
  waits) touch /tmp/waits; until test -e /tmp/go; do sleep 0.1; done; echo done ;;
esac
sed -n 's/^0::.*\//in /p' /proc/self/cgroup
"#;

/// Runs both scripts there, with the programs of this project; what they have said, by the first word of each line.
fn said(as_root: &str, as_user: &str) -> HashMap<String, String> {
    let directory = parts::program("hpc-consumer").parent().expect("it is in a directory").to_owned();
    let as_user = format!("programs={}\n{EDGE}\n{as_user}", directory.display());
    let output = VirtualMachine { as_root, as_user: &as_user, directories: &[directory] }.run();
    let lines = output.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn result(said: &HashMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&said[name]).unwrap_or_else(|error| panic!("{name}: {error}: {}", said[name]))
}

#[test]
fn under_a_systemd_of_a_user_the_kernel_holds_each_job_to_its_memory() {
    let said = said(
        "",
        &format!(
            r#"
cat > task.sh <<'END'{TASK}END
settings RESULTS_DIR=$HOME/results JOB_MEMORY_LIMIT=100MB "CONTAINER_CMD='sh $HOME/task.sh'"
"$programs/hpc-consumer" service install --env-file $HOME/site.env
group=/sys/fs/cgroup$(systemctl --user show --property ControlGroup --value hpc-consumer.service)
for word in hog family fits; do ended $word $(submitted $word); done
until ! pgrep -f 'sleep 4242' >/dev/null; do sleep 0.1; done
job=$(submitted waits)
until test -e /tmp/waits; do sleep 0.1; done
"$programs/hpc-consumer" service restart
touch /tmp/go
ended waits $job
until ! ls -d $group/run-* 2>/dev/null; do sleep 0.1; done
echo "kernel $(uname -r)"
echo "own $(ls -d $group/daemon)"
echo "restarts $(systemctl --user show --property NRestarts --value hpc-consumer.service)"
"#
        ),
    );
    assert!(said["kernel"].starts_with("6.1."), "{said:?}");
    for word in ["hog", "family"] {
        let result = result(&said, word);
        assert_eq!(result["reason"], "memory_limit", "{result}");
        assert_eq!(result["isolation"]["memory"], "cgroup", "{result}");
        assert!(!result["stdout_tail"].as_str().unwrap_or_default().contains("survived"), "{result}");
        assert!(result["message"].as_str().unwrap_or_default().contains("the kernel ended them"), "{result}");
    }
    for word in ["fits", "waits"] {
        let result = result(&said, word);
        assert_eq!(result["status"], "completed", "{result}");
        assert!(result["stdout_tail"].as_str().unwrap_or_default().contains("in run-"), "{result}");
    }
    assert_eq!(result(&said, "waits")["attempt"], 1);
    assert_eq!(said["restarts"], "0", "the daemon was killed for what a job did: {said:?}");
}

#[test]
fn a_file_system_without_modes_is_used_below_a_closed_directory_alone() {
    let user = user();
    let said = said(
        &format!(
            "for place in /open /closed; do
  install -d -o {user} -g {user} $place
  truncate -s 64M $place.disk
  mkfs.vfat $place.disk >&2
done
chmod 700 /closed; mkdir /closed/disk
mount -o loop,uid={user},gid={user},umask=000 /open.disk /open
mount -o loop,uid={user},gid={user},umask=000 /closed.disk /closed/disk"
        ),
        r#"
cat > task.sh <<'END'
cp input.json output.json; tr a-z A-Z < data/in.txt > out.txt
END
settings RESULTS_DIR=/open/results "CONTAINER_CMD='sh $HOME/task.sh'"
code=0; "$programs/hpc-consumer" run --env-file site.env 2>refused.log || code=$?
echo "refused $code $(grep error: refused.log)"
state=/closed/disk/state
settings RESULTS_DIR=/closed/disk/results "CONTAINER_CMD='sh $HOME/task.sh'"
"$programs/hpc-consumer" run --env-file site.env 2>daemon.log &
echo data > in.txt
inbox=/closed/disk/inbox
job=$(ask submit --task t --input '"one"' --file in.txt:data/in.txt --output '*.txt' --id)
ended one $job
ask fetch $job --into /closed/disk/fetched >&2
echo "fetched $(cat /closed/disk/fetched/out.txt)"
for words in 'of STATE_DIR .* keeps no modes' 'of RESULTS_DIR .* keeps no modes' 'a file system without sockets' \
  'members of group' 'may be open to others'; do
  if grep -q "$words" daemon.log; then told="$told $words;"; fi
done
echo "told $told"
"#,
    );
    assert!(said["refused"].starts_with("2 ") && said["refused"].contains("below one of mode 700"), "{said:?}");
    let told = &said["told"];
    assert!(["STATE_DIR", "RESULTS_DIR", "sockets"].iter().all(|word| told.contains(word)), "{told}");
    assert!(!told.contains("group") && !told.contains("open to others"), "{told}");
    let result = result(&said, "one");
    assert_eq!(result["status"], "completed", "{result}");
    assert_eq!(result["output"]["input"], "one", "{result}");
    assert_eq!(said["fetched"], "DATA");
}
