//! The keys of a device: who signs it, and how a lost device is replaced.
//!
//! Other people's clients trust the account's identity. The device that holds its keys signs itself; the recovery key
//! opens a copy of them on the homeserver, so that a new device can do the same. Called once for each device, as soon
//! as its own keys are uploaded, and again until it succeeds.

use matrix_sdk::{
    Client,
    encryption::{
        CrossSigningResetAuthType,
        identities::ManualVerifyError,
        recovery::RecoveryError,
        secret_storage::{ImportError, SecretStorageError},
    },
    ruma::{
        OwnedDeviceId,
        api::client::{
            keys::get_keys,
            uiaa::{AuthData, MatrixUserIdentifier, Password, UserIdentifier},
        },
    },
};
use secrecy::{ExposeSecret, SecretString};

use super::{SessionError, files::Files};
use crate::{chat::matrix::trouble::Trouble, crash};

/// How other people's clients see this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The account has no identity yet.
    Nobody,
    /// The account has an identity that has not signed this device.
    Unsigned,
    /// The identity has signed this device, which holds its keys.
    Signed,
}

/// Makes the device one of the account's own, by the keys that it holds, by the recovery key, or by a new identity;
/// and makes a recovery key if there is none. A `fresh` device also gets the keys of its rooms. Fails if trying again
/// at once may help; otherwise returns whether everything is done. If not, the log says what is wrong, and the next
/// start tries again.
pub(super) async fn put_in_place(
    client: &Client,
    files: &Files,
    password: Option<&SecretString>,
    fresh: bool,
) -> Result<bool, SessionError> {
    let (encryption, backups) = (client.encryption(), client.encryption().backups());
    encryption.wait_for_e2ee_initialization_tasks().await;
    let mut standing = sign_by_own_keys(client).await?;
    let mut kept = files.recovery_key()?;
    if let Some(key) = &kept
        && (standing != Standing::Signed || !backups.are_enabled().await)
    {
        match encryption.recovery().recover(key).await.map_err(trouble) {
            Ok(()) => tracing::info!("the recovery key has signed the new device"),
            Err(Trouble::Lasting(error)) => tracing::warn!(%error, "the recovery key does not fit"),
            Err(trouble) => return Err(trouble.into()),
        }
        crash::point("recovered");
        standing = sign_by_own_keys(client).await?;
    }
    if standing == Standing::Signed {
        if fresh {
            fetch_room_keys(client).await;
        }
    } else {
        // A kill after the new identity is made must not leave the old identity's recovery key in use.
        files.put_recovery_key_aside()?;
        kept = None;
        match new_identity(client, password).await {
            Ok(()) if standing == Standing::Nobody => tracing::info!("the account's identity was made"),
            Ok(()) => tracing::warn!(
                "the account has a new identity, because its recovery key is lost: people's clients say so, and may ask \
                 them to verify the bot again"
            ),
            Err(Trouble::Lasting(error)) => {
                tracing::error!(%error, "the device cannot be signed; encrypted rooms show it as unverified");
                return Ok(false);
            }
            Err(trouble) => return Err(trouble.into()),
        }
    }
    crash::point("signed");
    if kept.is_none() || !backups.are_enabled().await {
        match new_recovery_key(client).await {
            Ok(key) => {
                crash::point("recoverable");
                files.keep_recovery_key(&key)?;
            }
            Err(Trouble::Lasting(error)) => {
                tracing::warn!(%error, "there is no recovery key: a lost store will need a new identity");
                return Ok(false);
            }
            Err(trouble) => return Err(trouble.into()),
        }
    }
    Ok(true)
}

/// Removes the devices that this one replaces, so that nobody encrypts for them any more.
pub(super) async fn forget(client: &Client, devices: &[OwnedDeviceId], password: &SecretString) {
    let auth = client.user_id().map(|user| AuthData::Password(by_password(user.as_str(), password)));
    if let Err(error) = client.delete_devices(devices, auth).await {
        let trouble = Trouble::from(error);
        tracing::info!(?devices, %trouble, "the device that was lost cannot be removed from the account");
    }
}

/// Signs the device if it holds the identity's keys; returns how others see it then.
async fn sign_by_own_keys(client: &Client) -> Result<Standing, Trouble> {
    let standing = standing(client).await?;
    let holds = client.encryption().cross_signing_status().await.is_some_and(|keys| keys.is_complete());
    if standing != Standing::Unsigned || !holds {
        return Ok(standing);
    }
    let Some(device) = own_device(client).await? else { return Ok(standing) };
    match device.verify().await {
        Ok(()) => {}
        Err(ManualVerifyError::Http(error)) => match Trouble::from(error) {
            Trouble::Lasting(error) => tracing::debug!(%error, "the homeserver does not take the device's signature"),
            trouble => return Err(trouble),
        },
        Err(error) => tracing::debug!(%error, "the device cannot be signed by the keys that it holds"),
    }
    self::standing(client).await
}

/// Asks the homeserver how others see the device. What the SDK's store has may never have arrived there.
async fn standing(client: &Client) -> Result<Standing, Trouble> {
    let Some(own) = client.user_id() else { return Ok(Standing::Nobody) };
    let mut request = get_keys::v3::Request::new();
    request.device_keys.insert(own.to_owned(), vec![]);
    if !client.send(request).await?.master_keys.contains_key(own) {
        return Ok(Standing::Nobody);
    }
    // The SDK asks once more, and drops its own keys if they do not match the answer.
    client.encryption().request_user_identity(own).await?;
    let holds = client.encryption().cross_signing_status().await.is_some_and(|keys| keys.is_complete());
    let signed = own_device(client).await?.is_some_and(|device| device.is_cross_signed_by_owner());
    Ok(if holds && signed { Standing::Signed } else { Standing::Unsigned })
}

async fn own_device(client: &Client) -> Result<Option<matrix_sdk::encryption::identities::Device>, Trouble> {
    client.encryption().get_own_device().await.map_err(|error| Trouble::Lasting(error.to_string()))
}

async fn new_identity(client: &Client, password: Option<&SecretString>) -> Result<(), Trouble> {
    let Some(reset) = client.encryption().reset_cross_signing().await? else { return Ok(()) };
    let CrossSigningResetAuthType::Uiaa(asked) = reset.auth_type() else {
        reset.cancel().await;
        return Err(Trouble::Lasting("the homeserver wants a new identity to be approved in a browser".to_owned()));
    };
    let (Some(password), Some(user)) = (password, client.user_id()) else {
        return Err(Trouble::Lasting(
            "a new identity needs the password: set it in the account's settings and start again".to_owned(),
        ));
    };
    let mut answer = by_password(user.as_str(), password);
    answer.session.clone_from(&asked.session);
    Ok(reset.auth(Some(AuthData::Password(answer))).await?)
}

/// Makes a recovery key, and a copy on the homeserver of what it opens. The copy of an earlier key stays there.
async fn new_recovery_key(client: &Client) -> Result<String, Trouble> {
    let backups = client.encryption().backups();
    if !backups.are_enabled().await && backups.fetch_exists_on_server().await? {
        backups.create().await?;
    }
    client.encryption().recovery().enable().await.map_err(trouble)
}

/// Downloads the keys of rooms that the lost device has backed up, for messages that have come since.
async fn fetch_room_keys(client: &Client) {
    let fetch = async {
        for room in client.joined_rooms() {
            client.encryption().backups().download_room_keys_for_room(room.room_id()).await?;
        }
        Ok::<_, matrix_sdk::Error>(())
    };
    if let Err(error) = fetch.await {
        let trouble = Trouble::from(error);
        tracing::warn!(%trouble, "the keys of some rooms cannot be fetched; older messages there stay unread");
    }
}

fn by_password(user: &str, password: &SecretString) -> Password {
    let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(user.to_owned()));
    Password::new(user, password.expose_secret().to_owned())
}

/// An error may only count as lasting if it surely says that a key is wrong, because a new identity follows.
fn trouble(error: RecoveryError) -> Trouble {
    use SecretStorageError::{ImportError as Import, Sdk, Storage, Verification};
    match error {
        RecoveryError::Sdk(error)
        | RecoveryError::SecretStorage(Sdk(error) | Import { error: ImportError::Sdk(error), .. }) => error.into(),
        RecoveryError::SecretStorage(Verification(ManualVerifyError::Http(error))) => error.into(),
        RecoveryError::SecretStorage(Storage(error)) => Trouble::Away(format!("the keys cannot be stored: {error}")),
        other => Trouble::Lasting(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{api::client::discovery::get_supported_versions, events::secret::request::SecretName};

    use super::*;

    #[tokio::test]
    async fn a_homeserver_that_is_away_does_not_make_the_recovery_key_unfit() {
        let away = || async {
            // Nothing listens on this port.
            let client = Client::builder().homeserver_url("http://127.0.0.1:1").build().await.unwrap();
            client.send(get_supported_versions::Request::new()).await.unwrap_err()
        };
        let import = |error| SecretStorageError::ImportError { name: SecretName::RecoveryKey, error };
        for error in [
            SecretStorageError::Sdk(away().await.into()),
            import(ImportError::Sdk(away().await.into())),
            SecretStorageError::Verification(ManualVerifyError::Http(away().await)),
        ] {
            assert!(matches!(trouble(error.into()), Trouble::Away(_)));
        }
        let unfit = import(ImportError::MismatchedPublicKeys);
        assert!(matches!(trouble(unfit.into()), Trouble::Lasting(_)));
    }
}
