//! Checks Podman: does it answer, what does it enforce, does it have ids for the rooms, does the image exist?
//!
//! Starts nothing that stays: if no socket answers, it tries whether the server could start Podman's service itself.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Check, Fix, host};
use crate::{
    config::{Config, Part},
    ids,
    ops::settings,
    sandbox::{
        self, Runtime,
        engine::{Engine, EngineError},
        engine_info::{Cgroups, EngineInfo},
        own_socket,
    },
    text,
};

/// The oldest version of Podman with which the sandboxes were tried.
const TRIED: (u32, u32) = (4, 3);
/// The line of `/etc/subuid` and `/etc/subgid` that sets ids aside for rooms, as Podman's documentation has it.
const IDS: &str = "containers:2147483647:2147483648";
/// The number of ids of each room.
const RANGE: u64 = 65_536;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let folder = match Scratch::new() {
        Ok(folder) => folder,
        Err(error) => {
            return vec![Check::bad(
                "podman",
                format!("no temporary directory can be made ({error})"),
                "Look at the disk and at TMPDIR",
            )];
        }
    };
    let runtime = settings::runtime(config);
    let tried = match runtime {
        Some(runtime) => runtime.try_out(&config.paths.state_dir).await.map(Some),
        None => Ok(None),
    };
    let tried = match tried {
        Ok(version) => version,
        // Podman does not start with it, so there is nobody to be asked.
        Err(unusable) => return vec![Check::bad("runtime", unusable.what(), sentence(unusable.mend()))],
    };
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let _stop = cancel.clone().drop_guard();
    let sandbox = &config.sandbox;
    let engine = Engine::start(
        sandbox.podman_socket.clone().or_else(|| Some(own_socket(&config.paths.state_dir, runtime))),
        sandbox.podman_path.clone(),
        runtime,
        &folder.0,
        &tasks,
        cancel.clone(),
    );
    let checks = ask(&engine, config, tried.as_deref(), &folder.0).await;
    // A service that was started here must end before its directory is removed.
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    checks
}

async fn ask(engine: &Engine, config: &Config, version: Option<&str>, folder: &Path) -> Vec<Check> {
    let socket = match engine.socket().await {
        Ok(socket) => socket,
        Err(error) => return vec![away(&error)],
    };
    let usual = config.sandbox.podman_socket.as_ref().filter(|usual| socket != **usual);
    let way = match (usual, settings::runtime(config)) {
        (Some(usual), _) => {
            format!("nothing answers at {}, but the server can start its service itself", usual.display())
        }
        (None, Some(_)) if config.sandbox.podman_socket.is_none() => {
            "the server starts a service of its own".to_owned()
        }
        (None, _) => format!("answers at {}", socket.display()),
    };
    let mut checks = match EngineInfo::ask(engine).await {
        Ok(info) => {
            let mut checks = facts(&info, &way, version, config);
            let root = nix::unistd::geteuid().is_root();
            let tried = if info.rootless || !root { None } else { Some(sandbox::try_images(folder).await) };
            checks.push(files(info.rootless, tried));
            checks
        }
        Err(error) => vec![away(&error)],
    };
    checks.push(image(engine.image(&config.sandbox.image).await.map(|image| image.digest), &config.sandbox.image));
    checks
}

fn away(error: &EngineError) -> Check {
    let mend = "Install Podman, or set PODMAN_PATH and PODMAN_SOCKET to where it is";
    let what = match error {
        EngineError::Away(why) => why.clone(),
        other => other.to_string(),
    };
    Check::bad("podman", what.trim_end_matches('.'), mend)
}

fn facts(info: &EngineInfo, way: &str, version: Option<&str>, config: &Config) -> Vec<Check> {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let (uids, gids) = (file("/etc/subuid"), file("/etc/subgid"));
    vec![
        podman(info, way),
        runtime(info, version, settings::runtime(config)),
        limits(info),
        memory(info, config, settings::memory_total(config)),
        if info.rootless { own_ids(&uids, &gids, &user()) } else { ids_of_rooms(info, &uids, &gids, config) },
        storage(info, config),
    ]
}

fn podman(info: &EngineInfo, way: &str) -> Check {
    let what = format!("{}, {}; {way}", info.version, if info.rootless { "rootless" } else { "rootful" });
    let mut numbers = info.version.split('.').filter_map(|number| number.parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < TRIED {
        return Check::warning(
            "podman",
            what,
            format!("Podman before {}.{} was never tried here; update it", TRIED.0, TRIED.1),
        );
    }
    Check::good("podman", what)
}

/// Says which wall stands. `version` is what the chosen runtime says of itself.
fn runtime(info: &EngineInfo, version: Option<&str>, chosen: Option<Runtime>) -> Check {
    let seccomp = if info.seccomp { "on" } else { "off" };
    let what = format!("{}, seccomp {seccomp}", version.unwrap_or(&info.runtime));
    let runs = Runtime::named(&info.runtime);
    if chosen.is_some_and(|chosen| chosen.name() != info.runtime) {
        let mend = "Unset PODMAN_SOCKET, so that the server starts a Podman of its own, or start the one there with `--runtime`";
        return Check::bad("runtime", format!("{}, and not what SANDBOX_RUNTIME says", info.runtime), mend);
    }
    if chosen.is_none() && runs.is_some_and(|runs| !runs.shows_pids()) {
        let what = format!("{} by Podman's own settings, with which no sandbox can be spoken to", info.runtime);
        return Check::bad("runtime", what, format!("Set SANDBOX_RUNTIME={}", info.runtime));
    }
    let what = format!("{what}: {}", sandbox::wall(&info.runtime));
    if info.seccomp {
        return Check::good("runtime", what);
    }
    Check::bad("runtime", what, "Use a kernel and a runtime with seccomp: it keeps sandboxes from most of the kernel")
}

fn limits(info: &EngineInfo) -> Check {
    let what = format!("cgroups {} through {}", info.cgroups, info.cgroup_manager);
    let unenforced = info.unenforced();
    if unenforced.is_empty() {
        return Check::good("limits", format!("{what}: memory, processors and processes are enforced"));
    }
    let mend = match info.cgroups {
        Cgroups::V1 => "Boot with cgroups v2 (`systemd.unified_cgroup_hierarchy=1`), or run as root",
        Cgroups::V2 => {
            "Delegate the controllers to this user (systemd: `Delegate=yes` in user@.service.d), or run as root"
        }
    };
    Check::warning("limits", format!("{what}: not enforced here: {}", unenforced.join(", ")), mend)
}

fn memory(info: &EngineInfo, config: &Config, together: u64) -> Check {
    const NAME: &str = "memory of the sandboxes";
    let each = config.sandbox.memory;
    let share = match config.sandbox.memory_total {
        Part::Percent(percent) => format!("{percent} % of the host's"),
        Part::Bytes(_) => "as SANDBOX_MEMORY_TOTAL says".to_owned(),
    };
    let what = format!("{} together ({share}), {} each", text::human_bytes(together), text::human_bytes(each));
    if !info.counts_memory() {
        let count = (together / each.max(1)).max(1);
        return Check::warning(
            NAME,
            format!(
                "{what}; it cannot be counted here, so each is taken for all that it may use, and {count} run at once"
            ),
            "Boot with cgroups v2, or run as root; or set SANDBOX_MEMORY_TOTAL to more",
        );
    }
    if together < each {
        let what = format!("{what}: a single one may use more than all together");
        return Check::warning(NAME, what, "Raise SANDBOX_MEMORY_TOTAL, or lower SANDBOX_MEMORY");
    }
    Check::good(NAME, format!("{what}, at most {} at once", config.sandbox.max_running))
}

fn ids_of_rooms(info: &EngineInfo, uids: &str, gids: &str, config: &Config) -> Check {
    const NAME: &str = "user namespaces";
    let rooms = count(uids, &["containers"]).min(count(gids, &["containers"])) / RANGE;
    let mend = format!("echo {IDS} | sudo tee -a /etc/subuid /etc/subgid");
    if rooms == 0 {
        let none = "no ids are set aside for `containers` in /etc/subuid and /etc/subgid, so no room can have its own";
        let check = Check::bad(NAME, none, mend);
        // Beside a line that is too small another one would have to be fitted in by a person.
        let is_named = |text: &str| text.lines().any(|line| line.trim().starts_with("containers:"));
        if is_named(uids) || is_named(gids) {
            return check;
        }
        let files = ["/etc/subuid", "/etc/subgid"].map(PathBuf::from).into();
        return check.with_fix(Fix::Append { files, line: IDS.to_owned() });
    }
    if rooms < config.sandbox.max_running as u64 {
        return Check::bad(NAME, format!("ids for {rooms} rooms only, fewer than MAX_RUNNING_SANDBOXES"), mend);
    }
    let what = format!("ids for {rooms} rooms, each with its own");
    if !info.maps_ids_for_free() {
        let what = format!("{what}; this kernel ({}) copies the image for each room", info.kernel);
        return Check::warning(
            NAME,
            what,
            "Use overlay storage and a kernel from 5.19 on, or have enough disk and patience",
        );
    }
    Check::good(NAME, what)
}

/// Checks the ids of rootless Podman, in whose one user namespace all rooms are.
fn own_ids(uids: &str, gids: &str, user: &[String]) -> Check {
    const NAME: &str = "user namespaces";
    let user: Vec<&str> = user.iter().map(String::as_str).collect();
    if count(uids, &user).min(count(gids, &user)) < RANGE {
        return Check::bad(
            NAME,
            format!("this user has fewer than {RANGE} ids in /etc/subuid and /etc/subgid"),
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER, then `podman system migrate`",
        );
    }
    Check::warning(
        NAME,
        "rootless: all rooms share this user's namespace, so a process that escapes from one reaches the others",
        "Run as root, where each room has ids of its own, if strangers use this server",
    )
}

/// Returns how many ids `/etc/subuid` or `/etc/subgid` reserves for these names.
fn count(text: &str, names: &[&str]) -> u64 {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, count) = (fields.next()?, fields.next()?, fields.next()?);
        names.contains(&name).then(|| count.parse::<u64>().ok())?
    });
    lines.fold(0, u64::saturating_add)
}

/// Returns the names that this user may have in `/etc/subuid`.
fn user() -> Vec<String> {
    let uid = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    name.into_iter().chain([uid.to_string()]).collect()
}

fn storage(info: &EngineInfo, config: &Config) -> Check {
    let mut check = host::disk("disk of the sandboxes", &info.graph_root, config);
    if let Some(mount) = host::mount_of(&info.graph_root) {
        let quota = if mount.quota { "with project quotas" } else { "without quotas: writable layers are watched" };
        check.what = format!("{} ({} {quota}, {} storage)", check.what, mount.kind, info.storage_driver);
    }
    check
}

/// Reports how the rooms' files are bounded. `tried` is the result of mounting an image, if that could be tried.
fn files(rootless: bool, tried: Option<io::Result<()>>) -> Check {
    const NAME: &str = "rooms' files";
    match tried {
        None if rootless => Check::good(NAME, "directories, whose size is watched: rootless Podman mounts no images"),
        None => Check::good(NAME, "only root can try whether a room's image can be mounted here"),
        Some(Ok(())) => Check::good(NAME, "an image for each room, which holds no more than SANDBOX_DISK"),
        Some(Err(error)) => Check::warning(
            NAME,
            format!("directories, whose size is only watched, as no image can be mounted here ({error})"),
            "Install e2fsprogs, load the module `loop`, and where this is a container, give it /dev/loop-control",
        ),
    }
}

fn image(digest: Result<String, EngineError>, name: &str) -> Check {
    match digest {
        Ok(digest) => Check::good("image", format!("{name} ({})", digest.get(..19).unwrap_or(&digest))),
        Err(EngineError::ImageMissing(_)) => Check::bad(
            "image",
            format!("`{name}` is not there"),
            "Build it with `./scripts/quickstart.sh`, or set SANDBOX_IMAGE to one that is there",
        ),
        Err(error) => Check::bad("image", error.to_string().trim_end_matches('.'), "Mend Podman first"),
    }
}

/// Returns a mend as a sentence of its own.
fn sentence(mend: &str) -> String {
    let mut letters = mend.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A directory for the socket of a service started here, removed with its content when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("matrix-agent-doctor-{}", ids::random(8)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What remains in the temporary directory is removed with it.
        let _ = fs::remove_dir_all(Path::new(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Sources, load},
        ops::doctor::Status,
    };

    fn config() -> Config {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources {
            folders: vec![],
            ..Sources::new(std::collections::BTreeMap::new(), folder.path().to_owned(), true)
        };
        load(&sources).config
    }

    fn info() -> EngineInfo {
        EngineInfo {
            version: "4.3.1".into(),
            rootless: false,
            cgroups: Cgroups::V2,
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
            cgroup_manager: "systemd".into(),
            runtime: "crun".into(),
            storage_driver: "overlay".into(),
            graph_root: "/var/lib/containers/storage".into(),
            volume_path: "/var/lib/containers/storage/volumes".into(),
            file_system: "extfs".into(),
            seccomp: true,
            kernel: "6.1.0".into(),
        }
    }

    #[test]
    fn a_machine_as_it_should_be() {
        let ids = "root:1:2\ncontainers:2147483647:2147483648\n";
        for check in [
            podman(&info(), "x"),
            runtime(&info(), None, None),
            limits(&info()),
            ids_of_rooms(&info(), ids, ids, &config()),
        ] {
            assert_eq!(check.status, Status::Good, "{check:?}");
        }
    }

    #[test]
    fn the_share_of_memory_is_told_and_what_is_wrong_with_it() {
        let config = config();
        let look = |info: &EngineInfo, together| memory(info, &config, together);
        let check = look(&info(), 5 << 30);
        assert_eq!(check.what, "5 GiB together (60 % of the host's), 1 GiB each, at most 128 at once");
        assert_eq!(check.status, Status::Good);
        let check = look(&info(), 512 << 20);
        assert!(check.status == Status::Warning && check.what.contains("a single one may use more"), "{check:?}");
        let check = look(&EngineInfo { rootless: true, cgroups: Cgroups::V1, ..info() }, 5 << 30);
        assert!(check.status == Status::Warning && check.what.ends_with("and 5 run at once"), "{check:?}");
    }

    #[test]
    fn what_is_missing_is_told_with_its_mend() {
        let old = EngineInfo { version: "3.4.4".into(), ..info() };
        assert_eq!(podman(&old, "x").status, Status::Warning);
        assert_eq!(runtime(&EngineInfo { seccomp: false, ..info() }, None, None).status, Status::Bad);
        let gvisor = EngineInfo { runtime: "runsc".into(), ..info() };
        let check = runtime(&gvisor, Some("runsc version 1"), Some(Runtime::Runsc));
        assert!(check.status == Status::Good && check.what.contains("a kernel of its own"), "{check:?}");
        let check = runtime(&info(), Some("runsc version 1"), Some(Runtime::Runsc));
        assert!(check.status == Status::Bad && check.mend.unwrap().contains("PODMAN_SOCKET"), "another Podman's");
        let check = runtime(&gvisor, None, None);
        assert!(
            check.status == Status::Bad && check.mend.unwrap().ends_with("SANDBOX_RUNTIME=runsc"),
            "nobody chose it"
        );
        let rootless = EngineInfo { rootless: true, cgroups: Cgroups::V1, ..info() };
        let check = limits(&rootless);
        assert_eq!(check.status, Status::Warning);
        assert!(check.what.contains("SANDBOX_MEMORY") && check.mend.unwrap().contains("v2"));
        let config = config();
        let none = ids_of_rooms(&info(), "", "", &config);
        assert!(none.status == Status::Bad && matches!(none.fix, Some(Fix::Append { .. })), "{none:?}");
        assert_eq!(ids_of_rooms(&info(), "containers:1:2", "", &config).fix, None, "there is one already");
        let few = "containers:100000:131072";
        assert!(ids_of_rooms(&info(), few, few, &config).what.contains("2 rooms"));
        let many = "containers:2147483647:2147483648";
        assert_eq!(ids_of_rooms(&info(), many, few, &config).status, Status::Bad, "uids and gids both count");
        assert_eq!(
            ids_of_rooms(&EngineInfo { kernel: "5.15".into(), ..info() }, many, many, &config).status,
            Status::Warning
        );
        assert_eq!(files(false, Some(Ok(()))).status, Status::Good);
        let check = files(false, Some(Err(io::Error::other("`mount` failed: no loop device"))));
        assert!(check.status == Status::Warning && check.what.contains("no loop device"), "{check:?}");
        assert!(files(true, None).what.contains("rootless"));
        let user = ["me".to_owned(), "1000".to_owned()];
        assert_eq!(own_ids("1000:100000:65536", "me:100000:65536", &user).status, Status::Warning);
        assert_eq!(own_ids("you:100000:65536", "me:100000:65536", &user).status, Status::Bad);
        assert_eq!(image(Err(EngineError::ImageMissing("x".into())), "x").status, Status::Bad);
    }
}
