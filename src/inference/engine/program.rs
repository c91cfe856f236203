//! How the child is started: its command line, and what it is given.
//!
//! Its key travels in the environment, where other users of this machine cannot read it; with it, only we can ask the model.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use secrecy::{ExposeSecret, SecretString};
use tokio::{process::Command, time};

use super::{Binary, CONTEXT, Failure, LONGEST_ANSWER, Options, tail::Tail};
use crate::child::{self, AtOurEnd, Tied};

/// Where a container finds the model, and keeps conversations.
const MODEL_INSIDE: &str = "/exobot/model.gguf";
const SLOTS_INSIDE: &str = "/exobot/slots";
/// The variable in which llama-server looks for its key.
const KEY: &str = "LLAMA_API_KEY";
/// Some versions keep gigabytes of old conversations in memory unless they are told not to. As a variable, since others
/// refuse options that they do not know.
const NO_CACHE: (&str, &str) = ("LLAMA_ARG_CACHE_RAM", "0");
/// How long Podman may take to remove a container, and to say whether it has an image.
const REMOVE: Duration = Duration::from_secs(20);
/// What a shell, or Podman, makes of a program that died of SIGILL.
const DIED_OF_SIGILL: i32 = 128 + 4;
/// Exit codes by which Podman says that it could not start the program.
const NOT_STARTED: std::ops::RangeInclusive<i32> = 125..=127;

/// What is started, and how.
#[derive(Clone, Debug)]
pub(super) struct Program {
    binary: Binary,
    model: PathBuf,
    slots: PathBuf,
    threads: usize,
}

impl Program {
    /// Returns what `options` say; conversations are kept in the folder `slots`.
    pub(super) fn new(options: &Options, slots: PathBuf) -> Self {
        let Options { binary, model, threads, .. } = options.clone();
        Self { binary, model, slots, threads }
    }

    /// Starts it, to listen at a port of this machine's own address, and to take requests with this key alone.
    pub(super) async fn start(&self, port: u16, key: &SecretString) -> Result<Tied, Failure> {
        let (command, at_our_end) = self.command(port, key);
        let not_started = |error: std::io::Error| match &self.binary {
            Binary::Native(path) => Failure::NotStarted(format!("{}: {error}", path.display())),
            Binary::Image { podman, .. } => Failure::NotStarted(format!("{}: {error}", podman.display())),
        };
        Tied::start(command, at_our_end).await.map_err(not_started)
    }

    /// Returns the command, and how it ends if we are gone.
    fn command(&self, port: u16, key: &SecretString) -> (Command, AtOurEnd) {
        let (mut command, at_our_end) = match &self.binary {
            Binary::Native(path) => {
                let mut command = child::command(path);
                command.args(self.arguments(port, &self.model, &self.slots));
                (command, AtOurEnd::default())
            }
            Binary::Image { image, podman, name } => {
                let mut command = child::command(podman);
                command.args(["run", "--rm", "--replace", "--pull=never", "--network=host", "--name", name]);
                // It reads one file, writes one folder and listens; nothing else is its business.
                command.args(["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]);
                command.arg("--security-opt=label=disable");
                command.arg(mount(&self.model, MODEL_INSIDE, ",ro"));
                command.arg(mount(&self.slots, SLOTS_INSIDE, ""));
                command.args(["--env", KEY, "--env", NO_CACHE.0, image]);
                command.args(self.arguments(port, Path::new(MODEL_INSIDE), Path::new(SLOTS_INSIDE)));
                // Podman passes this signal on to the container; where that does not heed it, it is removed.
                let then = [podman.into(), "rm".into()].into_iter().chain(removal(name).map(OsString::from)).collect();
                (command, AtOurEnd { signal: Some(Signal::SIGTERM), then })
            }
        };
        command.env(KEY, key.expose_secret()).env(NO_CACHE.0, NO_CACHE.1);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        (command, at_our_end)
    }

    /// Returns llama-server's arguments. Its port is always among them, since its default differs between versions.
    fn arguments(&self, port: u16, model: &Path, slots: &Path) -> Vec<OsString> {
        let number = |number: u64| number.to_string().into();
        vec![
            "--model".into(),
            model.into(),
            "--host".into(),
            "127.0.0.1".into(),
            "--port".into(),
            number(port.into()),
            "--threads".into(),
            number(self.threads as u64),
            // Small batches, so that a phone stays usable meanwhile.
            "-b".into(),
            "256".into(),
            "-ub".into(),
            "64".into(),
            "-c".into(),
            number(CONTEXT),
            // No request gets more.
            "-n".into(),
            number(LONGEST_ANSWER),
            // One conversation at a time, which has all of the context.
            "--parallel".into(),
            "1".into(),
            "--slot-save-path".into(),
            slots.into(),
            // What models think stands in their words, where the client finds it.
            "--reasoning-format".into(),
            "none".into(),
            "--no-webui".into(),
        ]
    }

    /// Kills a child that was started. A container does not end with its Podman, so it is removed by its name.
    pub(super) async fn kill(&self, child: &Tied) {
        if let Binary::Image { podman, name, .. } = &self.binary {
            let mut command = child::command(podman);
            command.arg("rm").args(removal(name)).stdout(Stdio::null()).stderr(Stdio::null());
            match time::timeout(REMOVE, command.status()).await {
                Ok(Ok(status)) if status.success() => {}
                ended => tracing::warn!(name, ?ended, "the model's container could not be removed"),
            }
        }
        child.signal(Signal::SIGKILL);
    }

    /// Returns why a child has ended that was not told to.
    pub(super) fn failure(&self, status: Option<ExitStatus>, tail: &Tail) -> Failure {
        use std::os::unix::process::ExitStatusExt;

        let Some(status) = status else { return Failure::Ended("nobody knows how".to_owned()) };
        if status.signal() == Some(libc::SIGILL) || status.code() == Some(DIED_OF_SIGILL) {
            return Failure::Illegal;
        }
        if let Some(line) = tail.refusal() {
            return Failure::NoModel(line);
        }
        let is_podman = matches!(self.binary, Binary::Image { .. });
        if is_podman && status.code().is_some_and(|code| NOT_STARTED.contains(&code)) {
            return Failure::NotStarted(tail.last());
        }
        let last = tail.last();
        Failure::Ended(if last.is_empty() { status.to_string() } else { format!("{status}: {last}") })
    }
}

/// Returns the arguments by which Podman removes a container, running or not.
fn removal(name: &str) -> [&str; 5] {
    ["--force", "--ignore", "--time", "0", name]
}

/// Returns whether there is a program at this path, or of this name on the PATH, that we may start.
pub(super) fn is_there(path: &Path) -> bool {
    let is_program = |path: &Path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file();
    if path.components().count() > 1 {
        return is_program(path);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| is_program(&folder.join(path)))
}

/// Returns why Podman cannot start this image; `None` if it can.
pub(super) async fn lacks(podman: &Path, image: &str) -> Option<String> {
    let mut command = child::command(podman);
    command.args(["image", "exists", image]).stdout(Stdio::null()).stderr(Stdio::null());
    match time::timeout(REMOVE, command.status()).await {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) if status.code() == Some(1) => Some(format!("Podman has no image {image}")),
        Ok(Ok(status)) => Some(format!("Podman cannot be asked for the image {image} ({status})")),
        Ok(Err(error)) => Some(format!("Podman cannot be asked for the image {image}: {}: {error}", podman.display())),
        Err(_) => Some(format!("Podman cannot be asked for the image {image}: it does not answer")),
    }
}

/// Returns Podman's option that lets a container see a path of the host. No path of ours holds a comma.
fn mount(from: &Path, to: &str, options: &str) -> String {
    format!("--mount=type=bind,source={},target={to}{options}", from.display())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::process::ExitStatusExt};

    use super::*;

    #[tokio::test]
    async fn an_image_that_podman_lacks_is_told() {
        let lacks = async |podman: &str| lacks(podman.as_ref(), "llama:latest").await;
        assert_eq!(lacks("true").await, None);
        assert_eq!(lacks("false").await.unwrap(), "Podman has no image llama:latest");
        assert!(lacks("/nowhere/podman").await.unwrap().contains("/nowhere/podman: No such file"));
    }

    fn options(binary: Binary) -> Options {
        Options { binary, model: "/m/tiny.gguf".into(), folder: "/s".into(), idle: None, threads: 3, pressure: None }
    }

    fn line(binary: Binary) -> (String, Command) {
        let program = Program::new(&options(binary), "/s/slots".into());
        let (command, _) = program.command(4242, &SecretString::from("sk-secret"));
        let std = command.as_std();
        let words = std::iter::once(std.get_program()).chain(std.get_args());
        (words.collect::<Vec<_>>().join(OsStr::new(" ")).to_string_lossy().into_owned(), command)
    }

    #[test]
    fn a_command_line_has_the_port_and_no_key() {
        let image = Binary::Image { image: "llama:latest".into(), podman: "podman".into(), name: "exo".into() };
        for (binary, begins, has) in [
            (Binary::Native("/opt/llama-server".into()), "/opt/llama-server --model /m/tiny.gguf ", " /s/slots "),
            (image, "podman run --rm --replace ", "llama:latest --model /exobot/model.gguf "),
        ] {
            let (line, command) = line(binary);
            assert!(line.starts_with(begins) && line.contains(has), "{line}");
            assert!(line.contains(" --host 127.0.0.1 --port 4242 --threads 3 "), "{line}");
            assert!(!line.contains("sk-secret"), "{line}");
            let key = command.as_std().get_envs().find(|(name, _)| *name == OsStr::new("LLAMA_API_KEY"));
            assert_eq!(key.and_then(|(_, key)| key), Some(OsStr::new("sk-secret")));
        }
    }

    #[test]
    fn how_it_ended_says_why() {
        let native = Program::new(&options(Binary::Native("/x".into())), "/s".into());
        let image = Binary::Image { image: "i".into(), podman: "podman".into(), name: "exo".into() };
        let image = Program::new(&options(image), "/s".into());
        let (signal, code) = (ExitStatus::from_raw, |code: i32| ExitStatus::from_raw(code << 8));
        let tail = Tail::default();
        assert_eq!(native.failure(Some(signal(libc::SIGILL)), &tail), Failure::Illegal);
        assert_eq!(image.failure(Some(code(132)), &tail), Failure::Illegal);
        assert_eq!(image.failure(Some(code(125)), &tail), Failure::NotStarted(String::new()));
        assert_eq!(native.failure(Some(code(125)), &tail), Failure::Ended("exit status: 125".to_owned()));
        let killed = native.failure(Some(signal(libc::SIGKILL)), &tail);
        assert!(matches!(&killed, Failure::Ended(how) if how.contains("SIGKILL")), "{killed}");
    }
}
