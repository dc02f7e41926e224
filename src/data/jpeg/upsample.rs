//! From component planes to pixels: libjpeg's "fancy" (triangle) upsampling of chroma and its integer conversion to RGB,
//! to the bit. A row at a time. Called by [`super`].

/// A component's samples: whole blocks, of which `width` x `height` are real.
pub struct Plane {
    /// Samples, `stride` a row.
    pub samples: Vec<u8>,
    /// Samples from one row to the next.
    pub stride: usize,
    /// Real samples a row.
    pub width: usize,
    /// Real rows.
    pub height: usize,
    /// How often each sample is wider than a pixel.
    pub across: usize,
    /// How often it is higher.
    pub down: usize,
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        let start = y.min(self.height.saturating_sub(1)) * self.stride;
        self.samples.get(start..start + self.width).unwrap_or(&[])
    }

    /// Pixel row `y` at full size into `out`; `out` may be shorter than what the samples cover.
    pub fn upsampled(&self, y: usize, out: &mut [u8], sums: &mut Vec<i32>) {
        let own = y / self.down.max(1);
        let near = self.row(own);
        // the other input row of a triangle filter of two rows; the image's edge rows stand for what is beyond
        let far = if y.is_multiple_of(2) { self.row(own.saturating_sub(1)) } else { self.row(own + 1) };
        match (self.across, self.down) {
            (1, 1) => out.iter_mut().zip(near).for_each(|(o, &s)| *o = s),
            (2, 1) if self.width > 2 => {
                sums.clear();
                sums.extend(near.iter().map(|&s| i32::from(s)));
                triangle(sums, 2, [1, 2], out);
            }
            (1, 2) => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                let sums = near.iter().zip(far).map(|(&a, &b)| (3 * i32::from(a) + i32::from(b) + bias) >> 2);
                out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as u8);
            }
            (2, 2) if self.width > 2 => {
                sums.clear();
                sums.extend(near.iter().zip(far).map(|(&a, &b)| 3 * i32::from(a) + i32::from(b)));
                triangle(sums, 4, [8, 7], out);
            }
            // libjpeg repeats samples at other ratios, and where a row has no inner samples
            (across, _) => {
                for (o, &s) in out.chunks_mut(across.max(1)).zip(near) {
                    o.fill(s);
                }
            }
        }
    }
}

/// Twice as many values: each 3/4 of its own sample and 1/4 of the nearer neighbour's, edges alone; the shift takes the
/// weights out, and the two biases, for left and right, keep rounding from drifting.
fn triangle(samples: &[i32], shift: u32, bias: [i32; 2], out: &mut [u8]) {
    let Some(last) = samples.len().checked_sub(1) else { return };
    for (x, (pair, &own)) in out.chunks_mut(2).zip(samples).enumerate() {
        let left = if x == 0 { own } else { samples[x - 1] };
        let right = if x == last { own } else { samples[x + 1] };
        for ((o, side), bias) in pair.iter_mut().zip([left, right]).zip(bias) {
            *o = ((3 * own + side + bias) >> shift) as u8;
        }
    }
}

/// Y, Cb, Cr to R, G, B.
pub fn ycc_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let r = y + ((91_881 * cr + HALF) >> 16);
    let g = y + ((-22_554 * cb + HALF - 46_802 * cr) >> 16);
    let b = y + ((116_130 * cb + HALF) >> 16);
    [r, g, b].map(|v| v.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_stays_grey_and_the_primaries_come_out() {
        for y in 0..=255 {
            assert_eq!(ycc_to_rgb([y, 128, 128]), [y; 3]);
        }
        assert_eq!(ycc_to_rgb([76, 85, 255]), [254, 0, 0]);
        assert_eq!(ycc_to_rgb([150, 44, 21]), [0, 255, 1]);
    }

    #[test]
    fn a_flat_plane_stays_flat_at_every_ratio() {
        for (across, down) in [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (1, 4)] {
            for width in [1, 2, 3, 9] {
                let plane = Plane { samples: vec![99; 16 * 8], stride: 16, width, height: 5, across, down };
                for y in 0..5 * down {
                    let mut out = vec![0; (width * across).saturating_sub(across / 2).max(1)];
                    plane.upsampled(y, &mut out, &mut Vec::new());
                    assert!(out.iter().all(|&v| v == 99), "{across}x{down}, width {width}, row {y}: {out:?}");
                }
            }
        }
    }
}
