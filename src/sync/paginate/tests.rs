//! Each style against a provider that plays a script.

use super::*;
use crate::sync::http::HttpError;
use crate::sync::http::fake::Scripted;

const URL: &str = "https://api.example/v1/items?q=a";

fn cursor_style() -> Pagination {
    let style = Style::Cursor {
        path: "paging.next".to_owned(),
        param: "after".to_owned(),
    };
    Pagination::new(style, "data.items")
}

fn link_style() -> Pagination {
    let path = "next".to_owned();
    Pagination::new(Style::NextLink { path }, "items")
}

fn offset_style() -> Pagination {
    let style = Style::Offset {
        param: "skip".to_owned(),
        start: 0,
        size: size(2),
    };
    Pagination::new(style, "")
}

fn number_style(size: Option<PageSize>) -> Pagination {
    let (param, start) = ("page".to_owned(), 1);
    Pagination::new(Style::PageNumber { param, start, size }, "")
}

fn size(size: u64) -> PageSize {
    let param = "limit".to_owned();
    PageSize { param, size }
}

fn pages(client: &Scripted, pagination: Pagination) -> Pages<&Scripted> {
    let request = HttpRequest::get(URL).header("Authorization", "secret");
    Pages::new(client, request, pagination)
}

fn all(pages: Pages<&Scripted>) -> Result<Vec<Vec<String>>, PageError> {
    let texts = |page: ProviderPage| {
        let records = page.records.iter();
        records.map(|record| record.get().to_owned()).collect()
    };
    pages.map(|page| page.map(texts)).collect()
}

fn error(client: &Scripted, pagination: Pagination) -> PageError {
    let mut pages = pages(client, pagination);
    let last = pages.by_ref().last().expect("a page");
    assert!(pages.next().is_none(), "nothing comes after an error");
    last.expect_err("an error")
}

#[test]
fn cursors() {
    let client = Scripted::bodies([
        r#"{"data": {"items": [1.0, {"n": 12345678901234567890.10}]}, "paging": {"next": "x y"}}"#,
        r#"{"data": {"items": []}, "paging": {"next": 17}}"#,
        r#"{"data": {"items": ["c"]}, "paging": {}}"#,
    ]);
    let records = all(pages(&client, cursor_style())).expect("pages");
    let first = vec![
        "1.0".to_owned(),
        r#"{"n": 12345678901234567890.10}"#.to_owned(),
    ];
    assert_eq!(records, [first, vec![], vec!["\"c\"".to_owned()]]);
    let urls = client.urls();
    assert_eq!(urls[0], URL);
    assert_eq!(urls[1], format!("{URL}&after=x%20y"));
    assert_eq!(urls[2], format!("{URL}&after=17"));
    let requests = client.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.headers.get("authorization") == Some("secret"))
    );
}

#[test]
fn links_in_the_body() {
    let client = Scripted::bodies([
        r#"{"items": [1], "next": "/v2/items?c=2"}"#,
        r#"{"items": [2], "next": "more?c=3#top"}"#,
        r#"{"items": [3], "next": "https://API.example:443/v1?c=4"}"#,
        r#"{"items": null, "next": null}"#,
    ]);
    let records = all(pages(&client, link_style())).expect("pages");
    assert_eq!(records.concat(), ["1", "2", "3"]);
    let expected = [
        URL,
        "https://api.example/v2/items?c=2",
        "https://api.example/v2/more?c=3",
        "https://API.example:443/v1?c=4",
    ];
    assert_eq!(client.urls(), expected);
}

#[test]
fn links_in_the_header() {
    let page = |body: &str, link: &str| Ok(HttpResponse::new(200, body).header("link", link));
    let client = Scripted::new([
        page(
            "[1]",
            r#"</v1/items?p=2>; rel="next", </v1/items?p=2>; rel="last""#,
        ),
        page("[2]", r#"</v1/items?p=1>; rel="first""#),
    ]);
    let records = all(pages(&client, Pagination::new(Style::LinkHeader, ""))).expect("pages");
    assert_eq!(records.concat(), ["1", "2"]);
    assert_eq!(client.urls()[1], "https://api.example/v1/items?p=2");
}

#[test]
fn offsets() {
    let client = Scripted::bodies(["[1, 2]", "[3, 4]", "[5]"]);
    let records = all(pages(&client, offset_style())).expect("pages");
    assert_eq!(records.concat(), ["1", "2", "3", "4", "5"]);
    let expected = [0, 2, 4].map(|skip| format!("{URL}&skip={skip}&limit=2"));
    assert_eq!(client.urls(), expected);
    // More than asked for: the next page starts behind what came.
    let client = Scripted::bodies(["[1, 2, 3]", "[]"]);
    all(pages(&client, offset_style())).expect("pages");
    assert_eq!(client.urls()[1], format!("{URL}&skip=3&limit=2"));
}

#[test]
fn page_numbers() {
    let client = Scripted::bodies(["[1]", "[2]", "[]"]);
    all(pages(&client, number_style(None))).expect("pages");
    assert_eq!(
        client.urls(),
        [1, 2, 3].map(|page| format!("{URL}&page={page}"))
    );
    let client = Scripted::bodies(["[1, 2]", "[3]"]);
    all(pages(&client, number_style(Some(size(2))))).expect("pages");
    assert_eq!(
        client.urls(),
        [1, 2].map(|page| format!("{URL}&page={page}&limit=2"))
    );
}

#[test]
fn a_size_of_zero_ends() {
    let client = Scripted::bodies(["[]"]);
    assert_eq!(
        all(pages(&client, number_style(Some(size(0)))))
            .expect("pages")
            .len(),
        1
    );
}

#[test]
fn a_walk_goes_on_where_it_was_left() {
    let bodies = [
        r#"{"items": [1], "data": {"items": [1]}, "next": "/2", "paging": {"next": "b"}}"#,
        r#"{"items": [2], "data": {"items": [2]}, "next": "/3", "paging": {"next": "c"}}"#,
        r#"{"items": [3], "data": {"items": [3]}}"#,
    ];
    let counted = ["[1, 2]", "[3, 4]", "[5]"];
    for (pagination, bodies) in [
        (cursor_style(), bodies),
        (link_style(), bodies),
        (offset_style(), counted),
        (number_style(Some(size(2))), counted),
    ] {
        let whole = Scripted::bodies(bodies);
        let records = all(pages(&whole, pagination.clone())).expect("pages");
        // The same, with a new walk for every page and the position through its JSON.
        let client = Scripted::bodies(bodies);
        let mut saved = serde_json::to_string(&Position::Start).expect("JSON");
        let mut resumed = Vec::new();
        loop {
            let position = serde_json::from_str(&saved).expect("a position");
            let walk = pages(&client, pagination.clone()).resume(position);
            let mut walk = walk.expect("the style's own position");
            let Some(page) = walk.next() else { break };
            let page = page.expect("a page");
            assert_eq!(&page.next, walk.position());
            saved = serde_json::to_string(&page.next).expect("JSON");
            resumed.push(
                page.records
                    .iter()
                    .map(|r| r.get().to_owned())
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!((resumed, client.urls()), (records, whole.urls()));
        assert_eq!(saved, "\"done\"");
    }
}

#[test]
fn a_position_of_another_style_is_refused() {
    let client = Scripted::default();
    for (pagination, position) in [
        (cursor_style(), Position::Link(URL.to_owned())),
        (link_style(), Position::Cursor("c".to_owned())),
        (offset_style(), Position::Page(3)),
        (number_style(None), Position::Offset(3)),
    ] {
        let resumed = pages(&client, pagination).resume(position.clone());
        let error = resumed.expect_err("a foreign position");
        assert!(
            matches!(error, PageError::ForeignPosition { position: given } if given == position)
        );
    }
}

#[test]
fn a_circle_is_an_error() {
    let cursor = |c: &str| format!(r#"{{"data": {{"items": [1]}}, "paging": {{"next": "{c}"}}}}"#);
    for (circle, fetched) in [
        (&["a"][..], 2),
        (&["a", "b"], 4),
        (&["a", "b", "c", "d", "e"], 13),
    ] {
        let bodies = circle.iter().cycle().take(50).map(|c| cursor(c));
        let client = Scripted::new(bodies.map(|body| Ok(HttpResponse::new(200, body))));
        let error = error(&client, cursor_style());
        assert!(matches!(error, PageError::Circle { .. }), "{error}");
        assert_eq!(client.requests().len(), fetched);
    }
    let client = Scripted::bodies([r#"{"items": [1], "next": "?p=2"}"#; 3]);
    assert!(matches!(
        error(&client, link_style()),
        PageError::Circle { .. }
    ));
    // The parameter is ignored, so the same page comes for ever.
    for pagination in [
        offset_style(),
        number_style(None),
        number_style(Some(size(2))),
    ] {
        let client = Scripted::bodies(["[1, 2]"; 3]);
        assert!(matches!(
            error(&client, pagination),
            PageError::Circle { .. }
        ));
        assert_eq!(client.requests().len(), 2);
    }
}

#[test]
fn a_link_to_elsewhere_is_followed_only_when_allowed() {
    for link in [
        "https://evil.example/",
        "//evil.example/x",
        "https://api.example:8443/",
    ] {
        let body = format!(r#"{{"items": [1], "next": "{link}"}}"#);
        let client = Scripted::bodies([body.as_str()]);
        let error = error(&client, link_style());
        assert!(
            matches!(error, PageError::ForeignLink { .. }),
            "{link}: {error}"
        );
    }
    let client = Scripted::bodies([r#"{"items": [1], "next": "http://api.example/"}"#]);
    assert!(matches!(
        error(&client, link_style()),
        PageError::ForeignLink { .. }
    ));
    let client = Scripted::bodies([
        r#"{"items": [1], "next": "https://eu.example/"}"#,
        r#"{"items": [2], "next": "/3"}"#,
        r#"{"items": [3]}"#,
    ]);
    let records = all(pages(&client, link_style().allow_host("EU.example"))).expect("pages");
    assert_eq!(records.concat(), ["1", "2", "3"]);
    assert_eq!(client.urls()[2], "https://eu.example/3");
    // A checkpoint that somebody edited.
    let client = Scripted::default();
    let position = Position::Link("https://evil.example/".to_owned());
    let mut resumed = pages(&client, link_style())
        .resume(position)
        .expect("a link");
    let answer = resumed.next().expect("a page");
    assert!(matches!(answer, Err(PageError::ForeignLink { host }) if host == "evil.example"));
    assert!(client.requests().is_empty());
}

#[test]
fn answers_that_are_no_pages() {
    let client = Scripted::new([Ok(HttpResponse::new(403, "x".repeat(5000)))]);
    let PageError::Status { status, excerpt } = error(&client, link_style()) else {
        panic!("another error");
    };
    assert_eq!((status, excerpt.len()), (403, 512));
    let client = Scripted::new([Err(HttpError::Timeout)]);
    assert!(matches!(
        error(&client, link_style()),
        PageError::Http(HttpError::Timeout)
    ));
    let client = Scripted::bodies(["<html>"]);
    assert!(matches!(error(&client, link_style()), PageError::Json(_)));
    for body in [
        r#"{"ok": false}"#,
        r#"{"items": {}}"#,
        r#"{"items": "x"}"#,
        "[]",
        "7",
    ] {
        let client = Scripted::bodies([body]);
        assert!(
            matches!(error(&client, link_style()), PageError::NoRecords { .. }),
            "{body}"
        );
    }
    for next in ["true", "{}", "[1]"] {
        let body = format!(r#"{{"items": [], "next": {next}}}"#);
        let client = Scripted::bodies([body.as_str()]);
        assert!(
            matches!(error(&client, link_style()), PageError::BadPointer { .. }),
            "{next}"
        );
    }
    for next in [
        "\"ftp://api.example/\"",
        "\"https://u@api.example/\"",
        "\"/a b\"",
    ] {
        let body = format!(r#"{{"items": [], "next": {next}}}"#);
        let client = Scripted::bodies([body.as_str()]);
        assert!(
            matches!(error(&client, link_style()), PageError::BadUrl { .. }),
            "{next}"
        );
    }
    let client = Scripted::bodies(["{}"]);
    let optional = link_style().records_optional();
    assert_eq!(
        all(pages(&client, optional)).expect("pages"),
        [Vec::<String>::new()]
    );
}

#[test]
fn the_position_of_a_failed_page_is_kept() {
    let client = Scripted::new([
        Ok(HttpResponse::new(200, "[1, 2]")),
        Err(HttpError::Timeout),
    ]);
    let mut pages = pages(&client, offset_style());
    assert!(pages.next().is_some_and(|page| page.is_ok()));
    assert!(pages.next().is_some_and(|page| page.is_err()));
    assert!(pages.next().is_none());
    assert_eq!(*pages.position(), Position::Offset(2));
}
