//! The file of a site: what it says, and everything that can be wrong in it, each with its place and what to do.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{WHOLE, file, parse, site};
use site::{Image, Needed, Pattern, Runtime, SiteFile, Where};

#[test]
fn the_example_of_the_design_means_what_it_says() {
    let SiteFile { site, needs, notices, asks_slurm, lease_at } = file(WHOLE);
    assert_eq!((lease_at, &site.lease), (None, &None));
    let pool = |name: &str| &site.pools[&name.parse().unwrap()];
    assert_eq!((site.quota.cpus, site.quota.gpus, site.quota.allocations), (Some(256), Some(8), Some(20)));
    assert_eq!(pool("cpu").image, Some(Image::File { path: "/images/science.sif".into(), pull: None }));
    let Where::Here(capacity) = &pool("cpu").place else { panic!() };
    assert_eq!((capacity.cpus, capacity.memory.unwrap().to_string()), (16, "64GiB".to_owned()));
    let Where::Slurm { slurm, workers } = &pool("gpu").place else { panic!() };
    assert_eq!((slurm.partition.as_deref(), slurm.time), (Some("gpu"), Some(Duration::from_hours(4))));
    assert_eq!(slurm.extra, ["--constraint=a100"]);
    assert_eq!((workers.min, workers.max, workers.slots, workers.pending, workers.once), (0, 20, 4, 2, false));
    assert_eq!((workers.idle, pool("gpu").hold, pool("cpu").hold), (Duration::from_mins(2), Some(2000), None));
    let Where::Slurm { workers, .. } = &pool("big").place else { panic!() };
    assert!(workers.once && workers.max == 50 && workers.weight == 1);
    let heavier = file(&WHOLE.replace("pending = 2 }", "pending = 2, weight = 3 }"));
    let Where::Slurm { workers, .. } = &heavier.site.pools[&"gpu".parse().unwrap()].place else { panic!() };
    assert_eq!(workers.weight, 3);
    assert_eq!(pool("qpu").secrets["ibm"].file, Path::new("/site/secrets/ibm.env"));
    assert_eq!((pool("qpu").slot.cpus, pool("qpu").slot.gpus, pool("qpu").runtime), (1, 0, Runtime::Apptainer));
    let simulate = &site.tasks[&"simulate".parse::<Pattern>().unwrap()];
    assert_eq!((simulate.network, simulate.time_limit), (Some(false), Some(Duration::from_hours(1))));
    assert_eq!(simulate.command.as_ref().unwrap(), &["task-runner"]);

    let needed: Vec<String> =
        needs.iter().map(|need| format!("{} {} {}", need.position, need.key, need.path.display())).collect();
    assert_eq!(
        needed,
        [
            "8:11 pool.cpu.image /images/science.sif",
            "15:11 pool.gpu.image /images/cuda.sif",
            "28:11 pool.qpu.image /images/qiskit.sif",
            "31:19 pool.qpu.secrets.ibm /site/secrets/ibm.env",
        ]
    );
    assert_eq!(needs[3].what, Needed::Secret);
    let problem = needs[0].problem("is not there; correct the path").to_string();
    assert_eq!(problem, "8:11: `pool.cpu.image`: /images/science.sif is not there; correct the path");
    let told: Vec<_> = notices.iter().map(|notice| (notice.problem.position.line, notice.pool.as_str())).collect();
    assert_eq!(told, [(14, "gpu"), (22, "big")]);
    let asked: Vec<_> = asks_slurm.iter().map(|(pool, at)| (pool.as_str(), at.line)).collect();
    assert_eq!(asked, [("big", 24), ("gpu", 18)], "where the request of each pool in Slurm stands");
}

/// Each text, and all that is told of it: the place, and words of the sentence.
const WRONG: &[(&str, &[&str])] = &[
    // No site at all, or no TOML.
    ("", &["1:1: there is no pool, so no job can run: write a section as [pool.cpu]"]),
    ("[pool]", &["1:2: there is no pool"]),
    ("[pool.a]\nimage = /x.sif\n\n[pool.b\n", &["2:9: this is not TOML", "4:8: this is not TOML"]),
    ("[pool.a]\nimage = \"/x.sif\"\nimage = \"/y.sif\"", &["3:1: this is not TOML: duplicate key"]),
    ("[[pool]]\nname = \"a\"", &["1:1: `pool` must be a table, as [pool] or { … }; it is a list"]),
    ("pool = 5", &["1:8: `pool` must be a table"]),
    ("[pool.a]\nimage = \"/x.sif\"\n[pool]\nb = 7", &["4:5: `pool.b` must be a table"]),
    // Names.
    ("[pools.a]\nimage = \"/x.sif\"", &["1:1: there is no pool", "1:2: `pools` is no key; did you mean `pool`?"]),
    ("[pool.GPU]\nimage = \"/x.sif\"", &["1:7: `pool.GPU`: the last part of it must be the name of a pool"]),
    ("[pool.a]\nimage = \"/x.sif\"\n[task.\"a\\n\"]", &["3:7: must be the name of a task"]),
    (
        "[pool.a]\nimage = \"/x.sif\"\n[task.\"\"]",
        &["3:7: `task.\"\"`: the last part of it must be the name of a task"],
    ),
    // Keys: all at once, with the one that is meant.
    (
        "[qouta]\ncpu = 1\n[pool.a]\n  imge = \"/x.sif\"\n  slot = { cpu = 1, mem = \"1GiB\" }\n  zzz = 1",
        &[
            "1:2: `qouta` is no key; did you mean `quota`?",
            "3:7: `pool.a.image` is missing: the .sif file",
            "4:3: `pool.a.imge` is no key; did you mean `image`?",
            "5:12: `pool.a.slot.cpu` is no key; did you mean `cpus`?",
            "5:21: `pool.a.slot.mem` is no key; did you mean `memory`?",
            "6:3: `pool.a.zzz` is no key; the keys here are default, runtime, image",
        ],
    ),
    // Values of a wrong kind.
    (
        "[pool.a]\nimage = 5\nruntime = \"docker\"\nwhere = \"cloud\"\ndefault = \"yes\"\nhold = 0\nbinds = \"/data\"\nslot = 3\ncommand = \"python3 x.py\"\nenvironment = []",
        &[
            "2:9: `pool.a.image` must be a text between quotes; it is a number",
            "3:11: `pool.a.runtime` is \"docker\"; it must be \"apptainer\" or \"bare\"",
            "4:9: `pool.a.where` is \"cloud\"; it must be \"here\" or \"slurm\"",
            "5:11: `pool.a.default` must be true or false, without quotes; it is a text",
            "6:8: `pool.a.hold` must be a whole number from 1 to 1000000, without quotes",
            "7:9: `pool.a.binds` must be a list",
            "8:8: `pool.a.slot` must be a table, as [pool.a.slot] or { … }; it is a number",
            "9:11: `pool.a.command` must be a list, as [\"…\", \"…\"]; it is a text",
            "10:15: `pool.a.environment` must be a table",
        ],
    ),
    (
        "[quota]\ncpus = -1\nmemory = 64\ngpus = 1.5\nallocations = \"5\"\n[pool.a]\nimage = \"/x.sif\"\nslot = { cpus = 0, memory = \"2G\" }\ncapacity = { cpus = 99999999999, gpus = \"all\" }",
        &[
            "2:8: `quota.cpus` must be a whole number from 1 to 1000000",
            "3:10: `quota.memory` must be an amount of memory with its unit, as 2GiB",
            "4:8: `quota.gpus` must be a whole number",
            "5:15: `quota.allocations` must be a whole number",
            "8:17: `pool.a.slot.cpus` must be a whole number",
            "8:29: `pool.a.slot.memory` must be an amount of memory",
            "9:21: `pool.a.capacity.cpus` must be a whole number",
            "9:41: `pool.a.capacity.gpus` must be a number of GPUs, or a list",
        ],
    ),
    (
        "[pool.a]\nimage = \"/x.sif\"\n[task.t]\nkind = \"shell\"\ntime_limit = 60\ngrace = \"fast\"\noutput_max = 64000\nlog_max = \"1KB\"\nretries = 101\nnetwork = 0\npools = []\ncommand = []\n[task.u]\ncommand = [\"\"]\ntime_limit = \"0s\"",
        &[
            "4:8: `task.t.kind` is \"shell\"; it must be \"program\" or \"command\" or \"python\"",
            "5:14: `task.t.time_limit` must be a length of time with its unit, as \"90s\", \"15m\", \"1h30m\" or \"2d\", at least 1s",
            "6:9: `task.t.grace` must be a length of time",
            "7:14: `task.t.output_max` must be a size with its unit, as \"64KB\"",
            "8:11: `task.t.log_max` must be a size with its unit, as \"64KB\" or \"16MiB\", from 4KiB to 1TiB",
            "9:11: `task.t.retries` must be a whole number from 0 to 100",
            "10:11: `task.t.network` must be true or false",
            "11:9: `task.t.pools` is empty, so no job could run",
            "12:11: `task.t.command` names no program",
            "14:11: `task.u.command` names no program",
            "15:14: `task.u.time_limit` must be a length of time",
        ],
    ),
    // Images.
    (
        "[pool.a]\nimage = \"ghcr.io/me/x:latest\"\n[pool.b]\nimage = \"docker://ghcr.io/me/x\"\ncapacity = { cpus = 1 }\n[pool.c]\nimage = \"ghcr.io/me/x@sha256:12\"\ncapacity = { cpus = 1 }\n[pool.d]\nimage = \"~/x.sif\"\ncapacity = { cpus = 1 }\n[pool.e]\nimage = { pull = \"x\" }\ncapacity = { cpus = 1 }\n[pool.f]\nimage = \"\"\ncapacity = { cpus = 1 }",
        &[
            "1:7: `pool.a.capacity` is missing: several pools are on this node",
            "2:9: `pool.a.image` must be the path of an image (absolute, or a .sif file), or name an image of a registry with its digest",
            "4:9: write { file = \"/path/to/it.sif\", pull = \"ghcr.io/me/x\" }",
            "7:9: `pool.c.image` must end in @sha256: and 64 hexadecimal digits",
            "10:9: `pool.d.image` begins with ~, which only a shell expands",
            "13:1: `pool.e.image` has no `file`",
            "16:9: `pool.f.image` is empty",
        ],
    ),
    // Binds and variables.
    (
        "[pool.a]\nimage = \"/x.sif\"\nbinds = [\"data\", \"/a,/b\", \"/a:b\", \"/a:/b:rx\", \"/a:/work\", \"/a:/run/secrets/x\", \"/a:/run/hpc-queue\", \"/run\", 7,\n  \"/a:/b:ro:x\"]\nenvironment = { \"1A\" = \"x\", JOB_ID = \"x\", CUDA_VISIBLE_DEVICES = \"0\", APPTAINER_BIND = \"/\", A = 1, B = \"\\u0000\" }",
        &[
            "3:10: an item of `pool.a.binds` must be as /data, /data:/input or /data:/input:ro",
            "3:18: must be one path; write several as several items",
            "3:27: must be as /data",
            "3:35: must end in :ro or :rw",
            "3:47: cannot be seen at /work: that place is taken",
            "3:59: cannot be seen at /run/secrets/x",
            "3:80: cannot be seen at /run/hpc-queue: that",
            "3:101: cannot be seen at /run: that place",
            "3:109: must be a text between quotes; it is a number",
            "4:3: must be as /data",
            "5:17: `pool.a.environment.1A` must be the name of a variable",
            "5:29: `pool.a.environment.JOB_ID` cannot be set: every job has it: its id",
            "5:43: cannot be set: every job has its own, by the GPUs that it gets",
            "5:71: cannot be set: it would be a setting of Apptainer",
            "5:97: `pool.a.environment.A` must be a text between quotes; it is a number",
            "5:104: `pool.a.environment.B` has a zero byte",
        ],
    ),
    // What contradicts itself.
    (
        "[pool.a]\nruntime = \"bare\"\nimage = \"/x.sif\"\nbinds = [\"/data\"]\narguments = [\"--nv\"]\nslurm = {}\nworkers = { max = 1 }",
        &[
            "3:1: `pool.a.image` has no meaning with runtime = \"bare\"",
            "4:1: `pool.a.binds` has no meaning with runtime = \"bare\"",
            "5:1: `pool.a.arguments` has no meaning with runtime = \"bare\"",
            "6:1: `pool.a.slurm` has no meaning on this node",
            "7:1: `pool.a.workers` has no meaning on this node",
        ],
    ),
    (
        "[pool.a]\nimage = \"/x.sif\"\nwhere = \"slurm\"\ncapacity = { cpus = 1 }\nslurm = { time = \"04:00:00\", extra = [\"\"] }\n[pool.b]\nimage = \"/x.sif\"\nwhere = \"slurm\"\nworkers = { min = 3, max = 2 }\n[pool.c]\nimage = \"/x.sif\"\nwhere = \"slurm\"\nworkers = { once = true, slots = 2, min = 0, idle = \"1m\" }",
        &[
            "1:7: `pool.a.workers` is missing: say how many allocations there may be",
            "4:1: `pool.a.capacity` has no meaning with where = \"slurm\"",
            "5:18: `pool.a.slurm.time` must be a length of time",
            "5:39: an item of `pool.a.slurm.extra` is empty",
            "9:19: `pool.b.workers.min` is 3, more than `max`, which is 2",
            "13:1: `pool.c.workers` has no `max`",
            "13:26: `pool.c.workers.slots` has no meaning with once = true",
            "13:37: `pool.c.workers.min` has no meaning with once = true",
            "13:46: `pool.c.workers.idle` has no meaning with once = true",
        ],
    ),
    (
        "[pool.a]\nimage = \"/x.sif\"\nwhere = \"slurm\"\nworkers = { max = 1 }\n[pool.a.slurm]\nextra = [\n\"--constraint=a100\",\n\"--nodelist=n1\",\n\"--mem-per-gpu=4G\",\n\"--wrap=x\",\n\"--wra=x\",\n\"-C\",\n\"a100\",\n\"--comment=a\\nb\",\n\"--time=4\",\n\"--requeue\",\n\"--\",\n\"--hold\"]",
        &[
            "10:1: an item of `pool.a.slurm.extra` cannot be --wrap",
            "11:1: an item of `pool.a.slurm.extra` cannot be --wrap",
            "12:1: an item of `pool.a.slurm.extra` must be one option of sbatch in its long form",
            "13:1: an item of `pool.a.slurm.extra` must be one option of sbatch in its long form",
            "14:1: an item of `pool.a.slurm.extra` has a control character",
            "15:1: an item of `pool.a.slurm.extra` cannot be --time; for that there is the key `time`",
            "16:1: an item of `pool.a.slurm.extra` cannot be --requeue: allocations would not do",
            "17:1: an item of `pool.a.slurm.extra` must be one option of sbatch in its long form",
            "18:1: an item of `pool.a.slurm.extra` cannot be --hold",
        ],
    ),
    (
        "[pool.a]\nimage = \"/x.sif\"\ndefault = true\ncapacity = { cpus = 2 }\n[pool.b]\nimage = \"/x.sif\"\ndefault = true\ncapacity = { memory = \"1GiB\" }",
        &[
            "7:1: `pool.b.default`: the pool a is the default already; there is one",
            "8:1: `pool.b.capacity` has no `cpus`",
        ],
    ),
    // Numbers that no job fits.
    (
        "[pool.a]\nimage = \"/x.sif\"\nslot = { cpus = 4 }\ncapacity = { cpus = 2 }\n[pool.b]\nimage = \"/x.sif\"\nslot = { gpus = 1 }\ncapacity = { cpus = 2 }\n[pool.c]\nimage = \"/x.sif\"\ncapacity = { cpus = 2, memory = \"4GiB\" }\n[pool.d]\nimage = \"/x.sif\"\nslot = { memory = \"8GiB\" }\ncapacity = { cpus = 2, memory = \"4GiB\" }",
        &[
            "3:1: `pool.a.slot`: 4 cpus asked for, and 2 there, so no job could ever run",
            "7:1: `pool.b.slot`: 1 GPU asked for, and none there",
            "11:12: `pool.c`: `capacity` has memory, and `slot` does not say how much of it a job gets",
            "14:1: `pool.d.slot`: 8GiB of memory asked for, and 4GiB there",
        ],
    ),
    (
        "[quota]\ncpus = 2\nallocations = 1\n[pool.a]\nimage = \"/x.sif\"\nwhere = \"slurm\"\nslot = { cpus = 4 }\nworkers = { min = 2, max = 4 }",
        &[
            "7:1: `pool.a.slot`: 4 cpus asked for, and 2 there in `quota`",
            "8:11: `pool.a.workers`: `min` is 2, and `quota` has 1 allocations",
        ],
    ),
    (
        "[pool.a]\nimage = \"/x.sif\"\ncapacity = { cpus = 2, gpus = 2 }\n[pool.b]\nimage = \"/x.sif\"\ncapacity = { cpus = 2, gpus = [1, 2] }\n[pool.c]\nimage = \"/x.sif\"\ncapacity = { cpus = 2, gpus = [5, 5] }\n[pool.d]\nimage = \"/x.sif\"\ncapacity = { cpus = 2, gpus = [1024] }",
        &[
            "6:12: `pool.b.capacity`: GPU 1 is the pool a's as well; say which GPUs are whose",
            "9:31: `pool.c.capacity.gpus` names a GPU twice",
            "12:31: `pool.d.capacity.gpus` must be a number of GPUs",
        ],
    ),
    // Secrets.
    (
        "[pool.a]\nimage = \"/x.sif\"\nbinds = [\"/site:/s:ro\"]\ncapacity = { cpus = 2 }\n[pool.b]\nimage = \"/x.sif\"\ncapacity = { cpus = 2 }\nbinds = [\"/site\"]\nsecrets = { key = \"secrets/key\", \"../x\" = \"y\", c = { variable = \"C\" }, d = { file = \"d\", variable = \"D\" }, e = { file = \"e\", variable = \"D\" }, f = { file = \"~/f\", variable = \"JOB_ID\" } }\n[pool.c]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n[task.t]\nbinds = [\"/site/x/../secrets/\"]\npool = \"a\"",
        &[
            "3:9: `pool.a.binds`: /site:/s:ro shows /site/d, a secret of the pool b",
            "9:34: `pool.b.secrets.\"../x\"` must be the name of a file below /run/secrets",
            "9:48: `pool.b.secrets.c` has no `file`",
            "9:112: `pool.b.secrets.e`: the variable D is set twice in this pool",
            "9:157: `pool.b.secrets.f.file` begins with ~",
            "9:175: `pool.b.secrets.f.variable` cannot be set",
            "11:1: `pool.c`: jobs without a container can read whatever you can, the secrets of the pool b too",
            "14:9: `task.t.binds`: /site/x/../secrets/ shows /site/secrets/key, a secret of the pool b",
        ],
    ),
    // Pools and tasks.
    (
        "[pool.cpu]\nimage = \"/x.sif\"\ncapacity = { cpus = 2 }\n[pool.gpu]\nimage = \"/x.sif\"\ncapacity = { cpus = 2 }\n[task.a]\npool = \"gpus\"\n[task.b]\npools = [\"cpu\", \"tpu-v5\"]\n[task.c]\n[task.d]\npool = \"GPU\"",
        &[
            "8:8: `task.a.pool` names the pool gpus, which this file does not have; did you mean gpu?",
            "10:17: an item of `task.b.pools` names the pool tpu-v5, which this file does not have; its pools are cpu, gpu",
            "11:7: `task.c` names no pool, and no pool is the default",
            "13:8: `task.d.pool` must be the name of a pool",
        ],
    ),
    (
        "[pool.a]\nimage = \"/x.sif\"\n[task.\"sim*\"]\n[task.simulate]\n[task.\"*ate\"]\n[task.\"*x\"]",
        &["5:7: `task.\"*ate\"` and `task.\"sim*\"` are as long as each other, and a task can match both"],
    ),
    (
        "[pool.a]\ncapacity = { cpus = 1 }\n[pool.b]\nruntime = \"bare\"\ncapacity = { cpus = 1 }\n[task.t]\npools = [\"a\", \"b\"]\nnetwork = false\n[task.u]\npool = \"b\"\nimage = \"/x.sif\"\nbinds = [\"/data\"]",
        &[
            "1:7: `pool.a.image` is missing: `task.t` may run here, and has no image of its own",
            "8:11: `task.t.network`: nothing keeps a job of the pool b from the network",
            "11:1: `task.u.image` has no meaning: all pools of the task have runtime = \"bare\"",
            "12:1: `task.u.binds` has no meaning",
        ],
    ),
    (
        "[pool.a]\nruntime = \"bare\"\nsecrets = { k = \"k\" }",
        &["2:1: jobs without a container can read whatever you can"],
    ),
];

#[test]
fn everything_that_is_wrong_is_told_with_its_place_and_what_to_do() {
    let mut different = String::new();
    for (text, told) in WRONG {
        let problems = parse(text).expect_err(text).0;
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let same = |line: &String, part: &&str| {
            let (place, words) = part.split_once(": ").unwrap();
            line.starts_with(&format!("{place}: ")) && line.contains(words)
        };
        if lines.len() != told.len() || !lines.iter().zip(*told).all(|(line, part)| same(line, part)) {
            different += &format!("{text}\n  is:\n{}\n  expected:\n{}\n\n", lines.join("\n"), told.join("\n"));
        }
    }
    assert!(different.is_empty(), "{different}");
}

#[test]
fn what_may_be_said_in_several_ways_means_the_same() {
    let digest = "0123456789abcdef".repeat(4);
    let image =
        |image: &str| site(&format!("[pool.a]\nimage = {image}")).pools.into_values().next().unwrap().image.unwrap();
    let file =
        |path: &str, pull: Option<&str>| Image::File { path: PathBuf::from(path), pull: pull.map(str::to_owned) };
    assert_eq!(image("\"x.sif\""), file("/site/x.sif", None));
    assert_eq!(image("\"./images/../sandbox\""), file("/site/sandbox", None));
    assert_eq!(image("{ file = \"/x.sif\", pull = \"ghcr.io/a/b:1\" }"), file("/x.sif", Some("ghcr.io/a/b:1")));
    let reference = Image::Reference { name: "ghcr.io/a/b:1".to_owned(), digest: format!("sha256:{digest}") };
    for scheme in ["", "docker://"] {
        assert_eq!(image(&format!("\"{scheme}ghcr.io/a/b:1@sha256:{digest}\"")), reference);
    }
    let gpus = |gpus: &str| {
        let text = format!("[pool.a]\nimage = \"/x.sif\"\ncapacity = {{ cpus = 1, gpus = {gpus} }}");
        match site(&text).pools.into_values().next().unwrap().place {
            Where::Here(capacity) => capacity.gpus.into_iter().collect::<Vec<_>>(),
            Where::Slurm { .. } => panic!(),
        }
    };
    assert_eq!((gpus("2"), gpus("[3, 1]"), gpus("0")), (vec![0, 1], vec![1, 3], vec![]));
}

#[test]
fn a_pool_that_is_alone_on_this_node_has_all_of_it() {
    let site =
        site("[pool.a]\nimage = \"/x.sif\"\n[pool.b]\nimage = \"/x.sif\"\nwhere = \"slurm\"\nworkers = { max = 1 }");
    let Where::Here(capacity) = &site.pools[&"a".parse().unwrap()].place else { panic!() };
    assert_eq!((capacity.cpus, capacity.memory, capacity.gpus.len()), (8, None, 0));
}

#[test]
fn a_pool_with_secrets_may_be_bare_where_that_is_said() {
    let file = file(
        "[pool.a]\nruntime = \"bare\"\nexpose_secrets = true\ncommand = [\"/opt/run\", \"x\"]\nsecrets = { k = { file = \"k\", variable = \"K\" } }",
    );
    let needs: Vec<_> =
        file.needs.iter().map(|need| (need.what.clone(), need.path.to_str().unwrap().to_owned())).collect();
    assert_eq!(needs, [(Needed::Program, "/opt/run".to_owned()), (Needed::Secret, "/site/k".to_owned())]);
}

#[test]
fn programs_without_a_container_are_looked_for_where_they_can_be() {
    let bare = |rest: &str| format!("[pool.a]\nruntime = \"bare\"\n{rest}");
    let needed = |rest: &str| -> Vec<String> {
        let needs = file(&bare(rest)).needs.into_iter();
        needs.map(|need| format!("{} {} {}", need.position, need.key, need.path.display())).collect()
    };
    assert_eq!(needed(""), ["1:7 pool.a.command task-runner"]);
    assert_eq!(needed("command = [\"python3\", \"x\"]"), ["3:11 pool.a.command python3"]);
    for nowhere in ["command = [\"./run\"]", "command = [\"bin/run\"]", "environment = { PATH = \"/opt\" }"] {
        assert_eq!(needed(nowhere), Vec::<String>::new(), "{nowhere}");
    }
    // A task with a command of its own needs that one alone.
    assert_eq!(needed("[task.t]\ncommand = [\"t\"]"), ["4:11 task.t.command t"]);
    assert_eq!(needed("[task.t]\ncommand = [\"t\"]\nenvironment = { PATH = \"/opt\" }"), Vec::<String>::new());
    assert_eq!(
        needed("[task.t]\n[task.u]\ncommand = [\"u\"]"),
        ["1:7 pool.a.command task-runner", "5:11 task.u.command u"]
    );
}

/// So that a secret that others can read is told together with a spelling mistake.
#[test]
fn what_is_needed_is_known_of_a_file_with_mistakes_too() {
    let text = "[pool.a]\nimage = \"/a.sif\"\nbind = []\nsecrets = { k = \"k\" }";
    let (needs, outcome) = SiteFile::understand(text, Path::new("/site"), &common::defaults());
    assert_eq!(outcome.unwrap_err().0.len(), 1);
    assert_eq!(needs.iter().map(|need| need.what.clone()).collect::<Vec<_>>(), [Needed::Image, Needed::Secret]);
}

#[test]
fn each_mistake_is_one_line_whatever_the_names_in_the_file_are() {
    let problems = parse("[pool.a]\nimage = \"/a.sif\"\n[task.\"x\\nsite.toml:1:1: y\"]\n").unwrap_err();
    let told = problems.in_file("site.toml");
    assert!(told.lines().count() == 1 && told.starts_with(r#"site.toml:3:7: `task."x\nsite.toml:1:1: y"`"#), "{told}");
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_place() {
    let problem = SiteFile::text(b"[pool.a]\nimage = \"\xc3\xa9\xff\"\n").unwrap_err().to_string();
    assert_eq!(problem, "2:11: this is not TOML: what stands here is no text in UTF-8");
    assert_eq!(SiteFile::text(b"a").unwrap(), "a");
}

#[test]
fn a_file_that_is_none_is_told_of_within_bounds() {
    let text = (0..5_000).map(|number| format!("key{number} = 1\n")).collect::<String>();
    let problems = parse(&text).unwrap_err().0;
    assert_eq!(problems.len(), 101);
    assert!(problems[100].text.starts_with("4901 more problems"), "{}", problems[100]);
    assert!(parse(&"[".repeat(100_000)).is_err(), "as deep as it may be");
}
