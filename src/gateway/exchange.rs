//! One request and its answer, both streaming at once.
//!
//! It must not know policy: the request was allowed before it comes here. Called by `web` and `git`, which differ in
//! where the answer comes from.

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
    /// Well: the next request may come.
    KeepAlive,
    /// The connection has to be closed.
    Close,
    /// Badly; the sandbox has been told, if that was possible.
    Denied(Denial),
}

/// Streams the request's body to whom `ask` gives it, and the answer to the sandbox. The answer may come before the body
/// has ended; then nothing more is read of the connection.
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
                // Nobody may want the rest of the body because the answer is under way, or because all has failed.
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
            // Past this the connection is closed, so whether the words arrive is the sandbox's own affair.
            let _ = writer.refuse(&denial, manner.head_only).await;
            Ended::Denied(denial)
        }
    }
}
