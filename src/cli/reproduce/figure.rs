//! Figure 3 of the paper as numbers: how far an attack moves causal effect maps and class activation maps of the first test
//! images, as a run of `map` inside the reproduction's directory. The paper shows pictures; claim (e) is what they are to say.

use super::{Args, here, phase};
use crate::attack::{Attack, Attacked, Norm};
use crate::causal::study::Input;
use crate::cli::common::{Context, Cost};
use crate::cli::gate::Agreement;
use crate::cli::map::{Done, Part, Place, twins};
use crate::cli::study::{self, Config, Loaded};
use crate::data::Dataset;
use crate::error::Error;
use crate::report::page::MAPS;
use crate::report::run::RunDirectory;

/// Images where nobody says how many: half a minute on two cores, and intervals a tenth of what they hold.
const IMAGES: usize = 500;
/// A size at which an attack changes answers and hardly the image: at the paper's 0.3 no map is left to compare.
const SMALL: f32 = (8.0f64 / 255.0) as f32;

/// How many images' maps a reproduction makes: none where nothing would be said of them.
///
/// # Errors
/// [`Error::Usage`] where maps are asked for that the study's inputs do not give.
pub fn images(args: &Args, study: &Config) -> Result<Option<usize>, Error> {
    let inputs = inputs(&study.inputs);
    let reason = if study.victim != Attacked::Host {
        Some("--victim inserted: maps are of images that attack the host")
    } else if inputs.is_empty() {
        Some("no attack of the run has an eps")
    } else if twins(&inputs).is_some() {
        Some("two sizes of an attack are the same to five digits")
    } else {
        None
    };
    match (args.maps, reason) {
        (Some(0), _) | (None, Some(_)) => Ok(None),
        (Some(asked), Some(reason)) => Err(Error::Usage(format!("--maps {asked}: {reason}; leave it out, or give 0"))),
        (asked, None) => Ok(Some(asked.unwrap_or(IMAGES))),
    }
}

/// The inputs of maps in a study of `inputs`: FGSM at every size that the study has it at and, in pixels, at 8/255; without it, the
/// study's other attacks that have a size. With random signs of those sizes.
fn inputs(inputs: &[Input]) -> Vec<Input> {
    let attacks = inputs.iter().filter_map(|input| match input {
        Input::Attack(attack) => attack.ball().map(|ball| (*attack, ball)),
        _ => None,
    });
    let (fgsm, others): (Vec<_>, Vec<_>) = attacks.partition(|(attack, _)| matches!(attack, Attack::Fgsm { .. }));
    let mut chosen = if fgsm.is_empty() { others } else { fgsm };
    if let Some((Attack::Fgsm { norm: Norm::Linf, .. }, (norm, _))) = chosen.first().copied() {
        chosen.push((Attack::Fgsm { eps: SMALL, norm }, (norm, SMALL)));
    }
    // the gentlest first; one that is there twice would be told apart from itself
    chosen.sort_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
    chosen.dedup_by(|(a, _), (b, _)| a == b);
    let mut controls: Vec<Input> = Vec::new();
    for &(_, (norm, eps)) in &chosen {
        let control = Input::Noise { eps, norm };
        if !controls.contains(&control) {
            controls.push(control);
        }
    }
    chosen.into_iter().map(|(attack, _)| Input::Attack(attack)).chain(controls).collect()
}

/// What the maps of `count` images cost beside the study.
///
/// # Errors
/// [`Error::Backend`].
pub fn cost(context: &Context, study: &Config, loaded: &Loaded, count: usize) -> Result<Cost, Error> {
    Part::of(study, loaded, inputs(&study.inputs), count)?.cost(context, count)
}

/// The study whose network maps explain, and its images.
pub struct Subject<'a> {
    /// Its configuration, with the places of weights as manifests have them.
    pub study: &'a Config,
    /// Its network.
    pub loaded: &'a Loaded,
    /// What its gate found.
    pub agreement: &'a Agreement,
    /// All its images.
    pub data: &'a Dataset,
    /// What they are called in tables.
    pub part: &'static str,
}

/// Makes the maps of the first `count` images, or what is missing of them, in `directory`.
///
/// # Errors
/// [`Error::Interrupted`] with what to resume, or what went wrong.
pub fn maps(
    context: &Context,
    subject: &Subject<'_>,
    count: usize,
    directory: &RunDirectory,
    batch: &str,
) -> Result<Done, Error> {
    let Subject { study, loaded, agreement, data, part } = *subject;
    let images = study::first_images(data, Some(count))?;
    let made = Part::of(study, loaded, inputs(&study.inputs), count)?;
    context.ui.log(format!("maps of the first {} images", images.len()));
    // the maps of a run that was stopped behind them are there: they are read, and told of again
    RunDirectory::reopen(&directory.path(MAPS))?;
    let (path, resume) = phase(directory, MAPS, "map")?;
    let place = Place { path, resume, rows: study::checked_batch(batch)?, part };
    made.run(context, &images, (study, agreement), place).map_err(|e| here(e, directory))
}

/// What the maps say, for the reproduction's text.
pub fn told(done: &Done) -> String {
    format!("Figure 3 of the paper as numbers: maps of the first {} test images\n\n{}", done.images(), done.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Steps;
    use crate::causal::fill::Fill;
    use crate::causal::mask::Region;

    fn fgsm(eps: f32) -> Input {
        Input::Attack(Attack::Fgsm { eps, norm: Norm::Linf })
    }

    fn noise(eps: f32) -> Input {
        Input::Noise { eps, norm: Norm::Linf }
    }

    #[test]
    fn maps_are_attacked_as_the_study_is_and_at_a_small_size_with_noise_of_each() {
        let masked = Input::Pwm { masks: 1, fill: Fill::Value(0.0), region: Region::Grid10 };
        let want = [fgsm(SMALL), fgsm(0.3), noise(SMALL), noise(0.3)];
        assert_eq!(inputs(&[masked, fgsm(0.3), noise(0.3)]), want);
        assert_eq!(inputs(&[fgsm(SMALL), fgsm(0.3)]), want);
        let steps = Steps { eps: 0.1, step: 0.05, steps: 3, norm: Norm::Linf };
        let bim = Input::Attack(Attack::Bim(steps));
        assert_eq!(inputs(&[bim, noise(0.1)]), [bim, noise(0.1)]);
        // 8/255 in L2 would be no attack
        let far = Input::Attack(Attack::Fgsm { eps: 1.5, norm: Norm::L2 });
        assert_eq!(inputs(&[far]), [far, Input::Noise { eps: 1.5, norm: Norm::L2 }]);
        assert_eq!(inputs(&[masked, noise(0.3)]), []);
    }
}
