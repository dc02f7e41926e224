//! Node interventions: switching channels of a concept layer off, and the decoder's first convolution kept up to date.
//!
//! z (images,H,W,K), keep (masks,K) of 0 and 1; output row r takes image `images[r]` and mask `masks[r]`.
//! `intervene` writes z with the channels of keep = 0 at zero. `intervene_conv` computes the stride-1 convolution of
//! that masked z from the unmasked one's result `pre` (images,OH,OW,O): it subtracts what the switched-off channels had
//! contributed, skipping zeros of z, so a row costs the share of active switched-off cells and not K whole channels.
//! Order of the subtractions, fixed: input rows, in each the switched-off channels ascending, in each the columns. An
//! output that no active switched-off cell reaches keeps `pre`'s bits. Called by the CPU backend's intervention nodes.

use super::isa::{Isa, Level};
use super::scratch::{Line, Shared, lines, parallel};
use super::vector::{Array8, Vector};

/// Which image and which mask each output row takes.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub images: &'a [u32],
    pub masks: &'a [u32],
}

/// out[r] (pixels, K) = z[images[r]] where keep[masks[r]] is not 0, else 0 (a select: NaN is switched off too).
pub fn intervene(isa: Isa, pixels: usize, k: usize, z: &[f32], keep: &[u8], rows: Rows, out: &mut [f32]) {
    debug_assert_eq!((rows.masks.len(), out.len()), (rows.images.len(), rows.images.len() * pixels * k));
    let len = pixels * k;
    let shared = Shared::new(out);
    parallel(rows.images.len(), |r| {
        let z = &z[rows.images[r] as usize * len..][..len];
        let keep = &keep[rows.masks[r] as usize * k..][..k];
        // SAFETY: one task per row.
        let out = unsafe { shared.slice(r * len, len) };
        isa.run(|| {
            for (out, z) in out.chunks_exact_mut(k.max(1)).zip(z.chunks_exact(k.max(1))) {
                for ((out, z), keep) in out.iter_mut().zip(z).zip(keep) {
                    *out = if *keep != 0 { *z } else { 0.0 };
                }
            }
        });
    });
}

/// The decoder's first convolution: K x H x W in, O out, stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderShape {
    pub k: usize,
    pub h: usize,
    pub w: usize,
    pub o: usize,
    pub kh: usize,
    pub kw: usize,
    pub pad: usize,
}

impl DecoderShape {
    /// Output rows.
    pub fn oh(&self) -> usize {
        self.h + 2 * self.pad + 1 - self.kh
    }

    /// Output columns.
    pub fn ow(&self) -> usize {
        self.w + 2 * self.pad + 1 - self.kw
    }
}

/// The decoder's weights as [channel][tap][O padded to lanes], so that a cell's update is whole vectors.
pub struct ChannelWeights {
    isa: Isa,
    lanes: usize,
    data: Vec<Line>,
}

/// Packs w (O,K,KH,KW).
pub fn pack_channels(isa: Isa, s: &DecoderShape, w: &[f32]) -> ChannelWeights {
    let taps = s.kh * s.kw;
    debug_assert_eq!(w.len(), s.o * s.k * taps);
    let lanes = s.o.next_multiple_of(isa.lanes());
    let mut data = lines(s.k * taps * lanes);
    let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut data);
    for (i, out) in floats.chunks_exact_mut(lanes.max(1)).enumerate().take(s.k * taps) {
        for (o, out) in out.iter_mut().enumerate().take(s.o) {
            *out = w[(o * s.k + i / taps) * taps + i % taps];
        }
    }
    ChannelWeights { isa, lanes, data }
}

/// out[r] (OH,OW,O) = act(pre[images[r]] - conv(W, switched-off channels of z[images[r]])); `pre` has bias, no
/// activation.
#[allow(clippy::too_many_arguments)]
pub fn intervene_conv(
    s: &DecoderShape,
    z: &[f32],
    pre: &[f32],
    weights: &ChannelWeights,
    keep: &[u8],
    rows: Rows,
    relu: bool,
    out: &mut [f32],
) {
    let (z_len, y_len) = (s.h * s.w * s.k, s.oh() * s.ow() * s.o);
    debug_assert_eq!((rows.masks.len(), out.len()), (rows.images.len(), rows.images.len() * y_len));
    let shared = Shared::new(out);
    parallel(rows.images.len(), |r| {
        let image = rows.images[r] as usize;
        let (z, pre) = (&z[image * z_len..][..z_len], &pre[image * y_len..][..y_len]);
        let keep = &keep[rows.masks[r] as usize * s.k..][..s.k];
        // SAFETY: one task per row.
        let out = unsafe { shared.slice(r * y_len, y_len) };
        weights.isa.run(|| out.copy_from_slice(pre));
        if keep.contains(&0) {
            let floats: &[f32] = bytemuck::cast_slice(&weights.data);
            let call = Update { s, z, keep, w: floats, lanes: weights.lanes };
            match weights.isa.level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the Isa proves AVX-512.
                Level::Avx512 => unsafe { update_avx512(&call, out) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the Isa proves AVX2 and FMA.
                Level::Avx2 => unsafe { update_avx2(&call, out) },
                _ => update::<Array8>(&call, out),
            }
        }
        if relu {
            weights.isa.run(|| out.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y }));
        }
    });
}

struct Update<'a> {
    s: &'a DecoderShape,
    z: &'a [f32],
    keep: &'a [u8],
    w: &'a [f32],
    lanes: usize,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn update_avx512(u: &Update, out: &mut [f32]) {
    update::<std::arch::x86_64::__m512>(u, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn update_avx2(u: &Update, out: &mut [f32]) {
    update::<std::arch::x86_64::__m256>(u, out);
}

/// Subtracts every active cell of the switched-off channels from the outputs it reaches.
#[inline(always)]
fn update<S: Vector>(u: &Update, out: &mut [f32]) {
    let s = u.s;
    let (oh, ow) = (s.oh(), s.ow());
    for iy in 0..s.h {
        // Output row p = iy + pad - i.
        let i_low = (iy + s.pad + 1).saturating_sub(oh);
        let i_high = s.kh.min(iy + s.pad + 1);
        for (channel, _) in u.keep.iter().enumerate().filter(|(_, keep)| **keep == 0) {
            for ix in 0..s.w {
                let z = u.z[(iy * s.w + ix) * s.k + channel];
                if z == 0.0 {
                    continue;
                }
                let minus = -z;
                let j_low = (ix + s.pad + 1).saturating_sub(ow);
                let j_high = s.kw.min(ix + s.pad + 1);
                for i in i_low..i_high {
                    for j in j_low..j_high {
                        let y = &mut out[((iy + s.pad - i) * ow + ix + s.pad - j) * s.o..][..s.o];
                        let w = &u.w[((channel * s.kh + i) * s.kw + j) * u.lanes..][..u.lanes];
                        for at in (0..s.o).step_by(S::LANES) {
                            // SAFETY: y has s.o floats and w as many rounded up to lanes; the callers have S's
                            // instruction set.
                            unsafe {
                                let sum = S::load_first(y.as_ptr().add(at), s.o - at);
                                let sum = S::splat(&minus).fma(S::load(w.as_ptr().add(at)), sum);
                                sum.store_first(y.as_mut_ptr().add(at), s.o - at);
                            }
                        }
                    }
                }
            }
        }
    }
}
