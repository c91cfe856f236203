//! The engine with a child that is none of llama.cpp's, and fails as it is told (`tests/fixtures/fake_llama.py`).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::*;
use crate::llm::{Message, Meter, Part};

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fake_llama.py");
const LIMIT: Duration = Duration::from_mins(1);
const LONG: Duration = Duration::from_hours(1);
/// How long a start may take, the pause after a failure, and the time to end by itself.
const TIMES: [Duration; 3] = [Duration::from_secs(20), Duration::from_millis(50), Duration::from_secs(5)];

/// An engine in a folder of its own.
struct Lab {
    folder: tempfile::TempDir,
    engine: Engine,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Lab {
    fn new(fault: &str, idle: Option<Duration>, times: [Duration; 3]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("tiny-model.gguf"), [&b"GGUF\x03\0\0\0"[..], &[0; 64]].concat()).unwrap();
        let events = path("events");
        let script =
            format!("#!/bin/sh\necho started $$ >>{0}\nexec python3 {FAKE} {fault} {0} \"$@\"\n", events.display());
        fs::write(path("llama-server"), script).unwrap();
        fs::set_permissions(path("llama-server"), fs::Permissions::from_mode(0o700)).unwrap();
        let options = Options {
            binary: Binary::Native(path("llama-server")),
            model: path("tiny-model.gguf"),
            folder: path("exobot"),
            idle,
            threads: 1,
            // A machine that is busy with other tests is short of processors.
            pressure: None,
        };
        fs::create_dir(&options.folder).unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let engine = Engine::with_times(options, times, &tasks, cancel.clone()).unwrap();
        Self { folder, engine, tasks, cancel }
    }

    /// Waits for the model; returns what was told meanwhile, too.
    async fn wake(&self) -> (Result<Lease, Unready>, Vec<String>) {
        let told = Mutex::new(vec![]);
        let tell = |sentence| told.lock().unwrap().push(sentence);
        let lease = time::timeout(LIMIT, self.engine.wake(&tell)).await.expect("an answer");
        (lease, told.into_inner().unwrap())
    }

    async fn refused(&self) -> Unready {
        self.wake().await.0.err().expect("a refusal")
    }

    async fn until(&self, standing: impl FnMut(&Standing) -> bool) {
        time::timeout(LIMIT, self.engine.watch().wait_for(standing)).await.expect("it comes to that").unwrap();
    }

    fn events(&self) -> Vec<String> {
        let events = fs::read_to_string(self.folder.path().join("events")).unwrap_or_default();
        events.lines().map(str::to_owned).collect()
    }

    /// Returns the numbers of all children that there were.
    fn children(&self) -> Vec<String> {
        self.events().iter().filter_map(|event| Some(event.strip_prefix("started ")?.to_owned())).collect()
    }

    fn assert_none_lives(&self) {
        for pid in self.children() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty(), "a child lives on: {stat}");
        }
    }

    async fn end(self) -> tempfile::TempDir {
        self.cancel.cancel();
        self.tasks.close();
        time::timeout(LIMIT, self.tasks.wait()).await.expect("all tasks end");
        self.assert_none_lives();
        self.folder
    }
}

async fn ask(model: &Model) -> Result<String, crate::llm::LlmError> {
    let question = [Message::User { parts: vec![Part::Text { text: "hello".to_owned() }] }];
    let answer = model.complete(&question, &[], Some(40), &Meter::new(1), &mut |_| {}).await;
    answer.map(|answer| answer.message.text)
}

#[tokio::test]
async fn it_wakes_answers_sleeps_and_wakes_with_its_conversation() {
    // Long enough that a question gets its lease.
    let lab = Lab::new("none", Some(Duration::from_millis(300)), TIMES);
    assert_eq!(lab.engine.standing(), Standing::Asleep(None));
    let (lease, told) = lab.wake().await;
    let lease = lease.expect("it answers");
    assert_eq!((told.len(), lease.label.as_str()), (1, "tiny-model"), "{told:?}");
    assert_eq!(ask(&lease.model).await.unwrap(), "I am awake.");
    assert_eq!(lab.engine.standing(), Standing::Up);
    drop(lease);
    assert!(lab.wake().await.1.is_empty(), "who finds it awake is told nothing");
    lab.until(|standing| matches!(standing, Standing::Asleep(Some(_)))).await;
    let (lease, told) = lab.wake().await;
    assert_eq!(ask(&lease.expect("it answers again").model).await.unwrap(), "I am awake.");
    assert!(told[0].contains(" s") || told[0].contains("ms"), "how long it takes is known now: {told:?}");
    let what: Vec<_> = lab.events().into_iter().filter(|event| !event.starts_with("started")).collect();
    assert_eq!(
        what[..4],
        ["asked for 40", "save", "restore", "asked for 40"],
        "the first start had nothing to restore"
    );
    lab.end().await;
}

#[tokio::test]
async fn who_gives_up_waiting_does_not_keep_it_awake() {
    let lab = Lab::new("none", Some(Duration::from_millis(300)), TIMES);
    for at in 0..50 {
        let _ = time::timeout(Duration::from_micros(at * 20), lab.engine.wake(&|_| {})).await;
    }
    drop(lab.wake().await.0.unwrap());
    lab.until(|standing| matches!(standing, Standing::Asleep(Some(_)))).await;
    lab.end().await;
}

#[tokio::test]
async fn one_that_is_never_healthy_is_killed_and_given_up() {
    let lab = Lab::new("never", Some(LONG), [Duration::from_secs(2), TIMES[1], TIMES[2]]);
    let (refused, told) = lab.wake().await;
    assert_eq!(refused.err(), Some(Unready::Degraded(Some(Failure::Slow))));
    assert!(told.len() == 2 && told[1].contains("did not start"), "who waits is told of the failed start: {told:?}");
    assert_eq!(lab.children().len(), 5);
    lab.assert_none_lives();
    assert_eq!(lab.engine.standing(), Standing::Failed(Failure::Slow));
    lab.end().await;
}

#[tokio::test]
async fn one_that_dies_is_told_with_its_last_words_to_the_operator_alone() {
    let lab = Lab::new("dies", Some(LONG), TIMES);
    let Unready::Degraded(Some(failure)) = lab.refused().await else { panic!("it is given up") };
    assert_eq!(failure, Failure::Ended("exit status: 1: something is wrong with it".to_owned()));
    assert!(!Unready::Degraded(Some(failure)).to_string().contains("something is wrong"));
    assert_eq!(lab.children().len(), 5);
    lab.end().await;
}

#[tokio::test]
async fn a_foreign_processor_and_a_refused_model_are_not_tried_again() {
    for (fault, expected) in [
        ("sigill", Failure::Illegal),
        (
            "refuses",
            Failure::NoModel("llama_model_load: error loading model: unknown model architecture: 'x'".to_owned()),
        ),
    ] {
        let lab = Lab::new(fault, Some(LONG), TIMES);
        assert_eq!(lab.refused().await, Unready::Degraded(Some(expected)));
        assert_eq!(lab.children().len(), 1, "{fault}");
        lab.end().await;
    }
}

#[tokio::test]
async fn what_is_no_model_or_no_program_is_told_and_nothing_is_started() {
    let lab = Lab::new("none", Some(LONG), TIMES);
    fs::write(lab.folder.path().join("tiny-model.gguf"), "<!DOCTYPE html><title>404 Not Found</title>").unwrap();
    let refused = lab.refused().await;
    assert!(
        matches!(&refused, Unready::Degraded(Some(Failure::NoModel(why))) if why.ends_with("is no GGUF file")),
        "{refused:?}"
    );
    assert_eq!(lab.children(), Vec::<String>::new());
    lab.end().await;

    let lab = Lab::new("none", Some(LONG), TIMES);
    fs::remove_file(lab.folder.path().join("llama-server")).unwrap();
    let refused = lab.refused().await;
    assert!(matches!(&refused, Unready::Degraded(Some(Failure::NotStarted(_)))), "{refused:?}");
    lab.end().await;
}

#[tokio::test]
async fn a_killed_child_is_started_again_for_the_next_question() {
    let lab = Lab::new("none", Some(LONG), TIMES);
    let lease = lab.wake().await.0.unwrap();
    let pid: i32 = lab.children()[0].parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    lab.until(|standing| *standing != Standing::Up).await;
    assert!(ask(&lease.model).await.is_err(), "its own model is gone");
    drop(lease);
    let lease = lab.wake().await.0.unwrap();
    assert_eq!(ask(&lease.model).await.unwrap(), "I am awake.");
    assert_eq!(lab.children().len(), 2);
    drop(lease);
    lab.end().await;
}

#[tokio::test]
async fn a_child_that_breaks_under_a_question_fails_that_question_alone() {
    let lab = Lab::new("breaks", Some(LONG), TIMES);
    let lease = lab.wake().await.0.unwrap();
    assert!(ask(&lease.model).await.is_err());
    drop(lease);
    assert!(lab.wake().await.0.is_ok());
    lab.end().await;
}

#[tokio::test]
async fn one_that_does_not_end_when_it_is_told_is_killed() {
    let lab = Lab::new("stubborn", Some(LONG), [TIMES[0], TIMES[1], Duration::from_millis(200)]);
    drop(lab.wake().await.0.unwrap());
    let started = Instant::now();
    lab.end().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_model_that_is_kept_warm_is_there_without_a_question_and_stays() {
    let lab = Lab::new("none", None, TIMES);
    lab.until(|standing| *standing == Standing::Up).await;
    let (lease, told) = lab.wake().await;
    assert!(lease.is_ok() && told.is_empty());
    drop(lease);
    let folder = lab.end().await;
    let saved: Vec<_> = fs::read_dir(folder.path().join("exobot/slots")).unwrap().flatten().collect();
    assert_eq!(saved.len(), 1, "what was said is kept over the end of the program");
}
