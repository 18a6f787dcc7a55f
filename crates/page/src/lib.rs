//! The page of the hub, as text that is compiled into the edge: a person looks at jobs, pools and sites with it.
//!
//! In scope: the HTML and the policy that it must be served with. It is built from `web/` by `cargo xtask` (any of its
//! commands that builds an edge) into `dist/`; without that, as in a plain `cargo build` of a fresh clone, a short page
//! takes its place that says so. Out of scope: who asks for it and gets it (`edge`), and what the page asks
//! (`protocol::hub`).
//!
//! Invariants: one file; nothing in it asks another origin; the policy lets nothing run but the one script that is in
//! it, so that text of others on the page stays text.

const HTML: &str = include_str!(concat!(env!("OUT_DIR"), "/index.html"));

/// The policy that stands in it: it asks this edge and nobody else, and shows no picture.
const POLICY: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.txt"));

/// What a page cannot say of itself.
const ONLY_IN_HEADER: &str = "; frame-ancestors 'none'";

/// The value of the header `content-type`.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// Where files of jobs are, which the page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files<'a> {
    /// Nowhere.
    Nowhere,
    /// Beside the page.
    Here,
    /// At this scheme and host.
    At(&'a str),
}

/// The page, whole.
pub fn html(files: Files<'_>) -> String {
    HTML.replacen(POLICY, &in_page(files), 1)
}

/// The value of the header `content-security-policy` that it is served with.
pub fn policy(files: Files<'_>) -> String {
    in_page(files) + ONLY_IN_HEADER
}

fn in_page(files: Files<'_>) -> String {
    match files {
        Files::Nowhere => POLICY.to_owned(),
        Files::Here => POLICY.replacen("img-src", "img-src 'self'", 1),
        Files::At(origin) => {
            let pictures = POLICY.replacen("img-src", &format!("img-src {origin}"), 1);
            pictures.replacen("connect-src", &format!("connect-src {origin}"), 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_lets_nothing_of_others_in() {
        let policy = policy(Files::Nowhere);
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.split("; ").any(|had| had == part), "{policy}");
        }
        for word in ["unsafe", "http:", "https:", "*"] {
            assert!(!policy.contains(word), "{word} in {policy}");
        }
        assert!(policy.is_ascii() && !policy.contains('\n'), "it is the value of a header");
    }

    #[test]
    fn files_may_come_from_where_they_are_and_from_nowhere_else() {
        let differing = |files| {
            let (with, without) = (policy(files), policy(Files::Nowhere));
            let parts: Vec<String> = with.split("; ").map(str::to_owned).collect();
            parts.into_iter().filter(|part| without.split("; ").all(|had| had != part)).collect::<Vec<_>>()
        };
        assert_eq!(differing(Files::Here), ["img-src 'self' data:"]);
        let store = Files::At("https://store.example");
        let expected = ["connect-src https://store.example 'self'", "img-src https://store.example data:"];
        assert_eq!(differing(store), expected);
        // Of two policies both hold: that of the page must not be narrower than the one of the header.
        for files in [Files::Nowhere, Files::Here, store] {
            let in_page = format!("content=\"{}\"", policy(files).strip_suffix(ONLY_IN_HEADER).unwrap());
            assert!(html(files).contains(&in_page), "{in_page}");
        }
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
