//! `echo`: gives its input back. It shows that a job travels there and back unharmed.

use serde_json::value::RawValue;

/// The output is the input, byte for byte: it is never taken apart.
pub(crate) fn run(input: &RawValue) -> &RawValue {
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        for json in ["null", "{ \"b\" : 1.0e+400,\n \"a\" : [\"\\u00e9 é\"] }", "12345678901234567890123"] {
            let input = RawValue::from_string(json.to_owned()).unwrap();
            assert_eq!(run(&input).get(), json);
        }
    }
}
