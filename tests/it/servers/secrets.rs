//! Credentials are in no file, no message and no event.

use std::path::Path;

use super::Machine;
use super::proxy::{Fault, Proxy};
use super::store::Store;

/// What stands in the environment and in the addresses, and nowhere else.
const SECRETS: [&str; 5] = ["pa55word", "5ignature", "5ecretkey", "5ession", "YWRhOnBhNTV3b3Jk"];

/// Files below a folder that hold a secret. The text of stdout and stderr is given as `said`.
fn found(folder: &Path, said: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |name: String, content: &[u8]| {
        let holds = |secret: &&&str| content.windows(secret.len()).any(|part| part == secret.as_bytes());
        found.extend(SECRETS.iter().find(holds).map(|secret| format!("{name} holds {secret}")));
    };
    check("the output".to_owned(), said);
    for entry in
        walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file())
    {
        check(entry.path().display().to_string(), &std::fs::read(entry.path()).unwrap());
    }
    found
}

#[test]
fn no_file_no_message_and_no_event_holds_a_secret() {
    let store = Store::start();
    let proxy = Proxy::start(store.address);
    let endpoint = format!("http://{}", proxy.address);
    let http = format!("http://ada:pa55word@{}/cache?sv=1&sig=5ignature", proxy.address);
    let s3 = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "5ecretkey"),
        ("AWS_SESSION_TOKEN", "5ession"),
    ];
    let azure = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "me"),
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=5ignature"),
    ];
    let faults = [
        Fault::None,
        Fault::NoHead,
        Fault::Frozen,
        Fault::Always(401),
        Fault::Always(403),
        Fault::Always(500),
        Fault::Redirect,
        Fault::BareRedirect,
        Fault::Uploads(413),
        Fault::Page,
        Fault::Truncated,
    ];
    for (remote, variables) in
        [(http.as_str(), &[][..]), ("s3://bucket/x", &s3[..]), ("az://box/x", &azure[..])]
    {
        let variables = [variables, &[("PATCHFLOW_REMOTE_TIMEOUT", "0.3"), ("RUST_LOG", "debug")]].concat();
        for fault in faults {
            proxy.set(fault);
            let machine = Machine::new(remote, &variables, 2);
            machine.project.write("patchflow.toml", "jobs = 2\n");
            let mut said = Vec::new();
            for arguments in [
                &["run", "m.toml"][..],
                &["run", "m.toml", "--json"],
                &["plan", "m.toml", "--json"],
                &["explain", "m.toml", "second"],
                &["cache", "push", "m.toml"],
                &["cache", "pull"],
            ] {
                let output = machine.call(arguments);
                said.extend([output.stdout, output.stderr].concat());
            }
            assert_eq!(found(&machine.project.path("."), &said), [""; 0], "{remote} {fault:?}");
        }
    }
    // The test sees what it looks for.
    let machine = Machine::new(&http, &[], 2);
    machine.project.write("a/note", "pa55word");
    assert_eq!(found(&machine.project.path("."), b"5ignature").len(), 2);
}

#[test]
fn user_and_password_of_the_address_reach_the_server() {
    let proxy = Proxy::start(Store::start().address);
    let http = format!("http://ada:pa55word@{}/cache", proxy.address);
    assert_eq!(Machine::new(&http, &[], 2).run().report.executed(), 3);
    assert_eq!(Machine::new(&http, &[], 2).run().remote_hits(), 3);
}
