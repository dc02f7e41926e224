//! candle on its CPU backend, layer by layer as its users write networks.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, Module};
use peers::network::{Step, network};
use peers::weights::Array;
use peers::{Flags, serve};

fn main() -> Result<()> {
    let flags = Flags::read()?;
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(name, flags.threads.to_string()) };
    }
    serve(&flags, "candle-core", |at_once| {
        let images = flags.images(at_once)?.into_iter().map(tensor).collect::<Result<Vec<Tensor>>>()?;
        let steps = network(&flags.model, &flags.weights()?, images[0].dims(), tensor)?;
        Ok(move || {
            let logits = images.iter().map(|x| forward(&steps, x)).collect::<Result<Vec<_>>>()?;
            Ok(logits.concat())
        })
    })
}

fn tensor(Array { shape, values }: Array) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn forward(steps: &[Step<Tensor>], x: &Tensor) -> Result<Vec<f32>> {
    let (mut x, mut kept) = (x.clone(), None);
    for step in steps {
        x = match step {
            Step::Affine { scale, shift } => x.broadcast_mul(scale)?.broadcast_add(shift)?,
            Step::Convolution { weight, bias, stride, padding } => {
                let config = Conv2dConfig { stride: *stride, padding: *padding, ..Conv2dConfig::default() };
                Conv2d::new(weight.clone(), bias.clone(), config).forward(&x)?
            }
            Step::Relu => x.relu()?,
            Step::MaxPool { side, stride, padding } => {
                // zeros, for it has no other padding
                let padded = x.pad_with_zeros(2, *padding, *padding)?.pad_with_zeros(3, *padding, *padding)?;
                padded.max_pool2d_with_stride(*side, *stride)?
            }
            Step::AveragePool { side } => x.avg_pool2d(*side)?,
            Step::Flatten => x.flatten_from(1)?,
            Step::Linear { weight, bias } => Linear::new(weight.clone(), Some(bias.clone())).forward(&x)?,
            Step::Keep => {
                kept = Some(x.clone());
                x
            }
            Step::Join => Tensor::cat(&[&kept.take().context("nothing was kept")?, &x], 1)?,
        };
    }
    Ok(x.flatten_all()?.to_vec1()?)
}
