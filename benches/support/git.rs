//! A git server behind TLS, as GitHub's: `git http-backend`, whose answers are passed on as they come.

use std::{convert::Infallible, path::Path, process::Stdio};

use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Bytes, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::io::ReaderStream;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers one connection.
pub(crate) async fn serve(stream: TcpStream, acceptor: TlsAcceptor, root: std::path::PathBuf) {
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

/// Runs git without anybody's settings.
pub(crate) async fn git(folder: &Path, arguments: &[&str]) {
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
