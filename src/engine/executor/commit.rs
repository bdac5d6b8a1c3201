//! Publishes what an execution made: objects, then trees, then the list of per-image records, then the record that names
//! them.

use std::collections::BTreeMap;

use super::Execution;
use super::inputs::LoadedInput;
use crate::cache::{CacheError, Digest, Publication, Published, Scratch, Tree};
use crate::engine::hardware;
use crate::engine::items::TaskItems;
use crate::engine::usage::ResourceUsage;
use crate::kernels::backbone::{Backend, Device, Target, libtorch_version, simd_level};
use crate::plan::{BackboneProvenance, KeptLog, Notice, Output, Outputs, Provenance, Record, host};

/// What an execution cost, and its log.
pub(super) struct Effort {
    pub(super) seconds: f64,
    pub(super) usage: ResourceUsage,
    /// The share of single items (images) that were computed and not reused from per-image records.
    pub(super) fresh_share: f64,
    pub(super) log: Option<KeptLog>,
    pub(super) notices: Vec<Notice>,
}

impl Execution<'_> {
    /// Publishes the outputs and the record. Returns the outputs, and whether an earlier record had others.
    /// Collection is paused meanwhile: objects that the outputs share with earlier ones must still be there when the
    /// record names them.
    pub(super) fn commit(
        &self,
        scratch: &Scratch,
        items: &TaskItems<'_>,
        inputs: &[LoadedInput],
        effort: Effort,
    ) -> Result<(Outputs, bool), CacheError> {
        let publication = self.context.cache.publication()?;
        let outputs = self.publish(&publication, scratch, items, inputs)?;
        // If someone is deleting the cache, an output may have lost files before it was listed.
        let present = std::fs::metadata(scratch.path());
        present.map_err(|source| CacheError::Read { path: scratch.path().to_owned(), source })?;
        let provenance = self.provenance(inputs, &outputs, effort);
        self.record(&publication, outputs, provenance)
    }

    /// Publishes objects, then trees, then the list of per-image records.
    fn publish(
        &self,
        publication: &Publication<'_>,
        scratch: &Scratch,
        items: &TaskItems<'_>,
        inputs: &[LoadedInput],
    ) -> Result<BTreeMap<String, Tree>, CacheError> {
        let mut of_items = items.take_outputs();
        let mut outputs = BTreeMap::new();
        for (name, _) in self.unit.spec.outputs() {
            let folder = scratch.path().join(&name);
            let written =
                if folder.is_dir() { publication.publish_folder(&folder)? } else { Tree::default() };
            let mut entries = written.entries().to_vec();
            entries.extend(of_items.remove(&name).unwrap_or_default());
            let tree = Tree::new(entries)?;
            publication.publish_tree(&tree)?;
            outputs.insert(name, tree);
        }
        if let Some(list) = items.list(&outputs) {
            publication.publish_item_list(&self.unit.key, &list)?;
        }
        // Trees of the inputs stay beside the record, so that `explain` can name files.
        for input in inputs {
            publication.publish_tree(&input.tree)?;
        }
        Ok(outputs)
    }

    fn provenance(
        &self,
        inputs: &[LoadedInput],
        outputs: &BTreeMap<String, Tree>,
        effort: Effort,
    ) -> Provenance {
        let Effort { seconds, usage, fresh_share, log, notices } = effort;
        Provenance {
            stage: self.unit.stage.clone(),
            experiment: self.unit.experiment.clone(),
            seconds,
            cpu_seconds: usage.cpu_seconds,
            peak_bytes: usage.peak_bytes,
            input_bytes: inputs.iter().map(|input| input.tree.total_size()).sum(),
            output_bytes: outputs.values().map(Tree::total_size).sum(),
            fresh_share,
            work: self.unit.work,
            finished: jiff::Timestamp::now().to_string(),
            host: host(),
            simd: simd_level().to_owned(),
            patchflow: env!("CARGO_PKG_VERSION").to_owned(),
            backbone: self.unit.spec.about().compute_target.map(backbone_provenance),
            log,
            notices,
        }
    }

    /// Writes the record, or adopts the one that another process wrote first. Returns the outputs that the record
    /// names, and whether an earlier record had others.
    fn record(
        &self,
        publication: &Publication<'_>,
        trees: BTreeMap<String, Tree>,
        provenance: Provenance,
    ) -> Result<(Outputs, bool), CacheError> {
        let digests: BTreeMap<String, Digest> =
            trees.iter().map(|(name, tree)| (name.clone(), tree.digest())).collect();
        let mut record = Record::new(self.unit.preimage.clone(), digests, provenance);
        let (cache, key) = (self.context.cache, &self.unit.key);
        let ours = || {
            let output = |(name, tree): (String, Tree)| (name, Output { tree: tree.into(), source: None });
            trees.into_iter().map(output).collect()
        };
        if self.unit.is_replacing {
            let old = cache.records().get(key)?;
            let old = old.and_then(|bytes| Record::of_task(&bytes, key, &self.unit.spec));
            let differs = old.as_ref().is_some_and(|old| old.outputs != record.outputs);
            if let Some(old) = old {
                record.others = old.others;
                if differs {
                    record.others.push(old.outputs);
                } else if old.provenance.seconds > record.provenance.seconds {
                    // Single items were recalled: the earlier record says what all of them take.
                    record.provenance.seconds = old.provenance.seconds;
                    record.provenance.fresh_share = old.provenance.fresh_share;
                }
            }
            publication.replace_record(key, &record.to_bytes())?;
            return Ok((ours(), differs));
        }
        if let Published::Theirs(bytes) = publication.publish_record(key, &record.to_bytes())? {
            if let Some(theirs) = self.adopt(&bytes)? {
                let digests = theirs.iter().map(|(name, output)| (name.clone(), output.tree.digest()));
                let differs = digests.collect::<BTreeMap<_, _>>() != record.outputs;
                return Ok((theirs, differs));
            }
            publication.replace_record(key, &record.to_bytes())?;
        }
        Ok((ours(), false))
    }

    fn adopt(&self, bytes: &[u8]) -> Result<Option<Outputs>, CacheError> {
        let Some(record) = Record::of_task(bytes, &self.unit.key, &self.unit.spec) else { return Ok(None) };
        let mut outputs = Outputs::new();
        for (name, digest) in record.outputs {
            let Some(tree) = self.context.cache.tree(&digest)? else { return Ok(None) };
            outputs.insert(name, Output { tree, source: None });
        }
        Ok(Some(outputs))
    }
}

pub(in crate::engine) fn backbone_provenance(target: Target) -> BackboneProvenance {
    let Target { backend, device, arithmetic } = target;
    let device_name = match device {
        Device::Cpu => hardware::processor(),
        // CUDA may number the cards in another order than the driver: only cards that are alike are named.
        Device::Cuda(_) => {
            let mut names = hardware::graphics_cards();
            names.dedup();
            if names.len() == 1 { names.remove(0) } else { String::new() }
        }
    };
    BackboneProvenance {
        backend: backend.name().to_owned(),
        device: device.to_string(),
        device_name,
        precision: arithmetic.name().to_owned(),
        libtorch: libtorch_version().filter(|_| backend == Backend::Torch).map(str::to_owned),
    }
}
