//! What must hold of whatever stands in the lines of a keeper and in its journal, for the fuzzer and the property
//! tests: what was read and is written is read as the same.

use std::fmt::Debug;

use serde::Serialize;

use super::folder::Origin;
use super::link::{Lines, push_line};
use super::messages::{FromKeeper, Message, ToKeeper};
use super::roster::Roster;

pub(crate) fn lines(bytes: &[u8]) {
    let is_written = |message: &ToKeeper| !matches!(message, ToKeeper::Unread { .. });
    same_again(bytes, is_written);
    same_again(bytes, |_: &FromKeeper| true);
}

fn same_again<T: Message + Serialize + PartialEq + Debug>(bytes: &[u8], is_written: impl Fn(&T) -> bool) {
    let messages = Lines::<T>::read(bytes).messages;
    assert!(messages.len() <= bytes.split(|byte| *byte == b'\n').count());
    let messages: Vec<T> = messages.into_iter().filter(is_written).collect();
    let mut written = Vec::new();
    messages.iter().for_each(|message| push_line(&mut written, message));
    assert_eq!(Lines::<T>::read(&written).messages, messages);
}

pub(crate) fn journal(bytes: &[u8]) {
    let Ok(mut roster) = Roster::parse(bytes) else { return };
    let again = |roster: &Roster| {
        let mut written = Vec::new();
        roster.lines().iter().for_each(|line| push_line(&mut written, line));
        Roster::parse(&written).expect("what is written is read")
    };
    assert_eq!(again(&roster), roster);
    let begun = roster.runs().alive.len();
    let cut_off = roster.runs().cut_off.len();
    let left = roster.take_over(Origin { boot_id: "b".to_owned(), host: "h".to_owned() });
    let runs = roster.runs();
    assert!(runs.alive.is_empty() && left.len() == begun && runs.cut_off.len() == cut_off + begun);
    assert_eq!(again(&roster), roster);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::targets;

    #[test]
    fn what_the_fuzzer_begins_with_holds() {
        targets::replay("keeper_lines", lines);
        targets::replay("keeper_journal", journal);
    }
}
