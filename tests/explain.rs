//! CAM and Grad-CAM on a net whose maps lie in front of a global average and one linear layer, where both have closed forms,
//! and Grad-CAM behind two linear layers against central differences; on the f64 reference.

use intervene::backend::reference::Reference;
use intervene::backend::{Backend, Program};
use intervene::explain::{Maps, cam, grad_cam, one_hot};
use intervene::graph::op::{Op, Window};
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::{Graph, NodeId};
use intervene::tensor::{Tensor, TensorMut, TensorRef};

const CLASSES: usize = 3;
const CHANNELS: usize = 4;
const CELLS: usize = 5 * 6;
const IMAGES: usize = 2;
const LABELS: [u32; IMAGES] = [2, 0];

/// Numbers between -1 and 1 without a pattern.
fn number(i: usize) -> f32 {
    ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0
}

/// What follows the global average.
#[derive(Clone, Copy, PartialEq)]
enum Classifier {
    Linear,
    TwoLayers,
}

struct Net {
    program: Box<dyn Program>,
    nodes: [NodeId; 4],
    weights: Vec<(String, Tensor)>,
}

/// conv, ReLU = maps | global average, linear (| ReLU, linear).
fn net(classifier: Classifier) -> Net {
    let mut g = Graph::new();
    let x = g.input("x", [2, 5, 6]);
    let weights: Vec<(String, Tensor)> = [
        ("conv.weight", vec![CHANNELS, 2, 3, 3]),
        ("conv.bias", vec![CHANNELS]),
        ("hidden.weight", vec![8, CHANNELS]),
        ("hidden.bias", vec![8]),
        ("deep.weight", vec![CLASSES, 8]),
        ("head.weight", vec![CLASSES, CHANNELS]),
        ("bias", vec![CLASSES]),
    ]
    .into_iter()
    .enumerate()
    .map(|(k, (name, shape))| (name.to_string(), Tensor::from_fn(shape, |i| number(100 * k + i))))
    .collect();
    let mut parameter = |name: &str| {
        let shape = weights.iter().find(|(n, _)| n == name).unwrap().1.shape().clone();
        g.parameter(name, shape).unwrap()
    };
    let (w, b) = (parameter("conv.weight"), parameter("conv.bias"));
    let (hw, hb, dw) = (parameter("hidden.weight"), parameter("hidden.bias"), parameter("deep.weight"));
    let (head, bias) = (parameter("head.weight"), parameter("bias"));
    let conv = g.conv2d("conv", x, w, b, Window { stride: 1, pad: 1 }).unwrap();
    let maps = g.push("relu", Op::Relu, &[conv]).unwrap();
    let pooled = g.push("pool", Op::GlobalAvgPool, &[maps]).unwrap();
    let logits = if classifier == Classifier::TwoLayers {
        let hidden = g.linear("hidden", pooled, hw, hb).unwrap();
        let hidden = g.push("hidden.relu", Op::Relu, &[hidden]).unwrap();
        g.linear("deep", hidden, dw, bias).unwrap()
    } else {
        g.linear("head", pooled, head, bias).unwrap()
    };
    let seed = g.input("seed", [CLASSES]);
    let gradient_map = grad_cam(&mut g, Maps { maps, logits }, seed).unwrap();
    let map = cam(&mut g, maps, head, seed).unwrap();
    let want = [maps, logits, gradient_map, map];
    let entry = Entry { name: "maps", given: &[x, seed], want: &want, updates: &[], capacity: IMAGES };
    let mut program = Reference.load(plan(&g, &[entry]).unwrap(), &weights).unwrap();
    let pixels: Vec<f32> = (0..IMAGES * 2 * CELLS).map(|i| number(31 * i)).collect();
    program.write(x, TensorRef::F32(&pixels)).unwrap();
    program.write(seed, TensorRef::F32(&one_hot(&LABELS, CLASSES))).unwrap();
    program.run(EntryId(0), IMAGES).unwrap();
    Net { program, nodes: want, weights }
}

impl Net {
    /// Maps, logits, Grad-CAM and CAM.
    fn read(&mut self) -> [Vec<f64>; 4] {
        let nodes = self.nodes;
        nodes.map(|node| {
            let mut values = vec![0.0; IMAGES * self.program.artifact().graph().node(node).shape.len()];
            self.program.read(node, TensorMut::F64(&mut values)).unwrap();
            values
        })
    }

    fn weight(&self, name: &str, i: usize) -> f64 {
        f64::from(self.weights.iter().find(|(n, _)| n == name).unwrap().1.data()[i])
    }
}

#[track_caller]
fn assert_close(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{got} for {want}");
}

#[test]
fn the_mean_of_a_class_activation_map_and_the_bias_make_the_logit() {
    let mut net = net(Classifier::Linear);
    let [_, logits, _, map] = net.read();
    for (image, &label) in LABELS.iter().enumerate() {
        let mean = map[image * CELLS..(image + 1) * CELLS].iter().sum::<f64>() / CELLS as f64;
        let class = label as usize;
        assert_close(mean + net.weight("bias", class), logits[image * CLASSES + class]);
    }
    assert!(map.iter().any(|&v| v < 0.0), "a CAM is signed");
}

#[test]
fn before_a_linear_head_grad_cam_is_the_positive_part_of_cam_over_the_number_of_cells() {
    let [_, _, gradient_map, map] = net(Classifier::Linear).read();
    for (g, c) in gradient_map.iter().zip(&map) {
        assert_close(*g, c.max(0.0) / CELLS as f64);
    }
    assert!(gradient_map.iter().any(|&v| v > 0.0));
}

#[test]
fn grad_cam_weighs_maps_by_the_mean_gradient_of_the_logit() {
    let mut net = net(Classifier::TwoLayers);
    let [maps, logits, gradient_map, _] = net.read();
    // the logit as a function of the maps' means alone
    let logit = |means: &[f64], class: usize| {
        let hidden = (0..8).map(|h| {
            let sum: f64 = (0..CHANNELS).map(|k| net.weight("hidden.weight", h * CHANNELS + k) * means[k]).sum();
            (sum + net.weight("hidden.bias", h)).max(0.0)
        });
        hidden.enumerate().map(|(h, v)| net.weight("deep.weight", class * 8 + h) * v).sum::<f64>()
            + net.weight("bias", class)
    };
    for (image, &label) in LABELS.iter().enumerate() {
        let class = label as usize;
        let of = |k: usize| &maps[(image * CHANNELS + k) * CELLS..(image * CHANNELS + k + 1) * CELLS];
        let means: Vec<f64> = (0..CHANNELS).map(|k| of(k).iter().sum::<f64>() / CELLS as f64).collect();
        assert_close(logit(&means, class), logits[image * CLASSES + class]);
        let alpha = |k: usize| {
            let moved = |by: f64| {
                let mut means = means.clone();
                means[k] += by;
                logit(&means, class)
            };
            (moved(1e-6) - moved(-1e-6)) / 2e-6 / CELLS as f64
        };
        for cell in 0..CELLS {
            let want = (0..CHANNELS).map(|k| alpha(k) * of(k)[cell]).sum::<f64>().max(0.0);
            let got = gradient_map[image * CELLS + cell];
            assert!((got - want).abs() < 1e-9, "{got} for {want}");
        }
    }
    assert!(gradient_map.iter().any(|&v| v > 0.0));
}
