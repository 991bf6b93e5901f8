//! Why a page could not be had.

use std::error::Error;
use std::fmt;

use super::Position;
use crate::sync::http::HttpError;

/// The longest URL in an error, in characters.
const URL_MAX: usize = 200;

/// Why a page could not be had. The position stays that of the failed page.
#[derive(Debug)]
#[non_exhaustive]
pub enum PageError {
    /// There was no response.
    Http(HttpError),
    /// The provider answered with another status than 2xx.
    Status {
        /// The status code.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
    },
    /// The body is not JSON.
    Json(serde_json::Error),
    /// The body has no array where the records should be.
    NoRecords {
        /// Where they should be.
        path: String,
        /// The beginning of the body.
        excerpt: String,
    },
    /// The cursor or link in the body is neither text nor a number.
    BadPointer {
        /// Where it is.
        path: String,
    },
    /// The request's URL, or a link, is not one that requests can be sent to.
    BadUrl {
        /// Its beginning.
        url: String,
    },
    /// A link leads to another host than the request, or to another scheme or port of it, so the
    /// request's credentials would go there.
    ForeignLink {
        /// Where it leads.
        host: String,
    },
    /// The provider leads back to where it was: the same cursor, link or records again.
    Circle {
        /// The position that came again.
        position: Position,
    },
    /// The position to resume from belongs to another style of pagination.
    ForeignPosition {
        /// The position as given.
        position: Position,
    },
}

impl PageError {
    pub(super) fn bad_url(url: &str) -> Self {
        Self::BadUrl {
            url: url.chars().take(URL_MAX).collect(),
        }
    }
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Status { status, excerpt } => {
                write!(f, "the provider answered with status {status}: {excerpt:?}")
            }
            Self::Json(error) => write!(f, "the provider's answer is not JSON: {error}"),
            Self::NoRecords { path, excerpt } => {
                write!(f, "there is no array of records at {path:?} in {excerpt:?}")
            }
            Self::BadPointer { path } => write!(
                f,
                "what {path:?} has for the next page is neither text nor a number"
            ),
            Self::BadUrl { url } => write!(f, "{url:?} is not a plain http or https URL"),
            Self::ForeignLink { host } => write!(
                f,
                "the next page is at {host}, which the request's credentials are not meant for"
            ),
            // Positions are not shown: they may hold credentials.
            Self::Circle { .. } => {
                f.write_str("the provider leads in a circle: the same page comes again")
            }
            Self::ForeignPosition { .. } => {
                f.write_str("the position to resume from belongs to another style of pagination")
            }
        }
    }
}

impl Error for PageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The text names the immediate cause, so the chain goes on behind it.
            Self::Http(error) => error.source(),
            Self::Json(error) => error.source(),
            _ => None,
        }
    }
}
