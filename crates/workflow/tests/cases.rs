//! Workflows that others have written, in both forms.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use workflow::{Ended, Form, Progress, TaskNo, Workflow};

fn case(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases").join(name);
    fs::read_to_string(path).expect("it is in the repository")
}

fn workflow(name: &str) -> Workflow {
    Workflow::parse(&case(name)).unwrap_or_else(|problems| panic!("{name}: {problems}"))
}

/// How many tasks have each name.
fn names(workflow: &Workflow) -> BTreeMap<&str, usize> {
    let mut names = BTreeMap::new();
    workflow.tasks().iter().for_each(|task| *names.entry(task.name.as_str()).or_default() += 1);
    names
}

/// Tasks, edges, levels, files that are brought, files that nobody reads.
fn counts(workflow: &Workflow) -> [usize; 5] {
    let edges = workflow.tasks().iter().map(|task| task.parents.len()).sum();
    let (brought, results) = (workflow.brought().count(), workflow.results().count());
    assert_eq!(workflow.critical_path().len(), workflow.levels().len());
    [workflow.tasks().len(), edges, workflow.levels().len(), brought, results]
}

#[test]
fn traces_of_wfcommons_are_read_with_commands_files_and_times() {
    let chain = workflow("wfcommons/helloworld-chain-5-chameleon.json");
    assert_eq!((chain.form(), counts(&chain)), (Form::WfFormat, [5, 4, 5, 1, 1]));
    let first = &chain.tasks()[0];
    assert_eq!((first.id.as_str(), first.name.as_str()), ("cpuhog_chain_00000001", "cpuhog"));
    assert_eq!((first.seconds, first.command.arguments.len()), (Some(100.376), 7));
    assert_eq!(chain.brought().next().unwrap().as_str(), "chain_00000001_input.txt");

    let fork = workflow("wfcommons/helloworld-forkjoin-10-chameleon.json");
    assert_eq!((counts(&fork), names(&fork)), ([10, 16, 3, 1, 1], BTreeMap::from([("cpuhog", 10)])));

    let montage = workflow("wfcommons/montage-chameleon-2mass-005d-001.json");
    assert_eq!(counts(&montage), [58, 114, 8, 26, 7]);
    let expected = [("mAdd", 3), ("mBackground", 12), ("mBgModel", 3), ("mConcatFit", 3), ("mDiffFit", 18)];
    let expected = expected.into_iter().chain([("mImgtbl", 3), ("mProject", 12), ("mViewer", 4)]);
    assert_eq!(names(&montage), expected.collect());
}

#[test]
fn a_trace_without_commands_is_told_once() {
    let problems = Workflow::parse(&case("wfcommons/1000genome-chameleon-2ch-100k-001.json")).unwrap_err();
    assert_eq!((problems.told.len(), problems.more), (1, 0), "{problems}");
    assert!(problems.to_string().contains("no task has a command"), "{problems}");
}

#[test]
fn the_montage_of_hyperflow_is_a_graph_of_files() {
    let montage = workflow("montage143/workflow.json");
    assert_eq!((montage.form(), counts(&montage)), (Form::HyperFlow, [143, 351, 9, 39, 75]));
    let expected = [("mAdd", 1), ("mBackground", 32), ("mBgModel", 1), ("mConcatFit", 1), ("mDiffFit", 73)];
    let expected = expected.into_iter().chain([("mImgtbl", 1), ("mJPEG", 1), ("mProjectPP", 32), ("mShrink", 1)]);
    assert_eq!(names(&montage), expected.collect());
    assert_eq!((montage.files().len(), montage.folders().len()), (320, 0));

    let first = montage.job(TaskNo::new(0)).unwrap();
    assert_eq!((first.task.as_str(), first.name.as_deref()), ("mProjectPP", Some("mProjectPP_1")));
    assert_eq!(
        first.input.as_str(),
        r#"{"argv":["mProjectPP","-X","-x","0.99385","2mass-atlas-990502s-j1450080.fits","p2mass-atlas-990502s-j1450080.fits","big_region_20130212_013030_8881.hdr"]}"#
    );
    let path: Vec<&str> =
        montage.critical_path().iter().map(|task| montage.get(*task).unwrap().name.as_str()).collect();
    let bottleneck = ["mConcatFit", "mBgModel", "mBackground", "mImgtbl", "mAdd", "mShrink", "mJPEG"];
    assert_eq!(path, [["mProjectPP", "mDiffFit"].as_slice(), &bottleneck].concat());
}

#[test]
fn a_task_of_montage_that_fails_takes_what_needs_it_along_and_nothing_else() {
    let montage = workflow("montage143/workflow.json");
    let mut progress = Progress::new(&montage);
    assert_eq!(progress.ready().count(), 32, "all projections can begin at once");
    while let Some(task) = progress.first_ready() {
        let fails = montage.get(task).unwrap().name == "mBgModel";
        assert!(progress.begun(task));
        assert!(progress.ended(task, if fails { Ended::Failed } else { Ended::Done }));
    }
    let summary = progress.summary();
    // 32 projections, 73 differences and their table are done; all behind the model is not.
    assert_eq!((summary.done, summary.failed, summary.skipped), (106, 1, 36));
    assert!(progress.is_over());
}
