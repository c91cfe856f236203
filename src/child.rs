//! The programs that the server starts beside itself: Podman and the like. The one place that makes them, so that none
//! inherits what the server was given: its environment holds keys and passwords, and a child's can be read in `/proc`.
//!
//! A low layer, called by whoever needs a program.

use std::{env, ffi::OsStr, process::Stdio};

use tokio::process::Command;

/// Variables that a program may need to find its files, its way out and its language.
const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    // Rootless Podman asks systemd for its control groups there.
    "DBUS_SESSION_BUS_ADDRESS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
];

/// Likewise, by how they begin.
const PASSED_PREFIXES: [&str; 3] = ["XDG_", "CONTAINERS_", "LC_"];

/// Returns a command that starts `program` with a clean environment, no input, and no longer life than its handle.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passes)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn passes(name: &str) -> bool {
    PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_of_ours_is_passed_on() {
        for name in ["LLM_API_KEY", "MATRIX_PASSWORD", "GITHUB_TOKEN", "STATE_DIR", "PODMAN_PATH"] {
            assert!(!passes(name), "{name}");
        }
        for name in ["AWS_SECRET_ACCESS_KEY", "NOTIFY_SOCKET", "LD_PRELOAD", "RUST_LOG", "SSH_AUTH_SOCK"] {
            assert!(!passes(name), "{name}");
        }
        for name in ["PATH", "XDG_RUNTIME_DIR", "CONTAINERS_CONF", "https_proxy"] {
            assert!(passes(name), "{name}");
        }
    }
}
