use axum::{body::Bytes, routing::post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinHandle,
};

use super::*;

const LIMIT: Duration = Duration::from_mins(1);

struct Rig {
    address: SocketAddr,
    cancel: CancellationToken,
    serving: JoinHandle<()>,
    /// How many wait at `/slow`.
    waiting: watch::Receiver<usize>,
}

impl Rig {
    /// Serves an echo of up to 1,000 bytes at `/echo`, and waits for ever at `/slow`.
    async fn new() -> Self {
        let names = Names::parse(["agent.example.org/echo"]).unwrap();
        let mut server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), names).await.unwrap();
        let echo = Router::new().route("/echo", post(|body: Bytes| async move { body }));
        server.add(Pages { path: "/echo", private: false, largest: 1000, router: echo });
        let (came, waiting) = watch::channel(0);
        let wait = move || {
            came.send_modify(|came| *came += 1);
            std::future::pending::<()>()
        };
        let slow = Router::new().route("/slow", post(wait));
        server.add(Pages { path: "/slow", private: false, largest: 0, router: slow });
        let (address, cancel) = (server.address(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(cancel.clone()));
        Self { address, cancel, serving, waiting }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and returns all that comes until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        // The server may answer, and close, before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(&self, host: &str, path: &str, more: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n");
        self.raw(&format!("{head}{more}\r\n{body}")).await
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn it_answers_by_its_names_alone_and_each_name_opens_its_own_paths() {
    let rig = Rig::new().await;
    let here = rig.address.to_string();
    for (host, path, more, expected) in [
        ("agent.example.org", "/echo", "", "200"),
        ("AGENT.example.org:443", "/echo", "X-Forwarded-For: 203.0.113.9\r\n", "200"),
        ("agent.example.org", "/slow", "", "404"),
        ("evil.example.org", "/echo", "", "421"),
        (&here, "/echo", "", "200"),
        (&here, "/nowhere", "", "404"),
        // A proxy that passes any name on must not open what is for this machine.
        ("localhost", "/echo", "X-Forwarded-For: 203.0.113.9\r\n", "421"),
        ("localhost", "/echo", "Host: agent.example.org\r\n", "400"),
        // A page of this server may change things here, wherever it was reached; another one may not.
        (&here, "/echo", &format!("Origin: http://{here}\r\n"), "200"),
        ("agent.example.org:443", "/echo", "Origin: https://agent.example.org\r\n", "200"),
        ("agent.example.org", "/echo", "Origin: https://evil.example.org\r\n", "403"),
        (&here, "/echo", "Origin: http://127.0.0.1:1\r\n", "403"),
        (&here, "/echo", "Origin: null\r\n", "403"),
        ("a b", "/echo", "", "400"),
    ] {
        let answer = rig.ask(host, path, more, "hello").await;
        assert_eq!(status(&answer), expected, "{host} {path} {more}: {answer}");
    }
    let answer = rig.ask("evil.example.org", "/echo", "", "").await;
    assert!(answer.contains("`evil.example.org` is none of this server's names."), "{answer}");
    // What stands in the address counts, as it does for whoever routes requests before us.
    let answer =
        rig.raw("POST http://evil.example.org/echo HTTP/1.1\r\nHost: agent.example.org\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&answer.await), "421");
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_refused_before_it_is_read() {
    let rig = Rig::new().await;
    assert!(rig.ask("agent.example.org", "/echo", "", &"x".repeat(1000)).await.ends_with(&"x".repeat(1000)));
    let head = "POST /echo HTTP/1.1\r\nHost: agent.example.org\r\n";
    let answer = rig.raw(&format!("{head}Content-Length: 30000000\r\n\r\n")).await;
    assert!(status(&answer) == "413" && answer.contains("is the limit here"), "{answer}");
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let answer = rig.raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}")).await;
    assert_eq!(status(&answer), "413", "{answer}");
    let answer = rig.raw(&format!("{head}X-Long: {}\r\n\r\n", "x".repeat(HEAD_BYTES))).await;
    assert_eq!(status(&answer), "431", "{answer}");
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_a_connection_by_sending_slowly() {
    let rig = Rig::new().await;
    let mut stream = rig.connect().await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: agent").await.unwrap();
    let mut answer = Vec::new();
    timeout(HEAD * 2, stream.read_to_end(&mut answer)).await.expect("the head took too long").unwrap();
    let answer = rig.raw("POST /echo HTTP/1.1\r\nHost: agent.example.org\r\nContent-Length: 5\r\n\r\nhel");
    let answer = timeout(BODY * 2, answer).await.expect("the body took too long");
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn who_sends_slowly_keeps_nobody_out() {
    let rig = Rig::new().await;
    let mut slow = Vec::new();
    for number in 0..2 * CONNECTIONS {
        let mut stream = rig.connect().await;
        let length = if number % 2 == 0 { "" } else { "Content-Length: 9\r\n\r\nhalf" };
        stream
            .write_all(format!("POST /echo HTTP/1.1\r\nHost: agent.example.org\r\n{length}").as_bytes())
            .await
            .unwrap();
        slow.push(stream);
    }
    for _ in 0..3 {
        let answer = timeout(HEAD / 2, rig.ask("agent.example.org", "/echo", "", "hello")).await;
        assert_eq!(status(&answer.expect("those who send slowly are waited for")), "200");
    }
}

#[tokio::test]
async fn connections_are_bounded_and_the_end_waits_for_nobody() {
    let mut rig = Rig::new().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = rig.connect().await;
        let request = format!("POST /slow HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", rig.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let all = rig.waiting.wait_for(|waiting| *waiting == CONNECTIONS);
    timeout(LIMIT, all).await.expect("all are answered").unwrap();
    let next = rig.ask("agent.example.org", "/echo", "", "hello");
    let mut next = Box::pin(next);
    assert!(timeout(Duration::from_millis(300), next.as_mut()).await.is_err(), "one more waits");
    held.pop();
    assert_eq!(status(&next.await), "200", "and has the place that is free");
    rig.cancel.cancel();
    timeout(LIMIT, rig.serving).await.expect("the end waits for requests that never end").unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_the_mend() {
    let rig = Rig::new().await;
    let error = HttpServer::bind(rig.address, Names::default()).await.unwrap_err().to_string();
    assert!(error.contains("HTTP cannot be served at 127.0.0.1:") && error.contains("set HTTP_LISTEN to"), "{error}");
}
