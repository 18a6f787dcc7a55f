//! What an image is called in a registry, as sites write it: `ghcr.io/OWNER/NAME:TAG`, with `docker://` or `oras://`
//! before it or not, and with a digest behind it or not.
//!
//! Out of scope: asking the registry, and pulling.

use std::fmt;

/// The registry of names that have none, and where that one answers.
const HUB: &str = "docker.io";
const HUB_API: &str = "registry-1.docker.io";

/// A larger one is none.
const LENGTH_MAX: usize = 500;

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Is it a `.sif` file that the registry has as it is, and not layers?
    pub is_sif: bool,
    /// The name of the registry's host, with its port if there is one.
    pub host: String,
    /// The name of the image there.
    pub name: String,
    /// Which of its images: a tag, which may come to name another one, or a digest, which cannot.
    pub which: Which,
}

/// What tells one image of a name from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Whatever has this tag.
    Tag(String),
    /// The one with this digest.
    Digest(String),
}

impl Which {
    /// As a registry is asked for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(text) | Self::Digest(text) => text,
        }
    }
}

impl Reference {
    /// Reads one. The error is the end of a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (is_sif, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("docker", rest)) => (false, rest),
            Some(("oras", rest)) => (true, rest),
            Some((scheme, _)) => {
                return Err(format!(
                    "begins with {scheme}://, which is no registry of images: docker:// or oras:// is"
                ));
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if rest.is_empty() || rest.len() > LENGTH_MAX || !rest.chars().all(plain) {
            return Err("is no name of an image, as ghcr.io/OWNER/NAME:TAG is".to_owned());
        }
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err("must end in @sha256: and 64 hexadecimal digits, where it has a digest".to_owned());
        }
        // A colon in the first part is that of a port, unless there is no other part.
        let (host, path) = match named.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_owned(), path.to_owned())
            }
            Some(_) => (HUB.to_owned(), named.to_owned()),
            None => (HUB.to_owned(), format!("library/{named}")),
        };
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name.to_owned(), tag),
            None => (path.clone(), "latest"),
        };
        let part = |part: &str| !part.is_empty() && part != "." && part != "..";
        if name.contains(':') || !name.split('/').all(part) || !part(tag) || tag.contains('/') {
            return Err("is no name of an image, as ghcr.io/OWNER/NAME:TAG is".to_owned());
        }
        let which = match digest {
            Some(digest) => Which::Digest(digest.to_owned()),
            None => Which::Tag(tag.to_owned()),
        };
        Ok(Self { is_sif, host, name, which })
    }

    /// The same image by its digest, under which it cannot become another one.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { which: Which::Digest(digest.to_owned()), ..self.clone() }
    }

    /// The address at which its registry answers. One on this machine speaks plain http, as those of tests and tunnels
    /// do.
    pub fn address(&self) -> String {
        let host = if self.host == HUB { HUB_API } else { &self.host };
        if self.is_here() { format!("http://{host}") } else { format!("https://{host}") }
    }

    /// Is its registry on this machine?
    pub fn is_here(&self) -> bool {
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        name == "localhost" || name.parse::<core::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Is this `sha256:` and 64 hexadecimal digits?
pub fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_sif { "oras" } else { "docker" };
        let sign = if matches!(self.which, Which::Tag(_)) { ':' } else { '@' };
        write!(f, "{scheme}://{}/{}{sign}{}", self.host, self.name, self.which.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn names_are_read_as_registries_have_them() {
        for (text, whole, address) in [
            ("debian", "docker://docker.io/library/debian:latest", "https://registry-1.docker.io"),
            ("debian:13", "docker://docker.io/library/debian:13", "https://registry-1.docker.io"),
            ("me/image", "docker://docker.io/me/image:latest", "https://registry-1.docker.io"),
            ("docker://ghcr.io/a/b:7", "docker://ghcr.io/a/b:7", "https://ghcr.io"),
            ("oras://ghcr.io/a/b/c", "oras://ghcr.io/a/b/c:latest", "https://ghcr.io"),
            ("localhost:5000/b:7", "docker://localhost:5000/b:7", "http://localhost:5000"),
            ("127.0.0.1:5000/b", "docker://127.0.0.1:5000/b:latest", "http://127.0.0.1:5000"),
            ("registry:5000/b", "docker://registry:5000/b:latest", "https://registry:5000"),
        ] {
            let read = Reference::parse(text).unwrap();
            assert_eq!((read.to_string().as_str(), read.address().as_str()), (whole, address), "{text}");
            assert_eq!(Reference::parse(whole).unwrap(), read);
        }
        let pinned = Reference::parse(&format!("ghcr.io/a/b:7@{DIGEST}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker://ghcr.io/a/b@{DIGEST}"), "a digest says all");
        assert_eq!(Reference::parse("ghcr.io/a/b").unwrap().with_digest(DIGEST), pinned);
    }

    #[test]
    fn what_is_no_image_of_a_registry_is_refused() {
        for text in [
            "",
            "docker://",
            "library://a/b",
            "shub://a/b",
            "http://a.b/c.sif",
            "ghcr.io/a/b@sha256:12",
            "a b",
            "a?b",
            "ghcr.io/",
            "ghcr.io//b",
            "ghcr.io/../b",
            "ghcr.io/a:b:c",
            "ghcr.io/a:",
            "ghcr.io/a:b/c:1",
            "-\n",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}: {:?}", Reference::parse(text));
        }
        assert!(!Reference::parse("10.0.0.1:5000/b").unwrap().is_here(), "only this machine does without TLS");
        assert!(!Reference::parse("localhost.example/b").unwrap().is_here());
    }
}
