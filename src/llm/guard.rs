//! The tower service below async-openai: sends the request and passes up a clean event stream only.
//!
//! async-openai loses the status of a refusal whose body is not OpenAI's, logs what it cannot decode (a person's
//! text), reads lines of any length, queues events without a bound, and drops the connection at `[DONE]` before its
//! end, so that the next request must connect anew. All of that is fixed here. Why a stream broke is stored in
//! [`Watch`], because async-openai turns errors into text.

use std::{sync::Arc, time::Duration};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use futures_util::StreamExt;
use hyper::http;
use reqwest::{Body, Response};

use super::{events::events, refusal::Refusal, retry::retry_after, watch::Watch};
use crate::clock::Clock;

/// The most bytes of a refusal's body that are read.
const MAX_REFUSAL: usize = 64 * 1024;
const REFUSAL_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no stream. Passes through async-openai as a boxed error.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    /// The request did not reach the provider, or no answer came back.
    #[error("no connection")]
    Transport(#[source] reqwest::Error),
    /// The provider answered with another status than 2xx.
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
    // The content type is ignored: the first bytes tell what it is.
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
    // What came until the time limit is enough to quote.
    let _ = tokio::time::timeout(REFUSAL_WITHIN, read).await;
    body
}
