//! Pages, photographed.

use serde_json::json;

use crate::bench::{Bench, FULL, PLAIN, bad, good, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_photographed_for_the_model_and_the_room() {
    let bench = Bench::open(FULL).await;
    bench.sh("printf '<title>Hello</title><h1>Hi</h1>' > index.html").await;
    let port = json!({"url": 8123});
    bad(&bench.call("take_screenshot", port.clone()).await, &["No picture", "ERR_CONNECTION_REFUSED"]);
    let server = json!({"command": "python3 -m http.server 8123", "background": true});
    good(&bench.call("run_command", server).await, &["Running in the background"]);
    bench.sh("until curl -s localhost:8123 > /dev/null; do sleep 0.05; done").await;
    let taken = bench.call("take_screenshot", port.clone()).await;
    good(&taken, &["http://localhost:8123/ “Hello”, 1280×800 pixels", "It follows."]);
    assert_eq!(taken.summary, "screenshot of 8123: Hello");
    assert_eq!((taken.images.len(), taken.attachments.len()), (1, 1));
    assert!(taken.attachments[0].data.starts_with(b"\x89PNG"));
    let lost =
        bench.call("take_screenshot", json!({"url": "localhost:8123/nowhere", "width": 300, "full_page": true})).await;
    good(&lost, &["status 404", "300×"]);
    let (mut context, _progress) = bench.context();
    context.vision = false;
    let unseen = run(&context, "take_screenshot", &port).await;
    good(&unseen, &["You cannot see pictures"]);
    assert_eq!((unseen.images.len(), unseen.attachments.len()), (0, 1));
    bad(&bench.call("take_screenshot", json!({"url": "javascript:alert(1)"})).await, &["no such file"]);
    bad(&bench.call("take_screenshot", json!({"url": "ftp://localhost/"})).await, &["ftp addresses are not opened"]);
    bad(&bench.call("take_screenshot", json!({"url": "--width"})).await, &["/workspace/--width: no such file"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_a_path_as_in_all_other_tools() {
    let bench = Bench::open(FULL).await;
    let titled = |name: &str| format!("printf '<title>%s</title>' 'page of {name}' > 'site/{name}'");
    for name in ["alert.html", "a b#1.html", "what?.html", "100%.html", "index.html", "caf\u{65}\u{301}\u{202f}1.html"]
    {
        bench.sh(&format!("mkdir -p site; {}", titled(name))).await;
    }
    bench.sh("mkdir -p example.com; printf '<title>page of mine</title>' > example.com/mine.html").await;
    for (url, page) in [
        ("site/alert.html", "alert.html"),
        ("./site/alert.html", "alert.html"),
        ("/workspace/site/alert.html", "alert.html"),
        ("file:///workspace/site/alert.html", "alert.html"),
        ("site/alert.html?x=1#top", "alert.html"),
        ("site/a b#1.html", "a b#1.html"),
        ("file:///workspace/site/a%20b%231.html", "a b#1.html"),
        ("site/what?.html", "what?.html"),
        ("site/100%.html", "100%.html"),
        ("site", "index.html"),
        ("site/", "index.html"),
        ("site/caf\u{e9} 1.html", "caf"),
        ("example.com/mine.html", "mine"),
    ] {
        let taken = bench.call("take_screenshot", json!({"url": url, "width": 200, "height": 100})).await;
        good(&taken, &["file:///workspace/", &format!("“page of {page}")]);
    }
    for url in ["site/none.html", "none.html", "/workspace/none.html", "file:///none.html", "../none.html"] {
        bad(&bench.call("take_screenshot", json!({"url": url})).await, &["none.html: no such file or directory"]);
    }
    bench.close().await;
}

/// Has the certificate of nobody, and stands for every host behind a proxy.
const SECURE: &str = r#"
import http.server, os, socket, ssl, threading
os.system("openssl req -x509 -newkey rsa:2048 -nodes -keyout /tmp/k -out /tmp/c -days 2 -subj /CN=localhost 2> /dev/null")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = b"<title>Secure</title>"
        self.send_response(200); self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(page))); self.end_headers(); self.wfile.write(page)
class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.send_response(200); self.end_headers()
        there = socket.create_connection(("127.0.0.1", 8443))
        def pump(a, b):
            while data := a.recv(65536): b.sendall(data)
        threading.Thread(target=pump, args=(there, self.connection), daemon=True).start()
        pump(self.connection, there)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("/tmp/c", "/tmp/k")
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 8444), Proxy)
print("both listen")
proxy.serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn only_a_server_in_the_sandbox_may_vouch_for_itself() {
    let bench = Bench::open(FULL).await;
    bench.call("write_file", json!({"path": "secure.py", "content": SECURE})).await;
    let server = bench.call("run_command", json!({"command": "python3 secure.py", "background": true})).await;
    good(&server, &["Running in the background"]);
    bench.sh("until curl -sk https://localhost:8443/ > /dev/null && curl -s localhost:8444 > /dev/null; do sleep 0.05; done").await;
    for url in ["https://localhost:8443/", "https://127.0.0.1:8443/"] {
        good(&bench.call("take_screenshot", json!({"url": url})).await, &["“Secure”"]);
    }
    let other = "HTTPS_PROXY=http://127.0.0.1:8444 node /usr/local/lib/matrix-agent/screenshot.mjs https://example.com/ /tmp/x.png";
    bad(&bench.call("run_command", json!({"command": other})).await, &["exit code: 3", "ERR_CERT_", "certificate"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_refuses_is_no_picture() {
    let bench = Bench::open(FULL).await;
    bench.sh("printf '<script>location = \"http://evil.example/\"</script>' > away.html").await;
    bench.sh("printf '<script>location = \"https://evil.example/\"</script>' > secure.html").await;
    for (url, says) in [
        ("http://evil.example/", "The sandbox may not reach evil.example"),
        ("evil.example/a", "The sandbox may not reach evil.example"),
        ("away.html", "The sandbox may not reach evil.example"),
        ("https://evil.example/", "the sandbox's gateway does not allow that host"),
        ("secure.html", "the sandbox's gateway does not allow that host"),
        ("http://10.0.0.1/", "The sandbox may not reach"),
    ] {
        let refused = bench.call("take_screenshot", json!({"url": url})).await;
        bad(&refused, &["No picture", says]);
        assert!(refused.attachments.is_empty() && refused.images.is_empty());
    }
    // A server's own refusal is a page like any other.
    let server = "python3 -c 'import http.server as h; \
        c = type(\"H\", (h.BaseHTTPRequestHandler,), {\"do_GET\": lambda s: s.send_error(403)}); \
        h.HTTPServer((\"127.0.0.1\", 8124), c).serve_forever()'";
    bench.call("run_command", json!({"command": server, "background": true})).await;
    bench.sh("until curl -s localhost:8124; do sleep 0.05; done").await;
    good(&bench.call("take_screenshot", json!({"url": "8124"})).await, &["The server answered with status 403."]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_browser_says_so() {
    let bench = Bench::open(PLAIN).await;
    bad(&bench.call("take_screenshot", json!({"url": "3000"})).await, &["has no browser"]);
    bench.close().await;
}
