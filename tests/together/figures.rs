//! How fast a cloud bot is, beside the coding agent in the same run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{support::replies::End, *};

const ROUNDS: usize = 30;
/// Rounds before anything counts.
const WARM: usize = 5;

/// The time within which nineteen of twenty were.
fn p95(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 95 / 100]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: `cargo nextest run --test together --run-ignored only --no-capture`"]
#[expect(clippy::print_stdout, reason = "whoever measures reads it")]
async fn a_mention_is_soon_at_the_model_and_its_answer_soon_in_the_room() {
    let scene = Scene::new().await;
    let (anna, llm, room) = (&scene.town.anna, &scene.town.llm, &scene.room);
    let (mut cloud, mut coder, mut words) = (vec![], vec![], vec![]);
    for round in 0..2 * (WARM + ROUNDS) {
        let (who, times) = if round % 2 == 0 { ("@alpha", &mut cloud) } else { ("the coder", &mut coder) };
        let (before, begin) = (llm.requests().len(), Instant::now());
        anna.say(room, &format!("{who} round {round}?")).await;
        llm.arrived(before + 1).await;
        if round >= 2 * WARM {
            times.push(begin.elapsed());
        }
        let answer = format!("round {round}?\".");
        anna.shows(room, &answer, |shown| shown.iter().any(|it| it.body.contains(&answer))).await;
    }
    for round in 0..ROUNDS {
        let gate = Arc::new(Notify::new());
        let reply = Reply::text("Here it begins, and goes on.").first(1, End::Open);
        llm.when(&format!("word {round}?")).after(&gate).reply(reply);
        let before = llm.requests().len();
        let asked = anna.say(room, &format!("@alpha word {round}?")).await;
        llm.arrived(before + 1).await;
        let begin = Instant::now();
        gate.notify_one();
        let is_alpha = |it: &support::seen::Seen| it.sender == "@alpha:localhost" && it.body().contains("Here it");
        words.push(anna.wait_after(&asked, "the first words", is_alpha).await.at - begin);
        let stop = anna.say(room, "@alpha stop").await;
        let stopped = |it: &support::seen::Seen| it.sender == "@alpha:localhost" && it.body().contains("(Stopped.)");
        anna.wait_after(&stop, "the end", stopped).await;
    }
    let (cloud, coder, words) = (p95(&mut cloud), p95(&mut coder), p95(&mut words));
    let ratio = cloud.as_secs_f64() / coder.as_secs_f64();
    println!(
        "p95, mention to model: cloud bot {cloud:?}, coding agent {coder:?} ({ratio:.2}); token to room: {words:?}"
    );
    assert!(ratio <= 1.2, "1.2 is the goal");
    assert!(words <= Duration::from_millis(300), "300 ms are the goal");
}
