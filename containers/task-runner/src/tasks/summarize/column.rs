//! One column of a table: what is known of it after each value.
//!
//! Invariant: a value costs constant time, and memory only while values are kept for the quartiles.

use serde::Serialize;

use crate::fields::shortened;

/// What stands for a value that is not there, in any case of letters, as the usual tools write it.
const MISSING: [&str; 6] = ["", "na", "n/a", "nan", "null", "none"];

/// A column while the table is read.
pub(super) struct Column {
    name: String,
    missing: u64,
    state: State,
}

enum State {
    /// Every value so far was a number.
    Numeric(Numbers),
    /// One was not: the row where, and the value.
    Text { row: u64, value: String },
}

/// The statistics of a numeric column. What a column without values does not have is `null`.
#[derive(Debug, Serialize)]
pub(crate) struct ColumnSummary {
    name: String,
    /// Values that are there.
    count: u64,
    missing: u64,
    mean: Option<f64>,
    /// The standard deviation of a sample (divided by count − 1).
    std: Option<f64>,
    min: Option<f64>,
    /// Quartiles with linear interpolation, as NumPy and R have them by default.
    q1: Option<f64>,
    median: Option<f64>,
    q3: Option<f64>,
    max: Option<f64>,
}

/// A column that holds something else than numbers.
#[derive(Debug, Serialize)]
pub(crate) struct TextColumn {
    name: String,
    missing: u64,
    /// The first row, counted from 1 below the header, whose value is no number.
    row: u64,
    /// That value, shortened.
    value: String,
}

impl Column {
    /// A column before its first value.
    pub(super) fn new(name: String) -> Self {
        Self { name, missing: 0, state: State::Numeric(Numbers::new()) }
    }

    /// Takes the next value.
    pub(super) fn take(&mut self, field: &[u8], row: u64, keep_value: bool) {
        if MISSING.iter().any(|missing| field.eq_ignore_ascii_case(missing.as_bytes())) {
            self.missing += 1;
        } else if let State::Numeric(numbers) = &mut self.state {
            match number(field) {
                Some(value) => numbers.take(value, keep_value),
                None => {
                    let value = shortened(&String::from_utf8_lossy(field));
                    self.state = State::Text { row, value };
                }
            }
        }
    }

    /// How many values it keeps in memory.
    pub(super) fn kept(&self) -> usize {
        match &self.state {
            State::Numeric(numbers) => numbers.values.len(),
            State::Text { .. } => 0,
        }
    }

    /// Gives that memory back.
    pub(super) fn forget_values(&mut self) {
        if let State::Numeric(numbers) = &mut self.state {
            numbers.values = Vec::new();
        }
    }

    /// The statistics, or what makes it no numeric column.
    pub(super) fn finish(self, with_quartiles: bool) -> Result<ColumnSummary, TextColumn> {
        let Self { name, missing, state } = self;
        let mut numbers = match state {
            State::Numeric(numbers) => numbers,
            State::Text { row, value } => return Err(TextColumn { name, missing, row, value }),
        };
        numbers.values.sort_unstable_by(f64::total_cmp);
        let any = numbers.count > 0;
        let quartile = |part: f64| (any && with_quartiles).then(|| quantile(&numbers.values, part));
        Ok(ColumnSummary {
            name,
            count: numbers.count,
            missing,
            mean: any.then_some(numbers.mean),
            std: (numbers.count > 1).then(|| (numbers.squares / (numbers.count - 1) as f64).sqrt()),
            min: any.then_some(numbers.min),
            q1: quartile(0.25),
            median: quartile(0.5),
            q3: quartile(0.75),
            max: any.then_some(numbers.max),
        })
    }
}

/// A finite decimal number.
fn number(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(field).ok()?.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// Welford's running mean and sum of squared differences from it, which do not cancel as Σx² − (Σx)²/n does.
struct Numbers {
    count: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
    values: Vec<f64>,
}

impl Numbers {
    fn new() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, values: Vec::new() }
    }

    fn take(&mut self, value: f64, keep: bool) {
        self.count += 1;
        let difference = value - self.mean;
        self.mean += difference / self.count as f64;
        self.squares += difference * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if keep {
            self.values.push(value);
        }
    }
}

/// The value below which `part` of the sorted values lie; between two of them, in proportion. There is at least one.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let position = (sorted.len() - 1) as f64 * part;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[&str]) -> ColumnSummary {
        let mut column = Column::new("x".to_owned());
        for value in values {
            column.take(value.as_bytes(), 1, true);
        }
        column.finish(true).unwrap()
    }

    #[test]
    fn deviation_survives_a_large_offset() {
        // The sum-of-squares formula gives 0 or worse here.
        let summary = summary(&["1000000000004", "1000000000007", "1000000000013", "1000000000016"]);
        assert_eq!(summary.mean, Some(1_000_000_000_010.0));
        assert_eq!(summary.std, Some(30.0_f64.sqrt()));
    }

    #[test]
    fn quartiles_interpolate() {
        let odd = summary(&["5", "1", "4", "2", "3"]);
        assert_eq!((odd.q1, odd.median, odd.q3), (Some(2.0), Some(3.0), Some(4.0)));
        let even = summary(&["10", "40", "30", "20"]);
        assert_eq!((even.q1, even.median, even.q3), (Some(17.5), Some(25.0), Some(32.5)));
    }

    #[test]
    fn one_value_has_no_deviation_and_missing_ones_are_counted() {
        let summary = summary(&["-1.5e2", "NaN", "", "N/A", "None"]);
        assert_eq!((summary.count, summary.missing, summary.std), (1, 4, None));
        assert_eq!(
            (summary.min, summary.q1, summary.q3, summary.max),
            (Some(-150.0), Some(-150.0), Some(-150.0), Some(-150.0))
        );
    }

    #[test]
    fn a_text_column_keeps_nothing_in_memory() {
        let mut column = Column::new("x".to_owned());
        column.take(b"1", 2, true);
        assert_eq!(column.kept(), 1);
        column.take(b"one", 3, true);
        column.take(b"2", 4, true);
        assert_eq!(column.kept(), 0);
        let text = column.finish(true).unwrap_err();
        assert_eq!((text.row, text.value.as_str()), (3, "one"));
    }
}
