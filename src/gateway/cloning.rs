//! Whether a room may clone a repository now: what git in its sandbox would be told. The server asks before it brings into a room
//! what was made of a repository elsewhere.
//!
//! What the key opens is the decision of `git`, which hosts that of `web`. What neither covers has to be public: the other side is
//! asked without a key, unless it was seen a moment ago.

use std::time::Duration;

use hyper::{StatusCode, header};
use reqwest::Url;

use super::{Link, denial::Denial, git, hosts::Host, web};
use crate::rights::Repository;

/// What git asks first.
const REFS: &str = "/info/refs?service=git-upload-pack";
/// The type of the answer.
const ADVERTISED: &str = "application/x-git-upload-pack-advertisement";
/// How long the other side may take for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a repository may have moved.
const MOVES: usize = 3;

/// Tells whether the link's room may clone from here, `https://…`.
pub(super) async fn check(link: &Link<'_>, url: &str) -> Result<(), Denial> {
    let mut url = url.to_owned();
    for _ in 0..=MOVES {
        let asked = Url::parse(&format!("{url}{REFS}")).map_err(|_| Denial::NotGit)?;
        // A literal address would not be resolved, and so not be checked.
        let host = asked.host_str().and_then(Host::parse).filter(|host| matches!(host, Host::Name(_)));
        let host = host.ok_or(Denial::NotGit)?;
        if let Some(repository) = Repository::of_remote(&url) {
            if git::key_to_read(link, &repository).await?.is_some() {
                return Ok(());
            }
        } else {
            web::permit(link, &host, asked.port_or_known_default().unwrap_or_default(), 443)?;
        }
        if link.client.public.has(&url) {
            return Ok(());
        }
        let response = link.client.look(&asked, &host, LIMIT).await?;
        let (status, kind) = (response.status(), response.headers().get(header::CONTENT_TYPE));
        // A page on which to log in is a success, too.
        let is_shown = status.is_success() && kind.is_some_and(|kind| kind == ADVERTISED);
        link.client.public.note(&url, is_shown);
        url = match status {
            _ if is_shown => return Ok(()),
            _ if status.is_redirection() => {
                let there = response.headers().get(header::LOCATION).and_then(|there| there.to_str().ok());
                moved(&asked, there.unwrap_or_default()).ok_or(Denial::Redirect)?
            }
            StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Err(Denial::NotPublic(host));
            }
            _ => return Err(Denial::Broken(host)),
        };
    }
    Err(Denial::Redirect)
}

/// Returns where a repository is cloned from to which a redirect leads.
fn moved(asked: &Url, location: &str) -> Option<String> {
    let is_fit = |there: &Url| there != asked && there.scheme() == "https" && there.username().is_empty();
    let there = asked.join(location).ok().filter(is_fit)?;
    there.as_str().strip_suffix(REFS).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_a_repository_or_nowhere() {
        let asked = Url::parse("https://x.org/a/b/info/refs?service=git-upload-pack").unwrap();
        for (location, there) in [
            ("/a/b.git/info/refs?service=git-upload-pack", Some("https://x.org/a/b.git")),
            ("https://y.org/c/info/refs?service=git-upload-pack", Some("https://y.org/c")),
            ("http://x.org/a/b.git/info/refs?service=git-upload-pack", None),
            ("https://u:p@x.org/a/info/refs?service=git-upload-pack", None),
            ("/login", None),
            ("", None),
        ] {
            assert_eq!(moved(&asked, location).as_deref(), there, "{location}");
        }
    }
}
