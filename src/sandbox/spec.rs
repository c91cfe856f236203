//! Describes a room's container: a pure function from the operator's options and the room's plan to the body of
//! Podman's create request. Every limit and every right of a sandbox is decided here; `observe.rs` shows what really
//! holds.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits};
use sandboxd::protocol;

use super::{
    event_mount::{self, Source},
    fixed,
    id_range::IdRange,
    options::SandboxOptions,
    runtime::Runtime,
};
use crate::ids::{Address, FIRST_ACCOUNT, RoomKey, digest};

/// Label: the server that owns a container or volume.
pub(super) const INSTANCE: &str = "matrix-agent.instance";
/// Label: the account to which it belongs; the first account if it is missing.
const ACCOUNT: &str = "matrix-agent.account";
/// Label: the room to which it belongs.
const ROOM: &str = "matrix-agent.room";
/// Label: the runtime that runs the container, if the operator has chosen one.
const RUNTIME: &str = "matrix-agent.runtime";
/// Label: the digest of the image from which the container was made.
pub(super) const IMAGE: &str = "matrix-agent.image";
/// Label: a digest of everything that this file decides. A container with another digest is made anew at its next
/// start.
pub(super) const SPEC: &str = "matrix-agent.spec";

/// The workspace in the sandbox: the directory `workspace` of the room's files.
pub(super) const WORKSPACE: &str = "/workspace";
/// The agent's home in the sandbox: the directory `home` of the room's files.
pub(super) const HOME: &str = "/home/agent";
/// The agent's uid and gid in the sandbox.
pub(super) const AGENT: u32 = 1000;

/// Where the whole volume is mounted, read-only and masked. Podman 4.3 cannot mount a part of a volume, so its two
/// directories are bind mounts, and Podman would take the volume for unused: it would not mount it, and `podman
/// volume prune` would remove it. This mount counts as a use. Nobody inside sees anything in it, nor can replace the
/// two directories by links.
const VOLUME: &str = "/run/volume";

/// Where the operator's certificates are in the sandbox.
const CA_BUNDLE: &str = "/run/ca-bundle.crt";

/// The variables by which OpenSSL, Node, pip, requests, curl, git and cargo find certificates.
const CA_VARIABLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];

/// The capabilities of PID 1: to install packages, to run commands as `agent` and to end them.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL"];

/// The size of `/dev/shm` in bytes; Chromium needs more than the usual 64 MB.
const SHM: i64 = 256 << 20;
/// `/dev/shm` gets at most one such part of the sandbox's memory: its content counts as memory and outlives the
/// command that wrote it, so a full one must leave enough for the next command.
const SHM_PART: i64 = 4;
/// What Podman forbids in it by itself.
const SHM_OPTIONS: &str = "noexec,nosuid,nodev";

/// System V shared memory has no files that could be deleted; with this setting a segment is freed with the last
/// process that has it attached.
const SYSCTLS: [(&str, &str); 1] = [("kernel.shm_rmid_forced", "1")];

/// Resource limits, soft and hard. Podman's API ignores the defaults in `containers.conf`, and without these a
/// container fails to start where the host's hard limits are lower than Podman's.
const ULIMITS: [(&str, i64, i64); 2] = [("nofile", 1024, 20_000), ("nproc", 16_384, 16_384)];

/// Where the host does not see a sandbox's own processes, `nproc` bounds them, for each of its users. Above that, the host's
/// count holds what the runtime needs for them, at most so many for each and so many besides: that count ends the runtime,
/// and with it the sandbox.
const HIDDEN_PIDS: (i64, i64) = (4, 256);

/// What a room's container is made with.
#[derive(Clone, Debug)]
pub(super) struct ContainerPlan<'a> {
    /// The volume's name; `None` if the files are a directory of the server's.
    pub(super) volume_name: Option<&'a str>,
    /// The room.
    pub(super) address: &'a Address,
    /// The directory with the room's socket.
    pub(super) directory: &'a Path,
    /// The directory of the files on the host.
    pub(super) files: &'a Path,
    /// What is mounted for its events.
    pub(super) events: Source,
    /// The container's id range on the host; `None` with rootless Podman, which has one for all.
    pub(super) ids: Option<IdRange>,
    /// Whether the file system can set a quota on the writable layer.
    pub(super) quota: bool,
    /// By what the room's sandboxd is known, where the kernel does not show its pid.
    pub(super) proof: Option<&'a str>,
    /// sandboxd's binary on the host.
    pub(super) sandboxd: &'a Path,
    /// Our seccomp profile on the host.
    pub(super) seccomp: &'a Path,
    /// The directory of the files from `fixed.rs`.
    pub(super) fixed: &'a Path,
    /// The image's id.
    pub(super) image: &'a str,
    /// The image's digest, for display.
    pub(super) image_digest: &'a str,
}

/// Returns the directories in a room's files that hold the workspace and the home.
pub(super) fn part_directories(files: &Path) -> [PathBuf; 2] {
    [files.join("workspace"), files.join("home")]
}

/// Returns the request that creates the room's container.
pub(super) fn container(options: &SandboxOptions, plan: &ContainerPlan<'_>) -> ContainerCreateBody {
    let mut body = ContainerCreateBody {
        image: Some(plan.image.to_owned()),
        hostname: Some("sandbox".to_owned()),
        user: Some("0:0".to_owned()),
        working_dir: Some(WORKSPACE.to_owned()),
        entrypoint: Some(vec![protocol::BINARY.to_owned()]),
        cmd: Some(Vec::new()),
        env: Some(environment(options, plan.proof)),
        stop_signal: Some("SIGTERM".to_owned()),
        host_config: Some(host_config(options, plan)),
        ..Default::default()
    };
    let decided = serde_json::to_string(&body).unwrap_or_default();
    let mut more = vec![(IMAGE, plan.image_digest)];
    let spec = match options.runtime.map(Runtime::name) {
        Some(runtime) => {
            more.push((RUNTIME, runtime));
            digest(&[&decided, runtime], 8)
        }
        None => digest(&[&decided], 8),
    };
    more.push((SPEC, &spec));
    body.labels = Some(labels(options, plan.address, &more));
    body
}

/// Returns the label of everything that belongs to `instance`, in the form of Podman's filters.
pub(super) fn owned_by(instance: &str) -> String {
    format!("{INSTANCE}={instance}")
}

/// Returns the labels that everything of a room carries, with `more`.
pub(super) fn labels(options: &SandboxOptions, address: &Address, more: &[(&str, &str)]) -> HashMap<String, String> {
    let account = (!address.is_of_first()).then_some((ACCOUNT, address.account.as_str()));
    let ours = [(INSTANCE, options.instance.as_str()), (ROOM, address.room.as_str())].into_iter().chain(account);
    ours.chain(more.iter().copied()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Returns the room to which something with these labels belongs, of whichever server.
pub(super) fn owner(labels: &HashMap<String, String>) -> Option<Address> {
    let room = RoomKey::from(labels.get(ROOM)?.as_str());
    let account = labels.get(ACCOUNT).map_or(FIRST_ACCOUNT, String::as_str).to_owned();
    Some(Address { account, room })
}

/// Returns the runtime that was chosen for a container with these labels; `None`: Podman's own.
pub(super) fn runtime(labels: &HashMap<String, String>) -> Option<Runtime> {
    labels.get(RUNTIME).and_then(|name| Runtime::named(name))
}

/// Returns whether these labels are those of this server's room.
pub(super) fn is_of(labels: &HashMap<String, String>, options: &SandboxOptions, address: &Address) -> bool {
    labels.get(INSTANCE) == Some(&options.instance) && owner(labels).as_ref() == Some(address)
}

fn host_config(options: &SandboxOptions, plan: &ContainerPlan<'_>) -> HostConfig {
    let memory = i64::try_from(options.memory).unwrap_or(i64::MAX);
    let pids = i64::from(options.pids);
    let hidden = !options.runtime.is_none_or(Runtime::shows_pids);
    let shm = SHM.min(memory / SHM_PART);
    HostConfig {
        userns_mode: plan.ids.map(IdRange::userns_mode),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).into()),
        security_opt: Some(security(plan)),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        memory: Some(memory),
        memory_swap: Some(memory), // memory and swap together, so there is no swap
        nano_cpus: Some((options.cpus * 1e9).round() as i64),
        pids_limit: Some(if hidden { pids * HIDDEN_PIDS.0 + HIDDEN_PIDS.1 } else { pids }),
        shm_size: Some(shm),
        // What Podman makes for it otherwise lies in a folder that Podman 5 closes, and gVisor opens with the sandbox's ids.
        tmpfs: hidden
            .then(|| HashMap::from([("/dev/shm".to_owned(), format!("rw,size={shm},mode=1777,{SHM_OPTIONS}"))])),
        sysctls: Some(SYSCTLS.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        ulimits: Some(
            ULIMITS
                .iter()
                .map(|&(name, soft, hard)| {
                    let (soft, hard) = if hidden && name == "nproc" { (pids, pids) } else { (soft, hard) };
                    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) }
                })
                .collect(),
        ),
        storage_opt: plan.quota.then(|| HashMap::from([("size".to_owned(), options.disk.to_string())])),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        mounts: Some(mounts(options, plan)),
        ..Default::default()
    }
}

fn security(plan: &ContainerPlan<'_>) -> Vec<String> {
    let mut security = vec!["no-new-privileges".to_owned(), format!("seccomp={}", plan.seccomp.display())];
    security.extend(plan.volume_name.map(|_| format!("mask={VOLUME}")));
    security
}

fn mounts(options: &SandboxOptions, plan: &ContainerPlan<'_>) -> Vec<Mount> {
    let [workspace, home] = part_directories(plan.files);
    let volume = plan.volume_name.map(|name| mount(MountType::VOLUME, name.as_ref(), VOLUME, true));
    let mut mounts: Vec<_> = volume.into_iter().collect();
    mounts.extend([
        mount(MountType::BIND, &workspace, WORKSPACE, false),
        match &plan.events {
            Source::Volume(name) => mount(MountType::VOLUME, name.as_ref(), event_mount::MOUNT, false),
            Source::Directory(path) => mount(MountType::BIND, path, event_mount::MOUNT, false),
        },
        mount(MountType::BIND, &home, HOME, false),
        mount(MountType::BIND, plan.directory, protocol::ROOM_DIR, true),
        mount(MountType::BIND, plan.sandboxd, protocol::BINARY, true),
    ]);
    mounts.extend(fixed::files(plan.fixed).map(|(file, at)| mount(MountType::BIND, &file, at, true)));
    if let Some(bundle) = &options.ca_bundle {
        mounts.push(mount(MountType::BIND, bundle, CA_BUNDLE, true));
    }
    mounts
}

fn mount(typ: MountType, source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(typ),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

fn environment(options: &SandboxOptions, proof: Option<&str>) -> Vec<String> {
    let certificates = options.ca_bundle.iter().flat_map(|_| CA_VARIABLES.map(|name| format!("{name}={CA_BUNDLE}")));
    certificates.chain(proof.map(|proof| format!("{}={proof}", protocol::PROOF))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    fn options() -> SandboxOptions {
        SandboxOptions {
            state_dir: "/state".into(),
            ipc_dir: "/ipc".into(),
            instance: "here".into(),
            image: "image:latest".into(),
            podman_socket: None,
            podman_path: "podman".into(),
            runtime: None,
            memory: 1 << 30,
            cpus: 1.5,
            pids: 256,
            disk: 10 << 30,
            idle: Duration::from_mins(30),
            memory_total: u64::MAX,
            max_running: 4,
            host_disk_reserve: 0,
            grace: Duration::from_hours(24),
            clock: Clock::default(),
            ca_bundle: Some("/etc/ssl/certs/ca.crt".into()),
        }
    }

    fn plan(address: &Address) -> ContainerPlan<'_> {
        ContainerPlan {
            volume_name: Some("sandbox-r-x"),
            address,
            directory: Path::new("/state/rooms/0a1b2c3d"),
            files: Path::new("/volumes/sandbox-r-x/_data"),
            events: Source::Volume("ipc-0a1b2c3d".to_owned()),
            ids: IdRange::from_label("2147614719"),
            quota: false,
            proof: None,
            sandboxd: Path::new("/state/sandboxd"),
            seccomp: Path::new("/state/seccomp-0a.json"),
            fixed: Path::new("/state/fixed"),
            image: "sha256:11",
            image_digest: "sha256:22",
        }
    }

    /// The whole request for a room: a change here changes what a sandbox may do.
    #[test]
    fn the_whole_request() {
        let room = Address::of_first("!r:x");
        let mut body = container(&options(), &plan(&room));
        let labels = body.labels.take().unwrap_or_default();
        insta::assert_json_snapshot!(body);
        assert_eq!(labels.get(INSTANCE).map(String::as_str), Some("here"));
        assert_eq!(labels.get(ROOM).map(String::as_str), Some("!r:x"));
        assert_eq!(labels.get(IMAGE).map(String::as_str), Some("sha256:22"));
    }

    /// Earlier versions wrote these labels, by which their containers and volumes are found.
    #[test]
    fn the_labels_of_the_first_account_are_those_of_ever() {
        let room = Address::of_first("!r:x");
        let pairs = [("matrix-agent.instance", "here"), ("matrix-agent.room", "!r:x"), ("more", "1")];
        let expected = HashMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(labels(&options(), &room, &[("more", "1")]), expected);
        assert_eq!(owner(&expected), Some(room));
    }

    #[test]
    fn what_an_account_has_is_no_other_accounts_in_the_same_room() {
        let coder = Address::of_first("!r:x");
        let talk = Address { account: "talk".into(), ..coder.clone() };
        let (ours, theirs) = (labels(&options(), &coder, &[]), labels(&options(), &talk, &[]));
        assert_eq!((owner(&ours).as_ref(), owner(&theirs).as_ref()), (Some(&coder), Some(&talk)));
        assert!(is_of(&ours, &options(), &coder) && is_of(&theirs, &options(), &talk));
        assert!(!is_of(&ours, &options(), &talk) && !is_of(&theirs, &options(), &coder));
        assert!(!is_of(&ours, &SandboxOptions { instance: "there".into(), ..options() }, &coder));
    }

    /// What differs under gVisor; the rest of the request is the same.
    #[test]
    fn where_the_host_sees_no_processes_a_proof_is_given_and_their_number_is_held_inside() {
        let room = Address::of_first("!r:x");
        let runsc = SandboxOptions { runtime: Some(Runtime::Runsc), ..options() };
        let body = container(&runsc, &ContainerPlan { proof: Some("0a1b"), ..plan(&room) });
        assert!(body.env.unwrap().contains(&"MATRIX_AGENT_PROOF=0a1b".to_owned()));
        assert_eq!(runtime(&body.labels.unwrap()), Some(Runtime::Runsc));
        let host = body.host_config.unwrap();
        assert_eq!(host.pids_limit, Some(4 * 256 + 256));
        let processes = host.ulimits.unwrap().into_iter().find(|limit| limit.name.as_deref() == Some("nproc")).unwrap();
        assert_eq!((processes.soft, processes.hard), (Some(256), Some(256)));
        assert_eq!(host.tmpfs.unwrap()["/dev/shm"], "rw,size=268435456,mode=1777,noexec,nosuid,nodev");
    }

    #[test]
    fn rootless_podman_has_one_namespace_for_all() {
        let room = Address::of_first("!r:x");
        let body = container(&options(), &ContainerPlan { ids: None, ..plan(&room) });
        assert_eq!(body.host_config.and_then(|host| host.userns_mode), None);
    }

    #[test]
    fn the_label_changes_with_what_a_container_is_made_of_and_with_nothing_else() {
        let room = Address::of_first("!r:x");
        let spec =
            |options: &SandboxOptions, plan: &ContainerPlan<'_>| container(options, plan).labels.unwrap()[SPEC].clone();
        let before = spec(&options(), &plan(&room));
        assert_eq!(before, spec(&SandboxOptions { idle: Duration::from_mins(1), ..options() }, &plan(&room)));
        assert_ne!(before, spec(&SandboxOptions { pids: 512, ..options() }, &plan(&room)));
        assert_ne!(before, spec(&options(), &ContainerPlan { image: "sha256:33", ..plan(&room) }));
        assert_ne!(before, spec(&options(), &ContainerPlan { quota: true, ..plan(&room) }));
        assert_ne!(before, spec(&options(), &ContainerPlan { proof: Some("lost"), ..plan(&room) }));
        assert_ne!(before, spec(&SandboxOptions { runtime: Some(Runtime::Crun), ..options() }, &plan(&room)));
        assert_ne!(
            before,
            spec(&options(), &ContainerPlan { seccomp: Path::new("/state/seccomp-0b.json"), ..plan(&room) })
        );
    }
}
