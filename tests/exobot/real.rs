//! A real llama-server, Debian's, from a container image with a tiny model of random numbers (`scripts/llama-image.sh`). Where the
//! image could not be built these tests say so and look at nothing.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use matrix_agent::{
    inference::engine::{Binary, Engine, Options, Standing},
    llm::{Chunk, Message, Meter, Part, Usage},
};
use tokio::{task::block_in_place, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::support::rig::wait;

pub(super) const IMAGE: &str = "localhost/matrix-agent-llama:latest";
const LIMIT: Duration = Duration::from_mins(2);
/// Names a model of one's own, with which waking is measured.
pub(super) const MODEL: &str = "EXOBOT_GGUF";

/// The tiny model, out of the image; `None` where there is no image.
fn model(folder: &Path) -> Option<PathBuf> {
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

/// An engine whose server is a container of this name.
struct Lab {
    engine: Engine,
    name: String,
    slots: PathBuf,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// What a question came to.
struct Asked {
    /// How long the model took to wake.
    woken: Duration,
    /// How long its first word took from then on.
    first: Duration,
    usage: Usage,
    answer: Message,
}

impl Lab {
    fn new(model: PathBuf, folder: &Path, what: &str) -> Self {
        let name = format!("matrix-agent-exobot-{what}-{}", std::process::id());
        let options = Options {
            binary: Binary::Image { image: IMAGE.to_owned(), podman: "podman".into(), name: name.clone() },
            model,
            folder: folder.join("exobot"),
            idle: Some(Duration::from_secs(1)),
            threads: 1,
            pressure: None,
        };
        fs::create_dir(&options.folder).unwrap();
        let slots = options.folder.join("slots");
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let engine = Engine::start(options, &tasks, cancel.clone()).unwrap();
        Self { engine, name, slots, tasks, cancel }
    }

    async fn ask(&self, request: &[Message]) -> Asked {
        let started = Instant::now();
        let lease = timeout(LIMIT, self.engine.wake(&|_| {})).await.unwrap().unwrap_or_else(|why| panic!("{why}"));
        let (woken, started) = (started.elapsed(), Instant::now());
        let (mut first, meter) = (None, Meter::new(1));
        let mut on_chunk = |_: Chunk| {
            first.get_or_insert_with(|| started.elapsed());
        };
        let answer = lease.model.complete(request, &[], Some(16), &meter, &mut on_chunk);
        let answer = timeout(LIMIT, answer).await.unwrap().unwrap();
        let usage = answer.usage.expect("its server counts");
        Asked { woken, first: first.expect("a word"), usage, answer: Message::Assistant(answer.message) }
    }

    /// Waits until the model sleeps and nothing is left of its server.
    async fn sleep(&self) {
        let mut standing = self.engine.watch();
        timeout(LIMIT, standing.wait_for(|now| matches!(now, Standing::Asleep(Some(_))))).await.unwrap().unwrap();
        // It sleeps from when its conversation is saved, and the server ends after that.
        block_in_place(|| wait("the container's end", || self.containers().is_empty()));
    }

    fn containers(&self) -> String {
        let filter = format!("name={}", self.name);
        let all = Command::new("podman").args(["ps", "--all", "--quiet", "--filter", &filter]).output().unwrap();
        String::from_utf8(all.stdout).unwrap()
    }

    async fn end(self) {
        self.cancel.cancel();
        self.tasks.close();
        timeout(LIMIT, self.tasks.wait()).await.unwrap();
        assert_eq!(self.containers(), "");
    }
}

fn user(text: &str) -> Message {
    Message::User { parts: vec![Part::Text { text: text.to_owned() }] }
}

/// A conversation, and what is said after an answer of it.
fn conversation(sentences: usize) -> Vec<Message> {
    let story = "The river ran past the old mill and on to the sea, as it had for years. ".repeat(sentences);
    vec![Message::System { text: "You are exobot.".to_owned() }, user(&format!("{story}What did the river do?"))]
}

fn followed(mut conversation: Vec<Message>, answer: Message) -> Vec<Message> {
    conversation.extend([answer, user("And then?")]);
    conversation
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_wakes_in_a_container_keeps_its_conversation_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let Some(model) = model(folder.path()) else { return };
    let lab = Lab::new(model, folder.path(), "wakes");
    let before = conversation(5);
    let asked = lab.ask(&before).await;
    lab.sleep().await;
    let saved: Vec<_> = fs::read_dir(&lab.slots).unwrap().flatten().collect();
    assert_eq!(saved.len(), 1, "its conversation is kept");
    assert!(saved[0].metadata().unwrap().len() > 0);
    let again = lab.ask(&followed(before, asked.answer)).await;
    assert!(again.usage.cached > again.usage.input / 2, "it did not read what it knew: {:?}", again.usage);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: `EXOBOT_GGUF=model.gguf cargo nextest run --test exobot --run-ignored only --no-capture`"]
#[expect(clippy::print_stdout, reason = "it is for whoever measures")]
async fn how_long_the_first_word_takes_after_a_wake() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tiny) = model(folder.path()) else { return };
    let lab = Lab::new(std::env::var_os(MODEL).map_or(tiny, PathBuf::from), folder.path(), "measures");
    let (mut medians, before) = (vec![], conversation(75));
    for keeps in [false, true] {
        let mut firsts = vec![];
        for _ in 0..3 {
            let asked = lab.ask(&before).await;
            lab.sleep().await;
            if !keeps {
                fs::remove_dir_all(&lab.slots).unwrap();
            }
            let Asked { woken, first, usage, .. } = lab.ask(&followed(before.clone(), asked.answer)).await;
            println!("slots kept: {keeps}; woken in {woken:?}, first word {first:?} later; {usage:?}");
            firsts.push(first);
            lab.sleep().await;
            fs::remove_dir_all(&lab.slots).unwrap();
        }
        firsts.sort();
        medians.push(firsts[1]);
    }
    println!("medians of the first word: {medians:?}");
    assert!(medians[1] * 2 <= medians[0], "{medians:?}");
    lab.end().await;
}
