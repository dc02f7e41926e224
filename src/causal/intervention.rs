//! What is done to the network, or to its input by chance: sets of code channels, random-sign noise.
//!
//! Holds [`NodeSet`] (the code channels of a do) and [`add_random_signs`] (the control for attacks). Called by the sweep and the
//! verbs. Signs come from Philox streams keyed by seed, dataset index and draw, so an image's noise does not depend on its
//! batch, its neighbours, the thread count or the pixels.

use std::fmt;

use super::CausalError;
use crate::random::Stream;
use crate::text::closest;

/// A set of nodes: channels of a code with 1 to 64 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeSet {
    bits: u64,
    channels: u32,
}

impl NodeSet {
    /// No channel of a code of `channels`.
    ///
    /// # Errors
    /// [`CausalError::Range`] unless 1 <= channels <= 64.
    pub fn none(channels: usize) -> Result<Self, CausalError> {
        if !(1..=64).contains(&channels) {
            let value = channels as f64;
            return Err(CausalError::Range { what: "the number of code channels", value, range: "1 to 64" });
        }
        Ok(NodeSet { bits: 0, channels: channels as u32 })
    }

    /// Every channel.
    ///
    /// # Errors
    /// As [`NodeSet::none`].
    pub fn all(channels: usize) -> Result<Self, CausalError> {
        let none = Self::none(channels)?;
        Ok(NodeSet { bits: u64::MAX >> (64 - none.channels), ..none })
    }

    /// The given channels; one named twice counts once.
    ///
    /// # Errors
    /// As [`NodeSet::none`], and [`CausalError::Index`] for a channel past the last.
    pub fn of(nodes: &[usize], channels: usize) -> Result<Self, CausalError> {
        let mut set = Self::none(channels)?;
        for &index in nodes {
            if index >= channels {
                return Err(CausalError::Index { what: "node", index, count: channels });
            }
            set.bits |= 1 << index;
        }
        Ok(set)
    }

    /// Reads `all`, or channels and ranges joined by commas: `3,7`, `0-4`, `0-2,9`. Spaces are ignored.
    ///
    /// # Errors
    /// As [`NodeSet::none`]; [`CausalError::Name`] with the nearest valid text for a channel past the last, a range
    /// that runs backwards, an empty item, or anything that is no number.
    pub fn parse(text: &str, channels: usize) -> Result<Self, CausalError> {
        let every = Self::all(channels)?;
        if text.trim().eq_ignore_ascii_case("all") {
            return Ok(every);
        }
        let last = channels - 1;
        if text.trim().is_empty() {
            let what = "set of nodes of this code";
            return Err(CausalError::Name { what, text: String::new(), nearest: "all".to_owned() });
        }
        let wrong = |item: &str, nearest: String| CausalError::Name {
            what: "set of nodes of this code",
            text: item.trim().to_owned(),
            nearest,
        };
        let number = |item: &str| -> Option<usize> {
            let item = item.trim();
            let digits = !item.is_empty() && item.bytes().all(|b| b.is_ascii_digit());
            // More digits than usize holds is still a channel past the last one.
            digits.then(|| item.parse().unwrap_or(usize::MAX))
        };
        let mut set = Self::none(channels)?;
        for item in text.split(',') {
            let (lo, hi) = match item.split_once('-') {
                Some((lo, hi)) => (number(lo), number(hi)),
                None => (number(item), number(item)),
            };
            let (Some(lo), Some(hi)) = (lo, hi) else {
                let examples = ["all".to_owned(), format!("0-{last}"), last.to_string()];
                let names: Vec<&str> = examples.iter().map(String::as_str).collect();
                return Err(wrong(item, closest(item.trim(), &names).to_owned()));
            };
            if hi > last || lo > hi {
                let (a, b) = (lo.min(hi).min(last), lo.max(hi).min(last));
                return Err(wrong(item, if item.contains('-') { format!("{a}-{b}") } else { b.to_string() }));
            }
            (lo..=hi).for_each(|node| set.bits |= 1 << node);
        }
        Ok(set)
    }

    /// Channels of the code, in the set or not.
    pub fn channels(&self) -> usize {
        self.channels as usize
    }

    /// Bit k is set when channel k is in the set.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Number of channels in the set.
    pub fn len(&self) -> usize {
        self.bits.count_ones() as usize
    }

    /// True without channels: do(nothing), the same as idle.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// Whether channel `node` is in the set.
    pub fn contains(&self, node: usize) -> bool {
        node < self.channels() && self.bits >> node & 1 == 1
    }

    /// The channels of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let set = *self;
        (0..set.channels()).filter(move |&k| set.contains(k))
    }
}

/// What [`NodeSet::parse`] reads: `all`, or `3,7`. The empty set, which no text names, prints as `none`.
impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            0 => f.write_str("none"),
            n if n == self.channels() => f.write_str("all"),
            _ => f.write_str(&self.iter().map(|k| k.to_string()).collect::<Vec<_>>().join(",")),
        }
    }
}

/// The control for attacks: x' = clip(x + eps s, 0, 1), s = +1 or -1 by the top bit of Philox(seed, "noise", image, i)
/// (1 means -1), i the pixel's index in (C, H, W) order. A NaN pixel stays NaN.
///
/// # Errors
/// [`CausalError::Range`] unless 0 <= eps < infinity and there are at most 2^32 pixels.
pub fn add_random_signs(seed: u64, image: u64, eps: f32, pixels: &mut [f32]) -> Result<(), CausalError> {
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(CausalError::Range { what: "eps", value: f64::from(eps), range: "0 or more, and finite" });
    }
    if pixels.len() as u64 > 1 << 32 {
        let value = pixels.len() as f64;
        return Err(CausalError::Range { what: "the number of pixels", value, range: "at most 2^32" });
    }
    let stream = Stream::new(seed, "noise");
    for (i, x) in pixels.iter_mut().enumerate() {
        let sign = if stream.word(image, i as u32) >> 31 == 0 { eps } else { -eps };
        *x = (*x + sign).clamp(0.0, 1.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_nodes_is_read_from_numbers_ranges_and_all() {
        let read = |text: &str| NodeSet::parse(text, 16).unwrap().iter().collect::<Vec<_>>();
        assert_eq!(read("3,7"), [3, 7]);
        assert_eq!(read("0-4"), [0, 1, 2, 3, 4]);
        assert_eq!(read(" 9 , 0 - 2,1"), [0, 1, 2, 9]);
        assert_eq!(read("ALL").len(), 16);
        assert_eq!(NodeSet::all(64).unwrap().len(), 64);
        assert_eq!(NodeSet::parse("63", 64).unwrap().bits(), 1 << 63);
        for text in ["3,7", "all", "15"] {
            assert_eq!(NodeSet::parse(text, 16).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_set_of_nodes_is_refused_with_the_nearest_valid_one() {
        let refused = |text: &str| match NodeSet::parse(text, 16) {
            Err(CausalError::Name { nearest, .. }) => {
                NodeSet::parse(&nearest, 16).expect("the nearest must be valid");
                nearest
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(refused("16"), "15");
        assert_eq!(refused("3,99999999999999999999999999"), "15");
        assert_eq!(refused("4-0"), "0-4");
        assert_eq!(refused("3-20"), "3-15");
        assert_eq!(refused("al"), "all");
        assert_eq!(refused(""), "all");
        for text in ["-1", "3,,7", "3,", "+3", "1-2-3", "0x3", "3.0", "x", "\u{0663}"] {
            refused(text);
        }
        assert!(NodeSet::none(0).is_err() && NodeSet::none(65).is_err() && NodeSet::parse("0", 0).is_err());
        let message = NodeSet::of(&[16], 16).unwrap_err().to_string();
        assert_eq!(message, "node 16 does not exist: there are 16, numbered from 0; the nearest is 15");
    }

    #[test]
    fn random_signs_move_every_pixel_by_eps_inside_the_unit_interval() {
        let eps = 0.0625;
        let pixels: Vec<f32> = (0..784).map(|i| 0.1 + 0.8 * (i as f32 / 783.0)).collect();
        let mut noisy = pixels.clone();
        add_random_signs(0, 9, eps, &mut noisy).unwrap();
        let up = pixels.iter().zip(&noisy).filter(|(a, b)| b > a).count();
        assert!(pixels.iter().zip(&noisy).all(|(&a, &b)| b == a + eps || b == a - eps));
        assert!((up as f64 - 392.0).abs() < 4.0 * 14.0, "{up}");
        let mut edge = [0.0f32, 1.0, 0.0, 1.0, f32::NAN];
        add_random_signs(0, 9, 0.3, &mut edge).unwrap();
        assert!(edge[..4].iter().all(|v| (0.0..=1.0).contains(v)) && edge[4].is_nan());
        let mut same = pixels.clone();
        add_random_signs(0, 9, 0.0, &mut same).unwrap();
        assert_eq!(same, pixels);
        assert!([-0.1, f32::NAN, f32::INFINITY].iter().all(|&e| add_random_signs(0, 0, e, &mut [0.5]).is_err()));
    }
}
