//! The part of Talk's API that is for bots: one signed request and its answer, bounded in time and size. Decides nothing.

use std::time::Duration;

use reqwest::{
    Client, Method, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time;

use super::signature::{Secret, Signed};
use crate::{net, text};

/// How long a request may take that asks for something, the answer's body included.
const LIMIT: Duration = Duration::from_secs(15);
/// The same of one that sends a message. A loaded Nextcloud that has taken it may tell everybody's phone before it answers, and who
/// does not wait for that sends it once more.
const SENDING: Duration = Duration::from_secs(90);
/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The most bytes of an answer: the capabilities of a server with all its apps are some hundred KiB.
const MOST: usize = 4 << 20;
/// The longest time to wait that the server may ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// Where the bots' API is, below the server's address.
const BOTS: &str = "ocs/v2.php/apps/spreed/api/v1/bot";

/// The way to one Nextcloud.
pub(crate) struct Api {
    base: String,
    secret: Secret,
    client: Client,
}

/// A message to be sent.
#[derive(Debug)]
pub(super) struct Post<'a> {
    /// What it says; not blank.
    pub(super) message: &'a str,
    /// The number of the message to which it replies.
    pub(super) reply_to: Option<u64>,
    /// Names it, the same at each try.
    pub(super) reference: &'a str,
}

/// What a server can do for bots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Whether it has Talk with bots.
    pub(crate) bots: bool,
    /// Whether bots may ask for their features.
    pub(crate) tells_features: bool,
    /// The most characters of a message, if it says so.
    pub(crate) max_length: Option<usize>,
}

/// What a bot was given when it was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Whether it is told of messages.
    pub(crate) webhook: bool,
    /// Whether it may answer.
    pub(crate) response: bool,
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TalkError {
    /// The server was not reached, or does not work now: nothing was done.
    #[error("Nextcloud cannot be reached now ({0})")]
    Away(String),
    /// No answer came, or none that tells what was done.
    #[error("Nextcloud's answer is lost ({0})")]
    Lost(String),
    /// The bot is not known in the conversation, has another secret, or may not answer.
    #[error("Nextcloud does not know the bot in this conversation (401)")]
    Unknown,
    /// Too much was asked; holds how long to wait, if the server says so.
    #[error("Nextcloud takes no more requests for now (429)")]
    Limited(Option<Duration>),
    /// There is no such conversation or message.
    #[error("there is no such conversation or message any more (404)")]
    Gone,
    /// The message is too long.
    #[error("the message is too long for Nextcloud (413)")]
    TooLong,
    /// The request is refused as it is.
    #[error("Nextcloud refuses it ({0})")]
    Refused(u16),
}

impl Api {
    /// Returns the way to the Nextcloud at this address, for the bot with this secret.
    ///
    /// # Errors
    ///
    /// The machine's certificates cannot be read.
    pub(crate) fn new(nextcloud: &Url, secret: &SecretString) -> Result<Self, reqwest::Error> {
        // It follows no redirect: the page to which one leads would answer, and knows nothing of the message.
        let client = net::client().connect_timeout(CONNECT);
        // A proxy of the system does not lead to this machine.
        let here = nextcloud.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
        let client = if here { client.no_proxy() } else { client };
        let base = nextcloud.as_str().trim_end_matches('/').to_owned();
        Ok(Self { base, secret: Secret::new(secret), client: client.build()? })
    }

    /// Returns whether Nextcloud has signed a webhook's body, over the random text before it.
    pub(super) fn has_signed(&self, random: &[u8], body: &[u8], signature: &str) -> bool {
        self.secret.has_signed(random, body, signature)
    }

    /// Sends a message into a conversation.
    pub(super) async fn send(&self, conversation: &str, post: &Post<'_>) -> Result<(), TalkError> {
        let Post { message, reply_to, reference } = *post;
        let mut body = json!({"message": message, "referenceId": reference, "silent": false});
        if let Some(reply_to) = reply_to {
            body["replyTo"] = reply_to.into();
        }
        let path = format!("{BOTS}/{conversation}/message");
        self.call_within(SENDING, Method::POST, &path, Some((&body, message))).await.map(drop)
    }

    /// Reacts to a message.
    pub(super) async fn react(&self, conversation: &str, message: u64, reaction: &str) -> Result<(), TalkError> {
        let path = format!("{BOTS}/{conversation}/reaction/{message}");
        self.call(Method::POST, &path, Some((&json!({"reaction": reaction}), reaction))).await.map(drop)
    }

    /// Asks what the server can do.
    pub(crate) async fn capabilities(&self) -> Result<Capabilities, TalkError> {
        let answer = self.call(Method::GET, "ocs/v2.php/cloud/capabilities?format=json", None).await?;
        let talk = &answer["ocs"]["data"]["capabilities"]["spreed"];
        let has = |feature: &str| {
            ["features", "features-local"]
                .iter()
                .filter_map(|list| talk[list].as_array())
                .any(|features| features.iter().any(|known| known == feature))
        };
        let max_length = talk["config"]["chat"]["max-length"].as_u64().and_then(|most| usize::try_from(most).ok());
        Ok(Capabilities {
            bots: has("bots-v1"),
            tells_features: has("bot-features-api"),
            max_length: max_length.filter(|most| *most > 0),
        })
    }

    /// Asks what the bot was given in a conversation, of a server that tells it.
    pub(crate) async fn features(&self, conversation: &str) -> Result<Features, TalkError> {
        let path = format!("{BOTS}/ask-features");
        let answer = self.call(Method::POST, &path, Some((&json!({"token": conversation}), conversation))).await?;
        let flags = answer["ocs"]["data"]["features"].as_u64();
        let flags = flags.ok_or_else(|| TalkError::Lost("it names no features".to_owned()))?;
        Ok(Features { webhook: flags & 1 != 0, response: flags & 2 != 0 })
    }

    /// Sends a request, signed over a text if it has a body, and returns the answer, which is null if it is no JSON.
    async fn call(&self, method: Method, path: &str, body: Option<(&Value, &str)>) -> Result<Value, TalkError> {
        self.call_within(LIMIT, method, path, body).await
    }

    /// The same, within another time.
    async fn call_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
    ) -> Result<Value, TalkError> {
        let mut request = self.client.request(method, format!("{}/{path}", self.base));
        request = request.header("OCS-APIRequest", "true").header(ACCEPT, "application/json");
        if let Some((body, signed)) = body {
            let Signed { random, signature } = self.secret.sign(signed);
            request = request
                .header("X-Nextcloud-Talk-Bot-Random", random)
                .header("X-Nextcloud-Talk-Bot-Signature", signature)
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let answer = async {
            let mut answer = request.send().await.map_err(|error| failed(&error))?;
            let status = answer.status();
            let wait = answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
            let mut bytes = Vec::new();
            // What was asked for is done by now or refused, whatever becomes of the rest.
            while let Ok(Some(piece)) = answer.chunk().await {
                bytes.extend_from_slice(&piece);
                if bytes.len() > MOST {
                    bytes.clear();
                    break;
                }
            }
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            verdict(status, wait.map(Duration::from_secs), &body)?;
            Ok::<Value, TalkError>(body)
        };
        let slow = |_| TalkError::Lost(format!("none came within {} s", limit.as_secs()));
        time::timeout(limit, answer).await.map_err(slow)?
    }
}

/// Returns what a status says of the request, with the body that came with it.
fn verdict(status: StatusCode, wait: Option<Duration>, body: &Value) -> Result<(), TalkError> {
    let told = &body["ocs"]["meta"];
    match status.as_u16() {
        201 => Ok(()),
        _ if status.is_success() && told.is_object() => Ok(()),
        401 | 403 => Err(TalkError::Unknown),
        413 => Err(TalkError::TooLong),
        429 => Err(TalkError::Limited(wait.map(|wait| wait.min(LONGEST_WAIT)))),
        // A server in maintenance; a proxy whose Nextcloud has ended says 502 or 504, and that may have been in between.
        503 => Err(TalkError::Away("503".to_owned())),
        other @ 300..=399 => {
            Err(TalkError::Away(format!("{other}: it redirects, so NEXTCLOUD_URL is not its address")))
        }
        other @ 500.. => Err(TalkError::Lost(other.to_string())),
        // Somebody else than Talk says so, or it is switched off while it is brought up to date (998).
        other if !told.is_object() || told["statuscode"] == 998 => {
            Err(TalkError::Away(format!("{other}, which Talk does not say")))
        }
        404 => Err(TalkError::Gone),
        other => Err(TalkError::Refused(other)),
    }
}

fn failed(error: &reqwest::Error) -> TalkError {
    let cause = text::root_cause(error);
    if error.is_connect() || error.is_builder() { TalkError::Away(cause) } else { TalkError::Lost(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_surely_not_done_counts_as_such() {
        let of = |status: u16, body: &str| {
            let body = serde_json::from_str(body).unwrap_or_default();
            verdict(StatusCode::from_u16(status).unwrap(), Some(Duration::from_secs(5)), &body)
        };
        let talk = r#"{"ocs":{"meta":{"status":"failure","statuscode":404},"data":null}}"#;
        assert_eq!((of(201, ""), of(200, talk)), (Ok(()), Ok(())));
        assert_eq!(of(401, ""), Err(TalkError::Unknown));
        assert_eq!(of(404, talk), Err(TalkError::Gone));
        assert_eq!(of(413, ""), Err(TalkError::TooLong));
        assert_eq!(of(429, ""), Err(TalkError::Limited(Some(Duration::from_secs(5)))));
        assert_eq!(of(400, talk), Err(TalkError::Refused(400)));
        let switched_off = talk.replace("404", "998");
        let html = "<html>an untrusted domain";
        for (status, body) in
            [(503, ""), (404, ""), (404, html), (400, html), (302, ""), (200, html), (404, switched_off.as_str())]
        {
            assert!(matches!(of(status, body), Err(TalkError::Away(_))), "{status} {body}");
        }
        for lost in [500, 502, 504] {
            assert!(matches!(of(lost, talk), Err(TalkError::Lost(_))), "{lost}");
        }
    }
}
