//! What the server itself says to GitHub: with which key, for which repositories, and each act once.
//!
//! Knows GitHub's API and nothing of sandboxes, turns or chats. `gateway` asks for a [`GitHub::token`] for git's requests, the
//! tool `github` acts by [`GitHub::open_pull`], [`GitHub::comment`], [`GitHub::reply`], [`GitHub::reviews`] and [`GitHub::checks`]. The key stays here: no caller but the
//! gateway's client gets it, and no error holds a word of it.
//!
//! Nothing is done twice. Whoever acts names the act by its call; a pull request is found again by the branch that it is of, a
//! comment by a mark in its text. Where an answer does not come, GitHub is asked what became of it.

mod acts;
mod api;
mod app;
mod diff;
mod error;
mod health;
mod listed;
mod people;
mod permitted;
mod reviews;
pub mod secrets;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use secrecy::SecretString;

pub use self::{
    acts::{Checks, Pull, Wanted},
    app::{App, BadAppKey},
    diff::{Change, Diff},
    error::GitHubError,
    health::KeyHealth,
    listed::{BadRepository, Repositories},
    people::ReviewComment,
    permitted::PermittedPush,
    reviews::{Review, Reviews, Thread, Verdict},
};
use self::{api::Api, permitted::Permitted};
use crate::{clock::Clock, rights::Repository};

/// GitHub's API.
const API: &str = "https://api.github.com";
/// How long GitHub has after an answer that did not come, until it is asked what became of the request.
const SETTLE: Duration = Duration::from_secs(2);

/// The operator's key.
pub enum Key {
    /// A token that somebody has made by hand.
    Token(SecretString),
    /// A GitHub App, whose tokens last an hour and are good for one repository each.
    App(App),
}

/// The server's way to GitHub. Cheap to clone. The default one has no key, and no repository is listed.
#[derive(Clone)]
pub struct GitHub {
    inner: Arc<Inner>,
}

struct Inner {
    key: Option<Key>,
    listed: Repositories,
    permitted: Permitted,
    api: Api,
    clock: Clock,
    settle: Duration,
}

impl Default for GitHub {
    fn default() -> Self {
        Self::new(None, Repositories::default(), Clock::default())
    }
}

impl GitHub {
    /// Returns the way with this key, which may be used for the listed repositories in every room.
    pub fn new(key: Option<Key>, listed: Repositories, clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner {
                key,
                listed,
                permitted: Permitted::default(),
                api: Api::new(API),
                clock,
                settle: SETTLE,
            }),
        }
    }

    /// Returns the same with its API at another place, which has `settle` after an answer that did not come: for tests, which
    /// have a GitHub of their own.
    #[must_use]
    pub fn at(self, api: &str, settle: Duration) -> Self {
        let Some(inner) = Arc::into_inner(self.inner) else { return Self::default() };
        Self { inner: Arc::new(Inner { api: Api::new(api), settle, ..inner }) }
    }

    /// Tells whether there is a key.
    pub fn has_key(&self) -> bool {
        self.inner.key.is_some()
    }

    /// Tells whether the operator has listed the repository, so that the key may be used for it in every room.
    pub fn lists(&self, repository: &Repository) -> bool {
        self.inner.listed.contains(repository)
    }

    /// Returns a token that is good for the repository. Whether it may be used there is the caller's to decide.
    ///
    /// # Errors
    ///
    /// There is no key, or GitHub gives none for it.
    pub async fn token(&self, repository: &Repository) -> Result<SecretString, GitHubError> {
        match &self.inner.key {
            None => Err(GitHubError::NoKey),
            Some(Key::Token(token)) => Ok(token.clone()),
            Some(Key::App(app)) => app.token(&self.inner.api, repository, &self.inner.clock).await,
        }
    }

    /// Reads something of a repository by the API, for who may: `path` is all that follows `/repos/`, an answer of `accept`'s type.
    ///
    /// # Errors
    ///
    /// There is no key for it, or no whole answer came.
    pub async fn read_raw(
        &self,
        repository: &Repository,
        path: &str,
        accept: &str,
    ) -> Result<Response<Bytes>, GitHubError> {
        let token = self.token(repository).await?;
        let path = format!("/repos/{path}");
        let answer = self.inner.api.ask_raw(&token, Method::GET, &path, accept, None).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.token_refused(repository);
            return Err(GitHubError::BadKey);
        }
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }

    /// Notes that GitHub did not take the token of a repository, so that the next one is fetched anew.
    pub fn token_refused(&self, repository: &Repository) {
        if let Some(Key::App(app)) = &self.inner.key {
            app.forget(repository);
        }
    }
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHub")
            .field("key", &self.has_key())
            .field("listed", &self.inner.listed)
            .finish_non_exhaustive()
    }
}
