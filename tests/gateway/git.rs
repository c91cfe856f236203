//! git's way to GitHub: the real `git` against the real `git http-backend` behind TLS, which plays GitHub.

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use matrix_agent::{
    clock::Clock,
    gateway::{GatewayLimits, ProxyKind},
    github::{self, Key, Repositories},
    ids::Address,
    rights::{Answered, Lasts, Repository, Rights, Role, Roles, Subject},
    store::{Durability, Store},
};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    asking::Town,
    door::{Authority, Door, ask, soon},
    support::{
        self,
        github::{ScriptedGitHub, TOKEN},
    },
};

/// GitHub with a public repository, `acme/site`, and a private one, `acme/private`.
struct GitHub {
    door: Door,
    folder: TempDir,
    /// A line for each request that came: method, path, and the headers that matter here.
    requests: Arc<Mutex<Vec<String>>>,
    server: std::net::SocketAddr,
}

impl GitHub {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("root");
        let work = folder.path().join("work");
        std::fs::create_dir_all(&work).unwrap();
        git(&work, &["init", "-q", "-b", "main"]).await;
        for number in 0..5 {
            std::fs::write(work.join(format!("file{number}")), format!("{number}\n").repeat(2000)).unwrap();
            git(&work, &["add", "."]).await;
            git(&work, &["commit", "-q", "-m", "more"]).await;
        }
        git(&work, &["clone", "-q", "--bare", ".", root.join("acme/site").to_str().unwrap()]).await;
        git(&work, &["clone", "-q", "--bare", ".", root.join("acme/private").to_str().unwrap()]).await;
        for name in ["acme/site", "acme/private"] {
            git(&root.join(name), &["config", "http.receivepack", "true"]).await;
        }

        let authority = Authority::new();
        let mut door = Door::with_root(&[], GatewayLimits::default(), Some(&authority.pem()));
        let acceptor = authority.acceptor("github.com");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        let server = door
            .server(move |stream| {
                let (acceptor, seen, root) = (acceptor.clone(), seen.clone(), root.clone());
                async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, seen.clone(), root.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            })
            .await
            .address;
        door.name("github.com", &["203.0.113.5"]);
        door.route("203.0.113.5:0", server);
        Self { door, folder, requests, server }
    }

    /// The same with the operator's key for these repositories.
    async fn granting(repositories: &[&str]) -> Self {
        let mut github = Self::new().await;
        let key = Some(Key::Token(TOKEN.into()));
        let way = github::GitHub::new(key, Repositories::parse(repositories).unwrap(), Clock::default());
        let store = Store::open(&github.folder.path().join("rights.db"), Durability::Normal, Clock::default()).unwrap();
        let rights = Rights::new(store, Roles::default());
        rights.load().await.unwrap();
        // All of an owner's cannot be granted: there it is the one that is pushed to.
        for repository in repositories.iter().chain(&["acme/private"]) {
            let Some(repository) = Repository::parse(repository) else { continue };
            let subject = Subject::Repository(repository);
            rights.grant(&Address::of_first("!room"), subject, true, "ann", Lasts::Room).await.unwrap();
        }
        github.door.gateway = github.door.gateway.clone().with_github(way).with_rights(rights);
        github
    }

    /// A clone of the private repository, made through the door, with one more commit.
    async fn clone_with(&mut self, file: &str, content: &[u8]) -> PathBuf {
        let here = self.folder.path().to_owned();
        let output = self.git(&here, &["clone", "-q", "https://github.com/acme/private", "clone"]).await;
        assert!(output.status.success(), "{}", said(&output));
        let clone = self.path("clone");
        std::fs::write(clone.join(file), content).unwrap();
        git(&clone, &["add", "."]).await;
        git(&clone, &["commit", "-q", "-m", "work"]).await;
        clone
    }

    /// What the private repository's names stand at.
    async fn refs(&self) -> String {
        let output = run(&self.path("root/acme/private"), &["for-each-ref"]).await;
        String::from_utf8(output.stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs git as the sandbox does, by `insteadOf`.
    async fn git(&mut self, folder: &Path, arguments: &[&str]) -> Output {
        let listener = self.door.listen(ProxyKind::Git).await;
        let instead = format!("url.http://{listener}/github.com/.insteadOf=https://github.com/");
        let mut all = vec!["-c", &instead];
        all.extend(arguments);
        run(folder, &all).await
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let running = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.version=2"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0")])
        .kill_on_drop(true)
        .output();
    soon(running).await.unwrap()
}

async fn git(folder: &Path, arguments: &[&str]) {
    let output = run(folder, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Answers as GitHub does: reads and pushes by `git http-backend`, a password for what it does not show, redirects for
/// what was renamed.
async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<String>>>,
    root: PathBuf,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let of = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut names: Vec<_> = parts.headers.keys().map(ToString::to_string).collect();
    names.sort();
    seen.lock().unwrap().push(format!("{} {} [{}]", parts.method, parts.uri, names.join(" ")));
    let body = body.collect().await?.to_bytes();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let plain = |status: StatusCode| Response::builder().status(status);
    let is_known = of("authorization") == support::github::basic(TOKEN);
    let is_push = format!("{path}?{query}").contains("git-receive-pack");
    let response = if let Some(status) = path.strip_prefix("/acme/status-") {
        let status = StatusCode::from_bytes(&status.as_bytes()[..3]).unwrap();
        plain(status).body(Full::from("whatever GitHub says"))
    } else if !is_known && (is_push || path.starts_with("/acme/private")) {
        plain(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, "Basic realm=\"GitHub\"").body(Full::default())
    } else if let Some(rest) = path.strip_prefix("/acme/old/") {
        let new = format!("https://github.com/acme/site/{rest}?{query}");
        plain(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, new).body(Full::default())
    } else if path.starts_with("/acme/astray") {
        plain(StatusCode::FOUND).header(header::LOCATION, "https://evil.org/x").body(Full::default())
    } else {
        return Ok(support::github::backend(&root, &parts, body).await);
    };
    Ok(response.unwrap())
}

#[tokio::test]
async fn clone_and_fetch_work_and_carry_no_credentials() {
    let mut github = GitHub::new().await;
    let here = github.folder.path().to_owned();
    let url = "https://github.com/acme/site";
    let authorization = "http.extraHeader=Authorization: Basic c2VjcmV0";
    let cookie = "http.extraHeader=Cookie: session=1";
    let output =
        github.git(&here, &["-c", authorization, "-c", cookie, "clone", "-q", "--depth=3", url, "clone"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(github.path("clone/file4").exists());
    let output = github.git(&github.path("clone"), &["fetch", "-q", "--unshallow", url]).await;
    assert!(output.status.success(), "{}", said(&output));
    git(&github.path("clone"), &["fsck", "--full"]).await;
    let requests = github.requests();
    assert!(requests.iter().any(|request| request.starts_with("POST /acme/site/git-upload-pack")), "{requests:?}");
    for request in requests {
        assert!(!request.contains("authorization") && !request.contains("cookie"), "{request}");
    }
}

/// git sends a request of more than a megabyte like this.
#[tokio::test]
async fn a_request_in_chunks_arrives_whole() {
    let mut github = GitHub::new().await;
    let head = "POST /github.com/acme/site/git-upload-pack HTTP/1.1\r\nGit-Protocol: version=2\r\nConnection: close\r\n\
                Content-Type: application/x-git-upload-pack-request\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "5\r\n0014c\r\nf\r\nommand=ls-refs\n\r\n4\r\n0000\r\n0\r\n\r\n";
    let answer = ask(&mut github.door.open(ProxyKind::Git), format!("{head}{chunks}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("refs/heads/main"), "{answer}");
    assert!(github.requests()[0].contains("transfer-encoding"));
}

#[tokio::test]
async fn a_push_to_what_is_not_granted_is_refused_and_nothing_is_sent() {
    let mut github = GitHub::granting(&["acme/private"]).await;
    let work = github.path("work");
    let output = github.git(&work, &["push", "https://github.com/acme/site", "HEAD:refs/heads/agent/x"]).await;
    assert!(!output.status.success());
    assert!(said(&output).contains("may not push to acme/site, and nothing was sent"), "{}", said(&output));
    assert_eq!(github.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_granted_repository_is_cloned_fetched_and_pushed_to_and_the_key_stays_outside() {
    let mut github = GitHub::granting(&["acme/*"]).await;
    // Large enough for git to ask first and then send it in chunks.
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let clone = github.clone_with("large", &large).await;
    let mut heard = String::new();
    for (nth, reference) in ["HEAD:refs/heads/agent/x", "HEAD:refs/heads/agent/login/2"].iter().enumerate() {
        std::fs::write(clone.join("small"), nth.to_string()).unwrap();
        git(&clone, &["add", "."]).await;
        git(&clone, &["commit", "-q", "-m", "more"]).await;
        let output = github.git(&clone, &["push", "origin", reference]).await;
        assert!(output.status.success(), "{}", said(&output));
        heard.push_str(&said(&output));
    }
    let head = run(&clone, &["rev-parse", "HEAD"]).await.stdout;
    let refs = github.refs().await;
    assert!(refs.contains("refs/heads/agent/x"), "{refs}");
    let there = format!("{} commit\trefs/heads/agent/login/2", String::from_utf8(head).unwrap().trim());
    assert!(refs.contains(&there), "{refs}");
    git(&github.path("root/acme/private"), &["fsck", "--full"]).await;
    let output = github.git(&clone, &["fetch", "origin"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let grep = std::process::Command::new("grep").args(["-r", TOKEN]).arg(&clone).output().unwrap();
    assert!(grep.stdout.is_empty() && !heard.contains(TOKEN), "{grep:?}");
    // Where nothing is granted, nobody gets it.
    assert!(github.requests().iter().all(|request| request.contains("authorization")), "{:?}", github.requests());
}

#[tokio::test]
async fn each_push_that_may_not_be_is_refused_and_the_remote_is_as_it_was() {
    let mut github = GitHub::granting(&["acme/private"]).await;
    let secret = format!("ghp_{}", ('a'..='z').chain('0'..='9').collect::<String>());
    let clone = github.clone_with("settings", b"x = 1\n").await;
    let pushed = github.git(&clone, &["push", "-q", "origin", "HEAD:refs/heads/agent/kept"]).await;
    assert!(pushed.status.success(), "{}", said(&pushed));
    let before = github.refs().await;
    git(&clone, &["tag", "v1"]).await;
    git(&clone, &["checkout", "-q", "-b", "leaks"]).await;
    std::fs::write(clone.join("settings"), format!("x = 1\nkey = {secret}\n")).unwrap();
    git(&clone, &["commit", "-q", "-a", "-m", "leaks"]).await;
    std::fs::write(clone.join("settings"), "x = 1\n").unwrap();
    git(&clone, &["commit", "-q", "-a", "-m", "hides it"]).await;
    git(&clone, &["checkout", "-q", "-b", "large", "main"]).await;
    std::fs::write(clone.join("large"), vec![0; 11 << 20]).unwrap();
    git(&clone, &["add", "."]).await;
    git(&clone, &["commit", "-q", "-m", "large"]).await;
    for (arguments, says) in [
        (&["main:refs/heads/main"][..], "only branches whose names begin with `agent/`"),
        (&["--force", "main:refs/heads/other"], "only branches whose names begin with `agent/`"),
        (&["main:refs/heads/agent/x", "main:refs/heads/y"], "only branches whose names begin with `agent/`"),
        (&["v1"], "only branches whose names begin with `agent/`"),
        (&["v1:refs/tags/agent/v1"], "only branches whose names begin with `agent/`"),
        (&["--delete", "refs/heads/agent/kept"], "no branch may be deleted"),
        (&["--push-option=x", "main:refs/heads/agent/x"], "does not support push options"),
        (&["leaks:refs/heads/agent/x"], "looks like a GitHub token (`ghp_…`"),
        (&["large:refs/heads/agent/x"], "a file in it has 11 MiB"),
    ] {
        let output = github.git(&clone, &[&["push", "origin"], arguments].concat()).await;
        let words = said(&output);
        assert!(!output.status.success() && words.contains(says), "{arguments:?}: {words}");
        assert!(!words.contains(&secret), "{words}");
        assert_eq!(github.refs().await, before, "{arguments:?}");
    }
    let push = "POST /github.com/acme/private/git-receive-pack HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\
                Content-Type: application/x-git-receive-pack-request\r\n\r\nabc";
    let answer = ask(&mut github.door.open(ProxyKind::Git), push.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("may not be encoded"), "{answer}");
    let large = push.replace("Content-Encoding: gzip\r\n", "").replace("Length: 3", "Length: 33554433");
    let answer = ask(&mut github.door.open(ProxyKind::Git), large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("32 MiB at most"), "{answer}");
    assert_eq!(github.refs().await, before);
    let sent = github
        .requests()
        .iter()
        .filter(|request| request.starts_with("POST") && request.contains("receive-pack"))
        .count();
    assert_eq!(sent, 1, "nothing but the first push was sent: {:?}", github.requests());
}

#[tokio::test]
async fn what_github_refuses_is_told_with_the_mend() {
    let mut github = GitHub::granting(&["acme/status-401", "acme/status-403", "acme/status-404", "acme/old"]).await;
    let here = github.folder.path().to_owned();
    for (name, says) in [
        ("status-401", "GitHub does not take the server's key any more"),
        ("status-403", "It needs the permissions “contents”"),
        ("status-404", "GitHub shows no acme/status-404 to the server's key"),
        ("old", "acme/old has moved. Use its new name"),
    ] {
        let url = format!("https://github.com/acme/{name}");
        let output = github.git(&here, &["clone", "-q", &url, "clone"]).await;
        assert!(!output.status.success() && said(&output).contains(says), "{name}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_private_repository_is_said_not_to_be_public() {
    let mut github = GitHub::new().await;
    let here = github.folder.path().to_owned();
    let output = github.git(&here, &["clone", "-q", "https://github.com/acme/private.git", "clone"]).await;
    let words = said(&output);
    assert!(words.contains("GitHub shows no public repository at github.com/acme/private.git"), "{words}");
    assert!(!words.contains("Username"), "{words}");
}

/// What somebody reads of a repository that is not open.
const HIDDEN: &str = "GitHub shows no public repository at github.com/acme/";

/// A room that may be asked, and a key that no repository is listed for.
async fn unlisted() -> (GitHub, Town, ScriptedGitHub) {
    let (mut github, town, api) = (GitHub::new().await, Town::new().await, ScriptedGitHub::start(None).await);
    let way = github::GitHub::new(Some(Key::Token(TOKEN.into())), Repositories::default(), Clock::default());
    let way = way.at(&api.api(), Duration::from_millis(1));
    github.door.gateway = github.door.gateway.clone().with_github(way).with_rights(town.rights.clone());
    (github, town, api)
}

impl GitHub {
    async fn clones(&mut self, name: &str, folder: &str) -> Output {
        let here = self.folder.path().to_owned();
        self.git(&here, &["clone", "-q", &format!("https://github.com/acme/{name}"), folder]).await
    }
}

#[tokio::test]
async fn a_clone_of_a_private_repository_goes_on_once_somebody_has_said_yes() {
    let (mut github, town, api) = unlisted().await;
    let output = github.clones("private", "a").await;
    assert!(said(&output).contains(HIDDEN), "nobody works: {}", said(&output));
    let _turn = town.asks("!room", "ben").await;
    let output = github.clones("nothing", "b").await;
    assert!(said(&output).contains(HIDDEN), "the key does not show it: {}", said(&output));
    assert!(github.clones("site", "c").await.status.success(), "what is public needs nobody");
    assert_eq!((town.cards().await, api.requests()), (0, vec!["GET /repos/acme/nothing".to_owned()]));
    let room = Address::of_first("!room");
    let yes = async {
        let code = town.code("!room").await;
        town.rights.answer(&room, &code, "ann", true, None).await.unwrap()
    };
    let (output, _) = tokio::join!(github.clones("private", "d"), yes);
    assert!(output.status.success(), "{}", said(&output));
    assert!(github.clones("private", "e").await.status.success(), "until the work is done");
    let output = github.git(&github.path("d"), &["push", "-q", "origin", "HEAD:refs/heads/agent/x"]).await;
    assert!(!output.status.success() && said(&output).contains("nobody has allowed it"), "{}", said(&output));
    assert!(!github.requests().iter().any(|request| request.starts_with("POST /acme/private/git-receive-pack")));
}

#[tokio::test]
async fn after_a_no_a_private_repository_is_not_asked_for_again_and_a_guest_asks_for_none() {
    let (mut github, town, api) = unlisted().await;
    let _guest = town.asks("!room", "eve").await;
    let output = github.clones("private", "a").await;
    assert!(said(&output).contains(HIDDEN), "{}", said(&output));
    assert_eq!((town.cards().await, api.requests().len()), (0, 0), "GitHub is not asked with the key either");

    let (mut github, town, _api) = unlisted().await;
    let _turn = town.asks("!room", "ben").await;
    let room = Address::of_first("!room");
    let no = async {
        let code = town.code("!room").await;
        assert_eq!(town.rights.answer(&room, &code, "ben", true, None).await.unwrap(), Answered::NotYours(Role::Admin));
        town.rights.answer(&room, &code, "ann", false, None).await.unwrap()
    };
    let (output, _) = tokio::join!(github.clones("private", "a"), no);
    assert!(said(&output).contains(HIDDEN), "{}", said(&output));
    // Nobody would answer now.
    let output = github.clones("private", "b").await;
    assert!(said(&output).contains(HIDDEN), "{}", said(&output));
    assert_eq!(town.cards().await, 0);
}

#[tokio::test]
async fn a_renamed_repository_is_found_and_other_redirects_are_not_followed() {
    let mut github = GitHub::new().await;
    let here = github.folder.path().to_owned();
    let output = github.git(&here, &["clone", "-q", "https://github.com/acme/old", "clone"]).await;
    assert!(output.status.success() && github.path("clone/file4").exists(), "{}", said(&output));
    let output = github.git(&here, &["clone", "-q", "https://github.com/acme/astray", "astray"]).await;
    assert!(said(&output).contains("redirect to another place"), "{}", said(&output));
}

#[tokio::test]
async fn github_itself_may_not_lead_inside() {
    let mut github = GitHub::new().await;
    let here = github.folder.path().to_owned();
    github.door.name("github.com", &["203.0.113.5", "10.0.0.5"]);
    github.door.route("10.0.0.5:0", github.server);
    let output = github.git(&here, &["clone", "-q", "https://github.com/acme/site", "clone"]).await;
    assert!(said(&output).contains("it stands for a private address"), "{}", said(&output));
    assert_eq!(github.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_strangers_certificate_is_not_trusted() {
    let mut github = GitHub::new().await;
    let acceptor = Authority::new().acceptor("github.com");
    let impostor = github
        .door
        .server(move |stream| {
            let acceptor = acceptor.clone();
            async move { drop(acceptor.accept(stream).await) }
        })
        .await;
    github.door.route("203.0.113.5:0", impostor.address);
    let request = b"GET /github.com/acme/site/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = ask(&mut github.door.open(ProxyKind::Git), request).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn other_shapes_get_a_plain_sentence() {
    let mut github = GitHub::new().await;
    for request in
        ["GET /github.com/acme/site/HEAD", "GET /", "CONNECT github.com:443", "GET http://github.com/acme/site"]
    {
        let mut stream = github.door.open(ProxyKind::Git);
        let answer = ask(&mut stream, format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("for git only"), "{answer}");
    }
    assert_eq!(github.requests(), Vec::<String>::new());
}
