//! Services, with the programs of `examples/services` as they are: started when they are needed, shared, replaced when
//! they die, ended when nobody needs them, and not believed.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::slurm::{Cluster, Slurm, VERSIONS};
use testkit::{Consumer, Edge, Laptop, Process, Queue, is_alive, parts, signal, wait_for, wait_until, words_of};

/// Several instances and jobs, one after the other, on a busy machine.
const LONG: Duration = Duration::from_secs(180);

fn example() -> PathBuf {
    parts::workspace().join("examples/services")
}

/// The site's file of an example, with what is otherwise here.
fn site_of(example: &Path, otherwise: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(example.join("site.toml")).expect("the example has a site's file");
    for (of_example, ours) in otherwise {
        assert!(text.contains(of_example), "{of_example} is not in {text}");
        text = text.replace(of_example, ours);
    }
    text
}

/// A site whose services are these, with a pool for them and one for jobs, and the queues.
struct Site {
    consumer: Consumer,
    edge: Edge,
    _cluster: Option<Slurm>,
    _home: TempDir,
}

impl Site {
    fn new(services: &str) -> Self {
        let pool = "[pool.vqpu]\nruntime = \"bare\"\ncapacity = { cpus = 8 }\n";
        Self::of(&format!("{pool}{services}"), None)
    }

    /// Where the services are in this cluster.
    fn in_slurm(cluster: Slurm, services: &str) -> Self {
        let pool = "[pool.vqpu]\nruntime = \"bare\"\nwhere = \"slurm\"\nslot = { cpus = 1, memory = \"100MiB\" }\nslurm = { time = \"30m\" }\n\
                    workers = { max = 2, idle = \"2s\" }\n";
        Self::of(&format!("{pool}{services}"), Some(cluster))
    }

    fn of(more: &str, cluster: Option<Slurm>) -> Self {
        let python = parts::on_path("python3").expect("a Python is on the PATH");
        let python = python.display();
        let circuits = example().join("circuits.py");
        let ask = "import glob,json,urllib.request as ask\n\
                   with open(glob.glob(\"services/*.json\")[0]) as file: ask.urlopen(json.load(file)[\"url\"])";
        let text = format!(
            "[pool.cpu]\ndefault = true\nruntime = \"bare\"\ncapacity = {{ cpus = 8 }}\n[task.circuits]\npool = \"cpu\"\n\
             command = [\"{python}\", \"{}\"]\n\
             [task.ask]\npool = \"cpu\"\ncommand = [\"{python}\", \"-c\", '''{ask}''']\n{more}",
            circuits.display()
        );
        Self::of_text(&text, cluster)
    }

    fn of_text(text: &str, cluster: Option<Slurm>) -> Self {
        let (edge, home) = (Edge::start(), tempfile::tempdir().expect("a directory can be made"));
        let path = home.path().join("site.toml");
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let mut consumer = Consumer::of_site(&edge, &path);
        for (name, value) in cluster.iter().flat_map(Slurm::environment) {
            consumer = consumer.set(name, value);
        }
        Self { consumer, edge, _cluster: cluster, _home: home }
    }

    /// A job that has the number of a circuit measured so often, each time by itself, by a service with these needs.
    fn submit(&self, number: u32, times: usize, needs: &Value) -> String {
        let circuits = vec![circuit(number); times];
        self.edge.producer().submit(&json!({ "task": "circuits", "input": { "circuits": circuits }, "needs": [needs] }))
    }

    /// A job that asks this service for anything at all.
    fn ask(&self, service: &str) -> String {
        self.edge.producer().submit(&json!({ "task": "ask", "needs": [service] }))
    }

    fn record(&self, id: &str, daemon: &mut Process) -> Value {
        wait_for("the final record", LONG, || {
            assert!(daemon.is_running(), "the daemon has ended: {}", daemon.log());
            self.consumer.record(id)
        })
    }

    /// What `hpc-consumer services` tells of a service.
    fn service(&self, name: &str) -> Value {
        let said = self.consumer.ask(&["services", "--output", "json"]);
        // A daemon that has only just begun has told nothing yet.
        if !said.status.success() {
            return Value::Null;
        }
        let told: Value = serde_json::from_str(&said.output).expect("it is JSON");
        let services = told["services"].as_array().cloned().unwrap_or_default();
        services.into_iter().find(|service| service["service"] == name).unwrap_or(Value::Null)
    }

    fn instances(&self, name: &str) -> Vec<Value> {
        self.service(name)["instances"].as_array().cloned().unwrap_or_default()
    }

    /// What lies in `RESULTS_DIR` of the instances of a service.
    fn published(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.consumer.results_dir().join(".services").join(name)).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }

    fn tokens(&self, name: &str) -> Vec<String> {
        let files = self.published(name).into_iter().filter(|path| path.extension().is_some_and(|end| end == "token"));
        files.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    /// Nothing of a service is left: no instance, no process, no file.
    fn wait_until_none_is_left(&self, name: &str, program: &str) {
        wait_until("no instance to be left", LONG, || {
            self.instances(name).is_empty() && self.published(name).is_empty() && self.processes(program).is_empty()
        });
    }

    /// The processes of the daemon's runs that run a program.
    fn processes(&self, program: &str) -> Vec<u32> {
        let results = self.consumer.results_dir();
        let processes = fs::read_dir("/proc").expect("processes can be seen").flatten();
        let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |pid: u32| {
            let within = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.starts_with(&results));
            within && words_of(pid).iter().any(|word| word.contains(program))
        };
        ids.filter(|pid| is_ours(*pid)).collect()
    }
}

/// Flips the bits of a number: whatever is measured is that number.
fn circuit(number: u32) -> Value {
    let gates: Vec<Value> = (0..4).filter(|bit| number >> bit & 1 == 1).map(|bit| json!(["x", bit])).collect();
    json!({ "qubits": 4, "gates": gates, "shots": 100 })
}

/// The instance that has run the circuits of a job, each of them once and rightly.
fn assert_measured(record: &Value, number: u32, times: usize) -> String {
    assert_eq!(record["status"], "completed", "{record}");
    let counts = json!({ "counts": { format!("{number:04b}"): 100 } });
    assert_eq!(record["output"]["results"], json!(vec![counts; times]), "{record}");
    record["output"]["instance"].as_str().expect("it says which instance it had").to_owned()
}

/// The service of the example.
fn vqpu(options: &str, keys: &str) -> String {
    let python = parts::on_path("python3").expect("a Python is on the PATH");
    let (python, program) = (python.display(), example().join("vqpu.py"));
    let words: String = options.split_whitespace().map(|word| format!(", \"{word}\"")).collect();
    format!(
        "[service.vqpu]\npool = \"vqpu\"\ncommand = [\"{python}\", \"{}\"{words}]\nready = {{ http = \"/health\", within = \"1m\" }}\n{keys}\n",
        program.display()
    )
}

/// Every file below a directory in which these bytes are.
fn files_with(directory: &Path, wanted: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            files_with(&path, wanted, found);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                found.push(path);
            }
        }
    }
}

#[test]
fn eight_users_share_two_instances_of_which_one_is_killed_and_every_circuit_counts_once() {
    let keys = "instances = { max = 2, users = 4 }\nlife = { idle = \"3s\" }";
    let site = Site::new(&vqpu("--seconds 1", keys));
    let mut daemon = site.consumer.start();
    let jobs: Vec<String> = (0..8).map(|number| site.submit(number, 8, &json!("vqpu"))).collect();
    wait_until("two instances with four users each", LONG, || {
        assert!(daemon.is_running(), "{}", daemon.log());
        let instances = site.instances("vqpu");
        assert!(instances.len() <= 2, "{instances:?}");
        instances.len() == 2 && instances.iter().all(|instance| instance["users"] == 4)
    });
    let tokens = site.tokens("vqpu");
    assert_eq!((tokens.len(), tokens.iter().collect::<BTreeSet<_>>().len()), (2, 2), "each has its own");
    let killed = site.processes("vqpu.py")[0];
    signal(killed, Signal::KILL);

    let (mut again, mut instances) = (0, BTreeSet::new());
    for (number, id) in (0..).zip(&jobs) {
        let record = site.record(id, &mut daemon);
        instances.insert(assert_measured(&record, number, 8));
        again += usize::from(record["attempt"] != 1);
    }
    assert_eq!(again, 4, "those of the instance that was killed, and no others, were tried again");
    assert!(instances.len() >= 2, "{instances:?}");
    wait_until("the results", LONG, || site.edge.backlog(Queue::Results) == 8);
    site.wait_until_none_is_left("vqpu", "vqpu.py");
    let mut found = Vec::new();
    tokens.iter().for_each(|token| files_with(site.consumer.home(), token, &mut found));
    assert_eq!(found, Vec::<PathBuf>::new(), "their tokens are in them");
    assert_eq!(site.edge.backlog(Queue::Results), 8, "an instance has no result for anybody");
}

#[test]
fn a_daemon_that_is_killed_finds_its_instance_and_the_jobs_that_use_it() {
    let keys = "instances = { max = 1, users = 2 }\nlife = { idle = \"4s\" }";
    let site = Site::new(&vqpu("--seconds 1", keys));
    let mut daemon = site.consumer.start();
    let first = site.submit(5, 6, &json!("vqpu"));
    wait_until("a user", LONG, || {
        assert!(daemon.is_running(), "{}", daemon.log());
        site.instances("vqpu").iter().any(|instance| instance["users"] == 1)
    });
    let (processes, tokens) = (site.processes("vqpu.py"), site.tokens("vqpu"));
    daemon.kill();
    let mut daemon = site.consumer.start();
    let second = site.submit(6, 1, &json!({ "service": "vqpu", "qubits": { "min": 12 }, "kind": "statevector" }));
    let (of_first, of_second) = (site.record(&first, &mut daemon), site.record(&second, &mut daemon));
    assert_eq!(assert_measured(&of_first, 5, 6), assert_measured(&of_second, 6, 1), "they share one instance");
    assert_eq!((&of_first["attempt"], &of_second["attempt"]), (&json!(1), &json!(1)));
    assert_eq!((site.processes("vqpu.py"), site.tokens("vqpu")), (processes, tokens), "it is the same one");
    site.wait_until_none_is_left("vqpu", "vqpu.py");
    // What a user knows of it is gone as well.
    assert!(!site.consumer.job_dir(&first).join("services").exists());
}

#[test]
fn rounds_end_an_instance_that_no_job_has_used_for_as_long_as_idle_says() {
    let idle = Duration::from_secs(8);
    let keys = format!("instances = {{ max = 1 }}\nlife = {{ idle = \"{}s\" }}", idle.as_secs());
    let site = Site::new(&vqpu("", &keys));
    let round = || {
        let spoken = site.consumer.ask(&["tick"]);
        assert!(spoken.status.success(), "{}", spoken.log);
        spoken.log
    };
    let begun = Instant::now();
    let id = site.submit(5, 1, &json!("vqpu"));
    wait_until("the record of the job", LONG, || {
        round();
        site.consumer.record(&id).is_some()
    });
    let instance = assert_measured(&site.consumer.record(&id).expect("it is there"), 5, 1);
    let mut said = String::new();
    let record = wait_for("the record of the instance", LONG, || {
        said += &round();
        site.consumer.record(&instance)
    });
    assert!(begun.elapsed() >= idle, "it was ended before its time");
    assert!(record["message"].as_str().is_some_and(|message| message.contains("no job needs it")), "{record}");
    assert!(!said.contains("do not last"), "it was no fault of its own: {said}");
    site.wait_until_none_is_left("vqpu", "vqpu.py");
}

/// A service that runs a script of the shell.
fn script(name: &str, ready: &str, script: &str) -> String {
    format!(
        "[service.{name}]\npool = \"vqpu\"\ncommand = [\"sh\", \"-c\", '''{script}''']\nready = {{ {ready}, within = \"2s\" }}\n\
         instances = {{ max = 1, users = 8 }}\nlife = {{ idle = \"3s\" }}\n"
    )
}

#[test]
fn what_a_service_says_is_not_believed_and_its_jobs_wait() {
    let stranger = Edge::start();
    let address = stranger.address();
    let (_, port) = address.rsplit_once(':').expect("an address has a port");
    let serve = "import http.server,json,os,sys,time\n\
        s=http.server.HTTPServer((\"127.0.0.1\",0),http.server.SimpleHTTPRequestHandler)\n\
        open(\"new\",\"w\").write(json.dumps({\"port\":s.server_address[1]}))\n";
    let python = |then: &str| format!("exec python3 -c '{serve}{then}'");
    let all_of = |port: u16| {
        format!(
            "exec python3 -c 'import json,socket,time\n\
             s=socket.create_server((\"0.0.0.0\",{port}))\n\
             open(\"address.json\",\"w\").write(json.dumps({{\"port\":{port}}}))\n\
             time.sleep(100)'"
        )
    };
    let other = TcpListener::bind("[::1]:0").expect("there is IPv6");
    let shared = other.local_addr().expect("it has an address").port();
    let services = [
        script("shared", "tcp = true", &all_of(shared)),
        script("strange", "tcp = true", &format!("echo '{{\"port\": {port}}}' > address.json; exec sleep 100")),
        script("silent", "tcp = true", "exec sleep 100"),
        script("broken", "tcp = true", "head -c 200000 /dev/zero > address.json; exec sleep 100"),
        // A file that is not there is answered with 404.
        script("unwell", "http = \"/no\"", &python("os.rename(\"new\",\"address.json\");s.serve_forever()")),
        script("linked", "tcp = true", &python("os.symlink(\"new\",\"address.json\");s.serve_forever()")),
        script("dies", "tcp = true", &python("os.rename(\"new\",\"address.json\");time.sleep(1);sys.exit(3)")),
        vqpu("", "life = { idle = \"3s\" }"),
    ];
    let site = Site::new(&services.concat());
    let mut daemon = site.consumer.start();
    let names = ["shared", "strange", "silent", "broken", "unwell", "linked", "dies"];
    let jobs: Vec<String> = names.iter().map(|name| site.ask(name)).collect();
    let elsewhere = site.ask("of-another-site");
    let too_large = site.submit(1, 1, &json!({ "service": "vqpu", "qubits": { "min": 13 } }));
    let good = site.submit(9, 1, &json!("vqpu"));
    assert_measured(&site.record(&good, &mut daemon), 9, 1);
    for (name, told) in [
        ("shared", format!("another program listens on port {shared} as well, on another address")),
        ("strange", format!("address.json says port {port}, which is not its own: another program listens there")),
        ("silent", "it has not said where it listens: there is no address.json".to_owned()),
        ("broken", "address.json has 200000 bytes, and 100000 is the most".to_owned()),
        ("unwell", "it answers GET /no with status 404".to_owned()),
        ("linked", "address.json is a symbolic link, which is not followed".to_owned()),
        ("dies", "exit".to_owned()),
    ] {
        wait_until(&format!("what is wrong with {name}"), LONG, || {
            assert!(daemon.is_running(), "{}", daemon.log());
            let problem = site.service(name)["problem"].as_str().unwrap_or_default().to_owned();
            problem.contains(&told)
        });
        // The job of one that gets ready has a place in it until it dies, and is then tried again.
        let waiting = site.service(name)["waiting"].as_u64();
        assert!(waiting == Some(1) || name == "dies", "{name}: {waiting:?}");
    }
    daemon.wait_for_log("failed without its service, and does not count", LONG);
    for id in jobs.iter().chain([&elsewhere, &too_large]) {
        assert_eq!(site.consumer.record(id), None, "it waits, and has not failed");
    }
    let said = site.consumer.ask(&["services"]).output;
    assert!(said.contains("its instances do not last: "), "{said}");
    assert!(said.contains("jobs that wait for it: 1"), "{said}");
    for id in &jobs {
        assert!(site.consumer.ask(&["cancel", id]).status.success());
        assert_eq!(site.record(id, &mut daemon)["reason"], "cancelled");
    }
    for name in names {
        site.wait_until_none_is_left(name, "sleep 100");
    }
}

/// The example as it is, in real containers, as its README says.
#[test]
fn the_example_runs_in_containers() {
    let (image, place) = (parts::python_sif().display().to_string(), example().display().to_string());
    let otherwise = [
        ("/images/python.sif", image.as_str()),
        ("/home/you/hpc-queue/examples/services", place.as_str()),
        ("idle = \"10m\"", "idle = \"2s\""),
    ];
    let site = Site::of_text(&site_of(&example(), &otherwise), None);
    let mut daemon = site.consumer.start();
    let id = site.submit(3, 1, &json!({ "service": "vqpu", "qubits": { "min": 10 } }));
    let token = wait_for("a token", LONG, || site.tokens("vqpu").pop());
    let record = site.record(&id, &mut daemon);
    let instance = assert_measured(&record, 3, 1);
    let log = fs::read_to_string(site.consumer.job_dir(&instance).join("stdout.log")).expect("it has a log");
    assert!(log.contains("\"POST /circuits HTTP/1.1\" 200"), "{log}");
    wait_until("no instance to be left", LONG, || {
        site.instances("vqpu").is_empty() && site.published("vqpu").is_empty()
    });
    let record = site.record(&instance, &mut daemon);
    assert_eq!((&record["status"], &record["reason"]), (&json!("failed"), &json!("cancelled")), "{record}");
    assert!(record["message"].as_str().is_some_and(|message| message.contains("no job needs it")), "{record}");
    let mut found = Vec::new();
    files_with(site.consumer.home(), &token, &mut found);
    assert_eq!(found, Vec::<PathBuf>::new(), "the token is in them");
}

#[test]
fn a_service_in_slurm_is_reached_by_the_name_of_its_node() {
    VERSIONS.into_iter().for_each(is_reached_in_slurm);
}

fn is_reached_in_slurm(version: &'static str) {
    let near = "[service.near]\npool = \"vqpu\"\nready = { tcp = true, within = \"5s\" }\n".to_owned();
    let near = near + vqpu("", "").lines().find(|line| line.starts_with("command")).expect("it has a command") + "\n";
    let keys = "instances = { max = 1, users = 2 }\nlife = { idle = \"2s\" }";
    let services = vqpu("--listen 0.0.0.0", keys) + &near;
    let site = Site::in_slurm(Cluster::new(version).start(), &services);
    let mut daemon = site.consumer.start();
    let id = site.submit(7, 2, &json!("vqpu"));
    let record = site.record(&id, &mut daemon);
    let instance = assert_measured(&record, 7, 2);
    let record = site.record(&instance, &mut daemon);
    assert!(record["slurm_job_id"].is_string(), "{version}: {record}");
    let refused = site.submit(7, 1, &json!("near"));
    wait_until("what is wrong with it", LONG, || {
        let problem = site.service("near")["problem"].as_str().unwrap_or_default().to_owned();
        problem.contains("have it listen on 0.0.0.0")
    });
    assert_eq!(site.consumer.record(&refused), None, "{version}");
    assert!(site.consumer.ask(&["cancel", &refused]).status.success());
    site.wait_until_none_is_left("near", "vqpu.py");
    assert!(site.processes("vqpu.py").iter().all(|pid| !is_alive(*pid)));
}

/// The graph of `examples/flow`, as its README says for a node without a GPU: two virtual QPUs with Aer share the
/// circuits, and what they have measured is what two other tasks have calculated meanwhile.
#[test]
fn a_graph_shares_circuits_out_over_two_virtual_qpus_beside_a_processor_and_a_gpu() {
    let flow = parts::workspace().join("examples/flow");
    let places = [parts::quantum_sif(), parts::task_runner(), flow.clone(), example()];
    let [image, runner, of_flow, of_services] = places.map(|path| path.display().to_string());
    let otherwise = [
        ("/images/quantum.sif", image.as_str()),
        ("/opt/hpc-queue/task-runner", runner.as_str()),
        ("/home/you/hpc-queue/examples/flow", of_flow.as_str()),
        ("/home/you/hpc-queue/examples/services", of_services.as_str()),
        (", gpus = 1", ""),
        ("idle = \"10m\"", "idle = \"2s\""),
    ];
    let site = Site::of_text(&site_of(&flow, &otherwise), None);
    let mut daemon = site.consumer.start();
    let laptop = Laptop::new(&site.edge);
    let (graph, home) = (flow.join("workflow.json").display().to_string(), laptop.path("home"));
    let fetch = format!("--fetch={}", home.display());
    let mut run = laptop.start(&["workflow", "run", &graph, "--wait", &fetch]);
    let ended = run.wait_within(LONG).unwrap_or_else(|| panic!("it goes on: {}", daemon.log()));
    assert!(ended.success() && daemon.is_running(), "{}{}", run.log(), daemon.log());
    let said = run.output();
    let mut lines = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    let record = lines.find(|line| line["status"].is_string()).expect("the result is printed");
    assert_eq!(record["output"], json!({ "tasks": 6, "done": 6, "failed": 0, "skipped": 0 }), "{record}");

    // What came home says what was measured.
    let text = fs::read_to_string(home.join("result.json")).expect("it came home");
    let result: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!((&result["circuits"], &result["shots"]), (&json!(12), &json!(48_000)), "{result}");
    assert_eq!(result["shares"], json!({ "vqpu-1": 6, "vqpu-2": 6 }), "{result}");
    assert_eq!(result["device"], "processor", "{result}");
    let numbers = |field: &str| -> Vec<f64> {
        result[field].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let (measured, exact) = (numbers("measured"), numbers("exact"));
    // These were calculated once, in two ways.
    assert!((exact[0] - 0.815_97).abs() < 1e-4 && (exact[11] - 0.339_39).abs() < 1e-4, "{result}");
    assert_eq!(measured.len(), 12, "{result}");
    assert!(measured.iter().zip(&exact).all(|(measured, exact)| (measured - exact).abs() < 0.03), "{result}");
    assert!(result["references_differ_by"].as_f64() < Some(1e-9), "{result}");

    // Each task ran where its name belongs, and the virtual QPUs were asked for each circuit once.
    let id = record["job_id"].as_str().expect("it has an id");
    let pools = (1..=6).map(|number| site.record(&format!("{id}-{number}"), &mut daemon)["pool"].clone());
    assert_eq!(pools.collect::<Vec<_>>(), ["cpu", "cpu", "cpu", "cpu", "gpu", "cpu"]);
    let instances: BTreeSet<&str> =
        result["instances"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(instances.len(), 2, "{result}");
    for service in ["vqpu-1", "vqpu-2"] {
        wait_until("no instance to be left", LONG, || {
            site.instances(service).is_empty() && site.published(service).is_empty()
        });
    }
    for instance in instances {
        let log = fs::read_to_string(site.consumer.job_dir(instance).join("stdout.log")).expect("it has a log");
        assert_eq!(log.matches("\"POST /circuits HTTP/1.1\" 200").count(), 6, "{log}");
        let record = site.record(instance, &mut daemon);
        assert!(record["message"].as_str().is_some_and(|message| message.contains("no job needs it")), "{record}");
    }
}
