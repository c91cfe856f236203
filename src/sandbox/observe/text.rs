//! Writes an observation for people: what holds in small letters, what does not in capitals.

use std::{fmt, time::Duration};

use super::{Attempt, Observation};
use crate::sandbox::runtime::{Runtime, wall};
use crate::text::{human_bytes, human_duration};

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
        writeln!(f, "wall      {}: {}", self.runtime, wall(&self.runtime))?;
        let hidden = Runtime::named(&self.runtime).is_some_and(|runtime| !runtime.shows_pids());
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
            let whose = if hidden { "gVisor" } else { "root" };
            writeln!(f, "{whose:<9} {}", rights(&outside.capabilities, outside.no_new_privileges))?;
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
    use crate::{
        ids::Address,
        sandbox::{cgroup::CgroupLimits, observe::Outside},
    };

    #[test]
    fn the_text_says_what_is_and_cries_where_nothing_holds() {
        let mut observation = Observation {
            address: Address::of_first("!r:x"),
            container: "sandbox-r-x".into(),
            id: "abc".into(),
            running: true,
            paused: false,
            runtime: "crun".into(),
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
                limits: CgroupLimits {
                    memory: Some(1 << 30),
                    memory_used: Some(5 << 20),
                    pids_used: Some(2),
                    ..CgroupLimits::default()
                },
            }),
            inside: None,
        };
        insta::assert_snapshot!(observation, @r"
        sandbox-r-x · running for 1 h 2 min
        wall      crun: sandboxes share this machine's kernel, of which seccomp leaves them a part
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
        assert_eq!(network(&["lo".into(), "eth0".into()]), "INTERFACES eth0");
    }
}
