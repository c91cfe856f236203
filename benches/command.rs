//! A command in a sandbox: what it costs above a bare fork and exec, what Podman's own ways cost, how fast output comes,
//! and what memory all this takes. The server's part runs in this process.

use std::{fs, time::Instant};

use bollard::{
    Docker,
    exec::{CreateExecOptions, StartExecResults},
};
use futures_util::StreamExt;
use matrix_agent::sandbox::Sandbox;

use support::{House, Times, end, memory, output, podman, row, run, spawn, table};

mod support;

/// Commands of one kind in a row, and rows.
const BATCH: usize = 30;
const BATCHES: usize = 12;
const REST: usize = 25;
const CLI: usize = 15;
/// The bytes that a noisy command writes.
const OUTPUT: u64 = 100_000_000;
const STREAMS: usize = 12;

/// Prints the microseconds that each of `$1` forks and execs of `$2` and what follows takes.
const BASH: &str =
    r#"for ((i = 0; i < $1; i++)); do a=$EPOCHREALTIME; "${@:2}"; b=$EPOCHREALTIME; echo $((${b/./} - ${a/./})); done"#;
/// Prints the hundredths of a second that `$1` take together, in a shell that uses vfork.
const DASH: &str = r"read a _ < /proc/uptime; i=0; while [ $i -lt $1 ]; do /bin/true; i=$((i+1)); done; read b _ < /proc/uptime; echo $a $b";
const DASHES: u32 = 100;

fn main() {
    run(measure());
}

async fn measure() {
    let house = House::new("bench-command");
    let fleet = house.open(house.options()).await;
    let room = house.room("one");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let container = House::container(&fleet, &room).await;
    let started = Instant::now();
    table("A command");

    trivial(&sandbox, &house.docker(), &container).await;
    streaming(&sandbox).await;

    let pid = podman(&["inspect", "--format", "{{.State.Pid}}", &container]);
    let rss = memory(&pid, "status", "VmRSS");
    row("sandboxd, resident memory, after all this", "≤ 2 MB", &format!("{rss:.2} MB"), "", "");
    end(started);
    drop(sandbox);
    fleet.shutdown().await;
}

async fn trivial(sandbox: &Sandbox, docker: &Docker, container: &str) {
    let [mut ours, mut bash, mut tool, mut bare_tool] = [const { Times::new() }; 4];
    let mut dash = 0.0;
    through(sandbox, &["/bin/true"], &mut Times::new()).await; // warms up
    for _ in 0..BATCHES {
        through(sandbox, &["/bin/true"], &mut ours).await;
        within(sandbox, &["/bin/true"], &mut bash).await;
        through(sandbox, &["bash", "-c", "true"], &mut tool).await;
        within(sandbox, &["bash", "-c", "true"], &mut bare_tool).await;
        let printed = output(sandbox, &["dash", "-c", DASH, "dash", &DASHES.to_string()]).await;
        let (before, after) = printed.split_once(' ').unwrap();
        dash += after.parse::<f64>().unwrap() - before.parse::<f64>().unwrap();
    }
    let dash = dash * 1e3 / f64::from(DASHES) / BATCHES as f64;

    let (mut rest, mut cli) = (Times::default(), Times::default());
    for _ in 0..REST {
        let start = Instant::now();
        rest_exec(docker, container).await;
        rest.since(start);
    }
    for _ in 0..CLI {
        let start = Instant::now();
        podman(&["exec", "--user", "1000:1000", container, "/bin/true"]);
        cli.since(start);
    }

    let (mine, bash) = (ours.median(), bash.median());
    let floor = bash.min(dash);
    row(
        "a trivial command, median, above a bare fork, exec and wait in the same container",
        "≤ 1 ms above",
        &format!("{mine:.2} ms (p95 {:.2})", ours.percentile(95)),
        &format!("bash {bash:.2} ms, dash {dash:.2} ms (mean, vfork)"),
        &format!("+{:.2} ms", mine - floor),
    );
    let (mine_tool, bare_tool) = (tool.median(), bare_tool.median());
    row(
        "`bash -c true`, as a tool's call runs it, median",
        "",
        &format!("{mine_tool:.2} ms"),
        &format!("{bare_tool:.2} ms from bash"),
        &format!("+{:.2} ms", mine_tool - bare_tool),
    );
    for (what, times) in [("Podman's REST exec", &rest), ("`podman exec`", &cli)] {
        row(
            &format!("the same, compared with {what}, medians"),
            "≥ 30 × faster",
            &format!("{mine:.2} ms"),
            &format!("{:.1} ms", times.median()),
            &format!("{:.0} ×", times.median() / mine),
        );
    }
}

/// Runs a command again and again through the sandbox.
async fn through(sandbox: &Sandbox, argv: &[&str], times: &mut Times) {
    for _ in 0..BATCH {
        let start = Instant::now();
        spawn(sandbox, argv).await.wait().await.unwrap();
        times.since(start);
    }
}

/// Has bash in the container run it again and again.
async fn within(sandbox: &Sandbox, argv: &[&str], times: &mut Times) {
    let count = BATCH.to_string();
    let printed = output(sandbox, &[&["bash", "-c", BASH, "bash", &count], argv].concat()).await;
    printed.lines().for_each(|micros| times.push(micros.parse::<f64>().unwrap() / 1e3));
}

/// The three requests that a command and its exit code take.
async fn rest_exec(docker: &Docker, container: &str) {
    let options = CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        user: Some("1000:1000"),
        cmd: Some(vec!["/bin/true"]),
        ..Default::default()
    };
    let exec = docker.create_exec(container, options).await.unwrap().id;
    let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await.unwrap() else {
        panic!("a detached exec");
    };
    while let Some(Ok(_)) = output.next().await {}
    assert_eq!(docker.inspect_exec(&exec).await.unwrap().exit_code, Some(0));
}

async fn streaming(sandbox: &Sandbox) {
    let noise = format!("head -c {OUTPUT} /dev/zero");
    let before = memory("self", "status", "VmRSS");
    fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak starts anew

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        ours.push(megabytes_a_second(drain(sandbox.clone(), noise.clone()).await));
        let script =
            format!("a=$EPOCHREALTIME; {noise} | cat > /dev/null; b=$EPOCHREALTIME; echo $((${{b/./}} - ${{a/./}}))");
        let micros: f64 = output(sandbox, &["bash", "-c", &script]).await.parse().unwrap();
        bare.push(megabytes_a_second(micros / 1e6));
    }
    let peak = memory("self", "status", "VmHWM");
    let after = memory("self", "status", "VmRSS");

    let mut beside = Times::default();
    for _ in 0..STREAMS {
        let stream = tokio::spawn(drain(sandbox.clone(), noise.clone()));
        while !stream.is_finished() {
            let start = Instant::now();
            spawn(sandbox, &["/bin/true"]).await.wait().await.unwrap();
            beside.since(start);
        }
    }
    row(
        &format!("a trivial command while another of its room writes 100 MB, p95 ({} commands)", beside.count()),
        "≤ 5 ms",
        &format!("{:.2} ms (p50 {:.2})", beside.percentile(95), beside.median()),
        "",
        "",
    );
    let (mine, pipe) = (middle(ours), middle(bare));
    row(
        "a command's output, 100 MB, median",
        "≥ 200 MB/s",
        &format!("{mine:.0} MB/s"),
        &format!("{pipe:.0} MB/s into `cat` in the container"),
        &format!("{:.2} ×", mine / pipe),
    );
    row(
        "the server's memory meanwhile",
        "flat",
        &format!("{before:.1} MB before, {after:.1} after, {peak:.1} at most"),
        "",
        "",
    );
}

/// Reads the whole output of a command line as a tool does; returns the seconds that it took.
async fn drain(sandbox: Sandbox, line: String) -> f64 {
    let start = Instant::now();
    let mut process = spawn(&sandbox, &["sh", "-c", &line]).await;
    let mut bytes = 0;
    while let Some(chunk) = process.next().await {
        bytes += chunk.len() as u64;
    }
    process.wait().await.unwrap();
    assert_eq!(bytes, OUTPUT);
    start.elapsed().as_secs_f64()
}

fn megabytes_a_second(seconds: f64) -> f64 {
    OUTPUT as f64 / 1e6 / seconds
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
