//! VGG16 and VGG19 (Simonyan and Zisserman 2015, arXiv 1409.1556, configurations D and E), as torchvision has them:
//! 138,357,544 and 143,667,240 parameters with 1000 classes, 15.47 and 19.63 G multiply-adds at 224 x 224.
//!
//! Five blocks of 3x3 convolutions with ReLU, each before a max-pool 2; adaptive average pool to 7x7, flatten 25088, two
//! linear layers of 4096 with ReLU and dropout, and the last. Keys `features.{0,2,5,..}` and `classifier.{0,3,6}`; the
//! paper's taps 3, 9, 13 of VGG16 are `features.2`, `features.8`, `features.12`, its tap 18 of VGG19 `features.17`.

use super::{Child, Head, Layer, Model, named};
use crate::graph::op::{Averaging, Window};

/// 13 convolutions.
pub fn vgg16() -> Model {
    vgg("vgg16", [2, 2, 3, 3, 3])
}

/// 16 convolutions.
pub fn vgg19() -> Model {
    vgg("vgg19", [2, 2, 4, 4, 4])
}

/// `layers`: convolutions of each block.
fn vgg(arch: &'static str, layers: [usize; 5]) -> Model {
    let conv = |channels| Layer::Conv { channels, kernel: 3, window: Window { stride: 1, pad: 1 }, bias: true };
    let linear = |features| Layer::Linear { features };
    let dropout = || Layer::Dropout { share: 0.5 };
    let mut features = Vec::new();
    for (count, channels) in layers.into_iter().zip([64, 128, 256, 512, 512]) {
        for _ in 0..count {
            features.extend([conv(channels), Layer::Relu]);
        }
        features.push(Layer::MaxPool { size: 2, window: Window { stride: 2, pad: 0 } });
    }
    let average = Layer::AvgPool(Averaging::Adaptive { height: 7, width: 7 });
    let mut classifier = vec![Child::new("avgpool", average), Child::new("flatten", Layer::Flatten)];
    let layers = vec![linear(4096), Layer::Relu, dropout(), linear(4096), Layer::Relu, dropout(), linear(1000)];
    classifier.extend(named("classifier", layers));
    Model {
        arch,
        input: [3, 224, 224],
        classes: 1000,
        head: Head::Softmax,
        mean: super::IMAGENET_MEAN.into(),
        std: super::IMAGENET_STD.into(),
        features: named("features", features),
        classifier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(model: &Model) -> (usize, u64) {
        (model.parameters().iter().map(|(_, s)| s.len()).sum(), model.macs().iter().sum())
    }

    #[test]
    fn parameters_and_multiply_adds_are_the_published_ones() {
        let (parameters, macs) = counts(&vgg16());
        assert_eq!(parameters, 138_357_544);
        assert_eq!((macs as f64 / 1e7).round(), 1547.0, "{macs}");
        let (parameters, macs) = counts(&vgg19());
        assert_eq!(parameters, 143_667_240);
        assert_eq!((macs as f64 / 1e7).round(), 1963.0, "{macs}");
    }

    #[test]
    fn the_papers_taps_have_its_shapes() {
        let model = vgg16();
        for (number, name, shape, after_relu) in [
            ("3", "features.2", [64, 224, 224], false),
            ("9", "features.8", [128, 112, 112], true),
            ("13", "features.12", [256, 56, 56], false),
        ] {
            let tap = model.tap(number).unwrap();
            assert_eq!((tap.name.as_str(), tap.shape, tap.after_relu), (name, shape, after_relu));
        }
        let tap = vgg19().tap("18").unwrap();
        assert_eq!((tap.name.as_str(), tap.shape, tap.after_relu), ("features.17", [256, 56, 56], true));
    }

    #[test]
    fn any_image_of_32_pixels_or_more_is_taken_and_none_smaller() {
        let model = vgg16().with_input(32, 45).unwrap();
        assert_eq!(model.parameters(), vgg16().parameters());
        let error = vgg16().with_input(31, 224).unwrap_err().to_string();
        assert!(error.contains("features.30") && error.contains("32"), "{error}");
        assert!(vgg16().with_classes(0).is_err());
        let three = vgg16().with_classes(3).unwrap();
        assert_eq!(three.parameters().last().unwrap().1.dims(), [3]);
    }
}
