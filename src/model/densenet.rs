//! DenseNet-121 (Huang et al. 2017, arXiv 1608.06993), as torchvision has it: 7,978,856 trained parameters with 1000
//! classes, 2.83 G multiply-adds at 224 x 224; with 14 labels and a sigmoid it is CheXNet (arXiv 1711.05225), 6,968,206.
//!
//! conv 7x7/2, norm, ReLU, max-pool 3/2; blocks of 6, 12, 24, 16 dense layers (norm, ReLU, 1x1 to 128, norm, ReLU, 3x3 to
//! 32 channels, put behind what came in), and between them transitions (norm, ReLU, 1x1 to half, average pool 2); a last
//! norm. The ReLU, global average pool and linear layer behind it are torchvision's `forward`, no children of `features`.
//! The paper's taps 3, 6, 8, 10 are `relu0`, `transition1`, `transition2`, `transition3`.

use super::{Child, Head, Layer, Model};
use crate::graph::op::{Averaging, Window};

/// Channels that a dense layer adds.
const GROWTH: usize = 32;
/// Channels between its two convolutions.
const BOTTLENECK: usize = 4 * GROWTH;

/// 121 layers, 1000 classes.
pub fn densenet121() -> Model {
    let conv = |channels, kernel: usize, stride| Layer::Conv {
        channels,
        kernel,
        window: Window { stride, pad: kernel / 2 },
        bias: false,
    };
    let mut features = vec![
        Child::new("features.conv0", conv(64, 7, 2)),
        Child::new("features.norm0", Layer::BatchNorm),
        Child::new("features.relu0", Layer::Relu),
        Child::new("features.pool0", Layer::MaxPool { size: 3, window: Window { stride: 2, pad: 1 } }),
    ];
    let mut channels = 64;
    for (block, layers) in [6, 12, 24, 16].into_iter().enumerate() {
        let name = format!("features.denseblock{}", block + 1);
        let dense = |layer| {
            let path = format!("{name}.denselayer{layer}");
            let child = |leaf: &str, layer| Child::new(format!("{path}.{leaf}"), layer);
            let children = vec![
                child("norm1", Layer::BatchNorm),
                child("relu1", Layer::Relu),
                child("conv1", conv(BOTTLENECK, 1, 1)),
                child("norm2", Layer::BatchNorm),
                child("relu2", Layer::Relu),
                child("conv2", conv(GROWTH, 3, 1)),
            ];
            Child::new(path.clone(), Layer::Dense(children))
        };
        features.push(Child::new(&name, Layer::Sequence((1..=layers).map(dense).collect())));
        channels += layers * GROWTH;
        if block < 3 {
            let name = format!("features.transition{}", block + 1);
            let child = |leaf: &str, layer| Child::new(format!("{name}.{leaf}"), layer);
            channels /= 2;
            let children = vec![
                child("norm", Layer::BatchNorm),
                child("relu", Layer::Relu),
                child("conv", conv(channels, 1, 1)),
                child("pool", Layer::AvgPool(Averaging::Windows { size: 2, stride: 2 })),
            ];
            features.push(Child::new(&name, Layer::Sequence(children)));
        }
    }
    features.push(Child::new("features.norm5", Layer::BatchNorm));
    Model {
        arch: "densenet121",
        input: [3, 224, 224],
        classes: 1000,
        head: Head::Softmax,
        mean: super::IMAGENET_MEAN.into(),
        std: super::IMAGENET_STD.into(),
        features,
        classifier: vec![
            Child::new("relu", Layer::Relu),
            Child::new("pool", Layer::GlobalAvgPool),
            Child::new("classifier", Layer::Linear { features: 1000 }),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statistics of norms are no trained parameters.
    fn trained(model: &Model) -> usize {
        model.parameters().iter().filter(|(key, _)| !key.contains(".running_")).map(|(_, s)| s.len()).sum()
    }

    #[test]
    fn parameters_and_multiply_adds_are_the_published_ones() {
        let model = densenet121();
        assert_eq!(trained(&model), 7_978_856);
        assert_eq!(trained(&densenet121().with_classes(14).unwrap()), 6_968_206);
        let macs: u64 = model.macs().iter().sum();
        assert_eq!((macs as f64 / 1e6).round(), 2834.0, "{macs}");
        assert_eq!(model.parameters().len(), 120 + 4 * 121 + 2, "120 convolutions and 121 norms, a linear layer");
    }

    #[test]
    fn the_papers_taps_have_its_shapes() {
        let model = densenet121();
        for (number, name, shape, after_relu) in [
            ("3", "features.relu0", [64, 112, 112], true),
            ("6", "features.transition1", [128, 28, 28], false),
            ("8", "features.transition2", [256, 14, 14], false),
            ("10", "features.transition3", [512, 7, 7], false),
        ] {
            let tap = model.tap(number).unwrap();
            assert_eq!((tap.name.as_str(), tap.shape, tap.after_relu), (name, shape, after_relu));
        }
        assert_eq!(model.taps().len(), 12);
    }
}
