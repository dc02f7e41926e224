//! The paper's 2-convolution Fashion-MNIST network (431,242 parameters).
//!
//! conv 3x3 1 to 32 (valid), ReLU, max-pool 2, conv 3x3 32 to 64 (valid), ReLU, max-pool 2, flatten 1600, linear 256,
//! ReLU, linear 10. Keys `features.{0,3}` and `classifier.{0,2}`; tap 2 (`features.1`) is the paper's L = 2.

use super::{Child, Head, Layer, Model, named};
use crate::graph::op::Window;

/// The network for 28 x 28 grey images and ten classes.
pub fn fashion() -> Model {
    let conv = |channels| Layer::Conv { channels, kernel: 3, window: Window { stride: 1, pad: 0 }, bias: true };
    let pool = || Layer::MaxPool { size: 2, window: Window { stride: 2, pad: 0 } };
    let mut classifier = vec![Child::new("flatten", Layer::Flatten)];
    let linear = |features| Layer::Linear { features };
    classifier.extend(named("classifier", vec![linear(256), Layer::Relu, linear(10)]));
    Model {
        arch: "fashion",
        input: [1, 28, 28],
        classes: 10,
        head: Head::Softmax,
        mean: vec![0.2860],
        std: vec![0.3530],
        features: named("features", vec![conv(32), Layer::Relu, pool(), conv(64), Layer::Relu, pool()]),
        classifier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fashion_net_has_the_papers_parameter_count_and_shapes() {
        let model = fashion();
        let count: usize = model.parameters().iter().map(|(_, s)| s.len()).sum();
        assert_eq!(count, 431_242);
        let tap = model.tap("2").unwrap();
        assert_eq!((tap.shape, tap.name.as_str(), tap.after_relu), ([32, 26, 26], "features.1", true));
        assert_eq!(model.tap("features.1").unwrap(), tap);
        assert_eq!(model.shapes().last().unwrap().dims(), [10]);
    }

    #[test]
    fn a_tap_that_does_not_exist_names_the_nearest() {
        let error = fashion().tap("feature.1").unwrap_err().to_string();
        assert!(error.contains("features.1"), "{error}");
        assert!(fashion().tap("0").is_err() && fashion().tap("7").is_err());
    }
}
