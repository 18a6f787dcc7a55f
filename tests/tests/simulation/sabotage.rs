//! One promise is broken on purpose, and some history must notice: a simulation that never fails proves nothing.
//!
//! The sabotage is done at the boundary of the lifecycle, and it is to be seen from outside: [`lifecycle::permitted`]
//! is not asked.

use lifecycle::Fact;

use crate::world::{history, quiet_history, stranded_history};

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
    /// A claim that is given up stays, and nobody is told.
    KeepClaim,
    /// Acknowledgements of jobs that have not ended are dropped.
    LoseEarlyAcks,
    /// A daemon that starts is not told which jobs are cancelled.
    ForgetCancellations,
    /// Nobody looks at the queue but who is woken.
    ForgetSafetyNet,
    /// The hub is not told how jobs have ended.
    ForgetEnds,
    /// Files are said to be here, and nothing was fetched.
    StageNothing,
    /// What comes from the store is not compared with what was announced.
    TakeAnyFile,
    /// The store is believed that it has what it was sent.
    BelieveTheStore,
    /// A record is written although the outputs are not in the store.
    RecordBeforeUpload,
    /// A run counts as going on until the store takes its outputs.
    KeepSlot,
    /// Nobody hears that files could not be fetched for now.
    ForgetAway,
    /// The disk forgets in which instances of services runs have their places.
    ForgetPlaces,
    /// Instances of services are said to be ready that are not.
    SayReady,
    /// The queue says that a pull was held for longer than it was: its leases seem to begin later than they do.
    HeldForLonger,
}

/// The facts that can be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Accepted,
    Launching,
    Again,
    Recorded,
    Finished,
    Released,
    Leased,
    Acknowledged,
    Parked,
    Idle,
    Unwanted,
}

impl Sabotage {
    /// Is this fact dropped?
    pub(crate) fn forgets(self, fact: &Fact) -> bool {
        let kind = match fact {
            Fact::Accepted { .. } => Kind::Accepted,
            Fact::Launching(..) => Kind::Launching,
            Fact::Again(..) => Kind::Again,
            Fact::Recorded(..) | Fact::Owed(..) => Kind::Recorded,
            Fact::Finished(_) => Kind::Finished,
            Fact::Released(_) => Kind::Released,
            Fact::Leased(..) => Kind::Leased,
            Fact::Acknowledged(_) => Kind::Acknowledged,
            Fact::Parked(..) => Kind::Parked,
            Fact::Idle(..) => Kind::Idle,
            Fact::Unwanted(_) => Kind::Unwanted,
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
fn a_forgotten_end_of_an_attempt_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Again));
}

#[test]
fn a_forgotten_parking_is_noticed() {
    is_noticed(Sabotage::Forget(Kind::Parked));
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

/// These two spare a delivery, and nothing that is promised hangs on them.
#[test]
fn without_the_facts_of_further_leases_and_acknowledgements_the_promises_are_kept() {
    for kind in [Kind::Leased, Kind::Acknowledged] {
        for seed in 0..100 {
            if let Err(violation) = history(seed, Some(Sabotage::Forget(kind)), false) {
                panic!("{kind:?}: {violation}");
            }
        }
    }
}

#[test]
fn a_claim_that_stays_when_its_job_goes_back_is_noticed() {
    is_noticed(Sabotage::KeepClaim);
}

/// Where nothing goes wrong: elsewhere a message may come again, and mostly does no harm.
#[test]
fn early_acknowledgements_that_are_lost_are_noticed() {
    let noticed = crate::SEEDS_OF_MANY_LEASES
        .into_iter()
        .find_map(|seed| quiet_history(seed, Some(Sabotage::LoseEarlyAcks), false).err());
    assert!(noticed.is_some_and(|violation| violation.what.contains("once more")), "they go unnoticed");
}

#[test]
fn a_run_without_its_files_is_noticed() {
    is_noticed(Sabotage::StageNothing);
}

/// By what is promised of them, and not because something else follows from it.
#[test]
fn a_store_that_lies_and_is_believed_is_noticed_in_both_directions() {
    for (sabotage, what) in
        [(Sabotage::TakeAnyFile, "its message announces"), (Sabotage::BelieveTheStore, "the store has")]
    {
        let noticed = (0..SEEDS).find_map(|seed| history(seed, Some(sabotage), false).err());
        let violation = noticed.unwrap_or_else(|| panic!("{sabotage:?} goes unnoticed in {SEEDS} histories"));
        assert!(violation.what.contains(what), "{sabotage:?}: {}", violation.what);
    }
}

#[test]
fn a_record_before_its_outputs_is_noticed() {
    is_noticed(Sabotage::RecordBeforeUpload);
}

/// Where the store is away for long, and nothing else is wrong.
#[test]
fn a_slot_that_is_kept_and_a_job_that_is_forgotten_while_the_store_is_away_are_noticed() {
    for (sabotage, what) in [(Sabotage::KeepSlot, "held up"), (Sabotage::ForgetAway, "no final record")] {
        let noticed = (0..20).find_map(|seed| stranded_history(seed, Some(sabotage), false).err());
        let violation = noticed.unwrap_or_else(|| panic!("{sabotage:?} goes unnoticed"));
        assert!(violation.what.contains(what), "{sabotage:?}: {}", violation.what);
    }
}

#[test]
fn a_lease_that_is_counted_on_for_too_long_is_noticed() {
    is_noticed(Sabotage::HeldForLonger);
}

#[test]
fn places_in_services_that_are_forgotten_are_noticed() {
    is_noticed(Sabotage::ForgetPlaces);
}

#[test]
fn instances_that_are_not_ready_are_noticed() {
    is_noticed(Sabotage::SayReady);
}

#[test]
fn a_queue_at_which_nobody_looks_unless_woken_is_noticed() {
    is_noticed(Sabotage::ForgetSafetyNet);
}

#[test]
fn ends_that_the_hub_is_not_told_of_are_noticed() {
    is_noticed(Sabotage::ForgetEnds);
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
fn cancellations_that_are_forgotten_are_noticed() {
    is_noticed(Sabotage::ForgetCancellations);
}

#[test]
fn results_with_other_bytes_on_each_try_are_noticed() {
    is_noticed(Sabotage::ForgetRecordBytes);
}
