//! Runs an extraction as a pipeline of three concurrent steps: one thread decodes and normalises images, the network
//! runs on its own threads, and one thread embeds, writes and caches the features. At most [`AHEAD`] batches wait
//! between two steps, so memory depends on the batch size and not on the size of the data set. Batches stay in order,
//! and results do not depend on how images are batched.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread::ScopedJoinHandle;

use super::Extract;
use super::features::Missing;
use crate::artifacts::{ArtifactError, image_set};
use crate::kernels::backbone::{Backbone, FeatureMap, ImageMap, normalise};
use crate::kernels::embedding::{PatchGrid, embed};
use crate::stages::{Context, StageError};

/// Number of batches that may wait between two steps (chosen: one hides the shorter step, more only need memory).
const AHEAD: usize = 1;

/// Memory of a batch in bytes if the manifest does not set `batch` (chosen: a tenth of a small machine).
const BATCH_BYTES: usize = 256 << 20;
/// Approximate memory per pixel in a network, in bytes (measured: WideResNet50-2, f32).
const BYTES_A_PIXEL: usize = 300;
/// Batch size beyond which no network ran faster (measured up to 32 on 2 cores).
const LARGEST_BATCH: usize = 16;

/// Images of equal size that go through the network together.
struct Batch<'a> {
    images: Vec<&'a Missing<'a>>,
    height: usize,
    width: usize,
}

/// Computes the features of every missing image and passes them to `keep`, in the order of the batches.
pub(super) fn run<'a>(
    spec: &Extract,
    backbone: &Backbone,
    missing: &'a [Missing<'a>],
    context: &Context<'_>,
    mut keep: impl FnMut(&Missing<'a>, PatchGrid) -> Result<(), StageError> + Send,
) -> Result<(), StageError> {
    let batches = batches(missing, spec.batch)?;
    std::thread::scope(|scope| {
        let (decoded, to_run) = sync_channel::<(Batch<'a>, Vec<f32>)>(AHEAD);
        let (ran, to_write) = sync_channel::<(Batch<'a>, Vec<FeatureMap>)>(AHEAD);
        let reader = scope.spawn(move || {
            for batch in batches {
                context.check()?;
                let pixels = decode(&batch)?;
                // Sending fails if a later step has failed. Its error is reported.
                if decoded.send((batch, pixels)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let writer = scope.spawn(move || {
            for (batch, maps) in to_write {
                for (index, image) in batch.images.iter().enumerate() {
                    keep(image, pool(spec, image, &maps, index)?)?;
                }
            }
            Ok(())
        });
        let mut forward = Ok(());
        for (batch, pixels) in to_run {
            let sent = forward_batch(backbone, &batch, &pixels, context).map(|maps| ran.send((batch, maps)));
            match sent {
                Ok(Ok(())) => {}
                // The writer has failed. Its error is reported.
                Ok(Err(_)) => break,
                Err(error) => {
                    forward = Err(error);
                    break;
                }
            }
        }
        drop(ran);
        // In the order of the steps, so that the first cause is reported.
        let (reader, writer) = (joined(reader), joined(writer));
        reader.and(forward).and(writer)
    })
}

fn joined(step: ScopedJoinHandle<'_, Result<(), StageError>>) -> Result<(), StageError> {
    step.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Groups the images into batches of equal image size. Keeps the order of images of the same size.
fn batches<'a>(missing: &'a [Missing<'a>], size: Option<usize>) -> Result<Vec<Batch<'a>>, StageError> {
    let mut by_size: BTreeMap<(u32, u32), Vec<&Missing<'_>>> = BTreeMap::new();
    for image in missing {
        let path = &image.1.path;
        let (width, height) = image::ImageReader::open(path)
            .and_then(image::ImageReader::with_guessed_format)
            .map_err(|source| StageError::io("read", path, source))?
            .into_dimensions()
            .map_err(|source| ArtifactError::Image { path: path.clone(), source })?;
        by_size.entry((height, width)).or_default().push(image);
    }
    let mut batches = Vec::new();
    for ((height, width), images) in by_size {
        let (height, width) = (height as usize, width as usize);
        let fitting = BATCH_BYTES / (height * width * BYTES_A_PIXEL).max(1);
        for images in images.chunks(size.unwrap_or(fitting.clamp(1, LARGEST_BATCH))) {
            batches.push(Batch { images: images.to_vec(), height, width });
        }
    }
    Ok(batches)
}

/// Decodes and normalises a batch. Returns `[n, 3, h, w]`.
fn decode(batch: &Batch<'_>) -> Result<Vec<f32>, StageError> {
    let &Batch { ref images, height, width } = batch;
    let mut pixels = vec![0.0; images.len() * 3 * height * width];
    for ((_, file, _), out) in images.iter().zip(pixels.chunks_exact_mut((3 * height * width).max(1))) {
        normalise(image_set::read_rgb(file)?.as_raw(), height, width, out);
    }
    Ok(pixels)
}

fn forward_batch(
    backbone: &Backbone,
    batch: &Batch<'_>,
    pixels: &[f32],
    context: &Context<'_>,
) -> Result<Vec<FeatureMap>, StageError> {
    context.check()?;
    backbone
        .forward(pixels, batch.images.len(), batch.height, batch.width)
        .map_err(|error| StageError::kernel(format!("the backbone failed on `{}`", batch.images[0].0), error))
}

/// Embeds the feature maps of one image into its patches.
fn pool(
    spec: &Extract,
    image: &Missing<'_>,
    maps: &[FeatureMap],
    index: usize,
) -> Result<PatchGrid, StageError> {
    let of_image: Vec<ImageMap<'_>> = maps.iter().map(|map| map.image(index)).collect();
    embed(&of_image, spec.embedding)
        .map_err(|error| StageError::kernel(format!("cannot embed `{}`", image.0), error))
}
