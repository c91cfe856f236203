//! What a sandbox really is: read from the host's kernel, from Podman, and by a probe inside, never from what was
//! asked for. `!sandbox` and `matrix-agent sandbox inspect` show this as text (`text.rs`) or JSON.

mod kernel;
mod text;

use std::{fs, io, time::Duration};

use serde::Serialize;

use kernel::{Status, id_map, interfaces};

use super::{
    Sandbox, SandboxError,
    cgroup::{Cgroup, CgroupLimits},
    disk,
    engine::{Condition, Inspected},
    fleet::Fleet,
    room::Room,
    runtime::Runtime,
    spec, usage,
};
use crate::{clock::Clock, ids::Address, strings::sandboxes as words};

/// The most bytes of a file that a probe inside reads.
const PROBE: u64 = 64 * 1024;

/// How long counting its files may take, since somebody waits for the answer.
const COUNT_LIMIT: Duration = Duration::from_secs(5);

/// A sandbox as observed.
#[derive(Clone, Debug, Serialize)]
pub struct Observation {
    /// The account and room to which it belongs.
    #[serde(flatten)]
    pub address: Address,
    /// The container's name.
    pub container: String,
    /// The container's id.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// The name of the runtime that runs it; `the default of Podman` if it still runs with that and another one was chosen since.
    pub runtime: String,
    /// When it was started last, in RFC 3339.
    pub started_at: String,
    /// Seconds since that start, while it runs.
    pub uptime_seconds: Option<u64>,
    /// The digest of its image.
    pub image: String,
    /// Whether that is the configured image as it is now.
    pub image_is_current: bool,
    /// The name of its volume.
    pub volume: Option<String>,
    /// Bytes that it takes on the disk.
    pub disk_used: Option<u64>,
    /// Bytes that it may take on the disk.
    pub disk_limit: u64,
    /// Its PID 1 as seen from the host, while it runs.
    pub outside: Option<Outside>,
    /// What a process of the agent sees, if sandboxd answers.
    pub inside: Option<Inside>,
}

/// PID 1 as seen from the host; under gVisor its own process, in which the sandbox is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outside {
    /// Its pid on the host.
    pub pid: u32,
    /// Its uid on the host.
    pub uid: u32,
    /// The user namespace's mapping: first id inside, first id on the host, how many.
    pub uid_map: Vec<[u64; 3]>,
    /// Its effective capabilities in its own user namespace.
    pub capabilities: Vec<String>,
    /// Whether its processes can gain no rights (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether a seccomp filter is active.
    pub seccomp: bool,
    /// The names of its network interfaces.
    pub interfaces: Vec<String>,
    /// The control-group limits in force.
    pub limits: CgroupLimits,
}

/// What a process of the agent sees.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inside {
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
    /// Its effective and permitted capabilities.
    pub capabilities: Vec<String>,
    /// Whether it can gain no rights (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether a seccomp filter is active.
    pub seccomp: bool,
    /// The result of an attempt to make a user namespace, in which it would have every capability.
    pub user_namespace: Attempt,
    /// The result of an attempt to write into the workspace by a command that may write nowhere (Landlock).
    pub write_held_back: Attempt,
    /// The names of its network interfaces.
    pub interfaces: Vec<String>,
    /// The build of its sandboxd.
    pub sandboxd: String,
    /// sandboxd's boot id, new with each start of the container.
    pub boot_id: String,
    /// The number of commands that run.
    pub commands: usize,
}

/// The result of an attempt inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// The kernel refused it; holds its words.
    Refused(String),
    /// The kernel allowed it.
    Allowed,
    /// It could not be made.
    Unknown,
}

impl From<Result<Option<String>, SandboxError>> for Attempt {
    fn from(tried: Result<Option<String>, SandboxError>) -> Self {
        match tried {
            Ok(Some(why)) => Self::Refused(why),
            Ok(None) => Self::Allowed,
            Err(_) => Self::Unknown,
        }
    }
}

/// Observes the room's sandbox.
pub(super) async fn observe(fleet: &Fleet, room: &Room) -> Result<Observation, SandboxError> {
    let container = room.container_name().ok_or_else(|| SandboxError::NoSandbox(room.address.to_string()))?;
    let seen = fleet.engine.inspect(&container).await?;
    let outside = seen.pid.and_then(|pid| match Outside::of(pid) {
        Ok(outside) => Some(outside),
        Err(error) => {
            tracing::debug!(%error, "a sandbox's PID 1 cannot be looked at");
            None
        }
    });
    let inside = match room.connection().filter(|_| seen.condition == Condition::Running) {
        Some(sandbox) => Inside::of(&sandbox, spec::runtime(&seen.labels)).await.ok(),
        None => None,
    };
    let info = fleet.info().await?;
    let runtime = runtime(spec::runtime(&seen.labels), fleet.options.runtime, &info.runtime);
    let places = disk::places(fleet, &info, room, &seen);
    let disk_used = usage::measure(&places, COUNT_LIMIT).await.ok().map(|taken| taken.bytes);
    let current = fleet.look_up_image().await.ok();
    Ok(Observation {
        address: room.address.clone(),
        container,
        running: matches!(seen.condition, Condition::Running | Condition::Paused),
        paused: seen.condition == Condition::Paused,
        runtime,
        uptime_seconds: uptime(&seen),
        image: seen.labels.get(spec::IMAGE).cloned().unwrap_or_else(|| seen.image.clone()),
        image_is_current: current.is_some_and(|image| same_id(&image.id, &seen.image)),
        volume: seen.volume_name,
        disk_used,
        disk_limit: fleet.options.disk,
        outside,
        inside,
        id: seen.id,
        started_at: seen.started_at,
    })
}

/// Returns which runtime runs a container. One that was made before a runtime was chosen keeps Podman's own until it stops, and an
/// engine that was started with the chosen one (`engine`) does not name that; it is never gVisor, which is always chosen.
fn runtime(made_with: Option<Runtime>, chosen: Option<Runtime>, engine: &str) -> String {
    match (made_with, chosen) {
        (Some(made_with), _) => made_with.name().to_owned(),
        (None, None) => engine.to_owned(),
        (None, Some(_)) => words::PODMANS_OWN_RUNTIME.to_owned(),
    }
}

impl Outside {
    fn of(pid: u32) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let status = Status::parse(&read("status")?);
        Ok(Self {
            pid,
            uid: status.uid,
            uid_map: id_map(&read("uid_map")?),
            capabilities: status.capabilities,
            no_new_privileges: status.no_new_privileges,
            seccomp: status.seccomp,
            interfaces: interfaces(&read("net/dev")?),
            limits: Cgroup::of(pid)?.limits(),
        })
    }
}

impl Inside {
    async fn of(sandbox: &Sandbox, runtime: Option<Runtime>) -> Result<Self, SandboxError> {
        let (status, devices, commands, namespace, write) = tokio::join!(
            sandbox.read_file("/proc/self/status", 0, PROBE),
            sandbox.read_file("/proc/self/net/dev", 0, PROBE),
            sandbox.running(),
            sandbox.try_user_namespace(),
            sandbox.try_to_write(),
        );
        let status = Status::parse(&String::from_utf8_lossy(&status?.bytes));
        Ok(Self {
            uid: status.uid,
            gid: status.gid,
            capabilities: status.capabilities,
            // gVisor says nothing of it: there no program's mode gives rights to whoever starts it.
            no_new_privileges: status.no_new_privileges || runtime == Some(Runtime::Runsc),
            seccomp: status.seccomp,
            user_namespace: namespace.into(),
            write_held_back: write.into(),
            interfaces: interfaces(&String::from_utf8_lossy(&devices?.bytes)),
            sandboxd: sandbox.build().to_owned(),
            boot_id: sandbox.boot_id().to_owned(),
            commands: commands?.iter().filter(|command| !is_ours(&command.id)).count(),
        })
    }
}

/// Returns whether a command is one of the probes.
fn is_ours(id: &str) -> bool {
    id.starts_with("fs-") || id.starts_with("probe-")
}

fn same_id(a: &str, b: &str) -> bool {
    a.trim_start_matches("sha256:") == b.trim_start_matches("sha256:")
}

fn uptime(seen: &Inspected) -> Option<u64> {
    let started: jiff::Timestamp =
        seen.started_at.parse().ok().filter(|_| !matches!(seen.condition, Condition::Stopped | Condition::Gone))?;
    u64::try_from((Clock::default().millis() - started.as_millisecond()) / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_that_still_runs_as_before_has_not_the_wall_that_was_chosen_since() {
        let gvisor = Some(Runtime::Runsc);
        for (made_with, chosen, engine, running) in [
            (None, None, "crun", "crun"),
            (gvisor, gvisor, "runsc", "runsc"),
            (gvisor, None, "crun", "runsc"),
            (Some(Runtime::Crun), gvisor, "runsc", "crun"),
            (None, gvisor, "runsc", words::PODMANS_OWN_RUNTIME),
        ] {
            assert_eq!(runtime(made_with, chosen, engine), running, "{made_with:?} {chosen:?}");
        }
        assert_eq!(super::super::runtime::wall(words::PODMANS_OWN_RUNTIME), words::WALL_SHARED_KERNEL);
    }

    #[test]
    fn the_commands_with_which_we_look_do_not_count() {
        assert!(is_ours("probe-1") && is_ours("fs-1") && !is_ours("job-1"));
    }
}
