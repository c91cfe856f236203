//! Checks the Matrix accounts: does the homeserver answer, and can each account log in?

use futures_util::future::join_all;

use super::Check;
use crate::{
    chat::matrix::Fault,
    config::{Config, Matrix},
    ids::FIRST_ACCOUNT,
    net,
    ops::settings,
};

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let first = config.matrix.iter().map(|matrix| (FIRST_ACCOUNT, matrix));
    let others = config.accounts.iter().map(|account| (account.name.as_str(), &account.matrix));
    // At the same time, so that a homeserver that hangs hides no other.
    let found = join_all(first.chain(others).map(|(name, matrix)| check_one(config, name, matrix))).await;
    found.into_iter().flatten().collect()
}

async fn check_one(config: &Config, name: &str, matrix: &Matrix) -> Vec<Check> {
    // Boxed because the SDK's futures are large.
    let found = Box::pin(settings::login(config, name, matrix).examine()).await;
    let mut checks = vec![check_of("homeserver", found.homeserver), check_of("account", found.account)];
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

fn check_of(name: &'static str, found: Result<String, Fault>) -> Check {
    match found {
        Ok(what) => Check::good(name, what),
        Err(fault) => Check::bad(name, fault.what, fault.mend),
    }
}
