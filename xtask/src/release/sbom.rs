//! What the programs of an archive are made of, as CycloneDX: every package that is compiled into one of them, with its
//! version, license and the hash of its source. Cargo knows all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::VERSION;
use crate::command;
use crate::workspace::Workspace;

pub(super) fn of(workspace: &Workspace, programs: &[&str], target: &str) -> anyhow::Result<String> {
    let mut metadata = workspace.cargo("metadata");
    metadata.args(["--locked", "--format-version", "1", "--filter-platform", target]);
    let metadata: Value = serde_json::from_str(&command::capture(&mut metadata)?)?;
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    Ok(serde_json::to_string_pretty(&bom(&metadata, &lock, programs, target)?)? + "\n")
}

fn bom(metadata: &Value, lock: &str, programs: &[&str], target: &str) -> anyhow::Result<Value> {
    let packages = metadata["packages"].as_array().context("cargo names no packages")?;
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo names no dependencies")?;
    let of_id: BTreeMap<&str, &Value> =
        packages.iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let needs: BTreeMap<&str, &Value> = nodes.iter().filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let is_program = |package: &&Value| programs.iter().any(|name| package["name"] == *name);
    let mut todo: Vec<&str> = packages.iter().filter(is_program).filter_map(|package| package["id"].as_str()).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !found.insert(id) {
            continue;
        }
        let uses = needs.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten();
        // What only builds or tests it is not in it.
        let is_in_it = |used: &&Value| {
            used["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        todo.extend(uses.filter(is_in_it).filter_map(|used| used["pkg"].as_str()));
    }
    let hashes = hashes(lock);
    let mut components: Vec<Value> = found
        .into_iter()
        .filter_map(|id| of_id.get(id))
        .map(|package| {
            let (name, version) = (package["name"].as_str().unwrap_or(""), package["version"].as_str().unwrap_or(""));
            let license = package["license"].as_str().unwrap_or("NOASSERTION").replace('/', " OR ");
            let mut component = json!({
                "type": "library",
                "name": name,
                "version": version,
                "purl": format!("pkg:cargo/{name}@{version}"),
                "licenses": [{"expression": license}],
            });
            if let Some(hash) = hashes.get(&(name.to_owned(), version.to_owned())) {
                component["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
            }
            component
        })
        .collect();
    components.sort_by_key(|component| component["purl"].to_string());
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "name": "hpc-queue",
            "version": VERSION,
            "properties": [{"name": "target", "value": target}],
        }},
        "components": components,
    }))
}

/// The hash of each source, by name and version; what lies in this repository has none.
fn hashes(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
        line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    let blocks = lock.split("[[package]]");
    blocks
        .filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_in_is_named_and_nothing_else() {
        let package =
            |name: &str, license: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": license});
        let uses = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("hpc-consumer", "MIT OR Apache-2.0"), package("a", "MIT/Apache-2.0"),
                         package("b", "ISC"), package("only-builds", "MIT"), package("other", "MIT")],
            "resolve": {"nodes": [
                {"id": "hpc-consumer", "deps": [uses("a", Value::Null), uses("only-builds", json!("build"))]},
                {"id": "a", "deps": [uses("b", Value::Null), uses("other", json!("dev"))]},
                {"id": "b", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let bom = bom(&metadata, lock, &["hpc-consumer"], "t").unwrap();
        let components = bom["components"].as_array().unwrap();
        let names: Vec<&str> = components.iter().filter_map(|component| component["name"].as_str()).collect();
        assert_eq!(names, ["a", "b", "hpc-consumer"]);
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[1]["hashes"][0]["content"], "abc");
        assert_eq!(components[1]["purl"], "pkg:cargo/b@1.0.0");
    }
}
