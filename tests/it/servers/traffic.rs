//! How many requests a grid costs.

use super::Machine;
use super::store::Store;

#[test]
fn a_warm_grid_costs_few_requests() {
    let store = Store::start();
    let (a, b) = (Machine::s3(store.address, 40), Machine::s3(store.address, 40));
    assert_eq!(a.run().report.executed(), 41);
    let cold = store.take_requests().len();
    let ended = b.run();
    assert_eq!((ended.report.executed(), ended.remote_hits()), (0, 41), "{}", ended.said);
    let warm = store.take_requests().len();
    println!("41 tasks: {cold} requests to make and push, {warm} to take and show");
    // A record and a tree for each, and a file for each that the run's folder shows.
    assert!(warm <= 41 * 3, "{warm} requests for 41 tasks that another machine has run");
    let again = b.run();
    assert_eq!(again.report.kinds("hit").len(), 41);
    let local = store.take_requests().len();
    assert!(local == 0, "{local} requests for 41 tasks that this machine has run");
}
