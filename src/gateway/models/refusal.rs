//! Why a request to a model goes no further, in the shape in which each protocol tells errors.
//!
//! Pure. The rest of this folder speaks through it. The sentences are read by coding agents and, by way of them, by
//! people; what only the operator may know is in the log.

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;

use super::Protocol;
use crate::{
    gateway::{
        body::BadBody,
        denial::{Denial, MARK},
        hosts::Host,
    },
    ledger::Refused,
    text,
};

/// The most characters of a name that comes from the sandbox and is said back to it.
const NAMED: usize = 80;

/// A refusal. Its `Display` is the sentence in the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("This way leads to language models only, and only to generate, to count tokens and to list the models.")]
    NoRoute,
    #[error("This address does not take that method.")]
    Method,
    #[error("This address takes no such query: of Gemini's streams only `alt=sse` is open.")]
    Query,
    #[error("The key is not one that is valid here: each coding agent gets a key for the time of its run.")]
    Key,
    #[error("The request's body has more than {} MiB.", .0 >> 20)]
    TooLarge(usize),
    #[error("Too many large requests are under way at once. Try again when some have ended.")]
    Crowded,
    #[error("The request's body is compressed, which is not taken here.")]
    Compressed,
    #[error("The request's body is not the JSON that this address takes: {0}.")]
    Malformed(String),
    #[error("The field `{}` is not passed on to models.", text::one_line(.0, NAMED))]
    Field(String),
    #[error("`{}` is no tool that is passed on to models: only functions are.", text::one_line(.0, NAMED))]
    Tool(String),
    #[error(
        "`{}` would let the model's provider reach into the web, which is off. The operator can open it with \
         SANDBOX_WEB_SEARCH.",
        text::one_line(.0, NAMED)
    )]
    Web(String),
    #[error(
        "The request names an address from which the model's provider would fetch something, which is off: send the bytes \
         themselves. The operator can open it with SANDBOX_WEB_SEARCH."
    )]
    RemoteUrl,
    #[error("There is no model `{}` here. {}", text::one_line(asked, NAMED), known_sentence(known))]
    UnknownModel { asked: String, known: Vec<String> },
    #[error(transparent)]
    Ledger(#[from] Refused),
    #[error("{host} knows no model `{}`. It knows {}.", text::one_line(asked, NAMED), known.join(", "))]
    NotThere { host: Host, asked: String, known: Vec<String> },
    #[error("{0}")]
    NoServer(String),
    #[error("{0} answered with a redirect, which is not followed.")]
    Redirect(Host),
    #[error(transparent)]
    Denied(#[from] Denial),
}

fn known_sentence(known: &[String]) -> String {
    if known.is_empty() {
        return "The operator has set up no model that is asked in this way.".to_owned();
    }
    format!("Those that can be asked: {}.", known.join(", "))
}

impl From<BadBody> for Refusal {
    fn from(bad: BadBody) -> Self {
        Self::Denied(bad.into())
    }
}

impl Refusal {
    /// The HTTP status that goes with it. Of those that coding agents take for a reason to ask again (429 and 5xx), only
    /// what may pass by itself has one.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute | Self::UnknownModel { .. } | Self::NotThere { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Key => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Crowded | Self::Ledger(Refused::Busy(_) | Refused::Uncounted) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Query | Self::Compressed | Self::Malformed(_) | Self::Field(_) => StatusCode::BAD_REQUEST,
            Self::Tool(_) | Self::Web(_) | Self::RemoteUrl | Self::Ledger(Refused::Over(_)) => StatusCode::FORBIDDEN,
            Self::NoServer(_) | Self::Redirect(_) => StatusCode::BAD_GATEWAY,
            Self::Denied(denial) => denial.status(),
        }
    }

    /// A few words for the log: nothing in them came from the sandbox.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoRoute => "no such route",
            Self::Method => "method",
            Self::Query => "query",
            Self::Key => "no valid key",
            Self::TooLarge(_) => "body too large",
            Self::Crowded => "too many large requests",
            Self::Compressed => "compressed body",
            Self::Malformed(_) => "malformed body",
            Self::Field(_) => "unknown field",
            Self::Tool(_) => "server-side tool",
            Self::Web(_) => "web search",
            Self::RemoteUrl => "remote address",
            Self::UnknownModel { .. } | Self::NotThere { .. } => "unknown model",
            Self::Ledger(Refused::Over(_)) => "budget",
            Self::Ledger(Refused::Busy(_)) => "budget held by others",
            Self::Ledger(Refused::Uncounted) => "no ledger",
            Self::NoServer(_) => "no server",
            Self::Redirect(_) => "redirect",
            Self::Denied(denial) => denial.reason(),
        }
    }

    /// The answer, in the shape of `protocol`.
    pub(super) fn answer(&self, protocol: Protocol) -> Response<Full<bytes::Bytes>> {
        let (status, message) = (self.status(), self.to_string());
        let body = match protocol {
            Protocol::OpenAi | Protocol::Responses => {
                let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
                let code = match self {
                    Self::Key => "invalid_api_key",
                    Self::UnknownModel { .. } | Self::NotThere { .. } => "model_not_found",
                    _ => "refused",
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            }
            Protocol::Messages => {
                let kind = match status.as_u16() {
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Protocol::Gemini => {
                json!({"error": {"code": status.as_u16(), "message": message, "status": google_status(status)}})
            }
        };
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.headers_mut().insert(MARK, HeaderValue::from_static("1"));
        response
    }
}

/// Google's name for a status.
fn google_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    async fn told(refusal: Refusal, protocol: Protocol) -> (u16, Value) {
        let answer = refusal.answer(protocol);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn each_protocol_has_its_own_shape() {
        let unknown = || Refusal::UnknownModel { asked: "x\n\u{1b}[31m".into(), known: vec!["a".into(), "b".into()] };
        let message = "There is no model `x` here. Those that can be asked: a, b.";
        assert_eq!(
            told(unknown(), Protocol::OpenAi).await,
            (
                404,
                json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": "model_not_found"}})
            )
        );
        assert_eq!(
            told(unknown(), Protocol::Gemini).await,
            (404, json!({"error": {"code": 404, "message": message, "status": "NOT_FOUND"}}))
        );
        let silent = Refusal::Denied(Denial::Silent(Host::Name("a.org".into())));
        let (status, body) = told(silent, Protocol::Gemini).await;
        assert_eq!((status, &body["error"]["status"]), (504, &json!("DEADLINE_EXCEEDED")));
    }

    #[test]
    fn what_is_said_back_is_bounded() {
        let long = Refusal::Tool("x".repeat(5000)).to_string();
        assert!(long.len() < 200, "{long}");
    }
}
