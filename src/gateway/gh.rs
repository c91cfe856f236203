//! `gh`'s route to GitHub's API: it reads the repositories that are open to the room, by REST, and nothing else.
//!
//! `gh`'s `http_unix_socket` sends it here in plain HTTP, with a key that is none; the gateway asks GitHub with the operator's.
//! What it does by GraphQL names things by ids that belong to any repository, so it is refused, as all that changes something:
//! for that there is the tool `github`. A refusal is JSON as GitHub's are, since `gh` shows its message. `Gateway::serve` calls it
//! for each connection of the kind `github`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde_json::json;

use super::{
    Link,
    denial::Denial,
    downstream::{Manner, Reader, Writer},
    git::opened,
    head::{Framing, Head, Target},
    hosts::Host,
    rooms::READS_AN_HOUR,
};
use crate::rights::Repository;

/// Where `gh` believes to be.
const API: &str = "api.github.com";
/// The response headers that are passed back.
const ANSWER_LINES: [HeaderName; 2] = [header::CONTENT_TYPE, header::LINK];
/// The longest path, with its query.
const LONGEST: usize = 2000;

/// Serves one connection: one request after another, each checked by itself.
pub(super) async fn serve(link: &Link<'_>, reader: &mut Reader, writer: &mut Writer) {
    let limits = &link.policy.limits;
    let mut quiet = limits.head;
    while let Some(head) = reader.head(quiet, limits.head).await {
        quiet = limits.keep_alive;
        writer.next();
        let head = match head {
            Ok(head) => head,
            Err(denial) => {
                link.audit.denied(&denial);
                if writer.refuse(&denial, false).await.is_ok() {
                    reader.linger().await;
                }
                return;
            }
        };
        let (response, manner) = match answer(link, &head).await {
            Ok(response) => (response, Manner::of(&head)),
            Err(denial) => {
                link.audit.denied(&denial);
                // What it sends besides is not read.
                (refusal(&denial), Manner { keep_alive: false, ..Manner::of(&head) })
            }
        };
        match writer.respond(response, manner).await {
            Ok(true) => {}
            Ok(false) => {
                writer.end().await;
                return reader.linger().await;
            }
            Err(_) => return,
        }
    }
}

/// Reads for `gh` what it may read.
async fn answer(link: &Link<'_>, head: &Head) -> Result<Response<Full<Bytes>>, Denial> {
    let Target::Origin { path } = &head.target else { return Err(Denial::NotReading) };
    let is_bodiless = matches!(head.framing, Framing::None | Framing::Length(0));
    if head.method != Method::GET || !is_bodiless {
        return Err(Denial::NotReading);
    }
    let (repository, path) = asked(path).ok_or(Denial::NotReading)?;
    if !opened(link, &repository) {
        return Err(Denial::NotReadable(repository));
    }
    if !link.slot.reads.count() {
        return Err(Denial::ReadsUsedUp(READS_AN_HOUR));
    }
    let accept = head.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
    let read = link.github.read_raw(&repository, path, accept).await?;
    // It is noted with its bytes once it is over.
    drop(link.audit.allowed(&Host::Name(API.to_owned()), 443, None));
    let (parts, body) = read.into_parts();
    if parts.status.is_redirection() && parts.status != StatusCode::NOT_MODIFIED {
        return Err(Denial::KeptElsewhere);
    }
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = parts.status;
    for name in ANSWER_LINES {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// Returns the repository of a path below `/repos/`, and what follows that. Nothing is decoded, so that nothing can hide in an
/// encoding, nor is the colon taken by which a comparison names another repository.
fn asked(path: &str) -> Option<(Repository, &str)> {
    let path = path.strip_prefix("/repos/").filter(|path| path.len() <= LONGEST)?;
    let (names, query) = path.split_once('?').unwrap_or((path, ""));
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#');
    let lower = names.to_ascii_lowercase();
    let hides = ["%2e", "%2f", "%5c", "%25", "%00", ":", "%3a"].iter().any(|hidden| lower.contains(hidden));
    if !is_plain(names) || !is_plain(query) || hides {
        return None;
    }
    let mut parts = names.split('/');
    let (owner, name) = (parts.next()?, parts.next()?);
    if parts.any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let repository = Repository::parse(&format!("{owner}/{name}"))?;
    Some((repository, path))
}

/// Returns a refusal as GitHub would write it.
fn refusal(denial: &Denial) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(json!({ "message": denial.to_string() }).to_string()));
    *response.status_mut() = denial.status();
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_repository() {
        for (path, repository, rest) in [
            ("/repos/acme/site", "acme/site", "acme/site"),
            ("/repos/Acme/Site/pulls?state=all&per_page=3", "acme/site", "Acme/Site/pulls?state=all&per_page=3"),
            ("/repos/acme/site/contents/a%20b.txt", "acme/site", "acme/site/contents/a%20b.txt"),
            ("/repos/acme/site/compare/main...agent/x", "acme/site", "acme/site/compare/main...agent/x"),
        ] {
            let (found, left) = asked(path).expect(path);
            assert_eq!((found.as_str().to_ascii_lowercase().as_str(), left), (repository, rest), "{path}");
        }
        for path in [
            "/user",
            "/",
            "/graphql",
            "/repos/",
            "/repos/acme",
            "/repos/acme/site/../../other/secret",
            "/repos/acme/site/%2e%2e/%2E%2e/other/secret",
            "/repos/acme/site/..%2f..%2fother/secret",
            "/repos/acme/site/%252e%252e/x",
            "/repos/acme/site//x",
            "/repos/acme/site/./x",
            "/repos/acme/../other/secret",
            "/repos/acme/site/..\\..\\other/secret",
            "/repos/acme/site#/x",
            "/repos/acme/site/compare/main...other:secret:main",
            "/repositories/1296269",
            "https://evil.example/repos/acme/site",
        ] {
            assert_eq!(asked(path), None, "{path}");
        }
    }
}
