//! A real llama-server, Debian's, from a container image with a tiny model of random numbers (`scripts/llama-image.sh`). Where the
//! image could not be built this test says so and looks at nothing.

use std::{
    fs::{self, File},
    process::Command,
    time::{Duration, Instant},
};

use matrix_agent::{
    inference::engine::{Binary, Engine, Options, Standing},
    llm::{Chunk, Message, Meter, Part},
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::support::rig::wait;

const IMAGE: &str = "localhost/matrix-agent-llama:latest";
const LIMIT: Duration = Duration::from_mins(2);

/// The tiny model, out of the image; `None` where there is no image.
fn model(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let is_there = Command::new("podman").args(["image", "exists", IMAGE]).status().unwrap().success();
    if !is_there {
        assert!(std::env::var_os("LLAMA_REQUIRED").is_none(), "there is no {IMAGE}");
        #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
        {
            eprintln!("LEFT OUT: there is no {IMAGE}; scripts/llama-image.sh builds it");
        }
        return None;
    }
    let path = folder.join("tiny-a.gguf");
    let copied = Command::new("podman")
        .args(["run", "--rm", "--pull=never", "--network=none", "--entrypoint", "cat", IMAGE, "/models/tiny-a.gguf"])
        .stdout(File::create(&path).unwrap())
        .status()
        .unwrap();
    assert!(copied.success());
    Some(path)
}

/// Asks something, and returns how long the first word took.
async fn ask(engine: &Engine, words: &str) -> Duration {
    let started = Instant::now();
    let lease = timeout(LIMIT, engine.wake(&|_| {})).await.unwrap().unwrap_or_else(|why| panic!("{why}"));
    let question = [Message::User { parts: vec![Part::Text { text: words.to_owned() }] }];
    let (mut first, meter) = (None, Meter::new(1));
    let mut on_chunk = |_: Chunk| {
        first.get_or_insert_with(|| started.elapsed());
    };
    let answer = lease.model.complete(&question, &[], Some(16), &meter, &mut on_chunk);
    timeout(LIMIT, answer).await.unwrap().unwrap();
    first.expect("a word")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_wakes_in_a_container_keeps_its_conversation_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let Some(model) = model(folder.path()) else { return };
    let name = format!("matrix-agent-exobot-test-{}", std::process::id());
    let options = Options {
        binary: Binary::Image { image: IMAGE.to_owned(), podman: "podman".into(), name: name.clone() },
        model,
        folder: folder.path().join("exobot"),
        idle: Some(Duration::from_secs(2)),
        threads: 1,
        pressure: None,
    };
    fs::create_dir(&options.folder).unwrap();
    let slots = options.folder.join("slots");
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let engine = Engine::start(options, &tasks, cancel.clone()).unwrap();
    let words = "word ".repeat(100);
    ask(&engine, &words).await;
    let mut standing = engine.watch();
    timeout(LIMIT, standing.wait_for(|now| matches!(now, Standing::Asleep(Some(_))))).await.unwrap().unwrap();
    let saved: Vec<_> = fs::read_dir(&slots).unwrap().flatten().collect();
    assert_eq!(saved.len(), 1, "its conversation is kept");
    assert!(saved[0].metadata().unwrap().len() > 0);
    let containers = || {
        let all = Command::new("podman").args(["ps", "--all", "--quiet", "--filter", &format!("name={name}")]).output();
        String::from_utf8(all.unwrap().stdout).unwrap()
    };
    // It is told that the model sleeps as soon as its conversation is saved.
    tokio::task::block_in_place(|| wait("the container's end", || containers().is_empty()));
    ask(&engine, &words).await;
    cancel.cancel();
    tasks.close();
    timeout(LIMIT, tasks.wait()).await.unwrap();
    assert_eq!(containers(), "");
}
