//! HTTP clients that a response cannot lead elsewhere.
//!
//! The operator chooses whom the program asks (a homeserver, a model's provider), which may be on the local network.
//! A redirect is the other side's choice: followed blindly, it would make the server fetch from, or post to, any
//! address that the host reaches, such as a cloud's metadata or a service on loopback.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::{
    ClientBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::{Attempt, Policy},
};
use tokio::net::lookup_host;

use super::{is_own, refusal};

/// The most redirects that are followed in a row.
const REDIRECTS: usize = 5;

/// Returns the builder of a client that follows no redirects.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn client() -> ClientBuilder {
    ClientBuilder::new()
        .redirect(Policy::none())
        .referer(false)
        .user_agent(concat!("matrix-agent/", env!("CARGO_PKG_VERSION")))
}

/// Returns the builder of a client for one server, wherever that is. Redirects are followed to the server's own
/// origin, and elsewhere only to public addresses: a homeserver may keep its media at a storage service, but not on
/// this network.
pub(crate) fn client_of(server: &Url) -> ClientBuilder {
    let origin = server.origin();
    let redirects = Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS {
            return attempt.error("it redirects again and again");
        }
        if attempt.url().origin() == origin { attempt.follow() } else { elsewhere(attempt) }
    });
    client().redirect(redirects).dns_resolver(Arc::new(PublicButOne(server.host_str().map(str::to_owned))))
}

/// Decides on a redirect to another origin. Names are checked when they are resolved; a literal address is never
/// resolved, so it is checked here.
fn elsewhere(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let url = attempt.url();
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let Ok(address) = host.parse::<IpAddr>() else {
        // Under the server's own name only its own origin is allowed: other ports are other services.
        let same = attempt.previous().iter().any(|asked| asked.host_str() == Some(host));
        return if same { attempt.error(Refused("another service of the same host")) } else { attempt.follow() };
    };
    match unreachable(address) {
        Some(why) => attempt.error(Refused(why)),
        None => attempt.follow(),
    }
}

/// Returns why an address that somebody else has chosen must not be dialled.
fn unreachable(address: IpAddr) -> Option<&'static str> {
    refusal(address).or_else(|| is_own(address).then_some("an address of this machine"))
}

#[derive(Debug, thiserror::Error)]
#[error("it redirects to {0}, which is not followed")]
struct Refused(&'static str);

/// Resolves the server's own name to any address, and others to public ones only. Exactly the checked addresses are
/// dialled.
struct PublicButOne(Option<String>);

impl Resolve for PublicButOne {
    fn resolve(&self, name: Name) -> Resolving {
        let own = self.0.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name.as_str()));
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            let refused = found.iter().find_map(|address| unreachable(address.ip())).filter(|_| !own);
            match refused {
                Some(why) => Err(Box::new(io::Error::other(Refused(why))) as Box<dyn Error + Send + Sync>),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

    use super::*;

    async fn server(redirect: Option<String>) -> MockServer {
        let server = MockServer::start().await;
        if let Some(to) = redirect {
            let answer = ResponseTemplate::new(302).insert_header("location", to);
            Mock::given(path("/file")).respond_with(answer).mount(&server).await;
        }
        Mock::given(path("/moved"))
            .respond_with(ResponseTemplate::new(200).set_body_string("here"))
            .mount(&server)
            .await;
        server
    }

    /// Returns the response, or the error with its causes.
    async fn fetched(server: &MockServer, client: ClientBuilder) -> Result<String, String> {
        let told = |error: reqwest::Error| format!("{:#}", anyhow::Error::from(error));
        let address = format!("{}/file", server.uri());
        let answer = client.no_proxy().build().unwrap().get(address).send().await.map_err(told)?;
        answer.text().await.map_err(told)
    }

    #[tokio::test]
    async fn redirects_lead_to_the_servers_own_origin_alone_on_this_network() {
        let inside = server(None).await;
        let port = inside.address().port();
        let own = server(Some("/moved".to_owned())).await;
        let client = |server: &MockServer| client_of(&server.uri().parse().unwrap());
        assert_eq!(fetched(&own, client(&own)).await.unwrap(), "here");
        for to in [
            format!("http://127.0.0.1:{port}/moved"),
            format!("http://localhost:{port}/moved"),
            format!("http://[::ffff:127.0.0.1]:{port}/moved"),
            format!("http://2130706433:{port}/moved"),
            "http://169.254.169.254/latest/meta-data".to_owned(),
            "http://10.0.0.1/".to_owned(),
        ] {
            let hostile = server(Some(to.clone())).await;
            let refused = fetched(&hostile, client(&hostile)).await.unwrap_err();
            assert!(refused.contains("redirect"), "{to}: {refused}");
        }
        assert_eq!(inside.received_requests().await.unwrap().len(), 0, "nothing inside was asked");
    }

    #[tokio::test]
    async fn redirects_have_an_end() {
        let circle = server(Some("/file".to_owned())).await;
        let error = fetched(&circle, client_of(&circle.uri().parse().unwrap())).await.unwrap_err();
        assert!(error.contains("again and again"), "{error}");
        assert!(circle.received_requests().await.unwrap().len() < 10);
    }

    #[tokio::test]
    async fn a_client_without_a_server_follows_none() {
        let own = server(Some("/moved".to_owned())).await;
        assert_eq!(fetched(&own, client()).await.unwrap(), "");
    }
}
