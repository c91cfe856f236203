//! The health checks of `matrix-agent doctor`: small functions that check one thing each and change nothing.
//!
//! They run at the same time, each with a time limit, so that a Podman that hangs hides no other result. A check
//! never fails: its result is a [`Check`]. Called by `cli`.

mod agents;
mod audit;
mod cloud_bots;
mod database;
mod environments;
mod exobot;
mod fix;
mod github;
mod homeserver;
mod host;
mod model;
mod podman;
mod restoring;
mod server;
mod settings;
mod talk;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{task::JoinSet, time};

pub(crate) use fix::Fix;

use super::only_chat_bots;
use crate::config::Loaded;

/// The result of a check in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It is as it should be.
    Good,
    /// It works, but somebody should look at it.
    Warning,
    /// Something will not work.
    Bad,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "✅",
            Self::Warning => "⚠️",
            Self::Bad => "❌",
        })
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// The name of what was checked.
    pub name: &'static str,
    /// How well it is.
    pub status: Status,
    /// What was found, in a sentence without its full stop.
    pub what: String,
    /// What to do about it, in a sentence without its full stop.
    pub mend: Option<String>,
    /// How `doctor --fix` does it, where that can do no harm.
    #[serde(skip)]
    pub fix: Option<Fix>,
}

impl Check {
    pub(super) fn good(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, status: Status::Good, what: what.into(), mend: None, fix: None }
    }

    pub(super) fn warning(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status: Status::Warning, what: what.into(), mend: Some(mend.into()), fix: None }
    }

    pub(super) fn bad(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status: Status::Bad, what: what.into(), mend: Some(mend.into()), fix: None }
    }

    pub(super) fn with_fix(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }

    /// Returns what was checked as programs name it: its name in small letters and digits, the words joined by `-`. It
    /// stays the same in all versions, as the name does.
    pub(crate) fn id(&self) -> String {
        let words = self.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
    }
}

type Found = Pin<Box<dyn Future<Output = Vec<Check>> + Send>>;

/// A row of the list: what is checked, the time limit, and the function.
struct Examination {
    name: &'static str,
    /// Whether only the coding agent needs it.
    coder: bool,
    limit: Duration,
    run: fn(Arc<Loaded>) -> Found,
}

/// The time limit of checks that only read this machine's own files.
const QUICK: Duration = Duration::from_secs(10);
/// The time limit of checks that ask somebody else, who may have to start first.
const SLOW: Duration = Duration::from_secs(40);

/// The checks, in the order in which they are shown.
const EXAMINATIONS: &[Examination] = &[
    Examination {
        name: "settings",
        coder: false,
        limit: QUICK,
        run: |loaded| Box::pin(async move { settings::check(&loaded) }),
    },
    Examination {
        name: "podman",
        coder: true,
        limit: SLOW,
        run: |loaded| Box::pin(async move { podman::check(&loaded.config).await }),
    },
    Examination {
        name: "disk",
        coder: false,
        limit: QUICK,
        run: |loaded| Box::pin(async move { host::check(&loaded.config).await }),
    },
    Examination {
        name: "model",
        coder: true,
        limit: SLOW,
        run: |loaded| Box::pin(async move { model::check(&loaded.config).await }),
    },
    Examination {
        name: "coding agents",
        coder: true,
        limit: QUICK,
        run: |loaded| Box::pin(async move { agents::check(&loaded.config) }),
    },
    Examination {
        name: "GitHub",
        coder: true,
        limit: SLOW,
        run: |loaded| Box::pin(async move { github::check(&loaded.config).await }),
    },
    Examination {
        name: "environments",
        coder: true,
        limit: QUICK,
        run: |loaded| Box::pin(async move { environments::check(&loaded.config) }),
    },
    Examination {
        name: "homeserver",
        coder: false,
        limit: SLOW,
        run: |loaded| Box::pin(async move { homeserver::check(&loaded.config).await }),
    },
    Examination {
        name: "cloud bots",
        coder: false,
        limit: SLOW,
        run: |loaded| Box::pin(async move { cloud_bots::check(&loaded.config).await }),
    },
    Examination {
        name: "Nextcloud Talk",
        coder: false,
        limit: SLOW,
        run: |loaded| Box::pin(async move { talk::check(&loaded.config).await }),
    },
    Examination {
        name: "exobot",
        coder: false,
        limit: SLOW,
        run: |loaded| Box::pin(async move { exobot::check(&loaded.config).await }),
    },
    Examination {
        name: "restore",
        coder: false,
        limit: QUICK,
        run: |loaded| Box::pin(async move { restoring::check(&loaded.config) }),
    },
    Examination {
        name: "database",
        coder: false,
        limit: SLOW,
        run: |loaded| Box::pin(async move { database::check(&loaded.config).await }),
    },
    Examination {
        name: "server",
        coder: false,
        limit: QUICK,
        run: |loaded| Box::pin(async move { vec![server::check(&loaded.config.paths.state_dir).await] }),
    },
    Examination {
        name: "audit log",
        coder: false,
        limit: SLOW,
        run: |loaded| Box::pin(async move { audit::check(&loaded.config.paths.audit()).await }),
    },
];

/// Runs all checks. If a setting is wrong its default is used, and the first check says so.
pub(crate) async fn examine(loaded: Loaded) -> Vec<Check> {
    let alone = only_chat_bots(&loaded.config);
    let loaded = Arc::new(loaded);
    let mut running = JoinSet::new();
    let needed: Vec<&'static Examination> =
        EXAMINATIONS.iter().filter(|examination| !(alone && examination.coder)).collect();
    for (place, examination) in needed.iter().copied().enumerate() {
        let found = (examination.run)(loaded.clone());
        running.spawn(async move { (place, time::timeout(examination.limit, found).await) });
    }
    let mut checks: Vec<Option<Vec<Check>>> = needed.iter().map(|_| None).collect();
    while let Some(ended) = running.join_next().await {
        // A check that panicked leaves its place empty, which is reported below.
        if let Ok((place, found)) = ended {
            let examination = needed[place];
            checks[place] = Some(found.unwrap_or_else(|_| {
                let what = format!("no result within {} s", examination.limit.as_secs());
                vec![Check::bad(examination.name, what, "Look whether the machine or what is asked there hangs")]
            }));
        }
    }
    let lost = |examination: &Examination| {
        vec![Check::bad(examination.name, "the check itself failed", "Report this with the lines above it, please")]
    };
    let found = checks.into_iter().zip(needed);
    found.flat_map(|(checks, examination)| checks.unwrap_or_else(|| lost(examination))).collect()
}
