//! What a sync is made of: when it runs, how it asks a provider, how it walks the provider's
//! pages, and how it reports what it did.
//!
//! * [`Frequency`]: the schedule, as text and as a grid of moments
//! * [`HttpClient`], [`Retrying`]: requests, and trying them again
//! * [`Pagination`], [`Pages`]: a list of records page by page, from where it was left
//! * `Webhook` (feature `webhook`): signed reports to a URL
//!
//! Nothing here starts a thread or asks for the time, and only [`ThreadSleep`] sleeps: clocks,
//! waits and clients are handed in.

mod frequency;
mod http;
mod paginate;
#[cfg(feature = "webhook")]
mod webhook;

pub use frequency::{Frequency, FrequencyError};
#[cfg(feature = "http")]
pub use http::DefaultClient;
pub use http::{
    Cancelled, Headers, HttpClient, HttpError, HttpRequest, HttpResponse, Method, RetryPolicy,
    Retrying, Sleep, ThreadSleep,
};
pub use paginate::{PageError, PageSize, Pages, Pagination, Position, ProviderPage, Style};
#[cfg(feature = "webhook")]
pub use webhook::{
    Attempt, DeliveryError, DeliveryFailure, EmptySecret, SIGNATURE_HEADER, Secret, VerifyError,
    Webhook, signature, verify,
};
