//! What Python's string methods and rounding do where Rust's differ: the official evaluation codes are
//! Python.

use std::sync::LazyLock;

use regex_automata::meta::Regex;

/// Whether `str.split` and `str.strip` take `c` for white space. Rust's definition lacks U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Whether `\d` matches `c` in Python: a decimal digit of any script.
pub(crate) fn is_digit(c: char) -> bool {
    static DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\d$").ok());
    if c.is_ascii() {
        return c.is_ascii_digit();
    }
    let mut bytes = [0; 4];
    c.is_numeric() && DIGIT.as_ref().is_some_and(|digit| digit.is_match(c.encode_utf8(&mut bytes).as_bytes()))
}

/// `round(x, 2)`: the decimal number of two places next to the exact value of `x`, ties to even.
pub(crate) fn round2(x: f64) -> f64 {
    format!("{x:.2}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_decimal_digits_of_any_script() {
        let digits: String = "0٣९１½²Ⅷ五a".chars().filter(|&c| is_digit(c)).collect();
        assert_eq!(digits, "0٣९１");
    }

    #[test]
    fn ties_are_rounded_to_even() {
        // 50.125 and 50.375 are exact in binary, 2.675 is below its decimal form.
        assert_eq!([50.125, 50.375, 2.675, 100.0].map(round2), [50.12, 50.38, 2.67, 100.0]);
    }

    #[test]
    fn separators_are_white_space() {
        assert_eq!(
            split("a\u{1c}b \u{85}c\u{a0}d\u{200b}").collect::<Vec<_>>(),
            ["a", "b", "c", "d\u{200b}"]
        );
        assert_eq!(strip("\u{1f} a \t"), "a");
    }
}
