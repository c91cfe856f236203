//! The server in a world in which there is no host but the test's own GitHub.

use std::{path::PathBuf, sync::Arc};

use matrix_agent::{
    clock::Clock,
    config::{Sources, load},
    llm::Model,
    ops::{House, Served, matrix_login, model_settings},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::support::{
    forge::{self, Forge},
    rig::Rig,
};

/// Lets a rig start this house in place of the program, with that GitHub.
pub(crate) fn serve_with(rig: &mut Rig, forge: &Forge) {
    forge.known_to(rig);
    let this = std::env::current_exe().unwrap();
    rig.serve_with(this, &["--ignored", "--exact", "house::is_served_by_a_process_of_its_own", "--nocapture"]);
}

#[test]
#[ignore = "started by the other tests as the process that they kill"]
fn is_served_by_a_process_of_its_own() {
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let none = Some(PathBuf::from("/dev/null"));
        let loaded = load(&Sources::of_process(none.clone(), none).unwrap());
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        let config = &loaded.config;
        let house = House::open_in(config, Clock::default(), forge::network(), forge::way).await.unwrap();
        let coder = house.coder(config, Model::new(model_settings(config)).unwrap()).unwrap();
        let login = matrix_login(config);
        let served = Served { name: "coder".into(), bots: vec![Arc::new(coder)], login, terminals: true };
        let server = house.serve(vec![served]).await.unwrap();
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).unwrap();
        terminate.recv().await;
        server.shutdown().await;
    });
}
