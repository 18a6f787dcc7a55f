//! The last step of the demo: the lowest energy of a hydrogen molecule, searched for by a job that waits for each of
//! its energies without a process or a slot, and how the search has come near it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Laptop, PATIENCE, result_in};
use crate::command;
use crate::local::toml_text;
use crate::processes::Process;
use crate::report::Report;
use crate::workspace::Workspace;

/// What the search has to come near, in hartree, and how near.
const EXACT: f64 = -1.857_275;
const NEAR: f64 = 0.001;

/// The size of the drawing, in characters.
const WIDTH: usize = 60;
const HEIGHT: usize = 10;

/// What the file of the site says of it: one more pool, and the two programs of the example.
pub(super) fn site(workspace: &Workspace, image: &Path) -> String {
    let programs = workspace.root.join("examples/quantum");
    let bind = format!("{}:/opt/quantum:ro", programs.display());
    let task = |name: &str| {
        format!(
            "[task.{name}]\npool = \"quantum\"\ncommand = [\"python3\", \"/opt/quantum/{name}.py\"]\nnetwork = false\n"
        )
    };
    format!(
        "[pool.quantum]\nimage = {}\nbinds = [{}]\ncapacity = {{ cpus = 2 }}\n\n{}\n{}\n# All others.\n\
         [task.\"*\"]\npool = \"small\"\npools = [\"large\"]\n",
        toml_text(image),
        toml_text(Path::new(&bind)),
        task("vqe"),
        task("estimate")
    )
}

/// Submits the job, waits for it, and draws what it has found.
pub(super) fn show(laptop: &Laptop<'_>, report: &Report) -> anyhow::Result<()> {
    let words = ["submit", "--task", "vqe", "--wait"];
    report.command(command::line(&laptop.command(&words)));
    let mut submit: Command = laptop.command(&words);
    submit.args(["--output", "json"]).env("RESULTS_POLL_INTERVAL_SECONDS", "0.5");
    let mut waiting = Process::start("laptop-consumer-vqe", &mut submit, laptop.folder)?;
    waiting.wait(PATIENCE)?;
    let log = waiting.log();
    let result = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let id = line["job_id"].as_str()?.to_owned();
        result_in(&log, &id).filter(|result| !result["status"].is_null())
    });
    let result = result.with_context(|| format!("no result came; it said: {}", log.trim()))?;
    let (energy, curve) = checked(&result)?;
    let (rounds, evaluations) = (&result["output"]["rounds"], &result["output"]["evaluations"]);
    report.note(drawing(&curve));
    report.note(format!(
        "The lowest energy is {energy:.6} hartree (exact: {EXACT:.6}), after {evaluations} energies, each a job of its \
         own, in {rounds} rounds; between them the search held nothing."
    ));
    Ok(())
}

/// The energy that was found, and the lowest one after so many.
fn checked(result: &Value) -> anyhow::Result<(f64, Vec<(f64, f64)>)> {
    let energy = result["output"]["energy"].as_f64();
    let Some(energy) = energy.filter(|energy| (energy - EXACT).abs() < NEAR) else {
        bail!("the energy must be {EXACT}, and the result is {result}");
    };
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
    let curve = result["output"]["curve"].as_array().into_iter().flatten().map(point).collect::<Option<Vec<_>>>();
    let curve = curve.filter(|curve| curve.len() > 1).with_context(|| format!("there is no curve in {result}"))?;
    Ok((energy, curve))
}

/// Points over their number, with the highest and the lowest value at the left.
fn drawing(points: &[(f64, f64)]) -> String {
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(of);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ((left, right), (low, high)) = (bounds(|point| point.0), bounds(|point| point.1));
    // Both ends of an axis are drawn, so there is one step less than there are characters.
    let at = |value: f64, from: f64, to: f64, size: usize| {
        let part = if to > from { (value - from) / (to - from) } else { 0.0 };
        (part * (size - 1) as f64).round() as usize
    };
    let mut rows = vec![vec![' '; WIDTH]; HEIGHT];
    for &(x, y) in points {
        rows[HEIGHT - 1 - at(y, low, high, HEIGHT)][at(x, left, right, WIDTH)] = '*';
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let label = match number {
            0 => format!("{high:.4}"),
            _ if number == HEIGHT - 1 => format!("{low:.4}"),
            _ => String::new(),
        };
        text += format!("{label:>10} |{}", row.iter().collect::<String>()).trim_end();
        text.push('\n');
    }
    let axis = format!("{:>10} +{}\n", "hartree", "-".repeat(WIDTH));
    text + &axis + &format!("{:>12}{left:<width$}{right} energies", "", width = WIDTH - 2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_search_that_fell_short_is_noticed() {
        let result = |energy: f64, curve: Value| json!({"output": {"energy": energy, "curve": curve}});
        let (energy, curve) = checked(&result(-1.8571, json!([[1, -1.5], [9, -1.8571]]))).unwrap();
        assert!((energy + 1.8571).abs() < 1e-9 && curve == [(1.0, -1.5), (9.0, -1.8571)]);
        for wrong in [result(-1.8, json!([[1, -1.5], [9, -1.8]])), result(-1.8571, json!([])), json!({"output": null})]
        {
            assert!(checked(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_drawing_goes_from_the_first_and_highest_to_the_last_and_lowest() {
        let drawn = drawing(&[(1.0, -1.0), (3.0, -1.5), (5.0, -2.0)]);
        let rows: Vec<&str> = drawn.lines().collect();
        assert_eq!((rows.len(), rows[0]), (HEIGHT + 2, "   -1.0000 |*"));
        assert_eq!(rows[HEIGHT - 1], format!("   -2.0000 |{}*", " ".repeat(WIDTH - 1)));
        assert!(rows.iter().all(|row| row.len() <= 80), "{drawn}");
        assert_eq!(drawn.matches('*').count(), 3);
        // A search that was right at once.
        assert_eq!(drawing(&[(1.0, -1.0), (1.0, -1.0)]).matches('*').count(), 1);
    }
}
