//! The registry of inference servers as the gateway sees it: who answers a coding agent's request for a model of it.

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::Url;

use crate::{
    gateway::models::{Choice, Server, Servers},
    inference::{Choosing, Inference, Place},
};

/// The servers of one model of the registry.
pub(super) struct LocalModel {
    inference: Inference,
    /// `localbot/…`.
    name: String,
}

impl LocalModel {
    pub(super) fn new(inference: Inference, name: String) -> Self {
        Self { inference, name }
    }
}

impl Servers for LocalModel {
    fn begin(&self) -> Box<dyn Choice + '_> {
        Box::new(OfRequest(self.inference.choose(&self.name)))
    }
}

/// The choice for one request.
struct OfRequest(Choosing);

impl Choice for OfRequest {
    fn next<'a>(&'a mut self, failed: Option<&'a str>) -> BoxFuture<'a, Option<Result<Server, String>>> {
        async move {
            let place = self.0.next(failed).await?;
            Some(place.map_err(|error| error.to_string()).and_then(server))
        }
        .boxed()
    }
}

fn server(place: Place) -> Result<Server, String> {
    let key = place.key();
    let Place { endpoint, lease } = place;
    let base = Url::parse(&format!("{}/v1", endpoint.url)).map_err(|error| format!("{}: {error}", endpoint.name))?;
    Ok(Server { base, key, model: lease.model().to_owned(), guard: Box::new(lease) })
}
