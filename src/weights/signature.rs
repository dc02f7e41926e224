//! Which well-known network tensors belong to, told by their names and shapes: for errors that say what a file is when it
//! is not what was asked for, and for `convert`, which then need not be told. Called by [`Weights::check`] and the command
//! line.
//!
//! The lists are torchvision's own (`torchvision/models/{vgg,densenet}.py`), kept apart from `model`, which knows only the
//! networks that this program runs.

use std::collections::BTreeMap;

use super::{Weights, names};
use crate::tensor::Shape;

/// A network, as its tensors tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Torchvision's name for it (`vgg16_bn`), `fashion`, `resnet50`, or `autoencoder`.
    pub arch: String,
    /// Number of classes; `None` where the classifier is missing.
    pub classes: Option<usize>,
}

/// `vgg16 with 1000 classes`.
impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.arch.as_str(), self.classes) {
            ("autoencoder", _) => f.write_str("an autoencoder of a tap"),
            (arch, Some(classes)) => write!(f, "{arch} with {classes} classes"),
            (arch, None) => write!(f, "{arch} without its classifier"),
        }
    }
}

/// VGG: output channels of the convolutions, 0 a max-pool.
const VGG: [(&str, &[usize]); 4] = [
    ("vgg11", &[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0]),
    ("vgg13", &[64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0]),
    ("vgg16", &[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]),
    ("vgg19", &[64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0]),
];

/// DenseNet: growth rate, layers of the four blocks, channels of the first convolution.
const DENSENET: [(&str, usize, [usize; 4], usize); 4] = [
    ("densenet121", 32, [6, 12, 24, 16], 64),
    ("densenet161", 48, [6, 12, 36, 24], 96),
    ("densenet169", 32, [6, 12, 32, 32], 64),
    ("densenet201", 32, [6, 12, 48, 32], 64),
];

/// ResNet: blocks of the four layers, and whether they are bottlenecks.
const RESNET: [(&str, [usize; 4], &str); 5] = [
    ("resnet18", [2, 2, 2, 2], "conv2"),
    ("resnet34", [3, 4, 6, 3], "conv2"),
    ("resnet50", [3, 4, 6, 3], "conv3"),
    ("resnet101", [3, 4, 23, 3], "conv3"),
    ("resnet152", [3, 8, 36, 3], "conv3"),
];

/// Names of the networks whose parameters are listed here.
pub fn architectures() -> impl Iterator<Item = String> {
    let plain = VGG.iter().map(|(name, _)| (*name).to_owned());
    let normed = VGG.iter().map(|(name, _)| format!("{name}_bn"));
    let dense = DENSENET.iter().map(|(name, ..)| (*name).to_owned());
    plain.chain(normed).chain(dense).chain(["fashion".to_owned()])
}

/// Parameters of a network by torchvision's names, in layer order; `None` for one that is not listed here.
pub fn parameters(arch: &str, classes: usize) -> Option<Vec<(String, Shape)>> {
    let mut list = Vec::new();
    if arch == "fashion" {
        conv(&mut list, "features.0", [32, 1, 3, 3], Bias::Has);
        conv(&mut list, "features.3", [64, 32, 3, 3], Bias::Has);
        linear(&mut list, "classifier.0", 256, 1600);
        linear(&mut list, "classifier.2", classes, 256);
        return Some(list);
    }
    if let Some((_, growth, blocks, first)) = DENSENET.iter().find(|(name, ..)| *name == arch) {
        densenet(&mut list, *growth, blocks, *first, classes);
        return Some(list);
    }
    let (plain, normed) = match arch.strip_suffix("_bn") {
        Some(plain) => (plain, true),
        None => (arch, false),
    };
    let (_, layers) = VGG.iter().find(|(name, _)| *name == plain)?;
    let (mut index, mut channels) = (0, 3);
    for &layer in *layers {
        match layer {
            0 => index += 1,
            outputs => {
                conv(&mut list, &format!("features.{index}"), [outputs, channels, 3, 3], Bias::Has);
                if normed {
                    norm(&mut list, &format!("features.{}", index + 1), outputs);
                }
                index += if normed { 3 } else { 2 };
                channels = outputs;
            }
        }
    }
    linear(&mut list, "classifier.0", 4096, 512 * 7 * 7);
    linear(&mut list, "classifier.3", 4096, 4096);
    linear(&mut list, "classifier.6", classes, 4096);
    Some(list)
}

type List = Vec<(String, Shape)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bias {
    Has,
    Lacks,
}

fn conv(list: &mut List, path: &str, shape: [usize; 4], bias: Bias) {
    list.push((format!("{path}.weight"), shape.into()));
    if bias == Bias::Has {
        list.push((format!("{path}.bias"), [shape[0]].into()));
    }
}

fn linear(list: &mut List, path: &str, outputs: usize, inputs: usize) {
    list.push((format!("{path}.weight"), [outputs, inputs].into()));
    list.push((format!("{path}.bias"), [outputs].into()));
}

fn norm(list: &mut List, path: &str, channels: usize) {
    for leaf in ["weight", "bias", "running_mean", "running_var"] {
        list.push((format!("{path}.{leaf}"), [channels].into()));
    }
}

fn densenet(list: &mut List, growth: usize, blocks: &[usize; 4], first: usize, classes: usize) {
    conv(list, "features.conv0", [first, 3, 7, 7], Bias::Lacks);
    norm(list, "features.norm0", first);
    let mut channels = first;
    for (block, &layers) in blocks.iter().enumerate() {
        for layer in 1..=layers {
            let path = format!("features.denseblock{}.denselayer{layer}", block + 1);
            norm(list, &format!("{path}.norm1"), channels);
            conv(list, &format!("{path}.conv1"), [4 * growth, channels, 1, 1], Bias::Lacks);
            norm(list, &format!("{path}.norm2"), 4 * growth);
            conv(list, &format!("{path}.conv2"), [growth, 4 * growth, 3, 3], Bias::Lacks);
            channels += growth;
        }
        if block < 3 {
            let path = format!("features.transition{}", block + 1);
            norm(list, &format!("{path}.norm"), channels);
            conv(list, &format!("{path}.conv"), [channels / 2, channels, 1, 1], Bias::Lacks);
            channels /= 2;
        }
    }
    norm(list, "features.norm5", channels);
    linear(list, "classifier", classes, channels);
}

/// The network that tensors of these names and shapes belong to, repairs of the names included.
pub fn looks_like(weights: &Weights) -> Option<Signature> {
    let shapes = weights.iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    of_shapes(&shapes)
}

/// As [`looks_like`], of a list of parameters.
pub(super) fn of_shapes(own: &BTreeMap<&str, &Shape>) -> Option<Signature> {
    for arch in architectures() {
        // the number of classes is not compared
        let Some(expected) = parameters(&arch, 0) else { continue };
        let known: BTreeMap<&str, &Shape> = expected.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
        let repairs = names::repair("", own.keys().copied(), &|name| known.contains_key(name)).unwrap_or_default();
        let renamed: BTreeMap<&str, &str> = repairs.iter().map(|r| (r.from.as_str(), r.to.as_str())).collect();
        let shapes: BTreeMap<&str, &Shape> = own.iter().map(|(n, s)| (*renamed.get(n).unwrap_or(n), *s)).collect();
        let mut features = expected.iter().filter(|(name, _)| name.starts_with("features."));
        // no list is part of another's
        if features.all(|(name, shape)| shapes.get(name.as_str()).is_some_and(|s| *s == shape)) {
            let last = expected.iter().rev().find(|(name, _)| name.ends_with(".weight"));
            let classes = last.and_then(|(name, _)| shapes.get(name.as_str())?.dims().first().copied());
            return Some(Signature { arch, classes });
        }
    }
    resnet(own).or_else(|| autoencoder(own))
}

fn resnet(own: &BTreeMap<&str, &Shape>) -> Option<Signature> {
    let (first, _) = own.iter().find(|(name, _)| name.ends_with("layer1.0.conv1.weight"))?;
    let prefix = first.strip_suffix("layer1.0.conv1.weight")?;
    let has = |name: String| own.contains_key(name.as_str());
    let blocks = |layer: usize| (0..100).take_while(|b| has(format!("{prefix}layer{layer}.{b}.conv1.weight"))).count();
    let found = [1, 2, 3, 4].map(blocks);
    let last = if has(format!("{prefix}layer1.0.conv3.weight")) { "conv3" } else { "conv2" };
    let known = RESNET.iter().find(|(_, blocks, conv)| *blocks == found && *conv == last);
    let arch = known.map_or("a resnet", |(name, ..)| name).to_owned();
    let classes = own.get(format!("{prefix}fc.weight").as_str()).and_then(|s| s.dims().first().copied());
    Some(Signature { arch, classes })
}

fn autoencoder(own: &BTreeMap<&str, &Shape>) -> Option<Signature> {
    let layer = |name: &&str| {
        let name = name.strip_prefix("ae.").unwrap_or(name);
        ["enc1.", "enc2.", "code.", "dec1.", "dec2.", "ae1.", "hd1.", "hd2.", "ae2."]
            .iter()
            .any(|l| name.starts_with(l))
    };
    let all = !own.is_empty() && own.keys().all(layer);
    all.then(|| Signature { arch: "autoencoder".into(), classes: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    /// Weights whose tensors have these shapes; the large ones are few.
    fn seen(list: &[(String, Shape)]) -> Option<Signature> {
        of_shapes(&list.iter().map(|(name, shape)| (name.as_str(), shape)).collect())
    }

    #[test]
    fn parameter_counts_are_torchvisions() {
        let count = |arch: &str| {
            parameters(arch, 1000)
                .unwrap()
                .iter()
                .filter(|(name, _)| !name.contains("running_"))
                .map(|(_, s)| s.len())
                .sum::<usize>()
        };
        for (arch, parameters) in [
            ("vgg11", 132_863_336),
            ("vgg13", 133_047_848),
            ("vgg16", 138_357_544),
            ("vgg19", 143_667_240),
            ("vgg16_bn", 138_365_992),
            ("vgg19_bn", 143_678_248),
            ("densenet121", 7_978_856),
            ("densenet161", 28_681_000),
            ("densenet169", 14_149_480),
            ("densenet201", 20_013_928),
        ] {
            assert_eq!(count(arch), parameters, "{arch}");
        }
    }

    #[test]
    fn every_network_is_told_from_its_own_parameters_with_and_without_classifier() {
        for arch in architectures() {
            let list = parameters(&arch, 7).unwrap();
            assert_eq!(seen(&list), Some(Signature { arch: arch.clone(), classes: Some(7) }));
            let trunk: Vec<_> = list.into_iter().filter(|(name, _)| name.starts_with("features.")).collect();
            assert_eq!(seen(&trunk), Some(Signature { arch, classes: None }));
        }
    }

    #[test]
    fn names_that_need_repairs_are_repaired_first() {
        let list = parameters("densenet121", 14).unwrap();
        let chexnet: Vec<_> = list
            .into_iter()
            .map(|(name, shape)| {
                let name = name
                    .replace(".norm1.", ".norm.1.")
                    .replace(".conv2.", ".conv.2.")
                    .replace("classifier.", "classifier.0.");
                (format!("module.densenet121.{name}"), shape)
            })
            .collect();
        assert_eq!(seen(&chexnet).unwrap().to_string(), "densenet121 with 14 classes");
    }

    #[test]
    fn resnets_and_autoencoders_are_told_and_nothing_else() {
        let named = |names: &[&str]| -> Vec<(String, Shape)> {
            names.iter().map(|n| (n.to_string(), Shape::from([5]))).collect()
        };
        let mut resnet = Vec::new();
        for (layer, blocks) in [(1, 2), (2, 2), (3, 2), (4, 2)] {
            (0..blocks).for_each(|b| resnet.push(format!("layer{layer}.{b}.conv1.weight")));
        }
        resnet.push("fc.weight".into());
        let names: Vec<&str> = resnet.iter().map(String::as_str).collect();
        assert_eq!(seen(&named(&names)).unwrap().to_string(), "resnet18 with 5 classes");
        assert_eq!(seen(&named(&["ae.enc1.weight", "ae.dec2.bias"])).unwrap().arch, "autoencoder");
        assert_eq!(seen(&named(&["features.0.weight", "x"])), None);
        assert_eq!(seen(&[]), None);
        let mut weights = Weights::new("w");
        weights.insert("ae1.weight", Tensor::zeros([1]));
        assert_eq!(looks_like(&weights).unwrap().to_string(), "an autoencoder of a tap");
    }
}
