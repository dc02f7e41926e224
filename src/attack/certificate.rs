//! What an attack came to on one image: whether it reached what it wished for, how far it went, and whether it stayed where
//! it said that it would. And what only many images show: whether more freedom did less.

use super::{Attack, Norm, length};
use crate::tensor::argmax;
use statrs::distribution::{Binomial, DiscreteCDF};

/// What an attack is to reach on an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Any other class than this.
    NotClass(u32),
    /// This class.
    Class(u32),
    /// Any finding turned.
    OtherFindings,
    /// One finding present or absent, and all others as they were.
    Finding {
        /// Which.
        label: u32,
        /// Whether it is to be found.
        present: bool,
    },
}

impl Wish {
    /// Whether `logits` are what is wished for, where `clean` are those of the image before. An answer that is not a number
    /// is nobody's wish.
    pub fn reached(self, clean: &[f32], logits: &[f32]) -> bool {
        if logits.iter().any(|o| o.is_nan()) {
            return false;
        }
        match self {
            Wish::NotClass(class) => argmax(logits).is_some_and(|answer| answer != class as usize),
            Wish::Class(class) => argmax(logits) == Some(class as usize),
            Wish::OtherFindings => turned(clean, logits).next().is_some(),
            Wish::Finding { label, present } => logits.get(label as usize).is_some_and(|&o| (o > 0.0) == present),
        }
    }

    /// Of one finding: whether all others are as they were. `None` for wishes that spare nothing.
    pub fn others_kept(self, clean: &[f32], logits: &[f32]) -> Option<bool> {
        match self {
            Wish::NotClass(_) | Wish::Class(_) | Wish::OtherFindings => None,
            Wish::Finding { label, .. } => Some(turned(clean, logits).all(|j| j == label as usize)),
        }
    }
}

/// Findings on the other side of one half than they were (a logit above 0 is a probability above one half).
fn turned<'a>(clean: &'a [f32], logits: &'a [f32]) -> impl Iterator<Item = usize> + 'a {
    let pairs = clean.iter().zip(logits).enumerate();
    pairs.filter(|(_, (a, b))| (**a > 0.0) != (**b > 0.0)).map(|(j, _)| j)
}

/// How far an image was moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    /// Largest change of a pixel.
    pub linf: f64,
    /// Root of the sum of squared changes.
    pub l2: f64,
    /// Pixels (of all channels) that changed.
    pub l0: usize,
    /// Whether the change is one that the attack may make: within its ball, or on as many pixels and in the direction that
    /// jsma may.
    pub in_ball: bool,
    /// Whether every pixel is within 0 to 1.
    pub in_range: bool,
}

impl Certificate {
    /// Of `clean` and what `attack` made of it. A pixel that is not a number is nowhere.
    ///
    /// An L-infinity ball is checked in the f32 that its edges are computed in, to the bit. In L2 the radius may be exceeded by
    /// what rounding n pixels of at most 1 to f32 adds: sqrt(n) 2^-25.
    pub fn of(attack: &Attack, clean: &[f32], x: &[f32]) -> Certificate {
        let changes = || clean.iter().zip(x).map(|(a, b)| f64::from(*b) - f64::from(*a));
        // f64::max would drop a NaN
        let linf = changes().map(f64::abs).fold(0.0, |m, c| if c.is_nan() || c > m { c } else { m });
        let l2 = length(changes());
        let l0 = changes().filter(|c| *c != 0.0).count();
        let in_ball = match (attack.ball(), attack) {
            (Some((Norm::Linf, eps)), _) => {
                clean.iter().zip(x).all(|(c, x)| *x >= (c - eps).max(0.0) && *x <= (c + eps).min(1.0))
            }
            (Some((Norm::L2, eps)), _) => l2 <= f64::from(eps) + (x.len() as f64).sqrt() * 2f64.powi(-25),
            (None, Attack::Jsma(jsma)) => {
                let direction = f64::from(jsma.theta.signum());
                l0 <= 2 * jsma.steps(x.len()) as usize && changes().all(|c| c * direction >= 0.0)
            }
            // every attack without a ball is named above
            (None, _) => false,
        };
        Certificate { linf, l2, l0, in_ball, in_range: x.iter().all(|x| (0.0..=1.0).contains(x)) }
    }
}

/// An image as 8 bits a channel: what a picture file keeps of it.
pub fn eight_bits(x: &[f32]) -> Vec<u8> {
    x.iter().map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
}

/// What the network sees of a picture file.
pub fn from_eight_bits(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|&b| f32::from(b) / 255.0).collect()
}

/// Level of [`falls`].
const LEVEL: f64 = 0.01;

/// Whether an attack with more freedom (a larger eps, more steps) succeeds on fewer images than one with less, by more than
/// chance: a one-sided sign test at 1 % over the images on which the two differ. Then the weaker numbers are no measure of
/// the network, for a better attack is at hand (Carlini et al., arXiv 1902.06705, section 5).
pub fn falls(less: &[bool], more: &[bool]) -> bool {
    let lost = less.iter().zip(more).filter(|(a, b)| **a && !**b).count() as u64;
    let won = less.iter().zip(more).filter(|(a, b)| !**a && **b).count() as u64;
    let Some(below) = lost.checked_sub(1) else { return false };
    // P(X >= lost)
    Binomial::new(0.5, lost + won).is_ok_and(|coin| coin.sf(below) < LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Steps;
    use crate::attack::jsma::Jsma;

    #[test]
    fn a_wish_is_reached_by_its_answer_and_by_no_nan() {
        let (clean, moved) = ([1.0, -1.0, -2.0], [0.5, -1.0, 3.0]);
        assert!(Wish::NotClass(0).reached(&clean, &moved) && !Wish::NotClass(0).reached(&clean, &clean));
        assert!(Wish::Class(2).reached(&clean, &moved) && !Wish::Class(1).reached(&clean, &moved));
        assert!(Wish::OtherFindings.reached(&clean, &moved) && !Wish::OtherFindings.reached(&clean, &clean));
        let induced = Wish::Finding { label: 2, present: true };
        assert!(induced.reached(&clean, &moved) && !induced.reached(&clean, &clean));
        assert_eq!(induced.others_kept(&clean, &moved), Some(true));
        assert_eq!(induced.others_kept(&clean, &[-0.5, -1.0, 3.0]), Some(false));
        assert_eq!(Wish::Class(2).others_kept(&clean, &moved), None);
        let nan = [f32::NAN, 0.0, 5.0];
        let wishes = [Wish::NotClass(0), Wish::Class(2), Wish::OtherFindings, induced];
        assert!(wishes.iter().all(|wish| !wish.reached(&clean, &nan)));
        assert!(!Wish::Finding { label: 3, present: false }.reached(&clean, &moved));
    }

    #[test]
    fn a_certificate_measures_and_tells_who_left_the_ball() {
        let fgsm = Attack::Fgsm { eps: 0.1, norm: Norm::Linf };
        let clean = [0.5f32, 0.95, 0.0, 0.25];
        let c = Certificate::of(&fgsm, &clean, &[0.5 + 0.1, 1.0, 0.0, 0.25 - 0.1]);
        assert!((c.linf - 0.1).abs() < 1e-7 && c.l0 == 3 && c.in_ball && c.in_range);
        assert!((c.l2 - (0.1f64.powi(2) * 2.0 + 0.05f64.powi(2)).sqrt()).abs() < 1e-7);
        // a bit beyond the edge
        let edge = (0.5f32 + 0.1).next_up();
        assert!(!Certificate::of(&fgsm, &clean, &[edge, 0.95, 0.0, 0.25]).in_ball);
        let out = Certificate::of(&fgsm, &clean, &[0.5, 1.01, 0.0, 0.25]);
        assert!(!out.in_ball && !out.in_range);
        let nan = Certificate::of(&fgsm, &clean, &[f32::NAN, 0.95, 0.0, 0.25]);
        assert!(nan.linf.is_nan() && nan.l2.is_nan() && !nan.in_ball && !nan.in_range);

        let l2 = Attack::Bim(Steps { eps: 0.05, step: 0.05, steps: 1, norm: Norm::L2 });
        assert!(Certificate::of(&l2, &clean, &[0.55, 0.95, 0.0, 0.25]).in_ball);
        assert!(!Certificate::of(&l2, &clean, &[0.55, 0.95, 0.01, 0.25]).in_ball);

        let jsma = Attack::Jsma(Jsma { theta: 1.0, gamma: 0.5 });
        assert!(Certificate::of(&jsma, &clean, &[1.0, 1.0, 0.0, 0.25]).in_ball);
        assert!(!Certificate::of(&jsma, &clean, &[1.0, 1.0, 1.0, 0.25]).in_ball);
        assert!(!Certificate::of(&jsma, &clean, &[0.4, 0.95, 0.0, 0.25]).in_ball);
    }

    #[test]
    fn eight_bits_are_the_nearest_and_whole_ones_return() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(eight_bits(&from_eight_bits(&all)), all);
        assert_eq!(eight_bits(&[0.0, 0.0019, 0.002, 1.0, 1.5, -1.0, f32::NAN]), [0, 0, 1, 255, 255, 0, 0]);
    }

    #[test]
    fn success_falls_only_by_more_than_chance() {
        let of = |lost: usize, won: usize, both: usize| {
            let mut less = vec![true; lost + both];
            let mut more = vec![false; lost];
            less.extend(vec![false; won]);
            more.extend(vec![true; both + won]);
            falls(&less, &more)
        };
        // 2^-7 is below 1 %, 2^-6 is not; 10 of 11: 12/2048, 9 of 11: 67/2048
        assert!(of(7, 0, 50) && !of(6, 0, 50) && of(10, 1, 0) && !of(9, 2, 0));
        assert!(!of(0, 0, 9) && !of(0, 9, 9) && !falls(&[], &[]));
    }
}
