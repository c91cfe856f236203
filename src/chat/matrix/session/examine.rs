//! Checks whether an account could work, and changes nothing. Called by `doctor`.

use std::time::Duration;

use matrix_sdk::ruma::api::client::{discovery::get_supported_versions, session::get_login_types};
use tokio::time;

use super::{Fault, Login, SessionError, Trouble, Way, begun::Published, files::Saved};

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
        let homeserver =
            self.examine_homeserver(!restores && self.begun.is_none()).await.map_err(|error| self.fault(&error));
        let account = match (&way, &homeserver) {
            (Ok(Way::Restore(saved)), Ok(_)) => self.examine_device(saved).await,
            (Ok(way @ (Way::LogIn | Way::Take(_))), Ok(_)) if let Some(begun) = &self.begun => {
                self.of_token(begun).await.and_then(|_| self.examine_way(way))
            }
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
        Err(SessionError::Setup(self.unsigned()))
    }

    /// Returns what to do about a device that the account has not signed.
    pub(super) fn unsigned(&self) -> Fault {
        let key = self.files().recovery_key_file();
        let what = "the bot's own device is not signed, so nobody can read its answers in encrypted rooms";
        let mend = match &self.begun {
            None => format!(
                "Set {}, move {} away if it is there, and start the server again: it signs its device then",
                self.setting("password"),
                key.display()
            ),
            Some(_) => format!(
                "Write the account's recovery key to {} (mode 0600) and start the bot again, or let `matrix-agent cloud-bot add` \
                 log in by password",
                key.display()
            ),
        };
        Fault::new(what, mend)
    }

    /// Asks the homeserver whether the account has signed its device.
    async fn is_signed(&self, saved: &Saved) -> Result<bool, SessionError> {
        let Published { device, signing } = self.published(&saved.session).await?;
        let signing = signing["keys"].as_object().into_iter().flat_map(|keys| keys.keys());
        Ok(signing.into_iter().any(|key| device["signatures"][self.user.as_str()][key].is_string()))
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
            Way::LogIn | Way::Take(_) if self.begun.is_some() => {
                format!("the session of {user} begins at the next start")
            }
            Way::LogIn | Way::Take(_) => {
                self.password()?;
                format!("{user} logs in at the first start")
            }
            Way::Replace(_) => {
                if self.begun.is_none() {
                    self.password()?;
                }
                format!("{user} makes a new device at the next start, because the last one's keys are gone")
            }
            Way::Restore(saved) => format!("{user} is logged in as device {}", saved.session.meta.device_id),
        })
    }
}
