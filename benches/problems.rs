//! The convolutions whose speed decides this program's running time: one list for every benchmark.

use intervene::backend::cpu::conv::ConvShape;

/// A layer and the batch it runs at.
pub struct Problem {
    pub name: &'static str,
    pub rows: usize,
    pub shape: ConvShape,
}

const fn p(name: &'static str, rows: usize, [c, hw, o, k, pad]: [usize; 5]) -> Problem {
    Problem { name, rows, shape: ConvShape { c, h: hw, w: hw, o, kh: k, kw: k, stride: 1, pad } }
}

/// [channels, height = width, outputs, kernel, padding], stride 1.
pub const PROBLEMS: &[Problem] = &[
    // VGG16 at 224 x 224: every distinct layer.
    p("vgg 3->64 224", 1, [3, 224, 64, 3, 1]),
    p("vgg 64->64 224", 1, [64, 224, 64, 3, 1]),
    p("vgg 64->128 112", 1, [64, 112, 128, 3, 1]),
    p("vgg 128->128 112", 1, [128, 112, 128, 3, 1]),
    p("vgg 128->256 56", 1, [128, 56, 256, 3, 1]),
    p("vgg 256->256 56", 1, [256, 56, 256, 3, 1]),
    p("vgg 256->512 28", 1, [256, 28, 512, 3, 1]),
    p("vgg 512->512 28", 1, [512, 28, 512, 3, 1]),
    p("vgg 512->512 14", 1, [512, 14, 512, 3, 1]),
    p("vgg 512->512 14", 4, [512, 14, 512, 3, 1]),
    // The Fashion classifier and its autoencoder: the adversarial search and training run these.
    p("fashion 1->32 28", 100, [1, 28, 32, 3, 0]),
    p("fashion 32->64 13", 100, [32, 13, 64, 3, 0]),
    p("fashion 32->32 26", 100, [32, 26, 32, 3, 1]),
    p("fashion 16->32 26", 100, [16, 26, 32, 3, 1]),
    p("fashion 1x1 32->16", 100, [32, 26, 16, 1, 0]),
];
