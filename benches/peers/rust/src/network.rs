//! VGG and DenseNet in torchvision's names, as steps that an engine takes one behind the other.

use crate::weights::{Array, TensorFile};
use anyhow::{Result, bail, ensure};

/// Of ImageNet's pixels; the normalisation is part of a network.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];
/// Of a batch normalisation.
const EPS: f64 = 1e-5;
/// What VGG's classifier takes, by pixels a side.
const VGG_SIDE: usize = 7;

/// What is done to the value of the step before; `T` is a tensor as the engine has it.
pub enum Step<T> {
    /// Times `scale`, plus `shift`, both 1 x channels x 1 x 1.
    Affine {
        scale: T,
        shift: T,
    },
    Convolution {
        weight: T,
        bias: Option<T>,
        stride: usize,
        padding: usize,
    },
    Relu,
    /// Windows overlap where `side` is more than `stride`. What is padded is never the largest: it stands behind a ReLU.
    MaxPool {
        side: usize,
        stride: usize,
        padding: usize,
    },
    /// Of squares side by side.
    AveragePool {
        side: usize,
    },
    /// Images x everything else.
    Flatten,
    Linear {
        weight: T,
        bias: T,
    },
    /// Keeps the value for [`Step::Join`].
    Keep,
    /// The value that was kept and this one, as the channels of one.
    Join,
}

/// The network `model` for images of `shape`; `tensor` hands a tensor to the engine.
///
/// # Errors
/// A network, a size or weights that there are not, or those of `tensor`.
pub fn network<T>(
    model: &str,
    weights: &TensorFile,
    shape: &[usize],
    tensor: impl FnMut(Array) -> Result<T>,
) -> Result<Vec<Step<T>>> {
    let &[_, 3, side, width] = shape else { bail!("{model} takes images of 3 channels, not {shape:?}") };
    ensure!(side == width, "images of {width}x{side} are not square");
    let mut network = Builder { weights, tensor, steps: Vec::new(), side };
    network.affine(STD.map(|s| 1.0 / s).to_vec(), MEAN.iter().zip(STD).map(|(m, s)| -m / s).collect())?;
    match model {
        "vgg16" => network.vgg([2, 2, 3, 3, 3])?,
        "vgg19" => network.vgg([2, 2, 4, 4, 4])?,
        "densenet121" => network.densenet([6, 12, 24, 16])?,
        other => bail!("there is no {other} here"),
    }
    Ok(network.steps)
}

struct Builder<'a, T, F> {
    weights: &'a TensorFile,
    tensor: F,
    steps: Vec<Step<T>>,
    /// Of the images at this step.
    side: usize,
}

impl<T, F: FnMut(Array) -> Result<T>> Builder<'_, T, F> {
    fn vgg(&mut self, blocks: [usize; 5]) -> Result<()> {
        let mut child = 0;
        for convolutions in blocks {
            for _ in 0..convolutions {
                self.convolution(&format!("features.{child}"), None, 1, 1)?;
                self.steps.push(Step::Relu);
                child += 2;
            }
            self.max_pool(2, 2, 0);
            child += 1;
        }
        // torchvision's adaptive pooling, where its windows are all alike
        let side = self.side;
        ensure!(side.is_multiple_of(VGG_SIDE), "VGG runs here for images of 224, 448, ... pixels a side alone");
        if side > VGG_SIDE {
            self.steps.push(Step::AveragePool { side: side / VGG_SIDE });
        }
        self.steps.push(Step::Flatten);
        for child in [0, 3, 6] {
            if child > 0 {
                self.steps.push(Step::Relu);
            }
            self.linear(&format!("classifier.{child}"))?;
        }
        Ok(())
    }

    fn densenet(&mut self, blocks: [usize; 4]) -> Result<()> {
        self.convolution("features.conv0", Some("features.norm0"), 2, 3)?;
        self.steps.push(Step::Relu);
        self.max_pool(3, 2, 1);
        for (block, layers) in (1..).zip(blocks) {
            for layer in 1..=layers {
                let name = format!("features.denseblock{block}.denselayer{layer}");
                self.steps.push(Step::Keep);
                self.norm_relu(&format!("{name}.norm1"))?;
                self.convolution(&format!("{name}.conv1"), Some(&format!("{name}.norm2")), 1, 0)?;
                self.steps.push(Step::Relu);
                self.convolution(&format!("{name}.conv2"), None, 1, 1)?;
                self.steps.push(Step::Join);
            }
            if block < blocks.len() {
                let name = format!("features.transition{block}");
                self.norm_relu(&format!("{name}.norm"))?;
                self.convolution(&format!("{name}.conv"), None, 1, 0)?;
                self.average_pool(2);
            }
        }
        self.norm_relu("features.norm5")?;
        ensure!(self.side > 0, "the images are too small");
        self.average_pool(self.side);
        self.steps.push(Step::Flatten);
        self.linear("classifier")
    }

    /// A convolution, and the normalisation `norm` behind it as part of its weights.
    fn convolution(&mut self, name: &str, norm: Option<&str>, stride: usize, padding: usize) -> Result<()> {
        let mut weight = self.weights.array(&format!("{name}.weight"))?;
        let &[outputs, .., kernel] = weight.shape.as_slice() else { bail!("{name}.weight has no axes") };
        let bias = match norm {
            None => self.weights.array(&format!("{name}.bias")).ok(),
            Some(norm) => {
                let (scale, shift) = self.norm(norm)?;
                ensure!(scale.len() == outputs, "{norm} is not of {name}'s {outputs} channels");
                for (row, scale) in weight.values.chunks_mut(weight.shape[1..].iter().product()).zip(scale) {
                    row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
                }
                Some(Array { shape: vec![outputs], values: shift.iter().map(|&s| s as f32).collect() })
            }
        };
        self.slide(kernel, stride, padding);
        let (weight, bias) = ((self.tensor)(weight)?, bias.map(&mut self.tensor).transpose()?);
        self.steps.push(Step::Convolution { weight, bias, stride, padding });
        Ok(())
    }

    fn max_pool(&mut self, side: usize, stride: usize, padding: usize) {
        self.slide(side, stride, padding);
        self.steps.push(Step::MaxPool { side, stride, padding });
    }

    /// What a window of `side` leaves of a side.
    fn slide(&mut self, side: usize, stride: usize, padding: usize) {
        self.side = (self.side + 2 * padding).saturating_sub(side) / stride + 1;
    }

    fn average_pool(&mut self, side: usize) {
        self.side /= side;
        self.steps.push(Step::AveragePool { side });
    }

    fn linear(&mut self, name: &str) -> Result<()> {
        let [weight, bias] = ["weight", "bias"].map(|kind| self.weights.array(&format!("{name}.{kind}")));
        let (weight, bias) = ((self.tensor)(weight?)?, (self.tensor)(bias?)?);
        self.steps.push(Step::Linear { weight, bias });
        Ok(())
    }

    fn norm_relu(&mut self, name: &str) -> Result<()> {
        let (scale, shift) = self.norm(name)?;
        self.affine(scale, shift)?;
        self.steps.push(Step::Relu);
        Ok(())
    }

    fn affine(&mut self, scale: Vec<f64>, shift: Vec<f64>) -> Result<()> {
        let mut of = |values: Vec<f64>| {
            let shape = vec![1, values.len(), 1, 1];
            (self.tensor)(Array { shape, values: values.into_iter().map(|v| v as f32).collect() })
        };
        let (scale, shift) = (of(scale)?, of(shift)?);
        self.steps.push(Step::Affine { scale, shift });
        Ok(())
    }

    /// A batch normalisation as scale and shift of each channel.
    fn norm(&self, name: &str) -> Result<(Vec<f64>, Vec<f64>)> {
        let of = |kind: &str| -> Result<Vec<f64>> {
            Ok(self.weights.array(&format!("{name}.{kind}"))?.values.into_iter().map(f64::from).collect())
        };
        let scale: Vec<f64> =
            of("weight")?.iter().zip(of("running_var")?).map(|(w, variance)| w / (variance + EPS).sqrt()).collect();
        let shift =
            of("bias")?.iter().zip(of("running_mean")?).zip(&scale).map(|((b, mean), s)| b - mean * s).collect();
        Ok((scale, shift))
    }
}
