//! The errors between this program and a homeserver, each as one plain sentence with what can be done about it.

use std::{error::Error, time::Duration};

use matrix_sdk::{
    HttpError,
    ruma::api::error::{ErrorKind, RetryAfter},
};
use serde::{Deserialize, Serialize};

use crate::text;

/// The pause after a refusal by a homeserver that does not say how long to wait.
const NO_HINT: Duration = Duration::from_secs(5);

/// What a person must fix. Neither part ends with a full stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}. {mend}")]
pub struct Fault {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl Fault {
    /// Returns a fault with both parts.
    pub fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into() }
    }
}

/// Why a request to the homeserver failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The homeserver cannot be reached or does not work now; the request is tried again.
    #[error("{0}")]
    Away(String),
    /// Something else than a homeserver answers, or its certificate is not valid.
    #[error(transparent)]
    Stranger(Fault),
    /// The homeserver limits the rate; holds how long to wait.
    #[error("the homeserver wants to be asked again in {} ms", .0.as_millis())]
    Limited(Duration),
    /// The homeserver does not know this session any more.
    #[error("the homeserver no longer knows this session")]
    LoggedOut {
        /// Whether the device still exists, so that its keys can still be used.
        soft: bool,
    },
    /// Trying again does not help; the sentence says what does.
    #[error("{0}")]
    Lasting(String),
}

impl From<matrix_sdk::Error> for Trouble {
    fn from(error: matrix_sdk::Error) -> Self {
        match error {
            matrix_sdk::Error::Http(error) => (&*error).into(),
            other => Self::Lasting(chain(&other)),
        }
    }
}

impl From<HttpError> for Trouble {
    fn from(error: HttpError) -> Self {
        (&error).into()
    }
}

impl From<&HttpError> for Trouble {
    fn from(error: &HttpError) -> Self {
        if let HttpError::Cached(error) = error {
            return (&**error).into();
        }
        if error.as_uiaa_response().is_some() {
            return Self::Lasting("the homeserver wants more than the password that it was given".to_owned());
        }
        let Some(api) = error.as_client_api_error() else {
            let words = chain(error);
            return match error {
                HttpError::Reqwest(_) if words.contains("certificate") => Self::Stranger(Fault::new(
                    format!("the homeserver's certificate is not trusted ({words})"),
                    "Check MATRIX_HOMESERVER, or `homeserver` in the account's own section, or have the certificate \
                     signed by an authority that this machine knows",
                )),
                // The error's own text is the URL with its parameters; the cause is in its sources.
                HttpError::Reqwest(failed) => {
                    let cause = failed.source().map_or_else(|| chain(failed), chain);
                    Self::Away(format!("the homeserver cannot be reached: {cause}"))
                }
                _ => stranger(&words),
            };
        };
        match api.error_kind() {
            Some(ErrorKind::LimitExceeded(limit)) => Self::Limited(match limit.retry_after {
                Some(RetryAfter::Delay(pause)) => pause,
                Some(RetryAfter::DateTime(_)) | None => NO_HINT,
            }),
            Some(ErrorKind::UnknownToken(token)) => Self::LoggedOut { soft: token.soft_logout },
            Some(ErrorKind::MissingToken) => Self::LoggedOut { soft: false },
            _ if api.status_code.is_server_error() => Self::Away(format!("the homeserver has a problem: {api}")),
            _ if api.status_code.as_u16() == 429 => Self::Limited(NO_HINT),
            // Homeservers send an `errcode`; this is a web server or a proxy.
            None => stranger(&api.to_string()),
            Some(_) => Self::Lasting(format!("the homeserver refuses: {api}")),
        }
    }
}

fn stranger(words: &str) -> Trouble {
    Trouble::Stranger(Fault::new(
        format!("what answers at the homeserver's address does not answer like a Matrix homeserver ({words})"),
        "Check MATRIX_HOMESERVER, or `homeserver` in the account's own section",
    ))
}

/// Returns an error with its causes on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    for cause in text::causes(error).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}
