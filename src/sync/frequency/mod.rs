//! How often a sync runs: the text that says so, and the moments that follow from it.
//!
//! The moments of a schedule are a grid: its anchor, which is when it was created, and every
//! multiple of the period after it. So a run that starts late or takes long does not shift the
//! runs after it, and ticks that pass while nothing can start collapse into one. All of it is
//! integer arithmetic on times that are handed in; nothing here asks for the time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::record::Timestamp;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// A month has 30 days here, so that a schedule is a grid.
const MONTH: u64 = 30 * DAY;

/// The shortest period in milliseconds.
const MIN_MILLIS: u64 = 30 * SECOND;
/// The longest period in milliseconds: ten years of 365 days.
const MAX_MILLIS: u64 = 3_650 * DAY;

/// How often a sync runs: a period from 30 seconds to ten years, in whole milliseconds.
///
/// The text is a number and a unit (`5m`, `1.5h`, `3 days`), or `half` or `quarter` of a unit, or
/// the unit alone for one of it, each after an optional `every`. Units are seconds, minutes, hours,
/// days, weeks and months of 30 days, written out or short (`s`, `m`, `h`, `d`, `w`, `mo`). Case
/// and spaces do not matter.
///
/// ```
/// use highwater::sync::Frequency;
/// use std::time::Duration;
///
/// let frequency: Frequency = "every 1.5h".parse()?;
/// assert_eq!(frequency.period(), Duration::from_secs(5400));
/// assert_eq!("Half Hour".parse::<Frequency>()?.to_string(), "30m");
/// # Ok::<(), highwater::sync::FrequencyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Frequency {
    millis: u64,
}

/// Why a text or a duration is not a [`Frequency`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrequencyError {
    /// The text is not a number and a unit, nor one of the named periods.
    Syntax {
        /// The text as given.
        given: String,
    },
    /// The text has something else where the unit should be.
    UnknownUnit {
        /// What it has.
        unit: String,
    },
    /// The period is shorter than 30 seconds.
    TooShort,
    /// The period is longer than ten years.
    TooLong,
    /// The period is not a whole number of milliseconds.
    NotWholeMillis,
}

impl Frequency {
    /// The shortest period.
    pub const MIN: Self = Self { millis: MIN_MILLIS };
    /// The longest period.
    pub const MAX: Self = Self { millis: MAX_MILLIS };

    /// Once in `period`.
    ///
    /// # Errors
    /// When the period is shorter than [`MIN`](Self::MIN), longer than [`MAX`](Self::MAX), or not
    /// a whole number of milliseconds.
    pub fn new(period: Duration) -> Result<Self, FrequencyError> {
        if !period.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(FrequencyError::NotWholeMillis);
        }
        Self::from_millis(period.as_millis())
    }

    fn from_millis(millis: u128) -> Result<Self, FrequencyError> {
        match u64::try_from(millis) {
            Ok(millis) if millis < MIN_MILLIS => Err(FrequencyError::TooShort),
            Ok(millis) if millis <= MAX_MILLIS => Ok(Self { millis }),
            _ => Err(FrequencyError::TooLong),
        }
    }

    /// The time from one tick to the next.
    pub fn period(self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// The tick to run next. It is due when it is not after `now`, and otherwise a time to wait
    /// for.
    ///
    /// `anchor` is the first tick. `last_started` has to be the `now` at which the last run was
    /// found to be due: a clock that is read a second time may have stepped back behind the tick,
    /// which would then look as if it had not run.
    ///
    /// Ticks that passed since the last start collapse into the newest of them. No tick is
    /// returned that is not after the last start, whatever the clock does; after a step back the
    /// schedule waits until the clock is past the last start again.
    ///
    /// ```
    /// use highwater::{Timestamp, sync::Frequency};
    /// let at = |minutes: u64| Timestamp::from_micros(minutes * 60_000_000);
    /// let hourly: Frequency = "1h".parse()?;
    /// // Created at minute 15. The program was down from 100 to 300.
    /// assert_eq!(hourly.next_due(at(15), Some(at(75)), at(300)), at(255));
    /// assert_eq!(hourly.next_due(at(15), Some(at(300)), at(300)), at(315));
    /// # Ok::<(), highwater::sync::FrequencyError>(())
    /// ```
    pub fn next_due(
        self,
        anchor: Timestamp,
        last_started: Option<Timestamp>,
        now: Timestamp,
    ) -> Timestamp {
        let anchor = anchor.as_micros();
        let period = self.millis * 1_000;
        let newest_tick = |moment: u64| moment.saturating_sub(anchor) / period;
        let not_run = last_started
            .map(Timestamp::as_micros)
            // A start before the anchor, by a clock that stepped back, stands for the first tick.
            .map_or(0, |started| newest_tick(started) + 1);
        let tick = not_run.max(newest_tick(now.as_micros()));
        Timestamp::from_micros(anchor.saturating_add(tick.saturating_mul(period)))
    }
}

impl FromStr for Frequency {
    type Err = FrequencyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || FrequencyError::Syntax {
            given: text.to_owned(),
        };
        let lower = text.trim().to_ascii_lowercase();
        let rest = match lower.strip_prefix("every") {
            Some(rest) if !rest.starts_with(char::is_alphabetic) => rest.trim_start(),
            _ => &lower,
        };
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, rest) = rest.split_at(number_end);
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (number, unit) = match (number, words.as_slice()) {
            ("", ["half", unit]) => ("0.5", unit),
            ("", ["quarter", unit]) => ("0.25", unit),
            ("", [unit]) => ("1", unit),
            (number, [unit]) => (number, unit),
            _ => return Err(syntax()),
        };
        let (whole, fraction) = decimal(number).ok_or_else(syntax)?;
        Self::from_millis(product(whole, fraction, unit_millis(unit)?)?)
    }
}

/// The digits before and after the point, without the zeros that say nothing.
fn decimal(number: &str) -> Option<(&str, &str)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(fraction)).then(|| {
        (
            whole.trim_start_matches('0'),
            fraction.trim_end_matches('0'),
        )
    })
}

/// `whole.fraction` times `unit`, exactly.
fn product(whole: &str, fraction: &str, unit: u64) -> Result<u128, FrequencyError> {
    // Enough digits for every valid period, and few enough for the products to fit.
    const DIGITS_MAX: usize = 20;
    let value = |digits: &str| digits.bytes().fold(0, |n, d| n * 10 + u128::from(d - b'0'));
    if whole.len() > DIGITS_MAX {
        return Err(FrequencyError::TooLong);
    }
    // A unit is divisible by 2 and by 5 fewer than 20 times, so what is longer is never whole.
    if fraction.len() > DIGITS_MAX {
        return Err(FrequencyError::NotWholeMillis);
    }
    let numerator = value(fraction) * u128::from(unit);
    let denominator = fraction.bytes().fold(1_u128, |n, _| n * 10);
    if !numerator.is_multiple_of(denominator) {
        return Err(FrequencyError::NotWholeMillis);
    }
    Ok(value(whole) * u128::from(unit) + numerator / denominator)
}

fn unit_millis(unit: &str) -> Result<u64, FrequencyError> {
    Ok(match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hrs" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        "w" | "wk" | "wks" | "week" | "weeks" => WEEK,
        "mo" | "month" | "months" => MONTH,
        _ => {
            return Err(FrequencyError::UnknownUnit {
                unit: unit.to_owned(),
            });
        }
    })
}

impl fmt::Display for Frequency {
    /// The number of the largest unit that divides the period: `90s`, `5m`, `1w`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (WEEK, "w"),
            (DAY, "d"),
            (HOUR, "h"),
            (MINUTE, "m"),
            (SECOND, "s"),
        ];
        let mut divides = units
            .into_iter()
            .filter(|(unit, _)| self.millis.is_multiple_of(*unit));
        if let Some((unit, name)) = divides.next() {
            return write!(f, "{}{name}", self.millis / unit);
        }
        let (seconds, millis) = (self.millis / SECOND, self.millis % SECOND);
        write!(
            f,
            "{seconds}.{}s",
            format!("{millis:03}").trim_end_matches('0')
        )
    }
}

impl fmt::Display for FrequencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { given } => write!(
                f,
                "{given:?} is not a frequency: write a number and a unit, such as \"every 5 minutes\""
            ),
            Self::UnknownUnit { unit } => write!(
                f,
                "{unit:?} is not one of seconds, minutes, hours, days, weeks, months"
            ),
            Self::TooShort => f.write_str("the period is too short: the shortest is 30 seconds"),
            Self::TooLong => f.write_str("the period is too long: the longest is 3650 days"),
            Self::NotWholeMillis => f.write_str("the period is not a whole number of milliseconds"),
        }
    }
}

impl std::error::Error for FrequencyError {}

#[cfg(test)]
mod tests;
