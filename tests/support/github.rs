//! GitHub on this machine: bare repositories behind `git http-backend`, and the part of its API that is used, which can be made to
//! fail before or after it has done what was asked.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, http::request::Parts, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener, process::Command, sync::Notify, task::JoinSet};

/// The operator's token.
pub const TOKEN: &str = "canary-token-of-the-operator";

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks, and nothing was done.
    LostBefore,
    /// All is done, and the connection breaks.
    LostAfter,
    /// A status in place of the answer, and nothing was done.
    StatusBefore(u16),
    /// All is done, and a status in place of the answer.
    StatusAfter(u16),
    /// All is done, and no answer comes.
    Held,
}

/// What is there.
#[derive(Default)]
struct State {
    /// Title, text, branch, base, state.
    pulls: Vec<[String; 5]>,
    /// Number and text.
    comments: Vec<(u64, String)>,
    /// Threads of review comments.
    threads: Vec<Thread>,
    /// Reviews, as GraphQL tells them.
    reviews: Vec<Value>,
    requests: Vec<String>,
    /// Faults of the next requests that begin with these words.
    faults: Vec<(String, Fault)>,
    /// The fault of all that begin with these.
    always: Option<(String, Fault)>,
}

/// Review comments on one place.
#[derive(Clone, Debug)]
struct Thread {
    path: String,
    resolved: bool,
    /// Who said what.
    said: Vec<(String, String)>,
}

impl State {
    /// What GraphQL tells of a pull request.
    fn reviewed(&self, number: usize) -> Value {
        let Some(pull) = self.pulls.get(number.wrapping_sub(1)) else { return Value::Null };
        let threads = self.threads.iter().enumerate().map(|(at, thread)| {
            let said = thread.said.iter().enumerate().map(|(nth, (by, body))| {
                json!({"databaseId": 100 * (at + 1) + nth, "author": {"login": by}, "body": body})
            });
            let comments: Vec<Value> = said.collect();
            json!({"isResolved": thread.resolved, "isOutdated": false, "path": thread.path, "line": 1, "comments": {"nodes": comments}})
        });
        let threads: Vec<Value> = threads.collect();
        json!({
            "author": {"login": "matrix-agent"},
            "body": pull[1],
            "reviews": {"nodes": self.reviews},
            "reviewThreads": {"nodes": threads},
        })
    }

    /// Opens a pull request and returns its number, unless its branch has an open one.
    fn open(&mut self, pull: &[String; 5]) -> Option<usize> {
        if self.pulls.iter().any(|known| known[2] == pull[2] && known[4] == "open") {
            return None;
        }
        self.pulls.push(pull.clone());
        Some(self.pulls.len())
    }
}

/// The API of one repository, `acme/site`, whose bare repository may be there.
pub struct ScriptedGitHub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    held: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl ScriptedGitHub {
    /// Starts it; `root` is the folder in which `acme/site` is.
    pub async fn start(root: Option<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, held) = (Arc::<Mutex<State>>::default(), Arc::new(Notify::new()));
        let (seen, holds) = (state.clone(), held.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, root, held) = (seen.clone(), root.clone(), holds.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, state.clone(), root.clone(), held.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, state, held, _tasks: tasks }
    }

    /// Where its API is.
    pub fn api(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the next request go wrong that begins with `start`: `POST /repos/acme/site/pulls`.
    pub fn fail(&self, start: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push((start.to_owned(), fault));
    }

    /// Lets all requests go wrong that begin with `start`, until this is called without one.
    pub fn fail_all(&self, start: Option<(&str, Fault)>) {
        self.state.lock().unwrap().always = start.map(|(start, fault)| (start.to_owned(), fault));
    }

    /// Waits until a request is held.
    pub async fn is_held(&self) {
        self.held.notified().await;
    }

    /// Returns the pull requests: title, text, branch, base, state.
    pub fn pulls(&self) -> Vec<[String; 5]> {
        self.state.lock().unwrap().pulls.clone()
    }

    /// Closes a pull request.
    pub fn close(&self, number: usize) {
        "closed".clone_into(&mut self.state.lock().unwrap().pulls[number - 1][4]);
    }

    /// Returns the comments.
    pub fn comments(&self) -> Vec<(u64, String)> {
        self.state.lock().unwrap().comments.clone()
    }

    /// Has a reviewer begin a thread; returns the number of its comment.
    pub fn review_comment(&self, by: &str, path: &str, body: &str) -> u64 {
        let threads = &mut self.state.lock().unwrap().threads;
        threads.push(Thread { path: path.to_owned(), resolved: false, said: vec![(by.to_owned(), body.to_owned())] });
        100 * threads.len() as u64
    }

    /// Resolves the thread of a comment.
    pub fn resolve(&self, comment: u64) {
        self.state.lock().unwrap().threads[comment as usize / 100 - 1].resolved = true;
    }

    /// Returns what was said in the thread of a comment, the comment first.
    pub fn thread(&self, comment: u64) -> Vec<String> {
        let said = self.state.lock().unwrap().threads[comment as usize / 100 - 1].said.clone();
        said.into_iter().map(|(_, body)| body).collect()
    }

    /// Has somebody with this standing (`MEMBER`, `NONE`) review: `APPROVED`, `CHANGES_REQUESTED`.
    pub fn review(&self, by: &str, standing: &str, verdict: &str, body: &str) {
        let review = json!({"author": {"login": by}, "authorAssociation": standing, "state": verdict, "body": body});
        self.state.lock().unwrap().reviews.push(review);
    }

    /// Returns the requests that came: method and path.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

/// The connection breaks.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    root: Option<PathBuf>,
    held: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let line = format!("{} {}", parts.method, parts.uri);
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(line.clone());
        let at = state.faults.iter().position(|(start, _)| line.starts_with(start.as_str()));
        let always =
            state.always.as_ref().filter(|(start, _)| line.starts_with(start.as_str())).map(|(_, fault)| *fault);
        at.map(|at| state.faults.remove(at).1).or(always)
    };
    let plain = |status: u16, body: &Value| {
        let body = Full::from(body.to_string());
        Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
    };
    match fault {
        Some(Fault::LostBefore) => return Err(Broken),
        Some(Fault::StatusBefore(status)) => return Ok(plain(status, &json!("<html>Unicorn!</html>"))),
        _ => {}
    }
    let known = parts.headers.get("authorization").is_some_and(|key| *key == *format!("Bearer {TOKEN}"));
    let (status, answered) = if known {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        api(&parts, &body, &state, root.as_deref()).await
    } else {
        (401, json!({"message": "Bad credentials"}))
    };
    match fault {
        Some(Fault::LostAfter) => Err(Broken),
        Some(Fault::StatusAfter(status)) => Ok(plain(status, &json!("<html>Unicorn!</html>"))),
        Some(Fault::Held) => {
            held.notify_one();
            std::future::pending().await
        }
        _ => Ok(plain(status, &answered)),
    }
}

async fn api(parts: &Parts, body: &Value, state: &Mutex<State>, root: Option<&Path>) -> (u16, Value) {
    let none = (404, json!({"message": "Not Found"}));
    if parts.uri.path() == "/user" {
        return (200, json!({"login": "ann"}));
    }
    if parts.uri.path() == "/graphql" {
        let number = body["variables"]["number"].as_u64().unwrap_or_default() as usize;
        let pull = state.lock().unwrap().reviewed(number);
        return (200, json!({"data": {"repository": {"pullRequest": pull}}}));
    }
    let known = ["/repos/acme/site", "/repos/acme/private"];
    let Some(path) = known.iter().find_map(|known| parts.uri.path().strip_prefix(known)) else { return none };
    let query = parts.uri.query().unwrap_or_default();
    let of = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let repository = root.map(|root| root.join("acme/site"));
    let git = async |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(repository.as_ref()?).args(arguments).output().await.unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head_of = async |branch: &str| {
        git(&["rev-parse", "-q", "--verify", &format!("refs/heads/{branch}")]).await.unwrap_or_else(|| "1".repeat(40))
    };
    let shown = async |number: usize, pull: &[String; 5]| {
        json!({
            "number": number,
            "html_url": format!("https://github.com/acme/site/pull/{number}"),
            "head": {"ref": pull[2], "sha": head_of(&pull[2]).await, "repo": {"full_name": "acme/site"}},
            "base": {"ref": pull[3], "repo": {"full_name": "acme/site"}},
            "body": pull[1],
            "state": pull[4],
        })
    };
    if path.is_empty() {
        return (200, json!({"default_branch": "main"}));
    }
    if let Some(branch) = path.strip_prefix("/git/ref/heads/") {
        return match git(&["rev-parse", "-q", "--verify", &format!("refs/heads/{branch}")]).await {
            Some(sha) => (200, json!({"object": {"sha": sha}})),
            None => none,
        };
    }
    if let Some((base, head)) = path.strip_prefix("/compare/").and_then(|range| range.split_once("...")) {
        let ahead = git(&["rev-list", "--count", &format!("{base}..{head}")]).await;
        let Some(ahead) = ahead.and_then(|count| count.parse::<u64>().ok()) else { return none };
        let numbers = git(&["diff", "--numstat", &format!("{base}...{head}")]).await.unwrap_or_default();
        let files: Vec<Value> = numbers
            .lines()
            .map(|line| {
                let mut parts = line.split('\t');
                let mut number = || parts.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
                let (added, removed) = (number(), number());
                json!({"filename": parts.next(), "additions": added, "deletions": removed})
            })
            .collect();
        return (200, json!({"ahead_by": ahead, "files": files}));
    }
    if path.ends_with("/check-runs") {
        let run = json!({"name": "test", "status": "completed", "conclusion": "failure", "output": {"title": "1 of 3 failed"}});
        return (200, json!({"check_runs": [run]}));
    }
    if path.starts_with("/commits/") && path.ends_with("/status") {
        return (200, json!({"statuses": [{"context": "ci", "state": "pending"}]}));
    }
    if path == "/pulls" && parts.method == Method::POST {
        let branch = text(&body["head"]);
        let pull = [text(&body["title"]), text(&body["body"]), branch.clone(), text(&body["base"]), "open".to_owned()];
        let Some(number) = state.lock().unwrap().open(&pull) else {
            let message = format!("A pull request already exists for acme:{branch}.");
            return (422, json!({"message": "Validation Failed", "errors": [{"message": message}]}));
        };
        return (201, shown(number, &pull).await);
    }
    if path == "/pulls" {
        let head = of("head");
        let pulls = state.lock().unwrap().pulls.clone();
        let mut found = Vec::new();
        for (at, pull) in pulls.iter().enumerate().rev() {
            if head == format!("acme:{}", pull[2]) {
                found.push(shown(at + 1, pull).await);
            }
        }
        return (200, Value::Array(found));
    }
    if path.starts_with("/pulls/") && path.contains("/reviews/") && path.ends_with("/comments") {
        let comment = |text: &str| json!({"path": "fix.txt", "line": 1, "body": text});
        let ours = comment("Our own answer.\n\n<!-- matrix-agent 12 -->");
        return (200, json!([comment("Say what was wrong."), ours]));
    }
    let (page_size, page_number) = (of("per_page").parse().unwrap_or(30), of("page").parse().unwrap_or(1));
    if let Some(rest) = path.strip_prefix("/pulls/").and_then(|rest| rest.split_once("/comments")).map(|(_, rest)| rest)
    {
        let threads = &mut state.lock().unwrap().threads;
        let shown = |at: usize, body: &str| json!({"html_url": format!("https://github.com/acme/site/pull/1#r{at}"), "body": body});
        if parts.method == Method::GET {
            let all = threads.iter().flat_map(|thread| &thread.said).enumerate();
            return (
                200,
                all.skip((page_number - 1) * page_size)
                    .take(page_size)
                    .map(|(at, (_, body))| shown(at, body))
                    .collect(),
            );
        }
        let id = rest
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix("/replies"))
            .and_then(|id| id.parse::<usize>().ok());
        let Some(thread) = id.filter(|id| id % 100 == 0).and_then(|id| threads.get_mut((id / 100).wrapping_sub(1)))
        else {
            return none;
        };
        let reply = text(&body["body"]);
        thread.said.push(("matrix-agent".to_owned(), reply.clone()));
        return (201, shown(0, &reply));
    }
    if let Some(number) = path.strip_prefix("/pulls/").and_then(|number| number.parse::<usize>().ok()) {
        let pull = state.lock().unwrap().pulls.get(number.wrapping_sub(1)).cloned();
        return match pull {
            Some(pull) => (200, shown(number, &pull).await),
            None => none,
        };
    }
    if let Some(login) = path.strip_prefix("/collaborators/").and_then(|rest| rest.strip_suffix("/permission")) {
        return (200, json!({"permission": if login == "stranger" { "read" } else { "write" }}));
    }
    let number = path.strip_prefix("/issues/").and_then(|rest| rest.strip_suffix("/comments"));
    let Some(number) = number.and_then(|number| number.parse::<u64>().ok()).filter(|number| *number < 100) else {
        return none;
    };
    let page = |at: usize, text: &str| json!({"html_url": format!("https://github.com/acme/site/issues/{number}#c{at}"), "body": text});
    let mut state = state.lock().unwrap();
    if parts.method == Method::POST {
        let comment = text(&body["body"]);
        state.comments.push((number, comment.clone()));
        return (201, page(state.comments.len(), &comment));
    }
    let before = (page_number - 1) * page_size;
    let own = state.comments.iter().enumerate().filter(|(_, comment)| comment.0 == number);
    (200, own.skip(before).take(page_size).map(|(at, comment)| page(at + 1, &comment.1)).collect())
}

/// Answers a request of git by `git http-backend`, with the repositories in `root`.
pub async fn backend(root: &Path, parts: &Parts, body: Bytes) -> Response<Full<Bytes>> {
    let of = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut backend = Command::new("git")
        .arg("http-backend")
        .envs([
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("REQUEST_METHOD", parts.method.as_str()),
            ("PATH_INFO", parts.uri.path()),
        ])
        .envs([("QUERY_STRING", parts.uri.query().unwrap_or_default()), ("CONTENT_TYPE", &of("content-type"))])
        .envs([("HTTP_CONTENT_ENCODING", of("content-encoding")), ("HTTP_GIT_PROTOCOL", of("git-protocol"))])
        .envs([("CONTENT_LENGTH", body.len().to_string()), ("REMOTE_USER", "x".to_owned())])
        .env("GIT_PROJECT_ROOT", root)
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
    let mut response = Response::builder().status(StatusCode::OK);
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response.body(Full::from(output[end + 4..].to_vec())).unwrap()
}

/// Returns what git sends with a token.
pub fn basic(token: &str) -> String {
    let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("x-access-token:{token}"));
    format!("Basic {pair}")
}
