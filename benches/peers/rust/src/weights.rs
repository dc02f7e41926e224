//! Tensors of a safetensors file, read one by one: a mapped file would count in the peak of memory once more.

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, tensor::Metadata};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Numbers in row-major order.
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// An open file.
pub struct TensorFile {
    file: File,
    metadata: Metadata,
    /// Where the first tensor begins.
    data: u64,
}

impl TensorFile {
    /// Reads the header.
    ///
    /// # Errors
    /// A file that cannot be read or is not safetensors.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let shown = || path.display().to_string();
        let mut file = File::open(path).with_context(shown)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).with_context(shown)?;
        let length = u64::from_le_bytes(length);
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).with_context(shown)?;
        let metadata = serde_json::from_slice(&header).with_context(shown)?;
        Ok(TensorFile { file, metadata, data: 8 + length })
    }

    /// A tensor of 32-bit floats.
    ///
    /// # Errors
    /// One that is not there, or of another type.
    pub fn array(&self, name: &str) -> Result<Array> {
        let info = self.metadata.info(name).with_context(|| format!("there is no tensor {name}"))?;
        ensure!(info.dtype == Dtype::F32, "{name} is of {:?}", info.dtype);
        let mut values = vec![0.0f32; info.shape.iter().product()];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.data + info.data_offsets.0 as u64))?;
        file.read_exact(bytemuck::cast_slice_mut(&mut values)).with_context(|| name.to_string())?;
        Ok(Array { shape: info.shape.clone(), values })
    }
}
