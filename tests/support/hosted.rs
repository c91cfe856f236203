//! The server in the test's own process, on a thread and a runtime of its own: a test commands what time it is there,
//! while all around it, the homeserver, the people and Podman, live in real time.

use std::{
    fs::File,
    path::PathBuf,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use matrix_agent::{
    clock::Clock,
    config::{self, Config, Sources},
    ops::Server,
};
use tokio::{sync::mpsc as queue, task::spawn_blocking, time};

use super::rig::{LIMIT, Rig};

/// How much passes at once: less than any time that the server waits for an answer.
const STEP: Duration = Duration::from_secs(1);
/// Between two steps the runtime looks as often at what has come from outside.
const LOOKS: usize = 8;

/// Time that shall pass, and whom to tell when it has.
type Pass = (Duration, mpsc::Sender<()>);

/// A server; it ends with this.
pub struct Hosted {
    passes: Option<queue::UnboundedSender<Pass>>,
    thread: Option<JoinHandle<()>>,
    log: PathBuf,
}

impl Hosted {
    /// Starts `matrix-agent run`'s server with a rig's settings, and waits until it can be reached.
    pub fn start(rig: &Rig) -> Self {
        let mut sources = Sources::of_process(None, None).unwrap();
        sources.environment.extend(rig.env().iter().map(|(key, value)| (key.into(), value.into())));
        sources.folders.clear();
        let config = config::load(&sources).config;
        let log = rig.path().join("hosted.log");
        let (file, (ready, is_ready)) = (File::create(&log).unwrap(), mpsc::channel());
        let (passes, passing) = queue::unbounded_channel();
        let thread = thread::spawn(move || {
            let logger = tracing_subscriber::fmt().with_env_filter("matrix_agent=debug").with_ansi(false);
            let _logged = tracing::subscriber::set_default(logger.with_writer(file).finish());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Box::pin(live(config, &ready, passing)));
        });
        is_ready.recv_timeout(LIMIT).expect("the server starts");
        Self { passes: Some(passes), thread: Some(thread), log }
    }

    /// Lets time pass for the server, and for it alone.
    pub fn pass(&self, duration: Duration) {
        let (done, is_done) = mpsc::channel();
        self.passes.as_ref().unwrap().send((duration, done)).unwrap();
        is_done.recv_timeout(LIMIT).expect("time passes");
    }

    /// How often its log has these words.
    pub fn logged(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.passes.take();
        let ended = self.thread.take().unwrap().join();
        // What a failed test says is not to be drowned by this.
        assert!(ended.is_ok() || thread::panicking(), "the server panicked");
    }
}

async fn live(config: Config, ready: &mpsc::Sender<()>, mut passing: queue::UnboundedReceiver<Pass>) {
    let clock = Clock::fixed_at(Clock::default().millis());
    let server = Server::start(&config, true, clock.clone()).await.unwrap();
    ready.send(()).unwrap();
    while let Some((duration, done)) = passing.recv().await {
        time::pause();
        // Time that stands moves by itself when nothing is to be done, except while something blocks.
        let (end, blocked) = mpsc::channel::<()>();
        let still = spawn_blocking(move || blocked.recv());
        for _ in 0..duration.as_secs() / STEP.as_secs() {
            time::advance(STEP).await;
            clock.advance(i64::try_from(STEP.as_millis()).unwrap());
            for _ in 0..LOOKS {
                spawn_blocking(|| ()).await.unwrap();
            }
        }
        drop(end);
        let _ = still.await;
        time::resume();
        done.send(()).unwrap();
    }
    server.shutdown().await;
}
