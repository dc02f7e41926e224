//! Parameters that a network's graph reads but no file holds: the input's normalisation, and what batch norms in
//! inference come to, alone (scale and shift) or folded into the convolution in front of them. `model` says which there
//! are and how each is made; `backend` makes each as it loads it, so that none is held beside the weights.

use crate::tensor::{Shape, Tensor};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Added to a batch norm's variance, as PyTorch does.
pub const NORM_EPSILON: f64 = 1e-5;

/// How a parameter is made. Norms and convolutions are named by their path.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    /// It is this.
    Given(Tensor),
    /// w/sqrt(var + eps) of a norm.
    Scale {
        /// Its path.
        norm: String,
    },
    /// b - mean·scale of a norm.
    Shift {
        /// Its path.
        norm: String,
    },
    /// A convolution's weight, each output times the scale of the norm behind it. Its bias is then the norm's shift.
    Folded {
        /// The convolution's path.
        conv: String,
        /// The norm's path.
        norm: String,
    },
}

/// Parameters by name, with how each is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Derived(BTreeMap<String, Recipe>);

/// Elements of a weight, in logical order, with their shape.
pub type Elements<'a> = (Shape, Cow<'a, [f32]>);

impl Derived {
    /// Puts a recipe in.
    pub fn insert(&mut self, name: impl Into<String>, recipe: Recipe) {
        self.0.insert(name.into(), recipe);
    }

    /// Names of all, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The parameter `name`, made from the weights that `weight` finds; computed in f64, rounded once. `None` when there is
    /// no such parameter or one of its weights is missing or misshapen.
    pub fn make<'a>(&'a self, name: &str, weight: &dyn Fn(&str) -> Option<Elements<'a>>) -> Option<Elements<'a>> {
        let vector = |values: Vec<f64>| {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            Some((Shape::from([values.len()]), Cow::Owned(values)))
        };
        match self.0.get(name)? {
            Recipe::Given(tensor) => Some((tensor.shape().clone(), Cow::Borrowed(tensor.data()))),
            Recipe::Scale { norm } => vector(norm_scale(norm, weight)?),
            Recipe::Shift { norm } => {
                let scale = norm_scale(norm, weight)?;
                let [bias, mean] = ["bias", "running_mean"].map(|leaf| weight(&format!("{norm}.{leaf}")));
                let (bias, mean) = (bias?.1, mean?.1);
                if bias.len() != scale.len() || mean.len() != scale.len() {
                    return None;
                }
                let shift = |c: usize| f64::from(bias[c]) - f64::from(mean[c]) * scale[c];
                vector((0..scale.len()).map(shift).collect())
            }
            Recipe::Folded { conv, norm } => {
                let scale = norm_scale(norm, weight)?;
                let (shape, data) = weight(&format!("{conv}.weight"))?;
                let inner = data.len() / scale.len().max(1);
                if shape.dims().first() != Some(&scale.len()) || inner * scale.len() != data.len() || inner == 0 {
                    return None;
                }
                let outputs = data.chunks_exact(inner).zip(&scale);
                let folded = outputs.flat_map(|(w, &s)| w.iter().map(move |&w| (f64::from(w) * s) as f32)).collect();
                Some((shape, Cow::Owned(folded)))
            }
        }
    }
}

fn norm_scale<'a>(norm: &str, weight: &dyn Fn(&str) -> Option<Elements<'a>>) -> Option<Vec<f64>> {
    let (gain, variance) = (weight(&format!("{norm}.weight"))?.1, weight(&format!("{norm}.running_var"))?.1);
    let of = |(&g, &v): (&f32, &f32)| f64::from(g) / (f64::from(v) + NORM_EPSILON).sqrt();
    (gain.len() == variance.len()).then(|| gain.iter().zip(&*variance).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(name: &str) -> Option<Elements<'static>> {
        let (shape, values): (Shape, Vec<f32>) = match name {
            "conv.weight" => (Shape::from([2, 1, 1, 2]), vec![1.0, 2.0, 3.0, 4.0]),
            "norm.weight" => (Shape::from([2]), vec![2.0, -1.0]),
            "norm.bias" => (Shape::from([2]), vec![0.5, 0.25]),
            "norm.running_mean" => (Shape::from([2]), vec![1.0, -2.0]),
            "norm.running_var" => (Shape::from([2]), vec![4.0, 0.0]),
            _ => return None,
        };
        Some((shape, Cow::Owned(values)))
    }

    #[test]
    fn a_folded_convolution_and_its_shift_are_the_convolution_and_the_norm() {
        let mut derived = Derived::default();
        let norm = || "norm".to_string();
        derived.insert("w", Recipe::Folded { conv: "conv".into(), norm: norm() });
        derived.insert("b", Recipe::Shift { norm: norm() });
        let (w, b) = (derived.make("w", &|n| weights(n)).unwrap(), derived.make("b", &|n| weights(n)).unwrap());
        assert_eq!(w.0.dims(), [2, 1, 1, 2]);
        for (o, x) in [(0, [0.3f64, -0.7]), (1, [0.9, 0.1])] {
            let (raw, folded) = ([[1.0, 2.0], [3.0, 4.0]][o], &w.1[2 * o..][..2]);
            let y = raw[0] * x[0] + raw[1] * x[1];
            let (gain, bias, mean, var) = [(2.0, 0.5, 1.0, 4.0), (-1.0, 0.25, -2.0, 0.0)][o];
            let want: f64 = gain * (y - mean) / f64::sqrt(var + 1e-5) + bias;
            let got = f64::from(folded[0]) * x[0] + f64::from(folded[1]) * x[1] + f64::from(b.1[o]);
            assert!((got - want).abs() <= 1e-6 * want.abs(), "{got} for {want}");
        }
    }

    #[test]
    fn what_lacks_a_weight_or_a_recipe_is_not_made() {
        let mut derived = Derived::default();
        derived.insert("s", Recipe::Scale { norm: "other".into() });
        assert!(derived.make("s", &|n| weights(n)).is_none() && derived.make("t", &|n| weights(n)).is_none());
    }
}
