//! The page of the hub, as text that is compiled into the edge: a person looks at jobs, pools and sites with it.
//!
//! In scope: the HTML and the policy that it must be served with. It is built from `web/` by `cargo xtask` (any of its
//! commands that builds an edge) into `dist/`; without that, as in a plain `cargo build` of a fresh clone, a short page
//! takes its place that says so. Out of scope: who asks for it and gets it (`edge`), and what the page asks
//! (`protocol::hub`).
//!
//! Invariants: one file; nothing in it asks another origin; the policy lets nothing run but the one script that is in
//! it, so that text of others on the page stays text.

/// The page, whole.
pub const HTML: &str = include_str!(concat!(env!("OUT_DIR"), "/index.html"));

/// The value of the header `content-security-policy` that it is served with.
pub const CSP: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.txt"));

/// The value of the header `content-type`.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_lets_nothing_of_others_in() {
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(CSP.split("; ").any(|had| had == part), "{CSP}");
        }
        for word in ["unsafe", "http:", "https:", "*"] {
            assert!(!CSP.contains(word), "{word} in {CSP}");
        }
        assert!(CSP.is_ascii() && !CSP.contains('\n'), "it is the value of a header");
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        assert!(HTML.starts_with("<!doctype html>") && HTML.trim_end().ends_with("</html>"));
        assert!(HTML.contains("<title>hpc-queue</title>"));
        for word in ["src=\"http", "href=\"http", "src=\"//", "@import", "sourceMappingURL"] {
            assert!(!HTML.contains(word), "{word} in the page");
        }
    }
}
