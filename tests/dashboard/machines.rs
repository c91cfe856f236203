//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
};

use prometheus_parse::{Sample, Scrape, Value};
use serde_json::json;

use super::{
    get,
    support::{
        replies::Reply,
        rig::{BARE, Rig, block_on},
        scripted,
    },
    with_port,
};

/// The labels of the samples of a metric.
const LABELS: [(&str, &[&str]); 16] = [
    ("matrix_agent_build_info", &["version"]),
    ("process_start_time_seconds", &[]),
    ("process_resident_memory_bytes", &[]),
    ("matrix_agent_ready", &[]),
    ("matrix_agent_turns_running", &["bot"]),
    ("matrix_agent_turn_duration_seconds", &["bot", "ending"]),
    ("matrix_agent_tool_duration_seconds", &["gen_ai_tool_name", "outcome"]),
    ("gen_ai_client_operation_duration_seconds", &["gen_ai_operation_name", "gen_ai_request_model", "error_type"]),
    ("gen_ai_client_token_usage", &["gen_ai_token_type", "gen_ai_request_model", "gen_ai_agent_name"]),
    ("matrix_agent_cached_tokens_total", &["gen_ai_request_model", "gen_ai_agent_name"]),
    ("matrix_agent_cost_dollars_total", &["gen_ai_request_model", "gen_ai_agent_name"]),
    ("matrix_agent_sandboxes", &["state"]),
    ("matrix_agent_messages_waiting", &[]),
    ("matrix_agent_answers_unsent", &[]),
    ("matrix_agent_edits_held_back_total", &[]),
    ("matrix_agent_sends_refused_total", &[]),
];
/// The one metric of these that has the labels of its buckets alone.
const LAG: &str = "matrix_agent_ipc_lag_seconds";

fn scrape(text: &str) -> Vec<Sample> {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap().samples
}

/// The sample of this metric with these values of labels.
fn sample<'a>(samples: &'a [Sample], metric: &str, labels: &[&str]) -> &'a Value {
    let fits = |sample: &&Sample| {
        sample.metric == metric && labels.iter().all(|value| sample.labels.values().any(|known| known == value))
    };
    &samples.iter().find(fits).unwrap_or_else(|| panic!("no {metric} {labels:?} in {samples:#?}")).value
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number) => *number,
        other => panic!("{other:?}"),
    }
}

/// How often something was observed.
fn count(samples: &[Sample], metric: &str, labels: &[&str]) -> f64 {
    number(sample(samples, &format!("{metric}_count"), labels))
}

#[test]
fn what_was_done_is_counted_as_prometheus_reads_it_and_no_label_comes_from_outside() {
    let (llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    rig.configure("[models]\n\"openai/scripted\" = { price = { input = 1, output = 2 } }\n");
    llm.reply(Reply::command("ipc-send progress half || true"))
        .reply(Reply::calls(&[("no_such_tool_!x:y", json!({}))]))
        .reply_text("Done.");
    let server = rig.serve();
    let (code, frames) = rig.ask("the-room", "go on").finish();
    assert_eq!(code, 0, "{frames:#?}");

    let (status, text) = block_on(get(&format!("{address}/metrics"), None));
    assert_eq!(status, 200, "{text}");
    let samples = scrape(&text);
    let number = |metric, labels: &[&str]| number(sample(&samples, metric, labels));
    assert!(number("matrix_agent_ready", &[]) > 0.5 && number("matrix_agent_turns_running", &["coder"]) < 0.5);
    assert!(number("process_resident_memory_bytes", &[]) > 1e7);
    assert!(number("matrix_agent_sandboxes", &["running"]) > 0.5);
    for (metric, labels, times) in [
        ("matrix_agent_turn_duration_seconds", &["coder", "done"][..], 1.0),
        ("matrix_agent_tool_duration_seconds", &["run_command", "done"], 1.0),
        ("gen_ai_client_operation_duration_seconds", &["openai/scripted", "chat"], 3.0),
        ("gen_ai_client_token_usage", &["input", "openai/scripted", "orchestrator"], 3.0),
        ("gen_ai_client_token_usage", &["output", "openai/scripted", "orchestrator"], 3.0),
    ] {
        assert!((count(&samples, metric, labels) - times).abs() < 0.1, "{metric} {labels:?} {text}");
    }
    assert!(number("matrix_agent_cost_dollars_total", &["openai/scripted"]) > 0.0);

    // Each metric has its labels and no others, and their values are names that were known before.
    let known: BTreeMap<_, _> = LABELS.into_iter().collect();
    let mut seen = BTreeSet::new();
    for Sample { metric, labels, .. } in &samples {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part)).unwrap_or(metric);
        let expected = if base == LAG { &[][..] } else { known.get(base).unwrap_or_else(|| panic!("{base} is new")) };
        let names: BTreeSet<_> = labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
        assert!(names.iter().all(|name| expected.contains(name)), "{metric} {labels:?}");
        let foreign = labels.values().any(|value| value.contains("the-room") || value.contains('!'));
        assert!(!foreign, "{metric} {labels:?}");
        seen.insert(base.to_owned());
    }
    let expected: BTreeSet<_> = known.keys().map(|name| (*name).to_owned()).chain([LAG.to_owned()]).collect();
    assert_eq!(seen, expected, "{text}");
    drop(server);
}

#[test]
fn health_and_readiness_are_told_to_this_machine_and_to_names_that_name_them() {
    let (_llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    rig.set("HTTP_NAMES", "agent.example.org, watch.example.org/readyz");
    let server = rig.serve();
    block_on(async {
        let ask = async |path: &str, name| get(&format!("{address}{path}"), name).await;
        assert_eq!(ask("/healthz", None).await, (200, "It lives.\n".to_owned()));
        assert_eq!(ask("/readyz", None).await, (200, "It serves.\n".to_owned()));
        assert_eq!(ask("/readyz", Some("watch.example.org")).await.0, 200);
        for (path, name, status) in [
            ("/metrics", "watch.example.org", 404),
            ("/readyz", "agent.example.org", 404),
            ("/metrics", "agent.example.org", 404),
            ("/metrics", "evil.example.org", 421),
        ] {
            assert_eq!(ask(path, Some(name)).await.0, status, "{path} {name}");
        }
    });
    drop(server);
}

#[test]
fn a_server_without_podman_lives_and_is_not_ready_and_says_why() {
    let (_llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    rig.set("PODMAN_PATH", "/nowhere/podman");
    rig.set("PODMAN_SOCKET", "/nowhere/podman.sock");
    let server = rig.serve();
    let (status, why) = block_on(get(&format!("{address}/readyz"), None));
    assert!(status == 503 && why.starts_with("There are no sandboxes: ") && why.contains("Podman"), "{status} {why}");
    assert_eq!(block_on(get(&format!("{address}/healthz"), None)).0, 200);
    let (_, text) = block_on(get(&format!("{address}/metrics"), None));
    assert!(text.contains("\nmatrix_agent_ready 0\n"), "{text}");
    drop(server);
}

#[test]
fn a_server_whose_disk_is_full_lives_and_is_not_ready_until_there_is_space() {
    let (_llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    let state = rig.database().parent().unwrap().to_owned();
    let script = "mkdir -p \"$STATE_DIR\" && mount -t tmpfs -o size=24m,mode=700 none \"$STATE_DIR\" && exec \"$0\" --env-file /dev/null run";
    rig.serve_with("unshare".into(), &["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_matrix-agent")]);
    let server = rig.serve();
    let ready = || block_on(get(&format!("{address}/readyz"), None));
    assert_eq!(ready().0, 200);
    // The disk as the server sees it.
    let inside = format!("/proc/{}/root{}/fill", server.pid(), state.display());
    let mut fill = fs::File::create(&inside).unwrap();
    while fill.write_all(&[0; 4096]).is_ok() {}
    let (status, why) = ready();
    assert!(status == 503 && why.contains("disk that holds the database is full"), "{status} {why}");
    assert_eq!(block_on(get(&format!("{address}/healthz"), None)).0, 200);
    fs::remove_file(inside).unwrap();
    drop(fill);
    assert_eq!(ready().0, 200);
    drop(server);
}

#[test]
fn a_server_whose_homeserver_is_away_lives_and_is_not_ready() {
    let mut rig = Rig::new(BARE, "http://127.0.0.1:9");
    let address = with_port(&mut rig);
    for (key, value) in [
        ("MATRIX_HOMESERVER", "http://127.0.0.1:9"),
        ("MATRIX_USER", "@bot:localhost"),
        ("MATRIX_PASSWORD", "secret"),
        ("ALLOWED_USERS", "@anna:localhost"),
    ] {
        rig.set(key, value);
    }
    let server = rig.serve();
    let (status, why) = block_on(get(&format!("{address}/readyz"), None));
    assert!(status == 503 && why.starts_with("1 of 1 Matrix accounts do not follow their homeserver: "), "{why}");
    assert!(!why.contains("secret"), "{why}");
    assert_eq!(block_on(get(&format!("{address}/healthz"), None)).0, 200);
    drop(server);
}

#[test]
fn the_dashboard_for_grafana_shows_all_metrics_and_no_others() {
    let file = include_str!("../../dashboards/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(file).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
            let begins = ["matrix_agent_", "gen_ai_client_", "process_"];
            for metric in words.filter(|word| begins.iter().any(|begin| word.starts_with(begin))) {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part));
                shown.insert(base.unwrap_or(metric).to_owned());
            }
        }
    }
    let exported = LABELS.iter().map(|(metric, _)| *metric).chain([LAG]).map(str::to_owned).collect();
    assert_eq!(shown, exported);
}
