//! The SDK's databases: rooms, keys, and what it keeps beside them.

use std::path::Path;

use matrix_sdk::{
    SqliteCryptoStore, SqliteEventCacheStore, SqliteMediaStore, SqliteStateStore, SqliteStoreConfig,
    cross_process_lock::CrossProcessLockConfig, store::StoreConfig,
};

/// Connections of each database: one writes, one reads.
const CONNECTIONS: usize = 2;
/// The cache of each connection, in bytes.
const CACHE: u32 = 256 * 1024;
/// The size to which each database's write-ahead log is truncated, in bytes.
const LOG: u32 = 2 * 1024 * 1024;

/// Opens or creates the databases in a folder.
pub(super) async fn open(
    folder: &Path,
    key: &[u8; 32],
) -> Result<StoreConfig, Box<dyn std::error::Error + Send + Sync>> {
    let config = SqliteStoreConfig::new(folder)
        .key(Some(key))
        .pool_max_size(CONNECTIONS)
        .cache_size(CACHE)
        .journal_size_limit(LOG);
    // The state directory's lock keeps other processes out.
    Ok(StoreConfig::new(CrossProcessLockConfig::SingleProcess)
        .state_store(SqliteStateStore::open_with_config(&config).await?)
        .crypto_store(SqliteCryptoStore::open_with_config(&config).await?)
        .event_cache_store(SqliteEventCacheStore::open_with_config(&config).await?)
        .media_store(SqliteMediaStore::open_with_config(&config).await?))
}
