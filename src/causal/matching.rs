//! Which node of one autoencoder is which of another. The channels of a code are exchangeable, so node 5 of one training is not
//! node 5 of the next: nodes are told by what excites them.
//!
//! [`Correlations`] takes the codes of the same images from two autoencoders, block by block, and has Pearson's correlation of
//! every node of one with every node of the other, over all images and places. [`matching`] pairs them so that the correlations
//! of the pairs add up to the most. [`Encoders`] makes the codes.

mod assignment;
mod encoders;

pub use encoders::Encoders;

use super::{CausalError, same_length};
use assignment::assign;
use rayon::prelude::*;

/// Pearson's correlations of the nodes of two codes, in one pass: sums in f64, each image's added by itself and in order, so
/// that they depend neither on blocks nor on threads.
#[derive(Clone, Debug)]
pub struct Correlations {
    /// Nodes of either code.
    nodes: [usize; 2],
    /// Values of every node so far: images x places.
    count: u64,
    /// Of every node of either code: the sum of its values, and of their squares.
    own: [Vec<[f64; 2]>; 2],
    /// Nodes of the first x nodes of the second: sums of products.
    products: Vec<f64>,
}

impl Correlations {
    /// Of codes of `first` and `second` nodes.
    pub fn new(first: usize, second: usize) -> Correlations {
        let own = [first, second].map(|nodes| vec![[0.0; 2]; nodes]);
        Correlations { nodes: [first, second], count: 0, own, products: vec![0.0; first * second] }
    }

    /// Adds the codes of the same images (images x nodes x `area` places), one from each autoencoder.
    ///
    /// # Errors
    /// [`CausalError::Length`] when they are not of one number of whole images.
    pub fn add(&mut self, first: &[f32], second: &[f32], area: usize) -> Result<(), CausalError> {
        let [a, b] = self.nodes.map(|nodes| (nodes * area).max(1));
        let images = first.len() / a;
        same_length("codes of the first autoencoder", images * a, first.len())?;
        same_length("codes of the other autoencoder", images * b, second.len())?;
        for (first, second) in first.chunks_exact(a).zip(second.chunks_exact(b)) {
            for (own, code) in self.own.iter_mut().zip([first, second]) {
                for (sums, map) in own.iter_mut().zip(code.chunks_exact(area.max(1))) {
                    let of = |value: fn(f64) -> f64| map.iter().map(|&z| value(z.into())).sum::<f64>();
                    sums[0] += of(|z| z);
                    sums[1] += of(|z| z * z);
                }
            }
            let rows =
                self.products.par_chunks_exact_mut(self.nodes[1].max(1)).zip(first.par_chunks_exact(area.max(1)));
            rows.for_each(|(row, map)| {
                for (sum, other) in row.iter_mut().zip(second.chunks_exact(area.max(1))) {
                    *sum += map.iter().zip(other).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
                }
            });
            self.count += area as u64;
        }
        Ok(())
    }

    /// Node `i` of the first with node `j` of the second; `None` where one of them never changes (a dead one), is not a number
    /// somewhere, or does not exist.
    pub fn of(&self, i: usize, j: usize) -> Option<f64> {
        let ([a, aa], [b, bb]) = (*self.own[0].get(i)?, *self.own[1].get(j)?);
        let (n, ab) = (self.count as f64, *self.products.get(i * self.nodes[1] + j)?);
        let spread = (n * aa - a * a) * (n * bb - b * b);
        // a constant's spread is 0 but for rounding
        let changes = |sum: f64, squares: f64| n * squares - sum * sum > 1e-12 * n * squares;
        if !(changes(a, aa) && changes(b, bb)) {
            return None;
        }
        // one root of the product, so that a node agrees with itself by 1 exactly
        let r = (n * ab - a * b) / spread.sqrt();
        Some(r.clamp(-1.0, 1.0)).filter(|r| r.is_finite())
    }
}

/// A node of another autoencoder, and how it goes with the first's.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Match {
    /// Its number there.
    pub node: usize,
    /// Pearson's correlation, above 0.
    pub correlation: f64,
}

/// The node of the second code that each node of the first is matched with, one to one. Of all such pairings it is the one whose
/// correlations add up to the most; two that do not rise together (dead ones among them) are no pair, whatever is left over.
pub fn matching(correlations: &Correlations) -> Vec<Option<Match>> {
    let [first, second] = correlations.nodes;
    // what is no pair adds nothing
    let gain = |i, j| correlations.of(i, j).filter(|r| *r > 0.0);
    let side = first.max(second);
    let gains: Vec<Vec<f64>> = (0..side).map(|i| (0..side).map(|j| gain(i, j).unwrap_or(0.0)).collect()).collect();
    let pair = |(i, j): (usize, usize)| gain(i, j).map(|correlation| Match { node: j, correlation });
    assign(&gains).into_iter().take(first).enumerate().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::super::statistics::pearson;
    use super::*;
    use crate::random::Stream;

    /// Codes of `images` images with 3 nodes of 4 places, node 1 dead.
    fn code(seed: u64, images: usize) -> Vec<f32> {
        let s = Stream::new(seed, "code");
        (0..images * 12).map(|i| if i / 4 % 3 == 1 { 0.0 } else { s.uniform(0, i as u32) }).collect()
    }

    fn of(code: &[f32], node: usize) -> Vec<f64> {
        let places = |image: &[f32]| image[node * 4..][..4].iter().map(|&z| z.into()).collect::<Vec<f64>>();
        code.chunks_exact(12).flat_map(places).collect()
    }

    #[test]
    fn correlations_are_those_of_whole_columns_in_blocks_of_any_size() {
        let (a, b) = (code(1, 20), code(2, 20));
        let mut whole = Correlations::new(3, 3);
        whole.add(&a, &b, 4).unwrap();
        let mut blocks = Correlations::new(3, 3);
        for (a, b) in a.chunks(12 * 7).zip(b.chunks(12 * 7)) {
            blocks.add(a, b, 4).unwrap();
        }
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let want = pearson(&of(&a, i), &of(&b, j)).unwrap();
            assert_eq!(whole.of(i, j), blocks.of(i, j));
            match (whole.of(i, j), want) {
                (Some(got), Some(want)) => assert!((got - want).abs() < 1e-13, "{got} for {want}"),
                (got, want) => assert_eq!(got, want, "{i} {j}"),
            }
        }
        let mut same = Correlations::new(3, 3);
        same.add(&a, &a, 4).unwrap();
        assert_eq!([same.of(0, 0), same.of(1, 1), same.of(2, 2), same.of(3, 0)], [Some(1.0), None, Some(1.0), None]);
        assert!(same.add(&a[1..], &a, 4).is_err() && same.add(&a, &a[12..], 4).is_err());
    }

    #[test]
    fn permuted_nodes_find_each_other_and_what_falls_when_the_other_rises_finds_nobody() {
        let a = code(3, 30);
        // node 0 there is node 2 here, node 2 there falls with node 0 here
        let turned: Vec<f32> = a
            .chunks_exact(12)
            .flat_map(|z| [&z[8..], &z[4..8], &z[..4].iter().map(|z| 1.0 - z).collect::<Vec<_>>()[..]].concat())
            .collect();
        let mut correlations = Correlations::new(3, 3);
        correlations.add(&a, &turned, 4).unwrap();
        assert_eq!(matching(&correlations), [None, None, Some(Match { node: 0, correlation: 1.0 })]);
    }
}
