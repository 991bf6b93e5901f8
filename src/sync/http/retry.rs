//! Trying a request again: after how long, how often, and when not.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{HttpClient, HttpError, HttpRequest, HttpResponse};
use crate::record::Timestamp;
use crate::storage::Clock;

/// How [`Retrying`] tries again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// How often a request is sent at most, with the first time; 0 counts as 1.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with every further one. The actual wait is
    /// drawn from the upper half of it, so that clients which failed together come back apart.
    pub first_delay: Duration,
    /// Where the doubling ends.
    pub max_delay: Duration,
    /// The longest `Retry-After` to wait for. When the server asks for more, its response is
    /// returned at once: coming back earlier than asked would make things worse.
    pub max_retry_after: Duration,
    /// Whether requests that are not idempotent are tried again, too. They may then be executed
    /// more than once.
    pub all_methods: bool,
    /// What the jitter is drawn from; the same seed gives the same waits.
    pub seed: u64,
}

impl Default for RetryPolicy {
    /// Five attempts, waits from half a second to half a minute, at most five minutes when the
    /// server asks for it, idempotent methods only.
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(300),
            all_methods: false,
            seed: 0,
        }
    }
}

impl RetryPolicy {
    /// The wait after attempt number `attempt`, from 1; `draw` picks the jitter.
    fn backoff(&self, attempt: u32, draw: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let full = self.first_delay.saturating_mul(doubled).min(self.max_delay);
        // 20 bits of the draw: the product below stays far inside `Duration`.
        let share = u32::try_from(mix(self.seed ^ mix(draw)) >> 44).unwrap_or(0);
        full / 2 + (full / 2).mul_f64(f64::from(share) / f64::from(1 << 20))
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the input.
fn mix(input: u64) -> u64 {
    let mut x = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Waits between two attempts.
///
/// A closure is one, so a sync that can be cancelled waits on its cancellation instead of sleeping.
pub trait Sleep: Send + Sync {
    /// Waits for `duration`.
    ///
    /// # Errors
    /// [`Cancelled`] when the wait was interrupted, and nothing should be sent any more.
    fn sleep(&self, duration: Duration) -> Result<(), Cancelled>;
}

impl<F: Fn(Duration) -> Result<(), Cancelled> + Send + Sync> Sleep for F {
    fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        self(duration)
    }
}

/// Sleeps with the thread; nothing cancels it.
#[derive(Clone, Copy, Default, Debug)]
pub struct ThreadSleep;

impl Sleep for ThreadSleep {
    fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        std::thread::sleep(duration);
        Ok(())
    }
}

/// A wait was interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the wait was cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// A client that sends again what got status 429 or 5xx, or no response at all.
///
/// It honours `Retry-After`, as seconds or as a date. When the attempts are used up, the last
/// response or error is returned as it is.
pub struct Retrying<C> {
    client: C,
    policy: RetryPolicy,
    sleep: Box<dyn Sleep>,
    clock: Arc<dyn Clock>,
    /// How many waits were drawn, so that no two are alike.
    draws: AtomicU64,
}

impl<C: fmt::Debug> fmt::Debug for Retrying<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying")
            .field("client", &self.client)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl<C: HttpClient> Retrying<C> {
    /// Wraps `client`. The clock tells how far away a `Retry-After` date is.
    pub fn new(
        client: C,
        policy: RetryPolicy,
        sleep: impl Sleep + 'static,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client,
            policy,
            sleep: Box::new(sleep),
            clock,
            draws: AtomicU64::new(0),
        }
    }

    /// How long to wait before `attempt` is followed by another; `None` when `answer` is final.
    fn wait(&self, attempt: u32, answer: &Result<HttpResponse, HttpError>) -> Option<Duration> {
        let asked = match answer {
            Ok(response) if response.status == 429 || response.status >= 500 => {
                let now = Timestamp::from_micros(self.clock.now_micros());
                retry_after(response, now)
            }
            Err(error) if error.is_transient() => None,
            _ => return None,
        };
        if attempt >= self.policy.attempts || asked > Some(self.policy.max_retry_after) {
            return None;
        }
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        Some(asked.unwrap_or_else(|| self.policy.backoff(attempt, draw)))
    }
}

impl<C: HttpClient> HttpClient for Retrying<C> {
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut attempt = 1;
        loop {
            let answer = self.client.send(request);
            let repeatable = self.policy.all_methods || request.method.is_idempotent();
            match self.wait(attempt, &answer) {
                Some(delay) if repeatable => {
                    self.sleep
                        .sleep(delay)
                        .map_err(|Cancelled| HttpError::Cancelled)?;
                }
                _ => return answer,
            }
            attempt += 1;
        }
    }
}

/// How long the response asks to wait, from its `Retry-After` field. A date that has passed is no
/// wait; what is neither seconds nor a date asks for nothing.
pub(in crate::sync) fn retry_after(response: &HttpResponse, now: Timestamp) -> Option<Duration> {
    let value = response.headers.get("Retry-After")?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only too many digits fail to parse.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    // Servers that get the weekday wrong still mean the date.
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let date = parser.parse_timestamp(value).ok()?;
    let date = u64::try_from(date.as_microsecond()).unwrap_or(0);
    Some(Duration::from_micros(date.saturating_sub(now.as_micros())))
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::storage::ManualClock;
    use crate::sync::http::Method;
    use crate::sync::http::fake::Scripted;

    type Waits = Arc<Mutex<Vec<Duration>>>;

    /// 1994-11-06T08:49:37Z, the date in every specification of HTTP.
    const DATE_MICROS: u64 = 784_111_777_000_000;

    fn retrying(client: &Scripted, policy: RetryPolicy) -> (Retrying<&Scripted>, Waits) {
        let waits = Waits::default();
        let seen = waits.clone();
        let sleep = move |wait| {
            seen.lock().push(wait);
            Ok(())
        };
        let clock = Arc::new(ManualClock::new(DATE_MICROS - 7_000_000));
        (Retrying::new(client, policy, sleep, clock), waits)
    }

    fn status(status: u16) -> Result<HttpResponse, HttpError> {
        Ok(HttpResponse::new(status, []))
    }

    fn asking(seconds: &str) -> Result<HttpResponse, HttpError> {
        status(429).map(|response| response.header("retry-after", seconds))
    }

    #[test]
    fn what_may_pass_is_tried_again_and_the_rest_is_not() {
        let broken = || Err(HttpError::transport("reset"));
        let script = [
            status(503),
            broken(),
            Err(HttpError::Timeout),
            status(429),
            status(200),
        ];
        let client = Scripted::new(script);
        let (retrying, waits) = retrying(&client, RetryPolicy::default());
        let answer = retrying
            .send(&HttpRequest::get("https://a.example"))
            .expect("a response");
        assert_eq!((answer.status, client.requests().len()), (200, 5));
        let waits = waits.lock().clone();
        for (wait, full) in waits.iter().zip([500, 1_000, 2_000, 4_000]) {
            let full = Duration::from_millis(full);
            assert!(*wait >= full / 2 && *wait <= full, "{wait:?} of {full:?}");
        }
        for answer in [
            status(200),
            status(404),
            status(302),
            Err(HttpError::BodyTooLarge { max: 1 }),
        ] {
            let client = Scripted::new([answer]);
            let (retrying, waits) = self::retrying(&client, RetryPolicy::default());
            let _ = retrying.send(&HttpRequest::get("https://a.example"));
            assert_eq!((client.requests().len(), waits.lock().len()), (1, 0));
        }
    }

    #[test]
    fn a_post_is_tried_again_only_when_told() {
        let post = HttpRequest::post("https://a.example", "{}");
        let client = Scripted::new([status(503)]);
        let (once, _) = retrying(&client, RetryPolicy::default());
        assert_eq!(once.send(&post).expect("a response").status, 503);
        let client = Scripted::new([status(503), status(201)]);
        let policy = RetryPolicy {
            all_methods: true,
            ..RetryPolicy::default()
        };
        let (twice, _) = retrying(&client, policy);
        assert_eq!(twice.send(&post).expect("a response").status, 201);
        assert!(Method::Put.is_idempotent() && !Method::Patch.is_idempotent());
    }

    #[test]
    fn the_last_answer_is_returned_when_the_attempts_are_used_up() {
        for attempts in [0, 1, 3] {
            let sent = attempts.max(1) as usize;
            let client = Scripted::new((0..sent).map(|_| status(500)));
            let policy = RetryPolicy {
                attempts,
                ..RetryPolicy::default()
            };
            let (retrying, waits) = retrying(&client, policy);
            let answer = retrying.send(&HttpRequest::get("https://a.example"));
            assert_eq!(answer.expect("a response").status, 500);
            assert_eq!(
                (client.requests().len(), waits.lock().len()),
                (sent, sent - 1)
            );
        }
    }

    #[test]
    fn retry_after_is_waited_for_up_to_a_limit() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (value, wait) in [("2", 2), ("0", 0), (date, 7), ("300", 300)] {
            let client = Scripted::new([asking(value), status(200)]);
            let (retrying, waits) = retrying(&client, RetryPolicy::default());
            let answer = retrying.send(&HttpRequest::get("https://a.example"));
            assert_eq!(answer.expect("a response").status, 200);
            assert_eq!(*waits.lock(), [Duration::from_secs(wait)], "{value}");
        }
        for value in [
            "301",
            "99999999999999999999999",
            "Sun, 06 Nov 2094 08:49:37 GMT",
        ] {
            let client = Scripted::new([asking(value)]);
            let (retrying, waits) = retrying(&client, RetryPolicy::default());
            let answer = retrying.send(&HttpRequest::get("https://a.example"));
            assert_eq!(
                (answer.expect("a response").status, waits.lock().len()),
                (429, 0)
            );
        }
        let now = Timestamp::from_micros(DATE_MICROS + 1);
        let past = HttpResponse::new(429, []).header("Retry-After", date);
        assert_eq!(retry_after(&past, now), Some(Duration::ZERO));
        for value in ["", "soon", "-1", "1.5"] {
            let response = HttpResponse::new(429, []).header("Retry-After", value);
            assert_eq!(retry_after(&response, now), None, "{value:?}");
        }
    }

    #[test]
    fn a_cancelled_wait_ends_it() {
        let client = Scripted::new([status(503)]);
        let clock = Arc::new(ManualClock::new(0));
        let retrying = Retrying::new(&client, RetryPolicy::default(), |_| Err(Cancelled), clock);
        let answer = retrying.send(&HttpRequest::get("https://a.example"));
        assert!(matches!(answer, Err(HttpError::Cancelled)));
        assert_eq!(client.requests().len(), 1);
    }

    proptest! {
        #[test]
        fn the_backoff_is_bounded_and_repeatable(
            attempt in 0..=u32::MAX, draw: u64, seed: u64, first: u64, max: u64,
        ) {
            let policy = RetryPolicy {
                first_delay: Duration::from_micros(first),
                max_delay: Duration::from_micros(max),
                seed,
                ..RetryPolicy::default()
            };
            let wait = policy.backoff(attempt, draw);
            prop_assert!(wait <= policy.max_delay);
            prop_assert_eq!(wait, policy.backoff(attempt, draw));
        }
    }
}
