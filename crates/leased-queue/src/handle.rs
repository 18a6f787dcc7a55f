//! What stands for a message, or for one delivery of it, in a client's hands.

use std::fmt;
use std::str::FromStr;

use crate::Seq;

/// The id of a message: 16 random bytes, shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A lease id (of a pull) or a reference (of a peek). Opaque to clients.
///
/// It is derived from the message and the number of the delivery, so it takes no storage, and every lease that a live
/// message was ever given leads back to it: that is what makes late acknowledgements work. `seq` finds the message and
/// `id` proves that it is the one. A message in the dead letter queue has a new `seq`, so its old leases are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Which message.
    pub seq: Seq,
    /// Which delivery of it, counted from 1; 0 in a reference, which is no delivery.
    pub attempt: u32,
    /// The message's id.
    pub id: MessageId,
}

/// The text is no lease id and no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an id that the queue has given out")]
pub struct InvalidHandle;

/// Hexadecimal digits of the sequence number, the delivery and the id.
const DIGITS: usize = 16 + 8 + 32;

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}{}", self.seq, self.attempt, self.id)
    }
}

impl FromStr for Handle {
    type Err = InvalidHandle;

    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != DIGITS || !text.as_bytes().iter().all(digit) {
            return Err(InvalidHandle);
        }
        Ok(Self {
            seq: Seq::from_str_radix(&text[..16], 16).map_err(|_| InvalidHandle)?,
            attempt: u32::from_str_radix(&text[16..24], 16).map_err(|_| InvalidHandle)?,
            id: MessageId(u128::from_str_radix(&text[24..], 16).map_err(|_| InvalidHandle)?.to_be_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handle_format_unchanged() {
        // Leases that were given out before an upgrade are acknowledged after it.
        let handle = Handle { seq: 258, attempt: 3, id: MessageId([0xab; 16]) };
        let text = "000000000000010200000003abababababababababababababababab";
        assert_eq!(handle.to_string(), text);
        assert_eq!(text.parse(), Ok(handle));
        assert_eq!(MessageId([0; 16]).to_string(), "0".repeat(32));
    }

    #[test]
    fn other_texts_are_no_handles() {
        let whole = Handle { seq: 1, attempt: 1, id: MessageId([1; 16]) }.to_string();
        let negative = format!("f{}", &whole[1..]);
        for text in ["", "x", &whole[1..], &format!("{whole}0"), &whole.replace('1', "é"), &negative, &"+".repeat(56)]
        {
            assert_eq!(text.parse::<Handle>(), Err(InvalidHandle), "{text:?}");
        }
    }
}
