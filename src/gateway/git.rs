//! git's route to GitHub: the smart-HTTP requests that read a repository or push to it, and no others.
//!
//! `insteadOf` in the sandbox's git configuration sends git here, to `/github.com/OWNER/REPO…` in plain HTTP; the
//! gateway asks GitHub over TLS. No credentials are forwarded. The operator's key is added for repositories that are granted
//! to the room, and only those may be pushed to: into the agents' own branches (`push`), after all that is to leave was
//! looked through (`pack`). It must not know the host list. `Gateway::serve` calls it for each connection of the kind `git`.

use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{
    GatewayLimits, Link,
    denial::Denial,
    downstream::{Manner, Reader, Writer},
    exchange::{Ended, exchange},
    head::{Framing, Head, Target},
    hosts::Host,
    network::Network,
    pack::{self, BadPack},
    public::Public,
    push::Push,
    waiting,
};
use crate::{
    github::GitHubError,
    net,
    rights::{Act, Answerer, Decision, Question, Repository},
    strings, text,
};

const GITHUB: &str = "github.com";

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

/// The most bytes of a push, which is held in memory while it is looked through, and how many of all rooms are at the same
/// time.
const MAX_PUSH: usize = 32 * 1024 * 1024;
const PUSHES: usize = 8;

/// The client for GitHub.
pub(super) struct Client {
    network: Network,
    resolve: Duration,
    connect: Duration,
    idle: Duration,
    /// Made at first use: it loads the machine's certificates, and a machine without any still serves everything
    /// else.
    http: OnceLock<Result<reqwest::Client, Denial>>,
    pushes: Semaphore,
    /// What was seen to need no key.
    pub(super) public: Public,
}

impl Client {
    pub(super) fn new(network: Network, limits: &GatewayLimits) -> Self {
        let GatewayLimits { resolve, connect, idle, .. } = *limits;
        Self {
            network,
            resolve,
            connect,
            idle,
            http: OnceLock::new(),
            pushes: Semaphore::new(PUSHES),
            public: Public::default(),
        }
    }

    fn http(&self) -> Result<&reqwest::Client, Denial> {
        let made = self.http.get_or_init(|| {
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

    /// Asks without a key what a git repository holds, wherever it is, and waits for the head of the answer alone.
    pub(super) async fn look(&self, refs: &Url, host: &Host, limit: Duration) -> Result<reqwest::Response, Denial> {
        let request =
            self.http()?.get(refs.clone()).header(header::USER_AGENT, "git/2").header("git-protocol", "version=2");
        match timeout(limit, request.send()).await {
            Ok(answer) => answer.map_err(|error| denial_of(&error, host)),
            Err(_) => Err(Denial::Silent(host.clone())),
        }
    }

    async fn ask(
        &self,
        asked: &Asked,
        headers: &HeaderMap,
        token: Option<&SecretString>,
        body: impl Into<reqwest::Body>,
    ) -> Result<reqwest::Response, Denial> {
        let mut request = self.http()?.request(asked.method(), asked.url());
        for name in REQUEST_LINES {
            for value in headers.get_all(&name) {
                request = request.header(name.clone(), value.clone());
            }
        }
        let agent = headers.get(header::USER_AGENT).filter(|agent| agent.as_bytes().starts_with(b"git/"));
        request = request.header(header::USER_AGENT, agent.cloned().unwrap_or(HeaderValue::from_static("git/2")));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, basic(token)?);
        }
        if asked.has_body {
            request = request.body(body);
        }
        match timeout(self.idle, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(denial_of(&error, &github())),
            Err(_) => Err(Denial::Silent(github())),
        }
    }
}

/// The header by which git itself would carry a token.
fn basic(token: &SecretString) -> Result<HeaderValue, Denial> {
    let pair = BASE64_STANDARD.encode(format!("x-access-token:{}", token.expose_secret()));
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| GitHubError::BadKey)?;
    value.set_sensitive(true);
    Ok(value)
}

fn github() -> Host {
    Host::Name(GITHUB.to_owned())
}

/// Returns the resolver's refusal if it is among the error's causes, else the kind of failure.
fn denial_of(error: &reqwest::Error, host: &Host) -> Denial {
    // The error's own text contains the URL, its causes' texts do not.
    let causes: Vec<_> = text::causes(error).collect();
    if let Some(denial) = causes.iter().find_map(|cause| cause.downcast_ref::<Denial>()) {
        return denial.clone();
    }
    let causes = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    tracing::warn!(%host, %causes, "gateway: a request of git's failed");
    match () {
        () if error.is_connect() => Denial::Unreachable(host.clone()),
        () if error.is_timeout() => Denial::Silent(host.clone()),
        () => Denial::Broken(host.clone()),
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

/// What git wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// To clone or fetch.
    Fetch,
    Push,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "git-upload-pack",
            Self::Push => "git-receive-pack",
        }
    }
}

/// One of the four requests that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// `OWNER/REPO`, with `.git` if the sandbox wrote that.
    path: String,
    /// What is meant by that.
    repository: Repository,
    service: Service,
    /// `true` for the service itself, `false` for `info/refs`, which comes before.
    has_body: bool,
}

impl Asked {
    fn of(head: &Head) -> Result<Self, Denial> {
        let Target::Origin { path } = &head.target else { return Err(Denial::NotGit) };
        let asked = path.strip_prefix("/github.com/").and_then(Self::parse).ok_or(Denial::NotGit)?;
        let kind = format!("application/x-{}-request", asked.service.name());
        let typed = head.headers.get(header::CONTENT_TYPE).is_some_and(|given| *given == *kind);
        let fits = if asked.has_body { typed } else { matches!(head.framing, Framing::None | Framing::Length(0)) };
        if head.method == asked.method() && fits { Ok(asked) } else { Err(Denial::NotGit) }
    }

    /// Parses what follows `github.com/` in a URL. Nothing is decoded, so that nothing can hide in an encoding.
    fn parse(path: &str) -> Option<Self> {
        let (path, service, has_body) = [Service::Fetch, Service::Push].into_iter().find_map(|service| {
            let name = service.name();
            let refs = path.strip_suffix(name).and_then(|path| path.strip_suffix("/info/refs?service="));
            refs.map(|path| (path, service, false)).or_else(|| {
                let path = path.strip_suffix(name)?.strip_suffix('/')?;
                Some((path, service, true))
            })
        })?;
        Some(Self { path: path.to_owned(), repository: Repository::parse(path)?, service, has_body })
    }

    fn method(&self) -> Method {
        if self.has_body { Method::POST } else { Method::GET }
    }

    fn url(&self) -> String {
        let refs = if self.has_body { "" } else { "info/refs?service=" };
        format!("https://{GITHUB}/{}/{refs}{}", self.path, self.service.name())
    }
}

/// Serves one connection: one request after another, each checked by itself.
pub(super) async fn serve(link: &Link<'_>, reader: &mut Reader, writer: &mut Writer) {
    let limits = &link.policy.limits;
    let mut quiet = limits.head;
    while let Some(head) = reader.head(quiet, limits.head).await {
        quiet = limits.keep_alive;
        writer.next();
        let checked = async {
            let head = head?;
            let asked = Asked::of(&head)?;
            let token = key_for(link, &asked.repository, asked.service).await?;
            Ok::<_, Denial>((head, asked, token))
        };
        let (head, asked, token) = match checked.await {
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
        let request = Request { link, head: &head, asked: &asked, token: token.as_ref() };
        let ended = if asked.service == Service::Push && asked.has_body {
            request.push(reader, writer).await
        } else {
            request.pass(reader, writer).await
        };
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

/// Returns the key with which a room may read a repository; `None`: it can read what is public.
pub(super) async fn key_to_read(link: &Link<'_>, repository: &Repository) -> Result<Option<SecretString>, Denial> {
    key_for(link, repository, Service::Fetch).await
}

/// Returns the key for a request, if the room may use it there. What is public can be read without.
async fn key_for(link: &Link<'_>, repository: &Repository, service: Service) -> Result<Option<SecretString>, Denial> {
    let (github, is_push) = (link.github, service == Service::Push);
    if !opened(link, repository) {
        return if is_push { Err(Denial::NotGranted(repository.clone())) } else { Ok(None) };
    }
    match github.token(repository).await {
        Ok(token) => Ok(Some(token)),
        Err(GitHubError::NoKey | GitHubError::NotInstalled(_)) if !is_push => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether the key may be used for a repository in a room: the operator has listed it, or somebody has granted it.
pub(super) fn opened(link: &Link<'_>, repository: &Repository) -> bool {
    link.github.lists(repository) || is_granted(link, repository, Act::Read)
}

/// Tells whether a grant of the room covers an act in a repository.
fn is_granted(link: &Link<'_>, repository: &Repository, act: fn(Repository) -> Act) -> bool {
    link.rights.is_some_and(|rights| rights.covers(link.address, &act(repository.clone())))
}

/// One request that may be made.
struct Request<'a> {
    link: &'a Link<'a>,
    head: &'a Head,
    asked: &'a Asked,
    token: Option<&'a SecretString>,
}

impl Request<'_> {
    /// Passes it on, both directions at the same time.
    async fn pass(&self, reader: &mut Reader, writer: &mut Writer) -> Ended {
        let meters = (reader.meter(), writer.meter());
        let mut passage = None;
        exchange(reader, writer, self.head, |upload| {
            let passage = &mut passage;
            async move {
                let body = reqwest::Body::wrap(upload);
                let (asked, headers) = (self.asked, &self.head.headers);
                let mut response = self.link.client.ask(asked, headers, self.token, body).await?;
                let mut given = None;
                if self.is_plain_read() {
                    let url = format!("https://{GITHUB}/{}", self.asked.repository);
                    self.link.client.public.note(&url, response.status().is_success());
                    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) {
                        given = self.given().await;
                    }
                }
                if given.is_some() {
                    let nothing = reqwest::Body::default();
                    response = self.link.client.ask(asked, headers, given.as_ref(), nothing).await?;
                }
                let address = response.remote_addr().map(|address| address.ip());
                *passage = Some(self.link.audit.allowed(&github(), 443, address).metered(meters));
                self.answer(response, self.token.is_some() || given.is_some())
            }
        })
        .await
    }

    /// Takes a push whole, looks through it, and only then sends it.
    async fn push(&self, reader: &mut Reader, writer: &mut Writer) -> Ended {
        let (link, manner) = (self.link, Manner::of(self.head));
        let meters = (reader.meter(), writer.meter());
        let idle = link.policy.limits.idle;
        let asked = async {
            // One of a room, and so many of all, are in memory.
            let permits = async { (link.slot.pushes.acquire().await, link.client.pushes.acquire().await) };
            let _permits = timeout(idle, permits).await.map_err(|_| Denial::Silent(github()))?;
            let body = self.whole(reader, writer).await?;
            let push = Push::read(&body)?;
            if let Err(why) = self.look(&push, &body).await {
                link.audit.denied(&why);
                return Ok(refused(&push, &why).map(reqwest::Body::wrap));
            }
            let response = link.client.ask(self.asked, &self.head.headers, self.token, body).await?;
            let address = response.remote_addr().map(|address| address.ip());
            let passage = link.audit.allowed(&github(), 443, address).metered(meters);
            let (repository, branches) = (&self.asked.repository, push.branches());
            tracing::info!(%repository, branches, status = response.status().as_u16(), "pushed");
            let response = self.answer(response, self.token.is_some())?;
            // Noted when the answer has come whole.
            drop(passage);
            Ok::<_, Denial>(response)
        };
        match asked.await {
            Ok(response) => match writer.respond(response, manner).await {
                Ok(true) => Ended::KeepAlive,
                _ => Ended::Close,
            },
            Err(denial) => {
                // The connection is closed after this, so it does not matter whether the sandbox reads it.
                let _ = writer.refuse(&denial, false).await;
                Ended::Denied(denial)
            }
        }
    }

    /// Reads the whole body of a push.
    async fn whole(&self, reader: &mut Reader, writer: &mut Writer) -> Result<Bytes, Denial> {
        if self.head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Denial::Encoded);
        }
        if matches!(self.head.framing, Framing::Length(length) if length > MAX_PUSH as u64) {
            return Err(Denial::LargePush(MAX_PUSH));
        }
        let idle = self.link.policy.limits.idle;
        if self.head.expects_continue && writer.raw(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
            return Err(Denial::Slow);
        }
        let mut left = MAX_PUSH;
        let read = reader.whole(self.head.framing, |length| match left.checked_sub(length) {
            Some(rest) => {
                left = rest;
                Ok(())
            }
            None => Err(Denial::LargePush(MAX_PUSH)),
        });
        timeout(idle, read).await.map_err(|_| Denial::Slow)?
    }

    /// Looks through a push.
    async fn look(&self, push: &Push, body: &Bytes) -> Result<(), Denial> {
        push.check()?;
        let Some(update) = push.updates.first() else { return Ok(()) };
        if !self.may_push(push) {
            return Err(Denial::NotPermitted(self.asked.repository.clone()));
        }
        let (pack, id) = (body.slice(push.pack..), update.new.len() / 2);
        // A task that panics is one that could not read it.
        let looked = spawn_blocking(move || pack::check(&pack, id)).await;
        Ok(looked.unwrap_or(Err(BadPack::Malformed))?)
    }

    /// Tells whether somebody has said yes to a push: to all of the room into the repository, or to just this one.
    fn may_push(&self, push: &Push) -> bool {
        let (link, repository) = (self.link, &self.asked.repository);
        is_granted(link, repository, Act::Push)
            || push.updates.iter().all(|update| {
                let branch = update.name.strip_prefix("refs/heads/").unwrap_or(&update.name);
                link.github.permits_push(link.address, repository, branch, &update.new)
            })
    }

    /// Tells whether it is a first question without the key, which GitHub answers for what is public.
    fn is_plain_read(&self) -> bool {
        self.asked.service == Service::Fetch && !self.asked.has_body && self.token.is_none()
    }

    /// Asks the room whether the sandbox may read a repository with the key, and returns the key after a yes. Nobody is asked about
    /// what the key does not show, nor is the key asked about what nobody here could open.
    async fn given(&self) -> Option<SecretString> {
        let (link, repository) = (self.link, &self.asked.repository);
        let rights = link.rights.filter(|_| !link.policy.limits.ask.is_zero() && link.github.has_key())?;
        let act = Act::Read(repository.clone());
        if !matches!(rights.check(link.address, &act).await, Ok(Decision::Ask(_))) {
            return None;
        }
        if !link.slot.reads.count() || !link.github.shows(repository).await {
            return None;
        }
        let question = Question {
            key: "read".to_owned(),
            act,
            what: strings::rights::read(repository),
            why: rights.running(link.address),
            details: String::new(),
            answerer: Answerer::Anybody,
            for_task: false,
        };
        if !waiting::permits(link, rights, question).await {
            return None;
        }
        link.github.token(repository).await.ok()
    }

    /// Turns GitHub's response into the one for the sandbox; `keyed`: to a request with the key.
    fn answer(&self, response: reqwest::Response, keyed: bool) -> Result<Response<reqwest::Body>, Denial> {
        let (status, repository) = (response.status(), &self.asked.repository);
        // For a repository that it does not show, GitHub asks for a password, for which git would prompt in vain.
        match (status, keyed) {
            (StatusCode::UNAUTHORIZED, true) => {
                self.link.github.token_refused(repository);
                return Err(GitHubError::BadKey.into());
            }
            (StatusCode::FORBIDDEN, true) => return Err(GitHubError::Scope(repository.clone()).into()),
            (StatusCode::NOT_FOUND, true) => return Err(GitHubError::Gone(repository.clone()).into()),
            (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, false) => {
                return Err(Denial::NoRepository(format!("{GITHUB}/{}", self.asked.path)));
            }
            _ => {}
        }
        let location = if status.is_redirection() {
            let there = response.headers().get(header::LOCATION).and_then(|there| there.to_str().ok());
            Some(there.and_then(|there| redirect(self.asked, there)).ok_or(Denial::Redirect)?)
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
        if let Some((there, location)) = location {
            // Under its new name it has to be granted, too.
            if keyed && !opened(self.link, &there) {
                return Err(GitHubError::Moved(repository.clone()).into());
            }
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

/// Returns the answer by which git tells its user that a push is refused.
fn refused(push: &Push, why: &Denial) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(push.refused(&why.to_string())));
    let kind = HeaderValue::from_static("application/x-git-receive-pack-result");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Sends git to a renamed repository through this route, if the redirect leads to the same request there.
fn redirect(asked: &Asked, location: &str) -> Option<(Repository, HeaderValue)> {
    let there = location.strip_prefix("https://github.com/").or_else(|| location.strip_prefix('/'))?;
    let there =
        Asked::parse(there).filter(|there| (there.service, there.has_body) == (asked.service, asked.has_body))?;
    let path = there.url().replacen("https:/", "", 1);
    Some((there.repository, HeaderValue::try_from(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::head;

    fn read(line: &str) -> Result<Asked, Denial> {
        let service = line.rsplit(['/', '=']).next().unwrap();
        let text = format!("{line} HTTP/1.1\r\nContent-Type: application/x-{service}-request\r\n\r\n");
        Asked::of(&head::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_four_requests_pass() {
        for (line, service, has_body) in [
            ("GET /github.com/a/b/info/refs?service=git-receive-pack", Service::Push, false),
            ("POST /github.com/a/b/git-receive-pack", Service::Push, true),
        ] {
            let asked = read(line).unwrap();
            assert_eq!((asked.service, asked.has_body, asked.repository.as_str()), (service, has_body, "a/b"));
        }
        let refs = read("GET /github.com/acme/site.git/info/refs?service=git-upload-pack").unwrap();
        assert_eq!(refs.url(), "https://github.com/acme/site.git/info/refs?service=git-upload-pack");
        let pack = read("POST /github.com/acme_x/my-site.v2/git-upload-pack").unwrap();
        assert_eq!(pack.url(), "https://github.com/acme_x/my-site.v2/git-upload-pack");
    }

    #[test]
    fn all_else_is_refused() {
        for line in [
            "POST /github.com/a/b/git-receive-pack/git-upload-pack",
            "POST /github.com/a/b/info/refs?service=git-receive-pack",
            "GET /github.com/a/b/git-receive-pack",
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
            assert_eq!(read(line), Err(Denial::NotGit), "{line}");
        }
    }

    #[test]
    fn the_requests_have_their_types_and_no_others() {
        let of = |text: &str| Asked::of(&head::parse(text.as_bytes()).unwrap());
        assert_eq!(of("POST /github.com/a/b/git-upload-pack HTTP/1.1\r\n\r\n"), Err(Denial::NotGit));
        let with_body = "GET /github.com/a/b/info/refs?service=git-upload-pack HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(of(with_body), Err(Denial::NotGit));
    }

    #[test]
    fn redirects_stay_on_the_route() {
        let refs = read("GET /github.com/a/b/info/refs?service=git-upload-pack").unwrap();
        let new = "/github.com/c/d.git/info/refs?service=git-upload-pack";
        for there in [
            "https://github.com/c/d.git/info/refs?service=git-upload-pack",
            "/c/d.git/info/refs?service=git-upload-pack",
        ] {
            assert_eq!(redirect(&refs, there).unwrap().1, new);
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
