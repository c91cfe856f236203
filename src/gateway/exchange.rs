//! Forwards one request and its response, both streaming at the same time.
//!
//! It must not know policy: the request was allowed before. Called by `web` and `git`, which get the response from
//! different places.

use bytes::Bytes;
use hyper::{Response, body::Body};

use super::{
    body::Upload,
    denial::Denial,
    downstream::{Manner, Reader, Writer},
    head::Head,
};

/// How an exchange ended.
pub(super) enum Ended {
    /// The response was complete; the next request may come.
    KeepAlive,
    /// The connection has to be closed.
    Close,
    /// The exchange failed; the sandbox was told if that was still possible.
    Denied(Denial),
}

/// Streams the request's body through `ask`, and the response to the sandbox. If the response ends before the body,
/// nothing more is read from the connection.
pub(super) async fn exchange<B, F>(
    reader: &mut Reader,
    writer: &mut Writer,
    head: &Head,
    ask: impl FnOnce(Upload) -> F,
) -> Ended
where
    B: Body<Data = Bytes> + Unpin,
    F: Future<Output = Result<Response<B>, Denial>>,
{
    let manner = Manner::of(head);
    if head.expects_continue && writer.raw(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
        return Ended::Close;
    }
    let (parts, upload) = Upload::new(head.framing);
    let ended = {
        let answering = async {
            match ask(upload).await {
                Ok(response) => writer.respond(response, manner).await.map_err(|_| None),
                Err(denial) => Err(Some(denial)),
            }
        };
        tokio::pin!(answering);
        tokio::select! {
            biased;
            pumped = reader.pump(head.framing, parts) => match pumped {
                Ok(()) => answering.await,
                // Sending the body also fails when the response has begun or everything has failed.
                Err(bad) => match answering.await {
                    Err(Some(Denial::Broken(_))) => Err(Some(bad)),
                    Ok(_) => Ok(false),
                    failed => failed,
                },
            },
            answered = &mut answering => answered.map(|_| false),
        }
    };
    match ended {
        Ok(true) => Ended::KeepAlive,
        Ok(false) | Err(None) => Ended::Close,
        Err(Some(denial)) => {
            // The connection is closed after this, so it does not matter whether the sandbox reads it.
            let _ = writer.refuse(&denial, manner.head_only).await;
            Ended::Denied(denial)
        }
    }
}
