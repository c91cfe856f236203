//! Looks at the Matrix account: does the homeserver answer, and can the bot log in?

use super::Check;
use crate::{chat::matrix::Fault, config::Config, net, ops::settings};

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let (Some(matrix), Some(account)) = (&config.matrix, settings::matrix_login(config)) else { return vec![] };
    // Boxed: the SDK's futures are large.
    let found = Box::pin(account.examine()).await;
    let mut checks = vec![tell("homeserver", found.homeserver), tell("account", found.account)];
    if net::is_plain(&matrix.homeserver) {
        checks.push(Check::warning(
            "homeserver",
            format!(
                "everybody on the way to {} can read the session's token and what is not encrypted",
                matrix.homeserver
            ),
            "Set MATRIX_HOMESERVER to an https:// address, or to http://127.0.0.1:8008 if it runs on this machine",
        ));
    }
    checks
}

fn tell(name: &'static str, found: Result<String, Fault>) -> Check {
    match found {
        Ok(what) => Check::good(name, what),
        Err(fault) => Check::bad(name, fault.what, fault.mend),
    }
}
