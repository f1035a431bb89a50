//! Browsers that show pages of other sites: they may read and vote here, and write nothing that takes a token.

use axum::{
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW,
        },
    },
    response::{IntoResponse, Response},
};

const ANY: HeaderValue = HeaderValue::from_static("*");

/// On the answers of routes that are not for them.
#[derive(Clone, Copy)]
struct NotForOthers;

/// Marks an answer that is not for pages of other sites.
pub(crate) fn mark(mut response: Response) -> Response {
    response.extensions_mut().insert(NotForOthers);
    response
}

/// Marks the answers of a route.
pub(crate) async fn not_for_others(response: Response) -> Response {
    mark(response)
}

/// Lets pages of other sites see an answer, unless it is marked. Before they send anything but what forms do,
/// browsers ask with OPTIONS, which no route knows.
pub(crate) fn open_to_others(method: &Method, mut response: Response) -> Response {
    if response.extensions().get::<NotForOthers>().is_some() {
        return response;
    }
    if method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let mut headers = HeaderMap::new();
        headers.extend(response.headers_mut().remove(ALLOW).map(|allow| (ALLOW, allow)));
        let methods = HeaderValue::from_static("GET,HEAD,POST");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ANY);
        response = headers.into_response();
    }
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
    response
}
