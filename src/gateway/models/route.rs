//! What a request asks for, by its method, path and query, and the key that it brings.
//!
//! Pure: the head of a hostile sandbox's request in, a typed route out. Nothing is decoded, so nothing can hide in an
//! encoding, and what goes to an upstream is written anew from the route. Called by `serve`.

use hyper::{HeaderMap, Method, header};

use super::{Protocol, refusal::Refusal};
use crate::gateway::head::{Head, Target};

/// The longest name of a model in a path.
const MAX_MODEL: usize = 100;

/// One of the requests that are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The models of one protocol, which the door itself knows.
    List(Protocol),
    /// OpenAI's chat completions; the model stands in the body.
    Chat,
    /// OpenAI's responses; likewise.
    Responses,
    /// Anthropic's messages; likewise.
    Messages,
    /// Anthropic's count of their tokens, which costs nothing.
    MessagesCount,
    /// A call of Gemini's.
    Gemini {
        /// The model.
        model: String,
        /// What it is to do.
        verb: Verb,
    },
}

/// What a model of Gemini's is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Generate,
    /// The same as server-sent events.
    Stream,
    /// Costs nothing.
    Count,
}

impl Verb {
    /// How it stands in a path.
    fn name(self) -> &'static str {
        match self {
            Self::Generate => "generateContent",
            Self::Stream => "streamGenerateContent",
            Self::Count => "countTokens",
        }
    }
}

impl Route {
    /// The protocol that it belongs to.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::List(protocol) => *protocol,
            Self::Chat => Protocol::OpenAi,
            Self::Responses => Protocol::Responses,
            Self::Messages | Self::MessagesCount => Protocol::Messages,
            Self::Gemini { .. } => Protocol::Gemini,
        }
    }

    /// What follows an upstream's base address.
    pub(super) fn path(&self) -> String {
        match self {
            Self::List(Protocol::Gemini) => "/v1beta/models".to_owned(),
            Self::List(_) => "/models".to_owned(),
            Self::Chat => "/chat/completions".to_owned(),
            Self::Responses => "/responses".to_owned(),
            Self::Messages => "/messages".to_owned(),
            Self::MessagesCount => "/messages/count_tokens".to_owned(),
            Self::Gemini { model, verb } => {
                let query = if *verb == Verb::Stream { "?alt=sse" } else { "" };
                format!("/v1beta/models/{model}:{}{query}", verb.name())
            }
        }
    }

    /// Parses a request's method, path and query.
    fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let (route, wanted) = match path {
            "/v1/models" => (Self::List(Protocol::OpenAi), Method::GET),
            "/v1/chat/completions" => (Self::Chat, Method::POST),
            "/v1/responses" => (Self::Responses, Method::POST),
            "/v1/messages" => (Self::Messages, Method::POST),
            "/v1/messages/count_tokens" => (Self::MessagesCount, Method::POST),
            "/v1beta/models" => (Self::List(Protocol::Gemini), Method::GET),
            _ => {
                let rest = path.strip_prefix("/v1beta/models/").ok_or(Refusal::NoRoute)?;
                let (model, verb) = rest.rsplit_once(':').ok_or(Refusal::NoRoute)?;
                let verb = [Verb::Generate, Verb::Stream, Verb::Count].into_iter().find(|known| known.name() == verb);
                let verb = verb.filter(|_| is_model(model)).ok_or(Refusal::NoRoute)?;
                (Self::Gemini { model: model.to_owned(), verb }, Method::POST)
            }
        };
        if *method != wanted {
            return Err(Refusal::Method);
        }
        let mut events = false;
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            match (pair.split_once('='), &route) {
                (Some(("key", _)), _)
                | (Some(("pageSize", _)), Self::List(_))
                // What it opens stands in a header too.
                | (Some(("beta", "true")), Self::Messages | Self::MessagesCount) => {}
                (Some(("alt", "sse")), Self::Gemini { verb: Verb::Stream, .. }) if !events => events = true,
                _ => return Err(Refusal::Query),
            }
        }
        // Without it a stream is one long JSON array, which nobody here reads.
        if matches!(route, Self::Gemini { verb: Verb::Stream, .. }) && !events {
            return Err(Refusal::Query);
        }
        Ok(route)
    }
}

/// Tells whether a model's name may stand in a path. Where `..` or a slash could not be told from the path's own, they
/// could lead elsewhere.
pub(super) fn is_model(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_MODEL).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}

/// The protocol in whose shape a request is answered, whatever else is wrong with it.
pub(super) fn shape(head: &Head) -> Protocol {
    match &head.target {
        Target::Origin { path } if path.starts_with("/v1beta") => Protocol::Gemini,
        Target::Origin { path } if path.starts_with("/v1/messages") => Protocol::Messages,
        Target::Origin { path } if path.starts_with("/v1/responses") => Protocol::Responses,
        _ => Protocol::OpenAi,
    }
}

/// Reads a request's route and key.
pub(super) fn read(head: &Head) -> Result<(Route, &str), Refusal> {
    let Target::Origin { path } = &head.target else { return Err(Refusal::NoRoute) };
    let (path, query) = path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
    let key = key(&head.headers, query).ok_or(Refusal::Key)?;
    Ok((Route::parse(&head.method, path, query)?, key))
}

/// Finds the key: as OpenAI's clients send it, as Gemini's and Anthropic's do, and as Gemini's may.
fn key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<&'a str> {
    let of = |value: &'a header::HeaderValue| value.to_str().ok();
    let bearer = headers.get(header::AUTHORIZATION).and_then(of).and_then(|value| value.strip_prefix("Bearer "));
    let own = || headers.get("x-goog-api-key").or_else(|| headers.get("x-api-key")).and_then(of);
    let asked = || query?.split('&').find_map(|pair| pair.strip_prefix("key="));
    bearer.or_else(own).or_else(asked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::head;

    fn route(line: &str) -> Result<Route, Refusal> {
        let head = head::parse(format!("{line} HTTP/1.1\r\nx-goog-api-key: k\r\n\r\n").as_bytes()).unwrap();
        read(&head).map(|(route, _)| route)
    }

    fn gemini(model: &str, verb: Verb) -> Route {
        Route::Gemini { model: model.into(), verb }
    }

    #[test]
    fn the_routes_that_are_open() {
        assert_eq!(route("GET /v1/models"), Ok(Route::List(Protocol::OpenAi)));
        assert_eq!(route("GET /v1beta/models?pageSize=50&key=x"), Ok(Route::List(Protocol::Gemini)));
        assert_eq!(route("POST /v1/chat/completions"), Ok(Route::Chat));
        assert_eq!(route("POST /v1/responses"), Ok(Route::Responses));
        assert_eq!(route("POST /v1/messages?beta=true"), Ok(Route::Messages));
        assert_eq!(route("POST /v1/messages/count_tokens?beta=true"), Ok(Route::MessagesCount));
        let base = "POST /v1beta/models/gemini-2.5-pro";
        assert_eq!(route(&format!("{base}:generateContent?key=x")), Ok(gemini("gemini-2.5-pro", Verb::Generate)));
        assert_eq!(route(&format!("{base}:streamGenerateContent?alt=sse")), Ok(gemini("gemini-2.5-pro", Verb::Stream)));
        assert_eq!(route(&format!("{base}:countTokens")), Ok(gemini("gemini-2.5-pro", Verb::Count)));
        let path = gemini("gemini-2.5-pro", Verb::Stream).path();
        assert_eq!(path, "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
    }

    #[test]
    fn all_others_are_closed() {
        for line in [
            "POST /v1/responses/resp_1",
            "POST /v1/responses/compact",
            "POST /v1/messages/batches",
            "POST /v1/files",
            "POST /v1/embeddings",
            "POST /v1/chat/completions/",
            "POST /v1//chat/completions",
            "POST /v1/../v1/chat/completions",
            "POST /chat/completions",
            "POST /v1beta/models/a/b:generateContent",
            "POST /v1beta/models/..:generateContent",
            "POST /v1beta/models/%2e%2e:generateContent",
            "POST /v1beta/models/:generateContent",
            "POST /v1beta/models/a:batchGenerateContent",
            "POST /v1beta/models/a:generateContent:generateContent",
            "POST /v1beta/files",
            "POST /upload/v1beta/files",
            "POST /v1beta/cachedContents",
            "POST http://generativelanguage.googleapis.com/v1beta/models/a:generateContent",
            "CONNECT generativelanguage.googleapis.com:443",
            "GET /",
        ] {
            assert_eq!(route(line), Err(Refusal::NoRoute), "{line}");
        }
        for line in ["GET /v1/chat/completions", "POST /v1/models", "PUT /v1beta/models/a:generateContent"] {
            assert_eq!(route(line), Err(Refusal::Method), "{line}");
        }
        for line in [
            "POST /v1/chat/completions?x=1",
            "POST /v1/chat/completions?beta=true",
            "POST /v1/messages?beta=1",
            "POST /v1beta/models/a:generateContent?alt=sse",
            "POST /v1beta/models/a:streamGenerateContent",
            "POST /v1beta/models/a:streamGenerateContent?alt=json",
            "POST /v1beta/models/a:streamGenerateContent?alt=sse&alt=sse",
            "POST /v1beta/models/a:streamGenerateContent?alt=sse&$alt=proto",
            "GET /v1/models?",
        ] {
            assert_eq!(route(line), Err(Refusal::Query), "{line}");
        }
    }

    #[test]
    fn the_key_comes_in_three_ways_and_a_request_without_one_goes_no_further() {
        let key = |lines: &str| {
            let text = format!("{lines}\r\n\r\n").replace('\n', "\r\n").replace("\r\r", "\r");
            read(&head::parse(text.as_bytes()).unwrap()).map(|(_, key)| key.to_owned())
        };
        let line = "GET /v1/models HTTP/1.1";
        assert_eq!(key(&format!("{line}\nAuthorization: Bearer a")), Ok("a".into()));
        assert_eq!(key(&format!("{line}\nx-goog-api-key: b")), Ok("b".into()));
        assert_eq!(key(&format!("{line}\nx-api-key: d")), Ok("d".into()));
        assert_eq!(key("GET /v1/models?key=c HTTP/1.1"), Ok("c".into()));
        for none in [line.to_owned(), format!("{line}\nAuthorization: Basic a"), "GET /v1/models?ke=c HTTP/1.1".into()]
        {
            assert_eq!(key(&none), Err(Refusal::Key), "{none}");
        }
        // What is closed is not told to whoever has no key.
        assert_eq!(key("GET /nowhere HTTP/1.1"), Err(Refusal::Key));
    }

    proptest! {
        #[test]
        fn what_passes_is_one_of_the_shapes_and_leads_nowhere_else(
            method in prop::sample::select(vec!["GET", "POST", "PUT", "DELETE"]),
            path in "/(v1|v1beta|v2|\\.\\.)?(/|//)?(models|chat/completions|responses|messages)?(/[a-zA-Z0-9._%-]{0,12}){0,2}(:[a-zA-Z]{0,22}|:streamGenerateContent|:generateContent)?(\\?[a-z=&;]{0,12}|\\?alt=sse)?",
        ) {
            let text = format!("{method} {path} HTTP/1.1\r\nx-goog-api-key: k\r\n\r\n");
            if let Ok(head) = head::parse(text.as_bytes())
                && let Ok((route, _)) = read(&head)
            {
                let out = route.path();
                prop_assert!(out.starts_with('/') && !out.contains("//") && !out.contains("..") && !out.contains('%'), "{}", out);
                let url = reqwest::Url::parse(&format!("https://up.example/base{out}")).unwrap();
                prop_assert_eq!(url.as_str(), format!("https://up.example/base{out}"));
                prop_assert_eq!(method == "GET", matches!(route, Route::List(_)));
                prop_assert_eq!(route.protocol(), shape(&head));
            }
        }

        #[test]
        fn every_model_with_a_plain_name_comes_back(model in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,60}") {
            let found = route(&format!("POST /v1beta/models/{model}:generateContent"));
            prop_assert_eq!(found, Ok(gemini(&model, Verb::Generate)));
        }
    }
}
