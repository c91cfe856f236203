//! Crash points: named places at which a test can kill the process, to prove that nothing is lost or done twice. In a
//! build without debug assertions they do nothing.

/// The variable with the name of a crash point, and the folder for a file that marks it as passed:
/// `MATRIX_AGENT_CRASH_AT=journaled:/folder`.
#[cfg(debug_assertions)]
const VARIABLE: &str = "MATRIX_AGENT_CRASH_AT";

/// Ends the process like `kill -9` if a test named this point and it was not passed before.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let Some((place, folder)) = wanted.split_once(':') else { return };
    if place == name && std::fs::File::create_new(std::path::Path::new(folder).join(name)).is_ok() {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Does nothing in this build.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_name: &str) {}
