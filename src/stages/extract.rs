//! `extract`: computes patch features of one image set with a pretrained backbone.
//!
//! Works by item: the block of an image depends on its pixels, the weights and the fields of the stage, and is reused
//! for equal pixels in any image set. Reads only the `pixels/` of the set, so changed masks do not run it again.

mod check;
mod features;
mod network;
mod pipeline;

use std::path::Path;

use serde::{Deserialize, Serialize};

use self::network::unprepared;
use super::device::read_device;
use super::fields::{Fields, Reader, fields, name_of};
use super::{
    About, Context, Estimates, Implied, InputSizes, Inputs, PortUse, Reads, Shape, Stage, StageError,
    Variables, Workload, download,
};
use crate::artifacts::feature_set::{Extraction, StoragePrecision};
use crate::artifacts::size::{ImageCounts, Size};
use crate::artifacts::{Artifact, image_set};
use crate::kernels::backbone::{Arithmetic, Backend, Device, Layer, Network, RuntimeError, Target};
use crate::kernels::embedding::{Alignment, Embedding, EmbeddingOptions, Neighbourhood};

/// Version of the kind, raised when outputs change for equal inputs. 1: first (2026-11-24). 2: own convolutions
/// instead of `rten` (2026-11-24). 3: features that are not finite, or too large for `f16`, are an error; cached ones
/// may be infinite; convolutions by Winograd (2026-11-29).
pub const VERSION: u32 = 3;

/// Seconds of one core for a multiplication and addition of the network, for an image (decoding, pooling, writing), and for
/// a weight that is read (chosen) or drawn at random (measured: `resnet18`, `resnet50` and `wide_resnet50_2` at 64² to 448²
/// px; the formula is within 0.7 to 1.2 of each).
const MULTIPLY_ADD_SECONDS: f64 = 6e-12;
const IMAGE_SECONDS: f64 = 1.3e-3;
const READ_SECONDS: f64 = 5e-9;
const DRAWN_SECONDS: f64 = 30e-9;

/// Where the weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WeightSource {
    /// The weight file at the port `weights`.
    Port,
    /// The ImageNet weights that torchvision publishes (`IMAGENET1K_V1`), downloaded by name.
    Published,
    /// Random weights with this seed. For tests and the quickstart, not for real results.
    Seeded(u64),
}

/// The fields of an `extract` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extract {
    /// The network.
    pub network: Network,
    /// Where the weights come from.
    pub weights: WeightSource,
    /// Layers whose feature maps are combined, shallowest first.
    pub layers: Vec<Layer>,
    /// How feature maps become patch vectors.
    pub embedding: EmbeddingOptions,
    /// Precision of the stored vectors.
    pub storage: StoragePrecision,
    /// Backend, device and precision of the network.
    pub target: Target,
    /// Number of images in a batch; `None` chooses as many as fit into memory. Does not change results.
    pub batch: Option<usize>,
}

const NEIGHBOURHOODS: [(&str, Neighbourhood); 3] =
    [("mean3", Neighbourhood::Mean3), ("reference", Neighbourhood::Reference), ("none", Neighbourhood::None)];
const ALIGNMENTS: [(&str, Alignment); 2] =
    [("bilinear", Alignment::Bilinear), ("adaptive_average", Alignment::AdaptiveAverage)];
const EMBEDDINGS: [(&str, Embedding); 2] =
    [("concat", Embedding::Concat), ("patchcore-1024", Embedding::PatchCore1024)];
const STORAGES: [(&str, StoragePrecision); 2] =
    [("f16", StoragePrecision::F16), ("f32", StoragePrecision::F32)];
/// `None` stands for `auto`, the fastest backend in this build. The key contains the chosen backend.
const BACKENDS: [(&str, Option<Backend>); 3] =
    [("rust", Some(Backend::Rust)), ("torch", Some(Backend::Torch)), ("auto", None)];
const ARITHMETICS: [(&str, Arithmetic); 2] = [("f32", Arithmetic::F32), ("bf16", Arithmetic::Bf16)];
const LAYERS: [(&str, Layer); 3] =
    [("layer1", Layer::Layer1), ("layer2", Layer::Layer2), ("layer3", Layer::Layer3)];

impl Stage for Extract {
    fn name() -> &'static str {
        "extract"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        reader.ports("images", Artifact::ImageSet);
        let network = reader.choice("backbone", &Network::ALL.map(|network| (network.name(), network)), None);
        let embedding = EmbeddingOptions {
            neighbourhood: reader.choice("neighbourhood", &NEIGHBOURHOODS, Some("mean3")),
            alignment: reader.choice("alignment", &ALIGNMENTS, Some("bilinear")),
            embedding: reader.choice("embedding", &EMBEDDINGS, Some("concat")),
        };
        let layers = read_layers(reader);
        if embedding.embedding == Embedding::PatchCore1024
            && layers.iter().map(|&layer| network.channels(layer)).ne([512, 1024])
        {
            let message = format!(
                "`patchcore-1024` needs layers of 512 and 1024 channels, but these layers of `{network:?}` differ"
            );
            let help = "use a ResNet50 or wider with layer2 and layer3, or embedding = \"concat\"".to_owned();
            reader.problem("embedding", "unfit_embedding", message, Some(help));
        }
        Self {
            network,
            weights: read_weight_source(reader),
            layers,
            embedding,
            storage: reader.choice("storage", &STORAGES, Some("f16")),
            target: read_target(reader),
            batch: reader.optional_integer("batch", 1..=4096).map(|batch| batch as usize),
        }
    }

    fn about(&self) -> About {
        let published = self.weights == WeightSource::Published;
        let implied = || Implied { port: "weights", spec: download::published_weights(self.network) };
        About {
            version: VERSION,
            is_random: false,
            is_item_wise: true,
            is_blocking: false,
            is_target: false,
            is_shown: false,
            is_verified: true,
            estimates: Estimates::WithEqual(&["backend", "device", "precision"]),
            foresees: false,
            pictures: &[],
            threads: 1,
            memory_bytes: 0,
            tolerance: self.tolerance(),
            depends_on_machine: false,
            compute_target: Some(self.target),
            source: None,
            tools: Vec::new(),
            implied: published.then(implied).into_iter().collect(),
        }
    }

    fn port(&self, port: &str) -> PortUse {
        match port {
            "images" => PortUse { reads: Reads::Pixels, shape: Shape::Each },
            _ => PortUse::whole(),
        }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("features".to_owned(), Artifact::FeatureSet)]
    }

    fn key_fields(&self) -> Fields {
        // Left out: `batch`, which does not change results; the source of the weights, which enter as an input; the
        // number of a CUDA device, since only its class counts.
        let Self { network, weights, layers, embedding, storage, target, batch: _ } = self;
        let Target { backend, device, arithmetic } = target;
        let EmbeddingOptions { neighbourhood, alignment, embedding } = embedding;
        let layers: Vec<String> = layers.iter().map(|layer| name_of(&LAYERS, layer).to_owned()).collect();
        let mut all = fields([
            ("backend", backend.name().into()),
            ("device", device.class().into()),
            ("backbone", network.name().into()),
            ("layers", layers.into()),
            ("neighbourhood", name_of(&NEIGHBOURHOODS, neighbourhood).into()),
            ("alignment", name_of(&ALIGNMENTS, alignment).into()),
            ("embedding", name_of(&EMBEDDINGS, embedding).into()),
            ("storage", name_of(&STORAGES, storage).into()),
        ]);
        // The backend `rust` has only one precision, and its keys do not contain it.
        if *backend == Backend::Torch {
            all.insert("precision".to_owned(), arithmetic.name().into());
        }
        if let WeightSource::Seeded(seed) = weights {
            all.insert("weights_seed".to_owned(), (*seed).into());
        }
        all
    }

    /// Estimates two copies of the weights, which exist while batch norms are folded, and a few batches.
    fn estimated_memory(&self, _: u64) -> u64 {
        1_024_000_000
    }

    /// The network up to the deepest layer, and a cost of each image and of preparing the weights.
    fn workload(&self, inputs: &InputSizes) -> Workload {
        let Some(images) = inputs.first_images("images") else { return Workload::unknown() };
        let (Some(first), Some(deepest)) = (self.layers.first(), self.layers.last()) else {
            return Workload::unknown();
        };
        let a_pixel = self.network.multiply_adds(*deepest) * MULTIPLY_ADD_SECONDS;
        let parameter =
            if matches!(self.weights, WeightSource::Seeded(_)) { DRAWN_SECONDS } else { READ_SECONDS };
        let seconds = images.total() * (IMAGE_SECONDS + images.positions * a_pixel)
            + self.network.parameters() as f64 * parameter;
        let positions = images.positions / first.stride().pow(2) as f64;
        let features = ImageCounts { positions, channels: self.dimension() as f64, ..images.clone() };
        Workload::of(seconds, "features", Size::of_images(features))
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        let backend = self.target.backend;
        if backend.is_built() {
            return Ok(());
        }
        Err(unprepared(RuntimeError::NotBuilt(backend), String::new))
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        features::run(self, inputs, output, context)
    }
}

impl Extract {
    /// Greatest relative difference `‖new - old‖ / ‖old‖` between two blocks of equal inputs. `None` for the backend
    /// `rust`, whose results are bit-identical on all machines.
    ///
    /// libtorch sums in an order that depends on the processor and, on a GPU, on the batch. This changes a map by less
    /// than 1e-4 of its norm in f32 and by less than 1e-2 in bf16 (`tests/it/golden_backbone.rs` tests these bounds).
    /// If stored as f16, close values may be rounded to different numbers, one step apart: at most 2⁻¹⁰ of the number.
    fn tolerance(&self) -> Option<f64> {
        let Target { backend, device: _, arithmetic } = self.target;
        let summed = match (backend, arithmetic) {
            (Backend::Rust, _) => return None,
            (Backend::Torch, Arithmetic::F32) => 1e-4,
            (Backend::Torch, Arithmetic::Bf16) => 1e-2,
        };
        let step = if self.storage == StoragePrecision::F16 { 1.0 / 1024.0 } else { 0.0 };
        Some(summed + step)
    }

    fn dimension(&self) -> usize {
        match self.embedding.embedding {
            Embedding::PatchCore1024 => 1024,
            Embedding::Concat => self.layers.iter().map(|&layer| self.network.channels(layer)).sum(),
        }
    }

    fn extraction(&self, preprocessing: image_set::Preprocessing, weights: String) -> Extraction {
        Extraction {
            preprocessing,
            backbone: self.network.name().to_owned(),
            weights,
            layers: self.layers.iter().map(|layer| name_of(&LAYERS, layer).to_owned()).collect(),
            neighbourhood: name_of(&NEIGHBOURHOODS, &self.embedding.neighbourhood).to_owned(),
            alignment: name_of(&ALIGNMENTS, &self.embedding.alignment).to_owned(),
            embedding: name_of(&EMBEDDINGS, &self.embedding.embedding).to_owned(),
            storage: self.storage,
            dimension: self.dimension(),
        }
    }
}

fn read_layers(reader: &mut Reader<'_>) -> Vec<Layer> {
    if !reader.has("layers") {
        reader.texts("layers");
        return vec![Layer::Layer2, Layer::Layer3];
    }
    let names: Vec<&str> = LAYERS.iter().map(|&(name, _)| name).collect();
    let mut layers = Vec::new();
    for name in reader.texts("layers") {
        match LAYERS.iter().find(|&&(known, _)| known == name) {
            Some(&(_, layer)) if layers.contains(&layer) => {
                reader.problem("layers", "repeated", format!("`{name}` is named twice"), None);
            }
            Some(&(_, layer)) => layers.push(layer),
            None => reader.unknown_choice("layers", &name, &names),
        }
    }
    layers.sort_unstable_by_key(|layer| layer.stride());
    if layers.is_empty() {
        layers.push(Layer::Layer2);
        reader.problem("layers", "empty_list", "`layers` is empty".to_owned(), None);
    }
    layers
}

fn read_target(reader: &mut Reader<'_>) -> Target {
    let backend = reader.choice("backend", &BACKENDS, Some("rust")).unwrap_or_else(Backend::fastest);
    let arithmetic = reader.choice("precision", &ARITHMETICS, Some("f32"));
    let device = read_device(reader, backend);
    let target = Target { backend, device, arithmetic };
    if target.is_supported() {
        return target;
    }
    let field = if device == Device::Cpu { "precision" } else { "device" };
    let help = "set backend = \"torch\"; it needs a build with the feature `torch`".to_owned();
    let message = "the backend `rust` supports only the CPU and f32".to_owned();
    reader.problem(field, "unfit_backend", message, Some(help));
    Target::DEFAULT
}

fn read_weight_source(reader: &mut Reader<'_>) -> WeightSource {
    let seed = reader.integer("weights_seed", 0..=i64::MAX, Some(0)) as u64;
    if !reader.has("weights") {
        reader.optional_port("weights", Artifact::Files, true);
        return WeightSource::Published;
    }
    if reader.text("weights").as_deref() == Some("seeded") {
        return WeightSource::Seeded(seed);
    }
    reader.port("weights", Artifact::Files);
    WeightSource::Port
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::fields::{Problem, Value};

    fn read(more: &[(&str, Value)]) -> (Extract, Vec<Problem>) {
        let mut table = fields([("images", "set".into()), ("backbone", "resnet18".into())]);
        table.insert("weights".to_owned(), "seeded".into());
        table.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&table, &mut problems, &mut ports);
        let spec = Extract::read(&mut reader);
        reader.finish();
        (spec, problems)
    }

    fn target_fields(more: &[(&str, Value)]) -> [Option<Value>; 3] {
        let (spec, problems) = read(more);
        assert!(problems.is_empty(), "{problems:?}");
        ["backend", "device", "precision"].map(|name| spec.key_fields().get(name).cloned())
    }

    #[test]
    fn the_default_has_one_key_in_every_build() {
        let default = [Some("rust".into()), Some("cpu".into()), None];
        assert_eq!(target_fields(&[]), default);
        let written = [("backend", "rust".into()), ("device", "auto".into()), ("precision", "f32".into())];
        assert_eq!(target_fields(&written), default);
    }

    #[test]
    fn the_key_holds_backend_precision_and_device_class_but_not_the_device_number() {
        let on = |device: &str| {
            let torch =
                [("backend", "torch".into()), ("device", device.into()), ("precision", "bf16".into())];
            target_fields(&torch)
        };
        assert_eq!(on("cpu"), [Some("torch".into()), Some("cpu".into()), Some("bf16".into())]);
        assert_eq!(on("cuda")[1], Some("cuda".into()));
        assert_eq!(on("cuda"), on("cuda:3"));
    }

    #[test]
    fn unsupported_targets_are_refused() {
        let codes = |more: &[(&str, Value)]| -> Vec<(String, &str)> {
            let problems = read(more).1;
            problems.iter().map(|problem| (problem.path.join("."), problem.code())).collect()
        };
        assert_eq!(codes(&[("device", "cuda".into())]), [("device".to_owned(), "unfit_backend")]);
        assert_eq!(codes(&[("precision", "bf16".into())]), [("precision".to_owned(), "unfit_backend")]);
        let torch = ("backend", "torch".into());
        assert_eq!(codes(&[torch, ("device", "gpu".into())]).len(), 1);
    }
}
