//! The bot's account: its login, its device, its keys.
//!
//! It logs in by password once; after that the session is restored. The device signs itself, and a recovery key, kept
//! beside the session, makes a new device one of the account's own when the store is lost (`keys.rs`). All files are
//! for this user alone (`files.rs`). One process only opens the store: the state directory's lock sees to that.

mod examine;
mod files;
mod keys;
mod store;

use std::{io, path::PathBuf, time::Duration};

use matrix_sdk::{
    Client, ClientBuildError, ThreadingSupport,
    authentication::matrix::MatrixSession,
    ruma::{
        OwnedDeviceId,
        api::{
            client::{
                session::login::v3::{LoginInfo, Password, Request},
                sync::sync_events::v3::{self, Filter},
                uiaa::{MatrixUserIdentifier, UserIdentifier},
            },
            error::ErrorKind,
        },
    },
    store::{RoomLoadSettings, StateStoreDataKey},
};
use matrix_sdk_base::{BaseClient, DmRoomDefinition};
use matrix_sdk_crypto::{CollectStrategy, TrustRequirement};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::time;

use super::{
    connected::{Session, requests},
    sync,
    trouble::{Fault, Trouble},
};
use crate::{crash, net};
use files::{Files, Saved};

/// How long a new device may take to have its keys in place.
const KEYS: Duration = Duration::from_mins(1);
/// What the account's list of devices calls this one.
const DEVICE: &str = "matrix-agent";

/// How an account logs in to its homeserver.
#[derive(Clone, Debug)]
pub struct Login {
    /// The account's name in the store, which its folder and files carry, too.
    pub name: String,
    /// The homeserver's address.
    pub homeserver: String,
    /// The account's full id.
    pub user: String,
    /// Its password, for the first login and for a lost session.
    pub password: Option<SecretString>,
    /// Why the password must not be sent to the homeserver, if it must not.
    pub refused: Option<Fault>,
    /// Where the server keeps its state.
    pub state_dir: PathBuf,
    /// Other people's devices count that nobody has signed.
    pub unsigned_devices: bool,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The homeserver.
    #[error(transparent)]
    Homeserver(#[from] Trouble),
    /// A file of the session.
    #[error("{path} cannot be used: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It needs somebody to do something.
    #[error(transparent)]
    Setup(Fault),
}

impl SessionError {
    /// Returns whether trying again may help. Something else than the homeserver is a mistake in the settings at the
    /// first login, and may be a proxy that starts later.
    pub(super) fn passes(&self, first: bool) -> bool {
        match self {
            Self::Homeserver(Trouble::Stranger(_)) => !first,
            Self::Homeserver(Trouble::Lasting(_)) | Self::File { .. } | Self::Setup(_) => false,
            Self::Homeserver(Trouble::Away(_) | Trouble::Limited(_) | Trouble::LoggedOut { .. }) => true,
        }
    }
}

/// How there can be a session.
enum Way {
    /// The account is new here.
    LogIn,
    /// The keys of this one's device are gone.
    Replace(Saved),
    /// All is there.
    Restore(Saved),
}

impl Login {
    /// Restores the session, or logs in. The one that comes back has read nothing yet.
    pub async fn open(&self) -> Result<Session, SessionError> {
        match self.way()? {
            Way::LogIn => self.log_in(vec![]).await,
            Way::Replace(saved) => {
                tracing::warn!(folder = %self.files().store().display(), "the encryption keys are gone; a new device is made");
                self.replace(saved).await
            }
            Way::Restore(saved) => self.restore(saved).await,
        }
    }

    /// Looks how there can be a session.
    fn way(&self) -> Result<Way, SessionError> {
        let Some(saved) = self.files().saved()? else { return Ok(Way::LogIn) };
        let owner = &saved.session.meta.user_id;
        if *owner != self.user {
            let (store, session) = (self.files().store(), self.files().session());
            return Err(SessionError::Setup(Fault::new(
                format!("{} holds the keys of {owner}, and MATRIX_USER is {}", store.display(), self.user),
                format!(
                    "Set MATRIX_USER back, or move that folder and {} away to begin as a new account",
                    session.display()
                ),
            )));
        }
        Ok(if self.files().has_store() { Way::Restore(saved) } else { Way::Replace(saved) })
    }

    /// Makes a new session after the homeserver has ended the last one. With `soft` the device is still there.
    pub async fn renew(&self, soft: bool) -> Result<Session, SessionError> {
        let Some(saved) = self.files().saved()? else { return self.log_in(vec![]).await };
        if !soft || !self.files().has_store() {
            return self.replace(saved).await;
        }
        let session = self.session(saved.session.meta.device_id.clone()).await?;
        let saved = Saved { session, ..saved };
        self.files().save(&saved)?;
        self.restore(saved).await
    }

    fn files(&self) -> Files {
        Files::new(&self.state_dir, &self.name)
    }

    async fn restore(&self, mut saved: Saved) -> Result<Session, SessionError> {
        let files = self.files();
        if !saved.ready || files.recovery_key()?.is_none() {
            let session = self.restored(&saved).await?;
            if !saved.ready {
                introduce(&session).await?;
                crash::point("introduced");
            }
            let slow = |_| Trouble::Away("the homeserver takes too long to take the device's keys".to_owned());
            let password = self.password().ok();
            let keys = keys::put_in_place(&session, &files, password, !saved.ready);
            saved.ready = time::timeout(KEYS, keys).await.map_err(slow)??;
            if let Some(password) = password.filter(|_| !saved.lost.is_empty()) {
                keys::forget(&session, &saved.lost, password).await;
                saved.lost.clear();
            }
            crash::point("settled");
            files.save(&saved)?;
        }
        // Another one: the one above has read once, and the SDK would hide an answer that ends where that did.
        self.restored(&saved).await
    }

    /// Opens the store. The session has read nothing.
    async fn restored(&self, saved: &Saved) -> Result<Session, SessionError> {
        let session = self.with_store().await?;
        // The SDK would hand out an answer that it has seen before as an empty one, and a kill between its write and
        // ours would lose the messages in it.
        session
            .state_store()
            .remove_kv_data(StateStoreDataKey::SyncToken)
            .await
            .map_err(|error| self.damaged(&error))?;
        session
            .matrix_auth()
            .restore_session(saved.session.clone(), RoomLoadSettings::default())
            .await
            .map_err(|error| self.damaged(&error))?;
        self.files().tighten_store()?;
        Ok(session)
    }

    /// Makes a new device, in place of these.
    async fn log_in(&self, lost: Vec<OwnedDeviceId>) -> Result<Session, SessionError> {
        let session = self.session(self.files().next_device()?).await?;
        crash::point("logged-in");
        // In this order, so that a kill in between leaves no session with the store of another device.
        self.files().put_store_aside()?;
        crash::point("put-aside");
        let saved = Saved { ready: false, lost, session };
        self.files().save(&saved)?;
        self.files().device_is_kept()?;
        crash::point("kept");
        self.restore(saved).await
    }

    /// Makes a new device in place of one that is lost.
    async fn replace(&self, mut saved: Saved) -> Result<Session, SessionError> {
        saved.lost.push(saved.session.meta.device_id);
        self.log_in(saved.lost).await
    }

    /// Logs in by password, as a new device or on one that is there. Nothing is kept yet.
    async fn session(&self, device: OwnedDeviceId) -> Result<MatrixSession, SessionError> {
        let password = self.password()?;
        // It is not known yet to which device the store will belong.
        let client = self.bare_client().await?;
        let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(self.user.clone()));
        let mut request = Request::new(LoginInfo::Password(Password::new(user, password.expose_secret().to_owned())));
        request.device_id = Some(device);
        request.initial_device_display_name = Some(DEVICE.to_owned());
        let response = client.send(request).await.map_err(|error| self.login_failed(error.into()))?;
        if response.user_id != self.user {
            // Whoever starts it again and again shall not fill the account with devices.
            if client.restore_session(MatrixSession::from(&response)).await.is_ok() {
                let _ = client.logout().await;
            }
            return Err(SessionError::Setup(Fault::new(
                format!("the homeserver calls this account {}, and MATRIX_USER is {}", response.user_id, self.user),
                format!("Set MATRIX_USER={}", response.user_id),
            )));
        }
        tracing::info!(user = %self.user, device = %response.device_id, "logged in");
        Ok((&response).into())
    }

    fn password(&self) -> Result<&SecretString, SessionError> {
        if let Some(fault) = &self.refused {
            return Err(SessionError::Setup(fault.clone()));
        }
        self.password.as_ref().ok_or_else(|| {
            SessionError::Setup(Fault::new(
                format!("{} has to log in, and MATRIX_PASSWORD is not set", self.user),
                "Set MATRIX_PASSWORD; it is not needed again after the login",
            ))
        })
    }

    /// Makes a client without a store.
    async fn bare_client(&self) -> Result<Client, SessionError> {
        let client = Client::builder().homeserver_url(&self.homeserver).http_client(self.http()?);
        client.request_config(requests(Duration::ZERO)).build().await.map_err(not_built)
    }

    /// Makes what carries the SDK's requests and the downloads of media.
    fn http(&self) -> Result<reqwest::Client, SessionError> {
        let client = Url::parse(&self.homeserver).ok().map(|homeserver| net::client_of(&homeserver).build());
        client.and_then(Result::ok).ok_or_else(|| {
            SessionError::Setup(Fault::new(
                "no connection to the homeserver can be set up",
                "Check MATRIX_HOMESERVER, and install this machine's `ca-certificates`",
            ))
        })
    }

    /// Makes a session that nobody is logged in to.
    async fn with_store(&self) -> Result<Session, SessionError> {
        let folder = self.files().make_store()?;
        let key = self.files().store_key()?;
        let stores = store::open(&folder, &key).await.map_err(|error| self.damaged(&error))?;
        let mut base = BaseClient::new(stores, ThreadingSupport::Disabled, DmRoomDefinition::default());
        if !self.unsigned_devices {
            // Whoever runs a homeserver can add devices to everybody's account there, and cannot sign them.
            base.decryption_settings.sender_device_trust_requirement = TrustRequirement::CrossSigned;
            base.room_key_recipient_strategy = CollectStrategy::IdentityBasedStrategy;
        }
        let client = Client::builder()
            .homeserver_url(&self.homeserver)
            .base_client(base.clone())
            .http_client(self.http()?)
            .request_config(requests(Duration::ZERO))
            // Else whoever invites chooses what is downloaded, of any size, and what fails there fails the join. What was
            // said before is not answered anyway.
            .with_enable_share_history_on_invite(false)
            .build()
            .await
            .map_err(not_built)?;
        Ok(Session { client, base })
    }

    fn login_failed(&self, error: matrix_sdk::Error) -> SessionError {
        match error.client_api_error_kind() {
            Some(ErrorKind::Forbidden) => SessionError::Setup(Fault::new(
                format!("the homeserver does not take the password of {}", self.user),
                "Check MATRIX_USER and MATRIX_PASSWORD",
            )),
            Some(ErrorKind::UserDeactivated) => SessionError::Setup(Fault::new(
                format!("the account {} was deactivated", self.user),
                "Set another MATRIX_USER",
            )),
            _ => SessionError::Homeserver(error.into()),
        }
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> SessionError {
        SessionError::Setup(Fault::new(
            format!("the encryption keys in {} cannot be used ({error})", self.files().store().display()),
            "Move that folder away and set MATRIX_PASSWORD: a new device is made then, and the recovery key signs it",
        ))
    }
}

fn not_built(error: ClientBuildError) -> SessionError {
    match error {
        ClientBuildError::Http(error) => SessionError::Homeserver(error.into()),
        other => SessionError::Setup(Fault::new(
            format!("the homeserver cannot be used ({other})"),
            "Check MATRIX_HOMESERVER",
        )),
    }
}

/// Uploads a new device's keys, and learns of the rooms: who reads from an old position on is told only what has changed.
async fn introduce(session: &Session) -> Result<(), Trouble> {
    let mut request = v3::Request::new();
    request.filter = Some(Filter::FilterDefinition(sync::filter()));
    sync::Answer::ask(session, request, Duration::ZERO).await.map(drop)
}
