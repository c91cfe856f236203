//! What programs find in their environment.

use serde_json::json;

use tokio::time::timeout;

use crate::bench::{Bench, FULL, LIMIT, good, job_id};

#[tokio::test(flavor = "multi_thread")]
async fn node_reaches_the_web_through_the_gateway_and_the_sandbox_itself_directly() {
    let bench = Bench::open(FULL).await;
    // `fetch` asks for a tunnel, of whose refusal it tells the status alone; `http` asks as all others do.
    for (script, says) in [
        ("fetch('http://evil.example/').catch(error => console.log(error.cause))", "Proxy response (403)"),
        ("fetch('https://evil.example/').catch(error => console.log(error.cause))", "Proxy response (403)"),
        (
            "require('http').get('http://evil.example/', answer => answer.pipe(process.stdout))",
            "The sandbox may not reach evil.example",
        ),
        ("require('https').get('https://evil.example/').on('error', error => console.log(error))", "403 Host not in"),
    ] {
        bench.call("write_file", json!({"path": "ask.js", "content": script})).await;
        let answer = bench.call("run_command", json!({"command": "node ask.js"})).await;
        good(&answer, &[says]);
        assert!(!answer.text.contains("experimental"), "{}", answer.text);
    }
    // What is allowed goes through such a tunnel in plain HTTP as well, wherever it then ends.
    let allowed = "fetch('http://registry.npmjs.org/').then(answer => console.log('status', answer.status))";
    bench.call("write_file", json!({"path": "ask.js", "content": allowed})).await;
    good(&bench.call("run_command", json!({"command": "node ask.js"})).await, &["status "]);
    let own =
        "require('http').createServer((_, answer) => answer.end('from here')).listen(8125, '127.0.0.1', async () => {
        for (const host of ['localhost', '127.0.0.1']) console.log(await (await fetch(`http://${host}:8125/`)).text());
        process.exit() })";
    bench.call("write_file", json!({"path": "own.js", "content": own})).await;
    good(&bench.call("run_command", json!({"command": "node own.js"})).await, &["from here\nfrom here"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_server_shows_its_output_while_it_runs() {
    let bench = Bench::open(FULL).await;
    let server = "python3 -c 'import time; print(\"it listens\"); time.sleep(1000)'";
    let started = bench.call("run_command", json!({"command": server, "background": true})).await;
    let job = job_id(&started);
    let listens = async { while !bench.call("run_command", json!({"job": job})).await.text.contains("it listens") {} };
    timeout(LIMIT, listens).await.unwrap();
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tests_run_as_on_a_build_server() {
    let bench = Bench::open(FULL).await;
    let shown = "echo CI=[$CI] front=[$DEBIAN_FRONTEND]";
    good(&bench.call("run_command", json!({"command": shown})).await, &["CI=[] front=[noninteractive]"]);
    let root = bench.call("run_command", json!({"command": shown, "as_root": true})).await;
    good(&root, &["CI=[] front=[noninteractive]"]);
    good(&bench.call("run_tests", json!({"command": shown})).await, &["CI=[1]"]);
    bench.close().await;
}
