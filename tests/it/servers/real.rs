//! The promises of a remote on real servers: `scripts/remotes.sh` starts them and describes them in a file, which
//! `PATCHFLOW_TEST_SERVERS` names. The proxy stands before each, to see its verbs and to spoil its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use serde::Deserialize;

use super::Machine;
use super::proxy::{Fault, Proxy};
use crate::project::files;

#[derive(Deserialize)]
struct Servers {
    server: Vec<Server>,
}

/// A server. `{server}` stands for the address of the proxy before it.
#[derive(Deserialize)]
struct Server {
    name: String,
    /// Its host and port; none for a folder.
    #[serde(default)]
    listens: String,
    /// The remote as machines that write use it. Nothing is there yet.
    remote: String,
    /// The remote as machines that only read use it, if that is another address.
    reader: Option<String>,
    /// The environment.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// A remote that does not exist, and a word of what is said then.
    missing: Option<[String; 2]>,
    /// An environment with wrong credentials, and a word of what is said then.
    wrong: Option<(BTreeMap<String, String>, String)>,
    /// Whether it lists its files.
    lists: bool,
    /// The answer to a second record of one key: a status, or `overwritten`.
    second: String,
    /// The folder that holds its files, for a remote without a proxy.
    files: Option<PathBuf>,
}

/// A server with a proxy before it.
struct Site {
    server: Server,
    proxy: Option<Proxy>,
}

/// A promise: panics if it is not kept; `None` if it says nothing about this server.
type Promise = fn(&Site) -> Option<()>;

const PROMISES: [(&str, Promise); 9] = [
    ("second machine: 0 executed, same bytes", Site::gives_what_it_took),
    ("large file in parts", Site::carries_large_files),
    ("push, pull", Site::is_pushed_and_pulled),
    ("list", Site::is_listed),
    ("second record of a key", Site::keeps_the_first_record),
    ("heals", Site::heals),
    ("wrong credentials named", Site::names_wrong_credentials),
    ("missing bucket or folder named", Site::names_what_is_missing),
    ("verbs", Site::uses_few_verbs),
];

#[expect(clippy::unnecessary_wraps, reason = "every promise has one type")]
impl Site {
    fn new(server: Server) -> Self {
        let proxy = server.listens.parse().ok().map(Proxy::start);
        Self { server, proxy }
    }

    fn filled(&self, text: &str) -> String {
        let address = self.proxy.as_ref().map_or(String::new(), |proxy| proxy.address.to_string());
        text.replace("{server}", &address)
    }

    fn machine_at(&self, remote: &str, more: &BTreeMap<String, String>, values: usize) -> Machine {
        let variables: BTreeMap<_, _> = (self.server.variables.iter().chain(more))
            .map(|(name, text)| (name.clone(), self.filled(text)))
            .collect();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Machine::new(&self.filled(remote), &variables, values)
    }

    fn writer(&self, values: usize) -> Machine {
        self.machine_at(&self.server.remote, &BTreeMap::new(), values)
    }

    fn reader(&self, values: usize) -> Machine {
        let address = self.server.reader.as_ref().unwrap_or(&self.server.remote);
        self.machine_at(address, &BTreeMap::new(), values)
    }

    fn set(&self, fault: Fault) {
        self.proxy.iter().for_each(|proxy| proxy.set(fault));
    }

    fn gives_what_it_took(&self) -> Option<()> {
        let (a, b) = (self.writer(3), self.reader(3));
        let (first, second) = (a.run(), b.run());
        assert_eq!(first.report.executed(), 4, "{}", first.said);
        assert_eq!((second.report.executed(), second.remote_hits()), (0, 4), "{}", second.said);
        assert_eq!(a.project.results(&first.report), b.project.results(&second.report));
        let warnings = [first.warnings(), second.warnings()].concat();
        assert!(warnings.is_empty() || self.server.reader.is_some(), "{warnings:?}");
        Some(())
    }

    fn carries_large_files(&self) -> Option<()> {
        let manifest = "[experiment]\nname = \"large\"\n[stages.large]\nkind = \"command\"\n\
                        run = [\"sh\", \"-c\", \"seq 9000000 > outputs/o/n\"]\noutputs = { o = \"files\" }\n";
        let (a, b) = (self.writer(1), self.reader(1));
        let mut sizes = Vec::new();
        for machine in [a, b] {
            machine.project.write("large.toml", manifest);
            let output = machine.call(&["run", "large.toml", "--json"]);
            let report = crate::project::report_of(&output);
            let results = machine.project.results(&report);
            sizes.push((
                report.executed(),
                results.into_values().map(|file| blake3::hash(&file)).collect::<Vec<_>>(),
            ));
        }
        assert_eq!((sizes[0].0, sizes[1].0), (1, 0));
        assert!(sizes[0].1 == sizes[1].1 && sizes[0].1.len() == 1);
        Some(())
    }

    fn is_pushed_and_pulled(&self) -> Option<()> {
        let a = self.writer(5);
        a.project.run("m.toml", &["--remote", "off"]);
        let pushed = String::from_utf8(a.call(&["cache", "push", "m.toml"]).stdout).unwrap();
        assert!(pushed.contains("2 results (") && pushed.contains("4 were there"), "{pushed}");
        let b = self.reader(5);
        let output = b.call(&["cache", "pull", "m.toml"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(b.project.run("m.toml", &["--remote", "off"]).kinds("hit").len(), 6);
        Some(())
    }

    fn is_listed(&self) -> Option<()> {
        let output = self.reader(5).call(&["cache", "pull"]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if self.server.lists {
            assert!(output.status.success() && said.contains("results and "), "{said}");
        } else {
            assert!(!output.status.success() && said.contains("manifest"), "{said}");
        }
        Some(())
    }

    /// A machine that does not see what is there makes the same records again and puts them.
    fn keeps_the_first_record(&self) -> Option<()> {
        let proxy = self.proxy.as_ref().filter(|_| self.server.reader.is_none())?;
        proxy.set(Fault::Blind);
        let writer = self.writer(1);
        proxy.take_answers();
        writer.run();
        let answers = proxy.take_answers();
        proxy.set(Fault::None);
        let records: BTreeSet<u16> = (answers.iter())
            .filter(|(request, _)| request.starts_with("PUT") && request.contains("/records/"))
            .map(|(_, status)| *status)
            .collect();
        let expected: BTreeSet<u16> = match self.server.second.as_str() {
            "overwritten" => BTreeSet::from([200, 201, 204]),
            status => BTreeSet::from([status.parse().unwrap()]),
        };
        assert!(!records.is_empty() && records.is_subset(&expected), "{records:?}");
        Some(())
    }

    fn heals(&self) -> Option<()> {
        if let Some(folder) = &self.server.files {
            let is_content = |file: &PathBuf| file.starts_with("v1/packs") || file.starts_with("v1/objects");
            for file in files(folder).into_iter().filter(is_content) {
                let mut content = std::fs::read(folder.join(&file)).unwrap();
                *content.last_mut().unwrap() ^= 1;
                std::fs::write(folder.join(&file), content).unwrap();
            }
        }
        self.set(Fault::Flipped);
        let ended = self.writer(3).run();
        self.set(Fault::None);
        assert!(ended.report.executed() >= 3, "{}", ended.said);
        let ended = self.reader(3).run();
        assert_eq!((ended.report.executed(), ended.remote_hits()), (0, 4), "{}", ended.said);
        Some(())
    }

    fn names_wrong_credentials(&self) -> Option<()> {
        let (variables, word) = self.server.wrong.as_ref()?;
        let ended = self.machine_at(&self.server.remote, variables, 3).run();
        let warnings = ended.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(word), "{warnings:?}");
        Some(())
    }

    fn names_what_is_missing(&self) -> Option<()> {
        let [remote, word] = self.server.missing.as_ref()?;
        let ended = self.machine_at(remote, &BTreeMap::new(), 3).run();
        let warnings = ended.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(word), "{warnings:?}");
        Some(())
    }

    /// The requests of all promises before: nothing was removed, moved or copied.
    fn uses_few_verbs(&self) -> Option<()> {
        let proxy = self.proxy.as_ref()?;
        let requests = proxy.take_requests();
        let verbs: BTreeSet<&str> = requests.iter().filter_map(|request| request.split(' ').next()).collect();
        let known = BTreeSet::from(["GET", "HEAD", "PUT", "POST", "MKCOL", "PROPFIND"]);
        assert!(verbs.is_subset(&known), "{verbs:?}");
        Some(())
    }
}

#[test]
#[ignore = "needs servers: scripts/remotes.sh"]
fn real_servers_keep_the_promises() {
    let path =
        std::env::var("PATCHFLOW_TEST_SERVERS").expect("scripts/remotes.sh sets PATCHFLOW_TEST_SERVERS");
    let servers: Servers = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let names: Vec<&str> = PROMISES.iter().map(|(name, _)| *name).collect();
    let mut table = format!("| server | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let mut broken = 0;
    for server in servers.server {
        let site = Site::new(server);
        table = format!("{table}\n| {} |", site.server.name);
        for (name, promise) in PROMISES {
            let kept = std::panic::catch_unwind(AssertUnwindSafe(|| promise(&site)));
            if kept.is_err() {
                println!("{} does not keep: {name}", site.server.name);
            }
            broken += usize::from(kept.is_err());
            table += match kept {
                Ok(Some(())) => " yes |",
                Ok(None) => " – |",
                Err(_) => " NO |",
            };
        }
    }
    println!("{table}");
    assert_eq!(broken, 0, "promises that are not kept");
}
