//! What is kept for ever of events and ciphertexts whose rows were pruned: that they were taken, in few bytes each.
//! So a message that a homeserver sends again after years is neither answered nor run again.

use rusqlite::{OptionalExtension, Transaction, params};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::ids::EventId;

/// Places of one session that share a row: one bit each, 512 bytes together.
const PIECE: u32 = 4096;

/// What identifies a ciphertext: session and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The id of the encryption session (Megolm) that made it.
    pub session: String,
    /// Its message index in that session.
    pub place: u32,
}

/// 128 bits of a digest, so that nobody finds two ids with the same one.
type Digest = [u8; 16];

/// Returns whether an event was taken whose row was pruned.
pub(super) fn has_event(tx: &Transaction<'_>, account: &str, event: &EventId) -> Result<bool, StoreError> {
    let mut select = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM known WHERE event = ?1)")?;
    Ok(select.query_row([digest(account, event.as_str())], |row| row.get(0))?)
}

/// Notes that an event was taken, before its row is deleted.
pub(super) fn keep_event(tx: &Transaction<'_>, account: &str, event: &str) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO known (event) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([digest(account, event)])?;
    Ok(())
}

/// Returns whether a ciphertext was taken whose row was pruned.
pub(super) fn has_ciphertext(tx: &Transaction<'_>, account: &str, sealed: &Sealed) -> Result<bool, StoreError> {
    let (byte, bit) = bit(sealed.place);
    Ok(places(tx, account, sealed)?.get(byte).is_some_and(|taken| taken & bit != 0))
}

/// Notes that a ciphertext was taken, before its row is deleted.
pub(super) fn keep_ciphertext(tx: &Transaction<'_>, account: &str, sealed: &Sealed) -> Result<(), StoreError> {
    let (byte, bit) = bit(sealed.place);
    let mut taken = places(tx, account, sealed)?;
    taken.resize(taken.len().max(byte + 1), 0);
    taken[byte] |= bit;
    tx.prepare_cached(
        "INSERT INTO places (session, piece, taken) VALUES (?1, ?2, ?3)
         ON CONFLICT (session, piece) DO UPDATE SET taken = excluded.taken",
    )?
    .execute(params![digest(account, &sealed.session), sealed.place / PIECE, taken])?;
    Ok(())
}

fn places(tx: &Transaction<'_>, account: &str, sealed: &Sealed) -> Result<Vec<u8>, StoreError> {
    let mut select = tx.prepare_cached("SELECT taken FROM places WHERE session = ?1 AND piece = ?2")?;
    let key = params![digest(account, &sealed.session), sealed.place / PIECE];
    Ok(select.query_row(key, |row| row.get(0)).optional()?.unwrap_or_default())
}

/// Returns where a place stands in its row: the index of the byte and the bit in it.
fn bit(place: u32) -> (usize, u8) {
    let place = place % PIECE;
    ((place / 8) as usize, 1 << (place % 8))
}

fn digest(account: &str, name: &str) -> Digest {
    let mut hash = Sha256::new();
    for part in [account, name] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}
