//! The first login and the making of a device in place of a lost one, killed with `kill -9` between any two of their
//! steps: the next start mends it.

use std::{fs, os::unix::process::ExitStatusExt};

use super::{RECOVERY, SESSION, STORE, rig_at, saved, state, text};
use crate::support::{
    bot::Town,
    person::Person,
    rig::Rig,
    scripted_llm::ScriptedLlm,
    synapse::{Limits, Synapse, password},
};

/// Where the first login is killed, and where the login after a loss is.
const POINTS: [(&str, &str); 6] = [
    ("logged-in", "logged-in"),
    ("kept", "put-aside"),
    ("introduced", "kept"),
    ("signed", "introduced"),
    ("recoverable", "recovered"),
    ("settled", "settled"),
];

/// Starts a server that is killed at a point; returns what it has logged.
pub(super) fn killed(rig: &mut Rig, point: &str) -> String {
    let folder = rig.path().join(format!("crash-{}", rand::random::<u64>()));
    fs::create_dir(&folder).unwrap();
    rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{}", folder.display()));
    let output = tokio::task::block_in_place(|| rig.run(&["run"]));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(9), "at {point}: {log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_login_the_next_start_mends_it() {
    let (synapse, llm) = tokio::join!(Synapse::start(Limits::Relaxed), ScriptedLlm::start());
    let anna = Person::new(&synapse, "anna").await;
    let rig = rig_at(synapse.url(), &llm);
    let mut town = Town { synapse, llm, rig, server: None, bot: String::new(), anna };
    for (place, (first, second)) in POINTS.into_iter().enumerate() {
        let name = format!("bot{place}");
        town.bot = town.synapse.account(&name).await;
        town.rig = rig_at(town.synapse.url(), &town.llm);
        town.rig.set("MATRIX_USER", &town.bot);
        town.rig.set("MATRIX_PASSWORD", &password(&name));

        killed(&mut town.rig, first);
        town.serve();
        town.known_to_anna(&town.device()).await;
        let identity = town.identity().await;
        assert_eq!(town.devices().await, [town.device()], "nothing is left over after {first}");
        town.kill();
        assert!(!text(&town.rig, RECOVERY).is_empty(), "after {first}");

        // The session alone is not enough at one of the points: there must be a store to put aside.
        let without_session = second == "put-aside";
        let lost = state(&town.rig).join(if without_session { SESSION } else { STORE });
        if lost.is_dir() { fs::remove_dir_all(lost) } else { fs::remove_file(lost) }.unwrap();
        killed(&mut town.rig, second);
        town.serve();
        let device = town.device();
        town.known_to_anna(&device).await;
        assert_eq!(town.identity().await, identity, "after {second}");
        // Without the session's file nobody knows which device was the bot's.
        assert_eq!(town.devices().await.len(), 1 + usize::from(without_session), "after {second}");
        let saved = saved(&town.rig);
        assert_eq!(
            (&saved["ready"], saved["lost"].as_array().map(Vec::len)),
            (&true.into(), Some(0)),
            "after {second}"
        );
        town.kill();
    }
}
