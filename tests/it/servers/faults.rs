//! A run ends well and with the right table, whatever happens between it and its remote.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Machine;
use super::proxy::{Fault, Proxy};
use super::store::Store;

const FAULTS: [Fault; 44] = [
    Fault::Reset,
    Fault::NoHead,
    Fault::ResetUpload,
    Fault::Frozen,
    Fault::FrozenBody,
    Fault::SlowBody,
    Fault::Truncated,
    Fault::TooLong,
    Fault::TooShort,
    Fault::Always(400),
    Fault::Always(401),
    Fault::Always(403),
    Fault::Always(404),
    Fault::Always(409),
    Fault::Always(412),
    Fault::Always(418),
    Fault::Always(500),
    Fault::Always(502),
    Fault::Always(503),
    Fault::EverySecond(500),
    Fault::EverySecond(503),
    Fault::EverySecond(404),
    Fault::Uploads(403),
    Fault::Uploads(405),
    Fault::Uploads(409),
    Fault::Uploads(412),
    Fault::Uploads(413),
    Fault::Uploads(507),
    Fault::RetryAfter(0),
    Fault::RetryAfter(3600),
    Fault::After(3, 400, "ExpiredToken"),
    Fault::After(0, 403, "RequestTimeTooSkewed"),
    Fault::After(0, 404, "NoSuchBucket"),
    Fault::LaggingList,
    Fault::Stale,
    Fault::Duplicate,
    Fault::LostAnswer,
    Fault::Gzip,
    Fault::Redirect,
    Fault::BareRedirect,
    Fault::Empty,
    Fault::Page,
    Fault::Json,
    Fault::WrongTag,
];

const MORE_FAULTS: [Fault; 6] =
    [Fault::Flipped, Fault::Swapped, Fault::Garbage, Fault::BadChunks, Fault::Clock, Fault::NoContent];

/// The longest time of a run under a fault, on a machine that does other things as well.
const LONGEST: Duration = Duration::from_secs(12);

/// What is wrong with a fault's runs, or how long the first took.
fn under(fault: Fault, machine: fn(std::net::SocketAddr, usize) -> Machine) -> Duration {
    let store = Store::start();
    let proxy = Proxy::start(store.address);
    assert_eq!(machine(proxy.address, 2).run().report.executed(), 3);
    proxy.set(fault);
    let under = machine(proxy.address, 3);
    let ended = under.run();
    assert!(ended.took < LONGEST, "{fault:?} took {:?}: {}", ended.took, ended.said);
    assert!(!ended.said.contains("<h1>") && !ended.said.contains('\u{1b}'), "{fault:?}: {}", ended.said);
    let waits = ended.said.lines().filter(|line| line.contains("waiting for")).count();
    assert!(waits <= 1, "{fault:?}: {}", ended.said);
    // Nothing that the fault left in the remote or the cache gives another result.
    proxy.set(Fault::None);
    assert_eq!(under.run().report.executed(), 0, "{fault:?}");
    let after = machine(proxy.address, 3).run();
    let executed = after.report.executed();
    assert!(executed <= 1, "{fault:?}: {executed} tasks were not taken from the remote: {}", after.said);
    ended.took
}

fn under_all(faults: &[Fault], machine: fn(std::net::SocketAddr, usize) -> Machine) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
            let took = under(fault, machine);
            println!("{fault:?}: {took:.1?}");
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn a_run_over_s3_ends_well_under_every_fault() {
    under_all(&FAULTS, Machine::s3);
    under_all(&MORE_FAULTS, Machine::s3);
}

#[test]
fn a_run_over_http_ends_well_under_every_fault() {
    under_all(&FAULTS, Machine::http);
    under_all(&MORE_FAULTS, Machine::http);
}

#[test]
fn nothing_listens_and_the_run_ends_well() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = Machine::s3(port, 2).run();
    assert!(ended.took < LONGEST, "{:?}", ended.took);
    let warnings = ended.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("does not answer"), "{warnings:?}");
    assert!(warnings[0].contains("AWS_ENDPOINT_URL"), "{warnings:?}");
}

#[test]
fn a_frozen_server_costs_one_wait_that_is_announced() {
    for machine in [Machine::s3, Machine::http] {
        let proxy = Proxy::start(Store::start().address);
        proxy.set(Fault::Frozen);
        let machine = machine(proxy.address, 3);
        let ended = machine.run();
        assert!(ended.said.contains("waiting for"), "{}", ended.said);
        let warnings = ended.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("no answer in 0.5 s"), "{warnings:?}");
        // All requests that were made before the wait ended were made at once, and none was repeated.
        assert!(proxy.take_requests().len() <= 3);
    }
}
