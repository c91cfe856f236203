//! The account's session: its login, its device, its keys.
//!
//! It logs in by password once, or takes a session that somebody has begun for it (`begun.rs`); after that the session is
//! restored. The device signs itself; if the store is lost,
//! the recovery key, kept beside the session, lets a new device sign itself too (`keys.rs`). All files are for this
//! user alone (`files.rs`). The state directory's lock ensures that one process opens the store.

mod begun;
mod examine;
mod files;
mod keys;
mod refusal;
mod store;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
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
use crate::{config::account_setting, crash, net};
pub use begun::Begun;
use files::{Files, Saved};

/// How long putting a new device's keys in place may take.
const KEYS: Duration = Duration::from_mins(1);
/// The name of this device in the account's list of devices.
const DEVICE: &str = "matrix-agent";

/// How an account logs in to its homeserver.
#[derive(Clone, Debug)]
pub struct Login {
    /// The account's name in the store, and of its folder and files.
    pub name: String,
    /// The homeserver's address.
    pub homeserver: String,
    /// The account's full user id.
    pub user: String,
    /// Its password, for the first login and for a session that was lost.
    pub password: Option<SecretString>,
    /// The session that was begun for it; without one it logs in by password.
    pub begun: Option<Begun>,
    /// Why the password must not be sent to the homeserver, if so.
    pub refused: Option<Fault>,
    /// The server's state directory.
    pub state_dir: PathBuf,
    /// Whether messages from devices that nobody has signed count.
    pub unsigned_devices: bool,
    /// How long the homeserver's stream may bring nothing until it is begun anew; `None`: for ever.
    pub watchdog: Option<Duration>,
}

impl Login {
    /// Returns by which names people call the account: its user id, whole and without the server.
    pub(crate) fn called(&self) -> Vec<String> {
        let short = self.user.split(':').next().unwrap_or_default();
        vec![self.user.clone(), short.to_owned()]
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The homeserver does not give one.
    #[error(transparent)]
    Homeserver(#[from] Trouble),
    /// A file of the session cannot be read or written.
    #[error("{path} cannot be used: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A person must do something first.
    #[error(transparent)]
    Setup(Fault),
    /// The homeserver takes the token no more, so that only another one helps.
    #[error(transparent)]
    Refused(Fault),
}

/// Returns whether a session of an account is stored, so that it needs no password.
pub(crate) fn has_session(state_dir: &Path, account: &str) -> bool {
    Files::new(state_dir, account).session().exists()
}

/// Removes what is stored of the session of an account by its name in the store; the session must have ended. The account's
/// recovery key stays.
pub(crate) fn forget_session(state_dir: &Path, account: &str) -> Result<(), SessionError> {
    Files::new(state_dir, account).forget()
}

impl SessionError {
    /// Returns whether trying again may help. If something else than a homeserver answers, that is a mistake in the
    /// settings at the `first` login; later it may be a proxy that runs while its homeserver does not.
    pub(super) fn passes(&self, first: bool) -> bool {
        match self {
            Self::Homeserver(Trouble::Stranger(_)) => !first,
            Self::Homeserver(Trouble::Lasting(_)) | Self::File { .. } | Self::Setup(_) | Self::Refused(_) => false,
            Self::Homeserver(Trouble::Away(_) | Trouble::Limited(_) | Trouble::LoggedOut { .. }) => true,
        }
    }
}

/// How to get a session.
enum Way {
    /// By logging in: there is no session yet.
    LogIn,
    /// By a new device in place of this one, whose keys are gone.
    Replace(Saved),
    /// By restoring this one.
    Restore(Saved),
    /// By taking the one whose token was given, in place of this one.
    Take(Saved),
}

impl Login {
    /// Restores the session, or logs in. The session has not synced yet.
    ///
    /// Boxed, as the compiler would otherwise look through all of the SDK's types at each caller.
    pub fn open(&self) -> BoxFuture<'_, Result<Session, SessionError>> {
        let opening = async {
            match self.way()? {
                Way::LogIn => self.log_in(vec![]).await,
                Way::Replace(saved) => {
                    let folder = self.files().store();
                    tracing::warn!(folder = %folder.display(), "the encryption keys are gone; a new device is made");
                    self.replace(saved).await
                }
                Way::Restore(saved) => self.restore(saved).await,
                Way::Take(saved) => self.take(saved).await,
            }
        };
        opening.boxed()
    }

    /// Decides how to get a session.
    fn way(&self) -> Result<Way, SessionError> {
        let Some(saved) = self.files().saved()? else { return Ok(Way::LogIn) };
        let owner = &saved.session.meta.user_id;
        if *owner != self.user {
            let (store, session) = (self.files().store(), self.files().session());
            return Err(SessionError::Setup(Fault::new(
                format!("{} holds the keys of {owner}, and {} is {}", store.display(), self.setting("user"), self.user),
                format!(
                    "Set {} back, or move that folder and {} away to begin as a new account",
                    self.setting("user"),
                    session.display()
                ),
            )));
        }
        let is_kept = |begun: &Begun| begun.token.expose_secret() == saved.session.tokens.access_token;
        if self.begun.as_ref().is_some_and(|begun| !is_kept(begun)) {
            return Ok(Way::Take(saved));
        }
        Ok(if self.files().has_store() { Way::Restore(saved) } else { Way::Replace(saved) })
    }

    /// Makes a new session after the homeserver has ended the last one. With `soft` the device still exists.
    pub fn renew(&self, soft: bool) -> BoxFuture<'_, Result<Session, SessionError>> {
        self.renewed(soft).boxed()
    }

    async fn renewed(&self, soft: bool) -> Result<Session, SessionError> {
        if let Some(begun) = &self.begun {
            return Err(SessionError::Refused(begun.refused(&self.user)));
        }
        let Some(saved) = self.files().saved()? else { return self.log_in(vec![]).await };
        if !soft || !self.files().has_store() {
            return self.replace(saved).await;
        }
        let session = self.session(saved.session.meta.device_id.clone()).await?;
        let saved = Saved { session, ..saved };
        self.files().save(&saved)?;
        self.restore(saved).await
    }

    /// Removes what is stored of the account's session, which must have ended ([`forget_session`]).
    pub fn forget(&self) -> Result<(), SessionError> {
        forget_session(&self.state_dir, &self.name)
    }

    /// Returns the name of one of the account's settings, such as `MATRIX_PASSWORD` or `accounts.two.password`.
    fn setting(&self, key: &str) -> String {
        match &self.begun {
            Some(begun) => begun.setting(key),
            None => account_setting(&self.name, key),
        }
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
            if !saved.ready && password.is_none() && self.begun.is_some() {
                let fault = self.unsigned();
                tracing::warn!(mend = fault.mend, "{}", fault.what);
            }
            if let Some(password) = password.filter(|_| !saved.lost.is_empty()) {
                keys::forget(&session, &saved.lost, password).await;
                saved.lost.clear();
            }
            crash::point("settled");
            files.save(&saved)?;
        }
        // The session is opened anew: the one above has synced once, and the SDK would drop an answer that ends at
        // the same position.
        self.restored(&saved).await
    }

    /// Opens the store. The session has not synced.
    async fn restored(&self, saved: &Saved) -> Result<Session, SessionError> {
        let session = self.with_store().await?;
        // The SDK returns an answer that it has seen before as an empty one: a kill between its write and ours would
        // lose the messages in it. So its stored position is removed.
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

    /// Logs in as a new device, which replaces these.
    async fn log_in(&self, lost: Vec<OwnedDeviceId>) -> Result<Session, SessionError> {
        let session = match &self.begun {
            Some(begun) => self.begun_anew(begun).await?,
            None => self.session(self.files().next_device()?).await?,
        };
        crash::point("logged-in");
        self.keep(session, lost).await
    }

    /// Stores the session of a new device, and restores it.
    async fn keep(&self, session: MatrixSession, lost: Vec<OwnedDeviceId>) -> Result<Session, SessionError> {
        // In this order, so that a kill in between leaves no session with another device's store.
        self.files().put_store_aside()?;
        crash::point("put-aside");
        let saved = Saved { ready: false, lost, session };
        self.files().save(&saved)?;
        self.files().device_is_kept()?;
        crash::point("kept");
        self.restore(saved).await
    }

    /// Makes a new device in place of one whose keys are lost.
    async fn replace(&self, mut saved: Saved) -> Result<Session, SessionError> {
        if self.begun.is_none() {
            saved.lost.push(saved.session.meta.device_id);
        }
        self.log_in(saved.lost).await
    }

    /// Logs in by password, as a new device or as an existing one. Nothing is stored yet.
    async fn session(&self, device: OwnedDeviceId) -> Result<MatrixSession, SessionError> {
        let password = self.password()?;
        // The login tells to which device the store will belong, so this client has no store.
        let client = self.bare_client().await?;
        let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(self.user.clone()));
        let mut request = Request::new(LoginInfo::Password(Password::new(user, password.expose_secret().to_owned())));
        request.device_id = Some(device);
        request.initial_device_display_name = Some(DEVICE.to_owned());
        let response = client.send(request).await.map_err(|error| self.login_failed(error.into()))?;
        if response.user_id != self.user {
            // If the session cannot be used, it is logged out, so that repeated starts do not fill the account with
            // devices.
            if client.restore_session(MatrixSession::from(&response)).await.is_ok() {
                let _ = client.logout().await;
            }
            return Err(SessionError::Setup(Fault::new(
                format!(
                    "the homeserver calls this account {}, and {} is {}",
                    response.user_id,
                    self.setting("user"),
                    self.user
                ),
                format!("Set {} to {}", self.setting("user"), response.user_id),
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
                format!("{} has to log in, and {} is not set", self.user, self.setting("password")),
                format!("Set {}; it is not needed again after the login", self.setting("password")),
            ))
        })
    }

    /// Returns a client without a store.
    async fn bare_client(&self) -> Result<Client, SessionError> {
        let client = Client::builder().homeserver_url(&self.homeserver).http_client(self.http()?);
        client.request_config(requests(Duration::ZERO)).build().await.map_err(|error| self.not_built(error))
    }

    /// Returns the HTTP client for the SDK's requests and for media.
    fn http(&self) -> Result<reqwest::Client, SessionError> {
        let client = Url::parse(&self.homeserver).ok().map(|homeserver| net::client_of(&homeserver).build());
        client.and_then(Result::ok).ok_or_else(|| {
            SessionError::Setup(Fault::new(
                "no connection to the homeserver can be set up",
                format!("Check {}, and install this machine's `ca-certificates`", self.setting("homeserver")),
            ))
        })
    }

    /// Returns a session with a store that is not logged in.
    async fn with_store(&self) -> Result<Session, SessionError> {
        let folder = self.files().make_store()?;
        let key = self.files().store_key()?;
        let stores = store::open(&folder, &key).await.map_err(|error| self.damaged(&error))?;
        let mut base = BaseClient::new(stores, ThreadingSupport::Disabled, DmRoomDefinition::default());
        if !self.unsigned_devices {
            // The operator of a homeserver can add devices to any account there, but cannot sign them.
            base.decryption_settings.sender_device_trust_requirement = TrustRequirement::CrossSigned;
            base.room_key_recipient_strategy = CollectStrategy::IdentityBasedStrategy;
        }
        let client = Client::builder()
            .homeserver_url(&self.homeserver)
            .base_client(base.clone())
            .http_client(self.http()?)
            .request_config(requests(Duration::ZERO))
            // Otherwise whoever invites the bot decides what is downloaded, of any size, and a failure of that would
            // fail the join. Messages from before the join are not answered anyway.
            .with_enable_share_history_on_invite(false)
            .build()
            .await
            .map_err(|error| self.not_built(error))?;
        Ok(Session { client, base })
    }

    fn login_failed(&self, error: matrix_sdk::Error) -> SessionError {
        match error.client_api_error_kind() {
            Some(ErrorKind::Forbidden) => SessionError::Setup(Fault::new(
                format!("the homeserver does not take the password of {}", self.user),
                format!("Check {} and {}", self.setting("user"), self.setting("password")),
            )),
            Some(ErrorKind::UserDeactivated) => SessionError::Setup(Fault::new(
                format!("the account {} was deactivated", self.user),
                format!("Set another {}", self.setting("user")),
            )),
            _ => SessionError::Homeserver(error.into()),
        }
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> SessionError {
        SessionError::Setup(Fault::new(
            format!("the encryption keys in {} cannot be used ({error})", self.files().store().display()),
            format!(
                "Move that folder away and set {}: a new device is made then, and the recovery key signs it",
                self.setting("password")
            ),
        ))
    }

    fn not_built(&self, error: ClientBuildError) -> SessionError {
        match error {
            ClientBuildError::Http(error) => SessionError::Homeserver(error.into()),
            other => SessionError::Setup(Fault::new(
                format!("the homeserver cannot be used ({other})"),
                format!("Check {}", self.setting("homeserver")),
            )),
        }
    }
}

/// Uploads a new device's keys and reads the account's rooms: a sync from an old position tells only what has
/// changed.
async fn introduce(session: &Session) -> Result<(), Trouble> {
    let mut request = v3::Request::new();
    request.filter = Some(Filter::FilterDefinition(sync::filter()));
    sync::Answer::ask(session, request, Duration::ZERO).await.map(drop)
}
