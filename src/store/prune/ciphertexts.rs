//! Replaces the row of each ciphertext whose event was pruned by one bit.

use rusqlite::{Transaction, params};

use super::steps::{PAGE, Page};
use crate::store::{
    Store, StoreError,
    known::{self, Sealed},
};

pub(super) const CIPHERTEXTS: &str = "SELECT bot, session, place, event, taken FROM ciphertexts
     WHERE (bot, session, place) > (?1, ?2, ?3) ORDER BY bot, session, place LIMIT ?4";

impl Store {
    /// Replaces each ciphertext whose event was pruned, or that was taken before `before`, by its bit. A row without
    /// a time gets today's, so that it too goes in time.
    pub(super) async fn fold_ciphertexts(&self, before: i64) -> Result<(), StoreError> {
        let now = self.clock.millis();
        let page = move |tx: &Transaction<'_>, from: &(String, String, i64)| {
            let mut page = Page::new();
            let mut select = tx.prepare_cached(CIPHERTEXTS)?;
            let mut rows = select.query(params![from.0, from.1, from.2, PAGE as i64])?;
            while let Some(row) = rows.next()? {
                let (account, session, place): (String, String, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
                page.see((account.clone(), session.clone(), i64::from(place)));
                let taken: Option<i64> = row.get(4)?;
                let is_old = taken.is_some_and(|taken| taken < before);
                if is_old || known::has_event(tx, &account, &row.get::<_, String>(3)?.into())? {
                    page.gone.push((account, Sealed { session, place }, true));
                } else if taken.is_none() {
                    page.gone.push((account, Sealed { session, place }, false));
                }
            }
            Ok(page)
        };
        let fold = move |tx: &Transaction<'_>, (account, sealed, goes): &(String, Sealed, bool)| {
            let key = params![account, sealed.session, sealed.place, now];
            if *goes {
                known::keep_ciphertext(tx, account, sealed)?;
                tx.prepare_cached("DELETE FROM ciphertexts WHERE bot = ?1 AND session = ?2 AND place = ?3")?
                    .execute(&key[..3])?;
            } else {
                tx.prepare_cached("UPDATE ciphertexts SET taken = ?4 WHERE bot = ?1 AND session = ?2 AND place = ?3")?
                    .execute(key)?;
            }
            Ok(())
        };
        self.walk((String::new(), String::new(), -1), page, fold).await.map(drop)
    }
}
