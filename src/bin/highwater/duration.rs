//! Lengths of time on the command line.

use std::time::Duration;

use anyhow::{bail, ensure};

/// Reads a length of time such as `30d`, `12h`, `5m` or `90s`.
pub(crate) fn parse(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let seconds: u64 = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => bail!("not a number with one of s, m, h, d, w, as in 30d"),
    };
    let count: Option<u64> = digits.parse().ok();
    let total = count.and_then(|count| count.checked_mul(seconds));
    ensure!(
        total.is_some(),
        "not a number with one of s, m, h, d, w, as in 30d"
    );
    Ok(Duration::from_secs(total.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        assert_eq!(parse("30d").unwrap(), Duration::from_secs(2_592_000));
        assert_eq!(parse("90s").unwrap(), Duration::from_secs(90));
        for text in ["", "d", "30", "3.5h", "-1d", "99999999999999999w", "1 d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
