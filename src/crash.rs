//! Places at which a test may kill the process, to prove that nothing is lost or done twice. In a build without debug
//! assertions they are nothing.

/// Names the place, and the folder of a marker so that it happens once: `MATRIX_AGENT_CRASH_AT=journaled:/folder`.
#[cfg(debug_assertions)]
const VARIABLE: &str = "MATRIX_AGENT_CRASH_AT";

/// Ends the process as `kill -9` does if a test asked for this place and it was not passed before.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let Some((place, folder)) = wanted.split_once(':') else { return };
    if place == name && std::fs::File::create_new(std::path::Path::new(folder).join(name)).is_ok() {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Does nothing: this build has no crash points.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_name: &str) {}
