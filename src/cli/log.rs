//! The log: one line an event on standard error, where journald or a terminal takes it. `RUST_LOG` chooses what is told.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// What the server tells unless `RUST_LOG` says otherwise.
pub(super) const SERVER: &str = "warn,matrix_agent=info";
/// The one says what it cannot decode, and that may be a prompt; the other calls answers that it expects errors.
const NEVER: &str = ",async_openai=off,matrix_sdk::http_client=off";
/// What the other subcommands tell: their own output says all that matters.
pub(super) const QUIET: &str = "error";

/// Starts the log.
pub(super) fn start(usual: &str) {
    let chosen = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    // A directive that cannot be read is left out, the others hold: a typing error shall not stop the server.
    let filter = EnvFilter::builder().parse_lossy(chosen.as_deref().unwrap_or(usual).to_owned() + NEVER);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).init();
}
