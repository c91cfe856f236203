//! Looks at the Matrix account: does the homeserver answer, and can the bot log in?

use super::Check;
use crate::{chat::matrix::Fault, config::Config, ops::settings};

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let Some(account) = settings::matrix(config) else { return vec![] };
    // Boxed: the SDK's futures are large.
    let found = Box::pin(account.examine()).await;
    vec![tell("homeserver", found.homeserver), tell("account", found.account)]
}

fn tell(name: &'static str, found: Result<String, Fault>) -> Check {
    match found {
        Ok(what) => Check::good(name, what),
        Err(fault) => Check::bad(name, fault.what, fault.mend),
    }
}
