//! `cargo xtask book`: the documents as a book to read in a browser, with the references that programs write
//! themselves.
//!
//! What `docs/SUMMARY.md` names is copied with what it links to, each at its place in the repository, so that links
//! hold in both; a page for the help of each program and one for the settings follow. mdBook makes the rest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::Context as _;

use crate::command;
use crate::tools::{Kind, Tools};
use crate::workspace::{Profile, Workspace, shown};

const PROGRAMS: [&str; 3] = ["laptop-consumer", "hpc-consumer", "local-edge"];

/// The contents, which lead to all else.
const CONTENTS: &str = "docs/SUMMARY.md";

const SETTINGS: &str = ".env.example";

const BOOK_TOML: &str = "[book]
title = \"hpc-queue\"
language = \"en\"
src = \"src\"

[output.html]
no-section-label = true
";

pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let tools = Tools::set_up(workspace, &[Kind::MdBook])?;
    let mdbook = tools.get(Kind::MdBook)?.path.clone();
    workspace.build(Profile::Dev, &PROGRAMS)?;

    let place = workspace.scratch()?.join("book");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", shown(&place)))?;
    }
    let src = place.join("src");
    copy(&workspace.root, &src)?;
    let mut contents = in_the_root(&fs::read_to_string(workspace.root.join(CONTENTS))?);
    contents.push_str("\n# Reference\n\n");
    let settings = fs::read_to_string(workspace.root.join(SETTINGS)).context("cannot read .env.example")?;
    write(&src.join("settings.md"), &settings_page(&settings))?;
    contents.push_str("- [Settings](settings.md)\n");
    for program in PROGRAMS {
        let page = format!("{program}.md");
        write(&src.join(&page), &help_page(&workspace.program(Profile::Dev, program), program)?)?;
        writeln!(contents, "- [`{program}`]({page})")?;
    }
    write(&src.join("SUMMARY.md"), &contents)?;
    write(&place.join("book.toml"), BOOK_TOML)?;
    command::run(Process::new(mdbook).arg("build").arg(&place))?;
    println!("\nThe book: {}", shown(&place.join("book/index.html")));
    Ok(())
}

/// Copies the documents, and whatever of the repository they link to, at its place.
fn copy(root: &Path, to: &Path) -> anyhow::Result<()> {
    let mut left = vec![PathBuf::from(CONTENTS)];
    let mut seen = BTreeSet::new();
    while let Some(file) = left.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let (from, to) = (root.join(&file), to.join(&file));
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        if file.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&from)?;
            let folder = file.parent().unwrap_or(Path::new(""));
            left.extend(targets(&text).map(|target| normal(&folder.join(target))).filter(|to| root.join(to).is_file()));
        }
    }
    fs::remove_file(to.join(CONTENTS)).context("the contents are written anew")
}

/// The files that a document links to, as it calls them.
fn targets(markdown: &str) -> impl Iterator<Item = &str> {
    let target = |rest: &str| rest.find([')', '#', ' ', '\n']).unwrap_or(rest.len());
    markdown.split("](").skip(1).map(move |rest| &rest[..target(rest)]).filter(|to| !to.is_empty() && !to.contains(':'))
}

/// The contents for a reader in the root of the repository.
fn in_the_root(contents: &str) -> String {
    let mut parts = contents.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(')').unwrap_or(part.len());
        let target = normal(&Path::new("docs").join(&part[..end]));
        text.push_str("](");
        text.push_str(&target.to_string_lossy());
        text.push_str(&part[end..]);
    }
    text
}

/// The path without `..`, as far as it has what they take back.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}

/// `.env.example`, a section for each of its headings.
fn settings_page(example: &str) -> String {
    let mut page = String::from("# Settings\n\n```ini\n");
    for line in example.lines() {
        match line.strip_prefix("# ---") {
            Some(heading) => {
                let heading = heading.trim_matches(['-', ' ']);
                page.truncate(page.trim_end().len());
                page.push_str(&format!("\n```\n\n## {heading}\n\n```ini\n"));
            }
            None => page.push_str(&format!("{line}\n")),
        }
    }
    page.push_str("```\n");
    page
}

/// The help of a program and of all its commands.
fn help_page(program: &Path, name: &str) -> anyhow::Result<String> {
    let scratch = tempfile::tempdir()?;
    command::capture(Process::new(program).arg("reference").arg(scratch.path()))?;
    // A page is called NAME-COMMAND-COMMAND.1, and no command has a dash in its name that the page would not have.
    let mut pages: Vec<String> = Vec::new();
    for entry in fs::read_dir(scratch.path())? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(page) = file.strip_suffix(".1") {
            pages.push(page.to_owned());
        }
    }
    pages.sort();
    let mut text = format!("# `{name}`\n");
    for page in pages {
        let words: Vec<&str> =
            page.strip_prefix(name).unwrap_or_default().split('-').filter(|w| !w.is_empty()).collect();
        if words.first() == Some(&"help") {
            continue;
        }
        let help = command::capture(Process::new(program).args(&words).arg("--help").env("COLUMNS", "100"))?;
        if !words.is_empty() {
            write!(text, "\n## `{name} {}`\n", words.join(" "))?;
        }
        write!(text, "\n```text\n{}\n```\n", help.trim_end())?;
    }
    Ok(text)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_hold_at_both_places() {
        let contents = "[A](../README.md)\n- [B](b.md)\n";
        assert_eq!(in_the_root(contents), "[A](README.md)\n- [B](docs/b.md)\n");
        let text = "see [x](x.md#there), [y](../y.rs \"y\"), [z](https://z) and [here](#here)";
        assert_eq!(targets(text).collect::<Vec<_>>(), ["x.md", "../y.rs"]);
    }

    #[test]
    fn settings_are_shown_by_section() {
        let page = settings_page("# Of all.\n\n# --- One: a program ------\nA=\n# B=1\n\n# --- Two ---\nC=\n");
        let one =
            "```ini\n# Of all.\n```\n\n## One: a program\n\n```ini\nA=\n# B=1\n```\n\n## Two\n\n```ini\nC=\n```\n";
        assert_eq!(page, format!("# Settings\n\n{one}"));
    }
}
