//! The command line. A subcommand is one file with its `Args` and its `run`, and one row each in `Command` and
//! `dispatch`.
//!
//! The top layer; `main.rs` calls [`main`]. Only this module may write to standard output.

mod account;
mod admin;
mod audit;
mod chat;
mod check_ipc;
mod cloud_bot;
mod compact;
mod completions;
mod config;
mod configuration;
mod dashboard;
mod demo;
mod demo_room;
mod doctor;
mod exobot;
mod host;
mod log;
mod man;
mod prompt;
mod redeploy;
mod run;
mod sandbox;
mod view;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use configuration::Configuration;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    config::{LogFormat, Mistakes, Sources},
    memory,
};

/// A self-hosted agentic coding server: each chat room gets its own hardened Podman container
#[derive(Debug, Parser)]
#[command(name = "matrix-agent", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    /// Reads settings from this file instead of `.env` in ~/.config/matrix-agent or /etc/matrix-agent
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    env_file: Option<PathBuf>,
    /// Reads settings from this file instead of `matrix-agent.toml` there
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    config_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Chat(chat::Args),
    Demo(demo::Args),
    Sandbox(sandbox::Args),
    CloudBot(cloud_bot::Args),
    Exobot(exobot::Args),
    Dashboard(dashboard::Args),
    Admin(admin::Args),
    Doctor(doctor::Args),
    Redeploy(redeploy::Args),
    CheckIpc(check_ipc::Args),
    Config(config::Args),
    Audit(audit::Args),
    Compact(compact::Args),
    Completions(completions::Args),
    Man(man::Args),
}

async fn dispatch(command: Command, configuration: Configuration) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(args) => run::run(args, &configuration).await,
        Command::Chat(args) => chat::run(args, &configuration).await,
        Command::Demo(args) => demo::run(args, &configuration).await,
        Command::Sandbox(args) => sandbox::run(args, &configuration).await,
        Command::CloudBot(args) => cloud_bot::run(args, &configuration).await,
        Command::Exobot(args) => exobot::run(args, &configuration).await,
        Command::Dashboard(args) => dashboard::run(args, &configuration).await,
        Command::Admin(args) => admin::run(args, &configuration).await,
        Command::CheckIpc(args) => check_ipc::run(args, &configuration).await,
        Command::Config(args) => config::run(&args, &configuration),
        Command::Audit(args) => audit::run(args, &configuration).await,
        Command::Compact(args) => compact::run(args, &configuration).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Doctor(args) => doctor::run(args, configuration).await,
        Command::Redeploy(args) => redeploy::run(args, &configuration).await,
    }
}

/// How a subcommand ended, if it could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All is well: exit code 0.
    Good,
    /// It worked, but found or did something bad and has said so: exit code 1.
    Bad,
    /// The person interrupted it: exit code 130, as in shells.
    Interrupted,
    /// A command in a sandbox ended with this exit code.
    Code(u8),
}

/// The exit code for wrong settings and arguments, as in clap.
const USAGE: u8 = 2;

/// Exit code for Ctrl-C: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Parses the command line, runs the subcommand, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        // The reader of our output has gone, as in `matrix-agent config | head -1`, so nobody is left to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<Mistakes>() { USAGE } else { 1 };
            // If standard error is closed, the exit code stays the same.
            let _ = writeln!(io::stderr(), "error: {}", sentence(&error));
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    // Databases, logs and sockets are for this user alone; what others need gets its mode explicitly.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    memory::be_sparing();
    let configuration = Configuration::read(&Sources::of_process(cli.env_file, cli.config_file)?);
    let (usual, file, format) = match &cli.command {
        Command::Run(args) => (log::SERVER, args.log_file(), configuration.log_format()),
        Command::Redeploy(args) if args.carries_out() => (log::SERVER, None, configuration.log_format()),
        _ => (log::QUIET, None, LogFormat::Pretty),
    };
    let flood = log::start(usual, file, format).context("the log file cannot be written")?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = dispatch(cli.command, configuration) => outcome,
            never = flood.tell_every_minute() => match never {},
        }
    });
    flood.tell();
    // Everything that must end in order has ended. A blocking read on a terminal or a dead network file system may
    // never end.
    runtime.shutdown_background();
    outcome
}

/// Raises the limit of open files to the hard limit: shells and services begin with a far lower one, and each room's
/// connections need some. If that fails the server works with what it has, and `doctor` reports it.
fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Returns an error with its causes, without those that the text before already contains.
fn sentence(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{}: {cause}", told.trim_end_matches('.'));
        }
    }
    told
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_with_a_cause_ends_once() {
        let error = anyhow::anyhow!("no UTF-8").context("The prompt is no text.").context("The prompt is no text.");
        assert_eq!(sentence(&error), "The prompt is no text: no UTF-8");
    }
}
