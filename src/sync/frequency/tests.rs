//! The grammar, and the grid under clocks that misbehave.

use proptest::prelude::*;

use super::*;

fn millis(text: &str) -> Result<u64, FrequencyError> {
    text.parse::<Frequency>().map(|frequency| frequency.millis)
}

#[test]
fn the_grammar() {
    for (text, seconds) in [
        ("every half minute", 30),
        ("minute", 60),
        ("every 5 minutes", 300),
        ("quarter hour", 900),
        ("EVERY Half  Hour", 1_800),
        (" every\thour ", 3_600),
        ("half day", 43_200),
        ("every day", 86_400),
        ("week", 604_800),
        ("month", 2_592_000),
        ("5m", 300),
        ("every5m", 300),
        ("1.5h", 5_400),
        ("1.1m", 66),
        ("3 days", 259_200),
        ("90s", 90),
        ("30 seconds", 30),
        ("2 weeks", 1_209_600),
        ("1 Month", 2_592_000),
        ("007m", 420),
        ("1.500h", 5_400),
        ("3650d", 315_360_000),
    ] {
        assert_eq!(millis(text), Ok(seconds * 1_000), "{text:?}");
    }
    assert_eq!(millis("30.001s"), Ok(30_001));
    assert_eq!(millis("0.0005 months"), Ok(1_296_000));
}

#[test]
fn what_is_no_frequency_says_why() {
    for text in [
        "",
        "every",
        "5",
        "1.h",
        ".5h",
        "1..5h",
        "-5m",
        "half",
        "half 5m",
        "5 half hours",
        "5 m m",
        "one hour two",
    ] {
        let error = millis(text).unwrap_err();
        let named = matches!(
            error,
            FrequencyError::Syntax { .. } | FrequencyError::UnknownUnit { .. }
        );
        assert!(named, "{text:?}: {error}");
    }
    for text in ["everyday", "1e3s", "5 fortnights", "5 m\u{fc}nuten", "5ms"] {
        let error = millis(text).unwrap_err();
        assert!(
            matches!(error, FrequencyError::UnknownUnit { .. }),
            "{text:?}: {error}"
        );
    }
    for text in ["0m", "29.999s", "quarter minute", "0.0s"] {
        assert_eq!(millis(text), Err(FrequencyError::TooShort), "{text:?}");
    }
    for text in [
        "3650.00001d",
        "1000 months",
        "99999999999999999999999999999999999999w",
    ] {
        assert_eq!(millis(text), Err(FrequencyError::TooLong), "{text:?}");
    }
    for text in [
        "30.0001s",
        "1.00001m",
        "40.00000000000000000000000000000000000000001s",
    ] {
        assert_eq!(
            millis(text),
            Err(FrequencyError::NotWholeMillis),
            "{text:?}"
        );
    }
    let nanos = Duration::new(60, 1);
    assert_eq!(Frequency::new(nanos), Err(FrequencyError::NotWholeMillis));
    assert_eq!(
        Frequency::new(Duration::MAX),
        Err(FrequencyError::NotWholeMillis)
    );
}

fn frequencies() -> impl Strategy<Value = Frequency> {
    prop_oneof![
        (MIN_MILLIS..=MAX_MILLIS).prop_map(|millis| Frequency { millis }),
        (1..=20_u64).prop_map(|n| Frequency { millis: n * MINUTE }),
    ]
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn tick_of(frequency: Frequency, anchor: u64, tick: Timestamp) -> u64 {
    let (period, since) = (frequency.millis * 1_000, tick.as_micros() - anchor);
    assert!(since.is_multiple_of(period), "off the grid");
    since / period
}

#[test]
fn a_clock_at_either_end_does_not_overflow() {
    for moment in [0, 1, u64::MAX - 1, u64::MAX] {
        for anchor in [0, u64::MAX] {
            for last in [None, Some(at(0)), Some(at(u64::MAX))] {
                for frequency in [Frequency::MIN, Frequency::MAX] {
                    let due = frequency.next_due(at(anchor), last, at(moment));
                    assert!(due >= at(anchor));
                }
            }
        }
    }
}

/// What one step of the simulation does to the clock, in microseconds.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A run, or idling, takes this long.
    Pass(u64),
    StandStill,
    JumpBack(u64),
    JumpAhead(u64),
    /// Sleep until the next tick, as told.
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let day = DAY * 1_000;
    let step = prop_oneof![
        4 => (0..day / 4).prop_map(Step::Pass),
        1 => Just(Step::StandStill),
        1 => (0..2 * day).prop_map(Step::JumpBack),
        1 => (0..3 * day).prop_map(Step::JumpAhead),
        6 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn text_and_back(frequency in frequencies()) {
        prop_assert_eq!(frequency.to_string().parse(), Ok(frequency));
        prop_assert_eq!(Frequency::new(frequency.period()), Ok(frequency));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "(every )?[0-9.]{0,50} ?[a-z ]{0,10}|.{0,30}") {
        let _ = text.parse::<Frequency>();
    }

    #[test]
    fn after_a_start_comes_the_next_grid_point(
        frequency in frequencies(),
        anchor in 0..1_u64 << 60,
        elapsed in 0..1_u64 << 60,
    ) {
        let now = anchor + elapsed;
        let due = frequency.next_due(at(anchor), Some(at(now)), at(now));
        tick_of(frequency, anchor, due);
        prop_assert!(due > at(now));
        prop_assert!(due.as_micros() - now <= frequency.millis * 1_000);
    }

    #[test]
    fn missed_ticks_collapse_into_the_newest(
        frequency in frequencies(),
        anchor in 0..1_u64 << 60,
        started in proptest::option::of(0..1_u64 << 55),
        missed in 1..1_000_u64,
        late in 0..MIN_MILLIS * 1_000,
    ) {
        let period = frequency.millis * 1_000;
        let started = started.map(|elapsed| anchor + elapsed);
        let next = frequency.next_due(at(anchor), started.map(at), at(anchor)).as_micros();
        let now = next + (missed - 1) * period + late;
        let due = frequency.next_due(at(anchor), started.map(at), at(now));
        prop_assert_eq!(due.as_micros(), now - late);
        let after = frequency.next_due(at(anchor), Some(at(now)), at(now));
        prop_assert_eq!(after.as_micros(), now - late + period);
    }

    #[test]
    fn weeks_of_a_bad_clock(
        frequency in (1..2 * 24 * 60_u64).prop_map(|n| Frequency { millis: n * MINUTE }),
        steps in steps(),
    ) {
        let anchor = 1_700_000_000_000_000;
        let mut now = anchor;
        let mut last: Option<(u64, u64)> = None;
        for step in steps {
            let due = frequency.next_due(at(anchor), last.map(|(_, at)| at).map(at), at(now));
            let tick = tick_of(frequency, anchor, due);
            if due <= at(now) {
                prop_assert!(last.is_none_or(|(newest, _)| tick > newest), "ran {tick} twice");
                last = Some((tick, now));
            }
            if let Some((_, started)) = last {
                let idle = now.saturating_sub(started);
                prop_assert!(idle < frequency.millis * 1_000, "missed for {idle} us");
            }
            now = match step {
                Step::Pass(micros) | Step::JumpAhead(micros) => now + micros,
                Step::StandStill => now,
                Step::JumpBack(micros) => now - micros,
                Step::Wait => now.max(due.as_micros()),
            };
        }
    }
}
