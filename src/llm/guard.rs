//! The tower service under async-openai: sends the request and hands only a clean event stream up.
//!
//! async-openai loses the status of a refusal whose body is not OpenAI's, logs what it cannot decode (a person's text),
//! reads a line of any length, queues events without a bound, and drops the connection at `[DONE]` before its end was
//! read, so that the next request must connect anew. All that is mended here; the reasons for a broken stream travel
//! beside it, in [`Watch`], because async-openai turns them into text.

use std::{sync::Arc, time::Duration};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use futures_util::StreamExt;
use hyper::http;
use reqwest::{Body, Response};

use super::{events::events, refusal::Refusal, retry::retry_after, watch::Watch};
use crate::clock::Clock;

/// Of a refusal's body.
const MAX_REFUSAL: usize = 64 * 1024;
const REFUSAL_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no stream. Travels through async-openai as a boxed error.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    /// The request did not reach the provider, or no answer came back.
    #[error("no connection")]
    Transport(#[source] reqwest::Error),
    /// It answered with something else than 2xx.
    #[error("refused")]
    Refused(Refusal),
}

/// Sends the request and returns a response whose body is a clean event stream.
pub(super) async fn send(
    request: HttpRequestFactory,
    http: reqwest::Client,
    clock: Clock,
    watch: Arc<Watch>,
) -> Result<Response, OpenAIError> {
    let request = request.build().await?;
    let response = http.execute(request).await.map_err(|error| no_stream(NoStream::Transport(error)))?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        let wait = retry_after(response.headers(), clock.millis());
        return Err(no_stream(NoStream::Refused(Refusal { status, wait, body: beginning(response).await })));
    }
    // Its label is not looked at: what came is told from what is not by its first bytes.
    let body = Body::wrap_stream(events(response.bytes_stream(), watch));
    Ok(Response::from(http::Response::new(body)))
}

fn no_stream(why: NoStream) -> OpenAIError {
    OpenAIError::Boxed(Box::new(why))
}

async fn beginning(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    let read = async {
        while let Some(Ok(piece)) = pieces.next().await {
            body.extend_from_slice(&piece[..piece.len().min(MAX_REFUSAL - body.len())]);
            if body.len() == MAX_REFUSAL {
                break;
            }
        }
    };
    // Whatever came until then is enough to quote.
    let _ = tokio::time::timeout(REFUSAL_WITHIN, read).await;
    body
}
