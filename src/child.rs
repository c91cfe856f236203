//! Starts the server's child processes: Podman and the like. The only place that does, so that none inherits the
//! server's environment, which holds keys and passwords, and which for a child can be read in `/proc`.

use std::{env, ffi::OsStr, process::Stdio};

use tokio::process::Command;

/// Variables that a program may need to find its files, to reach the network, and for its language.
const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    // Rootless Podman asks systemd for its cgroups there.
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

/// Prefixes of further such variables.
const PASSED_PREFIXES: [&str; 3] = ["XDG_", "CONTAINERS_", "LC_"];

/// Returns a command that starts `program` with only these variables, without input; the child is killed when its
/// handle is dropped.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
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
