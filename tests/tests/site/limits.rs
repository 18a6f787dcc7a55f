//! What a pool gives a job, and a task allows it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use testkit::{PATIENCE, parts, wait_until};

use crate::{Site, text};

/// Runs the input of a job as a script.
const SCRIPT: &str =
    r#"["sh", "-c", "sed -n 's/.*\"input\": *\"\\([^\"]*\\)\".*/\\1/p' input.json > job.sh; exec sh ./job.sh"]"#;

fn bare(more: &str) -> Site {
    let pool = "[pool.own]\nruntime = \"bare\"\nslot = { cpus = 2, memory = \"1GiB\" }\n";
    Site::new(&format!("{pool}capacity = {{ cpus = 4, memory = \"2GiB\" }}\ncommand = {SCRIPT}\n{more}"))
}

#[test]
fn a_job_has_what_it_asked_for_and_no_more_memory() {
    let site = bare("environment = { OMP_NUM_THREADS = \"7\" }\n");
    let print =
        "printf '[%s]' $OMP_NUM_THREADS,$MKL_NUM_THREADS,$HPC_QUEUE_POOL,$HPC_QUEUE_CPUS,$HPC_QUEUE_MEMORY; exit 1";
    let record = site.run(&json!({ "task": "t", "input": print }));
    // The file says how many threads there are to be, and nobody says it of the other libraries.
    assert_eq!(text(&record["stdout_tail"]), "[7,2,own,2,1073741824]", "{record}");
    let record = site.run(&json!({ "task": "t", "input": print, "resources": { "cpus": 3, "memory": "256MiB" } }));
    assert_eq!(text(&record["stdout_tail"]), "[7,3,own,3,268435456]", "{record}");

    let eat = "head -c 300000000 /dev/zero | tail -c 290000000 | sleep 60";
    let record = site.run(&json!({ "task": "t", "input": eat, "resources": { "memory": "64MiB" } }));
    assert_eq!(text(&record["reason"]), "memory_limit", "{record}");
    assert!(text(&record["message"]).contains("may use 64MiB"), "{record}");
    let never = site.run(&json!({ "task": "t", "input": print, "resources": { "gpus": 1 } }));
    assert_eq!((text(&never["reason"]), &never["attempt"]), ("rejected", &json!(0)), "{never}");
}

#[test]
fn a_task_has_its_own_limits_and_the_result_says_what_ran() {
    let site = bare(
        "[task.small]\noutput_max = \"9B\"\noutput_files_max = \"1MB\"\ntime_limit = \"1s\"\ngrace = \"0s\"\nenvironment = { WHO = \"small\" }\n[task.\"*\"]\n",
    );
    let large = "echo 1234567890 > output.json";
    let record = site.run(&json!({ "task": "small", "input": large, "retries": 3 }));
    assert_eq!((text(&record["status"]), text(&record["reason"])), ("failed", "output"), "{record}");
    assert!(text(&record["message"]).contains("and the site allows 9"), "{record}");
    assert_eq!(record["attempt"], 1, "it would leave as much once more: {record}");
    let record = site.run(&json!({ "task": "other", "input": large }));
    assert_eq!(text(&record["status"]), "completed", "{record}");
    let files = |bytes: u32| {
        let outputs = json!({"patterns": ["out"]});
        site.run(&json!({ "task": "small", "input": format!("head -c {bytes} /dev/zero > out"), "outputs": outputs }))
    };
    let record = files(2_000_000);
    assert_eq!((text(&record["status"]), text(&record["reason"])), ("failed", "output"), "{record}");
    assert!(text(&record["message"]).contains("and `output_files_max` of its task allows 1.0 MB"), "{record}");
    let record = files(1_000_000);
    assert_eq!((text(&record["status"]), &record["files"][0]["size"]), ("completed", &json!(1_000_000)), "{record}");

    let record = site.run(&json!({ "task": "small", "input": "echo $WHO; sleep 60" }));
    assert_eq!((text(&record["reason"]), text(&record["stdout_tail"])), ("time_limit", "small\n"), "{record}");
    assert!(text(&record["message"]).contains("its time limit of 1 s"), "{record}");
    assert_eq!((text(&record["pool"]), text(&record["command"][0])), ("own", "sh"), "{record}");
    assert!(record.get("image").is_none(), "there is none: {record}");
}

#[test]
fn a_task_says_whether_its_jobs_have_the_network_and_which_image_they_run_in() {
    let site = Site::new(
        "[pool.cpu]\nimage = \"{home}/look.sif\"\ncommand = [\"/bin/look\", \"/proc/net/route\"]\ncapacity = { cpus = 1 }\n\
         [task.on]\nnetwork = true\n[task.off]\nnetwork = false\n[task.else]\nimage = \"{home}/other.sif\"\n",
    );
    site.image();
    fs::copy(site.path("look.sif"), site.path("other.sif")).expect("an image can be copied");
    for (task, network, image) in
        [("on", "host", "look.sif"), ("off", "none", "look.sif"), ("else", "none", "other.sif")]
    {
        let record = site.run(&json!({ "task": task }));
        assert_eq!(text(&record["isolation"]["network"]), network, "{task}: {record}");
        let length = fs::metadata(site.path(image)).expect("it is there").len();
        let told = format!("{}, {length} bytes, changed 2", site.path(image).display());
        assert!(text(&record["image"]).starts_with(&told), "{task}: {record}");
    }
}

/// Without a site's file nothing is different, whatever a job asks for.
#[test]
fn without_a_file_a_job_is_run_as_ever() {
    let edge = testkit::Edge::start();
    let consumer = testkit::Consumer::bare(&edge, testkit::SCRIPT);
    let job = json!({ "task": "t", "input": "env; exit 1", "resources": { "cpus": 1, "memory": "64MiB" } });
    let id = edge.producer().submit(&job);
    consumer.run_until_idle();
    let record = consumer.record(&id).expect("the job has its record");
    let printed = text(&record["stdout_tail"]);
    assert!(!printed.contains("HPC_QUEUE_POOL") && !printed.contains("OMP_NUM_THREADS"), "{record}");
    for field in ["pool", "image", "command"] {
        assert!(record.get(field).is_none(), "{record}");
    }
    assert!(record["isolation"].get("memory").is_none(), "{record}");
}

/// A quarter of a second of a processor in a process of its own, and then memory that two looks see.
const BUSY: &str = "import os, time
def main():
    if os.fork() == 0:
        while time.process_time() < 0.25: pass
        os._exit(0)
    os.wait()
    kept = b'1' * 64_000_000
    time.sleep(4)
";

#[test]
fn a_result_says_what_its_job_has_used() {
    let cpu_time = |record: &Value| record["usage"]["cpu_time_ms"].as_u64().unwrap_or_else(|| panic!("{record}"));
    // Its own time stands in field 14, in hundredths of a second.
    let busy = "while read -r a b c d e f g h i j k l m used rest < /proc/$$/stat; test $used -lt 25; do :; done";
    let record = bare("").run(&json!({ "task": "t", "input": format!("sh -c '{busy}'; true") }));
    assert!((250..20_000).contains(&cpu_time(&record)), "{record}");

    let python = parts::python_sif();
    let file = format!("[pool.cpu]\nimage = {:?}\n[task.call]\nkind = \"python\"\n", python.display());
    let record = Site::new(&file).run(&json!({ "task": "call", "input": { "code": BUSY } }));
    assert_eq!(text(&record["status"]), "completed", "{record}");
    assert!((250..20_000).contains(&cpu_time(&record)), "{record}");
    let memory = record["usage"]["memory_bytes"].as_u64().unwrap_or_else(|| panic!("{record}"));
    assert!((64_000_000..1_000_000_000).contains(&memory), "{record}");
}

/// Numbers as the system lists them: `0-2,7`.
fn numbers(list: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.parse::<u32>().unwrap_or_else(|_| panic!("{list:?} is no list of numbers"));
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        number(first)..=number(last)
    };
    list.trim().split(',').flat_map(range).collect()
}

#[test]
fn jobs_of_a_pool_with_affinity_have_processors_of_their_own() {
    let allowed = |status: &str| numbers(status.split_once("Cpus_allowed_list:").expect("the system says it").1);
    let status = fs::read_to_string("/proc/self/status").expect("it is our process");
    let all = allowed(status.split_once("Mems_allowed").expect("it comes before").0);
    assert!(all.len() >= 2, "this test needs two processors, and has {all:?}");
    let site = Site::new(&format!(
        "[pool.kept]\nruntime = \"bare\"\ndefault = true\naffinity = true\ncapacity = {{ cpus = 2 }}\ncommand = {SCRIPT}\n\
         [pool.free]\nruntime = \"bare\"\ncapacity = {{ cpus = 1 }}\ncommand = {SCRIPT}\n"
    ));
    let mut daemon = site.consumer.start();
    let job = |pool: &str, cpus: usize| {
        // A process that the job starts tells it.
        let gate = site.path("gate").display().to_string();
        let input = format!(
            "grep Cpus_allowed_list /proc/self/status; touch told; until [ -e {gate} ]; do sleep 0.05; done; exit 1"
        );
        site.submit(&json!({ "task": "t", "pool": pool, "input": input, "resources": { "cpus": cpus } }))
    };
    let begun = [job("kept", 1), job("kept", 1), job("free", 1)];
    for id in &begun {
        wait_until("the jobs to tell it", PATIENCE, || site.consumer.job_dir(id).join("told").exists());
    }
    fs::write(site.path("gate"), "").expect("a file can be written");
    let mut told = |id: &str| allowed(text(&site.record(id, &mut daemon)["stdout_tail"]));
    let [first, second, free] = begun.map(|id| told(&id));
    assert_eq!((first.len(), second.len(), first.is_disjoint(&second)), (1, 1, true), "{first:?} {second:?}");
    assert_eq!(free, all, "nobody keeps it to any");
    assert_eq!(told(&job("kept", 2)).len(), 2);
}
