//! What is no workflow, and what is said of it.

use serde_json::{Value, json};
use workflow::limits::{ARGUMENT_BYTES_MAX, COMMAND_BYTES_MAX, DOCUMENT_BYTES_MAX, REFERENCES_MAX, TASKS_MAX};
use workflow::{Form, TaskNo, Workflow};

/// What is said of a document, a line for each problem.
fn said(document: &str) -> Vec<String> {
    match Workflow::parse(document) {
        Ok(_) => Vec::new(),
        Err(problems) => {
            assert_eq!(problems.more, 0, "{problems}");
            problems.told.iter().map(ToString::to_string).collect()
        }
    }
}

/// Exactly these problems, each told by some of its words.
fn says(document: &str, expected: &[&str]) {
    let said = said(document);
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for words in expected {
        assert!(said.iter().any(|said| said.contains(words)), "{words:?} is not in {said:#?}");
    }
}

fn task(id: &str, parents: &[&str], inputs: &[&str], outputs: &[&str]) -> Value {
    json!({"id": id, "name": "t", "parents": parents, "inputFiles": inputs, "outputFiles": outputs})
}

/// WfFormat 1.5 of these tasks, each of which runs a command.
fn wfformat(tasks: &[Value]) -> String {
    let run = |task: &Value| json!({"id": task["id"], "command": {"program": "p"}});
    let executed: Vec<Value> = tasks.iter().map(run).collect();
    with_runs(tasks, &executed)
}

fn with_runs(tasks: &[Value], executed: &[Value]) -> String {
    json!({"schemaVersion": "1.5", "workflow": {"specification": {"tasks": tasks}, "execution": {"tasks": executed}}})
        .to_string()
}

fn hyperflow(processes: &[Value], signals: &[&str]) -> String {
    let signals: Vec<Value> = signals.iter().map(|name| json!({"name": name})).collect();
    json!({"processes": processes, "signals": signals}).to_string()
}

fn process(ins: &[usize], outs: &[usize]) -> Value {
    json!({"name": "p", "ins": ins, "outs": outs, "config": {"executor": {"executable": "p"}}})
}

#[test]
fn what_is_neither_form_says_what_they_are() {
    for document in ["{}", "[]", "7", r#"{"tasks":null}"#, r#"{"name":"x","signals":[]}"#] {
        says(document, &["it is no workflow: WfFormat 1.5 is an object with `schemaVersion` and `workflow`"]);
    }
    for document in ["", "{", "#!/usr/bin/env cwl-runner\nclass: Workflow"] {
        says(document, &["it is not JSON: "]);
    }
    says(r#"{"workflow":{},"processes":[]}"#, &["could be of either form"]);
    says(r#"{"schemaVersion":"1.4","workflow":{"tasks":[]}}"#, &[r#"`schemaVersion` is `"1.4"`; only "1.5""#]);
    says(r#"{"workflow":{}}"#, &["`schemaVersion` is missing"]);
    says(r#"{"schemaVersion":"1.5","workflow":{}}"#, &["`workflow` is not as WfFormat 1.5 has it: missing field"]);
    says(&wfformat(&[]), &["has no tasks"]);
    says(&hyperflow(&[], &[]), &["has no tasks"]);
    says(
        &json!({"processes": {}, "signals": 1}).to_string(),
        &["`processes` must be a list", "`signals` must be a list"],
    );
    let with_mark = format!("\u{feff}{}", wfformat(&[task("a", &[], &[], &[])]));
    assert_eq!(said(&with_mark), [""; 0]);
}

#[test]
fn circles_name_their_tasks() {
    let tasks = [task("a", &["c"], &[], &[]), task("b", &["a"], &[], &[]), task("c", &["b"], &[], &[])];
    says(&wfformat(&tasks), &["in a circle: `a`, `c`, `b`"]);
    says(&wfformat(&[task("a", &["a"], &[], &[]), task("b", &["a"], &[], &[])]), &["the task `a` waits for itself"]);
    let turn = [process(&[0], &[1]), process(&[1], &[0])];
    says(&hyperflow(&turn, &["x", "y"]), &["in a circle: `p_1`, `p_2`"]);
}

#[test]
fn what_is_said_of_other_tasks_is_held_against_them() {
    says(&wfformat(&[task("a", &["z"], &[], &[])]), &["task `a`: its parent `z` is no task of the workflow"]);
    let mut parent = task("a", &[], &[], &[]);
    parent["children"] = json!(["y"]);
    says(&wfformat(&[parent.clone()]), &["task `a`: its child `y` is no task of the workflow"]);
    parent["children"] = json!([]);
    let child = task("b", &["a"], &[], &[]);
    says(
        &wfformat(&[parent.clone(), child]),
        &["task `b`: its parents have `a`, and the children of `a` do not have it"],
    );
    parent["children"] = json!(["b", "b"]);
    let child = task("b", &[], &[], &[]);
    let twice = "task `a`: its children have `b`, and the parents of `b` do not have it";
    says(&wfformat(&[parent.clone(), child]), &[twice, twice]);
    // Who says nothing contradicts nobody.
    let workflow = Workflow::parse(&wfformat(&[parent, json!({"id": "b", "name": "t"})])).unwrap();
    assert_eq!(workflow.tasks()[1].parents, [TaskNo::new(0)]);
    let same = [task("a", &[], &[], &[]), task("a", &[], &[], &[])];
    says(&wfformat(&same), &["task `a`: its id is that of an earlier task", "is in `workflow.execution` twice"]);
}

#[test]
fn where_no_task_says_what_it_waits_for_that_follows_from_the_files() {
    let task = |id, inputs: &[&str], outputs: &[&str]| json!({"id": id, "name": "t", "inputFiles": inputs, "outputFiles": outputs});
    let workflow = Workflow::parse(&wfformat(&[task("b", &["x", "y"], &[]), task("a", &["y"], &["x"])])).unwrap();
    assert_eq!(workflow.tasks()[0].parents, [TaskNo::new(1)]);
    assert_eq!(workflow.order(), [TaskNo::new(1), TaskNo::new(0)]);
}

#[test]
fn a_file_is_of_one_task_and_there_when_it_is_read() {
    let two = [task("a", &[], &[], &["x"]), task("b", &[], &[], &["x"])];
    says(&wfformat(&two), &["task `b`: it writes `x`, and `a` writes it as well"]);
    let read =
        |parents: &[&str]| [task("a", &[], &[], &["x"]), task("b", &["a"], &[], &[]), task("c", parents, &["x"], &[])];
    says(
        &wfformat(&read(&[])),
        &["task `c`: it reads `x`, which `a` writes, and does not wait for that; add `a` to its"],
    );
    assert_eq!(said(&wfformat(&read(&["b"]))), [""; 0], "it waits for it through another");
    says(&wfformat(&[task("a", &[], &["x"], &["x"])]), &["task `a`: it reads and writes `x`"]);
    says(&hyperflow(&[process(&[0], &[0])], &["x"]), &["task `p_1`: it reads and writes `x`"]);
    let within = [task("a", &[], &[], &["x"]), task("b", &[], &["x/y/z", "x.a", "x-", "x/a", "xy/z"], &[])];
    let expected = ["`x/y/z` lies within `x`, which is a file as well", "the file `x/a` lies within `x`"];
    says(&wfformat(&within), &expected);
    // More writers than are looked at together, and each is read too early by the one before it.
    let id = |number| format!("t{number}");
    let tasks: Vec<Value> = (0..200)
        .map(|number| task(&id(number), &[], &[&format!("f{}", number + 1)], &[&format!("f{number}")]))
        .collect();
    let problems = Workflow::parse(&wfformat(&tasks)).unwrap_err();
    assert_eq!(problems.told.len(), 100);
    let mut chain = tasks.clone();
    for (number, task) in chain.iter_mut().enumerate().take(199) {
        task["parents"] = json!([id(number + 1)]);
    }
    // The last is read by the first, through all others.
    chain[0]["inputFiles"] = json!(["f199"]);
    assert_eq!(said(&wfformat(&chain)), [""; 0]);
    chain[150]["parents"] = json!([]);
    says(
        &wfformat(&chain),
        &["task `t0`: it reads `f199`, which `t199` writes", "task `t150`: it reads `f151`, which `t151` writes"],
    );
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let long = "x".repeat(256);
    for path in ["../x", "a/../../x", "/etc/passwd", "", "a//b", "a\0b", "a\nb", "\u{1b}[2J", "a/", ".", &long] {
        says(&wfformat(&[task("a", &[], &[path], &[])]), &["must be a path below the directory of the workflow"]);
        says(&wfformat(&[task("a", &[], &[], &[path])]), &["must be a path below the directory of the workflow"]);
        says(&hyperflow(&[process(&[0], &[])], &[path]), &["must be a path below the directory of the workflow"]);
        let mut redirected = process(&[], &[]);
        redirected["config"]["executor"]["stdout"] = json!(path);
        says(&hyperflow(&[redirected], &[]), &["must be a path below the directory of the workflow"]);
    }
}

#[test]
fn names_are_those_of_jobs_and_tasks() {
    let named = |id: &str, name: &str| wfformat(&[json!({"id": id, "name": name})]);
    says(&named("", "t"), &["its id must be 1 to 128 characters"]);
    says(&named("a\u{7}b", "t"), &["task `a\\u{7}b`: its id must be"]);
    says(&named(&"x".repeat(129), "t"), &["its id must be"]);
    says(&named("a", ""), &["task `a`: its name `` must be 1 to 128 bytes"]);
    says(&named("a", "t\n"), &["its name `t\\n` must be"]);
    says(&named("a", &"x".repeat(129)), &["its name `xxx"]);
}

#[test]
fn commands_are_there_and_can_be_started() {
    let tasks = [task("a", &[], &[], &[]), task("b", &[], &[], &[])];
    let run = |id: &str, program: &str, arguments: Value| json!({"id": id, "command": {"program": program, "arguments": arguments}});
    let good = run("b", "p", json!([]));
    for (executed, expected) in [
        (json!([good]), "task `a`: it has no `command`"),
        (json!([good, {"id": "a"}]), "task `a`: it has no `command`"),
        (json!([good, {"id": "a", "command": {}}]), "task `a`: its program `` must be"),
        (json!([good, run("a", "-rf", json!([]))]), "its program `-rf` must be"),
        (json!([good, run("a", "p\0", json!([]))]), "must be a name or a path"),
        (json!([good, run("a", "p", json!(["x", "a\0b"]))]), "argument 2 has a NUL"),
        (json!([good, run("a", "p", json!(["x".repeat(ARGUMENT_BYTES_MAX + 1)]))]), "argument 1 is longer than"),
        (json!([good, run("a", "p", json!(vec!["x"; COMMAND_BYTES_MAX / 2]))]), "its command is longer than"),
        (json!([good, run("a", "p", json!("x"))]), "task `a`: entry 2 of `workflow.execution.tasks` is not as"),
        (json!([good, 7]), "entry 2 of `workflow.execution.tasks` is not as WfFormat 1.5 has it"),
    ] {
        let said = said(&with_runs(&tasks, executed.as_array().unwrap()));
        assert!(said.iter().any(|said| said.contains(expected)), "{expected:?} is not in {said:#?}");
    }
    let good = [run("a", "p", json!(["\n", ""])), good, run("c", "p", json!([]))];
    says(&with_runs(&tasks, &good), &["task `c`: it is in `workflow.execution` and not in `workflow.specification`"]);
    for (field, value, expected) in [
        ("runtimeInSeconds", json!(-1), "its `runtimeInSeconds` is no time"),
        ("coreCount", json!(1.5), "its `coreCount` must be a whole number"),
        ("coreCount", json!(0), "its `coreCount` must be a whole number"),
        ("coreCount", json!("4"), "expected f64"),
        ("needs", json!("vqpu"), "task `a`: its `needs` must be a list of services such as"),
        ("needs", json!(["vqpu", {"service": "vqpu", "qubits": 2}]), "its `needs` has the service vqpu twice"),
        ("needs", json!([{"service": "vqpu", "qubits": {"\u{1b}": 2}}]), "has `\\u{1b}`, which is no bound"),
    ] {
        let mut executed = good[..2].to_vec();
        executed[0][field] = value;
        says(&with_runs(&tasks, &executed), &[expected]);
    }
    let mut executed = good[..2].to_vec();
    executed[0]["coreCount"] = json!(4);
    let workflow = Workflow::parse(&with_runs(&tasks, &executed)).unwrap();
    assert_eq!(workflow.job(TaskNo::new(0)).unwrap().resources.unwrap().cpus, Some(4));
    assert_eq!(workflow.job(TaskNo::new(1)).unwrap().resources, None);
    let needs = json!(["db", {"service": "vqpu", "qubits": {"min": 20}}]);
    (executed[0]["needs"], executed[1]["needs"]) = (needs.clone(), Value::Null);
    let workflow = Workflow::parse(&with_runs(&tasks, &executed)).unwrap();
    assert_eq!(json!(workflow.job(TaskNo::new(0)).unwrap().needs), needs);
    assert_eq!(workflow.job(TaskNo::new(1)).unwrap().needs, []);
}

#[test]
fn what_needs_the_engine_of_hyperflow_is_refused_by_name() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut process = process(&[], &[]);
        change(&mut process);
        hyperflow(&[process], &[])
    };
    for kind in ["foreach", "choice", "join", "splitter"] {
        says(&with(&|process| process["type"] = json!(kind)), &[&format!("task `p_1`: it is of the type `{kind}`")]);
    }
    for limit in [0, 2, -1] {
        says(&with(&|process| process["firingLimit"] = json!(limit)), &["its `firingLimit` is"]);
    }
    says(
        &with(&|process| *process = json!({"name": "p", "function": "sqrsum"})),
        &["task `p_1`: its function is `sqrsum`, which is JavaScript"],
    );
    says(&with(&|process| process["sticky"] = json!(true)), &["a process has `sticky`, which is not known here"]);
    says(&with(&|process| process["config"]["env"] = json!({})), &["`config` has `env`"]);
    says(&with(&|process| process["config"]["executor"]["image"] = json!("i")), &["`executor` has `image`"]);
    says(&with(&|process| process["config"]["executor"]["stdoutAppend"] = json!("x")), &["has `stdoutAppend`"]);
    says(&with(&|process| process["config"]["executor"] = json!({})), &["has no `executable`"]);
    says(&with(&|process| process["ins"] = json!([3])), &["it names the signal 3, and there are 0"]);
    says(&with(&|process| process["ins"] = json!(["z"])), &["it names the signal `z`, which is not among"]);
    says(&with(&|process| process["ins"] = json!([-1])), &["entry 1 of `processes` cannot be read"]);
    let signals = json!([{"name": "a", "control": "next"}, {"name": "b", "data": [{}, {}]}, {"name": "b"}, {}]);
    let document = json!({"processes": [process(&[], &[])], "signals": signals}).to_string();
    says(&document, &["`a` has `control`", "`b` comes more than once", "`b` is there twice", "entry 4 of `signals`"]);
}

#[test]
fn all_of_it_is_told_at_once() {
    let mut first = process(&[0], &[0]);
    first["type"] = json!("choice");
    let mut second = process(&[7], &[1]);
    second["firingLimit"] = json!(3);
    let third = process(&[], &[1]);
    says(
        &hyperflow(&[first, second, third], &["../x", "y"]),
        &[
            "task `p_1`: it is of the type `choice`",
            "the file `../x` must",
            "task `p_2`: its `firingLimit` is 3",
            "task `p_2`: it names the signal 7",
            "task `p_3`: it writes `y`, and `p_2` writes it",
        ],
    );
}

#[test]
fn redirections_and_shells_of_hyperflow_are_kept() {
    let mut first = process(&[], &[]);
    first["config"]["executor"] = json!({"executable": "a", "args": ["b c"], "stdout": "log/out", "shell": true});
    let workflow = Workflow::parse(&hyperflow(&[first, process(&[0], &[])], &["log/out"])).unwrap();
    assert_eq!(workflow.form(), Form::HyperFlow);
    let input = workflow.job(TaskNo::new(0)).unwrap().input;
    assert_eq!(input.as_str(), r#"{"argv":["/bin/sh","-c","exec \"$@\" >\"$0\"","log/out","/bin/sh","-c","a b c"]}"#);
    assert_eq!(workflow.tasks()[1].parents, [TaskNo::new(0)], "where its output goes is a file that it writes");
    assert_eq!(workflow.folders().into_iter().collect::<Vec<_>>(), ["log"]);
}

#[test]
fn what_is_too_large_is_told_by_its_size() {
    says(&" ".repeat(DOCUMENT_BYTES_MAX + 1), &["bytes long, and may be 67108864"]);
    let tasks: Vec<Value> = (0..=TASKS_MAX).map(|number| task(&number.to_string(), &[], &[], &[])).collect();
    says(&with_runs(&tasks, &[]), &["`workflow` is not as WfFormat 1.5 has it: a list has more than 20000 entries"]);
    assert_eq!(said(&wfformat(&tasks[1..])), [""; 0], "so many can be");
    let processes = vec![json!({}); TASKS_MAX + 1];
    says(&hyperflow(&processes, &[]), &["`processes` must be a list, as HyperFlow has it: a list has more than 20000"]);
    let words = vec!["x"; REFERENCES_MAX / 2 + 1];
    let too_many = "its tasks name each other and files, and have arguments, more than 2000000 times";
    says(&wfformat(&[task("a", &[], &words, &[]), task("b", &[], &words, &[])]), &[too_many]);
    let run = |id: &str| json!({"id": id, "command": {"program": "p", "arguments": words}});
    says(&with_runs(&[], &[run("a"), run("b"), run("c")]), &[too_many]);
    let places = vec![0; REFERENCES_MAX / 2 + 1];
    says(&hyperflow(&[process(&places, &[]), process(&places, &[])], &["x"]), &[too_many]);
}
