//! The stat index: which content a file had when it was last hashed.
//!
//! One `SQLite` table (device, inode) -> (size, mtime, ctime, digest), shared by every process of a user
//! on one machine. It lives in the user's cache folder, never inside a shared store: `SQLite` needs locks
//! that network file systems do not provide. It is only a shortcut: if it cannot be used, files are
//! hashed again, an in-memory table serves for the rest of the process, and one warning says so.
//! Opening takes 0.7 to 1.2 ms, finding 5,000 rows 3 ms (2 cores shared with other work, 2026-11-24).
//!
//! # When a row may be trusted
//! A file is taken as unchanged when device, inode, size, mtime and ctime (nanoseconds) are those of the
//! row; ctime catches writes whose mtime was set back. One hole is left: file times come from a clock
//! that ticks every 1 to 10 ms, so a file written, hashed and written again within one tick has equal
//! times and another content. So a row is kept only if both times were at least [`SETTLED`] older than
//! the start of hashing: any later write then falls in a later tick and changes the times. A file that
//! is too fresh is hashed again next time and kept then. (On a network file system the times come from
//! the server's clock; a server more than [`SETTLED`] behind reopens the hole for files that are
//! written at that very moment.)

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use crate::digest::Digest;

/// Two ticks of the slowest file clock in use (100 Hz).
pub(in crate::cache::local) const SETTLED: Duration = Duration::from_millis(20);

/// How long a process waits for another one's write.
const BUSY: Duration = Duration::from_secs(5);

/// Version of the table, in `user_version`; another version is not touched.
const SCHEMA_VERSION: i64 = 1;

/// The metadata of a file that identify its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStat {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last write, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Time of the last change of content or attributes, nanoseconds since 1970.
    pub changed_ns: i64,
}

impl FileStat {
    /// Takes the fields from the metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            changed_ns: metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec()),
        }
    }

    /// Whether any write after `began` would change the times.
    pub fn is_settled(&self, began: SystemTime) -> bool {
        let since = began.checked_sub(SETTLED).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let limit = since.map_or(0, |since| since.as_nanos() as i64);
        self.modified_ns <= limit && self.changed_ns <= limit
    }
}

/// Why the stat index is not used; the program goes on without it.
#[derive(Debug, thiserror::Error)]
#[error("the stat index `{}` cannot be used, so files are hashed again in every run", path.display())]
pub struct IndexWarning {
    /// The database.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: IndexFailure,
}

/// What kept the database from being used.
#[derive(Debug, thiserror::Error)]
pub enum IndexFailure {
    /// The folder of the database cannot be created.
    #[error("cannot make its folder")]
    Folder(#[source] std::io::Error),
    /// The database refused.
    #[error("the database refused")]
    Database(#[source] rusqlite::Error),
    /// The table has a version that this program does not know.
    #[error("it has version {0}, which this program does not know")]
    Version(i64),
}

/// The stat index; one row for each inode, so that it grows with the files that exist. Cheap to create, opened by the
/// first lookup, shared by threads.
#[derive(Debug)]
pub struct StatIndex {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    warning: Option<IndexWarning>,
}

#[derive(Debug)]
enum Table {
    Unopened,
    Database(Connection),
    Memory(HashMap<(u64, u64), (FileStat, Digest)>),
}

impl StatIndex {
    /// Uses the database at `path`, created with its folder by the first lookup. Nothing is opened yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State { table: Table::Unopened, warning: None }) }
    }

    /// Keeps rows in memory while this value lives; writes nothing.
    pub fn in_memory() -> Self {
        let table = Table::Memory(HashMap::new());
        Self { path: PathBuf::new(), state: Mutex::new(State { table, warning: None }) }
    }

    /// The digest of each file that was hashed under exactly this stat. One transaction.
    pub fn lookup(&self, stats: &[FileStat]) -> Vec<Option<Digest>> {
        if stats.is_empty() {
            return Vec::new();
        }
        let mut state = self.opened();
        if let Table::Database(connection) = &mut state.table {
            match select(connection, stats) {
                Ok(found) => return found,
                Err(error) => self.degrade(&mut state, IndexFailure::Database(error)),
            }
        }
        let Table::Memory(rows) = &state.table else { return vec![None; stats.len()] };
        let find = |stat: &FileStat| {
            rows.get(&(stat.device, stat.inode)).filter(|(known, _)| known == stat).map(|(_, digest)| *digest)
        };
        stats.iter().map(find).collect()
    }

    /// Keeps the files that were settled when hashing began; `began` is taken before their stats.
    pub fn remember_hashed(&self, rows: &[(FileStat, Digest)], began: SystemTime) {
        let settled: Vec<_> = rows.iter().filter(|(stat, _)| stat.is_settled(began)).copied().collect();
        self.remember(&settled);
    }

    /// Keeps rows as they are: the caller knows that the content cannot have changed under this stat.
    pub(super) fn remember(&self, rows: &[(FileStat, Digest)]) {
        if rows.is_empty() {
            return;
        }
        let mut state = self.opened();
        if let Table::Database(connection) = &mut state.table {
            match insert(connection, rows) {
                Ok(()) => return,
                Err(error) => self.degrade(&mut state, IndexFailure::Database(error)),
            }
        }
        if let Table::Memory(known) = &mut state.table {
            known.extend(rows.iter().map(|(stat, digest)| ((stat.device, stat.inode), (*stat, *digest))));
        }
    }

    /// Why the database is not used, once.
    pub fn take_warning(&self) -> Option<IndexWarning> {
        self.locked().warning.take()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> MutexGuard<'_, State> {
        let mut state = self.locked();
        if matches!(state.table, Table::Unopened) {
            match self.open() {
                Ok(connection) => state.table = Table::Database(connection),
                Err(failure) => self.degrade(&mut state, failure),
            }
        }
        state
    }

    fn degrade(&self, state: &mut State, source: IndexFailure) {
        state.table = Table::Memory(HashMap::new());
        state.warning = Some(IndexWarning { path: self.path.clone(), source });
    }

    fn open(&self) -> Result<Connection, IndexFailure> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(IndexFailure::Folder)?;
        }
        let connection = Connection::open(&self.path).map_err(IndexFailure::Database)?;
        match prepare(&connection).map_err(IndexFailure::Database)? {
            SCHEMA_VERSION => Ok(connection),
            unknown => Err(IndexFailure::Version(unknown)),
        }
    }
}

/// Sets up the connection; returns the version of the table, which it creates if there is none.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(BUSY)?;
    // Durable only at checkpoints: a row lost in a power cut costs one hash, and WAL keeps it consistent.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let version = || connection.pragma_query_value(None, "user_version", |row| row.get(0));
    if version()? != 0 {
        return version();
    }
    switch_to_wal(connection)?;
    connection.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS files (
             device INTEGER NOT NULL,
             inode INTEGER NOT NULL,
             size INTEGER NOT NULL,
             modified_ns INTEGER NOT NULL,
             changed_ns INTEGER NOT NULL,
             digest BLOB NOT NULL,
             PRIMARY KEY (device, inode)
         ) WITHOUT ROWID;
         PRAGMA user_version = 1;
         COMMIT;",
    )?;
    version()
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

fn select(connection: &mut Connection, stats: &[FileStat]) -> rusqlite::Result<Vec<Option<Digest>>> {
    let transaction = connection.transaction()?;
    let mut statement = transaction.prepare_cached(
        "SELECT digest FROM files
         WHERE device = ?1 AND inode = ?2 AND size = ?3 AND modified_ns = ?4 AND changed_ns = ?5",
    )?;
    // In order of the table, so that neighbours share pages.
    let mut order: Vec<usize> = (0..stats.len()).collect();
    order.sort_unstable_by_key(|index| (stats[*index].device as i64, stats[*index].inode as i64));
    let mut found = vec![None; stats.len()];
    for index in order {
        let FileStat { device, inode, size, modified_ns, changed_ns } = stats[index];
        let row = params![device as i64, inode as i64, size as i64, modified_ns, changed_ns];
        let digest: Option<[u8; 32]> = statement.query_row(row, |row| row.get(0)).optional()?;
        found[index] = digest.map(Digest::from_bytes);
    }
    Ok(found)
}

fn insert(connection: &mut Connection, rows: &[(FileStat, Digest)]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut statement =
            transaction.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for (stat, digest) in rows {
            let FileStat { device, inode, size, modified_ns, changed_ns } = *stat;
            let (device, inode, size) = (device as i64, inode as i64, size as i64);
            statement.execute(params![device, inode, size, modified_ns, changed_ns, digest.as_bytes()])?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(inode: u64) -> FileStat {
        FileStat { device: u64::MAX, inode, size: 3, modified_ns: 1_000, changed_ns: 2_000 }
    }

    fn digest(number: u64) -> Digest {
        Digest::of_bytes(&number.to_le_bytes())
    }

    #[test]
    fn rows_come_back_only_under_the_same_stat_in_a_new_process_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/stat.sqlite");
        let index = StatIndex::new(path.clone());
        assert!(!path.exists(), "making an index opens nothing");
        index.remember_hashed(&[(stat(1), digest(1)), (stat(u64::MAX), digest(2))], SystemTime::now());
        let again = StatIndex::new(path);
        let changed = [
            FileStat { size: 4, ..stat(1) },
            FileStat { modified_ns: 1_001, ..stat(1) },
            FileStat { changed_ns: 2_001, ..stat(1) },
            FileStat { device: 7, ..stat(1) },
            stat(3),
        ];
        assert_eq!(again.lookup(&changed), vec![None; 5]);
        let found = again.lookup(&[stat(u64::MAX), stat(9), stat(1)]);
        assert_eq!(found, [Some(digest(2)), None, Some(digest(1))]);
        again.remember_hashed(&[(changed[0], digest(5))], SystemTime::now());
        assert_eq!(again.lookup(&[stat(1), changed[0]]), [None, Some(digest(5))]);
        assert!(index.take_warning().is_none() && again.take_warning().is_none());
    }

    #[test]
    fn files_that_are_too_fresh_are_not_kept() {
        let now = SystemTime::now();
        let now_ns = now.duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        let settled_ns = now_ns - SETTLED.as_nanos() as i64;
        let index = StatIndex::in_memory();
        let settled = FileStat { modified_ns: settled_ns, changed_ns: settled_ns, ..stat(1) };
        let fresh_write = FileStat { modified_ns: settled_ns + 1, inode: 2, ..settled };
        let fresh_change = FileStat { changed_ns: settled_ns + 1, inode: 3, ..settled };
        let future = FileStat { modified_ns: now_ns * 2, inode: 4, ..settled };
        let stats = [settled, fresh_write, fresh_change, future];
        index.remember_hashed(&stats.map(|stat| (stat, digest(1))), now);
        assert_eq!(index.lookup(&stats), [Some(digest(1)), None, None, None]);
    }

    #[test]
    fn an_unusable_database_costs_one_warning_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "this is no database, and longer than one header of a database would be").unwrap();
        fs::write(folder.path().join("newer"), "").unwrap();
        let newer = Connection::open(folder.path().join("newer")).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        for path in
            [file.clone(), file.join("below/a/file"), folder.path().join("newer"), folder.path().into()]
        {
            let index = StatIndex::new(path.clone());
            assert_eq!(index.lookup(&[stat(1)]), [None]);
            index.remember(&[(stat(1), digest(1))]);
            assert_eq!(index.lookup(&[stat(1)]), [Some(digest(1))], "served from memory");
            assert!(index.take_warning().unwrap().to_string().contains(path.to_str().unwrap()));
            assert!(index.take_warning().is_none());
        }
        assert!(fs::read(&file).unwrap().starts_with(b"this is no"), "what is not ours is left alone");
    }

    #[test]
    fn many_processes_write_and_read_one_database_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat.sqlite");
        std::thread::scope(|scope| {
            for worker in 0..8u64 {
                let path = path.clone();
                scope.spawn(move || {
                    let index = StatIndex::new(path);
                    for round in 0..10 {
                        let base = worker * 1000 + round * 50;
                        let rows: Vec<_> = (base..base + 50).map(|n| (stat(n), digest(n))).collect();
                        index.remember(&rows);
                        let stats: Vec<_> = rows.iter().map(|row| row.0).collect();
                        assert!(index.lookup(&stats).iter().all(Option::is_some));
                    }
                    assert!(index.take_warning().is_none());
                });
            }
        });
        let all: Vec<_> = (0..8u64).flat_map(|worker| (0..500).map(move |n| worker * 1000 + n)).collect();
        let stats: Vec<_> = all.iter().map(|n| stat(*n)).collect();
        let expected: Vec<_> = all.iter().map(|n| Some(digest(*n))).collect();
        assert_eq!(StatIndex::new(path).lookup(&stats), expected);
    }
}
