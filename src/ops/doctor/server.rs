//! Checks the server of the state directory: does one run, and does it answer?

use std::path::Path;

use super::Check;
use crate::{
    chat::terminal::{Unreached, reach},
    ops::{lock::Lock, sockets::control_socket},
};

const NAME: &str = "server";

pub(super) async fn check(state: &Path) -> Check {
    let Some(pid) = Lock::owner(state) else { return Check::good(NAME, "none runs on this state directory") };
    match reach(&control_socket(state)).await {
        Ok(_) => Check::good(NAME, format!("runs as process {pid}")),
        // A command that works with the state directory by itself, or a server that begins or ends.
        Err(Unreached::NoServer(_)) => {
            Check::good(NAME, format!("process {pid} works with this state directory and takes no requests just now"))
        }
        Err(Unreached::Silent) => Check::bad(
            NAME,
            format!("process {pid} runs and does not answer"),
            "It is stopped, hangs, or this machine is overloaded. Look into its log (`journalctl -u matrix-agent`); if it stays so, start it \
             again",
        ),
        Err(error) => {
            let mend = match error {
                Unreached::Forbidden(_) => "sudo matrix-agent doctor",
                _ => {
                    "Look into its log (`journalctl -u matrix-agent`); if it is another version than this program, start it again"
                }
            };
            let what = format!("whether process {pid} answers cannot be told: {error}");
            Check::warning(NAME, what.trim_end_matches('.'), mend)
        }
    }
}
