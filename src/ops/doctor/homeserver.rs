//! Checks the Matrix accounts: does the homeserver answer, and can each account log in?

use futures_util::future::join_all;

use super::Check;
use crate::{
    chat::matrix::Fault,
    config::{Config, Matrix, People, hears_nobody, use_https},
    net,
    ops::settings,
};

pub(super) async fn check(config: &Config) -> Vec<Check> {
    // At the same time, so that a homeserver that hangs hides no other.
    let checks = config.all_accounts().map(|(name, matrix, people)| check_one(config, name, matrix, people));
    join_all(checks).await.into_iter().flatten().collect()
}

async fn check_one(config: &Config, name: &str, matrix: &Matrix, people: &People) -> Vec<Check> {
    // Boxed because the SDK's futures are large.
    let found = Box::pin(settings::login(config, name, matrix).examine()).await;
    let mut checks = vec![check_of("homeserver", found.homeserver), check_of("account", found.account)];
    checks.extend(hears_nobody(name, people).map(|wrong| Check::warning("account", wrong.what, wrong.mend)));
    if net::is_plain(&matrix.homeserver) {
        checks.push(Check::warning(
            "homeserver",
            format!(
                "everybody on the way to {} can read the session's token and what is not encrypted",
                matrix.homeserver
            ),
            use_https(name),
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
