//! What the gateway adds on the way to GitHub: to a clone of 100 MB, beside the same clone from the same server directly, in turns;
//! and how long it takes to look whether a grant covers something.

use std::{convert::Infallible, path::Path, process::Stdio, time::Instant};

use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Bytes, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use matrix_agent::{
    clock::Clock,
    gateway::{GatewayLimits, ProxyKind},
    ids::Address,
    rights::{Act, Lasts, Rights, Roles, Subject},
    store::{Durability, Store},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::io::ReaderStream;

use door::Door;
use measures::{Times, end, row, run, table};
use support::tls::Authority;

#[expect(dead_code, reason = "the gateway's tests use the rest")]
#[path = "../tests/gateway/door.rs"]
mod door;
#[path = "support/mod.rs"]
mod measures;
/// What the door needs of the tests' support.
#[expect(dead_code, unreachable_pub, reason = "tests use the rest, from elsewhere")]
mod support {
    #[path = "../../tests/support/tls.rs"]
    pub mod tls;
}

/// Files of a MiB each, of which the repository is made; nothing in them can be compressed.
const FILES: usize = 100;
const CLONES: usize = 12;
const CHECKS: usize = 200_000;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn main() {
    run(async {
        let started = Instant::now();
        table("The way to GitHub");
        clone().await;
        grant().await;
        end(started);
    });
}

async fn clone() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main"]).await;
    for number in 0..FILES {
        let mut content = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut content).unwrap();
        std::fs::write(work.join(format!("file{number}")), content).unwrap();
    }
    git(&work, &["add", "."]).await;
    git(&work, &["commit", "-q", "-m", "all"]).await;
    let bare = folder.path().join("root/acme/site");
    git(&work, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]).await;
    git(&bare, &["repack", "-q", "-a", "-d"]).await;

    let authority = Authority::new();
    let mut door = Door::with_root(&[], GatewayLimits::default(), Some(&authority.pem()));
    let mut servers = Vec::new();
    for name in ["github.com", "localhost"] {
        let (acceptor, root) = (authority.acceptor(name), folder.path().join("root"));
        servers.push(door.server(move |stream| serve(stream, acceptor.clone(), root.clone())).await.address);
    }
    door.name("github.com", &["203.0.113.5"]);
    door.route("203.0.113.5:0", servers[0]);
    let pem = folder.path().join("ca.pem");
    std::fs::write(&pem, authority.pem()).unwrap();
    let gateway = format!("http://{}/github.com", door.listen(ProxyKind::Git).await);
    let directly = format!("https://localhost:{}", servers[1].port());

    let (mut ours, mut theirs) = (Times::new(), Times::new());
    for number in 0..CLONES {
        for (base, times) in [(&gateway, &mut ours), (&directly, &mut theirs)] {
            let trust = format!("http.sslCAInfo={}", pem.display());
            let start = Instant::now();
            let url = format!("{base}/acme/site");
            git(folder.path(), &["-c", &trust, "clone", "-q", "--bare", &url, "clone"]).await;
            // The first ones meet what is not in the page cache yet.
            if number > 1 {
                times.since(start);
            }
            std::fs::remove_dir_all(folder.path().join("clone")).unwrap();
        }
    }
    row(
        &format!("a clone of {FILES} MB, the median of {}", ours.count()),
        "≤ 1.05 ×",
        &format!("{:.0} ms", ours.median()),
        &format!("directly {:.0} ms", theirs.median()),
        &format!("{:.2} ×", ours.median() / theirs.median()),
    );
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, root: std::path::PathBuf) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| {
        let root = root.clone();
        async move { Ok::<_, Infallible>(backend(request, &root).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Answers by `git http-backend`, as it writes.
async fn backend(request: Request<Incoming>, root: &Path) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
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
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROJECT_ROOT", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    backend.stdin.take().unwrap().write_all(&body).await.unwrap();
    let mut output = BufReader::with_capacity(64 * 1024, backend.stdout.take().unwrap());
    tokio::spawn(async move { backend.wait().await });
    let mut response = Response::builder();
    let mut line = String::new();
    while output.read_line(&mut line).await.unwrap() > 2 {
        let (name, value) = line.trim_end().split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
        line.clear();
    }
    let pieces = ReaderStream::with_capacity(output, 64 * 1024).map_ok(Frame::data);
    response.body(BodyExt::boxed_unsync(StreamBody::new(pieces))).unwrap()
}

async fn git(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .status();
    assert!(status.await.unwrap().success(), "{arguments:?}");
}

/// A room with as many grants as one may have.
async fn grant() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
    let rights = Rights::new(store, Roles::default());
    rights.load().await.unwrap();
    let at = Address::of_first("!room");
    for number in 0..100 {
        let subject = Subject::Host(format!("host{number}.example.org"));
        rights.grant(&at, subject, false, "ann", Lasts::Room).await.unwrap();
    }
    let (known, other) = (Act::Host("host99.example.org".to_owned()), Act::Host("other.example.org".to_owned()));
    let start = Instant::now();
    for _ in 0..CHECKS / 2 {
        assert!(rights.covers(&at, std::hint::black_box(&known)));
        assert!(!rights.covers(&at, std::hint::black_box(&other)));
    }
    let each = start.elapsed().as_secs_f64() * 1e3 / CHECKS as f64;
    row("whether a grant covers something, of 100", "≤ 0.1 ms", &format!("{each:.4} ms"), "", "");
}
