//! What a coding agent's CLI writes: whatever it is and in whatever pieces it comes, a run shows clean, short lines and comes to
//! the same end.
#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use matrix_agent::{
    coding_agents::{CodingAgent, Outcome, Profiles, Run},
    sandbox::Exit,
};
use tokio::time::Instant;

/// All that ship.
static AGENTS: LazyLock<Vec<Arc<CodingAgent>>> = LazyLock::new(|| {
    let profiles = Profiles::new(std::iter::empty());
    profiles.names().into_iter().filter_map(|name| profiles.of(name).cloned()).collect()
});

fn follow(agent: &Arc<CodingAgent>, pieces: &[&[u8]], now: Instant) -> Outcome {
    let mut run = Run::new(Arc::clone(agent), Duration::from_secs(300), now);
    for piece in pieces {
        run.take(piece, now);
        let lines = run.lines(now);
        assert!(lines.lines().count() <= 2 && lines.chars().count() < 1000);
        assert!(lines.chars().all(|c| c == '\n' || !c.is_control()));
    }
    run.outcome(&Exit::Code(0), false, now)
}

fuzz_target!(|bytes: &[u8]| {
    let now = Instant::now();
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    for agent in AGENTS.iter() {
        let outcome = follow(agent, &[bytes], now);
        assert_eq!(outcome, follow(agent, &[head, tail], now));
        assert!(outcome.summary.len() <= 70_000 && outcome.noise.len() <= 5);
        for text in outcome.noise.iter().chain([&outcome.summary, &outcome.verdict]) {
            assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
        }
    }
});
