//! Checks whether an account could work, and changes nothing. Called by `doctor`.

use std::time::Duration;

use matrix_sdk::{
    ruma::{
        OwnedUserId,
        api::client::{discovery::get_supported_versions, keys::get_keys, session::get_login_types},
    },
    store::RoomLoadSettings,
};
use serde_json::Value;
use tokio::time;

use super::{Fault, Login, SessionError, Trouble, Way, files::Saved};

/// How long the homeserver may take to return the bot's own keys.
const KEYS: Duration = Duration::from_secs(20);

/// The result: what was found good of each, or what to fix.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The homeserver.
    pub homeserver: Result<String, Fault>,
    /// The account's session and password.
    pub account: Result<String, Fault>,
}

impl Login {
    /// Checks the homeserver and the account's files, without logging in.
    pub async fn examine(&self) -> Examined {
        let way = self.way();
        let restores = matches!(way, Ok(Way::Restore(_)));
        let homeserver = self.examine_homeserver(!restores).await.map_err(|error| self.fault(&error));
        let account = match (&way, &homeserver) {
            (Ok(Way::Restore(saved)), Ok(_)) => self.examine_device(saved).await,
            _ => way.and_then(|way| self.examine_way(&way)),
        };
        let account = account.map_err(|error| self.fault(&error));
        // Only the homeserver's own word on a session shows that the account works.
        if restores && homeserver.is_ok() && account.is_ok() {
            return Examined { homeserver, account };
        }
        Examined { homeserver, account: self.refusal().map_or(account, Err) }
    }

    /// Checks whether other people's clients take the device for one of the account's own. If not, they warn of it,
    /// and may not give it the keys of messages.
    async fn examine_device(&self, saved: &Saved) -> Result<String, SessionError> {
        let (user, device) = (&self.user, &saved.session.meta.device_id);
        let slow = |_| Trouble::Away("the homeserver takes too long to show the device's keys".to_owned());
        if time::timeout(KEYS, self.is_signed(saved)).await.map_err(slow)?? {
            return Ok(format!("{user} is logged in as device {device}, which is signed"));
        }
        let key = self.files().recovery_key_file();
        Err(SessionError::Setup(Fault::new(
            format!("the bot's own device {device} is not signed, so nobody can read its answers in encrypted rooms"),
            format!(
                "Set {}, move {} away if it is there, and start the server again: it signs its device then",
                self.setting("password"),
                key.display()
            ),
        )))
    }

    /// Asks the homeserver which keys it gives to others.
    async fn is_signed(&self, saved: &Saved) -> Result<bool, SessionError> {
        let client = self.bare_client().await?;
        let session = saved.session.clone();
        client
            .matrix_auth()
            .restore_session(session, RoomLoadSettings::default())
            .await
            .map_err(|error| self.damaged(&error))?;
        let Ok(user) = OwnedUserId::try_from(self.user.as_str()) else { return Ok(false) };
        let mut asked = get_keys::v3::Request::new();
        asked.device_keys.insert(user.clone(), vec![]);
        let told = client.send(asked).await.map_err(Trouble::from)?;
        let json = |raw: &str| serde_json::from_str::<Value>(raw).unwrap_or_default();
        let device = told.device_keys.get(&user).and_then(|devices| devices.get(&saved.session.meta.device_id));
        let device = device.map(|keys| json(keys.json().get())).unwrap_or_default();
        let signing = told.self_signing_keys.get(&user).map(|keys| json(keys.json().get())).unwrap_or_default();
        let signing = signing["keys"].as_object().into_iter().flat_map(|keys| keys.keys());
        Ok(signing.into_iter().any(|key| device["signatures"][user.as_str()][key].is_string()))
    }

    async fn examine_homeserver(&self, logs_in: bool) -> Result<String, SessionError> {
        let client = self.bare_client().await?;
        client.send(get_supported_versions::Request::new()).await.map_err(Trouble::from)?;
        if logs_in {
            let offered = client.send(get_login_types::v3::Request::new()).await.map_err(Trouble::from)?;
            let password = |flow: &_| matches!(flow, get_login_types::v3::LoginType::Password(_));
            if !offered.flows.iter().any(password) {
                return Err(SessionError::Setup(Fault::new(
                    format!("{} offers no login by password, the only one that the bot knows", self.homeserver),
                    format!(
                        "Enable it there, or set {} and {} to an account on another homeserver",
                        self.setting("homeserver"),
                        self.setting("user")
                    ),
                )));
            }
        }
        Ok(format!("{} answers", self.homeserver))
    }

    fn examine_way(&self, way: &Way) -> Result<String, SessionError> {
        let user = &self.user;
        Ok(match way {
            Way::LogIn => {
                self.password()?;
                format!("{user} logs in at the first start")
            }
            Way::Replace(_) => {
                self.password()?;
                format!("{user} makes a new device at the next start, because the last one's keys are gone")
            }
            Way::Restore(saved) => format!("{user} is logged in as device {}", saved.session.meta.device_id),
        })
    }
}
