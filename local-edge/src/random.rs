//! Randomness, from the operating system.

/// 16 random bytes.
pub(crate) fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes at any time after it has booted");
    bytes
}

/// 32 hexadecimal digits: the form of the service's ids, and a secret of 128 bits.
pub(crate) fn hex() -> String {
    format!("{:032x}", u128::from_be_bytes(bytes()))
}

/// What callbacks are signed with, as it is handed around.
pub(crate) fn signing_secret() -> String {
    let mut random = [0; 32];
    random[..16].copy_from_slice(&bytes());
    random[16..].copy_from_slice(&bytes());
    edge::SigningSecret::text_of(random)
}
