//! A GitHub App's key: it signs for a minute or two, which is changed for a token that lasts an hour and is good for one
//! repository.
//!
//! Called by `mod.rs` with the API and the clock. Knows no act.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use hyper::Method;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{
    api::{Answer, Api},
    error::GitHubError,
};
use crate::{clock::Clock, rights::Repository};

/// Seconds that a signed name may be old, since clocks differ, and for which it is good. GitHub takes ten minutes at most.
const SKEW: i64 = 60;
const SIGNED_FOR: i64 = 9 * 60;
/// A token that ends sooner than this many milliseconds is not used any more: a push takes its time.
const MARGIN: i64 = 10 * 60 * 1000;
/// Tokens that are remembered.
const REMEMBERED: usize = 256;

/// A GitHub App.
pub struct App {
    id: String,
    key: KeyPair,
    tokens: Mutex<HashMap<Repository, Token>>,
}

/// The key's file does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no RSA private key in PEM, as GitHub gives it for an App (`-----BEGIN RSA PRIVATE KEY-----`)")]
pub struct BadAppKey;

/// A token of an installation.
#[derive(Clone)]
struct Token {
    secret: SecretString,
    /// When it ends, in milliseconds since 1970.
    ends: i64,
}

impl App {
    /// Returns the App with this number (or client id) and its private key in PEM.
    pub fn new(id: impl Into<String>, pem: &str) -> Result<Self, BadAppKey> {
        let (label, der) = unwrapped(pem).ok_or(BadAppKey)?;
        let key = match label {
            "RSA PRIVATE KEY" => KeyPair::from_der(&der),
            "PRIVATE KEY" => KeyPair::from_pkcs8(&der),
            _ => return Err(BadAppKey),
        };
        Ok(Self { id: id.into(), key: key.map_err(|_| BadAppKey)?, tokens: Mutex::default() })
    }

    /// Returns a token for the repository, a new one if there is none that lasts.
    pub(super) async fn token(
        &self,
        api: &Api,
        repository: &Repository,
        clock: &Clock,
    ) -> Result<SecretString, GitHubError> {
        let now = clock.millis();
        let known = self.tokens().get(repository).filter(|token| token.ends - MARGIN > now).cloned();
        if let Some(token) = known {
            return Ok(token.secret);
        }
        let signed = self.signed(now / 1000)?;
        let path = format!("/repos/{repository}/installation");
        let installation = match api.ask(&signed, Method::GET, &path, None).await? {
            answer if answer.status.as_u16() == 404 => return Err(GitHubError::NotInstalled(repository.clone())),
            answer => answer.good(repository, now)?,
        };
        let id = installation["id"].as_u64().ok_or(GitHubError::Strange)?;
        let wanted = json!({ "repositories": [repository.name()] });
        let path = format!("/app/installations/{id}/access_tokens");
        let answer = api.ask(&signed, Method::POST, &path, Some(&wanted)).await?.good(repository, now)?;
        let token = read(&answer).ok_or(GitHubError::Strange)?;
        let mut tokens = self.tokens();
        if tokens.len() >= REMEMBERED {
            tokens.retain(|_, token| token.ends - MARGIN > now);
            if tokens.len() >= REMEMBERED {
                tokens.clear();
            }
        }
        tokens.insert(repository.clone(), token.clone());
        Ok(token.secret)
    }

    /// Asks GitHub for what it says of the App.
    pub(super) async fn about(&self, api: &Api, clock: &Clock) -> Result<Answer, GitHubError> {
        let signed = self.signed(clock.millis() / 1000)?;
        api.ask(&signed, Method::GET, "/app", None).await
    }

    /// Drops the token of a repository.
    pub(super) fn forget(&self, repository: &Repository) {
        self.tokens().remove(repository);
    }

    /// Returns who we are, signed: a JSON Web Token. `now` in seconds since 1970.
    fn signed(&self, now: i64) -> Result<SecretString, GitHubError> {
        let claims = json!({ "iat": now - SKEW, "exp": now + SIGNED_FOR, "iss": self.id });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let signing = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature);
        signing.map_err(|_| GitHubError::BadKey)?;
        Ok(SecretString::from(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
    }

    /// Nothing panics while it is locked, so what is behind a poisoned lock is sound.
    fn tokens(&self) -> MutexGuard<'_, HashMap<Repository, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("id", &self.id).finish_non_exhaustive()
    }
}

fn read(answer: &Value) -> Option<Token> {
    let ends = answer["expires_at"].as_str()?.parse::<Timestamp>().ok()?.as_millisecond();
    Some(Token { secret: SecretString::from(answer["token"].as_str()?), ends })
}

/// Returns what a PEM block is, and what it holds.
fn unwrapped(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.split_whitespace().collect();
    Some((label, BASE64_STANDARD.decode(body).ok()?))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rsa::KeySize,
        signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
    };
    use wiremock::{
        Mock, MockServer, Request, ResponseTemplate,
        matchers::{body_json, method, path},
    };

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    /// A key, as PEM, and what checks its signatures.
    fn key() -> (String, Vec<u8>) {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        let body = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let label = "PRIVATE KEY";
        let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
        (pem, key.public_key().as_ref().to_vec())
    }

    fn claims_of(request: &Request, public: &[u8]) -> Value {
        let signed = request.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        let (message, signature) = signed.rsplit_once('.').unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
        public.verify(message.as_bytes(), &signature).expect("it is signed with the App's key");
        let claims = BASE64_URL_SAFE_NO_PAD.decode(message.split_once('.').unwrap().1).unwrap();
        serde_json::from_slice(&claims).unwrap()
    }

    #[tokio::test]
    async fn a_signed_name_becomes_a_token_of_one_repository_for_an_hour() {
        let server = MockServer::start().await;
        let found = ResponseTemplate::new(200).set_body_json(json!({"id": 7}));
        Mock::given(method("GET")).and(path("/repos/acme/site/installation")).respond_with(found).mount(&server).await;
        let none = ResponseTemplate::new(404).set_body_json(json!({"message": "Not Found"}));
        Mock::given(method("GET")).and(path("/repos/acme/other/installation")).respond_with(none).mount(&server).await;
        let ends = Timestamp::from_millisecond(NOW + 3_600_000).unwrap().to_string();
        let token = ResponseTemplate::new(201).set_body_json(json!({"token": "ghs_short", "expires_at": ends}));
        let asked = Mock::given(method("POST")).and(path("/app/installations/7/access_tokens"));
        asked.and(body_json(json!({"repositories": ["site"]}))).respond_with(token).mount(&server).await;
        let (pem, public) = key();
        let (app, api, clock) = (App::new("123", &pem).unwrap(), Api::new(&server.uri()), Clock::fixed_at(NOW));
        let site = Repository::parse("acme/site").unwrap();
        let counted = async || server.received_requests().await.unwrap().len();
        for _ in 0..2 {
            let token = app.token(&api, &site, &clock).await.unwrap();
            assert_eq!(secrecy::ExposeSecret::expose_secret(&token), "ghs_short");
        }
        assert_eq!(counted().await, 2, "the second time it is known");
        let claims = claims_of(&server.received_requests().await.unwrap()[0], &public);
        let seconds = NOW / 1000;
        assert_eq!(claims, json!({"iat": seconds - 60, "exp": seconds + 540, "iss": "123"}));
        clock.advance(51 * 60 * 1000);
        app.token(&api, &site, &clock).await.unwrap();
        assert_eq!(counted().await, 4, "one that ends soon is changed for a new one");
        app.forget(&site);
        app.token(&api, &site, &clock).await.unwrap();
        assert_eq!(counted().await, 6);
        let other = Repository::parse("acme/other").unwrap();
        assert_eq!(app.token(&api, &other, &clock).await.unwrap_err(), GitHubError::NotInstalled(other));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "hush", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"] {
            assert_eq!(App::new("1", bad).err(), Some(BadAppKey));
        }
    }
}
