//! Checks the settings: mistakes, secrets that others can read, a host list that is open to all, the CA bundle, the
//! directories.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Check, Fix};
use crate::{
    config::{self, Config, Loaded, Source, Wrong},
    ops::{Purpose, review, settings::heard_elsewhere},
};

/// So many folders deep secrets are looked for.
const DEEPEST: usize = 4;

pub(super) fn check(loaded: &Loaded) -> Vec<Check> {
    let config = &loaded.config;
    let mut checks = mistakes(loaded);
    checks.extend(loaded.unread.iter().map(|file| Check::warning("settings", file.to_string(), file.mend())));
    checks.extend(secrets(loaded));
    checks.push(hosts(config));
    checks.extend(config.http.listen.map(|address| http(address, &config.http.names)));
    checks.extend(config.sandbox.ca_bundle.as_deref().map(ca_bundle));
    checks.push(folder("state directory", "STATE_DIR", &config.paths.state_dir));
    checks.push(folder("IPC directory", "IPC_BASE_DIR", &config.paths.ipc_base_dir));
    checks
}

fn mistakes(loaded: &Loaded) -> Vec<Check> {
    let found: Vec<Check> = review(loaded, Purpose::Anything)
        .iter()
        .map(|mistake| {
            let place = mistake.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
            let what = format!("{}{place}: {}", mistake.key, mistake.what);
            Check::bad("settings", what, if mistake.mend.is_empty() { "Mend the setting" } else { &mistake.mend })
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    let set = loaded.settings.iter().filter(|setting| setting.source != Source::Default).count();
    vec![Check::good("settings", format!("no mistakes, {set} set; `matrix-agent config` shows them"))]
}

/// Finds files with secrets that others than their owner can read: those that settings come from, those that they name, and
/// what is in the folder of secrets.
fn secrets(loaded: &Loaded) -> Option<Check> {
    let config = &loaded.config;
    let settings = loaded.settings.iter().filter(|setting| setting.secret).map(|setting| &setting.source);
    let accounts = config.accounts.iter().filter(|account| account.matrix.password.is_some());
    let sources = settings.chain(accounts.map(|account| &account.source)).filter_map(|source| match source {
        Source::EnvFile { path, .. } | Source::File { path, .. } => Some(path.clone()),
        _ => None,
    });
    // Nextcloud Talk's file may be open to all if it holds no secret; its own check tells that.
    let named = config.sandbox.setup_secrets.iter().cloned();
    // Where one of these is a link, what it leads to is read.
    let real = sources.chain(named).filter_map(|path| fs::canonicalize(path).ok());
    let is_open = |path: &PathBuf| fs::metadata(path).is_ok_and(|about| about.is_file() && about.mode() & 0o077 != 0);
    let open: BTreeSet<PathBuf> = real.chain(below(&config.paths.secrets(), DEEPEST)).filter(is_open).collect();
    let names = open.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    (!open.is_empty()).then(|| {
        Check::warning(
            "secrets",
            format!("other users of this machine can read the secrets in {names}"),
            format!("chmod 600 {names}"),
        )
        .with_fix(Fix::Close(open.into_iter().collect()))
    })
}

/// Returns the files in a folder and those in it, without templates. What a link leads to is not the folder's.
fn below(folder: &Path, deepest: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && deepest > 0 => files.extend(below(&entry.path(), deepest - 1)),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files.retain(|path| path.extension().is_none_or(|extension| extension != "template"));
    files
}

fn hosts(config: &Config) -> Check {
    let hosts = &config.sandbox.allowed_hosts;
    if hosts.iter().any(|host| host == "*") {
        return Check::warning(
            "allowed hosts",
            "sandboxes may reach every public host, and so may whoever talks the model into it",
            "List the hosts that are needed in SANDBOX_ALLOWED_HOSTS, with `default` for the registries",
        );
    }
    let what = if hosts.is_empty() { "none: sandboxes reach no host".to_owned() } else { hosts.join(", ") };
    Check::good("allowed hosts", what)
}

fn http(address: SocketAddr, names: &[String]) -> Check {
    const NAME: &str = "HTTP";
    if let Some(Wrong { what, mend }) = heard_elsewhere(address) {
        return Check::warning(NAME, what, mend);
    }
    let by = if names.is_empty() { "asked by this machine alone".to_owned() } else { names.join(", ") };
    Check::good(NAME, format!("{address}, {by}"))
}

fn ca_bundle(path: &Path) -> Check {
    const NAME: &str = "CA bundle";
    const LARGEST: u64 = 4 << 20;
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text));
    let shown = path.display();
    if let Err(error) = read {
        return Check::bad(
            NAME,
            format!("{shown} cannot be read ({error})"),
            "Set SANDBOX_CA_BUNDLE to a file of certificates in PEM form",
        );
    }
    let mark = b"-----BEGIN CERTIFICATE-----";
    let count = text.windows(mark.len()).filter(|window| window == mark).count();
    if count == 0 {
        return Check::bad(
            NAME,
            format!("{shown} holds no certificate"),
            "Set SANDBOX_CA_BUNDLE to a file of certificates in PEM form",
        );
    }
    // In a sandbox with an id range of its own even root counts as others for this file.
    if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 == 0) {
        return Check::bad(NAME, format!("sandboxes cannot read {shown}"), format!("chmod o+r {shown}"))
            .with_fix(Fix::LetRead(path.to_owned()));
    }
    Check::good(NAME, format!("{shown}, {count} certificates"))
}

fn folder(name: &'static str, key: &str, path: &Path) -> Check {
    let mode = fs::symlink_metadata(path).map_or(0, |about| about.mode());
    match config::check_unshared(path).and_then(|()| config::check_private(path)) {
        Ok(true) if config::is_open(mode) => {
            let what = format!("other users of this machine can look into {}, or write there", path.display());
            Check::warning(name, what, format!("chmod go-rw {}", path.display()))
                .with_fix(Fix::Close(vec![path.to_owned()]))
        }
        Ok(true) => Check::good(name, path.display().to_string()),
        Ok(false) => Check::good(name, format!("{} (made at the first start)", path.display())),
        Err(error) => {
            Check::bad(name, error.to_string().trim_end_matches('.'), format!("Or set {key} to another directory"))
        }
    }
}
