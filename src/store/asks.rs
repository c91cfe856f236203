//! How often models were asked, within a minute and within a day, so that ceilings hold across restarts. Both windows slide.
//!
//! Ceilings are shared by all who ask with the same key. A request that failed counts for its minute, since providers count it
//! too, and is given back to the day. The time is that which never goes back: a clock that is set back leaves no window full for
//! ever.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, StoreError};

/// The lengths of the windows, in milliseconds.
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

/// How often may be asked; `None`: as often as anybody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Within a minute.
    pub minute: Option<u32>,
    /// Within a day.
    pub day: Option<u32>,
}

/// A window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last minute.
    Minute,
    /// The last day.
    Day,
}

/// Whether a model may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayAsk {
    /// It may, and that is counted.
    Yes {
        /// By this number it can be given back.
        id: i64,
    },
    /// A ceiling is reached.
    No {
        /// Whose window is full.
        span: Span,
        /// How often may be asked within it.
        most: u32,
        /// Whether the ceiling is this person's alone.
        own: bool,
        /// In how many milliseconds it is possible again.
        wait: i64,
    },
}

impl Store {
    /// Counts that a person asks with a key, unless the ceiling of either is reached.
    pub async fn ask(
        &self,
        key: &str,
        person: &str,
        of_key: Ceilings,
        of_person: Ceilings,
    ) -> Result<MayAsk, StoreError> {
        let (key, person, now) = (key.to_owned(), person.to_owned(), self.lasting.now());
        self.write(move |tx| {
            tx.prepare_cached("DELETE FROM asks WHERE at <= ?1")?.execute([now - DAY])?;
            for (span, own, most) in [
                (Span::Minute, false, of_key.minute),
                (Span::Minute, true, of_person.minute),
                (Span::Day, false, of_key.day),
                (Span::Day, true, of_person.day),
            ] {
                let Some(most) = most else { continue };
                if let Some(wait) = full(tx, &key, own.then_some(&person), span, most, now)? {
                    return Ok(MayAsk::No { span, most, own, wait });
                }
            }
            tx.prepare_cached("INSERT INTO asks (key, person, at) VALUES (?1, ?2, ?3)")?
                .execute(params![key, person, now])?;
            Ok(MayAsk::Yes { id: tx.last_insert_rowid() })
        })
        .await
    }

    /// Gives a request that failed back to its day.
    pub async fn ask_failed(&self, id: i64) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.prepare_cached("UPDATE asks SET failed = 1 WHERE seq = ?1")?.execute([id])?;
            Ok(())
        })
        .await
    }
}

/// Returns in how many milliseconds a window has room again, if it is full.
fn full(
    tx: &Transaction<'_>,
    key: &str,
    person: Option<&String>,
    span: Span,
    most: u32,
    now: i64,
) -> Result<Option<i64>, StoreError> {
    let (length, failed_too) = match span {
        Span::Minute => (MINUTE, true),
        Span::Day => (DAY, false),
    };
    // The window has room again once the request that is `most` places from its end has left it.
    let at: Option<i64> = tx
        .prepare_cached(
            "SELECT at FROM asks WHERE key = ?1 AND at > ?2 AND (?3 IS NULL OR person = ?3) AND (?4 OR failed = 0)
             ORDER BY at DESC LIMIT 1 OFFSET ?5",
        )?
        .query_row(params![key, now - length, person, failed_too, i64::from(most.max(1)) - 1], |row| row.get(0))
        .optional()?;
    let never = (most == 0).then_some(length);
    Ok(never.or(at.map(|at| (at + length - now).clamp(1, length))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, store::Durability};

    const FEW: Ceilings = Ceilings { minute: Some(2), day: Some(3) };
    const ANY: Ceilings = Ceilings { minute: None, day: None };

    // The tests' own time stands: moments that go by count, too.
    fn store(folder: &tempfile::TempDir, clock: &Clock) -> Store {
        Store::open(&folder.path().join("db"), Durability::Normal, clock.clone()).unwrap()
    }

    fn refused(span: Span, own: bool, wait: i64) -> MayAsk {
        let most = match span {
            Span::Minute => 2,
            Span::Day => 3,
        };
        MayAsk::No { span, most, own, wait }
    }

    #[tokio::test(start_paused = true)]
    async fn windows_slide_are_shared_by_a_key_and_survive_a_restart() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(1_000_000_000));
        let first = store(&folder, &clock);
        let ask = async |store: &Store, key: &str, who: &str| store.ask(key, who, FEW, ANY).await.unwrap();
        assert!(matches!(ask(&first, "a", "anna").await, MayAsk::Yes { .. }));
        clock.advance(10_000);
        let MayAsk::Yes { id } = ask(&first, "a", "bert").await else { panic!("two fit into a minute") };
        assert_eq!(ask(&first, "a", "anna").await, refused(Span::Minute, false, 50_000));
        assert!(matches!(ask(&first, "b", "anna").await, MayAsk::Yes { .. }), "another key has its own");
        first.ask_failed(id).await.unwrap();
        assert_eq!(ask(&first, "a", "anna").await, refused(Span::Minute, false, 50_000), "providers count failures");
        drop(first);
        let again = store(&folder, &clock);
        assert_eq!(
            ask(&again, "a", "anna").await,
            refused(Span::Minute, false, 50_000),
            "a restart gives nothing back"
        );
        clock.advance(50_000);
        assert!(matches!(ask(&again, "a", "anna").await, MayAsk::Yes { .. }));
        clock.advance(60_000);
        assert!(matches!(ask(&again, "a", "anna").await, MayAsk::Yes { .. }), "what failed is given back to the day");
        clock.advance(60_000);
        assert_eq!(ask(&again, "a", "anna").await, refused(Span::Day, false, 86_400_000 - 180_000));
        clock.advance(86_400_000 - 180_000);
        assert!(matches!(ask(&again, "a", "anna").await, MayAsk::Yes { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn each_person_has_a_ceiling_of_their_own() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(1_000_000_000));
        let store = store(&folder, &clock);
        let ask = async |who: &str| store.ask("a", who, ANY, FEW).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(ask("anna").await, MayAsk::Yes { .. }));
        }
        assert_eq!(ask("anna").await, refused(Span::Minute, true, 60_000));
        assert!(matches!(ask("bert").await, MayAsk::Yes { .. }));
    }
}
