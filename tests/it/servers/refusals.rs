//! What a server refuses is named with its cause and what mends it; least privilege is enough.

use super::proxy::{Fault, Proxy};
use super::store::Store;
use super::{Ended, Machine};

/// A run of a machine before a server that was filled, under a fault.
fn under(fault: Fault, machine: fn(std::net::SocketAddr, usize) -> Machine) -> Ended {
    let proxy = Proxy::start(Store::start().address);
    machine(proxy.address, 2).run();
    proxy.set(fault);
    machine(proxy.address, 3).run()
}

#[test]
fn the_cause_of_a_refusal_is_named_once_with_what_mends_it() {
    let s3: fn(std::net::SocketAddr, usize) -> Machine = Machine::s3;
    for (fault, machine, named) in [
        (Fault::After(0, 400, "ExpiredToken"), s3, ["have expired", "AWS_SESSION_TOKEN"]),
        (Fault::After(5, 400, "ExpiredToken"), s3, ["have expired", "AWS_SESSION_TOKEN"]),
        (Fault::After(0, 403, "ExpiredToken"), s3, ["have expired", "AWS_SESSION_TOKEN"]),
        (Fault::After(0, 403, "RequestTimeTooSkewed"), s3, ["clock", "timedatectl"]),
        (Fault::After(0, 403, "SignatureDoesNotMatch"), s3, ["credentials", "AWS_SECRET_ACCESS_KEY"]),
        (Fault::After(0, 403, "InvalidAccessKeyId"), s3, ["credentials", "AWS_ACCESS_KEY_ID"]),
        (Fault::After(0, 404, "NoSuchBucket"), s3, ["does not exist", "make the bucket"]),
        (Fault::After(0, 301, "PermanentRedirect"), s3, ["another address", "AWS_REGION"]),
        (Fault::Uploads(403), s3, ["takes no results", "s3:PutObject"]),
        (Fault::Uploads(413), Machine::http, ["413", "client_max_body_size"]),
        (Fault::Uploads(405), Machine::http, ["takes no results", "dav_methods"]),
        (Fault::Uploads(404), Machine::http, ["no folder", "make the folder"]),
        (Fault::Uploads(409), Machine::http, ["no folder", "make the folder"]),
        (Fault::Uploads(507), Machine::http, ["takes no results", "space"]),
        (Fault::Always(401), Machine::http, ["credentials", "PATCHFLOW_HTTP_PASSWORD"]),
        (Fault::Always(403), s3, ["403", "s3:"]),
    ] {
        let ended = under(fault, machine);
        let warnings = ended.warnings();
        assert_eq!(warnings.len(), 1, "{fault:?}: {warnings:?}");
        for word in named {
            assert!(warnings[0].contains(word), "{fault:?}: {warnings:?} without {word}");
        }
        assert!(!warnings[0].contains("does not answer"), "{fault:?}: {warnings:?}");
    }
}

#[test]
fn missing_variables_are_named_and_end_no_run() {
    let proxy = Proxy::start(Store::start().address);
    let endpoint = format!("http://{}", proxy.address);
    for (remote, variables, named) in [
        ("s3://bucket/x", vec![("AWS_ENDPOINT_URL", endpoint.as_str())], "AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x", vec![("AWS_ACCESS_KEY_ID", "id")], "AWS_SECRET_ACCESS_KEY"),
        ("az://container/x", vec![], "AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://container/x", vec![("AZURE_STORAGE_ACCOUNT_NAME", "me")], "AZURE_STORAGE_ACCOUNT_KEY"),
        ("gs://bucket/x", vec![("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")], "GOOGLE_APPLICATION"),
        ("gs://bucket/x", vec![("GOOGLE_BASE_URL", endpoint.as_str())], "GOOGLE_APPLICATION_CREDENTIALS"),
    ] {
        let variables = [&variables[..], &[("PATCHFLOW_REMOTE_TIMEOUT", "0.5")]].concat();
        let machine = Machine::new(remote, &variables, 2);
        let ended = machine.run();
        let warnings = ended.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(named), "{remote}: {warnings:?}");
        assert!(!ended.said.contains("169.254"), "{remote}: {}", ended.said);
        let pushed = machine.call(&["cache", "push", "m.toml"]);
        let said = String::from_utf8_lossy(&pushed.stderr).into_owned();
        assert!(
            pushed.status.code() == Some(1) && said.contains(named),
            "{remote}: {} {said}",
            pushed.status
        );
    }
}

#[test]
fn a_bucket_of_the_tests_own_serves_gs_as_well() {
    let store = Store::start();
    let base = format!("http://{}", store.address);
    let variables = [("GOOGLE_BASE_URL", base.as_str()), ("GOOGLE_BEARER_TOKEN", "token")];
    let a = Machine::new("gs://bucket/results", &variables, 2);
    assert_eq!(a.run().report.executed(), 3);
    let b = Machine::new("gs://bucket/results", &variables, 2);
    let ended = b.run();
    assert_eq!((ended.report.executed(), ended.remote_hits()), (0, 3), "{}", ended.said);
    assert!(store.files().iter().all(|file| file.starts_with("/bucket/results/v1/")), "{:?}", store.files());
}
