//! Winograd convolution as far as shapes decide it: by which tiles, and on CUDA devices whether a layer is served, in which
//! chunks, at what cost.
//!
//! Everything here follows from a layer's shape alone, never from rows or from the device, so that an image has the
//! same bits in any batch, and two chips compute by the same algorithm.

use super::layout::ConvShape;
use super::problems::Cost;

/// How 3x3 convolutions of stride 1 run; on `cpu` their input gradients, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConvPath {
    /// As a sum over taps and channels, everywhere.
    #[default]
    Exact,
    /// By Winograd's F(4x4) or F(2x2) where that is the faster, in fp32: by [`Winograd::of`] on `cuda`, whose gradients stay
    /// exact, and by `cpu::path` on `cpu`, where an output whose window is zero stays the bias, and a gradient 0.
    Winograd,
}

impl ConvPath {
    /// As on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            ConvPath::Exact => "exact",
            ConvPath::Winograd => "winograd",
        }
    }
}

/// F(M x M, 3 x 3): M x M outputs of a tile of T x T inputs, T = M + 2, by T x T multiplications for each pair of
/// channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    /// F(2x2): 16 multiplications where the plain sum has 36. Errs as the plain sum does.
    F2,
    /// F(4x4): 36 where the plain sum has 144. Errs up to four times as much.
    F4,
}

/// Operations in the time of a byte: an A100's 19.5 TFLOP/s over its 1555 GB/s. On chips with more operations a byte
/// the same layers gain less from fewer operations; but V and M of a chunk (see [`Winograd::chunk`]) fit into the L2
/// cache of all of them, and there a byte takes less than in memory. Which of the two weighs more, only a GPU can tell.
pub const OPERATIONS_A_BYTE: f64 = 12.5;

/// What the estimate must win by: a tie is not worth an error.
const MARGIN: f64 = 1.1;

/// Images that share one reading of the weights, in the estimate.
const IMAGES: usize = 32;

/// Floats of V and M of a chunk: 32 MB, which stay in the L2 of a large chip (A100 40 MB, H100 50 MB, RTX 4090 72 MB).
const CHUNK_FLOATS: usize = 8 << 20;

/// Rows of a tile of the product: a chunk is whole ones.
const CHUNK_ROWS: usize = 128;

impl Winograd {
    /// Both.
    pub const ALL: [Winograd; 2] = [Winograd::F2, Winograd::F4];

    /// Outputs of a tile, down or across: M.
    pub fn outputs(self) -> usize {
        match self {
            Winograd::F2 => 2,
            Winograd::F4 => 4,
        }
    }

    /// Products of matrices: T · T.
    pub fn products(self) -> usize {
        (self.outputs() + 2).pow(2)
    }

    /// Tiles of an image, down and across. Those at the lower and right border may reach beyond it.
    pub fn tiles(self, s: &ConvShape) -> [usize; 2] {
        [s.oh().div_ceil(self.outputs()), s.ow().div_ceil(self.outputs())]
    }

    /// Tiles of an image.
    pub fn image(self, s: &ConvShape) -> usize {
        let [down, across] = self.tiles(s);
        down * across
    }

    /// Multiplications of an image for each pair of channels, what lies beyond the border among them.
    fn multiplications(self, s: &ConvShape) -> usize {
        self.products() * self.image(s)
    }

    /// Whether the kernels take a layer of that shape at all.
    pub fn fits(s: &ConvShape) -> bool {
        (s.kh, s.kw, s.stride) == (3, 3, 1) && s.c > 0 && s.c.is_multiple_of(4) && s.oh() * s.ow() * s.o > 0
    }

    /// The tiles that multiply less; F(2x2), which errs less, of equals.
    pub fn fewest(s: &ConvShape) -> Winograd {
        let [two, four] = Winograd::ALL;
        if four.multiplications(s) < two.multiplications(s) { four } else { two }
    }

    /// What serves a layer where Winograd is chosen; none where the plain sum is estimated to be as fast. F(2x2), which
    /// errs less, where F(4x4) would not multiply less: on outputs of up to 2x2, and of 5x5 and 6x6.
    ///
    /// The estimate: each launch takes the longer of its operations and of its bytes, at [`OPERATIONS_A_BYTE`], and
    /// launches follow each other. It is compared with the plain sum's, and must be shorter by a tenth.
    pub fn of(s: &ConvShape) -> Option<Winograd> {
        if !Winograd::fits(s) {
            return None;
        }
        let chosen = Winograd::fewest(s);
        let time = |cost: Cost| (cost.flops as f64).max(OPERATIONS_A_BYTE * cost.bytes as f64);
        let plain = time(Cost::plain(s, IMAGES));
        let winograd: f64 = chosen.costs(s, IMAGES).map(time).iter().sum();
        (MARGIN * winograd <= plain).then_some(chosen)
    }

    /// Floats from one tile of M to the next: outputs, in whole quads.
    pub fn line(s: &ConvShape) -> usize {
        s.o.next_multiple_of(4)
    }

    /// Tiles that are transformed and multiplied together: as many as fit into 32 MB, in whole tiles of the product;
    /// one of those at least, which takes more from 1820 channels on, in and out together. No result depends on it.
    pub fn chunk(self, s: &ConvShape) -> usize {
        let fit = CHUNK_FLOATS / (self.products() * (s.c + Winograd::line(s)));
        (fit / CHUNK_ROWS * CHUNK_ROWS).max(CHUNK_ROWS)
    }

    /// Floats of V and M, of up to a chunk of the tiles of `rows` images.
    pub fn workspace(self, s: &ConvShape, rows: usize) -> usize {
        let tiles = self.chunk(s).min(rows * self.image(s));
        self.products() * tiles * (s.c + Winograd::line(s))
    }

    /// What the input's transformation, the products and the output's take at least: everything that a launch reads or
    /// writes, once; the transformed weights once a chunk. Additions of the transformations are not counted: memory
    /// decides there.
    pub fn costs(self, s: &ConvShape, rows: usize) -> [Cost; 3] {
        let (products, tiles) = (self.products(), rows * self.image(s));
        let (v, m, u) = (products * tiles * s.c, products * tiles * Winograd::line(s), products * s.c * s.o);
        let chunks = tiles.div_ceil(self.chunk(s));
        let of = |flops: usize, floats: usize| Cost { flops: flops as u64, bytes: 4 * floats as u64 };
        [
            of(0, rows * s.x_len() + v),
            of(2 * products * tiles * s.c * s.o, v + chunks * u + m),
            of(0, m + s.o + rows * s.y_len()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::problems::LAYERS;

    fn s(c: usize, hw: usize, o: usize, pad: usize) -> ConvShape {
        ConvShape { c, h: hw, w: hw, o, kh: 3, kw: 3, stride: 1, pad }
    }

    #[test]
    fn the_estimate_of_a_layer_is_that_of_the_kernels_header() {
        // VGG16's 512 to 512 at 28x28: 49 tiles an image
        let [input, product, output] = Winograd::F4.costs(&s(512, 28, 512, 1), 32);
        assert_eq!(product.flops, 2 * 36 * 32 * 49 * 512 * 512);
        assert_eq!(Cost::plain(&s(512, 28, 512, 1), 32).flops, 2 * 9 * 32 * 28 * 28 * 512 * 512);
        assert_eq!(input.bytes, 4 * (32 * 512 * 28 * 28 + 36 * 32 * 49 * 512));
        assert_eq!(output.bytes, 4 * (32 * 512 * 28 * 28 + 36 * 32 * 49 * 512 + 512));
        assert_eq!((input.flops, output.flops), (0, 0));
    }

    #[test]
    fn the_tiles_follow_from_the_shape() {
        for (shape, want) in [
            (s(512, 28, 512, 1), Some(Winograd::F4)),
            (s(64, 224, 64, 1), Some(Winograd::F4)),
            (s(128, 56, 32, 1), Some(Winograd::F4)),
            (s(32, 13, 64, 0), Some(Winograd::F4)),
            // 5x5 and 6x6 outputs: 9 tiles of 16 multiplications, or 4 of 36
            (s(128, 6, 128, 1), Some(Winograd::F2)),
            (s(256, 7, 256, 0), Some(Winograd::F2)),
            // a tie
            (s(128, 7, 128, 0), None),
            (s(128, 7, 128, 1), Some(Winograd::F4)),
            // memory decides: V and M are larger than what they save
            (s(32, 26, 32, 1), None),
            (s(16, 26, 32, 1), None),
            // no whole quads of channels, a stride, another kernel
            (s(3, 224, 64, 1), None),
            (ConvShape { stride: 2, ..s(512, 28, 512, 1) }, None),
            (ConvShape { kh: 1, kw: 1, ..s(512, 28, 512, 0) }, None),
            // nothing comes out
            (s(512, 2, 512, 0), None),
        ] {
            assert_eq!(Winograd::of(&shape), want, "{shape:?}");
        }
    }

    /// What `bench kernels` lists: a change of the model shows here.
    #[test]
    fn the_layers_that_it_serves() {
        let served: Vec<&str> = LAYERS.iter().filter(|l| Winograd::of(&l.shape).is_some()).map(|l| l.name).collect();
        assert_eq!(
            served,
            [
                "vgg 64->64 224",
                "vgg 64->128 112",
                "vgg 128->128 112",
                "vgg 128->256 56",
                "vgg 256->256 56",
                "vgg 256->512 28",
                "vgg 512->512 28",
                "vgg 512->512 14",
                "vgg 512->512 14 x4",
                "densenet 128->32 56",
                "densenet 128->32 28",
                "densenet 128->32 14",
                "densenet 128->32 7",
                "fashion 32->64 13",
            ]
        );
    }

    #[test]
    fn the_workspace_is_bounded_and_that_of_more_rows_is_enough_for_fewer() {
        for winograd in Winograd::ALL {
            for shape in LAYERS.iter().map(|l| l.shape).filter(Winograd::fits) {
                let rows = [1, 2, 7, 100, 4096].map(|rows| winograd.workspace(&shape, rows));
                assert!(rows.is_sorted() && rows[4] <= CHUNK_FLOATS, "{shape:?}: {rows:?}");
                assert_eq!(winograd.chunk(&shape) % CHUNK_ROWS, 0);
            }
        }
        let wide = s(4096, 14, 4096, 1);
        assert_eq!(Winograd::F4.workspace(&wide, 1000), 36 * 128 * 8192);
    }
}
