//! The gateway's door to models: what it adds to a request, beside the same request sent to the model's server directly,
//! in turns on connections that stay open. The server answers at once, so that nothing else is measured.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::Instant,
};

use matrix_agent::{
    clock::Clock,
    gateway::{
        AllowedHosts, Gateway, GatewayPolicy, Network, ProxyKind,
        models::{Grant, ModelDoor, Protocol, Upstream},
    },
    ids::Address,
    ledger::{Ledger, Rules},
    store::{Durability, Store},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use support::{Times, end, row, run, table};

mod support;

const REQUESTS: usize = 4000;
/// Bytes of the prompts: a first request of a coding agent's, and one with much read.
const PROMPTS: [usize; 2] = [16 * 1024, 400 * 1024];

fn main() {
    run(async {
        let server = serve();
        let base = format!("http://{server}/v1").parse().unwrap();
        let upstream = Upstream::new(Protocol::OpenAi, &base, Some("key".into()), vec!["m".into()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let ledger = Ledger::new(store, Rules::default());
        let models = ModelDoor::new(vec![upstream], false, Some(ledger));
        let policy = GatewayPolicy::new(AllowedHosts::standard());
        let gateway = Gateway::new(policy, Network::system(), CancellationToken::new()).with_models(models.clone());
        let address = Address::of_first("!bench");
        let grant = Grant {
            address: address.clone(),
            turn: "t".into(),
            person: Some("@person:example.org".into()),
            agent: "bench".into(),
            run: "bench".into(),
        };
        let pass = models.open(grant);
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        tokio::spawn(async move { gateway.serve(&address, ProxyKind::Models, theirs).await });
        let token = pass.token().to_owned();
        tokio::task::spawn_blocking(move || measure(server, ours, &token)).await.unwrap();
    });
}

fn measure(server: std::net::SocketAddr, ours: UnixStream, token: &str) {
    let started = Instant::now();
    table("A request to a model");
    let direct = TcpStream::connect(server).unwrap();
    direct.set_nodelay(true).unwrap();
    let (mut direct, mut ours) = (BufReader::new(direct), BufReader::new(ours));
    for bytes in PROMPTS {
        let prompt = "a word and ".repeat(bytes / 11);
        let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": prompt}]}).to_string();
        let head =
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer";
        let request = format!("{head} {token}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (mut bare, mut through) = (Times::new(), Times::new());
        for number in 0..REQUESTS {
            let start = Instant::now();
            ask(&mut direct, request.as_bytes());
            let between = Instant::now();
            ask(&mut ours, request.as_bytes());
            // The first ones meet what is not made yet.
            if number >= REQUESTS / 10 {
                bare.add(between - start);
                through.since(between);
            }
        }
        let added = |percent| through.percentile(percent) - bare.percentile(percent);
        row(
            &format!("the gateway adds to a request of {} KB, p50 / p95", bytes / 1024),
            "≤ 0.5 / 2 ms",
            &format!("{:.2} / {:.2} ms", added(50), added(95)),
            &format!("directly {:.2} / {:.2} ms", bare.percentile(50), bare.percentile(95)),
            "",
        );
    }
    end(started);
}

/// Sends a request and reads its answer, which ends as all of these do.
fn ask<S: Read + Write>(connection: &mut BufReader<S>, request: &[u8]) {
    connection.get_mut().write_all(request).unwrap();
    let mut line = String::new();
    loop {
        line.clear();
        assert!(connection.read_line(&mut line).unwrap() > 0, "the connection ended");
        if line == "0\r\n" {
            connection.read_line(&mut line).unwrap();
            return;
        }
    }
}

/// A server of models that has its answer ready.
fn serve() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || answer(connection.unwrap()));
        }
    });
    address
}

fn answer(connection: TcpStream) {
    connection.set_nodelay(true).unwrap();
    let event = format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": "word"}}]}));
    let usage = format!("data: {}\n\n", json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}));
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = [head, &chunk(&event), &chunk(&usage), "0\r\n\r\n"].concat();
    let mut connection = BufReader::new(connection);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if connection.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if connection.read_exact(&mut body).is_err() || connection.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
