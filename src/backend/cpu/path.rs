//! By which way the CPU convolves: chosen here alone, by the layer's shape and by what the user asked for, never by rows or
//! threads, so that an image has the same bits in any batch.

use crate::backend::ConvPath;
use crate::backend::layout::ConvShape;
use crate::backend::winograd::Winograd;

/// Input channels under which they alone would leave most of a vector's lanes idle: those of images.
const FEW: usize = 8;

/// A way to compute a convolution or one of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Register tiles over a panel of padded rows (`conv.rs`).
    Direct,
    /// Fewer multiplications by transformed tiles (`winograd.rs`).
    Winograd(Winograd),
    /// A product of matrices, a row a pixel (`gemm.rs`).
    Product,
    /// A linear layer: the same from weights as they lie (`linear.rs`).
    Linear,
    /// An input gradient with the taps in the lanes (`conv_narrow.rs`).
    Narrow,
    /// A weight gradient, each tap a sum over bands of pixels (`conv_weight.rs`).
    Bands,
    /// The same with a tap row's floats as channels.
    TapRows,
    /// A variant's cleared channels taken off the image's own result (`intervene.rs`).
    Update,
}

/// Channels, in and out, from which Winograd's transforms take little beside the products.
const MANY: usize = 32;

/// From x to y.
pub fn forward(s: &ConvShape, conv: ConvPath) -> Path {
    match tiles(s, s.c, s.o, conv) {
        Some(tiles) => Path::Winograd(tiles),
        None if s.is_linear() => Path::Product,
        None => Path::Direct,
    }
}

/// From the gradient for y to that for x.
pub fn grad_input(s: &ConvShape, conv: ConvPath) -> Path {
    match tiles(&ConvShape { h: s.oh(), w: s.ow(), pad: 2usize.saturating_sub(s.pad), ..*s }, s.o, s.c, conv) {
        Some(tiles) if s.pad <= 2 => Path::Winograd(tiles),
        _ if s.is_linear() => Path::Product,
        _ if s.c < FEW && s.kh * s.kw > 1 => Path::Narrow,
        _ => Path::Direct,
    }
}

/// The tiles of a layer of `channels` in and `outputs` out: those with the fewer multiplications, if these are at most half of
/// the plain sum's; transforms and weights of four times the size eat up less.
fn tiles(s: &ConvShape, channels: usize, outputs: usize, conv: ConvPath) -> Option<Winograd> {
    let served = conv == ConvPath::Winograd && (s.kh, s.kw, s.stride) == (3, 3, 1) && channels.min(outputs) >= MANY;
    let tiles = Winograd::fewest(s);
    (served && 2 * tiles.products() * tiles.image(s) <= 9 * s.oh() * s.ow()).then_some(tiles)
}

/// From x and the gradient for y to that for the weight.
pub fn grad_weight(s: &ConvShape) -> Path {
    if s.c < FEW && s.kw > 1 { Path::TapRows } else { Path::Bands }
}

impl Path {
    /// As in tables.
    pub fn name(self) -> &'static str {
        match self {
            Path::Direct => "direct",
            Path::Winograd(Winograd::F2) => "winograd F(2x2)",
            Path::Winograd(Winograd::F4) => "winograd F(4x4)",
            Path::Product => "product",
            Path::Linear => "linear",
            Path::Narrow => "narrow",
            Path::Bands => "bands",
            Path::TapRows => "tap rows",
            Path::Update => "update",
        }
    }

    /// The rule by which it is chosen, and what it does.
    pub fn why(self) -> &'static str {
        match self {
            Path::Direct => "a window of several pixels, or a stride: register tiles over a panel of padded rows",
            Path::Winograd(_) => "3x3 at stride 1, 32 channels or more in and out: at most half the multiplications",
            Path::Product => "1x1, stride 1, no padding: one product of matrices, a row a pixel",
            Path::Linear => "a linear layer: a product of matrices, its weights read as they lie in the file",
            Path::Narrow => "under 8 input channels: window positions join them in the lanes, and a gather sums up",
            Path::Bands => "a weight's gradient: sums over pixels, band by band, in panels of x and gy",
            Path::TapRows => "under 8 input channels: a window row's floats serve as channels, without im2col",
            Path::Update => "reads the code under an intervention: the cleared channels' share is taken off, no more",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::problems::LAYERS;

    fn s([c, hw, o, k, stride, pad]: [usize; 6]) -> ConvShape {
        ConvShape { c, h: hw, w: hw, o, kh: k, kw: k, stride, pad }
    }

    #[test]
    fn the_shape_decides_the_path() {
        use Path::*;
        for (shape, want) in [
            // VGG's first layer and a middle one; DenseNet's first; a 1x1
            ([3, 224, 64, 3, 1, 1], [Direct, Narrow, TapRows]),
            ([3, 224, 64, 7, 2, 3], [Direct, Narrow, TapRows]),
            ([64, 56, 128, 1, 1, 0], [Product, Product, Bands]),
            // 8 channels fill a vector
            ([7, 9, 6, 3, 1, 1], [Direct, Narrow, TapRows]),
            ([8, 9, 6, 3, 1, 1], [Direct, Direct, Bands]),
            // a 1x1 with a stride or padding passes over pixels, and has no taps to join
            ([3, 9, 6, 1, 2, 0], [Direct, Direct, Bands]),
            ([64, 9, 6, 1, 1, 1], [Direct, Direct, Bands]),
            // the kernel, a stride, too few channels on either side: no tiles
            ([64, 56, 64, 5, 1, 2], [Direct, Direct, Bands]),
            ([64, 56, 64, 3, 2, 1], [Direct, Direct, Bands]),
            ([MANY - 1, 56, 512, 3, 1, 1], [Direct, Direct, Bands]),
            ([512, 56, MANY - 1, 3, 1, 1], [Direct, Direct, Bands]),
        ] {
            let shape = s(shape);
            for conv in [ConvPath::Exact, ConvPath::Winograd] {
                assert_eq!([forward(&shape, conv), grad_input(&shape, conv), grad_weight(&shape)], want, "{shape}");
            }
        }
    }

    #[test]
    fn tiles_serve_where_they_multiply_half_as_much_or_less() {
        let [two, four] = [Winograd::F2, Winograd::F4].map(Path::Winograd);
        for (shape, [y, gx]) in [
            ([256, 56, 256, 3, 1, 1], [four, four]),
            // VGG's and DenseNet's narrowest
            ([64, 224, 64, 3, 1, 1], [four, four]),
            ([128, 7, 32, 3, 1, 1], [four, four]),
            // the Fashion network's second layer, and its autoencoder's
            ([32, 13, 64, 3, 1, 0], [four, four]),
            ([32, 26, 32, 3, 1, 1], [four, four]),
            // 9 tiles of 16, as many as 4 of 36: F(2x2) errs less
            ([128, 6, 128, 3, 1, 1], [two, two]),
            // 9 tiles of 16 for 25 outputs are more than half of 225; 4 of 36 for 49 are not
            ([128, 7, 128, 3, 1, 0], [Path::Direct, four]),
            // one tile for one output
            ([128, 1, 128, 3, 1, 1], [Path::Direct, Path::Direct]),
            // the gradient of a wider padding would need a negative one
            ([128, 8, 128, 3, 1, 3], [four, Path::Direct]),
        ] {
            let shape = s(shape);
            assert_eq!(
                [forward(&shape, ConvPath::Winograd), grad_input(&shape, ConvPath::Winograd)],
                [y, gx],
                "{shape}"
            );
            assert_eq!([forward(&shape, ConvPath::Exact), grad_input(&shape, ConvPath::Exact)], [Path::Direct; 2]);
            assert_eq!(grad_weight(&shape), Path::Bands);
        }
    }

    #[test]
    fn every_layer_of_the_models_has_a_path_that_says_why() {
        for layer in LAYERS {
            let s = &layer.shape;
            let of = |conv| [forward(s, conv), grad_input(s, conv), grad_weight(s)];
            for path in [of(ConvPath::Exact), of(ConvPath::Winograd)].concat() {
                assert!(!path.name().is_empty() && !path.why().is_empty(), "{}", layer.name);
            }
        }
    }
}
