//! Perturbations of the input, made on the device: the bits of the host's masks and noise, without a pass of the host over the
//! pixels.
//!
//! Dataset indices decide the draws, so an image gets the same mask and noise in any batch. Images are logical (N, C, H, W).

use super::Cuda;
use super::device::device_error;
use super::launch::mask::{self, Masks};
use super::launch::{Floats, FloatsMut, Indices, Queue, layout};
use super::program::allocate;
use crate::backend::BackendError;

/// Images in host memory.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Dataset index of each.
    pub indices: &'a [u64],
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// (images, C, H, W).
    pub pixels: &'a [f32],
}

impl Cuda {
    /// The images with 10 of the 100 cells of a 10 x 10 grid filled: what the paper's pixel mask makes of them.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], [`BackendError::Device`], also for a number of 2^25 or more and pixels that are not as
    /// many as `shape` says.
    pub fn mask_pixels(&self, masks: Masks, images: Images<'_>) -> Result<Vec<f32>, BackendError> {
        self.perturbed(images, |q, indices, x, y| mask::grid_mask(q, masks, indices, images.shape, x, y))
    }

    /// The images with +eps or -eps on every pixel by chance, in \[0, 1\]: the control for attacks.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], [`BackendError::Device`], also for pixels that are not as many as `shape` says.
    pub fn add_random_signs(&self, seed: u64, eps: f32, images: Images<'_>) -> Result<Vec<f32>, BackendError> {
        self.perturbed(images, |q, indices, x, y| mask::random_signs(q, seed, eps, indices, images.shape, x, y))
    }

    fn perturbed(
        &self,
        Images { indices, shape: [c, h, w], pixels }: Images<'_>,
        perturb: impl FnOnce(&Queue, Indices<'_>, Floats<'_>, FloatsMut<'_>) -> Result<(), BackendError>,
    ) -> Result<Vec<f32>, BackendError> {
        let fail = |e| device_error("perturbing images", e);
        let (rows, plane) = (indices.len(), [c, h * w]);
        if rows * c * h * w != pixels.len() || pixels.is_empty() {
            let reason = format!("{} pixels are no {rows} images of {c}x{h}x{w}", pixels.len());
            return Err(BackendError::Device { what: "perturbing images".into(), reason });
        }
        let stream = self.device.context.new_stream().map_err(fail)?;
        let queue = Queue { device: self.device.clone(), stream };
        let words: Vec<u32> = indices.iter().flat_map(|&i| [i as u32, (i >> 32) as u32]).collect();
        let words = queue.stream.clone_htod(&words).map_err(fail)?;
        let mut a = allocate(&queue, "images", pixels.len())?;
        let mut b = allocate(&queue, "images", pixels.len())?;
        queue.stream.memcpy_htod(pixels, &mut a).map_err(fail)?;
        layout::to_channels_last(&queue, rows, plane, queue.floats(&a), queue.floats_mut(&mut b))?;
        perturb(&queue, queue.indices(&words), queue.floats(&b), queue.floats_mut(&mut a))?;
        layout::to_logical(&queue, rows, plane, queue.floats(&a), queue.floats_mut(&mut b))?;
        let result = queue.stream.clone_dtoh(&b).map_err(fail)?;
        queue.stream.synchronize().map_err(fail)?;
        Ok(result)
    }
}
