//! Causal effect maps (CEM): the paper shows "activated weights of CE on each pixel toward classifying a specific class" and
//! gives neither formula nor code. Three readings of it: M1, the default, weighs each code channel with the effect of zeroing it,
//! CEM_c(u, v) = sum_k (p_c - q_c^k) z_k(u, v); M2 zeroes all nodes at one place of the code; M3 covers part of the image
//! ([`super::occlusion`]). Here are M1's sum and M2's places; the answers are a network's.

use super::{ExplainError, Map};

/// sum_k weights_k·channels_k, `channels` K x height x width, in f64. A weight of 0 takes nothing of its channel, whatever is
/// in it but what is no number.
///
/// # Errors
/// [`ExplainError::Map`] when the channels are not as many as the weights, each of that size.
pub fn weighted(channels: &[f32], weights: &[f64], (height, width): (usize, usize)) -> Result<Map, ExplainError> {
    let cells = height.saturating_mul(width);
    if cells == 0 || channels.len() != cells.saturating_mul(weights.len()) {
        return Err(ExplainError::Map { height, width, values: channels.len() });
    }
    let mut sums = vec![0.0f64; cells];
    for (channel, weight) in channels.chunks_exact(cells).zip(weights) {
        sums.iter_mut().zip(channel).for_each(|(sum, &v)| *sum += weight * f64::from(v));
    }
    Map::new(height, width, sums.into_iter().map(|v| v as f32).collect())
}

/// Squares of `side` x `side` cells (cut at the lower and right edges) that a code of height x width falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Cells a side, at least 1.
    pub side: usize,
    /// Rows of the code.
    pub height: usize,
    /// Columns of the code.
    pub width: usize,
}

/// Places of M2 that are usually enough: a map of 14 x 14.
const BLOCKS_USUAL: usize = 196;

impl Blocks {
    /// The smallest squares of which there are at most 196.
    pub fn usual(height: usize, width: usize) -> Blocks {
        let of = |side: usize| Blocks { side, height, width };
        let most = height.max(width).max(1);
        of((1..most).find(|&side| of(side).count() <= BLOCKS_USUAL).unwrap_or(most))
    }

    /// How many there are: tails of the network that a map takes for an image.
    pub fn count(self) -> usize {
        let side = self.side.max(1);
        self.height.div_ceil(side).saturating_mul(self.width.div_ceil(side))
    }

    /// Sets `code` (K x height x width) to 0 in square number `which`, row by row, in every channel.
    pub fn clear(self, code: &mut [f32], which: usize) {
        let side = self.side.max(1);
        let across = self.width.div_ceil(side).max(1);
        let (row, column) = (which / across * side, which % across * side);
        for channel in code.chunks_exact_mut((self.height * self.width).max(1)) {
            for line in channel.chunks_exact_mut(self.width.max(1)).skip(row).take(side) {
                let end = line.len().min(column + side);
                line[column.min(end)..end].fill(0.0);
            }
        }
    }

    /// The map of what was lost in each square: all cells of a square have its number.
    ///
    /// # Errors
    /// [`ExplainError::Map`] unless there is one loss a square.
    pub fn map(self, losses: &[f64]) -> Result<Map, ExplainError> {
        let Blocks { side, height, width } = self;
        if losses.len() != self.count() || side == 0 {
            return Err(ExplainError::Map { height, width, values: losses.len() });
        }
        let across = width.div_ceil(side);
        let at = |i: usize| losses[i / width / side * across + i % width / side] as f32;
        Map::new(height, width, (0..height * width).map(at).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_causal_effect_map_of_no_effects_is_zero_everywhere() {
        let code: Vec<f32> = (0..3 * 20).map(|i| (i as f32).sin()).collect();
        let map = weighted(&code, &[0.0; 3], (4, 5)).unwrap();
        assert!(map.values().iter().all(|v| *v == 0.0));
        assert!(weighted(&code, &[0.0; 2], (4, 5)).is_err());
    }

    #[test]
    fn a_causal_effect_map_is_linear_in_the_effects() {
        let code: Vec<f32> = (0..3 * 20).map(|i| ((i * 31) % 17) as f32 / 8.0).collect();
        let (a, b) = ([0.25, -0.5, 1.0], [1.0, 0.125, -2.0]);
        let both: Vec<f64> = a.iter().zip(&b).map(|(a, b)| 3.0 * a - 2.0 * b).collect();
        let of = |weights: &[f64]| weighted(&code, weights, (4, 5)).unwrap();
        let (of_a, of_b, of_both) = (of(&a), of(&b), of(&both));
        for (i, v) in of_both.values().iter().enumerate() {
            // quarters and eighths: every sum is exact
            assert_eq!(*v, 3.0 * of_a.values()[i] - 2.0 * of_b.values()[i]);
        }
    }

    #[test]
    fn squares_of_a_code_hold_every_cell_once() {
        for (side, height, width) in [(1, 3, 4), (2, 5, 5), (3, 7, 4), (9, 2, 3)] {
            let blocks = Blocks { side, height, width };
            let mut cleared = vec![0; height * width];
            for which in 0..blocks.count() {
                let mut code = vec![1.0f32; 2 * height * width];
                blocks.clear(&mut code, which);
                let (first, second) = code.split_at(height * width);
                assert_eq!(first, second);
                cleared.iter_mut().zip(first).for_each(|(n, v)| *n += usize::from(*v == 0.0));
                // the map puts a loss where its square is
                let losses: Vec<f64> = (0..blocks.count()).map(|b| f64::from(u8::from(b == which))).collect();
                let map = blocks.map(&losses).unwrap();
                assert!(map.values().iter().zip(first).all(|(m, v)| (*m == 1.0) == (*v == 0.0)));
            }
            assert!(cleared.iter().all(|&n| n == 1), "{side}");
            assert!(blocks.map(&[0.5]).is_err() || blocks.count() == 1);
        }
        let usual = [(14, 14), (26, 26), (224, 224), (1, 1)].map(|(h, w)| Blocks::usual(h, w).side);
        assert_eq!(usual, [1, 2, 16, 1]);
    }
}
