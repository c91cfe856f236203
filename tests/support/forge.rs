//! GitHub as a whole server meets it: a private repository `acme/site` behind TLS, by `git http-backend`, and its API beside it;
//! and how a server in a process of its own finds both in place of the real ones.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use matrix_agent::{gateway::Network, github::GitHub};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};

use super::{
    github::{ScriptedGitHub, TOKEN, backend, basic},
    rig::Rig,
    tls::Authority,
};

/// The variables that tell a server's process where this GitHub is: its API, its git, and the file with its authority.
const API: &str = "TEST_GITHUB_API";
const GIT: &str = "TEST_GITHUB_GIT";
const ROOT: &str = "TEST_GITHUB_ROOT";
/// The address by which github.com is known: a public one, of those that are for documentation.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));

/// GitHub on this machine; it ends with this.
pub struct Forge {
    /// Its API.
    pub api: ScriptedGitHub,
    folder: Arc<TempDir>,
    /// Where its git is served.
    pub git: SocketAddr,
    /// The authority of its certificate.
    pub pem: String,
    pushes: Arc<Pushes>,
    _tasks: JoinSet<()>,
}

/// How the next push goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It has arrived whole, and nothing is done.
    Arrived,
    /// All is done, and no answer comes.
    Done,
}

/// The push that is held.
#[derive(Default)]
struct Pushes {
    next: Mutex<Option<Push>>,
    held: Notify,
    /// How many were done.
    done: AtomicUsize,
}

impl Pushes {
    /// Holds the push for ever, if it is to be held here.
    async fn pass(&self, here: Push) {
        if self.next.lock().unwrap().take_if(|next| *next == here).is_some() {
            self.held.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl Forge {
    /// A repository with one commit, which holds this file.
    pub async fn with(file: &str, content: &str) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let (work, bare) = (folder.path().join("work"), folder.path().join("acme/site"));
        std::fs::create_dir(&work).unwrap();
        std::fs::write(work.join(file), content).unwrap();
        for arguments in [
            &["init", "-q", "-b", "main"][..],
            &["add", "."],
            &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"],
            &["clone", "-q", "--bare", ".", bare.to_str().unwrap()],
        ] {
            run(&work, arguments);
        }
        run(&bare, &["config", "http.receivepack", "true"]);
        let authority = Authority::new();
        let acceptor = authority.acceptor("github.com");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let git = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let root = folder.clone();
        let pushes = Arc::<Pushes>::default();
        let passing = pushes.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, root, pushes) = (acceptor.clone(), root.path().to_owned(), passing.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, root.clone(), pushes.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let api = ScriptedGitHub::start(Some(folder.path().to_owned())).await;
        Self { api, folder, git, pem: authority.pem(), pushes, _tasks: tasks }
    }

    /// Tells a rig's server where all this is, and that the repository is listed.
    pub fn known_to(&self, rig: &mut Rig) {
        let root = self.folder.path().join("root.pem");
        std::fs::write(&root, &self.pem).unwrap();
        for (key, value) in [
            (API, &*self.api.api()),
            (GIT, &self.git.to_string()),
            (ROOT, root.to_str().unwrap()),
            ("GITHUB_TOKEN", TOKEN),
            ("GITHUB_REPOS", "acme/site"),
        ] {
            rig.set(key, value);
        }
    }

    /// Holds the next push for ever.
    pub fn hold(&self, push: Push) {
        *self.pushes.next.lock().unwrap() = Some(push);
    }

    /// Waits until a push is held.
    pub async fn is_held(&self) {
        self.pushes.held.notified().await;
    }

    /// Returns how many pushes were done.
    pub fn pushes(&self) -> usize {
        self.pushes.done.load(Ordering::SeqCst)
    }

    /// Runs git in the repository, and returns what it says.
    pub fn git(&self, arguments: &[&str]) -> String {
        run(&self.folder.path().join("acme/site"), arguments)
    }

    /// Returns the branches beside `main`.
    pub fn branches(&self) -> Vec<String> {
        let all = self.git(&["for-each-ref", "--format=%(refname:short)"]);
        all.lines().filter(|name| *name != "main").map(str::to_owned).collect()
    }
}

/// Returns the network of a server's process, in which there is no host but this GitHub.
pub fn network() -> Network {
    let git: SocketAddr = std::env::var(GIT).unwrap().parse().unwrap();
    let resolve = |name: String| {
        let known = (name == "github.com").then(|| vec![PUBLIC]);
        std::future::ready(known.ok_or_else(|| io::Error::other("no such name"))).boxed()
    };
    let route = move |address: SocketAddr| if address.ip() == PUBLIC { git } else { address };
    let root = std::fs::read_to_string(std::env::var(ROOT).unwrap()).unwrap();
    Network::system().with_resolver(resolve).with_route(route).with_root(&root)
}

/// Returns a way to GitHub that leads a server's process here.
pub fn way(github: GitHub) -> GitHub {
    github.at(&std::env::var(API).unwrap(), Duration::from_millis(1))
}

/// Only who has the token reads or pushes.
async fn answer(
    request: Request<Incoming>,
    root: PathBuf,
    pushes: Arc<Pushes>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if parts.headers.get("authorization").is_none_or(|key| *key != *basic(TOKEN)) {
        return Ok(Response::builder().status(StatusCode::UNAUTHORIZED).body(Full::default()).unwrap());
    }
    if !parts.uri.path().ends_with("/git-receive-pack") {
        return Ok(backend(&root, &parts, body).await);
    }
    pushes.pass(Push::Arrived).await;
    let response = backend(&root, &parts, body).await;
    pushes.done.fetch_add(1, Ordering::SeqCst);
    pushes.pass(Push::Done).await;
    Ok(response)
}

fn run(folder: &PathBuf, arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
