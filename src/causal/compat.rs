//! `--compat icip2019`: the arithmetic of the paper's published notebooks, each of its faults a switch, so that a reader sees
//! which fault moves which number. No study's own number is made by it.
//!
//! What the notebooks do (the authors' repository jjaacckkyy63/Causal-Intervention-AE-wAdvImg; read, not copied): [`Fault`]. Not
//! among them, for they are about training or files and not about arithmetic: an autoencoder that is trained with the node at 0
//! already, losses added twice or detached, networks left in training mode, and adversarial images that were damaged as they were
//! saved (floats cast to bytes, 3 x 224 x 224 read as a picture of 224 x 3 pixels).

use super::analysis::responses;
use super::effect::{Responses, softmax_change};
use super::intervention::NodeSet;
use super::study::{Answers, Input, Shard};
use super::{CausalError, named};
use crate::answer::difference;
use crate::model::Head;
use rayon::prelude::*;
use serde::Deserialize;

/// A fault of the published arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Findings that a sigmoid answers go through a softmax over all of them, and p (q - p) is summed. Classes: no difference.
    SoftmaxOverFindings,
    /// p is the network without the autoencoder, so that the autoencoder's own change counts as the node's.
    BaselineOrig,
    /// Masked and attacked images pass the softmax twice, clean ones once. Of a sigmoid head only with the first.
    DoubleSoftmax,
    /// Clean and masked images have p - q, attacked ones q - p.
    Sign,
    /// On attacked images the node is never set to 0.
    NotZeroed,
    /// Masks lie outside of the image: nothing is masked.
    MaskOutside,
    /// One image stands for all: the first.
    OneImage,
    /// Effects of images are added up instead of averaged. Not with the one before.
    Sum,
}

named!(Fault, "fault", {
    SoftmaxOverFindings => "softmax-over-findings",
    BaselineOrig => "baseline-orig",
    DoubleSoftmax => "double-softmax",
    Sign => "sign",
    NotZeroed => "not-zeroed",
    MaskOutside => "mask-outside",
    OneImage => "one-image",
    Sum => "sum",
});

/// The faults of the notebooks behind the paper's tables: all but [`Fault::Sum`], which one notebook has.
pub const ICIP2019: [Fault; 7] = [
    Fault::SoftmaxOverFindings,
    Fault::BaselineOrig,
    Fault::DoubleSoftmax,
    Fault::Sign,
    Fault::NotZeroed,
    Fault::MaskOutside,
    Fault::OneImage,
];

/// What is done to an image, as far as faults go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Clean,
    Masked,
    Attacked,
}

fn kind(input: &Input) -> Kind {
    match input {
        Input::None => Kind::Clean,
        Input::Pwm { .. } => Kind::Masked,
        // noise and JPEG stand where an adversarial image would
        Input::Attack(_) | Input::Noise { .. } | Input::Jpeg { .. } => Kind::Attacked,
    }
}

/// The class-weighted effect of set `set` on one image with these faults.
fn effect(here: &Responses, set: usize, kind: Kind, faults: &[Fault]) -> Result<f64, CausalError> {
    let has = |fault| faults.contains(&fault);
    let head = if has(Fault::SoftmaxOverFindings) { Head::Softmax } else { here.head() };
    let idle = if has(Fault::BaselineOrig) { here.orig() } else { here.idle() };
    let done = if has(Fault::NotZeroed) && kind == Kind::Attacked { here.idle() } else { here.zeroed(set)? };
    let mut p = head.of(idle);
    let mut effects = difference(head, &p, idle, done);
    if has(Fault::DoubleSoftmax) && head == Head::Softmax && kind != Kind::Clean {
        // probabilities are taken for logits, so their change is the change of logits
        p = head.of(&p);
        effects = softmax_change(&p, &effects);
    }
    let effect = head.weighted(&p, &effects);
    Ok(if has(Fault::Sign) && kind != Kind::Attacked { -effect } else { effect })
}

/// Effects of every input and set by each arithmetic (a list of faults): inputs x sets, over images the mean, or what the faults make
/// of it. `inputs` are the study's, the clean one first; an image's value under several masks is its mean over them.
///
/// # Errors
/// [`CausalError`] when shards do not hold those inputs and sets.
pub fn effects(
    shards: &[Shard],
    inputs: &[Input],
    sets: &[NodeSet],
    (head, classes): (Head, usize),
    arithmetics: &[&[Fault]],
) -> Result<Vec<Vec<f64>>, CausalError> {
    let width = inputs.len() * sets.len();
    let mut sums = vec![vec![0.0; width]; arithmetics.len()];
    let mut images = 0usize;
    for shard in shards {
        // images apart, then added in their order, so that threads do not show
        let rows = (0..shard.ids.len()).into_par_iter().map(|i| -> Result<Vec<f64>, CausalError> {
            let of = |answers: &Answers| responses(answers, i, sets.len(), head, classes);
            let clean = of(&shard.answers[0])?;
            let mut row = Vec::with_capacity(arithmetics.len() * width);
            let masks: Vec<Vec<Responses>> = inputs
                .iter()
                .map(|input| shard.answers.iter().filter(|a| a.input == *input).map(of).collect())
                .collect::<Result<_, _>>()?;
            for faults in arithmetics {
                for (input, masks) in inputs.iter().zip(&masks) {
                    let kind = kind(input);
                    let unmasked = kind == Kind::Masked && faults.contains(&Fault::MaskOutside);
                    let seen = if unmasked { std::slice::from_ref(&clean) } else { masks.as_slice() };
                    for set in 0..sets.len() {
                        let of_masks = seen.iter().map(|here| effect(here, set, kind, faults));
                        row.push(of_masks.sum::<Result<f64, CausalError>>()? / seen.len() as f64);
                    }
                }
            }
            Ok(row)
        });
        for row in rows.collect::<Result<Vec<_>, _>>()? {
            for ((sums, row), faults) in sums.iter_mut().zip(row.chunks_exact(width.max(1))).zip(arithmetics) {
                if images == 0 || !faults.contains(&Fault::OneImage) {
                    sums.iter_mut().zip(row).for_each(|(sum, effect)| *sum += effect);
                }
            }
            images += 1;
        }
    }
    for (sums, faults) in sums.iter_mut().zip(arithmetics) {
        if !faults.contains(&Fault::Sum) && !faults.contains(&Fault::OneImage) {
            sums.iter_mut().for_each(|sum| *sum /= images as f64);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Attack, Norm};
    use crate::causal::analysis::{Columns, Quantity};
    use crate::causal::effect::Reading;
    use crate::causal::fill::Fill;
    use crate::causal::mask::Region;
    use crate::causal::sweep::Logits;
    use crate::random::Stream;

    const SETS: usize = 3;

    fn study(classes: usize, scale: f32) -> (Vec<Shard>, Vec<Input>, Vec<NodeSet>) {
        let inputs = vec![
            Input::None,
            Input::Pwm { masks: 2, fill: Fill::Value(0.0), region: Region::Grid10 },
            Input::Attack(Attack::Fgsm { eps: 0.3, norm: Norm::Linf }),
        ];
        let n = 6;
        let answers = inputs.iter().flat_map(|input| (0..input.repeats()).map(move |mask| (*input, mask)));
        let answers = answers.enumerate().map(|(at, (input, mask))| {
            let stream = Stream::new(at as u64, "test");
            let some = |from: u64, len: usize| -> Vec<f32> {
                (0..len).map(|i| scale * (stream.uniform(from, i as u32) - 0.5)).collect()
            };
            let (orig, idle, done) = (some(1, n * classes), some(2, n * classes), some(3, n * SETS * classes));
            Answers { input, mask, fraction: vec![], logits: Logits { orig, idle, done, live: vec![true; n * SETS] } }
        });
        let shard = Shard { first: 0, ids: (0..6).collect(), labels: vec![0; 6], answers: answers.collect() };
        let sets = (0..SETS).map(|node| NodeSet::of(&[node], SETS).unwrap()).collect();
        (vec![shard], inputs, sets)
    }

    #[test]
    fn without_faults_it_is_the_studys_own_arithmetic() {
        for head in [Head::Softmax, Head::Sigmoid] {
            let (shards, inputs, sets) = study(5, 6.0);
            let columns = Columns::of(&shards, head, 5).unwrap();
            let got = effects(&shards, &inputs, &sets, (head, 5), &[&[]]).unwrap().remove(0);
            for (at, got) in got.into_iter().enumerate() {
                let (input, set) = (at / SETS, at % SETS);
                let reading = if input == 0 { Reading::Z0 } else { Reading::R1 };
                let want = columns.mean(input, set, Quantity::Ece(reading));
                assert!((got - want).abs() <= 1e-15, "{got} {want}");
            }
        }
    }

    #[test]
    fn each_fault_does_what_it_says_and_nothing_else() {
        let (shards, inputs, sets) = study(5, 6.0);
        let columns = Columns::of(&shards, Head::Softmax, 5).unwrap();
        let of = |faults: &[Fault]| effects(&shards, &inputs, &sets, (Head::Softmax, 5), &[faults]).unwrap().remove(0);
        let right = of(&[]);
        let [clean, masked, attacked] = [0, 1, 2].map(|k: usize| k * SETS..(k + 1) * SETS);
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-14;
        // the two that a study shows as artefacts too
        for (fault, quantity) in
            [(Fault::DoubleSoftmax, Quantity::DoubleSoftmax), (Fault::BaselineOrig, Quantity::BaselineOrig)]
        {
            let got = of(&[fault]);
            for at in masked.clone().chain(attacked.clone()) {
                assert!(near(got[at], columns.mean(at / SETS, at % SETS, quantity)), "{fault}");
            }
        }
        assert_eq!(of(&[Fault::DoubleSoftmax])[clean.clone()], right[clean.clone()]);
        let sign = of(&[Fault::Sign]);
        assert!(sign[..2 * SETS].iter().zip(&right).all(|(a, b)| near(*a, -b)));
        assert_eq!(sign[attacked.clone()], right[attacked.clone()]);
        let outside = of(&[Fault::MaskOutside]);
        assert!(outside[masked.clone()].iter().zip(&right[clean.clone()]).all(|(a, b)| near(*a, *b)));
        // nothing is done to a node: the effect is exactly 0, and with the host as baseline the autoencoder's own
        assert_eq!(of(&[Fault::NotZeroed])[attacked.clone()], [0.0; SETS]);
        let own = of(&[Fault::NotZeroed, Fault::BaselineOrig])[attacked.clone()].to_vec();
        assert!(own[0] != 0.0 && own.iter().all(|v| *v == own[0]), "{own:?}");
        assert!(of(&[Fault::Sum]).iter().zip(&right).all(|(a, b)| near(*a, 6.0 * b)));
        let first = Columns::of(&shards, Head::Softmax, 5).unwrap();
        let one = of(&[Fault::OneImage]);
        for (at, one) in one.into_iter().enumerate() {
            let reading = if at < SETS { Reading::Z0 } else { Reading::R1 };
            assert!(near(one, first.get(at / SETS, at % SETS, Quantity::Ece(reading))[0]), "{at}");
        }
        // several at once are each by itself
        let lists: [&[Fault]; 3] = [&[Fault::OneImage], &[], &[Fault::Sum]];
        let together = effects(&shards, &inputs, &sets, (Head::Softmax, 5), &lists).unwrap();
        assert_eq!(together, lists.map(of));
        // classes have a softmax already, findings get one
        assert_eq!(of(&[Fault::SoftmaxOverFindings]), right);
        let findings =
            |faults: &[Fault]| effects(&shards, &inputs, &sets, (Head::Sigmoid, 5), &[faults]).unwrap().remove(0);
        assert_eq!(findings(&[Fault::SoftmaxOverFindings]), right);
        assert_eq!(findings(&[Fault::DoubleSoftmax]), findings(&[]));
    }

    /// 18: two softmaxes shrink |ECE| of a confident network 35 to 45 times for ten classes.
    #[test]
    fn a_second_softmax_alone_shrinks_effects_of_a_confident_network() {
        let (mut shards, inputs, sets) = study(10, 1.0);
        for answers in &mut shards[0].answers {
            let raise = |logits: &mut Vec<f32>, by: f32| logits.iter_mut().step_by(10).for_each(|o| *o += by);
            raise(&mut answers.logits.idle, 12.0);
            raise(&mut answers.logits.done, 10.0);
        }
        let of = |faults: &[Fault]| effects(&shards, &inputs, &sets, (Head::Softmax, 10), &[faults]).unwrap().remove(0);
        let (right, twice) = (of(&[]), of(&[Fault::DoubleSoftmax]));
        for at in SETS..3 * SETS {
            let ratio = right[at] / twice[at];
            assert!((30.0..45.0).contains(&ratio), "{ratio}");
        }
    }
}
