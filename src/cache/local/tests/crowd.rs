//! Many at once on one store, each as a process of its own: publishers, readers, two collectors, a vandal.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::fresh_in_memory;
use super::model::{CONTENTS, TASKS, content, describe, key, object, outputs, publish, record, tree};
use super::{Area, CacheError, StatIndex, Store};
use crate::cache::Collection;

/// What each of the threads below does over and over.
fn act(store: &Store, thread: usize, round: usize, has_damage: bool) {
    let task = (round * 7 + thread * 3) % TASKS;
    match thread {
        0 | 1 => {
            match publish(store, task) {
                // Someone wrote into an object at the moment in which it got its name.
                Err(CacheError::ChangedWhilePublished { .. }) if has_damage => return,
                outcome => drop(outcome.unwrap()),
            }
            for numbers in outputs(task) {
                let damage = store.check(&tree(&numbers)).unwrap();
                assert!(has_damage || damage.is_empty(), "what this process holds stays: {damage:?}");
            }
        }
        2 => {
            if let Some(bytes) = store.record(&key(task)).unwrap() {
                assert_eq!(bytes, record(task));
                for numbers in outputs(task) {
                    assert!(store.tree(&tree(&numbers).digest()).unwrap().is_some(), "trees stay");
                    for number in numbers {
                        match store.read(&object(number)) {
                            Ok(read) => assert_eq!(read, content(number)),
                            Err(CacheError::Missing { .. }) => {}
                            Err(error) => assert!(has_damage, "{error}"),
                        }
                    }
                }
            }
        }
        3 | 4 => {
            let (grace, now) = (Duration::ZERO, SystemTime::now());
            let collection = Collection { max_bytes: Some(0), grace, is_dry_run: false, now };
            match store.collect(&collection, &describe) {
                Ok(_) | Err(CacheError::Collecting { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        _ => {
            let path = store.object_path(&object(round % CONTENTS));
            // It may go between the two calls.
            let _ = fs::set_permissions(&path, Permissions::from_mode(0o644));
            let _ = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(5));
        }
    }
}

#[test]
fn publishers_readers_and_two_collectors_at_once_see_only_what_is_true() {
    for has_damage in [false, true] {
        let (_folder, store) = fresh_in_memory();
        let (stop, publications) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..if has_damage { 6 } else { 5 } {
                let (store, stop, publications) = (&store, &stop, &publications);
                scope.spawn(move || {
                    for round in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let process = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
                        let acted =
                            catch_unwind(AssertUnwindSafe(|| act(&process, thread, round, has_damage)));
                        if let Err(panic) = acted {
                            stop.store(true, Ordering::SeqCst);
                            resume_unwind(panic);
                        }
                        if thread < 2 && publications.fetch_add(1, Ordering::SeqCst) > 400 {
                            stop.store(true, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let report = store.verify(&|_| ()).unwrap();
        assert!(has_damage || report.damaged.is_empty(), "{:?}", report.damaged);
        assert!(store.verify(&|_| ()).unwrap().damaged.is_empty());
        (0..TASKS).for_each(|task| drop(publish(&store, task).unwrap()));
        assert_eq!(fs::read_dir(store.area(Area::Tmp)).unwrap().count(), 0);
    }
}
