//! A kind of stage for tests: the example of `docs/adding-a-stage.md`. Only test builds contain it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, fields};
use super::{About, Context, Estimates, InputSizes, Inputs, PortUse, Stage, StageError, Variables, Workload};
use crate::artifacts::Artifact;
use crate::artifacts::files::write;

/// Raised when the outputs change for equal inputs. 1: first (2026-11-28).
const VERSION: u32 = 1;

/// Counts the files of its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::stages) struct Toy {
    /// Text before the count.
    pub label: String,
}

impl Stage for Toy {
    fn name() -> &'static str {
        "toy"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        reader.port("input", Artifact::Files);
        Self { label: reader.text("label").unwrap_or_else(|| "files".to_owned()) }
    }

    fn about(&self) -> About {
        About {
            version: VERSION,
            is_random: false,
            is_item_wise: false,
            is_blocking: false,
            is_target: false,
            is_shown: true,
            is_verified: true,
            estimates: Estimates::OfKind,
            foresees: false,
            pictures: &[],
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            depends_on_machine: false,
            compute_target: None,
            source: None,
            tools: Vec::new(),
            implied: Vec::new(),
        }
    }

    fn port(&self, _: &str) -> PortUse {
        PortUse::whole()
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("count".to_owned(), Artifact::Files)]
    }

    fn key_fields(&self) -> Fields {
        let Self { label } = self;
        fields([("label", label.as_str().into())])
    }

    fn estimated_memory(&self, _: u64) -> u64 {
        1_000_000
    }

    fn workload(&self, inputs: &InputSizes) -> Workload {
        let bytes = inputs.bytes();
        Workload { seconds: bytes.map(|bytes| 1e-3 + bytes * 1e-9), ..Workload::default() }
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, _: &Context<'_>) -> Result<(), StageError> {
        let count = inputs.require("input")?.iter().count();
        let text = format!("{}: {count}\n", self.label);
        Ok(write(&output.join("count").join("count.txt"), text.as_bytes())?)
    }
}
