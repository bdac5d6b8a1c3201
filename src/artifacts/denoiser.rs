//! A trained denoiser: a safetensors file with the tensors of the architecture, and the training losses as `loss.csv`.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors, serialize};

use super::ArtifactError;
use super::files;
use crate::kernels::diffusion::{Architecture, Parameters};

/// Writes the parameters of a denoiser.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, architecture: &Architecture, parameters: &Parameters) -> Result<(), ArtifactError> {
    let bytes: Vec<u8> = parameters.iter().flat_map(|number| number.to_le_bytes()).collect();
    let (mut views, mut at) = (Vec::new(), 0);
    for (name, shape) in architecture.tensors() {
        let end = at + 4 * shape.iter().product::<usize>();
        let view = TensorView::new(Dtype::F32, shape, &bytes[at..end]);
        views.push((name, view.map_err(|source| damaged(path, source))?));
        at = end;
    }
    files::write(path, &serialize(views, None).map_err(|source| damaged(path, source))?)
}

/// Reads the parameters of a denoiser.
///
/// # Errors
/// If the file cannot be read, or its tensors are not those of the architecture.
pub fn read(path: &Path, architecture: &Architecture) -> Result<Parameters, ArtifactError> {
    let bytes = read_file(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| damaged(path, source))?;
    let mut parameters = Vec::with_capacity(architecture.count());
    for (name, shape) in architecture.tensors() {
        let unfit = || unfit(path, &name, format!("f32 {shape:?}"));
        let tensor = file.tensor(&name).map_err(|_| unfit())?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(unfit());
        }
        let numbers = tensor.data().chunks_exact(4);
        parameters.extend(numbers.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])));
    }
    Ok(parameters)
}

/// Writes the losses as CSV with the columns `step,loss`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_losses(path: &Path, losses: &[f32]) -> Result<(), ArtifactError> {
    let lines = losses.iter().enumerate().map(|(step, loss)| format!("{},{loss}\n", step + 1));
    let text: String = std::iter::once("step,loss\n".to_owned()).chain(lines).collect();
    files::write(path, text.as_bytes())
}

/// Reads a file that [`write_losses`] wrote.
///
/// # Errors
/// If the file cannot be read, or does not have this format.
pub fn read_losses(path: &Path) -> Result<Vec<f32>, ArtifactError> {
    let bytes = read_file(path)?;
    let loss = |line: &str| {
        let number = line.split_once(',').and_then(|(_, loss)| loss.parse().ok());
        number.ok_or_else(|| unfit(path, "loss", "a step and its loss in each line".to_owned()))
    };
    String::from_utf8_lossy(&bytes).lines().skip(1).map(loss).collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, ArtifactError> {
    std::fs::read(path).map_err(|source| ArtifactError::Io { path: path.to_owned(), source })
}

fn damaged(path: &Path, source: SafeTensorError) -> ArtifactError {
    ArtifactError::SafeTensors { path: path.to_owned(), source }
}

fn unfit(path: &Path, tensor: &str, expected: String) -> ArtifactError {
    ArtifactError::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_and_its_losses_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let (network, losses) = (folder.path().join("network"), folder.path().join("losses"));
        let architecture = Architecture { side: 16, channels: 8, levels: vec![1, 2], groups: 4 };
        let parameters = architecture.initial(1);
        write(&network, &architecture, &parameters).unwrap();
        assert!(read(&network, &architecture).unwrap() == parameters);
        let wider = Architecture { channels: 16, ..architecture };
        assert!(matches!(read(&network, &wider), Err(ArtifactError::Tensor { .. })));
        write_losses(&losses, &[0.1, 2.5e-7]).unwrap();
        assert_eq!(read_losses(&losses).unwrap(), [0.1, 2.5e-7]);
        std::fs::write(&losses, "step,loss\n1;2\n").unwrap();
        assert!(read_losses(&losses).is_err() && read(&losses, &wider).is_err());
    }
}
