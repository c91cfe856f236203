//! Why an account could not be served at the server's last try, kept for `doctor`. That must not find it out by a login
//! of its own, since each may add a device to the account.

use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Fault, Login, SessionError, Trouble};
use crate::ids;

/// How many bytes of a digest are kept of the settings: enough to see that they have changed, and too few to find a
/// password by.
const SETTINGS: usize = 2;

/// Why an account could not be served, and with which settings.
#[derive(Serialize, Deserialize)]
struct Refusal {
    #[serde(flatten)]
    fault: Fault,
    /// The digest of the settings.
    settings: String,
}

impl Login {
    /// Keeps why the account cannot be served.
    pub fn keep_refusal(&self, error: &SessionError) {
        let refusal = Refusal { fault: self.fault(error), settings: self.digest() };
        if let Err(error) = self.files().keep_refusal(&json!(refusal).to_string().into_bytes()) {
            tracing::warn!(%error, "`doctor` will not know why the account cannot be served");
        }
    }

    /// Forgets why the account could not be served: it is.
    pub fn forget_refusal(&self) {
        if let Err(error) = self.files().forget_refusal() {
            tracing::warn!(%error, "`doctor` may say for now that the account is not served");
        }
    }

    /// Returns why the account could not be served at the last try, if that was made with these settings.
    pub(super) fn refusal(&self) -> Option<Fault> {
        let refusal: Refusal = serde_json::from_slice(&self.files().refusal().ok()??).ok()?;
        let Fault { what, mend } = refusal.fault;
        let told = || {
            Fault::new(
                format!("{what} (so it was at the server's last try)"),
                // Whoever has a session that was begun elsewhere is tried again when its file changes.
                if self.begun.is_some() { mend } else { format!("{mend}; then start the server again") },
            )
        };
        (refusal.settings == self.digest()).then(told)
    }

    fn digest(&self) -> String {
        let password = self.begun.as_ref().map(|begun| &begun.token).or(self.password.as_ref());
        let password = password.map_or("", |password| password.expose_secret());
        ids::digest(&[&self.homeserver, &self.user, password], SETTINGS)
    }

    /// Returns what a person can do about an error.
    pub(super) fn fault(&self, error: &SessionError) -> Fault {
        match error {
            SessionError::Setup(fault)
            | SessionError::Refused(fault)
            | SessionError::Homeserver(Trouble::Stranger(fault)) => fault.clone(),
            SessionError::File { .. } => Fault::new(
                error.to_string(),
                "Check that it belongs to the user who runs the server, or run this as that user",
            ),
            SessionError::Homeserver(trouble @ Trouble::LoggedOut { .. }) => match &self.begun {
                Some(begun) => begun.refused(&self.user),
                None => Fault::new(
                    format!("{trouble} of {}", self.user),
                    format!("Start the server with {} set: it logs in again", self.setting("password")),
                ),
            },
            SessionError::Homeserver(trouble @ Trouble::Lasting(_)) => Fault::new(
                trouble.to_string(),
                format!(
                    "Check {} and {}, or ask who runs the homeserver",
                    self.setting("homeserver"),
                    self.setting("user")
                ),
            ),
            SessionError::Homeserver(trouble) => Fault::new(
                trouble.to_string(),
                format!(
                    "Check {}, and that the homeserver runs; the server waits until it answers",
                    self.setting("homeserver")
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn login(folder: &Path, name: &str) -> Login {
        Login {
            name: name.into(),
            homeserver: "https://example.org".into(),
            user: "@bot:example.org".into(),
            password: None,
            refused: None,
            state_dir: folder.to_owned(),
            unsigned_devices: false,
            begun: None,
            watchdog: None,
        }
    }

    #[test]
    fn a_fault_names_the_settings_of_its_own_account() {
        let folder = tempfile::tempdir().unwrap();
        for (name, password, homeserver) in [
            ("coder", "MATRIX_PASSWORD", "MATRIX_HOMESERVER"),
            ("two", "accounts.two.password", "accounts.two.homeserver"),
        ] {
            let login = login(folder.path(), name);
            let mend = |error| login.fault(&error).mend;
            assert!(mend(login.password().unwrap_err()).starts_with(&format!("Set {password};")), "{name}");
            assert!(mend(Trouble::Away(String::new()).into()).starts_with(&format!("Check {homeserver},")), "{name}");
            let ended = mend(Trouble::LoggedOut { soft: false }.into());
            assert!(ended.contains(password) && !ended.contains("waits"), "{ended}");
        }
    }
    #[test]
    fn a_refusal_is_kept_for_these_settings_until_the_account_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let one = Login { password: Some("hush".to_owned().into()), ..login(folder.path(), "two") };
        one.forget_refusal();
        assert_eq!(one.refusal(), None);
        one.keep_refusal(&Trouble::Lasting("the account is locked".into()).into());
        let refusal = one.refusal().unwrap();
        assert!(
            refusal.what.starts_with("the account is locked") && refusal.mend.contains("accounts.two.user"),
            "{refusal}"
        );
        let other = Login { password: Some("hush!".to_owned().into()), ..one.clone() };
        assert_eq!(other.refusal(), None, "nobody has tried that one");
        one.forget_refusal();
        assert_eq!(one.refusal(), None);
    }
}
