//! `matrix-agent chat`: the agent in the terminal.

use std::io::{IsTerminal, Read};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Configuration, Outcome, host,
    view::{UNKNOWN, View},
};
use crate::{
    bots::Command,
    chat::terminal::{Client, ServerFrame, Shown},
    hub::{Ending, Live},
    ids::EventId,
    ops::{Request, Server},
};

/// The longest prompt that is read from standard input, in bytes.
const PROMPT: u64 = 256 << 10;

/// Talk to the agent in the terminal
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The room to sit in; each has its own sandbox and conversation
    #[arg(long, default_value = "default", value_name = "NAME")]
    room: String,
    /// Asks this, waits for the answer and ends
    #[arg(short, long, value_name = "PROMPT")]
    prompt: Option<String>,
    /// Prints one event a line, as JSON
    #[arg(long)]
    json: bool,
    /// Uses the built-in demo model, which understands a few plain orders
    #[arg(long)]
    demo_model: bool,
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let prompt = match args.prompt {
        Some(prompt) => Some(prompt),
        None if std::io::stdin().is_terminal() => None,
        None => Some(read_prompt()?),
    };
    let host = host::join(configuration, args.demo_model).await?;
    let mut chat = Chat::join(&host.state_dir, &args.room, args.json).await?;
    let outcome = match prompt {
        Some(prompt) => chat.ask(prompt).await,
        None => chat.talk().await,
    };
    if let Some(server) = host.server {
        Server::shutdown(server).await;
    }
    outcome
}

fn read_prompt() -> anyhow::Result<String> {
    let mut prompt = String::new();
    std::io::stdin()
        .take(PROMPT + 1)
        .read_to_string(&mut prompt)
        .context("The prompt on standard input is no text.")?;
    if prompt.len() as u64 > PROMPT {
        bail!(
            "The prompt on standard input is longer than {} KiB. Put it into a file in the sandbox and name it.",
            PROMPT >> 10
        );
    }
    if prompt.trim().is_empty() {
        bail!("The prompt on standard input is empty.");
    }
    Ok(prompt)
}

/// A person in a room, at this terminal.
pub(super) struct Chat {
    client: Client,
    pub(super) view: View,
    /// Registered once: a Ctrl-C between two waits would be lost if each wait registered anew.
    ctrl_c: Signal,
}

impl Chat {
    pub(super) async fn join(state: &std::path::Path, room: &str, json: bool) -> anyhow::Result<Self> {
        let opening = serde_json::to_string(&Request::Chat { room: room.to_owned() })?;
        let files = state.join("terminal");
        let client = Client::connect(&crate::ops::control_socket(state), opening, files).await?;
        Ok(Self { client, view: View::new(json), ctrl_c: signal(SignalKind::interrupt())? })
    }

    /// Asks one question and waits for its answer.
    pub(super) async fn ask(&mut self, prompt: String) -> anyhow::Result<Outcome> {
        self.ask_and_watch(prompt, |_| {}).await
    }

    /// The same; `watch` gets each frame after it was shown.
    pub(super) async fn ask_and_watch(
        &mut self,
        prompt: String,
        mut watch: impl FnMut(&ServerFrame),
    ) -> anyhow::Result<Outcome> {
        let stops = Command::of(&prompt) == Some(Command::Stop);
        let id = self.client.say(prompt).await?;
        let outcome = self.answered(id, stops, &mut watch).await?;
        self.client.settle().await?;
        Ok(outcome)
    }

    /// Waits for the answer to the message `id`. `stops` says that the message asked for a stop, for which "stopped"
    /// is success.
    async fn answered(
        &mut self,
        id: EventId,
        stops: bool,
        watch: &mut impl FnMut(&ServerFrame),
    ) -> anyhow::Result<Outcome> {
        let mut stopping = false;
        loop {
            let shown = tokio::select! {
                shown = self.client.next() => shown?,
                _ = self.ctrl_c.recv() => {
                    if std::mem::replace(&mut stopping, true) {
                        return Ok(Outcome::Interrupted);
                    }
                    self.client.stop().await?;
                    continue;
                }
            };
            let Some(frame) = self.show(shown).await? else { continue };
            watch(&frame);
            match frame {
                ServerFrame::Answer { asked, others, ending, .. } if asked == id || others.contains(&id) => {
                    let good = ending == Ending::Done || stops && ending == Ending::Stopped;
                    return Ok(if good { Outcome::Good } else { Outcome::Bad });
                }
                ServerFrame::Reply { asked, .. } if asked == id => return Ok(Outcome::Good),
                ServerFrame::Unknown { id: unknown } if unknown == id => bail!(UNKNOWN),
                ServerFrame::Refused { id: refused, text } if refused.as_ref().is_none_or(|it| *it == id) => {
                    bail!(text);
                }
                _ => {}
            }
        }
    }

    /// Talks until the person ends it.
    async fn talk(&mut self) -> anyhow::Result<Outcome> {
        self.view.note("Tell me what to do. `!help` lists the commands; Ctrl-C stops the work, Ctrl-D ends.")?;
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut running: Option<EventId> = None;
        loop {
            tokio::select! {
                line = lines.next_line() => match line? {
                    None => return Ok(Outcome::Good),
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => drop(self.client.say(line).await?),
                },
                _ = self.ctrl_c.recv() => match running {
                    Some(_) => self.client.stop().await?,
                    None => return Ok(Outcome::Interrupted),
                },
                shown = self.client.next() => match self.show(shown?).await? {
                    Some(ServerFrame::Live { live: Live::Started { asked, .. } }) => running = Some(asked),
                    Some(ServerFrame::Live { live: Live::Ended { .. } }) => running = None,
                    _ => {}
                },
            }
        }
    }

    async fn show(&mut self, shown: Shown) -> anyhow::Result<Option<ServerFrame>> {
        match shown {
            Shown::Lost => self.view.note("The server went away. Waiting for it to return …")?,
            Shown::Back => self.view.note("The server is back.")?,
            Shown::Settled => {}
            Shown::Frame(frame) => {
                self.view.show(&frame)?;
                self.client.confirm(&frame).await?;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}
