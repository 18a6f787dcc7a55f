//! Leaves the names of functions out of the WASM: they are an eighth of what every start has to load. Where a panic
//! was, its message says.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=--strip-all");
        // wasm-bindgen has to know what the code uses.
        println!("cargo::rustc-link-arg-cdylib=--keep-section=target_features");
    }
}
