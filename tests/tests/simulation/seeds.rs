//! Histories that once broke a promise, by what was wrong. A seed gives the same history as long as the world asks for
//! dice in the same order; where that changes, a step test of `lifecycle` must tell the rule, and the seed goes.

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

seeds! {}
