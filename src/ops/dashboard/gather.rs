//! Asks all parts of the server how they are. None of them is waited for longer than a moment: what does not answer at once is told as
//! such.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{super::status::Status, Running};
use crate::{
    chat::matrix::Serving,
    hub::Accounts,
    ids::{Address, TurnId},
    inference::{Inference, Probed},
    ledger::DayLimits,
    ops::{
        cloud_bots::{CloudBots, Shown},
        exobot::{ServedExobot, ShownExobot},
    },
    sandbox::{SandboxLimits, SandboxSummary, Sandboxes},
    store::{History, Overview, ShownTurn, Store, StoreError},
};

/// Rows of each kind.
const ROWS: usize = 20;
/// How long somebody may take to answer, so that the page is there in time.
const MOMENT: Duration = Duration::from_millis(80);
/// How long what inference servers have said is shown before they are asked anew.
const PROBED: Duration = Duration::from_secs(30);

/// Whom the dashboard asks.
pub(in crate::ops) struct Sources {
    pub(in crate::ops) store: Store,
    pub(in crate::ops) accounts: Accounts,
    pub(in crate::ops) status: Arc<Status>,
    pub(in crate::ops) serving: Serving,
    pub(in crate::ops) sandboxes: Option<Sandboxes>,
    pub(in crate::ops) cloud_bots: Option<CloudBots>,
    pub(in crate::ops) exobot: Option<Arc<ServedExobot>>,
    pub(in crate::ops) inference: Inference,
    pub(in crate::ops) limits: DayLimits,
    pub(in crate::ops) running: Running,
    pub(in crate::ops) probed: Arc<Mutex<Probes>>,
}

/// What the inference servers have said last.
#[derive(Default)]
pub(in crate::ops) struct Probes {
    at: Option<Instant>,
    asking: bool,
    found: Vec<Probed>,
}

/// All that is shown.
pub(super) struct Gathered {
    /// Now, in milliseconds since 1970.
    pub(super) now: i64,
    /// Why the server is not ready, if it is not.
    pub(super) ready: Result<(), String>,
    /// Matrix accounts that follow their homeserver, of how many.
    pub(super) accounts: (usize, usize),
    pub(super) overview: Result<Overview, StoreError>,
    /// What people call the rooms that are shown, as far as that is known.
    pub(super) names: BTreeMap<Address, String>,
    /// What open turns do, in the order of the overview.
    pub(super) lines: Vec<Option<String>>,
    /// `None`: no bot works in sandboxes. `Err`: they cannot be listed now.
    pub(super) sandboxes: Option<Result<Vec<SandboxSummary>, String>>,
    pub(super) sandbox_limits: Option<SandboxLimits>,
    /// `None`: there are none, or they are being changed.
    pub(super) cloud_bots: Option<Vec<Shown>>,
    pub(super) exobot: Option<ShownExobot>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) limits: DayLimits,
}

/// An inference server.
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) url: String,
    /// Its models that are loaded, or why it is not known; `None`: it is being asked.
    pub(super) found: Option<Result<Vec<String>, String>>,
}

impl Sources {
    /// Asks everybody at the same time.
    pub(super) async fn gather(&self) -> Gathered {
        let sandboxes = async {
            let all = self.sandboxes.as_ref()?;
            all.count_files();
            Some(match timeout(MOMENT, all.list()).await {
                Ok(listed) => listed.map_err(|error| error.to_string()),
                Err(_) => Err("Podman does not answer now.".to_owned()),
            })
        };
        let ready = async {
            let slow = || Err("The server needs long to tell whether it is ready.".to_owned());
            timeout(MOMENT, self.status.ready()).await.unwrap_or_else(|_| slow())
        };
        let (ready, overview, sandboxes) = tokio::join!(ready, self.store.overview(ROWS), sandboxes);
        let joined = overview.as_ref().map(|overview| overview.joined.clone()).unwrap_or_default();
        let cloud_bots = match &self.cloud_bots {
            Some(bots) => timeout(MOMENT, bots.shown_with(&joined)).await.ok(),
            None => None,
        };
        let open = overview.as_ref().map(|overview| overview.open.as_slice()).unwrap_or_default();
        let (synced, all, _) = self.serving.synced();
        Gathered {
            now: self.store.clock().millis(),
            ready,
            accounts: (synced, all),
            names: self.names(overview.as_ref().ok(), sandboxes.as_ref().and_then(|listed| listed.as_deref().ok())),
            lines: open.iter().map(|turn| self.running.line(&turn.turn)).collect(),
            overview,
            sandboxes,
            sandbox_limits: self.sandboxes.as_ref().map(Sandboxes::limits),
            cloud_bots,
            exobot: self.exobot.as_ref().map(|exobot| exobot.shown_with(&joined)),
            endpoints: self.endpoints(),
            limits: self.limits,
        }
    }

    /// Returns what people call the rooms that are shown.
    fn names(&self, overview: Option<&Overview>, sandboxes: Option<&[SandboxSummary]>) -> BTreeMap<Address, String> {
        let of_sandboxes = sandboxes.into_iter().flatten().map(|sandbox| &sandbox.address);
        let shown: BTreeSet<_> = overview.into_iter().flat_map(Overview::places).chain(of_sandboxes).collect();
        shown.into_iter().filter_map(|at| Some((at.clone(), self.accounts.name_of(at)?))).collect()
    }

    /// Returns what the inference servers have said last, and has them asked anew if that is long ago.
    fn endpoints(&self) -> Vec<Endpoint> {
        let snapshot = self.inference.registry().read();
        let endpoints = snapshot.endpoints.clone();
        let mut probes = lock(&self.probed);
        let due = probes.at.is_none_or(|at| at.elapsed() >= PROBED);
        if due && !probes.asking && !endpoints.is_empty() {
            probes.asking = true;
            let (inference, probed) = (self.inference.clone(), Arc::clone(&self.probed));
            // It ends by itself: a probe has a limit.
            tokio::spawn(async move {
                let found = inference.probe(&snapshot).await;
                *lock(&probed) = Probes { at: Some(Instant::now()), asking: false, found };
            });
        }
        let found = |id: &str| {
            let probed = probes.found.iter().find(|probed| probed.endpoint.id == id)?;
            Some(match &probed.found {
                Ok(online) => Ok(online.loaded().map(|served| served.name().to_owned()).collect()),
                Err(fault) => Err(fault.to_string()),
            })
        };
        let shown = endpoints.iter().take(ROWS);
        shown
            .map(|endpoint| Endpoint {
                name: endpoint.name.clone(),
                url: endpoint.url.clone(),
                found: found(&endpoint.id),
            })
            .collect()
    }

    /// Returns a turn with what it said and did.
    pub(super) async fn turn(&self, turn: &TurnId) -> Result<Option<(ShownTurn, Vec<History>)>, StoreError> {
        self.store.shown_turn(turn).await
    }

    /// Returns what tells that turns have gone on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.running.changes()
    }
}

fn lock(probes: &Mutex<Probes>) -> MutexGuard<'_, Probes> {
    probes.lock().unwrap_or_else(PoisonError::into_inner)
}
