//! What goes on beside the accounts as long as the server runs: notices and events on their way to rooms, and memory on its way back
//! to the system.

use std::time::Duration;

use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    task, time,
};
use tokio_util::sync::CancellationToken;

use crate::{hub::AccountHub, ipc::Arrived, memory, sandbox::Notice};

/// How often the process's memory is checked.
const GIVE_BACK: Duration = Duration::from_secs(20);
/// Memory is returned to the system when the process has this many times the least memory of its own so far.
const GROWN: f64 = 1.1;

/// Returns memory to the system after a load.
pub(super) async fn give_back(cancel: CancellationToken) {
    let mut least = f64::MAX;
    while cancel.run_until_cancelled(time::sleep(GIVE_BACK)).await.is_some() {
        let Some(before) = memory::own() else { return };
        if before as f64 > least * GROWN
            && let Ok(Some(after)) = task::spawn_blocking(memory::give_back).await
        {
            least = after as f64;
        }
        least = least.min(before as f64);
    }
}

/// Passes the fleet's notices to the rooms of an account.
pub(super) async fn pass_on_notices(
    mut notices: broadcast::Receiver<Notice>,
    hub: AccountHub,
    cancel: CancellationToken,
) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            notice = notices.recv() => match notice {
                Ok(Notice { address, text }) if address.account == hub.account() => hub.show_notice(&address.room, text),
                // A notice for a room of another account.
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "rooms were not told all that happened to them"),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Passes events of programs in sandboxes to those who watch the rooms.
pub(super) async fn show(mut events: mpsc::Receiver<Arrived>, hubs: Vec<AccountHub>, cancel: CancellationToken) {
    while let Some(Some(Arrived { address, event })) = cancel.run_until_cancelled(events.recv()).await {
        if let Some(hub) = hubs.iter().find(|hub| hub.account() == address.account) {
            hub.show_told(&address.room, event.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        clock::Clock,
        hub::{Account, Keeper, Live, Retention},
        ids::Address,
        pictures::Gallery,
        store::{Durability, Store},
    };

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_notice_reaches_only_the_account_whose_sandbox_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let gallery = Gallery::new(folder.path().join("pictures"));
        let keeper = Keeper::start(
            store.clone(),
            None,
            gallery,
            Retention { files: LIMIT, rows: LIMIT },
            tasks.clone(),
            cancel.clone(),
        )
        .await
        .unwrap();
        let (notices, _) = broadcast::channel(8);
        let mut watched = Vec::new();
        for (name, times) in [("coder", 1), ("talk", 2)] {
            let account = Account { name: name.into(), bots: vec![], ports: vec![], rights: None };
            let (store, keeper) = (store.clone(), keeper.clone());
            let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await.unwrap();
            watched.push((name, hub.watch(), times));
            tasks.spawn(pass_on_notices(notices.subscribe(), hub, cancel.clone()));
        }
        // The last event of each account shows that none of the others' came before.
        for account in ["talk", "gone", "coder", "talk"] {
            let address = Address { account: account.into(), room: "!r:x".into() };
            notices.send(Notice { address, text: format!("for {account}") }).unwrap();
        }
        for (name, mut watched, times) in watched {
            for _ in 0..times {
                let seen = time::timeout(LIMIT, watched.recv()).await.expect("a notice").unwrap();
                let text = format!("for {name}");
                assert_eq!((seen.address.account.as_str(), seen.live), (name, Live::Notice { text }));
            }
        }
        cancel.cancel();
        tasks.close();
        time::timeout(LIMIT, tasks.wait()).await.expect("all tasks end");
    }
}
