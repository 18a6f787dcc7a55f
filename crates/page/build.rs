//! Takes the built page into the crate, or one that says how to build it; and the policy, which stands in the page.
//!
//! A page of `dist/` is made by `build.mjs` alone, so what is not as expected in it is a mistake there.

use std::path::Path;
use std::{env, fs};

fn main() {
    // The directory is always there; the file is not, and a path without a file would mean to build again every time.
    println!("cargo::rerun-if-changed=dist");
    println!("cargo::rerun-if-changed=placeholder.html");
    println!("cargo::rerun-if-changed=build.rs");
    let built = Path::new("dist/index.html");
    let page = if built.is_file() { built } else { Path::new("placeholder.html") };
    let html = fs::read_to_string(page).unwrap_or_else(|error| panic!("cannot read {}: {error}", page.display()));
    let policy = policy(&html).unwrap_or_else(|| panic!("{} states no policy", page.display()));
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    let out = Path::new(&out);
    fs::write(out.join("policy.txt"), policy).expect("OUT_DIR can be written to");
    fs::write(out.join("index.html"), html).expect("OUT_DIR can be written to");
}

/// The policy in the page's `meta` element.
fn policy(html: &str) -> Option<&str> {
    let (_, rest) = html.split_once("<meta http-equiv=\"Content-Security-Policy\" content=\"")?;
    rest.split_once('"').map(|(policy, _)| policy)
}
