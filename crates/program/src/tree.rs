//! A job and the jobs that it has asked for, as text: one line each, with when it began and for how long it ran, and a
//! bar of that beside it. Of many jobs of one parent there is a line for each task, so that a tree of any size fits on
//! a few screens.

use std::fmt::Write as _;
use std::time::Duration;

use protocol::{JobId, JobState, PoolName, Timestamp, Word};
use serde::Serialize;

use crate::{counted, one_line, table};

/// Where nobody says how wide it may be.
const WIDTH: usize = 80;

/// The longest name of a job, and of a pool, in characters.
const NAME_MAX: usize = 30;
const POOL_MAX: usize = 10;

/// More children than these are not drawn one by one.
const ALONE_MAX: usize = 40;

/// So many of those that failed are named then.
const FAILED_MAX: usize = 5;

/// So many lines are drawn in all.
const LINES_MAX: usize = 400;

/// The shortest bar that says anything.
const BAR_MIN: usize = 8;

/// A job, and what is below it. As JSON, fields may be added, nothing else.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// Which.
    pub job_id: JobId,
    /// What it runs.
    pub task: Option<String>,
    /// What its user, or its workflow, calls it.
    pub name: Option<String>,
    /// How far it is.
    pub state: Word<JobState>,
    /// The pool that it is in.
    pub pool: Option<PoolName>,
    /// When its last execution began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Its children, in the order of their numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<Node>,
    /// How many more it has, of which nothing is known but that.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A line of the tree.
struct Line {
    cells: [String; 5],
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    runs: bool,
}

/// Draws a tree that is no wider than this.
pub fn tree(root: &Node, now: Timestamp, width: Option<usize>) -> String {
    let mut lines = Vec::new();
    let first = first_of(root).unwrap_or(now);
    lines.push(line(root, "", first, now));
    draw_below(root, "", first, now, &mut lines);
    let left_out = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    let last = lines.iter().filter_map(|line| line.to).max().unwrap_or(now);
    let mut rows = vec![["JOB", "STATE", "POOL", "BEGAN", "RAN FOR"].map(str::to_owned)];
    rows.extend(lines.iter().map(|line| line.cells.clone()));
    let texts = table(&rows);
    let begins = texts.iter().map(|text| text.trim_end().chars().count()).max().unwrap_or_default() + 2;
    let room = width.unwrap_or(WIDTH).saturating_sub(begins);
    let mut drawn = String::new();
    let bars = std::iter::once(None).chain(lines.iter().map(Some));
    for (text, line) in texts.iter().zip(bars) {
        let bar = line.filter(|_| room >= BAR_MIN).map(|line| bar(line, first, last, room)).unwrap_or_default();
        let text = text.trim_end();
        let _ = if bar.is_empty() { writeln!(drawn, "{text}") } else { writeln!(drawn, "{text:begins$}{bar}") };
    }
    if left_out > 0 {
        let _ = writeln!(drawn, "and {} more", counted(left_out, "line"));
    }
    drawn
}

fn first_of(node: &Node) -> Option<Timestamp> {
    node.started.into_iter().chain(node.below.iter().filter_map(first_of)).min()
}

/// Until when it ran, or runs.
fn end_of(node: &Node, now: Timestamp) -> Option<Timestamp> {
    node.started?;
    node.ended.or((node.state == JobState::Running).then_some(now))
}

fn line(node: &Node, branch: &str, first: Timestamp, now: Timestamp) -> Line {
    let (from, to) = (node.started, end_of(node, now));
    let name = node.name.as_deref().or(node.task.as_deref()).map(one_line);
    let number = node.job_id.as_str().rsplit('-').next().unwrap_or_default();
    let label = match name {
        // The root is called by its whole id elsewhere.
        Some(name) if branch.is_empty() => name,
        Some(name) => format!("{number} {name}"),
        None if branch.is_empty() => node.job_id.to_string(),
        None => number.to_owned(),
    };
    let pool = node.pool.as_ref().map(ToString::to_string).unwrap_or_default();
    Line {
        cells: [
            cut(&format!("{branch}{label}"), NAME_MAX),
            one_line(&node.state.to_string()),
            cut(&pool, POOL_MAX),
            from.map_or_else(String::new, |from| format!("+{}", span(first, from))),
            from.zip(to).map_or_else(String::new, |(from, to)| span(from, to)),
        ],
        from,
        to,
        runs: node.state == JobState::Running,
    }
}

fn draw_below(node: &Node, indent: &str, first: Timestamp, now: Timestamp, lines: &mut Vec<Line>) {
    if lines.len() > LINES_MAX {
        return;
    }
    if node.below.len() > ALONE_MAX {
        return draw_kinds(node, indent, first, now, lines);
    }
    let last = node.below.len() - usize::from(node.more == 0 && !node.below.is_empty());
    for (no, child) in node.below.iter().enumerate() {
        let (branch, under) = if no == last { ("└ ", "  ") } else { ("├ ", "│ ") };
        lines.push(line(child, &format!("{indent}{branch}"), first, now));
        draw_below(child, &format!("{indent}{under}"), first, now, lines);
    }
    draw_more(node.more, indent, lines);
}

fn draw_more(more: usize, indent: &str, lines: &mut Vec<Line>) {
    if more > 0 {
        lines.push(said(format!("{indent}└ {more} more")));
    }
}

/// A line without times.
fn said(text: String) -> Line {
    let cells = [text, String::new(), String::new(), String::new(), String::new()];
    Line { cells, from: None, to: None, runs: false }
}

/// A line for each task, in the order in which they began, with those below it that failed.
fn draw_kinds(node: &Node, indent: &str, first: Timestamp, now: Timestamp, lines: &mut Vec<Line>) {
    let mut kinds: Vec<(&str, Vec<&Node>)> = Vec::new();
    for child in &node.below {
        let task = child.task.as_deref().unwrap_or("-");
        match kinds.iter_mut().find(|(known, _)| *known == task) {
            Some((_, nodes)) => nodes.push(child),
            None => kinds.push((task, vec![child])),
        }
    }
    kinds.sort_by_key(|(_, nodes)| nodes.iter().filter_map(|node| node.started).min().unwrap_or(now));
    let last = kinds.len() - usize::from(node.more == 0 && !kinds.is_empty());
    for (no, (task, nodes)) in kinds.into_iter().enumerate() {
        let (branch, under) = if no == last { ("└ ", "  ") } else { ("├ ", "│ ") };
        if let [alone] = nodes.as_slice() {
            lines.push(line(alone, &format!("{indent}{branch}"), first, now));
            draw_below(alone, &format!("{indent}{under}"), first, now, lines);
            continue;
        }
        lines.push(kind(&format!("{indent}{branch}{}", one_line(task)), &nodes, first, now));
        let failed: Vec<&&Node> = nodes.iter().filter(|node| node.state == JobState::Failed).collect();
        for node in failed.iter().take(FAILED_MAX) {
            lines.push(line(node, &format!("{indent}{under}· "), first, now));
        }
        if failed.len() > FAILED_MAX {
            lines.push(said(format!("{indent}{under}· {} more failed", failed.len() - FAILED_MAX)));
        }
    }
    draw_more(node.more, indent, lines);
}

/// All jobs of one task on a line. They ran for as long as all of them together, and the bar is from first to last.
fn kind(label: &str, nodes: &[&Node], first: Timestamp, now: Timestamp) -> Line {
    let of = |state: JobState| nodes.iter().filter(|node| node.state == state).count();
    let (failed, running, cancelled) = (of(JobState::Failed), of(JobState::Running), of(JobState::Cancelled));
    let ended = nodes.iter().filter(|node| node.state.known().is_some_and(JobState::has_ended)).count();
    let state = if failed > 0 {
        format!("{failed} failed")
    } else if running > 0 {
        format!("{running} running")
    } else if ended < nodes.len() {
        format!("{} held", nodes.len() - ended)
    } else if cancelled > 0 {
        format!("{cancelled} cancelled")
    } else {
        JobState::Completed.to_string()
    };
    let of_all = if ended < nodes.len() { format!("{ended} of {}", nodes.len()) } else { format!("×{}", nodes.len()) };
    let from = nodes.iter().filter_map(|node| node.started).min();
    let to = nodes.iter().filter_map(|node| end_of(node, now)).max();
    let pool = nodes.first().and_then(|node| node.pool.as_ref());
    let pool = pool.filter(|pool| nodes.iter().all(|node| node.pool.as_ref() == Some(*pool)));
    let together: i64 = nodes
        .iter()
        .filter_map(|node| Some(end_of(node, now)?.as_millisecond() - node.started?.as_millisecond()))
        .map(|took| took.max(0))
        .sum();
    let room = NAME_MAX.saturating_sub(of_all.chars().count() + 1);
    Line {
        cells: [
            format!("{} {of_all}", cut(label, room)),
            state,
            cut(&pool.map(ToString::to_string).unwrap_or_default(), POOL_MAX),
            from.map_or_else(String::new, |from| format!("+{}", span(first, from))),
            from.map_or_else(String::new, |_| words(together)),
        ],
        from,
        to,
        runs: running > 0,
    }
}

fn bar(line: &Line, first: Timestamp, last: Timestamp, room: usize) -> String {
    let (Some(from), Some(to)) = (line.from, line.to) else { return String::new() };
    let whole = (last.as_millisecond() - first.as_millisecond()).max(1) as f64;
    let at = |time: Timestamp| ((time.as_millisecond() - first.as_millisecond()) as f64 / whole).clamp(0.0, 1.0);
    let begin = ((at(from) * room as f64) as usize).min(room - 1);
    let end = ((at(to) * room as f64).ceil() as usize).clamp(begin + 1, room);
    let mut bar = format!("{}{}", " ".repeat(begin), "=".repeat(end - begin));
    if line.runs {
        bar.pop();
        bar.push('>');
    }
    bar
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn span(from: Timestamp, to: Timestamp) -> String {
    words((to.as_millisecond() - from.as_millisecond()).max(0))
}

/// A length of time, as a person says it.
fn words(milliseconds: i64) -> String {
    let time = Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default());
    match time.as_secs() {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use protocol::timestamp_from_millis;

    use super::*;

    /// `time` is when it began and ended, in seconds.
    fn node(job_id: &str, task: &str, state: JobState, time: (Option<i64>, Option<i64>)) -> Node {
        let at = |seconds: i64| timestamp_from_millis(seconds * 1_000);
        Node {
            job_id: job_id.parse().unwrap(),
            task: Some(task.to_owned()),
            name: None,
            state: state.into(),
            pool: Some("cpu".parse().unwrap()),
            started: time.0.map(at),
            ended: time.1.map(at),
            below: Vec::new(),
            more: 0,
        }
    }

    fn drawn(root: &Node) -> String {
        let text = tree(root, timestamp_from_millis(200_000), None);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        text
    }

    #[test]
    fn a_tree_is_drawn_with_its_times() {
        let mut root = node("w", "montage", JobState::Held, (None, None));
        let mut second =
            node("w-2", "a name that is much too long for a line", JobState::Completed, (Some(4), Some(100)));
        second.below = vec![node("w-2-1", "child\n", JobState::Failed, (Some(50), Some(52)))];
        let third = node("w-3", "plot", JobState::Running, (Some(100), None));
        root.below = vec![node("w-1", "split", JobState::Completed, (Some(0), Some(4))), second, third];
        root.below.push(node("w-4", "plot", JobState::Held, (None, None)));
        root.more = 7;
        assert_eq!(
            drawn(&root),
            "\
JOB                             STATE      POOL  BEGAN   RAN FOR
montage                         held       cpu
├ 1 split                       completed  cpu   +0.0 s  4.0 s    =
├ 2 a name that is much too l…  completed  cpu   +4.0 s  96 s     =======
│ └ 1 child                     failed     cpu   +50 s   2.0 s       =
├ 3 plot                        running    cpu   +100 s  100 s           ======>
├ 4 plot                        held       cpu
└ 7 more
"
        );
    }

    #[test]
    fn many_jobs_are_a_line_for_each_task_and_those_that_failed_are_named() {
        let mut root = node("w", "montage", JobState::Held, (None, None));
        let child = |no: i64| {
            let task = if no < 60 { "project" } else { "diff" };
            let id = format!("w-{}", no + 1);
            match no {
                3 | 61..=66 => node(&id, task, JobState::Failed, (Some(no), Some(no + 1))),
                67.. => node(&id, task, JobState::Held, (None, None)),
                _ => node(&id, task, JobState::Completed, (Some(no), Some(no + 2))),
            }
        };
        root.below = (0..100).map(child).collect();
        root.below.push(node("w-101", "plot", JobState::Held, (None, None)));
        let text = drawn(&root);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines.len(), 12, "{text}");
        assert!(lines[2].starts_with("├ project ×60 1 failed cpu +0.0 s 119 s ==="), "{text}");
        assert!(lines[3].starts_with("│ · 4 project failed cpu +3.0 s 1.0 s"), "{text}");
        assert!(lines[4].starts_with("├ diff 7 of 40 6 failed cpu +60 s 8.0 s"), "{text}");
        assert_eq!(lines[10..], ["│ · 1 more failed", "└ 101 plot held cpu"]);
    }

    #[test]
    fn many_jobs_that_were_cancelled_have_not_completed() {
        let mut root = node("w", "montage", JobState::Cancelled, (None, None));
        let child = |no: i64| node(&format!("w-{no}"), "project", JobState::Cancelled, (Some(no), Some(no + 1)));
        root.below = (0..50).map(child).collect();
        assert!(drawn(&root).contains("50 cancelled"), "{}", drawn(&root));
        root.below[0].state = JobState::Completed.into();
        assert!(drawn(&root).contains("49 cancelled"), "{}", drawn(&root));
    }

    #[test]
    fn a_tree_of_any_size_has_an_end() {
        let mut root = node("w", "t", JobState::Held, (None, None));
        let mut middle = node("w-1", "t", JobState::Held, (None, None));
        middle.below = (0..40).map(|no| node(&format!("w-1-{no}"), "t", JobState::Held, (None, None))).collect();
        root.below = vec![middle; 40];
        let text = drawn(&root);
        assert!(text.lines().count() <= LINES_MAX + 2 && text.contains("\nand "), "{text}");
    }
}
