//! The gate in front of causal effects: they are about the host only where the net with the autoencoder answers as it does. Called by
//! every command that measures effects, and by `map`.

use crate::causal::study::SHARD_IMAGES;
use crate::causal::sweep::{Batch, Logits, Subject, Sweep};
use crate::cli::common::Context;
use crate::data::Dataset;
use crate::error::Error;
use crate::model::Head;
use crate::tensor::argmax;

/// What a mean change of probabilities may be unless somebody says otherwise.
pub const MAX_SHIFT: f64 = 0.02;
/// Images that are looked at.
pub const IMAGES: usize = 2000;

/// What is asked of an autoencoder.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Least share of images whose answer it leaves.
    pub min_agreement: f64,
    /// Of findings: largest mean change of a probability by the autoencoder alone.
    pub max_shift: f64,
}

/// How well the autoencoder-inserted net follows its host on clean images.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// Share of images on which it names the same class, or the same most likely finding.
    pub top: f64,
    /// Of findings: mean |change of a probability|.
    pub shift: Option<f64>,
}

impl Agreement {
    /// What to say where it passed a gate only because that was lowered or widened.
    pub fn lowered(&self, limits: Limits) -> Vec<String> {
        let lowered = (limits.min_agreement < 0.95)
            .then(|| format!("the gate was lowered to {} (agreement {:.4})", limits.min_agreement, self.top));
        let shift = self.shift.filter(|_| limits.max_shift > MAX_SHIFT);
        let widened = shift
            .map(|shift| format!("the gate was widened to a mean change of {} (it is {shift:.4})", limits.max_shift));
        lowered.into_iter().chain(widened).collect()
    }
}

/// How well the net follows its host on the first images of `data`, where that is well enough.
///
/// # Errors
/// [`Error::Gate`] when it is not what `limits` ask for.
pub fn gate(
    context: &Context,
    limits: Limits,
    subject: Subject<'_>,
    data: &Dataset,
    batch: Batch,
) -> Result<Agreement, Error> {
    let found = agreement(subject, data, batch, context)?;
    // not a number is no agreement
    let same = found.top >= limits.min_agreement;
    let near = found.shift.is_none_or(|shift| shift <= limits.max_shift);
    if same && near {
        return Ok(found);
    }
    let advice = "train the autoencoder longer, or accept it with";
    let reason = match (found.shift, same) {
        (Some(shift), true) => format!(
            "the autoencoder alone changes probabilities of findings by {shift:.4} on average, more than the {} that causal effects \
             need to be about the host; {advice} --max-shift {:.3} (which is recorded)",
            limits.max_shift,
            (1000.0 * shift).ceil() / 1000.0
        ),
        (shift, _) => format!(
            "the autoencoder-inserted net names the same {} as its host on {:.2} % of clean images, below the {:.0} % that causal \
             effects need to be about the host; {advice} --min-agreement {:.3} (which is recorded)",
            if shift.is_some() { "most likely finding" } else { "class" },
            100.0 * found.top,
            100.0 * limits.min_agreement,
            (1000.0 * found.top).floor() / 1000.0
        ),
    };
    Err(Error::Gate(reason))
}

/// How both nets answer on clean images.
fn agreement(subject: Subject<'_>, data: &Dataset, batch: Batch, context: &Context) -> Result<Agreement, Error> {
    let mut sweep = Sweep::fitting(subject, &[], batch, context.backend())?;
    let (head, classes) = (subject.model.head, sweep.classes());
    let which: Vec<u32> = (0..data.len().min(IMAGES) as u32).collect();
    data.announce(&which);
    let (mut same, mut moved) = (0, 0.0);
    for block in which.chunks(SHARD_IMAGES) {
        let logits: Logits = sweep.outcomes(&data.pixels(block)?)?;
        // a row without a largest logit (NaN) agrees with nothing
        let top = |rows: &[f32]| -> Vec<Option<usize>> { rows.chunks_exact(classes).map(argmax).collect() };
        same += top(&logits.orig).iter().zip(top(&logits.idle)).filter(|(a, b)| a.is_some() && **a == *b).count();
        if head == Head::Sigmoid {
            let (orig, idle) = (head.probabilities(&logits.orig), head.probabilities(&logits.idle));
            moved += orig.iter().zip(&idle).map(|(a, b)| (a - b).abs()).sum::<f64>();
        }
    }
    let images = which.len().max(1) as f64;
    let shift = (head == Head::Sigmoid).then_some(moved / (images * classes as f64));
    Ok(Agreement { top: same as f64 / images, shift })
}
