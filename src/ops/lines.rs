//! The accounts' lines to their homeservers, and the question over which of them messages go both ways: the server answers it on its
//! control socket, and whoever replaces its program asks.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future;
use serde::{Deserialize, Serialize};

use crate::chat::matrix::Line;

/// How long a message may take to come back.
pub(super) const BACK: Duration = Duration::from_secs(15);

/// How a server stands over Matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Echoes {
    /// The accounts to which a message came back.
    pub(super) back: Vec<String>,
    /// The others, and why.
    pub(super) lost: BTreeMap<String, String>,
}

/// The lines of the accounts that a server cannot do without. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    lines: Vec<(String, Line)>,
}

impl Lines {
    /// Returns a new line for an account.
    pub(super) fn begin(&mut self, account: &str) -> Line {
        let line = Line::default();
        self.lines.push((account.to_owned(), line.clone()));
        line
    }

    /// Has each account send a message that comes back to it.
    pub(super) async fn echo(&self) -> Echoes {
        let tried = self.lines.iter().map(async |(account, line)| (account.clone(), line.echo(BACK).await));
        let mut echoes = Echoes::default();
        for (account, tried) in future::join_all(tried).await {
            match tried {
                Ok(()) => echoes.back.push(account),
                Err(silence) => drop(echoes.lost.insert(account, silence.to_string())),
            }
        }
        echoes
    }
}
