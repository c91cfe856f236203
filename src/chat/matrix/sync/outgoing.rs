//! Sends what the SDK's encryption has to tell the homeserver: new keys of this device, questions for those of others,
//! what verifications say.
//!
//! The SDK's `sync_once` does so before and after each answer; whoever takes answers apart has to.

use std::iter;

use futures_util::{StreamExt, stream};
use matrix_sdk::ruma::api::client::{keys::get_keys, to_device::send_event_to_device};
use matrix_sdk_crypto::{
    OlmMachine,
    types::requests::{AnyOutgoingRequest, OutgoingRequest},
};

use super::super::{connected::Session, trouble::Trouble};

/// Requests that are under way at the same time.
const AT_ONCE: usize = 20;

/// Sends all that waits. What fails waits on, and is sent with the next answer.
pub(super) async fn send(session: &Session) {
    let machine = session.base.olm_machine().await;
    let Some(machine) = machine.as_ref() else { return };
    if let Err(trouble) = claim(session, machine).await {
        tracing::warn!(%trouble, "a channel to another device cannot be mended now");
    }
    let waiting = match machine.outgoing_requests().await {
        Ok(waiting) => waiting,
        Err(error) => {
            tracing::warn!(%error, "what the encryption has to send cannot be read");
            return;
        }
    };
    let send = |request: OutgoingRequest| async move {
        if let Err(trouble) = send_one(session, machine, &request).await {
            tracing::warn!(%trouble, "a request of the encryption has failed; it is tried again");
        }
    };
    // Boxed for the compiler, which else loses its way in the type.
    stream::iter(waiting).for_each_concurrent(AT_ONCE, |request| Box::pin(send(request))).await;
}

/// Makes new channels to devices with which the old ones are broken.
async fn claim(session: &Session, machine: &OlmMachine) -> Result<(), Trouble> {
    let Some((id, request)) = machine.get_missing_sessions(iter::empty()).await.map_err(lasting)? else {
        return Ok(());
    };
    let answer = session.client.send(request).await?;
    machine.mark_request_as_sent(&id, &answer).await.map_err(lasting)
}

async fn send_one(session: &Session, machine: &OlmMachine, request: &OutgoingRequest) -> Result<(), Trouble> {
    let (client, id) = (&session.client, request.request_id());
    let noted = match request.request() {
        AnyOutgoingRequest::KeysUpload(upload) => {
            let answer = client.send(upload.clone()).await?;
            machine.mark_request_as_sent(id, &answer).await
        }
        AnyOutgoingRequest::KeysQuery(query) => {
            let mut asked = get_keys::v3::Request::new();
            asked.device_keys.clone_from(&query.device_keys);
            let answer = client.send(asked).await?;
            machine.mark_request_as_sent(id, &answer).await
        }
        AnyOutgoingRequest::KeysClaim(claim) => {
            let answer = client.send(claim.clone()).await?;
            machine.mark_request_as_sent(id, &answer).await
        }
        AnyOutgoingRequest::ToDeviceRequest(told) => {
            let told = send_event_to_device::v3::Request::new_raw(
                told.event_type.clone(),
                told.txn_id.clone(),
                told.messages.clone(),
            );
            let answer = client.send(told).await?;
            machine.mark_request_as_sent(id, &answer).await
        }
        AnyOutgoingRequest::SignatureUpload(upload) => {
            let answer = client.send(upload.clone()).await?;
            machine.mark_request_as_sent(id, &answer).await
        }
        AnyOutgoingRequest::RoomMessage(message) => {
            // Of a room that was left nothing is verified any more.
            let Some(room) = client.get_room(&message.room_id) else { return Ok(()) };
            let sent = room.send((*message.content).clone()).with_transaction_id(message.txn_id.clone()).await?;
            machine.mark_request_as_sent(id, &sent.response).await
        }
    };
    noted.map_err(lasting)
}

fn lasting(error: impl std::error::Error) -> Trouble {
    Trouble::Lasting(format!("the encryption's store has failed: {error}"))
}
