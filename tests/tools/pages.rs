//! Pages, photographed.

use serde_json::json;

use crate::bench::{Bench, FULL, PLAIN, bad, good, run, says};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_photographed_for_the_model_and_the_room() {
    let bench = Bench::open(FULL).await;
    bench.sh("printf '<title>Hello</title><h1>Hi</h1>' > index.html").await;
    let port = json!({"url": 8123});
    bad(&bench.call("take_screenshot", port.clone()).await, &["No picture", "ERR_CONNECTION_REFUSED"]);
    let server = json!({"command": "python3 -m http.server 8123", "background": true});
    good(&bench.call("run_command", server).await, &["Running in the background"]);
    let taken = bench.call("take_screenshot", port.clone()).await;
    good(&taken, &["http://localhost:8123/ “Hello”, 1280×800 pixels", "It follows."]);
    assert_eq!(taken.summary, "screenshot of 8123: Hello");
    assert_eq!((taken.images.len(), taken.attachments.len()), (1, 1));
    assert!(taken.attachments[0].data.starts_with(b"\x89PNG"));
    let lost =
        bench.call("take_screenshot", json!({"url": "localhost:8123/nowhere", "width": 300, "full_page": true})).await;
    good(&lost, &["status 404", "300×"]);
    good(
        &bench.call("take_screenshot", json!({"url": "/workspace/index.html"})).await,
        &["file:///workspace/index.html"],
    );
    let (mut context, _progress) = bench.context();
    context.vision = false;
    let unseen = run(&context, "take_screenshot", &port).await;
    good(&unseen, &["You cannot see pictures"]);
    assert_eq!((unseen.images.len(), unseen.attachments.len()), (0, 1));
    bad(&bench.call("take_screenshot", json!({"url": "javascript:alert(1)"})).await, &["No picture"]);
    // An address, whatever it looks like; and no host that the gateway knows.
    says(&bench.call("take_screenshot", json!({"url": "--width"})).await, &["http://--width/", "gateway"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_browser_says_so() {
    let bench = Bench::open(PLAIN).await;
    bad(&bench.call("take_screenshot", json!({"url": "3000"})).await, &["has no browser"]);
    bench.close().await;
}
