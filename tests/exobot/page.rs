//! The page to chat with exobot's model, as a browser asks for it; and what becomes of the child when the server is killed.

use matrix_agent::net;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Lab, support::rig::wait};

fn browser() -> Client {
    net::client().no_proxy().build().unwrap()
}

/// What one question brings: the names of the events, without repetition, and the last one's data.
async fn ask(page: &str, question: &str) -> (Vec<String>, Value) {
    let response = browser()
        .post(format!("{page}/chat"))
        .header("content-type", "application/json")
        .body(json!({"mode": "fast", "question": question}).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let field = |name: &'static str| text.lines().filter_map(move |line| line.strip_prefix(name)).map(str::to_owned);
    let mut events: Vec<_> = field("event: ").collect();
    events.dedup();
    (events, serde_json::from_str(&field("data: ").next_back().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_wakes_the_model_streams_its_answer_and_takes_no_other_sites_word() {
    let mut lab = Lab::new("none");
    let page = lab.with_page();
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let client = browser();
    let shown = client.get(&page).send().await.unwrap();
    let policy = shown.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && shown.text().await.unwrap().contains("<textarea"), "{policy}");
    for path in ["page.js", "page.css"] {
        assert_eq!(client.get(format!("{page}/{path}")).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    let status = client.get(format!("{page}/status")).send().await.unwrap();
    assert_eq!(status.status(), StatusCode::ACCEPTED);
    assert_eq!(serde_json::from_str::<Value>(&status.text().await.unwrap()).unwrap()["status"], "asleep");

    let form = client.post(format!("{page}/chat")).body(r#"{"question": "hello"}"#).send().await.unwrap();
    assert_eq!(form.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let foreign = client.get(&page).header("host", "attacker.example").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(lab.events(), Vec::<String>::new(), "none of that has woken it");

    let (events, last) = ask(&page, "hello").await;
    assert_eq!(events, ["state", "awake", "delta", "done"]);
    assert_eq!(last["text"], "I am awake.");
    assert!(last["footer"].as_str().unwrap().starts_with("tiny-model · "), "{last}");
    assert_eq!(lab.events()[1..], ["asked for 100"]);
    let status = client.get(format!("{page}/status")).send().await.unwrap();
    assert_eq!(status.status(), StatusCode::OK);

    // Its homeserver is away, its model is not.
    let status = tokio::task::block_in_place(|| lab.rig.command(&["exobot", "status"]).output().unwrap());
    let told = String::from_utf8(status.stdout).unwrap();
    assert!(!status.status.success() && told.starts_with("@exobot:localhost: "), "{told}");
    assert!(told.ends_with("Its model, tiny-model, is awake\n"), "{told}");

    // Killed, the server cannot end its child; the kernel does.
    assert_eq!(lab.alive().len(), 1);
    server.kill();
    tokio::task::block_in_place(|| wait("the child's end", || lab.alive().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_others_could_reach_is_not_served_unless_told_twice() {
    let mut lab = Lab::new("none");
    let page = lab.with_page();
    let port = page.rsplit_once(':').unwrap().1.to_owned();
    lab.rig.set("EXOBOT_UI_LISTEN", &format!("0.0.0.0:{port}"));
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    assert!(browser().get(&page).send().await.is_err());
    let log = tokio::task::block_in_place(|| server.stop());
    assert!(log.contains("exobot's page is not served") && log.contains("EXOBOT_UI_OPEN"), "{log}");

    lab.rig.set("EXOBOT_UI_OPEN", "true");
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    assert_eq!(browser().get(&page).send().await.unwrap().status(), StatusCode::OK);
    tokio::task::block_in_place(|| server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_breaks_is_one_plain_sentence() {
    let mut lab = Lab::new("breaks");
    let page = lab.with_page();
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let (events, last) = ask(&page, "hello").await;
    assert_eq!(events.last().map(String::as_str), Some("failed"));
    let told = last["text"].as_str().unwrap();
    assert!(!told.is_empty() && !told.contains("127.0.0.1") && !told.contains("os error"), "{told}");
    tokio::task::block_in_place(|| server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_open_questions_and_a_huge_one_leave_the_page_usable() {
    let mut lab = Lab::new("never");
    let page = lab.with_page();
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let address = page.strip_prefix("http://").unwrap();
    let body = r#"{"mode": "fast", "question": "hello"}"#;
    let head = format!("POST /chat HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json");
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut open = vec![];
    for _ in 0..1_000 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may have been closed in favour of others.
        let _ = stream.write_all(request.as_bytes()).await;
        open.push(stream);
    }
    let client = browser();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let status = client.get(format!("{page}/status")).send().await.unwrap();
        let status: Value = serde_json::from_str(&status.text().await.unwrap()).unwrap();
        if status["status"] == "starting" {
            break;
        }
        assert!(std::time::Instant::now() < end, "{status}");
    }
    let ask = |body: String| {
        let request = client.post(format!("{page}/chat")).header("content-type", "application/json").body(body);
        async move { request.send().await.unwrap().status() }
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // Of the thousand some may not have been read yet.
    while ask(body.to_owned()).await != StatusCode::SERVICE_UNAVAILABLE {
        assert!(std::time::Instant::now() < end, "four wait already");
        tokio::task::yield_now().await;
    }
    assert_eq!(ask("x".repeat(1 << 20)).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(ask(json!({"question": "x".repeat(7_000)}).to_string()).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(ask("{".to_owned()).await, StatusCode::BAD_REQUEST);
    drop(open);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while ask(body.to_owned()).await != StatusCode::OK {
        assert!(std::time::Instant::now() < end, "who has gone still waits");
        tokio::task::yield_now().await;
    }
    tokio::task::block_in_place(|| server.stop());
    assert!(lab.alive().is_empty());
}
