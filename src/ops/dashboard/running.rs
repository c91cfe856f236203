//! Follows what turns do, a line each, as the accounts show it to their rooms.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Live, LiveIn},
    ids::TurnId,
    text,
};

/// The most turns that are followed.
const TURNS: usize = 256;
/// The most characters of a line.
const LINE: usize = 160;

/// What a turn does, and since when.
struct Noted {
    line: String,
    at: Instant,
}

/// What turns do now. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::ops) struct Running {
    lines: Arc<Mutex<BTreeMap<TurnId, Noted>>>,
    /// Changes whenever a line does.
    changed: watch::Sender<()>,
}

impl Running {
    /// Follows all accounts until `cancel`.
    pub(in crate::ops) async fn follow(self, mut live: broadcast::Receiver<LiveIn>, cancel: CancellationToken) {
        loop {
            match cancel.run_until_cancelled(live.recv()).await {
                Some(Ok(LiveIn { turn: Some(turn), live, .. })) => self.note(turn, &live),
                // Of no turn; or more than anybody could read.
                Some(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Some(Err(RecvError::Closed)) | None => return,
            }
        }
    }

    fn note(&self, turn: TurnId, live: &Live) {
        let line = match live {
            Live::Started { .. } => "begins".to_owned(),
            Live::Queued { held: true, .. } => "waits until work may begin again".to_owned(),
            Live::Queued { before, .. } => format!("waits for {before} others"),
            Live::Thinking => "asks the model".to_owned(),
            Live::Text { .. } | Live::Draft { .. } => "writes".to_owned(),
            Live::ToolStarted { name, detail, .. } => format!("{name} {detail}"),
            Live::ToolEnded { summary, .. } => summary.clone(),
            Live::ToolOutput { line, .. } | Live::Told { line } => line.clone(),
            Live::Notice { text } => text.clone(),
            Live::Heard { .. } | Live::Seen { .. } => return,
            Live::Ended { .. } => {
                self.lines().remove(&turn);
                return self.changed.send_modify(|()| ());
            }
        };
        let line = text::one_line(&line, LINE);
        let mut lines = self.lines();
        // A turn that was given up may have ended without a word: the one that has been silent for longest gives way.
        if lines.len() >= TURNS
            && !lines.contains_key(&turn)
            && let Some(silent) = lines.iter().min_by_key(|(_, noted)| noted.at).map(|(turn, _)| turn.clone())
        {
            lines.remove(&silent);
        }
        let noted = Noted { line: line.clone(), at: Instant::now() };
        if lines.insert(turn, noted).is_none_or(|before| before.line != line) {
            drop(lines);
            self.changed.send_modify(|()| ());
        }
    }

    /// Returns what a turn does; `None` if that is not known.
    pub(super) fn line(&self, turn: &TurnId) -> Option<String> {
        self.lines().get(turn).map(|noted| noted.line.clone())
    }

    /// Returns what tells of changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<TurnId, Noted>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_its_newest_line_until_it_ends_and_not_all_are_followed() {
        let running = Running::default();
        let mut changes = running.changes();
        running.note("t1".into(), &Live::Told { line: "<b>half\u{202e}</b>".into() });
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(running.line(&"t1".into()).unwrap().contains("half"));
        running.note("t1".into(), &Live::Heard { said: "e".into() });
        assert!(!changes.has_changed().unwrap());
        running.note("t1".into(), &Live::Ended { ending: crate::hub::Ending::Done });
        assert_eq!(running.line(&"t1".into()), None);
        for number in 0..1000 {
            running.note(format!("t{number}").into(), &Live::Thinking);
        }
        assert_eq!(running.lines().len(), TURNS);
        assert!(running.line(&"t999".into()).is_some(), "those that were silent for longest gave way");
    }
}
