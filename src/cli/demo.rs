//! `matrix-agent demo`: shows one real job to a newcomer.

use std::{collections::HashMap, io::Write, time::Instant};

use super::{Configuration, Outcome, chat::Chat, demo_room, host};
use crate::{chat::terminal::ServerFrame, hub::Live, ops::Server, text};

/// The terminal room of the demo.
const ROOM: &str = "demo";
/// What the demo model is asked; it has the job built in.
const ORDER: &str = "demo";
/// What a real model is asked.
const JOB: &str = "In /workspace/demo write a small Python module `fizz.py` with a deliberate off-by-one bug and a \
`test_fizz.py` for pytest. Run the tests and see them fail, mend the bug with edit_file, run the tests and see them pass. \
Then write an index.html that shows the result, serve the folder on port 8000 in the background, take a screenshot of \
it, and say in two sentences what you did.";

/// Do one small real job, and tell it as it happens
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Does it in a Matrix room, by the server that runs, asked by MATRIX_ADMIN_USER
    #[arg(long)]
    room: bool,
}

/// A stage of the job, which is one tool call.
struct Stage {
    name: String,
    started: Instant,
    summary: String,
    seconds: f64,
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let demo_model = !configuration.has_model();
    let order = if demo_model { ORDER } else { JOB };
    if args.room {
        return demo_room::run(configuration, order).await;
    }
    let started = Instant::now();
    let host = host::join(configuration, demo_model).await?;
    let mut chat = Chat::join(&host.state_dir, ROOM, false).await?;
    if demo_model {
        chat.view.note(
            "No LLM_API_KEY is set: the built-in demo model works here. It is no real model; it knows this one job.",
        )?;
    }
    chat.ask("!new".into()).await?;
    let mut stages: Vec<Stage> = Vec::new();
    let mut calls: HashMap<String, usize> = HashMap::new();
    let outcome = chat
        .ask_and_watch(order.into(), |frame| match frame {
            ServerFrame::Live { live: Live::ToolStarted { call, name, .. } } => {
                calls.insert(call.clone(), stages.len());
                let (name, summary) = (name.clone(), String::new());
                stages.push(Stage { name, started: Instant::now(), summary, seconds: 0.0 });
            }
            ServerFrame::Live { live: Live::ToolEnded { call, summary, .. } } => {
                if let Some(stage) = calls.get(call).and_then(|index| stages.get_mut(*index)) {
                    stage.seconds = stage.started.elapsed().as_secs_f64();
                    stage.summary.clone_from(summary);
                }
            }
            _ => {}
        })
        .await;
    if let Some(server) = host.server {
        Server::shutdown(server).await;
    }
    let outcome = outcome?;
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    for stage in &stages {
        writeln!(out, "{:>7.2} s  {:<16} {}", stage.seconds, stage.name, text::one_line(&stage.summary, 90))?;
    }
    let word = if matches!(outcome, Outcome::Good) { "Done" } else { "Not done" };
    writeln!(out, "{word}: {} steps in {}.", stages.len(), text::human_duration(started.elapsed()))?;
    Ok(outcome)
}
