//! Background jobs that are waited for.

use std::time::Duration;

use matrix_agent::tools::{self, ToolContext, ToolResult};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::bench::{Bench, LIMIT, PLAIN, bad, good, job_id, open, run};

/// Starts a job and returns its id.
async fn start(bench: &Bench, line: &str) -> String {
    let started = bench.call("run_command", json!({"command": line, "background": true})).await;
    job_id(&started).to_owned()
}

/// A job that says a word as soon as the file `word` is there, and ends with `end`.
const WORDS: &str =
    "echo begun; for word in one two end; do while [ ! -e $word ]; do sleep 0.02; done; echo $word; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_new_output_with_the_end_and_with_its_time() {
    let bench = Bench::open(PLAIN).await;
    let job = start(&bench, WORDS).await;
    let wait = |seconds: u64| {
        let (context, _progress) = bench.context();
        let arguments = json!({"job": job, "timeout_seconds": seconds});
        async move { run(&context, "run_command", &arguments).await }
    };
    let nothing = wait(1).await;
    good(&nothing, &["is still running and has written nothing new", "begun"]);
    assert!(nothing.facts.waits, "it is no repetition");

    // What came since the last look is there at once.
    bench.sh("touch one").await;
    let seen = wait(60).await;
    good(&seen, &["is running", "begun\none"]);
    assert!(seen.facts.waits);
    let asked = Instant::now();
    let (two, ()) = tokio::join!(wait(60), async { assert_eq!(bench.sh("touch two").await, "(no output)") });
    good(&two, &["is running", "begun\none\ntwo"]);
    let (end, ()) = tokio::join!(wait(60), async { assert_eq!(bench.sh("touch end").await, "(no output)") });
    good(&end, &["has ended", "exit code: 0", "begun\none\ntwo\nend"]);
    assert!(!end.facts.waits, "an end that is looked at again is a repetition");
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_from_the_room_ends_a_wait_and_a_stop_does() {
    let bench = Bench::open(PLAIN).await;
    let job = start(&bench, WORDS).await;
    let arguments = json!({"job": job, "timeout_seconds": 60});
    for (word, says) in [(true, "somebody has written in the room"), (false, "Stopped by the person")] {
        let (context, _progress) = bench.context();
        let token = if word { context.heard.clone() } else { context.cancel.clone() };
        let asked = Instant::now();
        let (result, ()) = tokio::join!(run(&context, "run_command", &arguments), async { token.cancel() });
        assert!(result.text.contains(says), "{}", result.text);
        assert_eq!((result.ok, result.text.contains("begun")), (word, word), "{}", result.text);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_sleeps_while_a_job_runs_is_a_wait() {
    let bench = Bench::open(PLAIN).await;
    let look = || bench.call("run_command", json!({"command": "sleep 0.1; cat log || true"}));
    assert!(!look().await.facts.waits, "nothing runs");
    let job = start(&bench, WORDS).await;
    assert!(look().await.facts.waits);
    assert!(!bench.call("run_command", json!({"command": "cat log || true"})).await.facts.waits);
    bench.call("run_command", json!({"job": job, "stop": true})).await;
    assert!(!look().await.facts.waits);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_a_crash_has_cut_off_is_made_again() {
    let mut bench = Bench::open(PLAIN).await;
    let boot = bench.boot_id().await;
    let job = start(&bench, WORDS).await;
    bench.sh("echo text > note").await;
    bench.sandboxes.shutdown().await;
    bench.sandboxes = open(&bench.options).await;
    let resume = async |name: &str, arguments: serde_json::Value| -> ToolResult {
        let (context, _progress) = bench.context();
        let context = ToolContext { jobs: tools::JobsSeen::default(), ..context };
        let arguments = arguments.to_string();
        timeout(LIMIT, tools::resume(&context, name, &arguments, &boot)).await.expect("ends within its limit")
    };
    let waiting = json!({"job": job, "timeout_seconds": 30});
    good(&resume("run_command", waiting.clone()).await, &["is running", "begun"]);
    good(&resume("read_file", json!({"path": "note"})).await, &["text"]);
    let sent = resume("send_file", json!({"path": "note"})).await;
    assert_eq!(sent.attachments.len(), 1, "{}", sent.text);
    good(&resume("run_command", json!({"job": job, "stop": true})).await, &["has ended"]);
    good(&resume("run_command", json!({"job": job, "stop": true})).await, &["has ended"]);
    good(&resume("run_command", waiting).await, &["has ended"]);
    bad(&resume("run_command", json!({"job": "job-00000000"})).await, &["There is no job"]);
    bench.close().await;
}
