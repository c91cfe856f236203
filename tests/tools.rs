//! Every tool against a real sandbox: good calls, bad ones, and what a hostile or careless program does to them.
//!
//! Needs Podman and its images `debian:trixie-slim` and, for the tests with Python or a browser, the sandbox image.

use std::{path::PathBuf, time::Duration};

use matrix_agent::{
    gateway::{AllowedHosts, Gateway, GatewayPolicy, Network},
    ids::{self, CallId, RoomKey},
    sandbox::{SandboxOptions, Sandboxes},
    tools::{self, ToolContext, ToolLimits, ToolProgress, ToolResult},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

const PLAIN: &str = "docker.io/library/debian:trixie-slim";
const FULL: &str = "localhost/matrix-agent-sandbox:latest";
/// No call of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(100);

/// One room with a sandbox of its own.
struct Bench {
    sandboxes: Sandboxes,
    options: SandboxOptions,
    room: RoomKey,
    _state: TempDir,
}

impl Bench {
    async fn open(image: &str) -> Self {
        let state = tempfile::Builder::new().prefix("ma-tools").tempdir_in("/tmp").unwrap();
        let options = SandboxOptions {
            state_dir: state.path().to_owned(),
            instance: format!("tools-{}", ids::random(4)),
            image: image.to_owned(),
            podman_socket: std::env::var_os("PODMAN_SOCKET").map(PathBuf::from),
            podman_path: "podman".into(),
            memory: 1 << 30,
            cpus: 2.0,
            pids: 256,
            disk: 20 << 30,
            idle: Duration::from_hours(1),
            max_running: 4,
            host_disk_reserve: 1 << 30,
            ca_bundle: None,
        };
        let sandboxes = open(&options).await;
        let room = RoomKey(format!("tools:{}", ids::random(4)));
        Self { sandboxes, options, room, _state: state }
    }

    fn context(&self) -> (ToolContext, mpsc::Receiver<ToolProgress>) {
        let (progress, receiver) = mpsc::channel(16);
        let context = ToolContext {
            sandboxes: self.sandboxes.clone(),
            room: self.room.clone(),
            call: CallId(ids::random(8)),
            cancel: CancellationToken::new(),
            progress,
            limits: ToolLimits { command: Duration::from_secs(20), longest: Duration::from_mins(1) },
            vision: true,
        };
        (context, receiver)
    }

    async fn call(&self, name: &str, arguments: Value) -> ToolResult {
        let (context, _progress) = self.context();
        run(&context, name, &arguments).await
    }

    /// Runs a command that has to succeed and returns its output.
    async fn sh(&self, command: &str) -> String {
        let result = self.call("run_command", json!({ "command": command })).await;
        assert!(result.ok, "{command}: {}", result.text);
        result.text.strip_prefix("exit code: 0\n").unwrap_or_else(|| panic!("{}", result.text)).to_owned()
    }

    /// Counts the processes whose command line matches (write it so that it does not match itself).
    async fn running(&self, pattern: &str) -> String {
        self.sh(&format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '{pattern}' | wc -l")).await
    }

    async fn boot_id(&self) -> String {
        self.sandboxes.ensure(&self.room).await.unwrap().boot_id().to_owned()
    }

    async fn close(self) {
        self.sandboxes.shutdown().await;
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let label = format!("label=matrix-agent.instance={}", self.options.instance);
        for id in podman(&["ps", "--all", "--quiet", "--filter", &label]).lines() {
            podman(&["rm", "--force", "--time", "0", id]);
        }
        for name in podman(&["volume", "ls", "--quiet", "--filter", &label]).lines() {
            podman(&["volume", "rm", "--force", name]);
        }
    }
}

fn podman(arguments: &[&str]) -> String {
    let output = std::process::Command::new("podman").args(arguments).output().expect("podman is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn open(options: &SandboxOptions) -> Sandboxes {
    let gateway =
        Gateway::new(GatewayPolicy::new(AllowedHosts::standard()), Network::system(), CancellationToken::new());
    Sandboxes::open(options.clone(), gateway, &CancellationToken::new()).await.unwrap()
}

async fn run(context: &ToolContext, name: &str, arguments: &Value) -> ToolResult {
    timeout(LIMIT, tools::run(context, name, &arguments.to_string())).await.expect("ends within its limit")
}

#[track_caller]
fn good(result: &ToolResult, parts: &[&str]) {
    assert!(result.ok, "{}", result.text);
    says(result, parts);
}

#[track_caller]
fn bad(result: &ToolResult, parts: &[&str]) {
    assert!(!result.ok, "{}", result.text);
    says(result, parts);
}

#[track_caller]
fn says(result: &ToolResult, parts: &[&str]) {
    for part in parts {
        assert!(result.text.contains(part), "{part:?} is not in: {}", result.text);
    }
    assert!(!result.summary.is_empty() && !result.summary.contains('\n'), "{:?}", result.summary);
}

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
    assert!(endless.text.len() < 17 * 1024, "{}", endless.text.len());
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
    assert!(one_token.text.len() < 17 * 1024, "{}", one_token.text.len());

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
async fn a_background_job_is_read_and_ended_later() {
    let bench = Bench::open(PLAIN).await;
    let line = "echo begun; while [ ! -e /workspace/go ]; do sleep 0.02; done; echo went; sleep 1000";
    let started = bench.call("run_command", json!({"command": line, "background": true})).await;
    good(&started, &["Running in the background as job-", "begun"]);
    let job = started
        .text
        .split_whitespace()
        .find_map(|word| word.strip_suffix('.').filter(|it| it.starts_with("job-")))
        .unwrap();
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
    good(&flood, &["Running in the background", "flood", "bytes cut"]);
    assert!(flood.text.len() < 17 * 1024, "{}", flood.text.len());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_and_edited() {
    let bench = Bench::open(PLAIN).await;
    let write = |path: &str, content: &str| bench.call("write_file", json!({"path": path, "content": content}));
    let edit = |path: &str, old: &str, new: &str| {
        bench.call("edit_file", json!({"path": path, "old_text": old, "new_text": new}))
    };

    let created = write("src/deep/grüße 世界.txt", "one\ntwo\n").await;
    good(&created, &["Created /workspace/src/deep/grüße 世界.txt: 2 lines, 8 B"]);
    assert_eq!(created.summary, "created src/deep/grüße 世界.txt (+2 −0)");
    assert_eq!(created.facts.edits.len(), 1);
    good(&write("src/deep/grüße 世界.txt", "one\n2\n3\n").await, &["Replaced", "2 lines before, 3 now (+2 −1)"]);
    let same = write("src/deep/grüße 世界.txt", "one\n2\n3\n").await;
    good(&same, &["Unchanged"]);
    assert!(same.facts.edits.is_empty());
    let more =
        bench.call("write_file", json!({"path": "src/deep/grüße 世界.txt", "content": "4\n", "append": true})).await;
    good(&more, &["Added to", "4 lines"]);
    assert_eq!(bench.sh("cat src/deep/*; stat -c %U src/deep/*").await, "one\n2\n3\n4\nagent");

    bench.sh("mkfifo pipe; printf '#!/bin/sh\\r\\necho 1\\r\\n' > run.sh; chmod 750 run.sh; ln -s run.sh link; mkdir dir").await;
    let edited = edit("run.sh", "echo 1", "echo 2\necho 3").await;
    good(&edited, &["Edited /workspace/run.sh (+2 −1).", "Lines 1–3 of 3 now:"]);
    assert_eq!(edited.summary, "edited run.sh (+2 −1)");
    assert_eq!(
        bench.sh("od -c run.sh | grep -c '\\\\r'; stat -c %a run.sh; tail -n 1 run.sh | tr -d '\\r'").await,
        "2\n750\necho 3"
    );
    good(&edit("run.sh", "#!/bin/sh\necho 2\n", "#!/bin/sh\necho 4\n").await, &["inexact (line ends)"]);
    bad(&edit("run.sh", "echo", "x").await, &["2 times", "lines 2, 3"]);
    bad(&edit("run.sh", "echo 5", "x").await, &["is not in", "The nearest lines, from line"]);
    bad(&edit("run.sh", "", "x").await, &["old_text is empty"]);
    bad(&edit("run.sh", "a", "a").await, &["nothing to change"]);

    for path in ["dir", "pipe", "not/there", "/proc/version", "/dev/zero", "/dev/full"] {
        bad(&edit(path, "x", "y").await, &[path]);
    }
    for path in ["dir", "pipe", "/etc/passwd", "/proc/version", "dir/", "run.sh/x"] {
        bad(&write(path, "x").await, &[path]);
    }
    bad(&write("big", &"x".repeat(3 << 20)).await, &["3 MiB", "2 MiB is the limit"]);
    bench.sh("truncate -s 10G huge; printf 'caf\\351' > latin").await;
    bad(&edit("huge", "x", "y").await, &["10 GiB"]);
    bad(&edit("latin", "caf", "y").await, &["not UTF-8"]);
    good(&write("huge", "small\n").await, &["Replaced /workspace/huge: 10 GiB before, 1 lines"]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_within_bounds() {
    let bench = Bench::open(PLAIN).await;
    let read = |arguments: Value| bench.call("read_file", arguments);
    bench
        .sh("seq 1 5000 > numbers; : > empty; mkfifo pipe; mkdir dir; truncate -s 10G sparse; ln -s /etc/passwd out")
        .await;
    bench
        .sh("head -c 300000 /dev/zero | tr '\\0' y > long; cp /bin/ls elf; seq 1 200000 > many; ln -s loop loop")
        .await;

    let first = read(json!({"path": "numbers"})).await;
    good(&first, &["1\n2\n3\n", "\n2000\n[lines 1–2000 of 5000 lines; go on with offset=2001]"]);
    let range = read(json!({"path": "numbers", "offset": 4999, "limit": 10})).await;
    assert_eq!(range.text, "4999\n5000\n[lines 4999–5000 of 5000 lines: the end]");
    bad(&read(json!({"path": "numbers", "offset": 9999})).await, &["behind the end", "5000 lines"]);
    let far = read(json!({"path": "many", "offset": 150_000, "limit": 1})).await;
    good(&far, &["150000\n[lines 150000–150000 of 1.2 MiB; go on with offset=150001]"]);
    let long = read(json!({"path": "long"})).await;
    good(&long, &["yyyy", "[line of 300000 bytes cut]", "1 lines were cut at 2000 characters"]);
    assert!(long.text.len() < 2200);
    good(&read(json!({"path": "empty"})).await, &["/workspace/empty is empty"]);
    good(&read(json!({"path": "elf"})).await, &["an ELF program", "not shown"]);
    good(&read(json!({"path": "out"})).await, &["root:x:0:0"]);
    good(&read(json!({"path": "/proc/version"})).await, &["Linux"]);
    good(&read(json!({"path": "sparse"})).await, &["binary data, 10 GiB"]);
    bench.sh("printf 'text\\n' | dd of=sparse conv=notrunc status=none").await;
    for (path, says) in [
        ("dir", "is a directory"),
        ("pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("not/there", "no such file"),
        ("loop", "loop"),
        ("/etc/shadow", "may not"),
        ("a\0b", "NUL"),
        ("", "path is empty"),
    ] {
        bad(&read(json!({"path": path})).await, &[says]);
    }

    // The smallest PNG.
    bench.sh("echo iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg== | base64 -d > dot.png").await;
    let picture = read(json!({"path": "dot.png"})).await;
    good(&picture, &["is a picture (image/png, 70 B); it follows"]);
    assert_eq!((picture.images.len(), picture.images[0].mime.as_str()), (1, "image/png"));
    let (mut context, _progress) = bench.context();
    context.vision = false;
    let unseen = run(&context, "read_file", &json!({"path": "dot.png"})).await;
    good(&unseen, &["You cannot see pictures"]);
    assert!(unseen.images.is_empty());
    bench.sh("cp dot.png big.png; truncate -s 4M big.png").await;
    bad(&read(json!({"path": "big.png"})).await, &["4 MiB, and 3 MiB is the limit"]);

    let sent = bench.call("send_file", json!({"path": "dot.png"})).await;
    good(&sent, &["goes to the room as dot.png"]);
    assert_eq!((sent.attachments[0].name.as_str(), sent.attachments[0].data.len()), ("dot.png", 70));
    bench.sh("truncate -s 19M fits; echo x >> fits; truncate -s 30M large").await;
    assert_eq!(bench.call("send_file", json!({"path": "fits"})).await.attachments[0].data.len(), (19 << 20) + 2);
    for (path, says) in [
        ("large", "30 MiB"),
        ("sparse", "10 GiB"),
        ("empty", "is empty"),
        ("dir", "is a directory"),
        ("pipe", "not a regular"),
        ("x", "no such file"),
    ] {
        bad(&bench.call("send_file", json!({"path": path})).await, &[says]);
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_make_no_sense_are_answered() {
    let bench = Bench::open(PLAIN).await;
    let (context, _progress) = bench.context();
    for (name, arguments, says) in [
        ("read_files", "{}", "Do you mean read_file?"),
        ("", "{}", "There is no tool"),
        ("write_file", r#"{"path":"a","content":"cut of"#, "cut off"),
        ("run_command", "ls -la", "no valid JSON"),
        ("edit_file", r#"{"path":"a"}"#, "missing field `old_text`"),
        ("take_screenshot", "{}", "missing field `url`"),
    ] {
        bad(&tools::run(&context, name, arguments).await, &[says]);
    }
    // None of them needed a sandbox.
    assert!(bench.sandboxes.list().await.unwrap().is_empty());
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
    bad(&resume(never, "read_file", json!({"path": "note"}), boot).await, &["make it again"]);
    assert_eq!(bench.sh("cat count").await, "run", "it ran once");
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
    assert!(own.text.len() < 17 * 1024 && !own.text.contains("@@"), "{}", own.text.len());
    let slow = bench
        .call("run_tests", json!({"path": "web", "command": "echo begun; sleep 1000", "timeout_seconds": 1}))
        .await;
    bad(&slow, &["tests timed out", "begun"]);
    bench.close().await;
}

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
