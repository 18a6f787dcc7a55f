//! Histories that once broke a promise, by what was wrong. They are kept for ever: a seed gives the same history as
//! long as the world asks for dice in the same order.

/// One test for each seed.
macro_rules! seeds {
    ($($name:ident: $seed:literal,)*) => {
        $(
            #[test]
            fn $name() {
                crate::keeps_the_promises($seed);
            }
        )*
    };
}

seeds! {
    a_job_that_is_lost_is_not_begun_when_the_list_is_called_complete_too_early: 709,
}
