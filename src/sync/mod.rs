//! What a sync is made of, and what runs it.
//!
//! * [`SyncFunction`], [`SyncContext`]: what the author of a sync writes, and is given for it
//! * [`Runner`]: runs functions on schedules, and keeps those across restarts
//! * [`DryRun`]: runs a function without changing anything
//! * [`Frequency`]: the schedule, as text and as a grid of moments
//! * [`HttpClient`], [`Retrying`]: requests, and trying them again
//! * [`Pagination`], [`Pages`]: a list of records page by page, from where it was left
//! * `Webhook` (feature `webhook`): signed reports to a URL
//!
//! Only a [`Runner`] with workers starts threads, and only [`ThreadSleep`] and [`Cancellation`]
//! sleep: clocks, waits and clients are handed in.

mod cancel;
mod context;
mod dry_run;
mod execute;
mod frequency;
mod function;
mod http;
#[cfg(feature = "webhook")]
mod outbox;
mod paginate;
mod runner;
mod schedule;
#[cfg(feature = "webhook")]
mod webhook;

pub use cancel::{Cancellation, StopReason};
pub use context::{LogLevel, LogLine, Merging, SyncContext};
pub use dry_run::{Diagnostics, DryRun, DryRunReport};
pub use frequency::{Frequency, FrequencyError};
pub use function::{SyncError, SyncFunction};
#[cfg(feature = "http")]
pub use http::DefaultClient;
pub use http::{
    Cancelled, Headers, HttpClient, HttpError, HttpRequest, HttpResponse, Method, RetryPolicy,
    Retrying, Sleep, ThreadSleep,
};
pub use paginate::{PageError, PageSize, Pages, Pagination, Position, ProviderPage, Style};
pub use runner::{Runner, RunnerError, RunnerOptions, SyncState, SyncStatus};
pub use schedule::Trigger;
#[cfg(feature = "webhook")]
pub use webhook::{
    Attempt, DeliveryError, DeliveryFailure, EmptySecret, SIGNATURE_HEADER, Secret, VerifyError,
    Webhook, signature, verify,
};
