//! `simulate`: random walkers on a lattice, a model of diffusion with a known answer.
//!
//! Each walker starts at the origin of a line, a square or a cubic lattice and takes `steps` steps of length 1 to one
//! of its 2·d neighbors, all equally likely. The mean of the squared distance from the origin is then exactly the
//! number of steps, ⟨r²⟩ = n = 2·d·D·t with D = 1/(2·d), and the variance of r² is exactly 2·n·(n−1)/d. The output sets
//! the estimate against both, and the plot shows how it got there.
//!
//! Invariant: the same parameters give the same bytes everywhere. Positions and sums are integers, the generator is
//! written out below, and floating point only comes in at the end, in operations that IEEE 754 defines to the last bit.

use std::io::Write as _;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::TaskError;
use crate::fields::Fields;
use crate::tasks::plot::{Plot, Sample};

/// The bounds keep every sum below within 128 bits: 10⁷ · Σr⁴ ≤ 10⁷ · 10⁷ · (10⁶)⁴ = 10³⁸ < 2¹²⁷.
const WALKERS_MAX: u64 = 10_000_000;
const STEPS_MAX: u64 = 1_000_000;

/// All steps of all walkers: hours of one core.
const STEPS_IN_ALL_MAX: u64 = 1_000_000_000_000;

/// The largest whole number that every JSON reader keeps (2⁵³ − 1).
const SEED_MAX: u64 = 9_007_199_254_740_991;

/// How many standard errors an estimate may be off before we call it wrong: chance does that once in 16,000 runs.
const STANDARD_ERRORS_MAX: f64 = 4.0;

/// What a job may choose.
#[derive(Debug, Clone, Copy, Serialize)]
struct Parameters {
    walkers: u64,
    steps: u64,
    dimensions: u64,
    seed: u64,
}

impl Parameters {
    /// The defaults take well under a second.
    fn read(input: &RawValue) -> Result<Self, TaskError> {
        let fields = Fields::of_input(input, &["walkers", "steps", "dimensions", "seed"])?;
        let parameters = Self {
            // Two at least: one walker has no standard error.
            walkers: fields.whole("walkers", 10_000, 2..=WALKERS_MAX)?,
            steps: fields.whole("steps", 500, 1..=STEPS_MAX)?,
            dimensions: fields.whole("dimensions", 2, 1..=3)?,
            seed: fields.whole("seed", 1, 0..=SEED_MAX)?,
        };
        let in_all = parameters.walkers * parameters.steps;
        if in_all > STEPS_IN_ALL_MAX {
            let problem = format!(
                "times `input.walkers` is {in_all} steps in all, and the limit is {STEPS_IN_ALL_MAX}; split the work \
                 into jobs with different seeds"
            );
            return Err(fields.invalid("steps", problem));
        }
        Ok(parameters)
    }
}

/// The mean squared distance from the origin, in units of the lattice, measured and exact.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    /// What the simulation gave for ⟨r²⟩.
    estimate: f64,
    /// What it is.
    exact: f64,
    /// The difference: estimate − exact.
    error: f64,
    /// The standard error of the estimate, from the spread of the walkers.
    standard_error: f64,
    /// The same from theory, √(2·n·(n−1)/(d·walkers)).
    standard_error_exact: f64,
    /// Is the error within four standard errors?
    agrees: bool,
    /// The diffusion coefficient, in lattice units per step.
    diffusion_coefficient: DiffusionCoefficient,
    /// What was simulated.
    parameters: Parameters,
}

#[derive(Debug, Serialize)]
struct DiffusionCoefficient {
    estimate: f64,
    exact: f64,
}

/// Where the plot is, below the work directory.
pub(crate) const PLOT: &str = "plots/mean-squared-distance.svg";

/// How many means are drawn.
const SAMPLES: u64 = 200;

/// Reads the parameters and runs the simulation: the output, and the plot.
pub(crate) fn run(input: &RawValue) -> Result<(Measurement, String), TaskError> {
    let parameters = Parameters::read(input)?;
    let mut samples = Vec::new();
    let measured = simulate(parameters, &mut samples);
    let Parameters { walkers, steps, dimensions, .. } = parameters;
    let subtitle =
        format!("{walkers} walkers, {steps} steps each, {dimensions} dimension(s); within two standard errors");
    let spread = measured.standard_error_exact * (walkers as f64).sqrt();
    let plot = Plot { samples: &samples, exact: measured.exact, spread, subtitle: &subtitle };
    Ok((measured, plot.to_svg()))
}

fn simulate(parameters: Parameters, samples: &mut Vec<Sample>) -> Measurement {
    let Parameters { walkers, steps, dimensions, seed } = parameters;
    let sample_every = walkers.div_ceil(SAMPLES);
    let mut random = SplitMix64(seed);
    let mut sum_of_squares: u128 = 0;
    let mut sum_of_fourth_powers: u128 = 0;
    // Who follows the job sees how far it is; ten lines, also of a run that takes hours.
    let step = walkers.div_ceil(10);
    for walker in 0..walkers {
        if walker > 0 && walker % step == 0 {
            let mean = sum_of_squares as f64 / walker as f64;
            let line = format!("{walker} of {walkers} walkers: mean squared distance {mean:.1} after {steps} steps");
            // Nobody may read it.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
        let square = squared_distance(steps, dimensions, &mut random);
        sum_of_squares += u128::from(square);
        sum_of_fourth_powers += u128::from(square) * u128::from(square);
        let so_far = walker + 1;
        if so_far % sample_every == 0 || so_far == walkers {
            samples.push((so_far, sum_of_squares as f64 / so_far as f64));
        }
    }

    let (count, steps_taken, d) = (walkers as f64, steps as f64, dimensions as f64);
    // count² times the variance of the sample; never negative, by the inequality of Cauchy and Schwarz.
    let spread = u128::from(walkers) * sum_of_fourth_powers - sum_of_squares * sum_of_squares;
    let excess = sum_of_squares as i128 - i128::from(walkers * steps);
    let error = excess as f64 / count;
    let standard_error_exact = (2.0 * steps_taken * (steps_taken - 1.0) / (d * count)).sqrt();
    Measurement {
        estimate: sum_of_squares as f64 / count,
        exact: steps_taken,
        error,
        standard_error: (spread as f64 / (count * count * (count - 1.0))).sqrt(),
        standard_error_exact,
        agrees: error.abs() <= STANDARD_ERRORS_MAX * standard_error_exact,
        diffusion_coefficient: DiffusionCoefficient {
            estimate: sum_of_squares as f64 / (2.0 * d * steps_taken * count),
            exact: 1.0 / (2.0 * d),
        },
        parameters,
    }
}

/// One walk: how far from the origin it ends, squared.
fn squared_distance(steps: u64, dimensions: u64, random: &mut SplitMix64) -> u64 {
    let mut position = [0_i64; 3];
    for _ in 0..steps {
        // 32 random bits onto 2·d directions: the unevenness, below 10⁻⁸, is far under any standard error here.
        let direction = ((random.draw() >> 32) * (2 * dimensions)) >> 32;
        position[(direction / 2) as usize] += if direction.is_multiple_of(2) { 1 } else { -1 };
    }
    position.iter().map(|x| x.unsigned_abs().pow(2)).sum()
}

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014). Its numbers are
/// part of the output's format: a library could change its own.
struct SplitMix64(u64);

impl SplitMix64 {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_json(input: &str) -> Result<(Measurement, String), TaskError> {
        run(&RawValue::from_string(input.to_owned()).unwrap())
    }

    #[test]
    fn generator_gives_the_published_numbers() {
        let mut random = SplitMix64(1_234_567);
        for expected in [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            assert_eq!(random.draw(), expected);
        }
    }

    #[test]
    fn estimates_agree_with_the_exact_law_in_every_dimension() {
        for dimensions in 1..=3 {
            for seed in 1..=5 {
                let measured = simulate(Parameters { walkers: 3_000, steps: 80, dimensions, seed }, &mut Vec::new());
                assert!(measured.agrees, "{measured:?}");
                assert_eq!(measured.exact, 80.0);
                // The spread of the walkers is the second known answer.
                let ratio = measured.standard_error / measured.standard_error_exact;
                assert!((0.85..1.15).contains(&ratio), "{measured:?}");
            }
        }
    }

    #[test]
    fn one_step_always_ends_at_distance_one() {
        for dimensions in 1..=3 {
            let measured = simulate(Parameters { walkers: 200, steps: 1, dimensions, seed: 5 }, &mut Vec::new());
            assert_eq!((measured.estimate, measured.error, measured.standard_error), (1.0, 0.0, 0.0));
            assert!(measured.agrees);
        }
    }

    #[test]
    fn simulate_output_format_unchanged() {
        // The numbers come from a second implementation, in another language. Who compares runs of different versions
        // of this image needs the same bytes for the same parameters.
        let (output, plot) = run_json(r#"{"walkers":1000,"steps":100,"dimensions":3,"seed":42}"#).unwrap();
        assert!(plot.contains(">exact: 100.0</text>") && plot.contains("1000 walkers, 100 steps each"), "{plot}");
        assert!((5_000..16_000).contains(&plot.len()), "{} bytes", plot.len());
        assert_eq!(
            serde_json::to_string(&output).unwrap(),
            r#"{"estimate":102.038,"exact":100.0,"error":2.038,"standard_error":2.485137111400991,"standard_error_exact":2.569046515733026,"agrees":true,"diffusion_coefficient":{"estimate":0.17006333333333334,"exact":0.16666666666666666},"parameters":{"walkers":1000,"steps":100,"dimensions":3,"seed":42}}"#
        );
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        for (input, sentence) in [
            (r#"{"walkers":1}"#, "`input.walkers` must be a whole number from 2 to 10000000, and it is 1"),
            (r#"{"steps":-5}"#, "`input.steps` must be a whole number from 1 to 1000000, and it is -5"),
            (r#"{"dimensions":4}"#, "`input.dimensions` must be a whole number from 1 to 3, and it is 4"),
            (r#"{"seed":9007199254740992}"#, "`input.seed` must be"),
            (r#"{"walkers":10000000,"steps":1000000}"#, "`input.steps` times `input.walkers` is 10000000000000 steps"),
            (r#"{"step":5}"#, "`input.step` is no field of this task; its fields are walkers, steps, dimensions, seed"),
        ] {
            let error = run_json(input).unwrap_err();
            assert!(error.to_string().starts_with(sentence), "{input}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
