//! Remotes on servers: small ones of the tests' own, a proxy that spoils what passes, and real ones.
#![expect(clippy::print_stdout, reason = "times, counts and the table are for those who run the tests")]

mod faults;
mod http;
mod proxy;
mod real;
mod refusals;
mod secrets;
pub(crate) mod store;
mod traffic;

use std::time::{Duration, Instant};

use crate::project::{Project, Report, report_of};

/// A grid whose tasks take no time. `@` stands for the values of its axis.
const MANIFEST: &str = r#"
[experiment]
name = "shared"
[grid.axes]
x = [@]
[stages.first]
kind = "command"
run = ["sh", "-c", "for i in $(seq 20); do echo $i > outputs/o/$i; done"]
outputs = { o = "files" }
[stages.second]
kind = "command"
run = ["sh", "-c", "cat inputs/first/1 inputs/first/20 > outputs/o/n; echo ${x} >> outputs/o/n"]
inputs = { first = "first" }
outputs = { o = "files" }
"#;

/// A machine: a project with a cache of its own, a remote, and what the environment says.
struct Machine {
    project: Project,
    remote: String,
    variables: Vec<(String, String)>,
}

/// How a run ended.
struct Ended {
    report: Report,
    /// What was written to stderr.
    said: String,
    took: Duration,
}

impl Machine {
    /// A machine with the values `1` to `values` on the axis.
    fn new(remote: &str, variables: &[(&str, &str)], values: usize) -> Self {
        let project = Project::empty();
        let values: Vec<String> = (1..=values).map(|value| value.to_string()).collect();
        project.write("m.toml", &MANIFEST.replace('@', &values.join(", ")));
        let own = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
        Self { project, remote: remote.to_owned(), variables: variables.iter().map(own).collect() }
    }

    /// A machine whose remote is a bucket of a server on the loopback interface.
    fn s3(server: std::net::SocketAddr, values: usize) -> Self {
        let endpoint = format!("http://{server}");
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
            ("PATCHFLOW_REMOTE_TIMEOUT", "0.5"),
        ];
        Self::new("s3://bucket/results", &variables, values)
    }

    /// A machine whose remote is a folder of an HTTP server.
    fn http(server: std::net::SocketAddr, values: usize) -> Self {
        Self::new(&format!("http://{server}/cache"), &[("PATCHFLOW_REMOTE_TIMEOUT", "0.5")], values)
    }

    fn call(&self, arguments: &[&str]) -> std::process::Output {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        self.project.call_with(&[arguments, &["--remote", &self.remote]].concat(), &variables)
    }

    /// Runs the manifest, which must end with 0 and the right table.
    fn run(&self) -> Ended {
        let started = Instant::now();
        let output = self.call(&["run", "m.toml", "--json"]);
        let (said, took) = (String::from_utf8_lossy(&output.stderr).into_owned(), started.elapsed());
        assert!(output.status.success() && !said.contains("panicked"), "{}: {said}", output.status);
        let report = report_of(&output);
        let results = self.project.results(&report);
        let values = results.keys().filter(|path| path.ends_with("second/n")).count();
        assert_eq!(values, results.len(), "{:?}", results.keys());
        for (path, content) in results {
            let value = path.to_str().unwrap().split(['=', '/']).nth(1).unwrap().to_owned();
            assert_eq!(String::from_utf8_lossy(&content), format!("1\n20\n{value}\n"));
        }
        Ended { report, said, took }
    }
}

impl Ended {
    /// The lines that warn of the remote.
    fn warnings(&self) -> Vec<&str> {
        self.said.lines().filter(|line| line.starts_with("warning: ")).collect()
    }

    fn remote_hits(&self) -> usize {
        self.report.kinds("remote_hit").len()
    }
}
