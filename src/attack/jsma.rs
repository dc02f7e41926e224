//! The Jacobian-based saliency map attack (Papernot et al., arXiv 1511.07528): towards a target class, two pixels a step.
//!
//! With a_i the target's logit's derivative for pixel i and b_i that of the sum of all other logits, a step takes the pair
//! p < q of pixels that may still change with a_p + a_q > 0 and b_p + b_q < 0 that has the largest -(a_p + a_q)(b_p + b_q),
//! adds theta to both and lets neither change again (theta < 0: both inequalities turned round). It ends when the answer is
//! the target, when no pair is left, or when gamma of the pixels have changed. Logits, not probabilities: with those b = -a.
//! Where there is no pair the attack ends; some libraries then change pixels 0 and 0.
//!
//! Exact at any size: a step takes two input gradients, of the target's logit and of the sum of all logits (b is their
//! difference), not one for every class; and the best pair is found without looking at all pairs ([`best_pair`]), so memory
//! is of the order of the image. Peers build the matrix of pairs: 84 GiB for 3 x 224 x 224.

use serde::{Deserialize, Serialize};

/// How far the attack goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jsma {
    /// What a step adds to its two pixels: above 0, or below.
    pub theta: f32,
    /// Largest share of pixels that change.
    pub gamma: f32,
}

impl Jsma {
    /// Steps that `pixels` pixels allow: floor(pixels gamma / 2).
    pub fn steps(&self, pixels: usize) -> u32 {
        (pixels as f64 * self.share() / 2.0).floor() as u32
    }

    /// Gamma as it is written: 0.7f32 is below seven tenths, and would allow a step less.
    pub fn share(&self) -> f64 {
        self.gamma.to_string().parse().unwrap_or(f64::from(self.gamma))
    }
}

/// An attack on one image, step by step: it is told gradients and changes pixels.
#[derive(Clone, Debug)]
pub struct Progress {
    attack: Jsma,
    target: u32,
    /// Whether a pixel may still change.
    free: Vec<bool>,
    left: u32,
}

impl Progress {
    /// An attack on `pixels` towards class `target`. Pixels that theta cannot move any more are left alone from the start.
    pub fn new(attack: Jsma, target: u32, pixels: &[f32]) -> Progress {
        let free = pixels.iter().map(|&x| if attack.theta > 0.0 { x < 1.0 } else { x > 0.0 }).collect();
        Progress { attack, target, free, left: attack.steps(pixels.len()) }
    }

    /// The class that it goes towards.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Whether it goes on when the answer is `answer`.
    pub fn goes_on(&self, answer: Option<usize>) -> bool {
        self.left > 0 && answer != Some(self.target as usize)
    }

    /// A step: `own` is the gradient of the target's logit, `all` that of the sum of all logits. Changes two of `pixels`;
    /// false where no pair would do any good, which ends the attack.
    pub fn step(&mut self, own: &[f32], all: &[f32], pixels: &mut [f32]) -> bool {
        let sign = if self.attack.theta > 0.0 { 1.0 } else { -1.0 };
        let own_and_others = own.iter().zip(all).map(|(&a, &all)| {
            let a = f64::from(a);
            [sign * a, sign * (f64::from(all) - a)]
        });
        let points = own_and_others.enumerate().filter(|(i, _)| self.free.get(*i) == Some(&true));
        let Some(pair) = best_pair(points.map(|(i, [a, b])| Point { pixel: i, gain: a, loss: -b })) else {
            self.left = 0;
            return false;
        };
        for pixel in pair {
            pixels[pixel] = (pixels[pixel] + self.attack.theta).clamp(0.0, 1.0);
            self.free[pixel] = false;
        }
        self.left -= 1;
        true
    }
}

/// A pixel with what changing it does: what the target gains, what the others lose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The pixel.
    pub pixel: usize,
    /// Rise of the target.
    pub gain: f64,
    /// Fall of the others.
    pub loss: f64,
}

impl Point {
    /// At least as good in both, and better in one.
    fn beats(&self, other: &Point) -> bool {
        self.gain >= other.gain && self.loss >= other.loss && (self.gain > other.gain || self.loss > other.loss)
    }
}

/// The pair with positive sums of gains and of losses whose product is largest; of equals the one of the smallest first and
/// then second pixel. Exact, in O(n log n): a member of the best pair can be beaten in both coordinates only by the other
/// one (put what beats it in its place, and both sums are no smaller, one larger). So both are among the points that
/// nothing beats, and those that nothing beats once these are gone; in images some hundred of 150,000. Points that are
/// not numbers are no candidates.
pub fn best_pair(points: impl Iterator<Item = Point>) -> Option<[usize; 2]> {
    let mut sorted: Vec<Point> = points.filter(|p| p.gain.is_finite() && p.loss.is_finite()).collect();
    // the best gain first; of equal gains the largest loss, of equal points the smallest pixel
    sorted
        .sort_unstable_by(|p, q| q.gain.total_cmp(&p.gain).then(q.loss.total_cmp(&p.loss)).then(p.pixel.cmp(&q.pixel)));
    // of points that are equal in both, two are enough for any pair
    let mut repeats = 0;
    let mut last: Option<Point> = None;
    sorted.retain(|p| {
        let equal = last.is_some_and(|l| l.gain == p.gain && l.loss == p.loss);
        repeats = if equal { repeats + 1 } else { 0 };
        last = Some(*p);
        repeats < 2
    });
    let mut candidates = Vec::new();
    for _ in 0..2 {
        candidates.extend(take_front(&mut sorted));
    }
    let mut best: Option<(f64, [usize; 2])> = None;
    for (i, p) in candidates.iter().enumerate() {
        for q in &candidates[i + 1..] {
            let (gain, loss) = (p.gain + q.gain, p.loss + q.loss);
            if !(gain > 0.0 && loss > 0.0) {
                continue;
            }
            let (product, pair) = (gain * loss, [p.pixel.min(q.pixel), p.pixel.max(q.pixel)]);
            let better = best.is_none_or(|(most, other)| product > most || (product == most && pair < other));
            if better {
                best = Some((product, pair));
            }
        }
    }
    best.map(|(_, pair)| pair)
}

/// Takes out of `sorted` the points that no other beats.
fn take_front(sorted: &mut Vec<Point>) -> Vec<Point> {
    let mut front: Vec<Point> = Vec::new();
    sorted.retain(|p| {
        // what lies in front has no smaller gain, so its last one, whose loss is the largest so far, decides
        let beaten = front.last().is_some_and(|best| best.beats(p));
        if !beaten {
            front.push(*p);
        }
        beaten
    });
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every pair.
    fn by_force(points: &[Point]) -> Option<[usize; 2]> {
        let mut best: Option<(f64, [usize; 2])> = None;
        for (i, p) in points.iter().enumerate() {
            for q in &points[i + 1..] {
                let (gain, loss) = (p.gain + q.gain, p.loss + q.loss);
                let pair = [p.pixel.min(q.pixel), p.pixel.max(q.pixel)];
                let valid = gain > 0.0 && loss > 0.0;
                if valid && best.is_none_or(|(most, other)| gain * loss > most || (gain * loss == most && pair < other))
                {
                    best = Some((gain * loss, pair));
                }
            }
        }
        best.map(|(_, pair)| pair)
    }

    fn points(values: &[(i8, i8)], scale: f64) -> Vec<Point> {
        let point = |(pixel, &(gain, loss)): (usize, &(i8, i8))| Point {
            pixel,
            gain: f64::from(gain) * scale,
            loss: f64::from(loss) * scale,
        };
        values.iter().enumerate().map(point).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        // small whole numbers: ties and equal points abound
        #[test]
        fn the_best_pair_is_that_of_all_pairs(values in prop::collection::vec((-4i8..=4, -4i8..=4), 0..24)) {
            let points = points(&values, 1.0);
            prop_assert_eq!(best_pair(points.iter().copied()), by_force(&points));
        }

        #[test]
        fn also_where_no_two_points_are_alike(values in prop::collection::vec((any::<i8>(), any::<i8>()), 0..60)) {
            let points = points(&values, 0.37);
            prop_assert_eq!(best_pair(points.iter().copied()), by_force(&points));
        }
    }

    #[test]
    fn a_pair_may_be_one_good_point_and_one_that_only_it_beats() {
        let of = |values: &[(i8, i8)]| best_pair(points(values, 1.0).into_iter());
        assert_eq!(of(&[(1, 1), (5, 5), (2, 2)]), Some([1, 2]));
        // one member may be a loss by itself
        assert_eq!(of(&[(5, -1), (-1, 5)]), Some([0, 1]));
        assert_eq!(of(&[(5, -1), (5, -1)]), None);
        assert_eq!(of(&[(0, 0), (0, 0), (0, 0)]), None);
        assert_eq!(of(&[(3, 3), (3, 3), (3, 3)]), Some([0, 1]));
        assert_eq!(of(&[(3, 3)]), None);
        assert_eq!(of(&[]), None);
        let nan = Point { pixel: 9, gain: f64::NAN, loss: 1.0 };
        assert_eq!(best_pair(points(&[(1, 1), (2, 2)], 1.0).into_iter().chain([nan])), Some([0, 1]));
    }

    /// 38: what may change, how often and where to.
    #[test]
    fn every_pixel_changes_once_at_most_in_thetas_direction_and_no_more_than_gamma_of_them() {
        for (theta, gamma) in [(1.0, 0.25), (0.3, 1.0), (-0.4, 0.5), (-1.0, 0.07)] {
            let attack = Jsma { theta, gamma };
            let clean: Vec<f32> = (0..40).map(|i| [0.0, 0.2, 0.6, 1.0][i % 4]).collect();
            let mut x = clean.clone();
            let mut progress = Progress::new(attack, 1, &x);
            let mut steps = 0;
            while progress.goes_on(Some(0)) {
                let own: Vec<f32> = (0..40).map(|i| theta * (1.0 + ((i * 7 + steps) % 11) as f32)).collect();
                if !progress.step(&own, &[0.0; 40], &mut x) {
                    break;
                }
                steps += 1;
            }
            let changed: Vec<f32> = clean.iter().zip(&x).map(|(a, b)| b - a).filter(|d| *d != 0.0).collect();
            assert!(changed.len() <= 2 * attack.steps(40) as usize && changed.len() as f32 <= gamma * 40.0, "{x:?}");
            assert!(changed.iter().all(|d| d.signum() == theta.signum() && d.abs() <= theta.abs() + 1e-6));
            assert!(x.iter().all(|v| (0.0..=1.0).contains(v)) && steps > 0);
        }
        assert_eq!(Jsma { theta: 1.0, gamma: 0.1 }.steps(20), 1);
        assert_eq!(Jsma { theta: 1.0, gamma: 0.1 }.steps(784), 39);
        assert!(!Progress::new(Jsma { theta: 1.0, gamma: 0.1 }, 3, &[0.5; 40]).goes_on(Some(3)));
    }
}
