//! The examples of `docs/site.md` are files that can be read, and its tables have the keys that there are.

mod common;

use std::collections::BTreeSet;

use common::{file, job, parse};

const PAGE: &str = include_str!("../../../docs/site.md");

fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("```toml\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("a block has an end").0).collect()
}

#[test]
fn every_example_can_be_read() {
    assert!(examples().len() >= 8, "the search finds nothing any more");
    for example in examples() {
        let file = file(example);
        assert!(file.notices.is_empty(), "{:?}: {example}", file.notices);
    }
    let first = file(examples()[0]).site;
    let explained = first.explain(&job(r#"{"task":"any"}"#)).unwrap().to_string();
    assert!(explained.starts_with("pool        cpu  (it is the only pool)"), "{explained}");
    assert!(explained.contains("command     task-runner  (nobody names another)"), "{explained}");
}

/// What a section may have is a row of its table, and nothing else is.
#[test]
fn the_tables_have_the_keys_that_there_are() {
    for (section, heading) in [("pool", "## Pools"), ("task", "## Tasks"), ("service", "## Services")] {
        let text = format!("[pool.x]\nimage = \"/x.sif\"\n[{section}.x]\n\"?\" = 1").replacen(
            "[pool.x]\nimage",
            "[pool.y]\nimage",
            1,
        );
        let told = parse(&text).unwrap_err().to_string();
        let (_, keys) = told.split_once("the keys here are ").unwrap_or_else(|| panic!("{told}"));
        let keys: BTreeSet<&str> = keys.lines().next().unwrap().split(", ").collect();
        let (_, page) = PAGE.split_once(heading).unwrap();
        let (_, table) = page.split_once("| key | what | when it is missing |\n").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        let first = rows.map(|row| row.split('|').nth(1).unwrap());
        let documented: BTreeSet<&str> = first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        assert_eq!(documented, keys, "{section}");
    }
}
