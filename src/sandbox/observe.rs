//! What a sandbox really is: read from the kernel on the host, from Podman, and by a probe inside, never from what was
//! asked for. `!sandbox` and `matrix-agent sandbox inspect` show this one thing, as text or as JSON.

use std::{fmt, fs, io, time::Duration};

use serde::Serialize;

use super::{
    Sandbox, SandboxError,
    cgroup::{Cgroup, Limits},
    disk,
    engine::{Condition, Inspected},
    fleet::Shared,
    room::Room,
    spec, usage,
};
use crate::{
    clock::Clock,
    ids::Address,
    text::{human_bytes, human_duration},
};

/// The kernel's names of capabilities, by their number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a probe inside reads at most of a file.
const PROBE: u64 = 64 * 1024;

/// How long its files may be counted: somebody waits for the answer.
const COUNT_LIMIT: Duration = Duration::from_secs(5);

/// A sandbox as observed.
#[derive(Clone, Debug, Serialize)]
pub struct Observation {
    /// Whose it is.
    #[serde(flatten)]
    pub address: Address,
    /// The container's name.
    pub container: String,
    /// Its id.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// When it was started last, in RFC 3339.
    pub started_at: String,
    /// Seconds since, while it runs.
    pub uptime_seconds: Option<u64>,
    /// The digest of the image that it was made of.
    pub image: String,
    /// Whether that is what the configured image is now.
    pub image_is_current: bool,
    /// Its volume's name.
    pub volume: Option<String>,
    /// Bytes that it takes on disk.
    pub disk_used: Option<u64>,
    /// Bytes that it may take.
    pub disk_limit: u64,
    /// Its PID 1 as the host's kernel shows it, while it runs.
    pub outside: Option<Outside>,
    /// What a process of the agent sees, while sandboxd answers.
    pub inside: Option<Inside>,
}

/// PID 1 as the host's kernel shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outside {
    /// Its pid on the host.
    pub pid: u32,
    /// Its uid on the host.
    pub uid: u32,
    /// The user namespace: first id inside, first id on the host, how many.
    pub uid_map: Vec<[u64; 3]>,
    /// Its effective capabilities, in its own user namespace.
    pub capabilities: Vec<String>,
    /// Whether no process in it can gain rights.
    pub no_new_privileges: bool,
    /// Whether a seccomp filter is on.
    pub seccomp: bool,
    /// The network interfaces that it has.
    pub interfaces: Vec<String>,
    /// The limits in force.
    pub limits: Limits,
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
    /// Whether it cannot gain rights.
    pub no_new_privileges: bool,
    /// Whether a seccomp filter is on.
    pub seccomp: bool,
    /// What became of its attempt to make a user namespace, in which it would have every capability.
    pub user_namespace: Attempt,
    /// What became of an attempt to write into the workspace by a command that may write nowhere.
    pub write_held_back: Attempt,
    /// The network interfaces.
    pub interfaces: Vec<String>,
    /// Which sandboxd it is.
    pub sandboxd: String,
    /// The container's boot.
    pub boot_id: String,
    /// Commands that run.
    pub commands: usize,
}

/// What became of something that was tried inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// It was refused, in the kernel's words.
    Refused(String),
    /// It was allowed.
    Allowed,
    /// It could not be tried.
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

/// Looks at the room's sandbox.
pub(super) async fn observe(shared: &Shared, room: &Room) -> Result<Observation, SandboxError> {
    let container = room.container_name().ok_or_else(|| SandboxError::NoSandbox(room.address.to_string()))?;
    let seen = shared.engine.inspect(&container).await?;
    let outside = seen.pid.and_then(|pid| match Outside::of(pid) {
        Ok(outside) => Some(outside),
        Err(error) => {
            tracing::debug!(%error, "a sandbox's PID 1 cannot be looked at");
            None
        }
    });
    let inside = match room.connection().filter(|_| seen.condition == Condition::Running) {
        Some(sandbox) => Inside::of(&sandbox).await.ok(),
        None => None,
    };
    let info = shared.info().await?;
    let places = disk::places(shared, &info, room, &seen);
    let disk_used = usage::measure(&places, COUNT_LIMIT).await.ok().map(|taken| taken.bytes);
    let current = shared.look_up_image().await.ok();
    Ok(Observation {
        address: room.address.clone(),
        container,
        running: seen.condition != Condition::Stopped,
        paused: seen.condition == Condition::Paused,
        uptime_seconds: uptime(&seen),
        image: seen.labels.get(spec::IMAGE).cloned().unwrap_or_else(|| seen.image.clone()),
        image_is_current: current.is_some_and(|image| same_id(&image.id, &seen.image)),
        volume: seen.volume_name,
        disk_used,
        disk_limit: shared.options.disk,
        outside,
        inside,
        id: seen.id,
        started_at: seen.started_at,
    })
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
    async fn of(sandbox: &Sandbox) -> Result<Self, SandboxError> {
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
            no_new_privileges: status.no_new_privileges,
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

/// Tells whether a command is one of those with which we look.
fn is_ours(id: &str) -> bool {
    id.starts_with("fs-") || id.starts_with("probe-")
}

/// What matters of `/proc/PID/status`.
#[derive(Default)]
struct Status {
    uid: u32,
    gid: u32,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    seccomp: bool,
}

impl Status {
    fn parse(text: &str) -> Self {
        let mut status = Self { uid: u32::MAX, gid: u32::MAX, ..Self::default() };
        let mut bits = 0;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let first = value.split_whitespace().next().unwrap_or_default();
            match key {
                "Uid" => status.uid = first.parse().unwrap_or(u32::MAX),
                "Gid" => status.gid = first.parse().unwrap_or(u32::MAX),
                // What it has and what it could take up again.
                "CapEff" | "CapPrm" => bits |= u64::from_str_radix(first, 16).unwrap_or_default(),
                "NoNewPrivs" => status.no_new_privileges = first == "1",
                "Seccomp" => status.seccomp = first != "0",
                _ => {}
            }
        }
        status.capabilities = capabilities(bits);
        status
    }
}

fn capabilities(bits: u64) -> Vec<String> {
    (0..u64::BITS as usize)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| CAPABILITIES.get(bit).map_or_else(|| format!("capability {bit}"), |name| (*name).to_owned()))
        .collect()
}

/// Reads `/proc/PID/net/dev`: two lines of head, then `name: counters`.
fn interfaces(text: &str) -> Vec<String> {
    text.lines().skip(2).filter_map(|line| line.split_once(':').map(|(name, _)| name.trim().to_owned())).collect()
}

fn id_map(text: &str) -> Vec<[u64; 3]> {
    let line = |line: &str| -> Option<[u64; 3]> {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
    };
    text.lines().filter_map(line).collect()
}

fn same_id(a: &str, b: &str) -> bool {
    a.trim_start_matches("sha256:") == b.trim_start_matches("sha256:")
}

fn uptime(seen: &Inspected) -> Option<u64> {
    let started: jiff::Timestamp = seen.started_at.parse().ok().filter(|_| seen.condition != Condition::Stopped)?;
    u64::try_from((Clock::default().millis() - started.as_millisecond()) / 1000).ok()
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.paused {
            "paused"
        } else if self.running {
            "running"
        } else {
            "stopped"
        };
        write!(f, "{} · {state}", self.container)?;
        if let Some(seconds) = self.uptime_seconds {
            write!(f, " for {}", human_duration(Duration::from_secs(seconds)))?;
        }
        writeln!(f)?;
        if !self.address.is_of_first() {
            writeln!(f, "account   {}", self.address.account)?;
        }
        match &self.inside {
            Some(inside) => {
                writeln!(
                    f,
                    "agent     uid {}, {}",
                    inside.uid,
                    rights(&inside.capabilities, inside.no_new_privileges)
                )?;
                writeln!(f, "nesting   {}", nesting(&inside.user_namespace))?;
                writeln!(f, "writing   {}", writing(&inside.write_held_back))?;
                writeln!(f, "network   {}", network(&inside.interfaces))?;
                writeln!(f, "commands  {} running", inside.commands)?;
            }
            None => writeln!(f, "agent     nothing to see: sandboxd does not answer now")?,
        }
        if let Some(outside) = &self.outside {
            writeln!(f, "root      {}", rights(&outside.capabilities, outside.no_new_privileges))?;
            writeln!(f, "on host   pid {}, uid {}, {}", outside.pid, outside.uid, mapping(&outside.uid_map))?;
            if self.inside.is_none() {
                writeln!(f, "network   {}", network(&outside.interfaces))?;
            }
            let limits = &outside.limits;
            writeln!(f, "memory    {} of {}", known(limits.memory_used), bound(limits.memory.map(human_bytes)))?;
            writeln!(f, "cpus      {}", bound(limits.cpus.map(|cpus| format!("{cpus}"))))?;
            let processes = limits.pids_used.map_or_else(|| "?".to_owned(), |pids| pids.to_string());
            writeln!(f, "processes {processes} of {}", bound(limits.pids.map(|pids| pids.to_string())))?;
        }
        writeln!(f, "disk      {} of {}", known(self.disk_used), human_bytes(self.disk_limit))?;
        let current = if self.image_is_current { "" } else { " (not the newest: made anew at its next start)" };
        writeln!(f, "image     {}{current}", self.image)?;
        write!(f, "volume    {}", self.volume.as_deref().unwrap_or("none"))
    }
}

fn rights(capabilities: &[String], no_new_privileges: bool) -> String {
    let mut text =
        if capabilities.is_empty() { "no capabilities".to_owned() } else { format!("may {}", capabilities.join(", ")) };
    text.push_str(if no_new_privileges { ", cannot gain more" } else { ", CAN GAIN MORE" });
    text
}

fn nesting(attempt: &Attempt) -> String {
    match attempt {
        Attempt::Refused(why) => format!("`unshare` of a user namespace was tried and refused: {why}"),
        Attempt::Allowed => "CAN MAKE USER NAMESPACES, in which it has every capability".to_owned(),
        Attempt::Unknown => "it could not be tried whether it makes user namespaces".to_owned(),
    }
}

fn writing(attempt: &Attempt) -> String {
    match attempt {
        Attempt::Refused(why) => format!("a command that may write nowhere tried and was refused: {why}"),
        Attempt::Allowed => "A COMMAND THAT MAY WRITE NOWHERE CAN".to_owned(),
        Attempt::Unknown => {
            "no command can be kept from it (the kernel has no Landlock, or the sandbox is an older one)".to_owned()
        }
    }
}

fn network(interfaces: &[String]) -> String {
    let outward: Vec<_> = interfaces.iter().filter(|name| *name != "lo").map(String::as_str).collect();
    if outward.is_empty() { "none but the gateway".to_owned() } else { format!("INTERFACES {}", outward.join(", ")) }
}

fn mapping(map: &[[u64; 3]]) -> String {
    match map {
        [[0, 0, _]] => "NO user namespace of its own".to_owned(),
        [[inside, outside, count]] => format!("ids {inside}… are {outside}… there ({count})"),
        several => format!("{} id ranges", several.len()),
    }
}

fn bound(limit: Option<String>) -> String {
    limit.unwrap_or_else(|| "NO LIMIT".to_owned())
}

fn known(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), human_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsandboxd\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n\
        CapInh:\t0000000000000000\nCapPrm:\t00000000000400eb\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn rights_are_read_from_the_kernels_words() {
        let status = Status::parse(STATUS);
        assert_eq!((status.uid, status.gid, status.no_new_privileges, status.seccomp), (1000, 1000, true, true));
        let expected = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_CHROOT"];
        assert_eq!(status.capabilities, expected);
        assert_eq!(Status::parse("").uid, u32::MAX, "what is not said is nobody");
    }

    #[test]
    fn the_text_says_what_is_and_cries_where_nothing_holds() {
        let mut observation = Observation {
            address: Address::of_first("!r:x"),
            container: "sandbox-r-x".into(),
            id: "abc".into(),
            running: true,
            paused: false,
            started_at: String::new(),
            uptime_seconds: Some(3720),
            image: "sha256:1".into(),
            image_is_current: false,
            volume: Some("sandbox-r-x".into()),
            disk_used: Some(3 << 20),
            disk_limit: 10 << 30,
            outside: Some(Outside {
                pid: 42,
                uid: 2_147_614_719,
                uid_map: vec![[0, 2_147_614_719, 65_536]],
                capabilities: vec!["CHOWN".into(), "KILL".into()],
                no_new_privileges: true,
                seccomp: true,
                interfaces: vec!["lo".into()],
                limits: Limits {
                    memory: Some(1 << 30),
                    memory_used: Some(5 << 20),
                    pids_used: Some(2),
                    ..Limits::default()
                },
            }),
            inside: None,
        };
        insta::assert_snapshot!(observation, @r"
        sandbox-r-x · running for 1 h 2 min
        agent     nothing to see: sandboxd does not answer now
        root      may CHOWN, KILL, cannot gain more
        on host   pid 42, uid 2147614719, ids 0… are 2147614719… there (65536)
        network   none but the gateway
        memory    5 MiB of 1 GiB
        cpus      NO LIMIT
        processes 2 of NO LIMIT
        disk      3 MiB of 10 GiB
        image     sha256:1 (not the newest: made anew at its next start)
        volume    sandbox-r-x
        ");
        observation.address.account = "talk".into();
        assert_eq!(observation.to_string().lines().nth(1), Some("account   talk"));
    }

    #[test]
    fn an_attempt_is_told_as_it_ended() {
        let refused = Attempt::Refused("Operation not permitted (os error 1)".into());
        assert!(nesting(&refused).ends_with("refused: Operation not permitted (os error 1)"));
        assert!(nesting(&Attempt::Allowed).starts_with("CAN MAKE"));
        assert!(is_ours("probe-1") && is_ours("fs-1") && !is_ours("job-1"));
    }

    #[test]
    fn interfaces_and_maps_are_read() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo:       0\n  eth0: 12 3\n";
        assert_eq!(interfaces(devices), ["lo", "eth0"]);
        assert_eq!(id_map("         0 2147614719      65536\n"), [[0, 2_147_614_719, 65_536]]);
        assert_eq!(network(&["lo".into(), "eth0".into()]), "INTERFACES eth0");
    }
}
