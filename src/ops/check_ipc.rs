//! The checks of `matrix-agent check-ipc`: whether events from programs in a sandbox can arrive, checked from inside
//! as the agent's user and with a canary, an event that is sent to see whether it arrives. Changes nothing else.
//! Called by the control socket.

use std::{fmt::Write, time::Duration};

use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::doctor::{Check, Status};
use crate::{
    config::sentence,
    ids::{self, Address},
    sandbox::{Command, Exit, Sandbox, SandboxError, SandboxState, SandboxSummary, Sandboxes, Stdin, User},
    text::shown_name,
};

/// How long a probe inside may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long a canary may take. With inotify it takes a millisecond; one that only the watcher's scan every half
/// minute finds counts as lost.
const CANARY: Duration = Duration::from_secs(5);

const REBUILD: &str = "End the container with `podman rm --force` and its name: it is made anew, and the room's files stay. \
    If that does not mend it, build the image anew with `scripts/build-image.sh`, or take `hooks/` over into your own";

/// A coding agent whose hooks send events.
struct Agent {
    /// The check's id, the program, and the path of its machine-wide settings.
    id: &'static str,
    program: &'static str,
    settings: &'static str,
    /// The hook events that fire without a terminal.
    events: &'static [&'static str],
}

const AGENTS: [Agent; 2] = [
    Agent {
        id: "gemini-hooks",
        program: "gemini",
        settings: "/etc/gemini-cli/settings.json",
        events: &[
            "SessionStart",
            "BeforeAgent",
            "BeforeModel",
            "BeforeToolSelection",
            "AfterModel",
            "BeforeTool",
            "AfterTool",
            "PreCompress",
            "AfterAgent",
            "SessionEnd",
        ],
    },
    Agent {
        id: "qwen-hooks",
        program: "qwen",
        settings: "/etc/qwen-code/settings.json",
        events: &[
            "SessionStart",
            "UserPromptSubmit",
            "PreToolUse",
            "PostToolUse",
            "PostToolUseFailure",
            "PostToolBatch",
            "SubagentStart",
            "SubagentStop",
            "Notification",
            "Stop",
        ],
    },
];

/// The results for one sandbox.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    container: String,
    #[serde(flatten)]
    address: Address,
    checks: Vec<Check>,
}

/// Checks the sandboxes in `named`, which are started if need be; without any, all that run.
pub(super) async fn check(sandboxes: &Sandboxes, named: &[Address]) -> Result<Vec<Report>, SandboxError> {
    let list = sandboxes.list().await?;
    let meant = list.into_iter().filter(|summary| named.is_empty() || named.contains(&summary.address));
    let mut reports = Vec::new();
    for summary in meant {
        let checks = if named.is_empty() && summary.state != SandboxState::Running {
            let mend = format!("`matrix-agent check-ipc {}` starts it", summary.name);
            vec![Check::warning("running", format!("it is {} and was not looked at", summary.state.as_str()), mend)]
        } else {
            one(sandboxes, &summary).await
        };
        reports.push(Report { container: summary.name, address: summary.address, checks });
    }
    Ok(reports)
}

/// Returns the worst status.
pub(super) fn worst(reports: &[Report]) -> Status {
    reports.iter().flat_map(|report| &report.checks).map(|check| check.status).max().unwrap_or(Status::Good)
}

/// Formats the reports for people.
pub(super) fn text(reports: &[Report]) -> String {
    if reports.is_empty() {
        return "No sandbox is there yet: the first command in a room makes one.".to_owned();
    }
    let mut text = String::new();
    for Report { container, address, checks } in reports {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{container} ({})", shown_name(&address.to_string()));
        for Check { name, status, what, mend, .. } in checks {
            let gap = if *status == Status::Warning { "  " } else { " " };
            let _ = writeln!(text, "  {status}{gap}{name:<12}  {}", sentence(what));
            if let Some(mend) = mend {
                let _ = writeln!(text, "     {:12}  → {}", "", sentence(mend));
            }
        }
    }
    text
}

async fn one(sandboxes: &Sandboxes, SandboxSummary { address, name, .. }: &SandboxSummary) -> Vec<Check> {
    let sandbox = match sandboxes.ensure(address).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            return vec![Check::bad("running", error.to_string(), "`matrix-agent doctor` tells what is missing")];
        }
    };
    let mut checks = vec![directory(&sandbox).await, scripts(&sandbox).await];
    for agent in &AGENTS {
        checks.push(hooks(&sandbox, agent).await);
    }
    checks.push(canary(sandboxes, &sandbox).await);
    checks.push(errors(sandboxes, address, name));
    checks
}

async fn directory(sandbox: &Sandbox) -> Check {
    const NAME: &str = "directory";
    const LOOK: &str = "cd /workspace/.ipc && : > .check-$$ && rm .check-$$ && df -P -B1 . | tail -n 1";
    let remake = "Remove the container with `podman rm --force` (its files stay): the next command makes it anew";
    match sh(sandbox, LOOK).await {
        Ok(_) => Check::good(NAME, "`/workspace/.ipc` is there and writable"),
        Err(why) => Check::bad(NAME, format!("`/workspace/.ipc` cannot be written to ({why})"), remake),
    }
}

async fn scripts(sandbox: &Sandbox) -> Check {
    const NAME: &str = "scripts";
    const LOOK: &str = "for script in /usr/local/lib/matrix-agent/hooks/ipc-event /usr/local/bin/ipc-send; do \
        test -x $script || { echo $script cannot be run; exit 1; }; \
        test ! -w $script || { echo $script can be changed by the agent; exit 1; }; done";
    match sh(sandbox, LOOK).await {
        Ok(_) => Check::good(NAME, "the hooks' script and `ipc-send` are there, and the agent cannot change them"),
        Err(why) => Check::bad(NAME, why, REBUILD),
    }
}

/// Checks whether an agent's hooks are configured, and says where its progress comes from.
async fn hooks(sandbox: &Sandbox, Agent { id, program, settings, events }: &Agent) -> Check {
    if sh(sandbox, &format!("command -v {program}")).await.is_err() {
        return Check::warning(id, format!("`{program}` is not in this image, so it tells nothing"), REBUILD);
    }
    let alone = format!("so what `{program}` does shows by its output alone");
    let read = match sh(sandbox, &format!("cat {settings}")).await {
        Ok(read) => read,
        Err(why) => return Check::bad(id, format!("{settings} cannot be read ({why}), {alone}"), REBUILD),
    };
    let Ok(wired) = serde_json::from_str::<Value>(&read) else {
        return Check::bad(id, format!("{settings} is no JSON, {alone}"), REBUILD);
    };
    let missing: Vec<_> = events.iter().copied().filter(|event| !is_wired(&wired, program, event)).collect();
    if missing.is_empty() {
        let what =
            format!("all {} events are wired: what `{program}` does shows by its hooks and its output", events.len());
        return Check::good(id, what);
    }
    Check::bad(id, format!("{settings} does not wire {}, {alone}", missing.join(", ")), REBUILD)
}

/// Returns whether settings call our script for an event.
fn is_wired(settings: &Value, program: &str, event: &str) -> bool {
    let groups = settings["hooks"][event].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut commands = groups.iter().filter_map(|group| group["hooks"].as_array()).flatten();
    let expected = format!("/usr/local/lib/matrix-agent/hooks/ipc-event {program} {event}");
    commands.any(|hook| hook["command"].as_str() == Some(&expected))
}

async fn canary(sandboxes: &Sandboxes, sandbox: &Sandbox) -> Check {
    const NAME: &str = "canary";
    let raise = "Look into the server's log; raise fs.inotify.max_user_instances and max_user_watches";
    let word = ids::random(8);
    let Some(heard) = sandboxes.canary(&word) else {
        return Check::bad(NAME, "the server watches no sandbox's events", raise);
    };
    let name = format!("0-0-canary-{word}");
    let event = format!(r#"{{"version":1,"kind":"canary","text":"{word}"}}"#);
    let send = format!("umask 022; cd /workspace/.ipc && printf '%s' '{event}' > .{name} && mv .{name} {name}.json");
    if let Err(why) = sh(sandbox, &send).await {
        return Check::bad(
            NAME,
            format!("an event cannot be dropped ({why})"),
            "Mend what is told above, then try again",
        );
    }
    match timeout(CANARY, heard).await {
        Ok(Ok(())) => Check::good(NAME, "an event that was dropped in the sandbox arrived"),
        Ok(Err(_)) | Err(_) => Check::bad(NAME, format!("an event did not arrive in {} s", CANARY.as_secs()), raise),
    }
}

fn errors(sandboxes: &Sandboxes, address: &Address, container: &str) -> Check {
    const NAME: &str = "hook-errors";
    match sandboxes.hook_errors(address) {
        Some(errors) if errors.times > 0 => {
            let what = format!("`hook-errors.log` had entries {} times, the last one: {}", errors.times, errors.last);
            Check::bad(
                NAME,
                what,
                format!("Look at it in the sandbox {container}; the count begins anew with its next start"),
            )
        }
        Some(_) => Check::good(NAME, "`hook-errors.log` is empty"),
        None => Check::warning(NAME, "the server does not watch this sandbox", "Use the sandbox once, then try again"),
    }
}

/// Runs a script as the agent's user; the error is its output in one line.
async fn sh(sandbox: &Sandbox, script: &str) -> Result<String, String> {
    let command = Command {
        id: format!("check-{}", ids::random(8)),
        argv: ["sh", "-c", script].map(str::to_owned).into(),
        env: Vec::new(),
        cwd: "/".into(),
        user: User::Agent,
        stdin: Stdin::Null,
        timeout: Some(LOOK),
        background: false,
        writable: None,
        spooled: false,
    };
    let ended = async { sandbox.spawn(command).await?.wait().await }.await.map_err(|error| error.to_string())?;
    let output = [ended.output.head, ended.output.tail].concat();
    if ended.exit == Exit::Code(0) {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    let said = crate::text::one_line(&String::from_utf8_lossy(&output), 200);
    Err(if said.is_empty() { "it failed without a word".to_owned() } else { said })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_image_wires_every_event() {
        for agent in &AGENTS {
            let path = agent.settings.replacen("/etc", concat!(env!("CARGO_MANIFEST_DIR"), "/sandbox/image"), 1);
            let settings = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            for event in agent.events {
                assert!(is_wired(&settings, agent.program, event), "{path}: {event}");
            }
        }
    }

    #[test]
    fn only_our_script_with_its_own_event_counts_as_wired() {
        let settings =
            |command: &str| json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": command}]}]}});
        let ours = "/usr/local/lib/matrix-agent/hooks/ipc-event qwen Stop";
        assert!(is_wired(&settings(ours), "qwen", "Stop"));
        assert!(!is_wired(&settings(ours), "gemini", "Stop"));
        assert!(!is_wired(&settings("/usr/local/lib/matrix-agent/hooks/ipc-event qwen SessionStart"), "qwen", "Stop"));
        for other in [json!(null), json!({"hooks": []}), json!({"hooks": {"Stop": {"hooks": 7}}})] {
            assert!(!is_wired(&other, "qwen", "Stop"));
        }
    }
}
