//! Commands, background jobs, test runs, and what became of a call after a crash.

use std::time::Duration;

use matrix_agent::tools::{self, ToolContext, ToolProgress};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::bench::{Bench, FULL, LIMIT, PLAIN, bad, good, job_id, open, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_to_its_end() {
    let bench = Bench::open(PLAIN).await;
    let command = |command: &str| bench.call("run_command", json!({ "command": command }));

    assert_eq!(command("echo out; echo err >&2; echo more").await.text, "exit code: 0\nout\nerr\nmore");
    assert_eq!(command("true").await.text, "exit code: 0\n(no output)");
    let failed = command("echo oops; exit 3").await;
    bad(&failed, &["exit code: 3\noops"]);
    assert_eq!(failed.summary, "echo oops; exit 3 (exit code: 3)");
    good(&command("[[ a == a ]] && echo {1..3} && pwd && whoami").await, &["1 2 3\n/workspace\nagent"]);
    good(
        &command("printf '\\033[31mred\\033[0m\\n10%%\\r100%%\\n'; printf 'Grüße 世界'").await,
        &["red\n100%\nGrüße 世界"],
    );
    good(&command("head -c 100000 /dev/urandom").await, &["(binary output"]);
    bad(&command("kill -SEGV $$").await, &["ended by signal 11 (SIGSEGV)"]);
    bad(&command("sudo apt-get install x").await, &["as_root=true"]);
    good(&command("sleep 1000 & sleep 1000 & echo started").await, &["started", "2 process(es)", "background=true"]);
    good(&command("read line; echo \"got:$line\" || true").await, &["got:"]);

    let root = bench.call("run_command", json!({"command": "id -u; echo $DEBIAN_FRONTEND", "as_root": true})).await;
    good(&root, &["0\nnoninteractive"]);
    let elsewhere = bench.call("run_command", json!({"command": "pwd", "workdir": "/tmp"})).await;
    good(&elsewhere, &["/tmp"]);
    let nowhere = bench.call("run_command", json!({"command": "pwd", "workdir": "not/there"})).await;
    bad(&nowhere, &["not started"]);

    for (arguments, says) in [
        (json!({}), "Nothing to run"),
        (json!({"command": "true", "job": "job-1"}), "not both"),
        (json!({"command": "true", "stop": true}), "stop belongs to job"),
        (json!({"command": "a\0b"}), "NUL"),
        (json!({"cmd": "true"}), "unknown field `cmd`"),
        (json!({"command": ["ls"]}), "expected a string"),
        (json!({"job": "job-00000000"}), "There is no job job-00000000"),
    ] {
        bad(&bench.call("run_command", arguments).await, &[says]);
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_measure_ends_at_its_limit() {
    let bench = Bench::open(PLAIN).await;
    let within = |command: &str, seconds: u64| {
        bench.call("run_command", json!({"command": command, "timeout_seconds": seconds}))
    };

    let endless = within("yes 'a line of some length'", 1).await;
    bad(&endless, &["timed out", "bytes cut", "[the whole output: /home/agent/"]);
    assert!(endless.text.len() < 11 * 1024, "{}", endless.text.len());
    let log = endless.text.lines().find_map(|line| line.strip_prefix("[the whole output: ")).unwrap();
    let log = log.trim_end_matches(']');
    good(
        &bench.call("read_file", json!({"path": log, "limit": 2})).await,
        &["a line of some length\na line of some length\n"],
    );

    let stubborn =
        within("trap '' TERM INT HUP; (trap '' TERM; setsid sleep 1234 &) ; while :; do sleep 1; done", 1).await;
    bad(&stubborn, &["timed out", "raise timeout_seconds"]);
    assert_eq!(bench.running("sleep 123[4]").await, "0");

    let one_token = within("head -c 3000000 /dev/zero | tr '\\0' x", 20).await;
    good(&one_token, &["bytes cut"]);
    assert!(one_token.text.len() < 11 * 1024, "{}", one_token.text.len());

    // Longer than a result, too short for the sandbox to have made a file of it.
    let band = within("seq 1 5000", 20).await;
    good(&band, &["\n1\n2\n", "\n5000\n", "[the whole output: "]);
    let kept = band.text.lines().find_map(|line| line.strip_prefix("[the whole output: ")).unwrap();
    assert_eq!(
        bench.sh(&format!("sha256sum < {}", kept.trim_end_matches(']'))).await,
        bench.sh("seq 1 5000 | sha256sum").await
    );

    bad(&within("head -c 3G /dev/zero | tail", 30).await, &["out of memory"]);
    bad(&within("bomb() { bomb | bomb & }; bomb; sleep 1000", 2).await, &["timed out"]);
    bad(&within("(setsid setsid sleep 2345 &) ; exec sleep 2345", 1).await, &["timed out"]);
    assert_eq!(bench.running("sleep 234[5]").await, "0");
    good(&within("true", 1_000_000).await, &["timeout_seconds is 60 at most"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_what_runs_and_shows_what_there_was() {
    let bench = Bench::open(PLAIN).await;
    bench.sh("true").await;
    let (context, mut progress) = bench.context();
    let cancel = context.cancel.clone();
    let call = tokio::spawn(async move {
        let command = "trap '' TERM; echo up; sleep 0.03; echo ready; sleep 4321 & sleep 4321";
        run(&context, "run_command", &json!({ "command": command })).await
    });
    // The newest line is shown, however soon it came after another.
    let ready = async { while progress.recv().await != Some(ToolProgress::Output("ready".into())) {} };
    timeout(LIMIT, ready).await.unwrap();
    let asked = Instant::now();
    cancel.cancel();
    let result = timeout(LIMIT, call).await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    bad(&result, &["stopped by the person", "ready"]);
    assert_eq!(bench.running("sleep 432[1]").await, "0");

    // A job's first second belongs to the call that starts it.
    let (context, _progress) = bench.context();
    let cancel = context.cancel.clone();
    let server = json!({"command": "touch begun; sleep 5432", "background": true});
    let call = tokio::spawn(async move { run(&context, "run_command", &server).await });
    bench.sh("while [ ! -e begun ]; do sleep 0.01; done; rm begun").await;
    cancel.cancel();
    bad(&timeout(LIMIT, call).await.unwrap().unwrap(), &["Stopped by the person"]);
    assert_eq!(bench.running("sleep 543[2]").await, "0");

    let (context, _progress) = bench.context();
    context.cancel.cancel();
    for (name, arguments) in [
        ("run_command", json!({"command": "touch /workspace/late"})),
        ("run_command", json!({"command": "touch /workspace/late", "background": true})),
        ("write_file", json!({"path": "late", "content": "x"})),
        ("run_tests", json!({"command": "touch /workspace/late"})),
    ] {
        bad(&run(&context, name, &arguments).await, &["Stopped by the person"]);
    }
    assert_eq!(bench.sh("ls /workspace").await, "(no output)");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_command_whose_connection_has_just_broken() {
    let bench = Bench::open(PLAIN).await;
    let (context, mut progress) = bench.context();
    let cancel = context.cancel.clone();
    let call =
        tokio::spawn(async move { run(&context, "run_command", &json!({ "command": "echo up; sleep 6543" })).await });
    timeout(LIMIT, progress.recv()).await.unwrap();
    bench.cut_connections();
    cancel.cancel();
    bad(&timeout(LIMIT, call).await.unwrap().unwrap(), &["stopped by the person", "up"]);
    assert_eq!(bench.running("sleep 654[3]").await, "0");

    // The same of one that was begun before a crash, and is being looked for when the stop comes.
    let (context, mut progress) = bench.context();
    let asked = json!({ "command": "echo up; sleep 7654" });
    let (before, arguments, asked) = (context.clone(), asked.clone(), asked.to_string());
    let call = tokio::spawn(async move { run(&before, "run_command", &arguments).await });
    timeout(LIMIT, progress.recv()).await.unwrap();
    let boot = bench.boot_id().await;
    call.abort();
    context.cancel.cancel();
    bench.cut_connections();
    let resumed = tools::resume(&context, "run_command", &asked, &boot);
    bad(&timeout(LIMIT, resumed).await.unwrap(), &["stopped by the person", "up"]);
    assert_eq!(bench.running("sleep 765[4]").await, "0");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_job_is_read_and_ended_later() {
    let bench = Bench::open(PLAIN).await;
    let line = "echo begun; while [ ! -e /workspace/go ]; do sleep 0.02; done; echo went; sleep 1000";
    let started = bench.call("run_command", json!({"command": line, "background": true})).await;
    good(&started, &["begun"]);
    let job = job_id(&started);
    bench.sh("touch go").await;
    let look = || bench.call("run_command", json!({"job": job}));
    let went = async {
        loop {
            let result = look().await;
            if result.text.contains("went") {
                return result;
            }
        }
    };
    good(&timeout(LIMIT, went).await.unwrap(), &["is running", "begun\nwent"]);
    assert_eq!(bench.running("sleep 100[0]").await, "1");
    let ended = bench.call("run_command", json!({"job": job, "stop": true})).await;
    good(&ended, &["has ended", "begun\nwent"]);
    good(&look().await, &["has ended"]);
    assert_eq!(bench.running("sleep 100[0]").await, "0");

    let wrong = bench.call("run_command", json!({"command": "nosuchserver --port 1", "background": true})).await;
    bad(&wrong, &["has ended", "exit code: 127", "nosuchserver"]);
    let flood = bench.call("run_command", json!({"command": "yes flood", "background": true})).await;
    good(&flood, &["Running in the background", "flood\n[… the line above", "times more …]"]);
    assert!(flood.text.len() < 11 * 1024, "{}", flood.text.len());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_tested_by_its_own_command() {
    let bench = Bench::open(FULL).await;
    bad(&bench.call("run_tests", json!({})).await, &["[FAIL] no test command found in /workspace"]);
    bad(&bench.call("run_tests", json!({"path": "nowhere"})).await, &["/workspace/nowhere is no folder"]);

    bench.sh("mkdir -p site/tests; printf 'def double(n):\\n    return n\\n' > site/app.py").await;
    bench.sh("printf 'from app import double\\n\\n\\ndef test_double():\\n    assert double(2) == 4\\n' > site/tests/test_app.py").await;
    let red = bench.call("run_tests", json!({})).await;
    bad(
        &red,
        &[
            "[FAIL] lint passed, tests failed (exit code 1) in /workspace/site",
            "== lint: ruff check . ==\nAll checks passed!",
            "== tests: python3 -m pytest -v ==\nexit code: 1",
            "1 failed",
        ],
    );
    assert_eq!(red.facts.tests, Some(false));
    bench.call("edit_file", json!({"path": "site/app.py", "old_text": "return n", "new_text": "return 2 * n"})).await;
    let (context, mut progress) = bench.context();
    let green = run(&context, "run_tests", &json!({})).await;
    drop(context);
    while let Some(ToolProgress::Output(line)) = progress.recv().await {
        assert!(!line.contains("@@"), "{line}");
    }
    good(&green, &["[PASS] lint passed, tests passed", "1 passed"]);
    assert_eq!(green.facts.tests, Some(true));
    bench.sh("sed -i '1i import os' site/app.py").await;
    let lint = bench.call("run_tests", json!({"path": "site"})).await;
    bad(&lint, &["[FAIL] lint failed, tests passed", "F401"]);
    assert_eq!(lint.facts.tests, Some(true));

    bench.sh("mkdir -p web; echo '{\"scripts\":{\"test\":\"echo web works\"}}' > web/package.json").await;
    bad(&bench.call("run_tests", json!({})).await, &["several are in it: site web"]);
    good(
        &bench.call("run_tests", json!({"path": "web"})).await,
        &["[PASS] tests passed", "== tests: npm test ==", "web works"],
    );
    let own = bench.call("run_tests", json!({"path": "web", "command": "yes noise | head -c 9000000; exit 4"})).await;
    bad(&own, &["tests failed (exit code 4)", "bytes cut", "[the whole output: /home/agent/"]);
    assert!(own.text.len() < 11 * 1024 && !own.text.contains("@@"), "{}", own.text.len());
    let slow = bench
        .call("run_tests", json!({"path": "web", "command": "echo begun; sleep 1000", "timeout_seconds": 1}))
        .await;
    bad(&slow, &["tests timed out", "begun"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_call_is_told_after_a_crash() {
    let mut bench = Bench::open(PLAIN).await;
    let boot = bench.boot_id().await;
    let counted = json!({"command": "echo run >> count; while [ ! -e go ]; do sleep 0.02; done; echo end"});

    // Begun by a server that is then gone.
    let (running, mut progress) = bench.context();
    let call = tokio::spawn({
        let (context, counted) =
            (running.clone(), json!({"command": format!("echo on; {}", counted["command"].as_str().unwrap())}));
        async move { run(&context, "run_command", &counted).await }
    });
    timeout(LIMIT, progress.recv()).await.unwrap();
    let (written, _p1) = bench.context();
    let (job, _p2) = bench.context();
    let note = json!({"path": "note", "content": "x\n"});
    good(&run(&written, "write_file", &note).await, &[]);
    let server = json!({"command": "sleep 1000", "background": true});
    good(&run(&job, "run_command", &server).await, &[]);
    call.abort();
    bench.sandboxes.shutdown().await;
    bench.sandboxes = open(&bench.options).await;

    let again = |context: &ToolContext| ToolContext { sandboxes: bench.sandboxes.clone(), ..context.clone() };
    let resume = |context: ToolContext, name: &'static str, arguments: Value, boot: String| async move {
        timeout(LIMIT, tools::resume(&context, name, &arguments.to_string(), &boot))
            .await
            .expect("ends within its limit")
    };
    let attached = tokio::spawn(resume(again(&running), "run_command", counted.clone(), boot.clone()));
    bench.sh("touch go").await;
    good(&attached.await.unwrap(), &["exit code: 0", "end"]);
    good(&resume(again(&running), "run_command", counted.clone(), boot.clone()).await, &["exit code: 0", "end"]);
    assert_eq!(bench.sh("cat count").await, "run", "it ran once");
    good(&resume(again(&written), "write_file", note.clone(), boot.clone()).await, &["note was written"]);
    good(
        &resume(again(&job), "run_command", server.clone(), boot.clone()).await,
        &["Running in the background as job-"],
    );

    // Its intent was recorded, and nothing more.
    let (never, _p3) = bench.context();
    for (name, arguments) in [("run_command", &counted), ("run_command", &server), ("write_file", &note)] {
        bad(&resume(never.clone(), name, arguments.clone(), boot.clone()).await, &["Did not run"]);
        bad(
            &resume(never.clone(), name, arguments.clone(), "another".into()).await,
            &["unknown: the sandbox was restarted"],
        );
    }
    good(&resume(never, "read_file", json!({"path": "note"}), boot).await, &["x"]);
    assert_eq!(bench.sh("cat count").await, "run", "it ran once");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_make_no_sense_are_answered() {
    let bench = Bench::open(PLAIN).await;
    let (context, _progress) = bench.context();
    for (name, arguments, says) in [
        ("read_files", "{}", "Do you mean `read_file`?"),
        ("", "{}", "there is no tool"),
        ("write_file", r#"{"path":"a","content":"cut of"#, "cannot use these arguments"),
        ("run_command", "ls -la", "cannot use these arguments"),
        ("edit_file", r#"{"path":"a"}"#, "missing field `old_text`"),
        ("take_screenshot", "{}", "missing field `url`"),
    ] {
        bad(&tools::run(&context, name, arguments).await, &[says]);
    }
    // None of them needed a sandbox.
    assert!(bench.sandboxes.list().await.unwrap().is_empty());
    bench.close().await;
}
