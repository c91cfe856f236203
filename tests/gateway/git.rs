//! git's way to GitHub: the real `git` against the real `git http-backend` behind TLS, which plays GitHub.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use matrix_agent::gateway::{GatewayLimits, ProxyKind};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::door::{Authority, Door, ask, soon};

/// GitHub with one public repository, `acme/site`.
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
        git(&root.join("acme/site"), &["config", "http.receivepack", "true"]).await;

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
    let response = if path.starts_with("/acme/private") {
        plain(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, "Basic realm=\"GitHub\"").body(Full::default())
    } else if let Some(rest) = path.strip_prefix("/acme/old/") {
        let new = format!("https://github.com/acme/site/{rest}?{query}");
        plain(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, new).body(Full::default())
    } else if path.starts_with("/acme/astray") {
        plain(StatusCode::FOUND).header(header::LOCATION, "https://evil.org/x").body(Full::default())
    } else {
        let mut backend = Command::new("git")
            .arg("http-backend")
            .envs([("GIT_HTTP_EXPORT_ALL", "1"), ("REQUEST_METHOD", parts.method.as_str()), ("PATH_INFO", path)])
            .envs([("QUERY_STRING", query), ("CONTENT_TYPE", &of("content-type")), ("REMOTE_USER", "x")])
            .envs([("HTTP_CONTENT_ENCODING", of("content-encoding")), ("HTTP_GIT_PROTOCOL", of("git-protocol"))])
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("GIT_PROJECT_ROOT", &root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = backend.stdin.take().unwrap();
        let feed = async move { drop(input.write_all(&body).await) };
        let (output, ()) = tokio::join!(backend.wait_with_output(), feed);
        let output = output.unwrap().stdout;
        let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let mut response = plain(StatusCode::OK);
        for line in String::from_utf8_lossy(&output[..end]).lines() {
            let (name, value) = line.split_once(": ").unwrap();
            response = match name {
                "Status" => response.status(value[..3].parse::<u16>().unwrap()),
                _ => response.header(name, value),
            };
        }
        response.body(Full::from(output[end + 4..].to_vec()))
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
async fn a_push_is_refused_and_nothing_is_sent() {
    let mut github = GitHub::new().await;
    let work = github.path("work");
    let output = github.git(&work, &["push", "https://github.com/acme/site", "HEAD:refs/heads/agent/x"]).await;
    assert!(!output.status.success());
    assert!(said(&output).contains("may only read from GitHub: pushes are refused"), "{}", said(&output));
    assert_eq!(github.requests(), Vec::<String>::new());
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
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("only for cloning and fetching"), "{answer}");
    }
    assert_eq!(github.requests(), Vec::<String>::new());
}
