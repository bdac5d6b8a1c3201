//! Tests that a kind that consists of one file and one line of registration, `src/stages/toy.rs`, can be planned, run,
//! cached and explained.

use clap::Parser;

use super::session::{self, Project};
use super::{Arguments, Environment, Exit, ManifestArguments};
use crate::plan::{self, Difference, Plan, Reason, State, Status};

const MANIFEST: &str = r#"
[experiment]
name = "toy"
[grid.axes]
label = ["files", "pictures"]
[stages.data]
kind = "download"
path = "data"
[stages.count]
kind = "toy"
input = "data"
label = "${label}"
"#;

struct Here {
    folder: tempfile::TempDir,
    environment: Environment,
}

impl Here {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/a.txt"), "a").unwrap();
        std::fs::write(folder.path().join("patchflow.toml"), "").unwrap();
        std::fs::write(folder.path().join("toy.toml"), MANIFEST).unwrap();
        let environment = Environment { variables: [].into(), folder: folder.path().to_owned() };
        Self { folder, environment }
    }

    fn run(&self) -> Exit {
        let arguments = Arguments::try_parse_from(["patchflow", "run", "toy.toml"]).unwrap();
        super::run(arguments, &self.environment)
    }

    fn survey(&self) -> (Project, Plan, Vec<Status>) {
        #[derive(Parser)]
        struct Typed {
            #[command(flatten)]
            manifest: ManifestArguments,
        }
        let Typed { manifest } = Typed::try_parse_from(["patchflow", "toy.toml"]).unwrap();
        let project = session::open_project(&self.environment).unwrap();
        let (_, plan) = session::load(&manifest, &project.root, &self.environment).unwrap();
        let statuses = session::survey(&manifest, &plan, &project).unwrap();
        (project, plan, statuses)
    }

    fn states(&self) -> Vec<State> {
        self.survey().2.iter().map(Status::state).collect()
    }

    fn count(&self, label: &str) -> String {
        let folder = self.folder.path().join("runs/toy/latest/variants").join(format!("label={label}"));
        std::fs::read_to_string(folder.join("count/count.txt")).unwrap()
    }
}

#[test]
fn a_kind_of_one_file_plans_runs_caches_and_explains() {
    let here = Here::new();
    assert_eq!(here.states(), [State::Hit, State::Miss, State::Miss], "the source is shared");
    assert!(matches!(here.run(), Exit::Done));
    assert_eq!(
        (here.count("files").as_str(), here.count("pictures").as_str()),
        ("files: 1\n", "pictures: 1\n")
    );
    assert_eq!(here.states(), [State::Hit; 3], "a second run would execute nothing");

    std::fs::write(here.folder.path().join("data/b.txt"), "b").unwrap();
    let (project, plan, statuses) = here.survey();
    let explained = plan::explain(&plan, &statuses, &project.cache, "count");
    let [first, ..] = &explained[..] else { panic!("{explained:?}") };
    let Reason::Differs { differences, .. } = &first.reason else { panic!("{first:?}") };
    let [Difference::Files { role, changes: Some(changes) }] = &differences[..] else { panic!("{first:?}") };
    assert_eq!((role.as_str(), changes.len(), changes[0].path()), ("input", 1, "b.txt"));
}
