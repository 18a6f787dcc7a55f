//! Who may submit: comparing secrets without telling, by the time it takes, how much of a guess was right.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// A secret, kept as its digest: comparing digests takes the same time whatever the guess's length or content, and a
/// secret cannot be logged by mistake.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The secret with this text. An empty text is no secret and matches nothing.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Is `guess` the secret?
    pub fn matches(&self, guess: &str) -> bool {
        let guess: [u8; 32] = Sha256::digest(guess.as_bytes()).into();
        self.0.ct_eq(&guess).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_matches() {
        let secret = Secret::new("s3cret").unwrap();
        assert!(secret.matches("s3cret"));
        for guess in ["", "s3cre", "s3crets", "S3cret", " s3cret"] {
            assert!(!secret.matches(guess), "{guess:?}");
        }
        assert!(Secret::new("").is_none());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
