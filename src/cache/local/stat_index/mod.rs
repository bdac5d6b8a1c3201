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
//!
//! # After a power cut
//! A file that was written shortly before a power cut can have its size and times and other bytes: zeros, or what the
//! blocks held before. So a row carries the boot in which the file was hashed or published, and counts in no other,
//! until the content is known to be on disk: because it was synced ([`StatIndex::confirm`]), or because its times are
//! older than the boot in which it was hashed, so that it was read from the disk. Such a row has no boot.
//!
//! # What is published
//! The rows of published files wait in memory until the table is read next, at the latest until the next barrier or the end
//! of the process, and are then written together: on a busy disk the log of the database can make a task wait. A process that is killed takes
//! them along, and the files are hashed once more.

mod boot;
mod database;

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::digest::Digest;
pub(in crate::cache::local) use boot::Boot;
use database::SCHEMA_VERSION;

/// Two ticks of the slowest file clock in use (100 Hz).
pub(in crate::cache::local) const SETTLED: Duration = Duration::from_millis(20);

/// Number of rows that wait in memory at most (chosen: writing them takes 3 ms).
const MOST_WAITING: usize = 1000;

/// Size in bytes of the database's log from which the end of a process moves it into the main file (chosen: reading a log
/// of this size takes 1 ms when the database is opened).
const LONGEST_LOG: u64 = 2 * 1024 * 1024;

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
    boot: Boot,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    waiting: Waiting,
    warning: Option<IndexWarning>,
}

impl State {
    fn of(table: Table) -> Mutex<Self> {
        Mutex::new(Self { table, waiting: Waiting::default(), warning: None })
    }
}

/// Rows of published files that are not in the table yet.
#[derive(Debug, Default)]
struct Waiting {
    published: Rows,
    /// Rows of the table whose files were given a further name.
    linked: Vec<(FileStat, Digest)>,
}

#[derive(Debug)]
enum Table {
    Unopened,
    Database(Connection),
    Memory(Rows),
}

/// Rows in memory, by device and inode. They end with the process, and so before the boot.
type Rows = HashMap<(u64, u64), (FileStat, Digest)>;

impl StatIndex {
    /// Uses the database at `path`, created with its folder by the first lookup. Nothing is opened yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, boot: Boot::current(), state: State::of(Table::Unopened) }
    }

    /// Keeps rows in memory while this value lives; writes nothing.
    pub fn in_memory() -> Self {
        Self { path: PathBuf::new(), boot: Boot::current(), state: State::of(Table::Memory(Rows::new())) }
    }

    /// The digest of each file that was hashed under exactly this stat. One transaction.
    pub fn lookup(&self, stats: &[FileStat]) -> Vec<Option<Digest>> {
        if stats.is_empty() {
            return Vec::new();
        }
        let mut state = self.opened();
        if let Table::Database(connection) = &mut state.table {
            match database::select(connection, &self.boot.id, stats) {
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
        let settled = rows.iter().filter(|(stat, _)| stat.is_settled(began));
        let row = |&(stat, digest): &(FileStat, Digest)| {
            (stat, digest, (!self.boot.is_after(&stat)).then_some(self.boot.id.as_str()))
        };
        let rows: Vec<_> = settled.map(row).collect();
        if !rows.is_empty() {
            self.insert(&mut self.opened(), &rows);
        }
    }

    /// Keeps the rows of files that were written and are not known to be on disk. The caller knows that the content
    /// cannot have changed under this stat.
    pub(super) fn remember(&self, rows: &[(FileStat, Digest)]) {
        self.wait(|waiting| {
            for &(stat, digest) in rows {
                waiting.published.insert((stat.device, stat.inode), (stat, digest));
            }
        });
    }

    /// Changes what waits, and writes it if it has become much.
    fn wait(&self, change: impl FnOnce(&mut Waiting)) {
        let mut state = self.locked();
        change(&mut state.waiting);
        if state.waiting.published.len() + state.waiting.linked.len() > MOST_WAITING {
            drop(state);
            drop(self.opened());
        }
    }

    /// Writes what waits.
    fn write_waiting(&self, state: &mut State) {
        let Waiting { published, linked } = std::mem::take(&mut state.waiting);
        if !published.is_empty() {
            let row = |(stat, digest): (FileStat, Digest)| (stat, digest, Some(self.boot.id.as_str()));
            self.insert(state, &published.into_values().map(row).collect::<Vec<_>>());
        }
        if !linked.is_empty() {
            let keep = |known: &mut Rows| {
                for row in &linked {
                    relink(known, row);
                }
            };
            self.write(state, |connection| database::relink(connection, &linked), keep);
        }
    }

    fn insert(&self, state: &mut State, rows: &[(FileStat, Digest, Option<&str>)]) {
        let keep = |known: &mut Rows| {
            known.extend(rows.iter().map(|(stat, digest, _)| ((stat.device, stat.inode), (*stat, *digest))));
        };
        self.write(state, |connection| database::insert(connection, rows), keep);
    }

    /// Notes that the contents of these files are on disk. Files that were changed since their row was written are
    /// left out.
    pub(super) fn confirm(&self, rows: &[(FileStat, Digest)]) {
        if !rows.is_empty() {
            let set = |connection: &mut Connection| database::set_boot(connection, rows, None);
            self.write(&mut self.opened(), set, |_| {});
        }
    }

    /// Notes that these files may have lost their contents.
    pub(super) fn mistrust(&self, rows: &[(FileStat, Digest)]) {
        if rows.is_empty() {
            return;
        }
        let forget = |known: &mut Rows| {
            for (stat, _) in rows {
                known.remove(&(stat.device, stat.inode));
            }
        };
        // No boot has this name.
        let set = |connection: &mut Connection| database::set_boot(connection, rows, Some("none"));
        self.write(&mut self.opened(), set, forget);
    }

    /// Notes that files were given a further name, which changes their ctime and nothing else.
    pub(super) fn remember_linked(&self, rows: &[(FileStat, Digest)]) {
        self.wait(|waiting| {
            for row in rows {
                if !relink(&mut waiting.published, row) {
                    waiting.linked.push(*row);
                }
            }
        });
    }

    /// Writes to the database, or to the table in memory if there is none.
    fn write(
        &self,
        state: &mut State,
        write: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
        keep: impl FnOnce(&mut Rows),
    ) {
        if let Table::Database(connection) = &mut state.table {
            match write(connection) {
                Ok(()) => return,
                Err(error) => self.degrade(state, IndexFailure::Database(error)),
            }
        }
        if let Table::Memory(known) = &mut state.table {
            keep(known);
        }
    }

    /// Why the database is not used, once.
    pub fn take_warning(&self) -> Option<IndexWarning> {
        self.locked().warning.take()
    }

    /// Moves what was written into the main file of the database, which waits for the disk; readers and writers do not
    /// wait for it.
    pub(super) fn checkpoint(&self) {
        if matches!(self.locked().table, Table::Database(_)) {
            // Another connection, so that nothing waits for this one. If it fails, the next process does it.
            let _ = Connection::open(&self.path).and_then(|connection| database::checkpoint(&connection));
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state with its table, in which everything is that waited.
    fn opened(&self) -> MutexGuard<'_, State> {
        let mut state = self.locked();
        if matches!(state.table, Table::Unopened) {
            match self.open() {
                Ok(connection) => state.table = Table::Database(connection),
                Err(failure) => self.degrade(&mut state, failure),
            }
        }
        self.write_waiting(&mut state);
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
        let mut connection = Connection::open(&self.path).map_err(IndexFailure::Database)?;
        match database::prepare(&mut connection).map_err(IndexFailure::Database)? {
            SCHEMA_VERSION => Ok(connection),
            unknown => Err(IndexFailure::Version(unknown)),
        }
    }
}

/// Gives the row of a file the ctime of its further name; `false` if there is no row of this content.
fn relink(known: &mut Rows, (stat, digest): &(FileStat, Digest)) -> bool {
    let row = known.get_mut(&(stat.device, stat.inode));
    let is_same = |row: &&mut (FileStat, Digest)| {
        row.1 == *digest && FileStat { changed_ns: stat.changed_ns, ..row.0 } == *stat
    };
    row.filter(is_same).map(|row| row.0 = *stat).is_some()
}

impl Drop for StatIndex {
    fn drop(&mut self) {
        let waits = |waiting: &Waiting| !waiting.published.is_empty() || !waiting.linked.is_empty();
        if waits(&self.locked().waiting) {
            drop(self.opened());
        }
        // The end of a command does not wait for the disk, unless the log has become long to read.
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let is_short = fs::metadata(log).is_ok_and(|log| log.len() < LONGEST_LOG);
        if let Table::Database(connection) = &self.locked().table
            && is_short
        {
            database::keep_log(connection);
        }
    }
}

#[cfg(test)]
impl StatIndex {
    /// As [`Self::new`], in another boot.
    pub(super) fn in_boot(path: PathBuf, boot: Boot) -> Self {
        Self { path, boot, state: State::of(Table::Unopened) }
    }

    /// Makes the row of a file say that it has the stat `after`, as a file system may that wrote a file's metadata and
    /// not its content.
    pub(super) fn forge(&self, before: FileStat, after: FileStat) {
        let mut state = self.opened();
        let Table::Database(connection) = &mut state.table else { panic!("there is a database") };
        let sql =
            "UPDATE files SET size = ?3, modified_ns = ?4, changed_ns = ?5 WHERE device = ?1 AND inode = ?2";
        let FileStat { device, inode, .. } = before;
        let FileStat { size, modified_ns, changed_ns, .. } = after;
        let row = (device as i64, inode as i64, size as i64, modified_ns, changed_ns);
        connection.execute(sql, row).unwrap();
    }
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
    fn published_rows_wait_in_memory_and_are_written_by_the_next_reading_or_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat.sqlite");
        let linked = |inode| FileStat { changed_ns: 3_000, ..stat(inode) };
        let (first, second) = (StatIndex::new(path.clone()), StatIndex::new(path.clone()));
        first.remember(&[(stat(1), digest(1)), (stat(2), digest(2))]);
        first.remember_linked(&[(linked(2), digest(2)), (linked(1), digest(9))]);
        assert!(!path.exists(), "a task does not wait for the database");
        assert_eq!(first.lookup(&[stat(1), stat(2), linked(2)]), [Some(digest(1)), None, Some(digest(2))]);
        first.remember_linked(&[(linked(1), digest(1))]);
        first.remember(&[(stat(3), digest(3))]);
        assert_eq!(second.lookup(&[stat(1), stat(3)]), [Some(digest(1)), None], "the rest waits");
        drop(first);
        assert_eq!(second.lookup(&[linked(1), stat(3)]), [Some(digest(1)), Some(digest(3))]);
        let many: Vec<_> = (10..).take(MOST_WAITING + 1).map(|n| (stat(n), digest(n))).collect();
        let third = StatIndex::new(path);
        third.remember(&many);
        assert_eq!(second.lookup(&[many[0].0]), [Some(many[0].1)], "not more than that waits");
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
    fn a_row_ends_with_its_boot_unless_the_content_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat.sqlite");
        let started = UNIX_EPOCH + Duration::from_secs(1_000);
        let in_boot = |id: &str| StatIndex::in_boot(path.clone(), Boot::named(id, started));
        let first = in_boot("first");
        let young =
            |inode| FileStat { modified_ns: 2_000_000_000_000, changed_ns: 2_000_000_000_000, ..stat(inode) };
        let stats = [young(1), young(2), young(3), stat(4)];
        first.remember(&[(stats[0], digest(1)), (stats[1], digest(2))]);
        first.remember_hashed(&[(stats[2], digest(3)), (stats[3], digest(4))], SystemTime::now());
        assert_eq!(first.lookup(&stats), [1, 2, 3, 4].map(|number| Some(digest(number))));
        first.confirm(&[(stats[1], digest(2))]);
        let linked = FileStat { changed_ns: 3_000_000_000_000, ..stats[1] };
        first.remember_linked(&[(linked, digest(2))]);
        assert_eq!(first.lookup(&[linked]), [Some(digest(2))]);
        assert_eq!(
            in_boot("first").lookup(&stats),
            [Some(digest(1)), None, Some(digest(3)), Some(digest(4))]
        );
        let second = in_boot("second");
        let seen = second.lookup(&[stats[0], linked, stats[2], stats[3]]);
        assert_eq!(seen, [None, Some(digest(2)), None, Some(digest(4))], "synced, or older than the boot");
        second.mistrust(&[(linked, digest(2))]);
        assert_eq!(second.lookup(&[linked]), [None]);
        assert!(first.take_warning().is_none() && second.take_warning().is_none());
    }

    #[test]
    fn a_table_of_the_first_version_is_brought_up_to_date_and_its_rows_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE files (device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,
                 modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL, digest BLOB NOT NULL,
                 PRIMARY KEY (device, inode)) WITHOUT ROWID;
             PRAGMA user_version = 1;",
        )
        .unwrap();
        let known = digest(1);
        let row = (-1, 1, 3, 1_000, 2_000, known.as_bytes());
        old.execute("INSERT INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6)", row).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let index = StatIndex::new(path.clone());
                    assert_eq!(index.lookup(&[stat(1), stat(2)]), [Some(digest(1)), None]);
                    assert!(index.take_warning().is_none());
                });
            }
        });
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
