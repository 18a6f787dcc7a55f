//! One promise is broken on purpose, and some history must notice: a simulation that never fails proves nothing.
//!
//! The sabotage is done at the boundary of the lifecycle, and it is to be seen from outside: [`lifecycle::permitted`]
//! is not asked.

use lifecycle::Fact;

use crate::world::history;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Deliveries are acknowledged when they are pulled.
    AckBeforeAccept,
    /// The disk drops facts of this kind without a word.
    Forget(Kind),
    /// Every claim is granted.
    SkipClaim,
    /// In a crash the effects are performed although the facts are not on disk.
    EffectsBeforeCommit,
    /// A run is begun before its launch is on disk.
    StartBeforeLaunch,
    /// The keeper does not tell what runs, and begins again what it knows.
    RestartInsteadOfObserve,
    /// A result has other bytes on each try.
    ForgetRecordBytes,
}

/// The facts that can be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Accepted,
    Launching,
    Recorded,
    Finished,
    Released,
}

impl Sabotage {
    /// Is this fact dropped?
    pub(crate) fn forgets(self, fact: &Fact) -> bool {
        let kind = match fact {
            Fact::Accepted { .. } => Kind::Accepted,
            Fact::Launching(..) => Kind::Launching,
            Fact::Recorded(..) => Kind::Recorded,
            Fact::Finished(_) => Kind::Finished,
            Fact::Released(_) => Kind::Released,
            Fact::Leased(..) | Fact::Acknowledged(_) | Fact::Again(..) => return false,
        };
        self == Self::Forget(kind)
    }
}

/// How many histories may overlook a sabotage.
const SEEDS: u64 = 300;

fn is_noticed(sabotage: Sabotage) {
    let noticed = (0..SEEDS).find_map(|seed| history(seed, Some(sabotage), false).err());
    match noticed {
        Some(violation) => println!("{sabotage:?}: seed {}: {}", violation.seed, violation.what),
        None => panic!("{sabotage:?} goes unnoticed in {SEEDS} histories"),
    }
}

#[test]
fn an_acknowledgement_before_the_acceptance_is_noticed() {
    is_noticed(Sabotage::AckBeforeAccept);
}

#[test]
fn a_forgotten_acceptance_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Accepted));
}

#[test]
fn a_forgotten_launch_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Launching));
}

#[test]
fn a_forgotten_record_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Recorded));
}

#[test]
fn a_forgotten_end_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Finished));
}

#[test]
fn a_forgotten_release_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Released));
}

#[test]
fn a_claim_that_is_always_granted_is_noticed() {
    is_noticed(Sabotage::SkipClaim);
}

#[test]
fn effects_without_their_facts_are_noticed() {
    is_noticed(Sabotage::EffectsBeforeCommit);
}

#[test]
fn a_start_before_its_launch_is_noticed() {
    is_noticed(Sabotage::StartBeforeLaunch);
}

#[test]
fn runs_that_are_begun_again_after_a_restart_are_noticed() {
    is_noticed(Sabotage::RestartInsteadOfObserve);
}

#[test]
fn results_with_other_bytes_on_each_try_are_noticed() {
    is_noticed(Sabotage::ForgetRecordBytes);
}
