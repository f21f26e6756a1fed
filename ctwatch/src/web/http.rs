//! Which page answers which request.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{self, HeaderValue},
};

use super::wire::Page;
use crate::output::openmetrics::format::{Format, negotiated};

/// All of an answer, in one piece.
pub(super) struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What is asked for, or with which status it is refused.
pub(super) fn wanted<B>(request: &Request<B>, telemetry_path: &str) -> Result<Page, StatusCode> {
    let page = match request.uri().path() {
        path if path == telemetry_path => {
            let accepted = request.headers().get_all(header::ACCEPT).iter();
            let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
            match negotiated(&accepted.join(",")) {
                Format::OpenMetrics => Page::OpenMetrics,
                Format::Text => Page::Text,
            }
        }
        "/" => Page::Landing,
        "/-/healthy" => Page::Health,
        "/api/v1/snapshot" => Page::Snapshot,
        "/api/v1/top" => Page::Top,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    match request.method() {
        &Method::GET | &Method::HEAD => Ok(page),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn content_type(page: Page) -> &'static str {
    match page {
        Page::OpenMetrics => Format::OpenMetrics.content_type(),
        Page::Text => Format::Text.content_type(),
        Page::Landing => "text/html; charset=utf-8",
        Page::Snapshot | Page::Top => "application/json",
        Page::Health => PLAIN,
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// A page, or why there is none now.
pub(super) fn answer(page: Page, bytes: Result<Bytes, Bytes>) -> Response<Whole> {
    match bytes {
        Ok(bytes) => response(StatusCode::OK, content_type(page), bytes),
        Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why),
    }
}

pub(super) fn refusal(status: StatusCode) -> Response<Whole> {
    let why = status.canonical_reason().unwrap_or_default();
    let mut response = response(status, PLAIN, Bytes::from_static(why.as_bytes()));
    if status == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static("Basic realm=\"ctwatch\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Whole> {
    let mut response = Response::new(Whole(Some(bytes)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

impl Whole {
    pub(super) fn length(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str, accept: Option<&str>) -> Result<Page, u16> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        wanted(&request.body(()).unwrap(), "/m").map_err(|status| status.as_u16())
    }

    #[test]
    fn pages_are_where_the_docs_say() {
        assert_eq!(asked("GET", "/m", None), Ok(Page::Text));
        assert_eq!(asked("GET", "/m?x=1", Some("text/plain")), Ok(Page::Text));
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(asked("GET", "/m", Some(prometheus)), Ok(Page::OpenMetrics));
        assert_eq!(asked("HEAD", "/", None), Ok(Page::Landing));
        assert_eq!(asked("GET", "/-/healthy", None), Ok(Page::Health));
        assert_eq!(asked("GET", "/api/v1/top", None), Ok(Page::Top));
        assert_eq!(asked("GET", "/api/v1/snapshot", None), Ok(Page::Snapshot));
        for path in ["/metrics", "/m/", "//", "/api", "/../etc/passwd", "/-/ready"] {
            assert_eq!(asked("GET", path, None), Err(404), "{path}");
            assert_eq!(asked("POST", path, None), Err(404), "{path}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "x"] {
            assert_eq!(asked(method, "/m", None), Err(405), "{method}");
        }
    }
}
