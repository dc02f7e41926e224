//! What benchmarks and the kernels' table run: every layer shape of the models and every kernel, with the work that each takes
//! at least. One list and one count of work for all of them.

use super::layout::{ConvShape, PoolShape, len};
use super::winograd::Winograd;
use crate::graph::op::{Op, Prologue, Window};
use crate::graph::{Extent, Node};
use crate::tensor::Shape;

/// A convolution or linear layer of a model.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The model, the layer, its place.
    pub name: &'static str,
    /// Images of a CPU benchmark.
    pub cpu_rows: usize,
    /// Images that fill a GPU.
    pub gpu_rows: usize,
    /// Its shape.
    pub shape: ConvShape,
}

/// [channels, height = width, outputs, kernel, stride, padding]
const fn l(name: &'static str, [cpu_rows, gpu_rows]: [usize; 2], [c, hw, o, k, stride, pad]: [usize; 6]) -> Layer {
    Layer { name, cpu_rows, gpu_rows, shape: ConvShape { c, h: hw, w: hw, o, kh: k, kw: k, stride, pad } }
}

/// The layers whose speed decides this program's running time. A linear layer is a 1x1 convolution of an image of one pixel.
pub const LAYERS: &[Layer] = &[
    // VGG16 at 224 x 224: every distinct layer.
    l("vgg 3->64 224", [1, 32], [3, 224, 64, 3, 1, 1]),
    l("vgg 64->64 224", [1, 32], [64, 224, 64, 3, 1, 1]),
    l("vgg 64->128 112", [1, 32], [64, 112, 128, 3, 1, 1]),
    l("vgg 128->128 112", [1, 32], [128, 112, 128, 3, 1, 1]),
    l("vgg 128->256 56", [1, 32], [128, 56, 256, 3, 1, 1]),
    l("vgg 256->256 56", [1, 32], [256, 56, 256, 3, 1, 1]),
    l("vgg 256->512 28", [1, 32], [256, 28, 512, 3, 1, 1]),
    l("vgg 512->512 28", [1, 32], [512, 28, 512, 3, 1, 1]),
    l("vgg 512->512 14", [1, 32], [512, 14, 512, 3, 1, 1]),
    l("vgg 512->512 14 x4", [4, 128], [512, 14, 512, 3, 1, 1]),
    l("vgg linear 25088->4096", [4, 64], [25_088, 1, 4096, 1, 1, 0]),
    l("vgg linear 4096->4096", [4, 64], [4096, 1, 4096, 1, 1, 0]),
    l("vgg linear 4096->1000", [4, 64], [4096, 1, 1000, 1, 1, 0]),
    // DenseNet-121: the first layer, and in each block the 1x1 layers of the least, a middle and the largest width.
    l("densenet conv0 3->64 224", [1, 32], [3, 224, 64, 7, 2, 3]),
    l("densenet 1x1 64->128 56", [1, 32], [64, 56, 128, 1, 1, 0]),
    l("densenet 1x1 128->128 56", [1, 32], [128, 56, 128, 1, 1, 0]),
    l("densenet 1x1 224->128 56", [1, 32], [224, 56, 128, 1, 1, 0]),
    l("densenet 128->32 56", [1, 32], [128, 56, 32, 3, 1, 1]),
    l("densenet transition 256->128 56", [1, 32], [256, 56, 128, 1, 1, 0]),
    l("densenet 1x1 128->128 28", [1, 32], [128, 28, 128, 1, 1, 0]),
    l("densenet 1x1 256->128 28", [1, 32], [256, 28, 128, 1, 1, 0]),
    l("densenet 1x1 480->128 28", [1, 32], [480, 28, 128, 1, 1, 0]),
    l("densenet 128->32 28", [1, 32], [128, 28, 32, 3, 1, 1]),
    l("densenet transition 512->256 28", [1, 32], [512, 28, 256, 1, 1, 0]),
    l("densenet 1x1 256->128 14", [1, 32], [256, 14, 128, 1, 1, 0]),
    l("densenet 1x1 640->128 14", [1, 32], [640, 14, 128, 1, 1, 0]),
    l("densenet 1x1 992->128 14", [1, 32], [992, 14, 128, 1, 1, 0]),
    l("densenet 128->32 14", [1, 32], [128, 14, 32, 3, 1, 1]),
    l("densenet transition 1024->512 14", [1, 32], [1024, 14, 512, 1, 1, 0]),
    l("densenet 1x1 512->128 7", [1, 32], [512, 7, 128, 1, 1, 0]),
    l("densenet 1x1 992->128 7", [1, 32], [992, 7, 128, 1, 1, 0]),
    l("densenet 128->32 7", [1, 32], [128, 7, 32, 3, 1, 1]),
    // The Fashion classifier and its autoencoder: the adversarial search and training run these.
    l("fashion 1->32 28", [100, 1024], [1, 28, 32, 3, 1, 0]),
    l("fashion 32->64 13", [100, 1024], [32, 13, 64, 3, 1, 0]),
    l("fashion 32->32 26", [100, 1024], [32, 26, 32, 3, 1, 1]),
    l("fashion 16->32 26", [100, 1024], [16, 26, 32, 3, 1, 1]),
    l("fashion 1x1 32->16", [100, 1024], [32, 26, 16, 1, 1, 0]),
    l("fashion linear 1600->256", [100, 1024], [1600, 1, 256, 1, 1, 0]),
    l("fashion linear 256->10", [100, 1024], [256, 1, 10, 1, 1, 0]),
];

/// What is done with a convolution's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// y from x, with bias and ReLU.
    Forward,
    /// The same of relu(x · scale + shift).
    Prologue,
    /// gx from gy.
    GradInput,
    /// gw from x and gy.
    GradWeight,
    /// `Forward` by Winograd's tiles, for layers that they serve.
    Winograd,
    /// The weight, transformed as `Winograd` reads it.
    PackWinograd,
    /// The weight, put into the order that `Forward` reads.
    PackForward,
    /// The weight, put into the order that `GradInput` reads.
    PackGradInput,
}

/// What is done with maps or rows, element by element or in sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the operation of its name")]
pub enum Map {
    Relu,
    ReluGrad,
    Scale,
    SquareRoot,
    Add,
    Affine,
    SignStep,
    AdamMean,
    AdamSquare,
    AdamStep,
    AdamFused,
    Transpose,
    SumToChannels,
    SumRows,
    BroadcastRows,
    GlobalAverage,
    GlobalAverageGrad,
    ChannelMax,
    MeanAbs,
    MeanAbsGrad,
    MeanSquare,
    MeanSquareGrad,
    TotalVariation,
    TotalVariationGrad,
    CrossEntropy,
    CrossEntropyGrad,
    SoftmaxKl,
    SoftmaxKlGrad,
    BinaryCrossEntropy,
    BinaryCrossEntropyGrad,
    SigmoidKl,
    SigmoidKlGrad,
    /// Half the channels of a map beside the other half's sum: what a dense block's gradient does.
    AddViews,
    /// Means of 2 x 2.
    Average,
    AverageGrad,
    ChannelSum,
    BatchMoments,
    Normalise,
    NormaliseGradWeight,
    NormaliseGradInput,
    RunningMean,
    Intervene,
    Effects,
    WeightedEffect,
    GridMask,
    RandomSigns,
    /// The ceiling of bandwidth.
    Copy,
}

/// What a kernel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A convolution or linear layer.
    Conv(Pass, ConvShape),
    /// Max-pooling.
    MaxPool(PoolShape),
    /// Its gradient.
    MaxPoolGrad(PoolShape),
    /// The decoder's first convolution, kept up to date with one channel cleared in each row.
    InterveneConv(ConvShape),
    /// An operation on C x H x W.
    Map(Map, [usize; 3]),
    /// The ceiling of arithmetic: so many rounds of 128 multiply-adds in 256 threads a row.
    Fma(u32),
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The model, the layer and what is done.
    pub name: String,
    /// Images.
    pub rows: usize,
    /// What is done with them.
    pub work: Work,
}

/// The least that a problem takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations, padding counted as work; 0 where memory alone decides.
    pub flops: u64,
    /// Bytes: every operand once.
    pub bytes: u64,
}

impl Cost {
    /// A convolution forward with bias, as a sum over taps and channels.
    pub(super) fn plain(s: &ConvShape, rows: usize) -> Cost {
        let floats = seen(s, rows) + s.w_len() + s.o + rows * s.y_len();
        Cost { flops: (rows * s.flops()) as u64, bytes: 4 * floats as u64 }
    }

    /// A step of a planned graph: `node`, which reads `inputs`, on `rows` rows. Operations are counted where they may decide, in
    /// convolutions and linear layers; bytes everywhere. Of what is read through a list, the images of a sweep.
    pub(super) fn of(node: &Node, inputs: &[&Node], rows: usize) -> Cost {
        let on = |work| Problem::new(String::new(), rows, work).cost();
        let conv = |pass, x: &Shape, w: &Shape, window| on(Work::Conv(pass, ConvShape::new(x, w, window)));
        let linear = |pass, x: &Shape, y: &Shape| on(Work::Conv(pass, ConvShape::linear(x.len(), y.len())));
        match (&node.op, inputs) {
            (Op::Conv2d { window, prologue, .. }, [x, w, ..]) => match prologue {
                Prologue::None => conv(Pass::Forward, &x.shape, &w.shape, *window),
                Prologue::AffineRelu => conv(Pass::Prologue, &x.shape, &w.shape, *window),
            },
            (Op::Conv2dGradInput { window, .. }, [_, w]) => conv(Pass::GradInput, &node.shape, &w.shape, *window),
            (Op::Conv2dGradWeight { window, .. }, [x, _]) => conv(Pass::GradWeight, &x.shape, &node.shape, *window),
            (Op::Linear { .. }, [x, ..]) => linear(Pass::Forward, &x.shape, &node.shape),
            (Op::LinearGradInput, [gy, _]) => linear(Pass::GradInput, &node.shape, &gy.shape),
            (Op::LinearGradWeight, [x, gy]) => linear(Pass::GradWeight, &x.shape, &gy.shape),
            (Op::InterveneConv { pad, .. }, [_, z, w, ..]) => {
                on(Work::InterveneConv(ConvShape::new(&z.shape, &w.shape, Window { stride: 1, pad: *pad })))
            }
            _ => {
                let floats =
                    |n: &Node, rows: usize| if n.extent == Extent::Rows { rows * n.shape.len() } else { n.shape.len() };
                let read = inputs
                    .iter()
                    .enumerate()
                    .map(|(i, n)| floats(n, if node.op.gathers(i) { images(rows) } else { rows }));
                // of a concat, what lies in place already is not moved
                let read: usize = read.sum();
                let written = if node.op == Op::Concat { read } else { floats(node, rows) };
                Cost { flops: 0, bytes: 4 * (read + written) as u64 }
            }
        }
    }

    /// Both, one after the other.
    pub(super) fn and(self, other: Cost) -> Cost {
        Cost { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

/// Floats of `rows` images that a convolution reads: a stride may pass over pixels.
fn seen(s: &ConvShape, rows: usize) -> usize {
    rows * s.x_len().min(s.oh() * s.ow() * len(&[s.kh, s.kw, s.c]))
}

/// Rows that share an image in a sweep over nodes.
pub const NODES: usize = 16;

/// Images behind the rows of a sweep.
pub fn images(rows: usize) -> usize {
    rows.div_ceil(NODES)
}

impl Problem {
    /// `name` says what is done, too.
    pub fn new(name: impl Into<String>, rows: usize, work: Work) -> Problem {
        Problem { name: name.into(), rows, work }
    }

    /// The same with other rows.
    pub fn with_rows(&self, rows: usize) -> Problem {
        Problem { rows, ..self.clone() }
    }

    /// What each of its main launches takes at least, one after the other: several where Winograd's transformations stand
    /// around the products.
    pub fn launches(&self) -> Vec<Cost> {
        match self.work {
            Work::Conv(Pass::Winograd, s) => {
                Winograd::of(&s).map_or(Vec::new(), |winograd| winograd.costs(&s, self.rows).to_vec())
            }
            _ => vec![self.cost()],
        }
    }

    /// What it takes at least. Operations and bytes are counted here, and for Winograd's tiles beside their sizes.
    pub fn cost(&self) -> Cost {
        let rows = self.rows;
        let (flops, floats) = match self.work {
            Work::Conv(pass, s) => {
                let (x, y) = (seen(&s, rows), rows * s.y_len());
                match pass {
                    Pass::Forward => return Cost::plain(&s, rows),
                    Pass::Winograd => return self.launches().into_iter().fold(Cost::default(), Cost::and),
                    Pass::PackWinograd => {
                        (0, s.w_len() + Winograd::of(&s).map_or(0, |winograd| winograd.products() * s.c * s.o))
                    }
                    Pass::Prologue => (rows * s.flops(), x + 2 * s.c + s.w_len() + s.o + y),
                    Pass::GradInput => (rows * s.flops(), y + s.w_len() + rows * s.x_len()),
                    Pass::GradWeight => (rows * s.flops(), x + y + s.w_len()),
                    Pass::PackForward | Pass::PackGradInput => (0, 2 * s.w_len()),
                }
            }
            Work::MaxPool(s) => (0, rows * s.c * (s.h * s.w + s.oh() * s.ow())),
            Work::MaxPoolGrad(s) => (0, rows * s.c * (2 * s.h * s.w + s.oh() * s.ow())),
            Work::InterveneConv(s) => {
                let (images, taps) = (images(rows), s.kh * s.kw);
                // each image has all channels cleared in turn, so that its code is read as a whole
                let read = images * (s.y_len() + s.x_len()) + s.w_len() + NODES.min(rows) * s.c + 2 * rows;
                (2 * rows * taps * s.y_len(), read + rows * s.y_len())
            }
            Work::Map(map, [c, h, w]) => {
                let (e, plane) = (len(&[rows, c, h, w]), len(&[c, h, w]));
                let floats = match map {
                    Map::Relu | Map::Scale | Map::SquareRoot | Map::Transpose | Map::Copy => 2 * e,
                    Map::GridMask | Map::RandomSigns => 2 * e + 2 * rows,
                    Map::ReluGrad | Map::Add | Map::AdamMean | Map::AdamSquare => 3 * e,
                    Map::Affine => 2 * e + 2 * c,
                    Map::SignStep => 4 * e + 2,
                    Map::AdamStep => 4 * e + 3,
                    Map::AdamFused => 7 * e + 3,
                    Map::SumToChannels => e + c,
                    Map::SumRows | Map::BroadcastRows => e + plane,
                    Map::GlobalAverage | Map::GlobalAverageGrad | Map::ChannelMax => e + rows * c,
                    Map::MeanAbs | Map::MeanSquare | Map::TotalVariation => e + rows,
                    Map::MeanAbsGrad | Map::MeanSquareGrad | Map::TotalVariationGrad => 2 * e + rows,
                    Map::CrossEntropy => e + 2 * rows,
                    Map::CrossEntropyGrad => 2 * e + 2 * rows,
                    Map::SoftmaxKl | Map::SigmoidKl | Map::BinaryCrossEntropy => 2 * e + rows,
                    Map::SoftmaxKlGrad | Map::SigmoidKlGrad | Map::BinaryCrossEntropyGrad => 3 * e + rows,
                    Map::AddViews => 3 * e / 2,
                    Map::Average | Map::AverageGrad => e + e / 4,
                    Map::ChannelSum => e + rows * (c + h * w),
                    Map::BatchMoments => e + 2 * c,
                    Map::Normalise => 2 * e + 4 * c,
                    Map::NormaliseGradWeight => 2 * e + 3 * c,
                    Map::NormaliseGradInput => 3 * e + 5 * c,
                    Map::RunningMean => 3 * plane,
                    Map::Intervene => images(rows) * plane + NODES.min(rows) * c + 2 * rows + e,
                    Map::Effects => images(rows) * c + 2 * e + rows,
                    Map::WeightedEffect => images(rows) * c + e + 2 * rows,
                };
                (0, floats)
            }
            Work::Fma(rounds) => (2 * 128 * 256 * rounds as usize * rows, 256 * rows),
        };
        Cost { flops: flops as u64, bytes: 4 * floats as u64 }
    }
}

/// Every kernel on the layers and maps of the models.
pub fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    for layer in LAYERS {
        let passes = [
            ("forward", Pass::Forward),
            ("forward, winograd", Pass::Winograd),
            ("forward, prologue", Pass::Prologue),
            ("grad x", Pass::GradInput),
            ("grad w", Pass::GradWeight),
            ("pack", Pass::PackForward),
            ("pack, winograd", Pass::PackWinograd),
            ("pack, grad x", Pass::PackGradInput),
        ];
        let wanted = |pass| match pass {
            // normalisation in front of a convolution is DenseNet's alone
            Pass::Prologue => layer.name.starts_with("densenet") && layer.shape.c > 3,
            Pass::Winograd | Pass::PackWinograd => Winograd::of(&layer.shape).is_some(),
            Pass::Forward | Pass::GradInput | Pass::GradWeight | Pass::PackForward | Pass::PackGradInput => true,
        };
        for (name, pass) in passes.into_iter().filter(|p| wanted(p.1)) {
            let name = format!("{} {name}", layer.name);
            all.push(Problem::new(name, layer.gpu_rows, Work::Conv(pass, layer.shape)));
        }
    }
    let pool = |name: &str, rows, [c, hw, k, stride, pad]: [usize; 5]| {
        let shape = PoolShape { c, h: hw, w: hw, k, stride, pad };
        let grad = Problem::new(format!("{name} grad"), rows, Work::MaxPoolGrad(shape));
        [Problem::new(name, rows, Work::MaxPool(shape)), grad]
    };
    all.extend(pool("vgg max-pool 64 224", 32, [64, 224, 2, 2, 0]));
    all.extend(pool("vgg max-pool 512 14", 32, [512, 14, 2, 2, 0]));
    all.extend(pool("densenet max-pool 64 112", 32, [64, 112, 3, 2, 1]));
    all.extend(pool("fashion max-pool 32 26", 1024, [32, 26, 2, 2, 0]));

    use Map::*;
    let maps = [
        ("vgg map 64x224x224", 16, [64, 224, 224]),
        ("vgg map 512x14x14", 128, [512, 14, 14]),
        ("densenet map 256x56x56", 32, [256, 56, 56]),
        ("fashion map 32x26x26", 1024, [32, 26, 26]),
    ];
    let on_maps = [Relu, ReluGrad, Scale, SquareRoot, Add, Affine, Transpose, SumToChannels, SumRows, BroadcastRows];
    let on_codes = [MeanAbs, MeanAbsGrad, MeanSquare, MeanSquareGrad, TotalVariation, TotalVariationGrad];
    let more = |all: &mut Vec<Problem>, name: &str, rows, shape, list: &[Map]| {
        all.extend(list.iter().map(|&map| Problem::new(format!("{name} {map:?}"), rows, Work::Map(map, shape))));
    };
    for (name, rows, shape) in maps {
        more(&mut all, name, rows, shape, &on_maps);
    }
    for (name, shape) in [("densenet map 256x56x56", [256, 56, 56]), ("densenet map 1024x7x7", [1024, 7, 7])] {
        more(&mut all, name, 32, shape, &[BatchMoments, Normalise, NormaliseGradWeight, NormaliseGradInput]);
    }
    more(&mut all, "densenet statistics 1024", 32, [1024, 1, 1], &[RunningMean]);
    for (name, rows, shape) in [("densenet map 1024x7x7", 32, [1024, 7, 7]), ("vgg map 512x7x7", 32, [512, 7, 7])] {
        more(&mut all, name, rows, shape, &[GlobalAverage, GlobalAverageGrad, ChannelMax, ChannelSum]);
    }
    for (name, shape) in [("densenet map 128x56x56", [128, 56, 56]), ("densenet map 512x14x14", [512, 14, 14])] {
        more(&mut all, name, 32, shape, &[Average, AverageGrad, AddViews]);
    }
    for (name, rows, shape) in [("vgg code 16x56x56", 128, [16, 56, 56]), ("fashion code 16x26x26", 1024, [16, 26, 26])]
    {
        more(&mut all, name, rows, shape, &on_codes);
        more(&mut all, name, rows, shape, &[Intervene, ChannelMax]);
    }
    for (name, rows, shape) in [("vgg image 3x224x224", 32, [3, 224, 224]), ("fashion image 28x28", 1024, [1, 28, 28])]
    {
        more(&mut all, name, rows, shape, &[SignStep, GridMask, RandomSigns]);
    }
    for (name, rows, classes) in
        [("vgg logits 1000", 1024, 1000), ("densenet logits 14", 4096, 14), ("fashion logits 10", 16_384, 10)]
    {
        let shape = [classes, 1, 1];
        let list = [
            CrossEntropy,
            CrossEntropyGrad,
            SoftmaxKl,
            SoftmaxKlGrad,
            BinaryCrossEntropy,
            BinaryCrossEntropyGrad,
            SigmoidKl,
            SigmoidKlGrad,
            Effects,
            WeightedEffect,
        ];
        more(&mut all, name, rows, shape, &list);
    }
    for (name, c, hw, o) in [("fashion decoder 16->32 26", 16, 26, 32), ("vgg decoder 16->32 56", 16, 56, 32)] {
        let shape = ConvShape { c, h: hw, w: hw, o, kh: 3, kw: 3, stride: 1, pad: 1 };
        all.push(Problem::new(format!("{name} intervene"), 1024, Work::InterveneConv(shape)));
    }
    for (name, shape) in [("vgg weights 4096x4096", [4096, 4096, 1]), ("fashion weights 1600x256", [256, 1600, 1])] {
        more(&mut all, name, 1, shape, &[AdamMean, AdamSquare, AdamStep, AdamFused]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_by_hand_for_one_layer() {
        let shape = ConvShape { c: 4, h: 8, w: 8, o: 16, kh: 3, kw: 3, stride: 1, pad: 1 };
        let of = |work| Problem::new("", 2, work).cost();
        let forward = of(Work::Conv(Pass::Forward, shape));
        assert_eq!(forward.flops, 2 * 2 * 8 * 8 * 16 * 3 * 3 * 4);
        assert_eq!(forward.bytes, 4 * (2 * 64 * 4 + 576 + 16 + 2 * 64 * 16));
        assert_eq!(of(Work::Map(Map::Add, [4, 2, 2])), Cost { flops: 0, bytes: 4 * 3 * 32 });
        let strided = ConvShape { kh: 1, kw: 1, stride: 2, pad: 0, ..shape };
        assert_eq!(of(Work::Conv(Pass::Forward, strided)).bytes, 4 * (2 * 16 * 4 + 64 + 16 + 2 * 16 * 16));
    }

    #[test]
    fn problems_have_names_of_their_own_and_something_to_do() {
        let mut names: Vec<String> = problems().into_iter().map(|p| p.name).collect();
        assert!(problems().iter().all(|p| p.cost().bytes > 0));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
