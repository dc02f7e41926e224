//! The unit in which an autoencoder sees its tap. Networks that take pixels in 0 to 255, as Caffe's and Keras's VGGs do,
//! have values in the hundreds at their taps: fresh weights and a learning rate of 1e-3 do not get there, and the shallow
//! loss outweighs the others a thousand times. So such a tap is divided by its unit in front of the encoder and multiplied
//! behind the decoder while the autoencoder is trained; the factors are then folded into its weights. A unit is a power of
//! two, so folding is exact, and it is 1 for values of the usual size. Called by the command line.

use super::{TrainError, rows_within, write_images};
use crate::backend::{Backend, Completed, Parameters};
use crate::data::Dataset;
use crate::graph::Graph;
use crate::graph::op::Op;
use crate::graph::plan::{Entry, EntryId, plan};
use crate::model::{Model, Tap};
use crate::tensor::{Tensor, TensorMut};

/// Images whose values decide.
const IMAGES: usize = 32;
/// Root mean squares from its inverse to this train well as they are.
const USUAL: f64 = 8.0;

/// The unit of `tap`, from its values on the first images of `data`: see [`unit_of`].
///
/// # Errors
/// [`TrainError`].
pub fn unit(
    model: &Model,
    tap: &Tap,
    host: &dyn Parameters,
    backend: &dyn Backend,
    data: &Dataset,
) -> Result<f64, TrainError> {
    let mut g = Graph::new();
    let x = g.input("x", model.input);
    let normalised = model.normalise(&mut g, x)?;
    let front = model.front(&mut g, normalised, 0, tap.number)?;
    let square = g.push("tap.mean-square", Op::MeanSquare, &[front])?;
    let (given, want) = ([x], [square]);
    let entry = |capacity| Entry { name: "tap", given: &given, want: &want, updates: &[], capacity };
    let rows = rows_within(IMAGES, |capacity| plan(&g, &[entry(capacity)]))?;
    let artifact = plan(&g, &[entry(rows)])?;
    let mut program = backend.load(artifact, &Completed { weights: host, derived: &model.constants() })?;
    let which: Vec<u32> = (0..data.len().min(IMAGES) as u32).collect();
    let mut sum = 0.0;
    for block in which.chunks(rows) {
        write_images(&mut *program, x, data, block)?;
        program.run(EntryId(0), block.len())?;
        let mut squares = vec![0.0f64; block.len()];
        program.read(square, TensorMut::F64(&mut squares))?;
        sum += squares.iter().sum::<f64>();
    }
    Ok(unit_of((sum / which.len().max(1) as f64).sqrt()))
}

/// The power of two nearest to a root mean square; 1 for those from 1/8 to 8, for 0 and for what is no number.
pub fn unit_of(rms: f64) -> f64 {
    if !(rms.is_finite() && rms > 0.0) || (1.0 / USUAL..=USUAL).contains(&rms) {
        return 1.0;
    }
    // f32 holds these and what they scale
    rms.log2().round().clamp(-60.0, 60.0).exp2()
}

/// Makes the trained weights those of an autoencoder that sees its tap as it is.
pub fn fold(weights: &mut [(String, Tensor)], unit: f64) {
    for (name, tensor) in weights {
        let factor = match name.as_str() {
            "ae.enc1.weight" => 1.0 / unit,
            "ae.dec2.weight" | "ae.dec2.bias" => unit,
            _ => continue,
        };
        tensor.data_mut().iter_mut().for_each(|w| *w *= factor as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_a_power_of_two_and_one_for_usual_values() {
        for rms in [0.125, 0.3, 1.0, 7.9, 8.0, 0.0, f64::NAN, f64::INFINITY] {
            assert_eq!(unit_of(rms), 1.0, "{rms}");
        }
        assert_eq!(unit_of(600.0), 512.0);
        assert_eq!(unit_of(900.0), 1024.0);
        assert_eq!(unit_of(0.1), 0.125);
        assert_eq!(unit_of(1e300), 2f64.powi(60));
    }
}
