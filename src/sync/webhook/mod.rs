//! Reports of sync runs, signed and sent to a URL.
//!
//! One call makes one attempt and says what comes of it: delivered, to be tried again and when, or
//! given up. Whoever calls keeps the report and its [`Attempt`] until then, so a report outlives
//! the process. It is delivered at least once: a receiver may see it again when its answer was
//! lost.
//!
//! The signature is an HMAC-SHA256 over the time in seconds, a dot, and the body. The time is
//! signed with the body so that a receiver can refuse a report that somebody recorded and sends
//! again later.

use std::fmt;
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::http::{Headers, HttpClient, HttpError, HttpRequest, HttpResponse, retry_after};
use crate::record::Timestamp;

/// The header with the signature: `t=<Unix seconds>,v1=<hex>`.
pub const SIGNATURE_HEADER: &str = "X-Highwater-Signature";

/// How long one attempt may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many attempts are made unless told otherwise: the last one some twelve hours after the
/// first.
const ATTEMPTS: u32 = 8;
/// The wait after the first attempt; it becomes four times as long after each further one.
const FIRST_DELAY: Duration = Duration::from_secs(15);
/// The longest wait between two attempts, also when the receiver asks for more.
const MAX_DELAY: Duration = Duration::from_secs(6 * 3600);

/// The key that sender and receiver share. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of at least one byte; it should be 32 random ones.
    ///
    /// # Errors
    /// [`EmptySecret`]: anybody could sign with that, and it is what a missing setting reads as.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, EmptySecret> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(EmptySecret);
        }
        Ok(Self(bytes))
    }

    fn hmac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length")
    }

    /// The MAC of a body at a time, to be finished or compared.
    fn mac(&self, seconds: &str, body: &[u8]) -> Hmac<Sha256> {
        let mac = self.hmac().chain_update(seconds).chain_update(b".");
        mac.chain_update(body)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The secret has no bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmptySecret;

impl fmt::Display for EmptySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the webhook's secret is empty")
    }
}

impl std::error::Error for EmptySecret {}

/// The value of [`SIGNATURE_HEADER`] for a body that is sent at `now`.
pub fn signature(secret: &Secret, now: Timestamp, body: &[u8]) -> String {
    let seconds = (now.as_micros() / 1_000_000).to_string();
    let mac = secret.mac(&seconds, body).finalize().into_bytes();
    format!("t={seconds},v1={}", HEXLOWER.encode(&mac))
}

/// Checks on the receiver's side that a body was signed with `secret`, not more than `tolerance`
/// before or after `now`.
///
/// The header may have several signatures, such as while the secret is being replaced; one that
/// fits is enough. They are compared in constant time.
///
/// # Errors
/// [`VerifyError`]; the body is not to be believed then.
pub fn verify(
    secret: &Secret,
    header: &str,
    body: &[u8],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), VerifyError> {
    let fields = || {
        header
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
    };
    let seconds = fields()
        .find_map(|(name, value)| (name == "t").then_some(value))
        .ok_or(VerifyError::Malformed)?;
    let mac = secret.mac(seconds, body);
    let mut signatures = fields()
        .filter(|(name, _)| *name == "v1")
        .filter_map(|(_, hex)| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
    if !signatures.any(|signature| mac.clone().verify_slice(&signature).is_ok()) {
        return Err(VerifyError::Mismatch);
    }
    let signed: u64 = seconds.parse().map_err(|_| VerifyError::Malformed)?;
    let distance = (now.as_micros() / 1_000_000).abs_diff(signed);
    if Duration::from_secs(distance) > tolerance {
        return Err(VerifyError::OutOfTime);
    }
    Ok(())
}

/// Why a signature does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VerifyError {
    /// The header is not a signature.
    Malformed,
    /// The body was signed with another secret, or is another body.
    Mismatch,
    /// It was signed too long before or after now.
    OutOfTime,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the signature header is malformed",
            Self::Mismatch => "the signature is not of this body with this secret",
            Self::OutOfTime => "the signature is too old, or from the future",
        })
    }
}

impl std::error::Error for VerifyError {}

/// Which attempt to deliver a report comes next, and when. To be kept with the report.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it may be made; microseconds since the Unix epoch when serialized.
    #[serde(with = "micros")]
    pub not_before: Timestamp,
}

impl Attempt {
    /// The first attempt, at once.
    pub fn first(now: Timestamp) -> Self {
        Self {
            number: 1,
            not_before: now,
        }
    }

    /// Whether to make it now. A wait that is longer than any there is comes from a clock that
    /// was ahead, and is over.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let wait = self.not_before.as_micros().saturating_sub(now.as_micros());
        wait == 0 || Duration::from_micros(wait) > MAX_DELAY
    }
}

mod micros {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::record::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_micros())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp::from_micros)
    }
}

/// Where reports are sent, and how.
#[derive(Clone, Debug)]
pub struct Webhook {
    url: String,
    secret: Secret,
    headers: Headers,
    timeout: Duration,
    attempts: u32,
}

impl Webhook {
    /// Reports to `url`, signed with `secret`: eight attempts over twelve hours, each of which may
    /// take half a minute.
    pub fn new(url: impl Into<String>, secret: Secret) -> Self {
        Self {
            url: url.into(),
            secret,
            headers: Headers::new(),
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
        }
    }

    /// Where reports are sent.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a header field along, such as one the receiver's gateway asks for.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many attempts are made; 0 counts as 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The attempt after `attempt`, which failed at `now`: 15 seconds later, then a minute, four
    /// minutes and so on up to six hours. `None` when that was the last one.
    pub fn next_attempt(&self, attempt: &Attempt, now: Timestamp) -> Option<Attempt> {
        self.attempt_after(attempt, now, Duration::ZERO)
    }

    /// Like [`next_attempt`](Self::next_attempt), but not before `asked` has passed.
    fn attempt_after(&self, attempt: &Attempt, now: Timestamp, asked: Duration) -> Option<Attempt> {
        if attempt.number >= self.attempts {
            return None;
        }
        let factor = 4_u32.saturating_pow(attempt.number.saturating_sub(1));
        let backoff = FIRST_DELAY.saturating_mul(factor);
        let delay = backoff.max(asked).min(MAX_DELAY).as_micros();
        let delay = u64::try_from(delay).unwrap_or(u64::MAX);
        Some(Attempt {
            number: attempt.number + 1,
            not_before: Timestamp::from_micros(now.as_micros().saturating_add(delay)),
        })
    }

    /// Makes one attempt to deliver a report; any status 2xx means delivered.
    ///
    /// `client` should not retry on its own account, since the schedule of attempts is kept here.
    ///
    /// # Errors
    /// [`DeliveryError::Retry`] when the receiver could not be reached, or answered with status
    /// 408, 425, 429 or 5xx; [`DeliveryError::GiveUp`] when it refused the report, or when that
    /// was the last attempt.
    pub fn deliver(
        &self,
        client: &dyn HttpClient,
        attempt: &Attempt,
        now: Timestamp,
        report_json: &[u8],
    ) -> Result<(), DeliveryError> {
        let answer = client.send(&self.request(now, report_json));
        let (failure, transient, asked) = match answer {
            Ok(response) if response.is_success() => return Ok(()),
            Ok(response) => {
                let transient = matches!(response.status, 408 | 425 | 429 | 500..);
                let asked = retry_after(&response, now);
                (DeliveryFailure::status(&response), transient, asked)
            }
            Err(error) => {
                // A client that retries may be cancelled while it waits to; the report stays due.
                let transient = error.is_transient() || matches!(error, HttpError::Cancelled);
                (DeliveryFailure::Http(error), transient, None)
            }
        };
        let next = self.attempt_after(attempt, now, asked.unwrap_or_default());
        Err(match next {
            Some(next) if transient => DeliveryError::Retry { failure, next },
            _ => DeliveryError::GiveUp { failure },
        })
    }

    fn request(&self, now: Timestamp, body: &[u8]) -> HttpRequest {
        let mut request = HttpRequest::post(&self.url, body).timeout(self.timeout);
        request.headers.set("Content-Type", "application/json");
        for (name, value) in self.headers.iter() {
            request.headers.set(name, value);
        }
        request.header(SIGNATURE_HEADER, signature(&self.secret, now, body))
    }
}

/// Why a report was not delivered, and what to do about it.
#[derive(Debug)]
pub enum DeliveryError {
    /// It may be delivered later.
    Retry {
        /// What went wrong.
        failure: DeliveryFailure,
        /// When to try again.
        next: Attempt,
    },
    /// It will not be delivered.
    GiveUp {
        /// What went wrong.
        failure: DeliveryFailure,
    },
}

/// What went wrong with an attempt to deliver a report.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeliveryFailure {
    /// There was no response.
    Http(HttpError),
    /// The receiver answered with another status than 2xx.
    Status {
        /// The status code.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
    },
}

impl DeliveryFailure {
    fn status(response: &HttpResponse) -> Self {
        Self::Status {
            status: response.status,
            excerpt: response.excerpt(),
        }
    }
}

impl fmt::Display for DeliveryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Status { status, excerpt } => {
                write!(f, "the receiver answered with status {status}: {excerpt:?}")
            }
        }
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { failure, next } => write!(
                f,
                "{failure}; attempt {} is due at {}",
                next.number, next.not_before
            ),
            Self::GiveUp { failure } => write!(f, "{failure}; the report is given up"),
        }
    }
}

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let (Self::Retry { failure, .. } | Self::GiveUp { failure }) = self;
        match failure {
            // The text names the immediate cause, so the chain goes on behind it.
            DeliveryFailure::Http(error) => error.source(),
            DeliveryFailure::Status { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
