//! The last proof of a new program: what the old one could do over Matrix, it can do too. Where the old one could not, since a
//! homeserver was away or it had that very fault, nothing is asked of the new one: the way to a better program stays open.

use std::{path::Path, time::Duration};

use tokio::time;

use super::super::{
    control::{Answer, NO_REQUEST, Operator, Request},
    lines::{BACK, Echoes},
    sockets::control_socket,
};

/// How long a server may take to answer beyond what the messages themselves may.
const SPARE: Duration = Duration::from_secs(5);

/// Asks the server over which of its accounts' lines messages go both ways; `None`: it is a version that does not know the question.
async fn ask(state: &Path) -> Result<Option<Echoes>, String> {
    let asked = async {
        let mut server = Operator::ask(&control_socket(state), &Request::Echo).await?;
        server.next().await
    };
    let answer = match time::timeout(BACK + SPARE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("the server cannot be asked: {error}")),
        Err(_) => return Err("the server does not answer".to_owned()),
    };
    match answer {
        Some(Answer::Value { value, .. }) => match serde_json::from_value(value) {
            Ok(echoes) => Ok(Some(echoes)),
            Err(error) => Err(format!("the server's answer cannot be read: {error}")),
        },
        Some(Answer::Failed { text }) if text.starts_with(NO_REQUEST) => Ok(None),
        _ => Err("the server does not say how it stands over Matrix".to_owned()),
    }
}

/// Returns the accounts over whose lines messages go both ways now.
pub(super) async fn accounts(state: &Path) -> Vec<String> {
    match ask(state).await {
        Ok(Some(Echoes { back, lost })) => {
            for (account, why) in lost {
                tracing::warn!(%account, %why, "nothing will be asked of the new version over Matrix for this account");
            }
            back
        }
        Ok(None) => vec![],
        Err(why) => {
            tracing::warn!(%why, "nothing will be asked of the new version over Matrix");
            vec![]
        }
    }
}

/// Sees that messages go both ways for each of these accounts.
///
/// # Errors
///
/// One of them is silent, and the sentence says which and why.
pub(super) async fn prove(state: &Path, accounts: &[String]) -> Result<(), String> {
    if accounts.is_empty() {
        return Ok(());
    }
    let failed = |why: &str| format!("it became ready, but not over Matrix: {why}");
    let Some(mut echoes) = ask(state).await.map_err(|why| failed(&why))? else {
        tracing::warn!("this version does not know how to prove that it works over Matrix");
        return Ok(());
    };
    let Some(silent) = accounts.iter().find(|account| !echoes.back.contains(account)) else { return Ok(()) };
    let why = echoes.lost.remove(silent).unwrap_or_else(|| "it is not served".to_owned());
    Err(failed(&format!("the account `{silent}`: {why}")))
}
