//! git's route to GitHub: the two smart-HTTP requests that read a public repository, and no others.
//!
//! `insteadOf` in the sandbox's git configuration sends git here, to `/github.com/OWNER/REPO…` in plain HTTP; the
//! gateway asks GitHub over TLS. No credentials are forwarded or added, so that only public repositories answer. It
//! must not know the host list. `Gateway::serve` calls it for each connection of the kind `git`.

use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;

use super::{
    GatewayLimits, Link,
    body::Upload,
    denial::Denial,
    downstream::{Reader, Writer},
    exchange::{Ended, exchange},
    head::{Framing, Head, Target},
    hosts::Host,
    network::Network,
};
use crate::{net, text};

const GITHUB: &str = "github.com";
const REQUEST_TYPE: &str = "application/x-git-upload-pack-request";

/// The request headers that are forwarded to GitHub. All others are dropped, above all `Authorization` and `Cookie`.
const REQUEST_LINES: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    HeaderName::from_static("git-protocol"),
];

/// The response headers that are passed back.
const ANSWER_LINES: [HeaderName; 5] =
    [header::CACHE_CONTROL, header::CONTENT_ENCODING, header::CONTENT_TYPE, header::EXPIRES, header::PRAGMA];

/// The client for GitHub.
pub(super) struct GitHub {
    network: Network,
    resolve: Duration,
    connect: Duration,
    idle: Duration,
    /// Made at first use: it loads the machine's certificates, and a machine without any still serves everything
    /// else.
    client: OnceLock<Result<reqwest::Client, Denial>>,
}

impl GitHub {
    pub(super) fn new(network: Network, limits: &GatewayLimits) -> Self {
        let GatewayLimits { resolve, connect, idle, .. } = *limits;
        Self { network, resolve, connect, idle, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&reqwest::Client, Denial> {
        let made = self.client.get_or_init(|| {
            self.build().map_err(|error| {
                tracing::error!(%error, cause = error.source().map(tracing::field::display), "no TLS client for GitHub");
                Denial::NoTls
            })
        });
        made.as_ref().map_err(Clone::clone)
    }

    fn build(&self) -> reqwest::Result<reqwest::Client> {
        let mut client = net::client()
            .https_only(true)
            // A proxy from the environment would resolve names itself, past the address check.
            .no_proxy()
            .dns_resolver(Arc::new(CheckedResolver { network: self.network.clone(), limit: self.resolve }))
            .connect_timeout(self.connect)
            .read_timeout(self.idle)
            .pool_max_idle_per_host(8);
        if let Some(root) = self.network.root() {
            client = client.tls_certs_merge([reqwest::Certificate::from_pem(root.as_bytes())?]);
        }
        client.build()
    }

    async fn ask(&self, read: &Read, headers: &HeaderMap, upload: Upload) -> Result<reqwest::Response, Denial> {
        let mut request = self.client()?.request(read.method(), read.url());
        for name in REQUEST_LINES {
            for value in headers.get_all(&name) {
                request = request.header(name.clone(), value.clone());
            }
        }
        let agent = headers.get(header::USER_AGENT).filter(|agent| agent.as_bytes().starts_with(b"git/"));
        request = request.header(header::USER_AGENT, agent.cloned().unwrap_or(HeaderValue::from_static("git/2")));
        if read.asks_for_pack {
            request = request.body(reqwest::Body::wrap(upload));
        }
        match timeout(self.idle, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(denial_of(&error)),
            Err(_) => Err(Denial::Silent(github())),
        }
    }
}

fn github() -> Host {
    Host::Name(GITHUB.to_owned())
}

/// Returns the resolver's refusal if it is among the error's causes, else the kind of failure.
fn denial_of(error: &reqwest::Error) -> Denial {
    // The error's own text contains the URL, its causes' texts do not.
    let causes: Vec<_> = text::causes(error).collect();
    if let Some(denial) = causes.iter().find_map(|cause| cause.downcast_ref::<Denial>()) {
        return denial.clone();
    }
    let causes = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    tracing::warn!(%causes, "gateway: GitHub failed");
    match () {
        () if error.is_connect() => Denial::Unreachable(github()),
        () if error.is_timeout() => Denial::Silent(github()),
        () => Denial::Broken(github()),
    }
}

/// A resolver that gives the HTTP client only checked addresses.
struct CheckedResolver {
    network: Network,
    limit: Duration,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (network, limit) = (self.network.clone(), self.limit);
        Box::pin(async move {
            let host = Host::parse(name.as_str()).ok_or("no host name")?;
            let addresses = network.lookup(&host, limit, ()).await?;
            // A port other than 0 belongs to the test network; the real port comes from the URL.
            let there: Vec<_> = addresses.into_iter().map(|address| network.route((address, 0).into())).collect();
            Ok(Box::new(there.into_iter()) as Addrs)
        })
    }
}

/// One of the two requests that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    /// `OWNER/REPO`, with `.git` if the sandbox wrote that.
    repository: String,
    /// `true` for `git-upload-pack`, `false` for `info/refs`.
    asks_for_pack: bool,
}

impl Read {
    fn of(head: &Head) -> Result<Self, Denial> {
        let Target::Origin { path } = &head.target else { return Err(Denial::NotARead) };
        let rest = path.strip_prefix("/github.com/").ok_or(Denial::NotARead)?;
        let read = Self::parse(rest)
            .ok_or_else(|| if rest.contains("git-receive-pack") { Denial::Push } else { Denial::NotARead })?;
        let typed = head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == REQUEST_TYPE);
        let fits = if read.asks_for_pack { typed } else { matches!(head.framing, Framing::None | Framing::Length(0)) };
        if head.method == read.method() && fits { Ok(read) } else { Err(Denial::NotARead) }
    }

    /// Parses what follows `github.com/` in a URL. Nothing is decoded, so that nothing can hide in an encoding.
    fn parse(path: &str) -> Option<Self> {
        let (path, asks_for_pack) = match path.strip_suffix("/info/refs?service=git-upload-pack") {
            Some(repository) => (repository, false),
            None => (path.strip_suffix("/git-upload-pack")?, true),
        };
        let (owner, name) = path.split_once('/')?;
        let is_name = |text: &str, extra: &[u8]| {
            (1..=100).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        };
        let sound = is_name(owner, b"-_") && is_name(name, b"-_.") && !matches!(name, "." | ".." | ".git");
        sound.then(|| Self { repository: path.to_owned(), asks_for_pack })
    }

    fn method(&self) -> Method {
        if self.asks_for_pack { Method::POST } else { Method::GET }
    }

    fn url(&self) -> String {
        let what = if self.asks_for_pack { "git-upload-pack" } else { "info/refs?service=git-upload-pack" };
        format!("https://{GITHUB}/{}/{what}", self.repository)
    }
}

/// Serves one connection: one request after another, each checked by itself.
pub(super) async fn serve(link: &Link<'_>, reader: &mut Reader, writer: &mut Writer) {
    let limits = &link.policy.limits;
    let mut quiet = limits.head;
    while let Some(head) = reader.head(quiet, limits.head).await {
        quiet = limits.keep_alive;
        writer.next();
        let checked = head.and_then(|head| Read::of(&head).map(|read| (read, head)));
        let (read, head) = match checked {
            Ok(checked) => checked,
            Err(denial) => {
                link.audit.denied(&denial);
                // The connection ends here; a sandbox that does not read the refusal gets none.
                if writer.refuse(&denial, false).await.is_ok() {
                    reader.linger().await;
                }
                return;
            }
        };
        let meters = (reader.meter(), writer.meter());
        let mut passage = None;
        let ended = exchange(reader, writer, &head, |upload| {
            let (passage, headers, read) = (&mut passage, &head.headers, &read);
            async move {
                let response = link.github.ask(read, headers, upload).await?;
                let address = response.remote_addr().map(|address| address.ip());
                *passage = Some(link.audit.allowed(&github(), 443, address).metered(meters));
                answer(read, response)
            }
        })
        .await;
        match ended {
            Ended::KeepAlive => {}
            Ended::Close => return,
            Ended::Denied(denial) => {
                link.audit.denied(&denial);
                return reader.linger().await;
            }
        }
    }
}

/// Turns GitHub's response into the one for the sandbox.
fn answer(read: &Read, response: reqwest::Response) -> Result<Response<reqwest::Body>, Denial> {
    let status = response.status();
    // For a repository that it does not show, GitHub asks for a password, for which git would prompt in vain.
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) {
        let repository = format!("{GITHUB}/{}", read.repository);
        return Err(Denial::NoRepository(repository));
    }
    let location = if status.is_redirection() {
        let there = response.headers().get(header::LOCATION).and_then(|there| there.to_str().ok());
        Some(there.and_then(|there| redirect(read, there)).ok_or(Denial::Redirect)?)
    } else {
        None
    };
    let mut response: Response<reqwest::Body> = response.into();
    let from = std::mem::take(response.headers_mut());
    for name in ANSWER_LINES {
        for value in from.get_all(&name) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Sends git to a renamed repository through this route, if the redirect leads to the same request there.
fn redirect(read: &Read, location: &str) -> Option<HeaderValue> {
    let there = location.strip_prefix("https://github.com/").or_else(|| location.strip_prefix('/'))?;
    let there = Read::parse(there).filter(|there| there.asks_for_pack == read.asks_for_pack)?;
    let path = there.url().replacen("https:/", "", 1);
    HeaderValue::try_from(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::head;

    fn read(line: &str) -> Result<Read, Denial> {
        let text = format!("{line} HTTP/1.1\r\nContent-Type: {REQUEST_TYPE}\r\n\r\n");
        Read::of(&head::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_two_reads_pass() {
        let refs = read("GET /github.com/acme/site.git/info/refs?service=git-upload-pack").unwrap();
        assert_eq!(refs.url(), "https://github.com/acme/site.git/info/refs?service=git-upload-pack");
        let pack = read("POST /github.com/acme_x/my-site.v2/git-upload-pack").unwrap();
        assert_eq!(pack.url(), "https://github.com/acme_x/my-site.v2/git-upload-pack");
    }

    #[test]
    fn pushes_are_named_and_all_else_is_refused() {
        for line in [
            "GET /github.com/a/b/info/refs?service=git-receive-pack",
            "POST /github.com/a/b/git-receive-pack",
            "POST /github.com/a/b/git-receive-pack/git-upload-pack",
        ] {
            assert_eq!(read(line), Err(Denial::Push), "{line}");
        }
        for line in [
            "POST /github.com/a/b/info/refs?service=git-upload-pack",
            "GET /github.com/a/b/git-upload-pack",
            "PUT /github.com/a/b/git-upload-pack",
            "HEAD /github.com/a/b/info/refs?service=git-upload-pack",
            "GET /github.com/a/b/info/refs",
            "GET /github.com/a/b/info/refs?service=git-upload-pack&service=git-upload-archive",
            "GET /github.com/a/b/info/refs?x=1&service=git-upload-pack",
            "GET /github.com/a/b/HEAD",
            "GET /github.com/a/b/archive/main.zip",
            "GET /github.com/a/../info/refs?service=git-upload-pack",
            "GET /github.com/a/.git/info/refs?service=git-upload-pack",
            "GET /github.com/a/b/c/info/refs?service=git-upload-pack",
            "GET /github.com/a/%62/info/refs?service=git-upload-pack",
            "GET /github.com/a/b?/info/refs?service=git-upload-pack",
            "GET /github.com//b/info/refs?service=git-upload-pack",
            "GET /github.com//evil.org/a/b/info/refs?service=git-upload-pack",
            "GET /github.com@evil.org/a/b/info/refs?service=git-upload-pack",
            "GET /gitlab.com/a/b/info/refs?service=git-upload-pack",
            "GET http://github.com/a/b/info/refs?service=git-upload-pack",
            "CONNECT github.com:443",
        ] {
            assert_eq!(read(line), Err(Denial::NotARead), "{line}");
        }
    }

    #[test]
    fn the_requests_have_their_types_and_no_others() {
        let of = |text: &str| Read::of(&head::parse(text.as_bytes()).unwrap());
        assert_eq!(of("POST /github.com/a/b/git-upload-pack HTTP/1.1\r\n\r\n"), Err(Denial::NotARead));
        let with_body = "GET /github.com/a/b/info/refs?service=git-upload-pack HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(of(with_body), Err(Denial::NotARead));
    }

    #[test]
    fn redirects_stay_on_the_route() {
        let refs = read("GET /github.com/a/b/info/refs?service=git-upload-pack").unwrap();
        let new = "/github.com/c/d.git/info/refs?service=git-upload-pack";
        for there in [
            "https://github.com/c/d.git/info/refs?service=git-upload-pack",
            "/c/d.git/info/refs?service=git-upload-pack",
        ] {
            assert_eq!(redirect(&refs, there).unwrap(), new);
        }
        for there in [
            "https://github.com.evil.org/c/d/info/refs?service=git-upload-pack",
            "https://evil.org/c/d/info/refs?service=git-upload-pack",
            "http://github.com/c/d/info/refs?service=git-upload-pack",
            "//evil.org/c/d/info/refs?service=git-upload-pack",
            "https://github.com/c/d/git-upload-pack",
            "https://github.com/login",
            "",
        ] {
            assert_eq!(redirect(&refs, there), None, "{there}");
        }
    }
}
