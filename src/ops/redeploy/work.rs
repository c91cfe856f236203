//! The steps of a replacement, carried out. Each may be done twice.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use sha2::{Digest, Sha256};
use tokio::{process::Command, time};

use super::{git::Git, over_matrix, run, service::Service, source::Source};
use crate::{
    child, ids, text,
    updates::{Image, Record, Updates, Wanted},
};

/// The time of a build, of the canary, and of Podman's quick commands.
const BUILD: Duration = Duration::from_hours(3);
const TRY: Duration = Duration::from_mins(30);
const QUICK: Duration = Duration::from_mins(1);
/// How long the room may have to be told what was built, before the server that tells it is ended.
const TOLD: Duration = Duration::from_secs(5);
/// The space that a build needs beside the clone, and what a copy of the state needs beside its own size.
const BUILD_SPACE: u64 = 4 << 30;
const STATE_SPACE: u64 = 256 << 20;
/// Endings of files beside the program: the new one until the switch; the one that served, for as long as that is not settled; and
/// the one that served before.
const NEW: &str = "new";
pub(super) const KEEPER: &str = "redeploying";
const PREVIOUS: &str = "previous";
/// The part of the files in the library that only `install-service.sh` puts in place.
const INSTALLED_BY_HAND: [&str; 2] = ["systemd", "scripts"];

/// What a replacement works with.
pub(super) struct Workshop<'a> {
    pub(super) source: &'a Source,
    pub(super) updates: &'a Updates,
    pub(super) state: &'a Path,
    pub(super) ipc: &'a Path,
    /// Settings that every program of this service is started with: `--env-file` and the like.
    pub(super) settings: &'a [OsString],
    /// `SANDBOX_IMAGE`.
    pub(super) image: &'a str,
    pub(super) podman: &'a Path,
    /// Where scripts and units of the installed version are.
    pub(super) library: &'a Path,
}

impl Workshop<'_> {
    pub(super) fn git(&self) -> Git<'_> {
        Git::new(self.source)
    }

    pub(super) fn service(&self) -> Service {
        Service { of_user: self.source.of_user }
    }

    fn log(&self) -> PathBuf {
        self.updates.folder().join("build.log")
    }

    /// Returns the digest of the program that is installed.
    pub(super) fn installed(&self) -> Result<String, String> {
        digest(&self.source.program).map_err(|error| unusable(&self.source.program, &error))
    }

    /// Returns what is missing on the disks, in a sentence.
    pub(super) fn space(&self) -> Result<(), String> {
        let database = fs::metadata(self.state.join("matrix-agent.db")).map_or(0, |file| file.len());
        let copies = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        for (path, needed) in [
            (&*self.source.clone, BUILD_SPACE),
            (self.state, STATE_SPACE + database / 4),
            (&*copies, STATE_SPACE + 2 * database),
            (self.source.program.parent().unwrap_or(Path::new("/")), STATE_SPACE),
        ] {
            let space = statvfs(path).map_err(|error| unusable(path, &error.into()))?;
            let free = space.blocks_available().saturating_mul(space.fragment_size());
            if let Some(why) = too_little(path, free, needed) {
                return Err(why);
            }
        }
        Ok(())
    }

    /// Keeps the program that serves, under the name by which whoever takes this up finds it.
    fn keep(&self) -> Result<(), String> {
        let keeper = self.source.beside(KEEPER);
        match fs::hard_link(&self.source.program, &keeper) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(unusable(&keeper, &error)),
            _ => Ok(()),
        }
    }

    /// Makes the new program and the new image, beside what serves.
    pub(super) async fn build(&self, record: &mut Record) -> Result<(), String> {
        self.keep()?;
        let log = self.log();
        let _ = fs::remove_file(&log);
        let new = self.source.beside(NEW);
        if let Wanted::Back = record.request.wanted {
            let previous = self.source.beside(PREVIOUS);
            place(&previous, &new).map_err(|error| unmade(&new, &previous, &error))?;
            record.new = Some(digest(&new).map_err(|error| unusable(&new, &error))?);
            record.image = self.image_of("previous", false).await?;
            return Ok(());
        }
        let tree = self.git().check_out(&record.commit).await?;
        let target = self.source.clone.join("target/redeploy/build");
        let mut cargo = run::as_owner_of(&self.source.clone, "cargo").map_err(|error| error.to_string())?;
        cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &target);
        cargo.args(["build", "--release", "--locked", "--bin", "matrix-agent"]);
        run::logged(cargo, &log, BUILD).await.map_err(|why| format!("it does not build: {why}"))?;
        let built = target.join("release/matrix-agent");
        place(&built, &new).map_err(|error| unmade(&new, &built, &error))?;
        record.new = Some(digest(&new).map_err(|error| unusable(&new, &error))?);
        record.image = self.image_of(&record.commit[..12.min(record.commit.len())], true).await?;
        if let Some(image) = &record.image {
            // What has not changed is the same image under another name.
            if image.before.is_some() {
                self.podman(&["tag", &image.name, &image.tag]).await?;
            }
            let mut script = child::command(tree.join("scripts/build-image.sh"));
            script.current_dir(&tree).env("SANDBOX_IMAGE", &image.tag);
            run::logged(script, &log, BUILD).await.map_err(|why| format!("its image does not build: {why}"))?;
        }
        Ok(())
    }

    /// Returns the image that goes with a version: of those that we build, which bear the tag `latest`. `made`: it will be
    /// made; else it has to be there.
    async fn image_of(&self, tag: &str, made: bool) -> Result<Option<Image>, String> {
        let Some(name) = self.image.strip_suffix(":latest").filter(|name| is_own(name)) else { return Ok(None) };
        let before = self.podman(&["image", "inspect", "--format", "{{.Id}}", self.image]).await.ok();
        let before = before.map(|id| id.trim().to_owned());
        let image = Image { name: self.image.to_owned(), tag: format!("{name}:{tag}"), before };
        if made || self.podman(&["image", "exists", &image.tag]).await.is_ok() { Ok(Some(image)) } else { Ok(None) }
    }

    async fn podman(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = child::command(self.podman);
        command.args(arguments);
        run::output(command, QUICK).await
    }

    /// Has the new program look at the settings, and work on a copy of the state; notes what the old one can do over Matrix.
    pub(super) async fn try_out(&self, record: &mut Record) -> Result<(), String> {
        let mut command = self.program(&self.source.beside(NEW), &["doctor", "--canary"]);
        if let Some(image) = &record.image {
            command.env("SANDBOX_IMAGE", &image.tag);
        }
        run::logged(command, &self.log(), TRY).await.map_err(|why| format!("its canary has failed: {why}"))?;
        record.over_matrix = over_matrix::accounts(self.state).await;
        Ok(())
    }

    /// Returns a command of a version of the program, with the service's settings.
    fn program(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = child::command(program);
        command.env("STATE_DIR", self.state).env("IPC_BASE_DIR", self.ipc).args(self.settings).args(arguments);
        command
    }

    /// Gives the server that still runs a moment to tell the room; if it does not, the next one does.
    async fn let_it_be_told(&self, record: &Record) {
        let is_told = || {
            let said = self.updates.said().ok().flatten();
            said.is_some_and(|said| said.id == record.request.id && said.built)
        };
        if record.request.tell.is_empty() || !self.service().is_ready().await.unwrap_or(false) {
            return;
        }
        let told = async {
            while !is_told() {
                time::sleep(Duration::from_millis(100)).await;
            }
        };
        let _ = time::timeout(TOLD, told).await;
    }

    /// Puts the new program and its image in the place of the old, and begins it.
    pub(super) async fn switch(&self, record: &Record) -> Result<(), String> {
        self.let_it_be_told(record).await;
        let (program, new) = (&self.source.program, self.source.beside(NEW));
        if self.installed()? != record.new.as_deref().unwrap_or_default() {
            let there = digest(&new).map_err(|error| unusable(&new, &error))?;
            if record.new.as_ref() != Some(&there) {
                return Err(format!("{} is not what was built", new.display()));
            }
            rename(&new, program).map_err(|error| unusable(program, &error))?;
        }
        if let Some(image) = &record.image {
            self.podman(&["tag", &image.tag, &image.name]).await?;
        }
        self.service().restart().await
    }

    /// Waits until the new program is ready, and has done over Matrix what the old one could do.
    pub(super) async fn await_ready(&self, record: &Record) -> Result<(), String> {
        // A record that could not be kept has been behind.
        if Some(self.installed()?) != record.new {
            return Err("it is not in its place".to_owned());
        }
        self.service().become_ready().await?;
        over_matrix::prove(self.state, &record.over_matrix).await
    }

    /// Puts the old program and its image back, and begins it unless it serves.
    pub(super) async fn back(&self, record: &Record) -> Result<(), String> {
        self.put_back().map_err(|error| format!("the old program cannot be put back: {error}"))?;
        if let Some(Image { name, before: Some(before), .. }) = &record.image
            && let Err(why) = self.podman(&["tag", before, name]).await
        {
            // The old program works with the new image, too.
            tracing::error!(%why, "the old image cannot be put back");
        }
        self.begin_old().await
    }

    async fn begin_old(&self) -> Result<(), String> {
        self.service().kill().await;
        self.service().restart().await?;
        self.service()
            .become_ready()
            .await
            .map_err(|why| format!("the old program does not become ready either: {why}"))
    }

    /// Returns whether the old program is in its place and serves.
    pub(super) async fn old_serves(&self, record: &Record) -> bool {
        self.installed().is_ok_and(|installed| installed == record.old)
            && self.service().is_ready().await.unwrap_or(false)
    }

    fn put_back(&self) -> io::Result<()> {
        let (keeper, back) = (self.source.beside(KEEPER), self.source.beside("back"));
        let _ = fs::remove_file(&back);
        fs::hard_link(&keeper, &back)?;
        rename(&back, &self.source.program)
    }

    /// Goes back where nobody knows how far it had come: to the program that was kept, if one was.
    pub(super) async fn back_blindly(&self) -> Result<bool, String> {
        if !self.source.beside(KEEPER).exists() {
            return Ok(false);
        }
        self.put_back().map_err(|error| format!("the old program cannot be put back: {error}"))?;
        self.begin_old().await?;
        Ok(true)
    }

    /// Clears up behind a replacement that has ended. `new`: the new one serves.
    pub(super) async fn settle(&self, record: Option<&Record>, new: bool) {
        let keeper = self.source.beside(KEEPER);
        let kept = if new { rename(&keeper, &self.source.beside(PREVIOUS)) } else { fs::remove_file(&keeper) };
        if let Err(error) = kept
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, "{} cannot be put away", keeper.display());
        }
        let _ = fs::remove_file(self.source.beside(NEW));
        if let Some(Record { image: Some(image), .. }) = record.filter(|_| new)
            && let (Some(before), Some(name)) = (&image.before, image.name.strip_suffix(":latest"))
        {
            let _ = self.podman(&["tag", before, &format!("{name}:previous")]).await;
        }
        if let Some(Record { image: Some(image), request, .. }) = record
            && request.wanted != Wanted::Back
        {
            let _ = self.podman(&["image", "rm", &image.tag]).await;
        }
        let to = record.filter(|_| new).and_then(|record| match &record.request.wanted {
            Wanted::Commit { commit, named: false } => Some(commit.as_str()),
            _ => None,
        });
        self.git().settle(to).await;
    }

    /// Returns what only `install-service.sh` puts in place, if the new version brings another one of it.
    pub(super) async fn left_by_hand(&self) -> Option<String> {
        let tree = self.source.clone.join("target/redeploy/tree");
        if !self.library.exists() || !tree.exists() {
            return None;
        }
        let differs = async |name: &str| {
            let mut diff = child::command("diff");
            diff.args(["-rq", "--no-dereference"]).arg(tree.join(name)).arg(self.library.join(name));
            run::output(diff, QUICK).await.is_err()
        };
        for name in INSTALLED_BY_HAND {
            if differs(name).await {
                return Some(
                    "Its units or scripts have changed too: run `scripts/install-service.sh` in the clone.".to_owned(),
                );
            }
        }
        None
    }
}

/// Returns whether an image is one of ours: of this machine and no registry's.
fn is_own(name: &str) -> bool {
    let name = name.strip_prefix("localhost/").unwrap_or(name);
    !name.is_empty() && !name.contains('/') && !name.contains(':')
}

fn too_little(path: &Path, free: u64, needed: u64) -> Option<String> {
    (free < needed).then(|| {
        format!(
            "There is no space: {} has {} free, and {} are needed. Free some, then try again.",
            path.display(),
            text::human_bytes(free),
            text::human_bytes(needed)
        )
    })
}

fn unusable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be used: {error}", path.display())
}

fn unmade(to: &Path, from: &Path, error: &io::Error) -> String {
    format!("{} cannot be made of {}: {error}", to.display(), from.display())
}

/// Copies a program to a place of root's, whole and on the disk.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_added_extension("part");
    let copy = || {
        fs::copy(from, &part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        File::open(&part)?.sync_all()?;
        rename(&part, to)
    };
    copy().inspect_err(|_| drop(fs::remove_file(&part)))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    File::open(to.parent().unwrap_or(to))?.sync_all()
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut sum) = (File::open(path)?, Sha256::new());
    io::copy(&mut file, &mut sum)?;
    Ok(ids::hex(&sum.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_of_this_machine_are_made() {
        assert!(is_own("matrix-agent-sandbox") && is_own("localhost/mine"));
        assert!(!is_own("docker.io/library/debian") && !is_own("registry:5000/mine") && !is_own(""));
    }

    #[test]
    fn too_little_space_is_told_with_the_place() {
        assert_eq!(too_little(Path::new("/var"), 10, 10), None);
        let why = too_little(Path::new("/var"), 1 << 20, 4 << 30).unwrap();
        assert!(why.starts_with("There is no space: /var has 1 MiB free"), "{why}");
    }

    #[test]
    fn a_program_is_placed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "program").unwrap();
        place(&from, &to).unwrap();
        assert_eq!(digest(&from).unwrap(), digest(&to).unwrap());
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(place(&folder.path().join("none"), &to).is_err() && to.exists());
    }
}
