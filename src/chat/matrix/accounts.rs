//! Accounts of bots, as operators make them: logs one in, and on a homeserver of our own, where registration is closed,
//! makes it by the API for administrators (Synapse's) and frees it from the limits of rates.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use reqwest::{Method, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time;

use super::trouble::Fault;
use crate::{net, text};

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest answer in bytes.
const LARGEST: usize = 1 << 20;
/// How accounts are marked that are made for bots; Synapse knows this kind of user.
const BOT: &str = "bot";

/// A homeserver, to be asked as nobody yet.
#[derive(Debug)]
pub(crate) struct Homeserver {
    url: Url,
    http: reqwest::Client,
}

/// An administrator of the homeserver.
#[derive(Debug)]
pub(crate) struct Administrator<'a> {
    homeserver: &'a Homeserver,
    token: SecretString,
}

/// An answer: its status, and its JSON, null if it has none.
struct Answer(u16, Value);

impl Homeserver {
    /// Returns the homeserver at this address; asks nothing yet.
    pub(crate) fn at(url: &Url) -> Result<Self, Fault> {
        let http = net::client_of(url)
            .timeout(LIMIT)
            .build()
            .map_err(|_| Fault::new("TLS cannot be set up", "Install this machine's `ca-certificates`"))?;
        Ok(Self { url: url.clone(), http })
    }

    /// Logs in by password, as a device of its own that is called `device`; returns the session's token.
    pub(crate) async fn log_in(
        &self,
        user: &str,
        password: &SecretString,
        device: &str,
    ) -> Result<SecretString, Fault> {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": password.expose_secret(),
            "initial_device_display_name": device,
        });
        let Answer(status, answer) =
            self.ask(Method::POST, &["_matrix", "client", "v3", "login"], None, Some(body)).await?;
        match (status, answer["access_token"].as_str()) {
            (200, Some(token)) => Ok(token.into()),
            (403, ..) => {
                Err(Fault::new(format!("the homeserver does not take the password of {user}"), "Write it again"))
            }
            (429, ..) => Err(Fault::new("too many logins were tried", "Wait a minute, and try again")),
            _ => Err(self.refused("log in", status, &answer)),
        }
    }

    /// Ends a session. One that is gone already is no failure.
    pub(crate) async fn log_out(&self, token: &SecretString) -> Result<(), Fault> {
        let Answer(status, answer) =
            self.ask(Method::POST, &["_matrix", "client", "v3", "logout"], Some(token), Some(json!({}))).await?;
        if matches!(status, 200 | 401) { Ok(()) } else { Err(self.refused("log out", status, &answer)) }
    }

    /// Returns the ids of the rooms in which the account of a session is.
    pub(crate) async fn joined_rooms(&self, token: &SecretString) -> Result<Vec<String>, Fault> {
        let path = ["_matrix", "client", "v3", "joined_rooms"];
        let Answer(status, answer) = self.ask(Method::GET, &path, Some(token), None).await?;
        match answer["joined_rooms"].as_array() {
            Some(rooms) if status == 200 => {
                Ok(rooms.iter().filter_map(|room| Some(room.as_str()?.to_owned())).collect())
            }
            _ => Err(self.refused("list rooms", status, &answer)),
        }
    }

    /// Logs in as an administrator; [`Administrator::end`] logs out.
    pub(crate) async fn administrator(&self, user: &str, password: &SecretString) -> Result<Administrator<'_>, Fault> {
        let token = self.log_in(user, password, "matrix-agent (administration)").await?;
        Ok(Administrator { homeserver: self, token })
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        token: Option<&SecretString>,
        body: Option<Value>,
    ) -> Result<Answer, Fault> {
        let away = |error: &reqwest::Error| {
            // The error's own text holds the address, its causes' do not.
            let cause = text::one_line(&text::root_cause(error), 100);
            Fault::new(
                format!("{} cannot be reached: {cause}", self.url),
                "Check the address, and that the homeserver runs",
            )
        };
        let mut url = self.url.clone();
        // Each part is encoded: a user's name may hold a slash.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| away(&error))?;
        let status = response.status().as_u16();
        let whole = Limited::new(reqwest::Body::from(response), LARGEST).collect();
        let broken = || Fault::new(format!("the answer of {} broke off", self.url), "Try again");
        let body = time::timeout(LIMIT, whole).await.map_err(|_| broken())?.map_err(|_| broken())?.to_bytes();
        Ok(Answer(status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn refused(&self, what: &str, status: u16, answer: &Value) -> Fault {
        let said = answer["error"].as_str().or(answer["errcode"].as_str()).unwrap_or("it says no more");
        let said = text::one_line(said, 200);
        Fault::new(
            format!("{} does not let us {what} (status {status}: {said})", self.url),
            "Check the address and the account",
        )
    }
}

impl Administrator<'_> {
    /// Returns whether there is an account that is somebody's: one that was made for a bot may be made anew.
    pub(crate) async fn has_account(&self, user: &str) -> Result<bool, Fault> {
        let Answer(status, answer) = self.ask(Method::GET, &path_of(user), None).await?;
        match status {
            200 => Ok(answer["deactivated"].as_bool() != Some(true) && answer["user_type"] != BOT),
            404 => Ok(false),
            _ => Err(self.homeserver.refused("look for accounts", status, &answer)),
        }
    }

    /// Makes an account with this password, which people see under the name `shown`.
    pub(crate) async fn make_account(&self, user: &str, password: &SecretString, shown: &str) -> Result<(), Fault> {
        let password = password.expose_secret();
        // What else is logged in to an account that was a bot's before stays so.
        let body = json!({
            "password": password, "displayname": shown, "deactivated": false, "user_type": BOT, "logout_devices": false,
        });
        let Answer(status, answer) = self.ask(Method::PUT, &path_of(user), Some(body)).await?;
        if matches!(status, 200 | 201) {
            Ok(())
        } else {
            Err(self.homeserver.refused("make accounts", status, &answer))
        }
    }

    /// Frees an account from the limits of rates: with them a bot edits its answers every five seconds at most.
    pub(crate) async fn lift_limits(&self, user: &str) -> Result<(), Fault> {
        let path = ["_synapse", "admin", "v1", "users", user, "override_ratelimit"];
        let body = json!({ "messages_per_second": 0, "burst_count": 0 });
        let Answer(status, answer) = self.ask(Method::POST, &path, Some(body)).await?;
        if status == 200 { Ok(()) } else { Err(self.homeserver.refused("lift limits", status, &answer)) }
    }

    /// Logs out. A session that stays does no harm but that it is listed.
    pub(crate) async fn end(self) {
        if let Err(error) = self.homeserver.log_out(&self.token).await {
            tracing::warn!(%error, "the administrator's session could not be ended");
        }
    }

    async fn ask(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Answer, Fault> {
        self.homeserver.ask(method, path, Some(&self.token), body).await
    }
}

fn path_of(user: &str) -> [&str; 5] {
    ["_synapse", "admin", "v2", "users", user]
}
