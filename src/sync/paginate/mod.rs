//! Walking a provider's list of records page by page, in the styles that providers have.
//!
//! After each page there is a [`Position`] to go on from, which is small, serialisable, and all
//! there is to remember: saved with the page's records, it makes a sync that was interrupted go on
//! exactly behind the last page it saved.
//!
//! * [`body`]: finding records, cursors and links in a response
//! * [`url`]: resolving links, setting parameters

mod body;
mod error;
#[cfg(test)]
mod tests;
mod url;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use error::PageError;

use self::body::Pointer;
use self::url::Url;
use super::http::{HttpClient, HttpRequest, HttpResponse};

/// How a provider tells where the next page is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Style {
    /// The body has a cursor to send back. The last page has none, or null, false or the empty
    /// string.
    Cursor {
        /// Where the cursor is in the body, such as `paging.next.after`.
        path: String,
        /// The query parameter it is sent back in.
        param: String,
    },
    /// The body has a link to the next page. The last page has none, or null, false or the empty
    /// string.
    NextLink {
        /// Where the link is in the body, such as `@odata.nextLink`.
        path: String,
    },
    /// The header `Link` names the next page with `rel="next"`.
    LinkHeader,
    /// The request says how many records to skip. The page that has fewer records than asked for
    /// is the last; so the provider must really give as many as it is asked for.
    Offset {
        /// The query parameter that says how many records to skip.
        param: String,
        /// How many to skip at first, which is 0 nearly everywhere.
        start: u64,
        /// How many records to ask for.
        size: PageSize,
    },
    /// The request says the number of the page.
    PageNumber {
        /// The query parameter with the number.
        param: String,
        /// The number of the first page.
        start: u64,
        /// How many records to ask for; the page that has fewer is the last. Without it, the last
        /// page is an empty one.
        size: Option<PageSize>,
    },
}

/// How many records to ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageSize {
    /// The query parameter that says so.
    pub param: String,
    /// How many.
    pub size: u64,
}

/// How to walk a provider's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pagination {
    style: Style,
    records: String,
    records_optional: bool,
    allowed_hosts: Vec<String>,
}

impl Pagination {
    /// A list with pages in the given style, whose bodies have an array of records at the path
    /// `records`: field names with dots between them, such as `data.items`, or empty when the body
    /// is the array.
    pub fn new(style: Style, records: impl Into<String>) -> Self {
        Self {
            style,
            records: records.into(),
            records_optional: false,
            allowed_hosts: Vec::new(),
        }
    }

    /// Takes a page without the array for an empty page, for providers that leave it out then.
    ///
    /// Otherwise it is an error, because it may as well be one in disguise, and an empty list
    /// would look as if everything had been deleted.
    #[must_use]
    pub fn records_optional(mut self) -> Self {
        self.records_optional = true;
        self
    }

    /// Follows links to another host (`host` or `host:port`), too. They get the request's headers,
    /// with their credentials.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.push(host.into());
        self
    }
}

/// Which page of a list comes next. It belongs to the request and the [`Pagination`] that it was
/// made with.
///
/// Links and cursors come from the provider and may hold anything, even credentials.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// The first one.
    #[default]
    Start,
    /// The one behind this cursor.
    Cursor(String),
    /// The one at this URL.
    Link(String),
    /// The one behind so many records.
    Offset(u64),
    /// The one of this number.
    Page(u64),
    /// None: the list was walked to its end.
    Done,
}

/// One page of a provider's list.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProviderPage {
    /// The records, each as the text it came in, so that numbers keep their spelling.
    pub records: Vec<Box<RawValue>>,
    /// What comes next; to be saved together with the records.
    pub next: Position,
}

/// The pages of a list, fetched one at a time.
///
/// After an error there are no more pages; the position to go on from is still that of the page
/// that failed.
#[derive(Debug)]
pub struct Pages<C> {
    client: C,
    request: HttpRequest,
    pagination: Pagination,
    position: Position,
    failed: bool,
    guard: Guard,
}

impl<C: HttpClient> Pages<C> {
    /// The pages from the first on. `request` is what asks for the first page, except for the
    /// parameters of the style.
    pub fn new(client: C, request: HttpRequest, pagination: Pagination) -> Self {
        Self {
            client,
            request,
            pagination,
            position: Position::Start,
            failed: false,
            guard: Guard::default(),
        }
    }

    /// The pages from `position` on.
    ///
    /// # Errors
    /// [`PageError::ForeignPosition`] when the position belongs to another style.
    pub fn resume(mut self, position: Position) -> Result<Self, PageError> {
        let fits = matches!(
            (&self.pagination.style, &position),
            (_, Position::Start | Position::Done)
                | (Style::Cursor { .. }, Position::Cursor(_))
                | (
                    Style::NextLink { .. } | Style::LinkHeader,
                    Position::Link(_)
                )
                | (Style::Offset { .. }, Position::Offset(_))
                | (Style::PageNumber { .. }, Position::Page(_))
        );
        if !fits {
            return Err(PageError::ForeignPosition { position });
        }
        self.position = position;
        Ok(self)
    }

    /// Which page comes next.
    pub fn position(&self) -> &Position {
        &self.position
    }

    fn fetch(&mut self) -> Result<ProviderPage, PageError> {
        let request = self.request_at(&self.position)?;
        let response = self.client.send(&request).map_err(PageError::Http)?;
        if !response.is_success() {
            return Err(PageError::Status {
                status: response.status,
                excerpt: response.excerpt(),
            });
        }
        let records = self.records(&response)?;
        let next = self.next_position(&request, &response, records.len() as u64)?;
        self.guard.check(&self.position, &next, &records)?;
        self.position = next.clone();
        Ok(ProviderPage { records, next })
    }

    fn request_at(&self, position: &Position) -> Result<HttpRequest, PageError> {
        let mut request = self.request.clone();
        let base = parse(&self.request.url)?;
        let counted = |param: &str, number: u64, size: Option<&PageSize>| {
            let url = base.with_param(param, &number.to_string());
            match (size, Url::parse(&url)) {
                (Some(size), Some(url)) => url.with_param(&size.param, &size.size.to_string()),
                _ => url,
            }
        };
        request.url = match (&self.pagination.style, position) {
            (Style::Cursor { param, .. }, Position::Cursor(cursor)) => {
                base.with_param(param, cursor)
            }
            (_, Position::Link(link)) => {
                // Checked here and not where it was found: it may come out of a checkpoint.
                self.check_host(&base, &parse(link)?)?;
                link.clone()
            }
            (Style::Offset { param, start, size }, position) => {
                let offset = position.number().unwrap_or(*start);
                counted(param, offset, Some(size))
            }
            (Style::PageNumber { param, start, size }, position) => {
                let number = position.number().unwrap_or(*start);
                counted(param, number, size.as_ref())
            }
            _ => request.url,
        };
        Ok(request)
    }

    fn check_host(&self, base: &Url<'_>, target: &Url<'_>) -> Result<(), PageError> {
        let mut allowed = self.pagination.allowed_hosts.iter();
        if target.same_origin(base) || allowed.any(|host| target.is_allowed(host, base)) {
            return Ok(());
        }
        let host = target.host();
        Err(PageError::ForeignLink { host })
    }

    fn records(&self, response: &HttpResponse) -> Result<Vec<Box<RawValue>>, PageError> {
        let Pagination { records: path, .. } = &self.pagination;
        let found = body::find(&response.body, path).map_err(PageError::Json)?;
        match found.map(RawValue::get) {
            Some(text) if text.starts_with('[') => {
                serde_json::from_str(text).map_err(PageError::Json)
            }
            // Some encoders write an empty list so.
            Some("null") => Ok(Vec::new()),
            None if self.pagination.records_optional => Ok(Vec::new()),
            _ => Err(PageError::NoRecords {
                path: path.clone(),
                excerpt: response.excerpt(),
            }),
        }
    }

    fn next_position(
        &self,
        request: &HttpRequest,
        response: &HttpResponse,
        count: u64,
    ) -> Result<Position, PageError> {
        let pointer = |path: &str| {
            let field = body::find(&response.body, path).map_err(PageError::Json)?;
            match body::pointer(field) {
                Pointer::End => Ok(None),
                Pointer::To(text) => Ok(Some(text)),
                Pointer::Nonsense => Err(PageError::BadPointer {
                    path: path.to_owned(),
                }),
            }
        };
        let link = |link: Option<String>| match link {
            Some(link) => self.follow(request, &link),
            None => Ok(Position::Done),
        };
        let is_last = |size: Option<&PageSize>| count < size.map_or(1, |size| size.size.max(1));
        Ok(match &self.pagination.style {
            Style::Cursor { path, .. } => pointer(path)?.map_or(Position::Done, Position::Cursor),
            Style::NextLink { path } => link(pointer(path)?)?,
            Style::LinkHeader => {
                let mut headers = response.headers.get_all("Link");
                link(headers.find_map(body::next_link).map(str::to_owned))?
            }
            Style::Offset { size, .. } if is_last(Some(size)) => Position::Done,
            Style::Offset { start, .. } => {
                let skipped = self.position.number().unwrap_or(*start);
                Position::Offset(skipped.saturating_add(count))
            }
            Style::PageNumber { size, .. } if is_last(size.as_ref()) => Position::Done,
            Style::PageNumber { start, .. } => {
                let number = self.position.number().unwrap_or(*start);
                Position::Page(number.saturating_add(1))
            }
        })
    }

    /// A link on the page that `request` asked for.
    fn follow(&self, request: &HttpRequest, link: &str) -> Result<Position, PageError> {
        let target = parse(&request.url)?
            .resolve(link)
            .ok_or_else(|| PageError::bad_url(link))?;
        self.check_host(&parse(&self.request.url)?, &parse(&target)?)?;
        Ok(Position::Link(target))
    }
}

impl<C: HttpClient> Iterator for Pages<C> {
    type Item = Result<ProviderPage, PageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.position == Position::Done {
            return None;
        }
        let page = self.fetch();
        self.failed = page.is_err();
        Some(page)
    }
}

impl Position {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Offset(number) | Self::Page(number) => Some(*number),
            _ => None,
        }
    }
}

fn parse(url: &str) -> Result<Url<'_>, PageError> {
    Url::parse(url).ok_or_else(|| PageError::bad_url(url))
}

/// Notices a provider that leads in a circle.
///
/// A cursor or link is compared with the one before and with a landmark, which moves to the
/// current one after 1, 2, 4, ... pages: sooner or later it lies on the circle and is met again.
/// Offsets and numbers never repeat, so there the records of a page are compared with those of the
/// page before: a provider that ignores the parameter sends the same page for ever.
#[derive(Default, Debug)]
struct Guard {
    landmark: Position,
    pages: u64,
    records: Option<blake3::Hash>,
}

impl Guard {
    fn check(
        &mut self,
        current: &Position,
        next: &Position,
        records: &[Box<RawValue>],
    ) -> Result<(), PageError> {
        let circle = match next {
            Position::Cursor(_) | Position::Link(_) => next == current || *next == self.landmark,
            Position::Offset(_) | Position::Page(_) => {
                let mut hasher = blake3::Hasher::new();
                for record in records {
                    hasher.update(record.get().as_bytes()).update(b"\n");
                }
                let digest = Some(hasher.finalize());
                std::mem::replace(&mut self.records, digest) == digest
            }
            Position::Start | Position::Done => false,
        };
        if circle {
            let position = next.clone();
            return Err(PageError::Circle { position });
        }
        self.pages += 1;
        if self.pages.is_power_of_two() {
            self.landmark = next.clone();
        }
        Ok(())
    }
}
