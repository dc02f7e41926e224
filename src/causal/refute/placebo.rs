//! Placebos: random directions in the place of nodes, nodes that nothing reads, answers of other images.

use crate::answer::{Head, widen};
use crate::backend::{BackendError, Parameters};
use crate::causal::CausalError;
use crate::causal::effect::effects;
use crate::causal::intervention::NodeSet;
use crate::causal::same_length;
use crate::causal::sweep::{Logit, Sweep};
use crate::model::autoencoder::READS_CODE;
use crate::random::Stream;
use crate::weights::derived::Elements;
use rayon::prelude::*;
use std::borrow::Cow;
use std::f64::consts::TAU;

/// Numbers of a direction's stream: an index is (draw x 64 + node) x 128 + number, and a code has 64 nodes at most.
const NUMBERS: u32 = 128;
const NODES: u32 = 64;

/// A direction of unit length across `channels`, all equally likely: normal variables (Box and Muller 1958) over their length. Its
/// numbers are Philox(seed, "random-direction", image, (draw x 64 + node) x 128 + i).
fn direction(stream: Stream, image: u64, (draw, node): (usize, usize), channels: usize) -> Vec<f64> {
    let first = (draw as u32).wrapping_mul(NODES).wrapping_add(node as u32).wrapping_mul(NUMBERS);
    let uniform = |i: usize| f64::from(stream.uniform(image, first.wrapping_add(i as u32)));
    let normal = |c: usize| {
        // of a pair of uniforms the sine and the cosine
        let (radius, angle) = ((-2.0 * (1.0 - uniform(c / 2 * 2)).ln()).sqrt(), TAU * uniform(c / 2 * 2 + 1));
        radius * if c.is_multiple_of(2) { angle.cos() } else { angle.sin() }
    };
    let normals: Vec<f64> = (0..channels).map(normal).collect();
    let length = normals.iter().map(|x| x * x).sum::<f64>().sqrt();
    // nothing has no direction: a chance of 2^-24 with one channel
    let unit = |x: f64| if length > 0.0 { x / length } else { 1.0 / (channels as f64).sqrt() };
    normals.into_iter().map(unit).collect()
}

/// Logits of `x` (images x C·H·W pixels in [0, 1], with the numbers `ids`) with a random direction taken away in the place of each of
/// these nodes, `draws` times: images x nodes x draws x classes. At every place as much is taken as the node is there, so that the
/// norm of the whole is the node's; each image, node and draw has a direction of its own. The sweep has the set of all nodes.
///
/// # Errors
/// [`BackendError`], and when no set of the sweep holds all nodes.
pub fn directions<T: Logit>(
    sweep: &mut Sweep,
    (x, ids): (&[f32], &[u64]),
    nodes: &[usize],
    draws: usize,
    seed: u64,
) -> Result<Vec<T>, BackendError> {
    let [channels, height, width] = sweep.code();
    let (area, stream) = ((height * width).max(1), Stream::new(seed, "random-direction"));
    let draws = draws.max(1);
    sweep.outcomes_without(x, nodes.len() * draws, &mut |image, time, code, away| {
        let (Some(&id), Some(&node)) = (ids.get(image), nodes.get(time / draws)) else { return };
        let Some(strength) = code.chunks_exact(area).nth(node) else { return };
        let along = direction(stream, id, (time % draws, node), channels);
        for (away, part) in away.chunks_exact_mut(area).zip(along) {
            away.iter_mut().zip(strength).for_each(|(away, z)| *away = (f64::from(*z) * part) as f32);
        }
    })
}

/// Weights in which the decoder does not read some nodes.
pub struct Severed<'a> {
    /// All weights.
    pub weights: &'a dyn Parameters,
    /// Those nodes.
    pub nodes: NodeSet,
}

impl Parameters for Severed<'_> {
    fn parameter(&self, name: &str) -> Option<Elements<'_>> {
        let (shape, data) = self.weights.parameter(name)?;
        let &[_, nodes, height, width] = shape.dims() else { return Some((shape, data)) };
        if name != READS_CODE {
            return Some((shape, data));
        }
        let mut data = data.into_owned();
        let kernels = data.chunks_exact_mut((height * width).max(1)).enumerate();
        kernels.filter(|(i, _)| self.nodes.contains(i % nodes.max(1))).for_each(|(_, kernel)| kernel.fill(0.0));
        Some((shape, Cow::Owned(data)))
    }

    fn release(&self, name: &str) {
        self.weights.release(name);
    }
}

/// The class-weighted effect of one image (E1, or its Bernoulli form) between two rows of logits.
///
/// # Errors
/// [`CausalError::Length`] when the rows differ in length.
pub fn weighted(head: Head, idle: &[f32], done: &[f32]) -> Result<f64, CausalError> {
    Ok(head.weighted(&head.probabilities(idle), &effects(head, idle, done)?))
}

/// Mean |class-weighted effect| of a node with the weights of other images, under one shuffle after the other: shuffle r gives image i
/// the answers of image Philox-permutation(seed, "shuffled-answers", r)\[i\]. `idle` and `done` are rows of `classes` logits, one an
/// image.
///
/// # Errors
/// [`CausalError::Length`] when they are not of one number of whole rows.
pub fn shuffled(
    head: Head,
    (idle, done): (&[f32], &[f32]),
    classes: usize,
    (shuffles, seed): (usize, u64),
) -> Result<Vec<f64>, CausalError> {
    same_length("logits under the intervention", idle.len(), done.len())?;
    let rows = || idle.chunks_exact(classes.max(1));
    let images = rows().len();
    same_length("logits of whole images", images * classes, idle.len())?;
    let weights: Vec<Vec<f64>> = rows().map(|row| head.of(&widen(row))).collect();
    let changes: Vec<Vec<f64>> =
        rows().zip(done.chunks_exact(classes.max(1))).map(|(a, b)| effects(head, a, b)).collect::<Result<_, _>>()?;
    let stream = Stream::new(seed, "shuffled-answers");
    let size = |shuffle: usize| {
        let others = stream.permutation(shuffle as u64, images as u32);
        let effect = |(own, &other): (&Vec<f64>, &u32)| head.weighted(&weights[other as usize], own).abs();
        changes.iter().zip(&others).map(effect).sum::<f64>() / images as f64
    };
    Ok((0..shuffles).into_par_iter().map(size).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_of_unit_length_and_point_everywhere_alike() {
        let stream = Stream::new(3, "random-direction");
        let (images, channels) = (4000u64, 5);
        let mut moments = [[0.0; 2]; 5];
        for image in 0..images {
            let along = direction(stream, image, (1, 2), channels);
            assert!((along.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
            moments.iter_mut().zip(&along).for_each(|(m, x)| *m = [m[0] + x, m[1] + x * x]);
        }
        // a coordinate has variance 1/5 and its square 2·4/(25·7): four standard errors each
        let n = images as f64;
        for [sum, squares] in moments {
            assert!((sum / n).abs() < 4.0 * (0.2 / n).sqrt(), "{sum}");
            assert!((squares / n - 0.2).abs() < 4.0 * (8.0 / 175.0 / n).sqrt(), "{squares}");
        }
        assert_ne!(direction(stream, 0, (0, 0), channels), direction(stream, 0, (0, 1), channels));
        assert_ne!(direction(stream, 0, (0, 0), channels), direction(stream, 0, (1, 0), channels));
        assert_eq!(direction(stream, 0, (0, 0), 1)[0].abs(), 1.0);
    }

    #[test]
    fn answers_of_other_images_weigh_less_where_each_image_moves_its_own() {
        // image i answers i and loses it
        let (classes, images) = (4, 4);
        let idle: Vec<f32> = (0..classes * images).map(|at| if at / 4 == at % 4 { 5.0 } else { 0.0 }).collect();
        let done: Vec<f32> = idle.iter().map(|o| o / 2.0).collect();
        let own: f64 = weighted(Head::Softmax, &idle[..4], &done[..4]).unwrap().abs();
        let found = shuffled(Head::Softmax, (&idle, &done), classes, (50, 0)).unwrap();
        assert!(found.len() == 50 && found.iter().all(|size| *size <= own + 1e-15));
        assert!(found.iter().filter(|size| **size < 0.8 * own).count() > 25, "{found:?}");
        assert!(shuffled(Head::Softmax, (&idle, &done[1..]), classes, (1, 0)).is_err());
        assert!(shuffled(Head::Softmax, (&idle[..3], &done[..3]), classes, (1, 0)).is_err());
    }
}
