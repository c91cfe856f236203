//! The service, as `systemctl` shows and moves it. The only place that speaks to systemd.

use std::time::{Duration, Instant};

use tokio::{process::Command, time};

use super::run;
use crate::{child, text};

/// The units.
const SERVER: &str = "matrix-agent.service";
const REDEPLOY: &str = "matrix-agent-redeploy.service";
const WATCH: &str = "matrix-agent-redeploy.path";
/// How long a program may take to become ready.
const READY: Duration = Duration::from_secs(30);
/// How long it has to stay ready, so that one that dies at once is not taken for well.
const STEADY: Duration = Duration::from_secs(3);
/// How often the service is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// The time of one command. A server that is asked to end has 30 s.
const COMMAND: Duration = Duration::from_secs(50);

/// How the service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    active: String,
    sub: String,
    pid: String,
    result: String,
}

impl State {
    fn read(shown: &str) -> Self {
        let value = |key: &str| {
            let mut lines = shown.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        Self { active: value("ActiveState"), sub: value("SubState"), pid: value("MainPID"), result: value("Result") }
    }

    fn is_ready(&self) -> bool {
        self.active == "active"
    }

    /// Returns why it will not become ready by itself, or only after another start.
    fn fault(&self) -> Option<String> {
        let is_over = self.sub == "auto-restart" || matches!(&*self.active, "failed" | "inactive");
        is_over.then(|| {
            format!("it has ended ({}, {})", self.active, if self.result.is_empty() { "?" } else { &self.result })
        })
    }
}

/// The service of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// Whether it is a user's and not the system's.
    pub(super) of_user: bool,
}

impl Service {
    fn command(self, arguments: &[&str]) -> Command {
        let mut command = child::command("systemctl");
        if self.of_user {
            command.arg("--user");
        }
        command.args(arguments);
        command
    }

    async fn say(self, arguments: &[&str]) -> Result<String, String> {
        run::output(self.command(arguments), COMMAND).await
    }

    async fn state(self) -> Result<State, String> {
        let shown = self.say(&["show", "--property=ActiveState,SubState,MainPID,Result", SERVER]).await?;
        Ok(State::read(&shown))
    }

    /// Returns whether the server is ready now.
    pub(super) async fn is_ready(self) -> Result<bool, String> {
        self.state().await.map(|state| state.is_ready())
    }

    /// Begins it anew, with whatever program is there; returns before it is ready.
    pub(super) async fn restart(self) -> Result<(), String> {
        // One that was started too often in vain would not be started any more.
        let _ = self.say(&["reset-failed", SERVER]).await;
        self.say(&["restart", "--no-block", SERVER]).await.map(drop)
    }

    /// Ends it at once, whatever it does: a program that hangs is not waited for.
    pub(super) async fn kill(self) {
        let _ = self.say(&["stop", "--no-block", SERVER]).await;
        let _ = self.say(&["kill", "--signal=SIGKILL", SERVER]).await;
    }

    /// Waits until it is ready, and stays so for a moment.
    ///
    /// # Errors
    ///
    /// It has ended, or has not become ready in time.
    pub(super) async fn become_ready(self) -> Result<(), String> {
        let began = Instant::now();
        let mut ready: Option<(Instant, State)> = None;
        loop {
            let now = self.state().await?;
            match &ready {
                Some((since, as_it_was)) if now.is_ready() && now.pid == as_it_was.pid => {
                    if since.elapsed() >= STEADY {
                        return Ok(());
                    }
                }
                Some(_) => return Err("it became ready, and has ended then".to_owned()),
                None if now.is_ready() => ready = Some((Instant::now(), now)),
                None => {
                    if let Some(fault) = now.fault() {
                        return Err(fault);
                    }
                    if began.elapsed() >= READY {
                        return Err(format!("it has not become ready within {}", text::human_duration(READY)));
                    }
                }
            }
            time::sleep(LOOK).await;
        }
    }

    /// Lets the oneshot be started again: systemd counts its good starts with the bad ones, gives up at too many of both, and no longer
    /// watches for requests then.
    pub(super) async fn forgive(self) {
        let _ = self.say(&["reset-failed", REDEPLOY]).await;
        if self.say(&["is-failed", "--quiet", WATCH]).await.is_ok() {
            let _ = self.say(&["start", "--no-block", WATCH]).await;
        }
    }

    /// Has the oneshot do what is asked for; returns before it has.
    pub(super) async fn go_on(self) {
        self.forgive().await;
        let _ = self.say(&["start", "--no-block", REDEPLOY]).await;
    }

    /// Has the oneshot do what is asked for, and waits until it has ended.
    pub(super) fn carry_out(self) -> Command {
        self.command(&["start", REDEPLOY])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_shows_is_understood() {
        let state = |shown| State::read(shown);
        let ready = state("Result=success\nMainPID=12\nActiveState=active\nSubState=running\n");
        assert!(ready.is_ready() && ready.fault().is_none() && ready.pid == "12");
        let starts = state("ActiveState=activating\nSubState=start\nResult=success\n");
        assert!(!starts.is_ready() && starts.fault().is_none());
        let ends = state("ActiveState=deactivating\nSubState=stop-sigterm\nResult=success\n");
        assert!(!ends.is_ready() && ends.fault().is_none());
        let again = state("ActiveState=activating\nSubState=auto-restart\nResult=exit-code\n");
        assert_eq!(again.fault().as_deref(), Some("it has ended (activating, exit-code)"));
        assert!(state("ActiveState=failed\nSubState=failed\nResult=signal\n").fault().is_some());
    }
}
