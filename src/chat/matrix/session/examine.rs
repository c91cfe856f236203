//! Looks whether the account could work, and changes nothing. Called by `doctor`.

use matrix_sdk::ruma::api::client::{discovery::get_supported_versions, session::get_login_types};

use super::{Account, Fault, SessionError, Trouble, Way};

/// What the homeserver and the account look like: what is good about each, or what to mend.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The homeserver.
    pub homeserver: Result<String, Fault>,
    /// The account's session and password.
    pub account: Result<String, Fault>,
}

impl Account {
    /// Looks at the homeserver and at the account's files, without logging in.
    pub async fn examine(&self) -> Examined {
        let way = self.way();
        let restores = matches!(way, Ok(Way::Restore(_)));
        let homeserver = self.examine_homeserver(!restores).await.map_err(fault);
        Examined { homeserver, account: way.and_then(|way| self.examine_way(&way)).map_err(fault) }
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
                    "Enable it there, or set MATRIX_HOMESERVER and MATRIX_USER to an account on another homeserver",
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

fn fault(error: SessionError) -> Fault {
    match error {
        SessionError::Setup(fault) | SessionError::Homeserver(Trouble::Stranger(fault)) => fault,
        SessionError::File { .. } => Fault::new(
            error.to_string(),
            "Check that it belongs to the user who runs the server, or run this as that user",
        ),
        SessionError::Homeserver(trouble) => Fault::new(
            trouble.to_string(),
            "Check MATRIX_HOMESERVER, and that the homeserver runs; the server waits until it answers",
        ),
    }
}
