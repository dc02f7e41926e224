//! Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), keyed by seed, purpose, image and draw.
//!
//! A number depends on nothing but its coordinates, so masks, starts and shuffles are the same whatever the batch
//! size, thread count, order, device or shard. Key = seed (low, high word); counter = (index, image low word, image
//! high word, FNV-1a-32 of the stream's name). One draw takes word 0 of its block: bulk speed is not needed here,
//! a one-to-one map from coordinates to numbers is.

/// Philox4x32 with ten rounds: four words from a counter and a key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9);
            key[1] = key[1].wrapping_add(0xBB67_AE85);
        }
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// FNV-1a, 32 bits: the hash of a stream's name.
pub fn fnv1a_32(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// FNV-1a, 64 bits: the number of an image that is a file, from its relative path.
pub fn fnv1a_64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The random numbers of one purpose ("pwm", "bootstrap", "init/ae.enc1.weight", …) under one seed.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    name: u32,
}

impl Stream {
    /// The stream `name` of `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        Stream { key: [seed as u32, (seed >> 32) as u32], name: fnv1a_32(name) }
    }

    /// The 32-bit word of `image` (a dataset index or path hash) and draw `index`.
    pub fn word(&self, image: u64, index: u32) -> u32 {
        philox4x32([index, image as u32, (image >> 32) as u32, self.name], self.key)[0]
    }

    /// Uniform in [0, 1), on the grid of 2^-24, so exact in f32.
    pub fn uniform(&self, image: u64, index: u32) -> f32 {
        (self.word(image, index) >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in 0..bound by Lemire's multiply-and-shift; its bias is below bound / 2^32. `bound` must not be 0.
    pub fn below(&self, image: u64, index: u32, bound: u32) -> u32 {
        ((u64::from(self.word(image, index)) * u64::from(bound)) >> 32) as u32
    }

    /// A permutation of 0..n (Fisher-Yates from the end; draw i serves position i), the `epoch`-th of this stream.
    pub fn permutation(&self, epoch: u64, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i as usize, self.below(epoch, i, i + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers from Random123's kat_vectors (philox 4x32, 10 rounds).
    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let (counter, key) = ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
        assert_eq!(philox4x32(counter, key), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn fnv_gives_its_published_values() {
        assert_eq!(fnv1a_32("foobar"), 0xbf9cf968);
        assert_eq!(fnv1a_64("foobar"), 0x85944171f73967e8);
    }

    #[test]
    fn a_permutation_holds_every_number_once_and_changes_with_the_epoch() {
        let s = Stream::new(7, "order");
        let mut p = s.permutation(0, 1000);
        assert_ne!(p, s.permutation(1, 1000));
        assert_eq!(p, s.permutation(0, 1000));
        p.sort_unstable();
        assert!(p.iter().enumerate().all(|(i, &v)| i == v as usize));
    }

    #[test]
    fn uniforms_fill_the_unit_interval_evenly() {
        let s = Stream::new(0, "u");
        let n = 20_000;
        let mean = (0..n).map(|i| f64::from(s.uniform(3, i))).sum::<f64>() / f64::from(n);
        // standard error 1/sqrt(12 n) = .002; four of them
        assert!((mean - 0.5).abs() < 0.0082, "{mean}");
        assert!((0..n).all(|i| (0.0..1.0).contains(&s.uniform(3, i))));
    }
}
