//! HTTP as a sync sees it: a request, a response, and a client that turns one into the other.
//!
//! A program brings its own [`HttpClient`], or takes `DefaultClient` (feature `http`). An answer
//! of any status is a response; an error means that there was none.
//!
//! * [`retry`]: trying again, politely
//! * `client`: the client on `ureq`

#[cfg(feature = "http")]
mod client;
mod retry;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "http")]
pub use client::DefaultClient;
#[cfg(feature = "webhook")]
pub(super) use retry::retry_after;
pub use retry::{Cancelled, RetryPolicy, Retrying, Sleep, ThreadSleep};

/// How long a request may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest excerpt of a response's body in an error, in bytes.
const EXCERPT_MAX: usize = 512;

/// Sends requests. It is shared by the threads that sync.
pub trait HttpClient: Send + Sync {
    /// Sends one request and reads the whole response. Redirects should be left to the caller: a
    /// client that follows them sends the headers, with their credentials, wherever they lead.
    ///
    /// # Errors
    /// [`HttpError`] when there is no complete response. A response of status 4xx or 5xx is not an
    /// error.
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError>;
}

impl<C: HttpClient + ?Sized> HttpClient for &C {
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        (**self).send(request)
    }
}

impl<C: HttpClient + ?Sized> HttpClient for Box<C> {
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        (**self).send(request)
    }
}

impl<C: HttpClient + ?Sized> HttpClient for Arc<C> {
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        (**self).send(request)
    }
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the headers only.
    Head,
    /// Does whatever the server makes of it, each time it is sent.
    Post,
    /// Replaces.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// The name in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether sending the same request twice does what sending it once does.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }
}

/// Header fields in order. Names are compared without case; a name may come more than once.
///
/// `Debug` shows the names only, because the values hold credentials.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// Every value of `name`.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Adds a field behind those of the same name.
    pub fn append(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Adds a field in place of those of the same name.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.0
            .retain(|(field, _)| !field.eq_ignore_ascii_case(&name));
        self.0.push((name, value.into()));
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HttpRequest {
    /// What it asks for.
    pub method: Method,
    /// Of what: an absolute `http` or `https` URL.
    pub url: String,
    /// Its header fields.
    pub headers: Headers,
    /// Its body; empty when there is none.
    pub body: Vec<u8>,
    /// How long one attempt may take, from the name lookup to the last byte of the response.
    pub timeout: Duration,
}

impl HttpRequest {
    /// A request without headers and body, which may take a minute.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Headers::new(),
            body: Vec::new(),
            timeout: TIMEOUT,
        }
    }

    /// A `GET` of `url`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// A `POST` of `body` to `url`.
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::new(Method::Post, url).body(body)
    }

    /// Sets a header field, in place of those of the same name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// A response.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// Its header fields.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// A response without headers.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Headers::new(),
            body: body.into(),
        }
    }

    /// Sets a header field, in place of those of the same name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The beginning of the body, for an error message.
    pub(super) fn excerpt(&self) -> String {
        let start = &self.body[..self.body.len().min(EXCERPT_MAX)];
        String::from_utf8_lossy(start).into_owned()
    }
}

/// Why there is no response.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// The request cannot be sent: its URL or a header field is malformed.
    InvalidRequest {
        /// What the client answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The request took longer than it may.
    Timeout,
    /// The connection could not be made, or broke.
    Transport {
        /// What the client answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response's body is larger than the client allows.
    BodyTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// The wait for the next attempt was cancelled.
    Cancelled,
}

impl HttpError {
    /// A request that cannot be sent.
    pub fn invalid_request(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::InvalidRequest {
            source: source.into(),
        }
    }

    /// A connection that could not be made, or broke.
    pub fn transport(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transport {
            source: source.into(),
        }
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout | Self::Transport { .. })
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRequest { source } => write!(f, "the request is invalid: {source}"),
            Self::Timeout => f.write_str("the request timed out"),
            Self::Transport { source } => write!(f, "the connection failed: {source}"),
            Self::BodyTooLarge { max } => {
                write!(f, "the response has more than {max} bytes")
            }
            Self::Cancelled => f.write_str("the request was cancelled before it was tried again"),
        }
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The text names the immediate cause, so the chain goes on behind it.
            Self::InvalidRequest { source } | Self::Transport { source } => source.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod fake {
    //! A client that plays a script.

    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::*;

    /// Answers from a list, in order, and remembers what was asked.
    #[derive(Default, Debug)]
    pub(in crate::sync) struct Scripted {
        answers: Mutex<VecDeque<Result<HttpResponse, HttpError>>>,
        requests: Mutex<Vec<HttpRequest>>,
    }

    impl Scripted {
        pub(in crate::sync) fn new(
            answers: impl IntoIterator<Item = Result<HttpResponse, HttpError>>,
        ) -> Self {
            Self {
                answers: Mutex::new(answers.into_iter().collect()),
                requests: Mutex::default(),
            }
        }

        /// A client whose answers all have status 200.
        pub(in crate::sync) fn bodies<const N: usize>(bodies: [&str; N]) -> Self {
            Self::new(bodies.map(|body| Ok(HttpResponse::new(200, body))))
        }

        pub(in crate::sync) fn requests(&self) -> Vec<HttpRequest> {
            self.requests.lock().clone()
        }

        pub(in crate::sync) fn urls(&self) -> Vec<String> {
            let requests = self.requests.lock();
            requests.iter().map(|request| request.url.clone()).collect()
        }
    }

    impl HttpClient for Scripted {
        fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
            self.requests.lock().push(request.clone());
            let answer = self.answers.lock().pop_front();
            answer.expect("the script is over")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_have_no_case_and_values_are_not_shown() {
        let mut headers = Headers::new();
        headers.append("Link", "one");
        headers.append("LINK", "two");
        assert_eq!(headers.get("link"), Some("one"));
        assert_eq!(headers.get_all("link").collect::<Vec<_>>(), ["one", "two"]);
        headers.set("lInK", "three");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("lInK", "three")]);
        let request = HttpRequest::get("https://api.example").header("Authorization", "secret");
        let shown = format!("{request:?}");
        assert!(shown.contains("Authorization") && !shown.contains("secret"));
    }

    #[test]
    fn an_excerpt_is_bounded_and_text() {
        let response = HttpResponse::new(500, "\u{e4}".repeat(1000).into_bytes());
        assert!(response.excerpt().len() <= EXCERPT_MAX + 2);
        assert_eq!(HttpResponse::new(500, [0xff, b'a']).excerpt(), "\u{fffd}a");
        assert!(!HttpResponse::new(302, []).is_success());
    }
}
