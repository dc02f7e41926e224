//! Checkpoints on disk: one safetensors file, written whole or not at all, with the position as JSON in its metadata.

use super::{Checkpoint, Position, TrainError};
use crate::tensor::{Shape, Tensor};
use crate::weights::safetensors::{self, Elements, TensorFile};
use std::collections::BTreeMap;
use std::path::Path;

/// Saves a checkpoint of the run `run_id`.
///
/// # Errors
/// [`TrainError::Save`] with the path and the system's reason.
pub fn save(path: &Path, checkpoint: &Checkpoint, run_id: &str) -> Result<(), TrainError> {
    let position = serde_json::to_string(&checkpoint.position).map_err(|e| TrainError::Save(e.to_string()))?;
    let metadata = BTreeMap::from([("run_id".to_string(), run_id.to_string()), ("position".to_string(), position)]);
    let tensors: Vec<(&str, &Shape, Elements<'_>)> =
        checkpoint.tensors.iter().map(|(n, t)| (n.as_str(), t.shape(), Elements::from(t.data()))).collect();
    safetensors::write(path, &tensors, &metadata).map_err(|e| TrainError::Save(e.to_string()))
}

/// Loads the checkpoint of the run `run_id`.
///
/// # Errors
/// [`TrainError::Checkpoint`] when the file is damaged or another run's.
pub fn load(path: &Path, run_id: &str) -> Result<Checkpoint, TrainError> {
    let bad = |reason: String| TrainError::Checkpoint(format!("{}: {reason}", path.display()));
    let file = TensorFile::open(path).map_err(|e| TrainError::Checkpoint(e.to_string()))?;
    if file.metadata().get("run_id").map(String::as_str) != Some(run_id) {
        return Err(bad("it is another run's".into()));
    }
    let position = file.metadata().get("position").ok_or_else(|| bad("it does not say where it stands".into()))?;
    let position: Position = serde_json::from_str(position).map_err(|e| bad(e.to_string()))?;
    let mut tensors = Vec::new();
    for name in file.names() {
        let (Some(shape), Ok(Some(Elements::F32(data)))) = (file.shape(name), file.elements(name)) else {
            return Err(bad(format!("\"{name}\" is not a float tensor")));
        };
        let tensor = Tensor::new(shape.clone(), data.into_owned());
        tensors.push((name.to_string(), tensor.ok_or_else(|| bad(format!("\"{name}\" is cut short")))?));
    }
    Ok(Checkpoint { position, tensors })
}
