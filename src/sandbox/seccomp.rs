//! The seccomp profile of sandboxes: Podman's default without the system calls for namespaces, mounts, keyrings and
//! BPF. In a user namespace of its own even a process without capabilities would have them all, and could reach the
//! parts of the kernel in which most container escapes are found.
//!
//! `seccomp.json` is the profile. Calls that it does not name fail with ENOSYS, as on an older kernel, so that
//! programs fall back. The fleet writes it to the disk, and `spec.rs` puts it into each container that Podman
//! creates.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{embed, error::SandboxError, runtime::Runtime};
use crate::ids::digest;

static PROFILE: &str = include_str!("seccomp.json");

/// Returns the profile for a runtime. gVisor answers whatever a profile refuses with EPERM, upon which the C library makes
/// no threads, while it falls back to `clone`, whose flags are checked, if `clone3` is answered as ours does. So there `clone3`
/// is open: the namespaces that it could make are gVisor's alone, and mounts stay closed in them.
fn profile(runtime: Option<Runtime>) -> Cow<'static, str> {
    if runtime.is_none_or(Runtime::shows_pids) {
        return Cow::Borrowed(PROFILE);
    }
    let mut profile: Value = serde_json::from_str(PROFILE).unwrap_or_default();
    let rules = profile.get_mut("syscalls").and_then(Value::as_array_mut).into_iter().flatten();
    for rule in rules.filter_map(Value::as_object_mut) {
        if rule.get("names").is_some_and(|names| *names == serde_json::json!(["clone3"])) {
            rule.insert("action".to_owned(), "SCMP_ACT_ALLOW".into());
            rule.remove("errnoRet");
        }
    }
    Cow::Owned(profile.to_string())
}

/// Writes the profile to `state_dir` unless it is there, and returns its path. The name contains its digest, so that
/// a changed profile changes the container's spec and the container is made anew.
pub(super) fn install(state_dir: &Path, runtime: Option<Runtime>) -> Result<PathBuf, SandboxError> {
    let profile = profile(runtime);
    let path = state_dir.join(format!("seccomp-{}.json", digest(&[&profile], 6)));
    embed::put(&path, profile.as_bytes(), 0o644)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    /// Calls that lead out of a sandbox, or to parts of the kernel that no build needs.
    const NEVER: [&str; 37] = [
        "unshare",
        "setns",
        "clone3",
        "mount",
        "umount",
        "umount2",
        "move_mount",
        "open_tree",
        "open_tree_attr",
        "fsopen",
        "fsmount",
        "fsconfig",
        "fspick",
        "mount_setattr",
        "pivot_root",
        "chroot",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "io_setup",
        "io_submit",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "open_by_handle_at",
        "name_to_handle_at",
        "syslog",
        "reboot",
        "socketcall",
    ];

    fn rules() -> Vec<Value> {
        let profile: Value = serde_json::from_str(PROFILE).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO", "what is not named is refused");
        profile["syscalls"].as_array().unwrap().clone()
    }

    fn names(rule: &Value) -> BTreeSet<&str> {
        rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
    }

    #[test]
    fn nothing_that_leads_out_is_allowed() {
        for rule in rules().iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW") {
            let allowed = names(rule);
            for name in NEVER {
                assert!(!allowed.contains(name), "{name}: {}", rule["comment"]);
            }
            for name in ["clone", "socket", "personality"] {
                assert!(!allowed.contains(name) || rule["args"].is_array(), "{name} without a condition");
            }
        }
    }

    #[test]
    fn a_process_may_be_made_only_without_a_namespace_of_its_own() {
        let new =
            [libc::CLONE_NEWNS, libc::CLONE_NEWCGROUP, libc::CLONE_NEWUTS, libc::CLONE_NEWIPC, libc::CLONE_NEWUSER]
                .into_iter()
                .chain([libc::CLONE_NEWPID, libc::CLONE_NEWNET])
                .fold(0, |mask, flag| mask | flag as u32);
        let rules = rules();
        let allowed: Vec<_> = rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && names(rule).contains("clone"))
            .map(|rule| &rule["args"])
            .collect();
        let masked = serde_json::json!([{"index": 0, "value": new, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        assert_eq!(allowed, [&masked]);
        let clone3 = rules.iter().find(|rule| names(rule).contains("clone3")).unwrap();
        assert_eq!(clone3["errnoRet"], libc::ENOSYS, "any other answer would not make a libc fall back");
    }

    #[test]
    fn under_gvisor_the_same_is_allowed_and_clone3() {
        let (host, gvisor) = (profile(Some(Runtime::Crun)), profile(Some(Runtime::Runsc)));
        assert_eq!(host, PROFILE);
        let gvisor: Value = serde_json::from_str(&gvisor).unwrap();
        let differ = rules().into_iter().zip(gvisor["syscalls"].as_array().unwrap()).filter(|(a, b)| a != *b);
        let differ: Vec<_> = differ.map(|(_, rule)| (names(rule), rule["action"].as_str().unwrap())).collect();
        assert_eq!(differ, [(BTreeSet::from(["clone3"]), "SCMP_ACT_ALLOW")]);
    }

    #[test]
    fn it_is_named_by_what_it_holds_and_mended_when_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = install(directory.path(), None).unwrap();
        fs::write(&path, "{}").unwrap();
        assert_eq!(install(directory.path(), None).unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), PROFILE);
    }
}
