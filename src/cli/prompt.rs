//! Asks a person at the terminal, for secrets without showing what is typed.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    os::fd::AsFd,
};

use anyhow::{Context, bail};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use secrecy::SecretString;

/// The longest line in bytes.
const LONGEST: usize = 16 << 10;

/// A terminal that shows nothing of what is typed until this is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin().as_fd())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.before);
    }
}

/// Returns whether somebody sits at standard input.
pub(super) fn is_person() -> bool {
    io::stdin().is_terminal()
}

/// Asks for a line; an empty one stands for `usual`.
pub(super) async fn ask(question: &str, usual: Option<&str>) -> anyhow::Result<String> {
    let hint = usual.map(|usual| format!(" [{usual}]")).unwrap_or_default();
    let line = read(&format!("{question}{hint}: "), false).await?;
    Ok(match usual {
        Some(usual) if line.is_empty() => usual.to_owned(),
        _ => line,
    })
}

/// Asks for a secret.
pub(super) async fn ask_hidden(question: &str) -> anyhow::Result<SecretString> {
    read(&format!("{question} (not shown): "), true).await.map(SecretString::from)
}

async fn read(question: &str, hidden: bool) -> anyhow::Result<String> {
    write!(io::stderr(), "{question}")?;
    io::stderr().flush()?;
    // Kept here, so that the terminal shows what is typed again also when the wait below is given up.
    let _hidden = hidden.then(Hidden::begin).transpose().context("The terminal cannot hide what is typed")?;
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let read = io::Read::take(io::stdin().lock(), LONGEST as u64).read_line(&mut line)?;
        Ok::<_, io::Error>((read > 0).then_some(line))
    });
    let line = tokio::select! {
        line = line => line??,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            bail!("Nothing was done.");
        }
    };
    match line {
        Some(line) => Ok(line.trim().to_owned()),
        None => bail!("The input ended. Nothing was done."),
    }
}
