//! The machine of an inference server, over SSH: its unit is restarted with another model, and its log is read.
//!
//! `ssh` asks nobody for a password and talks to no machine whose key it does not know. What is put into its command line
//! are words of the registry that mean nothing to a shell (`entries.rs`).

use std::{
    io,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time,
};

use super::entries::{Endpoint, LocalModel};
use crate::{child, strings::localbot, text};

/// How long a connection may take.
const CONNECT: &str = "10";
/// How long a command may take there, the connection included.
const LIMIT: Duration = Duration::from_mins(1);
/// The most bytes of a log.
const LOG: u32 = 16_000;
/// The most bytes that a command there may say.
const MOST: u64 = 64 * 1024;
/// The most characters of a program's own words.
const WORDS: usize = 200;

/// How `ssh` is started.
#[derive(Clone, Debug)]
pub(super) struct Ssh {
    pub(super) program: PathBuf,
}

/// Why a command over SSH has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshFault {
    /// The endpoint has no `ssh` and `unit`.
    #[error("{}", localbot::NO_SSH)]
    NotSet,
    /// The machine was not reached: the reason in `ssh`'s own words.
    #[error("{0}")]
    Unreachable(String),
    /// The command there has failed, with its words.
    #[error("{0}")]
    Failed(String),
}

impl Ssh {
    /// Restarts the endpoint's unit with this model, by a drop-in that is gone with the machine's next start.
    pub(super) async fn restart(&self, endpoint: &Endpoint, model: &LocalModel) -> Result<(), SshFault> {
        let (_, unit) = place(endpoint)?;
        let path = match (&model.path, &endpoint.models_dir) {
            (Some(path), _) => path.clone(),
            (None, Some(folder)) => format!("{}/{}", folder.trim_end_matches('/'), model.file),
            (None, None) => model.file.clone(),
        };
        if !path.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@:+=,".contains(c)) {
            return Err(SshFault::Failed(localbot::BAD_PATH.to_owned()));
        }
        let context = model.context.map(|size| format!(" \\\"LLAMA_ARG_CTX_SIZE={size}\\\"")).unwrap_or_default();
        let script = format!(
            "set -e; d=/run/systemd/system/{unit}.d; f=$d/50-matrix-agent-model.conf; mkdir -p $d; \
             if [ -e $f ]; then cp $f $f.before; else rm -f $f.before; fi; \
             printf '%s\\n' '[Service]' \"Environment=\\\"LLAMA_ARG_MODEL={path}\\\"{context}\" > $f; \
             systemctl daemon-reload; systemctl restart {unit}"
        );
        self.run(endpoint, &script).await.map(drop)
    }

    /// Restarts the endpoint's unit with what it had before [`Ssh::restart`].
    pub(super) async fn undo(&self, endpoint: &Endpoint) -> Result<(), SshFault> {
        let (_, unit) = place(endpoint)?;
        let script = format!(
            "set -e; f=/run/systemd/system/{unit}.d/50-matrix-agent-model.conf; \
             if [ -e $f.before ]; then mv $f.before $f; else rm -f $f; fi; \
             systemctl daemon-reload; systemctl restart {unit}"
        );
        self.run(endpoint, &script).await.map(drop)
    }

    /// Returns the last lines of the unit's log.
    pub(super) async fn log(&self, endpoint: &Endpoint, lines: u32) -> Result<String, SshFault> {
        let (_, unit) = place(endpoint)?;
        let script = format!("journalctl --no-pager --output=cat --lines={lines} --unit={unit} | tail -c {LOG}");
        let output = self.run(endpoint, &script).await?;
        let (log, words) = (text::strip(&output.stdout), text::strip(&output.stderr));
        if log.trim().is_empty() && !words.trim().is_empty() {
            return Err(SshFault::Failed(text::one_line(&words, WORDS)));
        }
        Ok(log)
    }

    async fn run(&self, endpoint: &Endpoint, script: &str) -> Result<Output, SshFault> {
        let (destination, _) = place(endpoint)?;
        let mut command = child::command(&self.program);
        command
            .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o"])
            .arg(format!("ConnectTimeout={CONNECT}"))
            .args(["-o", "ClearAllForwardings=yes", "--", destination, script]);
        let output = match time::timeout(LIMIT, output(command)).await {
            Err(_) => return Err(SshFault::Unreachable(localbot::no_answer_within(LIMIT))),
            Ok(Err(error)) => return Err(SshFault::Unreachable(localbot::ssh_not_started(&error.to_string()))),
            Ok(Ok(output)) => output,
        };
        if output.status.success() {
            return Ok(output);
        }
        let words = text::strip(&output.stderr);
        let line = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line = text::one_line(line, WORDS);
        // `ssh` itself ends so; a command there may, too, and is then told as a connection that failed.
        Err(match (output.status.code(), line.is_empty()) {
            (Some(255), _) => SshFault::Unreachable(localbot::ssh_away(&line)),
            (code, true) => SshFault::Failed(localbot::silent(code.unwrap_or_default())),
            (_, false) => SshFault::Failed(line),
        })
    }
}

/// Runs a program, and returns what it has said, of each of both outputs the first [`MOST`] bytes.
async fn output(mut command: Command) -> io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
    // One that says more is cut off: nobody reads on.
    let status = child.wait().await?;
    Ok(Output { status, stdout, stderr })
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MOST).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn place(endpoint: &Endpoint) -> Result<(&str, &str), SshFault> {
    endpoint.ssh.as_deref().zip(endpoint.unit.as_deref()).ok_or(SshFault::NotSet)
}
