//! Sends the requests of the SDK's encryption to the homeserver: new keys of this device, questions for other
//! devices' keys, and messages of verifications.
//!
//! The SDK's `sync_once` does that before and after each answer; since answers are taken apart here, it is done here.

use std::iter;

use futures_util::{StreamExt, stream};
use matrix_sdk::ruma::api::client::{keys::get_keys, to_device::send_event_to_device};
use matrix_sdk_crypto::{
    OlmMachine,
    types::requests::{AnyOutgoingRequest, OutgoingRequest},
};

use super::super::{connected::Session, trouble::Trouble};

/// Requests that run at the same time.
const AT_ONCE: usize = 20;

/// Sends all waiting requests. A failed one keeps waiting and is sent with the next answer.
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
    // Boxed because the compiler cannot resolve the type otherwise.
    stream::iter(waiting).for_each_concurrent(AT_ONCE, |request| Box::pin(send(request))).await;
}

/// Makes new Olm sessions with devices whose old ones are broken.
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
            // Nothing is verified any more in a room that was left.
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
