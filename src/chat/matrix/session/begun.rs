//! A session that somebody has begun for the account: its token alone is known, and whose it is, is asked.
//!
//! The device's keys must be made here. So a device whose keys some other client has made is refused: overwriting them
//! would cut that client off.

use matrix_sdk::{
    SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    ruma::{
        OwnedDeviceId, OwnedUserId,
        api::client::{account::whoami, keys::get_keys},
    },
    store::RoomLoadSettings,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Fault, Login, Saved, Session, SessionError, Trouble};
use crate::config::begun_setting;

/// A session that was begun for an account.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Its access token.
    pub token: SecretString,
    /// The name of the file in which the account's settings are, for messages.
    pub file: String,
}

impl Begun {
    /// Returns the name of one of the account's settings, such as `BOT_TOKEN in cloud-bot-llama.env`.
    pub(super) fn setting(&self, key: &str) -> String {
        begun_setting(&self.file, key)
    }

    /// Returns what to do about a token that the homeserver takes no more.
    pub(super) fn refused(&self, user: &str) -> Fault {
        Fault::new(
            format!("the homeserver does not take the token of {user}"),
            format!("Write another one to {}; it is tried as soon as the file changes", self.setting("password")),
        )
    }
}

/// What a homeserver gives to others of a device.
pub(super) struct Published {
    /// The device's own keys; null if there are none.
    pub(super) device: Value,
    /// The keys with which the account signs its devices; null if there are none.
    pub(super) signing: Value,
}

impl Login {
    /// Takes the session whose token was given, in place of another one. Of the same device it is the same with another
    /// token.
    pub(super) async fn take(&self, saved: Saved) -> Result<Session, SessionError> {
        let Some(begun) = &self.begun else { return self.replace(saved).await };
        let session = self.of_token(begun).await?;
        if session.meta.device_id == saved.session.meta.device_id && self.files().has_store() {
            let saved = Saved { session, ..saved };
            self.files().save(&saved)?;
            return self.restore(saved).await;
        }
        self.has_no_keys(&session).await?;
        self.keep(session, vec![]).await
    }

    /// Returns the session of a token, whose device must not have keys yet.
    pub(super) async fn begun_anew(&self, begun: &Begun) -> Result<MatrixSession, SessionError> {
        let session = self.of_token(begun).await?;
        self.has_no_keys(&session).await?;
        Ok(session)
    }

    /// Asks whose session a token is; it must be the account's.
    pub(super) async fn of_token(&self, begun: &Begun) -> Result<MatrixSession, SessionError> {
        let client = self.bare_client().await?;
        // The homeserver tells who it is; until then what is asked for stands there.
        let user = OwnedUserId::try_from(self.user.as_str()).map_err(|_| {
            let mend = format!("Write {} like `@name:server.example`", self.setting("user"));
            SessionError::Setup(Fault::new(format!("{} is no Matrix user", self.user), mend))
        })?;
        let tokens = || SessionTokens { access_token: begun.token.expose_secret().to_owned(), refresh_token: None };
        let unknown = SessionMeta { user_id: user.clone(), device_id: OwnedDeviceId::from("UNKNOWN") };
        client
            .matrix_auth()
            .restore_session(MatrixSession { meta: unknown, tokens: tokens() }, RoomLoadSettings::default())
            .await
            .map_err(|error| self.damaged(&error))?;
        let told = client.send(whoami::v3::Request::new()).await.map_err(|error| match Trouble::from(error) {
            Trouble::LoggedOut { .. } => SessionError::Refused(begun.refused(&self.user)),
            trouble => trouble.into(),
        })?;
        if told.user_id != user {
            return Err(SessionError::Setup(Fault::new(
                format!(
                    "{} is a token of {}, and {} is {user}",
                    self.setting("password"),
                    told.user_id,
                    self.setting("user")
                ),
                format!("Set {} to {}, or write the right token", self.setting("user"), told.user_id),
            )));
        }
        let Some(device_id) = told.device_id else {
            return Err(SessionError::Setup(Fault::new(
                format!("{} belongs to no device, so that it could read no encrypted room", self.setting("password")),
                "Write the token of a login: `matrix-agent cloud-bot add` makes one",
            )));
        };
        tracing::info!(%user, device = %device_id, "the session of the token is taken");
        Ok(MatrixSession { meta: SessionMeta { user_id: user, device_id }, tokens: tokens() })
    }

    /// Checks that no client has made keys for a device.
    async fn has_no_keys(&self, session: &MatrixSession) -> Result<(), SessionError> {
        if self.published(session).await?.device.is_null() {
            return Ok(());
        }
        let device = &session.meta.device_id;
        Err(SessionError::Setup(Fault::new(
            format!("{} is of the device {device}, whose encryption keys another client has", self.setting("password")),
            "Write the token of a login that no other client uses: `matrix-agent cloud-bot add` makes one",
        )))
    }

    /// Asks the homeserver which keys it gives to others.
    pub(super) async fn published(&self, session: &MatrixSession) -> Result<Published, SessionError> {
        let client = self.bare_client().await?;
        let SessionMeta { user_id: user, device_id: device } = session.meta.clone();
        client
            .matrix_auth()
            .restore_session(session.clone(), RoomLoadSettings::default())
            .await
            .map_err(|error| self.damaged(&error))?;
        let mut asked = get_keys::v3::Request::new();
        asked.device_keys.insert(user.clone(), vec![]);
        let told = client.send(asked).await.map_err(Trouble::from)?;
        let json = |raw: &str| serde_json::from_str::<Value>(raw).unwrap_or_default();
        let of_device = told.device_keys.get(&user).and_then(|devices| devices.get(&device));
        Ok(Published {
            device: of_device.map(|keys| json(keys.json().get())).unwrap_or_default(),
            signing: told.self_signing_keys.get(&user).map(|keys| json(keys.json().get())).unwrap_or_default(),
        })
    }
}
