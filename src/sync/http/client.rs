//! The client on `ureq`: blocking, HTTP/1.1, TLS by rustls with the web's usual authorities.

use std::time::Duration;

use ureq::http;

use super::{HttpClient, HttpError, HttpRequest, HttpResponse, Method};

/// The largest body of a response unless told otherwise, in bytes.
const BODY_MAX: u64 = 64 << 20;

/// An HTTP client for programs that have none of their own.
///
/// Connections are kept and used again. A proxy is taken from the environment (`HTTPS_PROXY` and
/// its kin). Redirects are not followed: the response is returned as it is.
#[derive(Clone, Debug)]
pub struct DefaultClient {
    agent: ureq::Agent,
    body_max: u64,
}

impl DefaultClient {
    /// A client that reads bodies of up to 64 MiB.
    pub fn new() -> Self {
        Self::through(ureq::Proxy::try_from_env())
    }

    fn through(proxy: Option<ureq::Proxy>) -> Self {
        let agent = ureq::Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("highwater/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self {
            agent,
            body_max: BODY_MAX,
        }
    }

    /// Sets the largest body of a response, in bytes.
    #[must_use]
    pub fn body_max(mut self, bytes: u64) -> Self {
        self.body_max = bytes;
        self
    }

    fn run(&self, request: &HttpRequest) -> Result<http::Response<ureq::Body>, HttpError> {
        let mut builder = http::Request::builder()
            .method(request.method.as_str())
            .uri(&request.url);
        for (name, value) in request.headers.iter() {
            builder = builder.header(name, value);
        }
        let has_body = matches!(request.method, Method::Post | Method::Put | Method::Patch);
        let answer = if has_body || !request.body.is_empty() {
            self.exchange(builder, request.body.as_slice(), request.timeout)
        } else {
            self.exchange(builder, (), request.timeout)
        };
        answer.map_err(|error| self.error(error))
    }

    fn exchange(
        &self,
        builder: http::request::Builder,
        body: impl ureq::AsSendBody,
        timeout: Duration,
    ) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(builder.body(body)?);
        let request = request.timeout_global(Some(timeout)).build();
        self.agent.run(request)
    }

    fn error(&self, error: ureq::Error) -> HttpError {
        match error {
            ureq::Error::Timeout(_) => HttpError::Timeout,
            ureq::Error::BodyExceedsLimit(_) => HttpError::BodyTooLarge { max: self.body_max },
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => HttpError::invalid_request(error),
            other => HttpError::transport(other),
        }
    }
}

impl Default for DefaultClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient for DefaultClient {
    fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut answer = self.run(request)?;
        let body = answer.body_mut().with_config().limit(self.body_max);
        let body = body.read_to_vec().map_err(|error| self.error(error))?;
        let mut response = HttpResponse::new(answer.status().as_u16(), body);
        for (name, value) in answer.headers() {
            // A field that is not text says nothing to anybody here.
            if let Ok(value) = value.to_str() {
                response.headers.append(name.as_str(), value);
            }
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// A client without the proxy that the tests' environment may have.
    fn client() -> DefaultClient {
        DefaultClient::through(None)
    }

    /// A server for one connection: the URL to reach it, and what it was sent.
    fn serve(answer: &'static str) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/path?q=1", listener.local_addr().expect("bound"));
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut received = Vec::new();
            let mut buffer = [0; 1024];
            let end = |received: &[u8]| {
                let body: &[u8] = if received.starts_with(b"POST") {
                    b"{}"
                } else {
                    b""
                };
                received.ends_with(&[b"\r\n\r\n", body].concat())
            };
            while !end(&received) {
                let n = stream.read(&mut buffer).expect("a request");
                received.extend_from_slice(&buffer[..n]);
            }
            if answer.is_empty() {
                // Say nothing until the client gives up.
                let _ = stream.read(&mut buffer);
            }
            let _ = stream.write_all(answer.as_bytes());
            String::from_utf8(received).expect("text")
        };
        (url, std::thread::spawn(serve))
    }

    #[test]
    fn any_status_is_a_response() {
        let (url, server) = serve(
            "HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
        );
        let request = HttpRequest::get(url).header("X-Key", "k");
        let response = client().send(&request).expect("a response");
        assert_eq!((response.status, response.body), (503, b"busy".to_vec()));
        assert_eq!(response.headers.get("retry-after"), Some("7"));
        let received = server.join().expect("served").to_ascii_lowercase();
        assert!(
            received.starts_with("get /path?q=1 http/1.1\r\n"),
            "{received}"
        );
        assert!(received.contains("\r\nx-key: k\r\n"), "{received}");
    }

    #[test]
    fn a_body_is_sent_and_a_redirect_is_not_followed() {
        let (url, server) = serve(
            "HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        let response = client().send(&HttpRequest::post(url, "{}"));
        assert_eq!(response.expect("a response").status, 307);
        let received = server.join().expect("served").to_ascii_lowercase();
        assert!(
            received.contains("content-length: 2\r\n") && received.ends_with("{}"),
            "{received}"
        );
    }

    #[test]
    fn a_body_over_the_limit_is_refused() {
        let (url, server) =
            serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12345");
        let answer = client().body_max(4).send(&HttpRequest::get(&url));
        assert!(
            matches!(answer, Err(HttpError::BodyTooLarge { max: 4 })),
            "{answer:?}"
        );
        server.join().expect("served");
        let (url, server) =
            serve("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1234");
        let answer = client().body_max(4).send(&HttpRequest::get(&url));
        assert_eq!(answer.expect("a response").body, b"1234");
        server.join().expect("served");
    }

    #[test]
    fn silence_times_out_and_what_cannot_be_sent_is_told_apart() {
        let (url, server) = serve("");
        let request = HttpRequest::get(url).timeout(Duration::from_millis(100));
        let answer = client().send(&request);
        assert!(matches!(answer, Err(HttpError::Timeout)), "{answer:?}");
        server.join().expect("served");
        for request in [
            HttpRequest::get("no url"),
            HttpRequest::get("/path"),
            HttpRequest::get("https://a.example").header("X-Key", "a\r\nb: c"),
        ] {
            let answer = client().send(&request);
            assert!(
                matches!(answer, Err(HttpError::InvalidRequest { .. })),
                "{answer:?}"
            );
        }
        let refused = client().send(&HttpRequest::get("http://127.0.0.1:1/"));
        assert!(refused.is_err_and(|error| error.is_transient()));
    }

    #[test]
    fn https_speaks_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}/", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).expect("a greeting");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                .expect("an answer");
            hello
        });
        let answer = client().send(&HttpRequest::get(url));
        // A handshake record of TLS; the plain answer to it is not taken for a response.
        assert_eq!(server.join().expect("served")[..2], [0x16, 0x03]);
        assert!(
            matches!(answer, Err(HttpError::Transport { .. })),
            "{answer:?}"
        );
    }
}
