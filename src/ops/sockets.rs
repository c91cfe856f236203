//! The sockets in a state directory, on which requests are answered.

use std::path::{Path, PathBuf};

/// Returns the path of the control socket of a state directory.
pub(crate) fn control_socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// Returns the path of the socket on which a process listens that only administers the sandboxes of a state directory. It is
/// another one, so that no chat takes it for a server.
pub(crate) fn administration_socket(state: &Path) -> PathBuf {
    state.join("sandboxes.sock")
}
