//! The table of the stat cache, as SQL.

use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::FileStat;
use crate::digest::Digest;

/// How long a process waits for another one's write.
const BUSY: Duration = Duration::from_secs(5);

/// Version of the table, in `user_version`; a later one is not touched. 1: without `boot` (2026-11-24).
pub(super) const SCHEMA_VERSION: i64 = 2;

/// Sets up the connection; returns the version of the table, which it creates if there is none and brings up to date if
/// it is older.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(BUSY)?;
    // Durable only at checkpoints: a row lost in a power cut costs one hash, and WAL keeps it consistent.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // A commit does not wait for the disk: see `checkpoint` and `keep_log`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    if version(connection)? == 0 {
        switch_to_wal(connection)?;
    }
    if version(connection)? < SCHEMA_VERSION {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it while this one waited.
        match version(&transaction)? {
            0 => create(&transaction)?,
            1 => transaction
                .execute_batch("ALTER TABLE files ADD COLUMN boot TEXT; PRAGMA user_version = 2;")?,
            _ => {}
        }
        transaction.commit()?;
    }
    version(connection)
}

/// Moves the log into the main file, and waits for the disk.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Leaves the log as it is when the connection is closed.
pub(super) fn keep_log(connection: &Connection) {
    // If that fails, closing waits for the disk.
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// `boot` is NULL once the content is known to be on disk.
fn create(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE files (
             device INTEGER NOT NULL,
             inode INTEGER NOT NULL,
             size INTEGER NOT NULL,
             modified_ns INTEGER NOT NULL,
             changed_ns INTEGER NOT NULL,
             digest BLOB NOT NULL,
             boot TEXT,
             PRIMARY KEY (device, inode)
         ) WITHOUT ROWID;
         PRAGMA user_version = 2;",
    )
}

/// Readers and a writer at once. The switch is refused while another process makes it too, whatever the
/// busy timeout says, so it is tried again.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mut attempts = 0;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempts < 100 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

/// The digests of the files that have exactly these stats, unless their content may be lost since.
pub(super) fn select(
    connection: &mut Connection,
    boot: &str,
    stats: &[FileStat],
) -> rusqlite::Result<Vec<Option<Digest>>> {
    let transaction = connection.transaction()?;
    let mut statement = transaction.prepare_cached(
        "SELECT digest FROM files
         WHERE device = ?1 AND inode = ?2 AND size = ?3 AND modified_ns = ?4 AND changed_ns = ?5
         AND (boot IS NULL OR boot = ?6)",
    )?;
    // In order of the table, so that neighbours share pages.
    let mut order: Vec<usize> = (0..stats.len()).collect();
    order.sort_unstable_by_key(|index| (stats[*index].device as i64, stats[*index].inode as i64));
    let mut found = vec![None; stats.len()];
    for index in order {
        let FileStat { device, inode, size, modified_ns, changed_ns } = stats[index];
        let row = params![device as i64, inode as i64, size as i64, modified_ns, changed_ns, boot];
        let digest: Option<[u8; 32]> = statement.query_row(row, |row| row.get(0)).optional()?;
        found[index] = digest.map(Digest::from_bytes);
    }
    Ok(found)
}

/// Replaces rows; those with a boot count only until it ends.
pub(super) fn insert(
    connection: &mut Connection,
    rows: &[(FileStat, Digest, Option<&str>)],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement =
            transaction.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        for (stat, digest, boot) in rows {
            let FileStat { device, inode, size, modified_ns, changed_ns } = *stat;
            let (device, inode, size) = (device as i64, inode as i64, size as i64);
            statement.execute(params![
                device,
                inode,
                size,
                modified_ns,
                changed_ns,
                digest.as_bytes(),
                boot
            ])?;
        }
    }
    transaction.commit()
}

/// Sets the boot in the rows of files; NULL if their content is on disk now.
pub(super) fn set_boot(
    connection: &mut Connection,
    rows: &[(FileStat, Digest)],
    boot: Option<&str>,
) -> rusqlite::Result<()> {
    let sql = "UPDATE files SET boot = ?6
               WHERE device = ?1 AND inode = ?2 AND size = ?3 AND modified_ns = ?4 AND digest = ?5";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement = transaction.prepare_cached(sql)?;
        for (stat, digest) in rows {
            let FileStat { device, inode, size, modified_ns, changed_ns: _ } = *stat;
            let (device, inode, size) = (device as i64, inode as i64, size as i64);
            statement.execute(params![device, inode, size, modified_ns, digest.as_bytes(), boot])?;
        }
    }
    transaction.commit()
}

/// Gives rows a new `changed_ns`, and leaves all else: the content is the same.
pub(super) fn relink(connection: &mut Connection, rows: &[(FileStat, Digest)]) -> rusqlite::Result<()> {
    let sql = "UPDATE files SET changed_ns = ?5
               WHERE device = ?1 AND inode = ?2 AND size = ?3 AND modified_ns = ?4 AND digest = ?6";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement = transaction.prepare_cached(sql)?;
        for (stat, digest) in rows {
            let FileStat { device, inode, size, modified_ns, changed_ns } = *stat;
            let (device, inode, size) = (device as i64, inode as i64, size as i64);
            statement.execute(params![device, inode, size, modified_ns, changed_ns, digest.as_bytes()])?;
        }
    }
    transaction.commit()
}
