//! As much of URLs as pagination needs: resolving a link, comparing origins, setting a parameter.
//!
//! It is stricter than the grammar, because a link decides where credentials are sent: what two
//! parsers might read differently (user info, backslashes, anything but visible ASCII) is refused.

/// An absolute `http` or `https` URL in its parts, without fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Url<'a> {
    scheme: &'static str,
    authority: &'a str,
    /// Empty, or from its first slash on.
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Url<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(scheme))?;
        let rest = without_fragment(rest);
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if authority.is_empty() || !authority.bytes().all(plain) {
            return None;
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Some(Self {
            scheme,
            authority,
            path,
            query,
        })
    }

    /// Host and port in lower case; the scheme's own port is left out.
    pub(super) fn host(&self) -> String {
        normal_host(self.scheme, self.authority)
    }

    /// Whether credentials meant for `other` may be sent here: same scheme, host and port.
    pub(super) fn same_origin(&self, other: &Url<'_>) -> bool {
        self.scheme == other.scheme && self.host() == other.host()
    }

    /// Whether this is `host` by the scheme of `other`.
    pub(super) fn is_allowed(&self, host: &str, other: &Url<'_>) -> bool {
        self.scheme == other.scheme && self.host() == normal_host(self.scheme, host)
    }

    /// What `link` means on the page of this URL.
    pub(super) fn resolve(&self, link: &str) -> Option<String> {
        let Self {
            scheme, authority, ..
        } = self;
        let link = without_fragment(link.trim());
        let absolute = if has_scheme(link) {
            link.to_owned()
        } else if link.starts_with("//") {
            format!("{scheme}:{link}")
        } else {
            let (path, query) = link.split_at(link.find('?').unwrap_or(link.len()));
            let path = match path {
                "" => self.path.to_owned(),
                path if path.starts_with('/') => without_dots(path),
                path => {
                    let folder = self.path.rfind('/').map_or("", |end| &self.path[..end]);
                    without_dots(&format!("{folder}/{path}"))
                }
            };
            format!("{scheme}://{authority}{path}{query}")
        };
        Url::parse(&absolute).map(|url| url.text())
    }

    /// This URL with one query parameter set, in place of those of the same name.
    pub(super) fn with_param(&self, name: &str, value: &str) -> String {
        let encoded = percent_encode(name);
        let others = self.query.unwrap_or("").split('&').filter(|pair| {
            let key = pair.split('=').next().unwrap_or("");
            !pair.is_empty() && key != name && !key.eq_ignore_ascii_case(&encoded)
        });
        let mut pairs: Vec<&str> = others.collect();
        let pair = format!("{encoded}={}", percent_encode(value));
        pairs.push(&pair);
        let query = pairs.join("&");
        let url = Url {
            query: Some(&query),
            ..*self
        };
        url.text()
    }

    fn text(&self) -> String {
        let Self {
            scheme,
            authority,
            path,
            query,
        } = self;
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        format!("{scheme}://{authority}{path}{mark}{query}")
    }
}

fn normal_host(scheme: &str, authority: &str) -> String {
    let default = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default).unwrap_or(authority);
    authority.to_ascii_lowercase()
}

fn without_fragment(text: &str) -> &str {
    text.split('#').next().unwrap_or("")
}

/// Whether a link starts with a scheme: a colon comes before everything that may hold one.
fn has_scheme(link: &str) -> bool {
    let end = link.find([':', '/', '?']);
    end.is_some_and(|end| link[end..].starts_with(':'))
}

/// A path from its first slash on, with `.` and `..` carried out.
fn without_dots(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    // A dot at the end names a folder.
    if path.ends_with("/.") || path.ends_with("/..") {
        segments.push("");
    }
    format!("/{}", segments.join("/"))
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url<'_> {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn links_resolve_as_the_specification_says() {
        let base = url("http://a/b/c/d;p?q");
        // RFC 3986, 5.4, without the examples of other schemes.
        for (link, absolute) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g?u=http://b", "http://a/b/c/g?u=http://b"),
            ("HTTPS://B:8/x?#f", "https://B:8/x?"),
        ] {
            assert_eq!(base.resolve(link).as_deref(), Some(absolute), "{link}");
        }
        assert_eq!(url("http://a").resolve("g").as_deref(), Some("http://a/g"));
        assert_eq!(
            url("http://a?x").resolve("?y").as_deref(),
            Some("http://a?y")
        );
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        let base = url("https://api.example/v1");
        for link in [
            "ftp://api.example/",
            "javascript:alert(1)",
            "https:api.example",
            "https:/api.example",
            "https://",
            "https://?q",
            "https://user@api.example/",
            "https://api.example\\@evil.example/",
            "/\\evil.example",
            "https://api.example%2eevil.example/",
            "https://\u{e4}.example/",
            "/a b",
            "/a\r\nb",
        ] {
            assert_eq!(base.resolve(link), None, "{link}");
        }
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let base = url("https://api.example/v1");
        for same in ["https://API.example:443/v2", "HTTPS://api.example?x"] {
            assert!(url(same).same_origin(&base), "{same}");
        }
        for other in [
            "http://api.example/",
            "https://api.example:8443/",
            "https://api.example.evil.example/",
            "https://example/",
        ] {
            assert!(!url(other).same_origin(&base), "{other}");
        }
        assert!(url("https://eu.example/").is_allowed("EU.example:443", &base));
        assert!(!url("http://eu.example/").is_allowed("eu.example", &base));
    }

    #[test]
    fn a_parameter_is_set_in_place_of_its_like() {
        for (before, after) in [
            ("https://a/p", "https://a/p?c=x%2F%20%26%C3%A4"),
            ("https://a/p?", "https://a/p?c=x%2F%20%26%C3%A4"),
            (
                "https://a/p?c=1&d=c&c",
                "https://a/p?d=c&c=x%2F%20%26%C3%A4",
            ),
            ("https://a?d#c=3", "https://a?d&c=x%2F%20%26%C3%A4"),
        ] {
            assert_eq!(url(before).with_param("c", "x/ &\u{e4}"), after);
        }
        let bracketed = url("https://a/?page[after]=1&page%5bafter%5D=2");
        assert_eq!(
            bracketed.with_param("page[after]", "3"),
            "https://a/?page%5Bafter%5D=3"
        );
    }
}
