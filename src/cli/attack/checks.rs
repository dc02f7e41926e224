//! Whether attacks can be believed: an attack that fails says nothing about a network whose gradients are 0, or where more
//! freedom does less (Carlini et al., "On Evaluating Adversarial Robustness", arXiv 1902.06705).

use super::work::{Batch, Wished};
use crate::attack::certificate::falls;
use crate::attack::method::change;
use crate::attack::{Attack, AttackError, Norm, Steps, Victim};
use crate::interval::Share;
use crate::report::adversarial::Row;
use serde::Serialize;

/// Images of the check without bounds.
pub(super) const IMAGES: usize = 256;
/// Its steps: enough to go from any pixel to any other and back.
pub(super) const STEPS: u32 = 20;
/// Share of images that an attack without bounds wins at least, unless gradients lead nowhere.
const UNBOUNDED_MIN: f64 = 0.95;
/// Largest share of images without any gradient that is not worth a warning.
const FLAT_MAX: f64 = 0.01;

/// A check and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// Of what.
    pub name: &'static str,
    /// What was found.
    pub told: String,
    /// Why numbers are not to be believed, where they are not.
    pub warning: Option<String>,
}

/// What was seen of an attack on its way: the steps after which it was watched, and whether each open image was won by then.
struct Path {
    halts: Vec<u32>,
    won: Vec<Vec<bool>>,
}

/// What was seen of attacks on their way.
pub(super) struct Seen(Vec<Path>);

impl Seen {
    pub fn new(attacks: &[Attack]) -> Seen {
        let of = |attack: &Attack| {
            let halts = attack.halts();
            Path { won: vec![Vec::new(); halts.len()], halts }
        };
        Seen(attacks.iter().map(of).collect())
    }

    /// Takes in the path of an attack's next images, images x halts.
    pub fn path(&mut self, attack: usize, path: &[bool], rows: &[Row]) {
        let Path { halts, won } = &mut self.0[attack];
        let images = rows.iter().zip(path.chunks_exact(halts.len().max(1)));
        for (_, path) in images.filter(|(row, _)| !row.already) {
            won.iter_mut().zip(path).for_each(|(won, reached)| won.push(*reached));
        }
    }

    /// All checks, of attacks with their rows.
    pub fn checks(&self, attacked: &[(Attack, Vec<Row>)], unbounded: Share) -> Vec<Check> {
        let mut checks: Vec<Check> = attacked.first().map(|(_, rows)| gradients(rows)).into_iter().collect();
        checks.extend(attacked.iter().zip(&self.0).filter_map(|((attack, _), path)| steps(attack, path)));
        checks.extend(["fgsm", "bim", "pgd"].into_iter().filter_map(|name| sizes(name, attacked)));
        checks.push(without_bounds(unbounded));
        checks
    }
}

/// Whether there are gradients to go by.
fn gradients(rows: &[Row]) -> Check {
    let (images, flat) = (rows.len(), rows.iter().filter(|row| row.zero == 1.0).count());
    let zero = 100.0 * rows.iter().map(|row| f64::from(row.zero)).sum::<f64>() / images.max(1) as f64;
    let warning = (flat as f64 > FLAT_MAX * images as f64).then(|| {
        format!(
            "on {flat} of {images} images every gradient is exactly 0: attacks by gradients do nothing there, which is no sign \
             of a robust network"
        )
    });
    let told = format!("{flat} of {images} images have none; of all pixels {zero:.1} % have a gradient of exactly 0");
    Check { name: "gradients", told, warning }
}

/// Whether more steps win more.
fn steps(attack: &Attack, path: &Path) -> Option<Check> {
    let Path { halts, won } = path;
    let share = |won: &[bool]| 100.0 * won.iter().filter(|w| **w).count() as f64 / won.len().max(1) as f64;
    let pairs: Vec<String> = halts.iter().zip(won).map(|(at, won)| format!("{:.1} % after {at}", share(won))).collect();
    let worse = (1..won.len()).find(|&k| falls(&won[k - 1], &won[k]));
    let warning = worse.map(|k| {
        let (more, fewer) = (halts[k], halts[k - 1]);
        format!("{attack}: fewer images are won after {more} steps than after {fewer}, by more than chance")
    });
    let told = format!("{} wins {}", attack.name(), pairs.join(", "));
    (halts.len() > 1).then_some(Check { name: "steps", told, warning })
}

/// Whether a larger ball wins more, for attacks of the name `name`.
fn sizes(name: &str, attacked: &[(Attack, Vec<Row>)]) -> Option<Check> {
    let mut family: Vec<(f32, Vec<bool>)> = attacked
        .iter()
        .filter(|(attack, _)| attack.name() == name)
        .filter_map(|(attack, rows)| Some((attack.ball()?.1, rows)))
        .map(|(eps, rows)| (eps, rows.iter().filter(|r| !r.already).map(|r| r.success).collect()))
        .collect();
    family.sort_by(|a, b| a.0.total_cmp(&b.0));
    if family.len() < 2 {
        return None;
    }
    let worse = family.windows(2).find(|pair| falls(&pair[0].1, &pair[1].1));
    let warning = worse.map(|pair| {
        let why = if name == "fgsm" { ": one step of that length goes past" } else { "" };
        format!(
            "{name} wins fewer images at eps {} than at eps {}, by more than chance{why}",
            change(pair[1].0),
            change(pair[0].0)
        )
    });
    let told = match &warning {
        Some(warning) => warning.clone(),
        None => format!("{name} at {} sizes never wins fewer images with a larger one", family.len()),
    };
    Some(Check { name: "eps", told, warning })
}

/// Open images that BIM wins when it may go anywhere.
pub(super) fn unbounded(batch: &Batch<'_>, wished: &Wished, victim: &mut Victim<'_>) -> Result<Share, AttackError> {
    let attack = Attack::Bim(Steps { eps: 1.0, step: 0.1, steps: STEPS, norm: Norm::Linf });
    let x = batch.after(&attack, wished, victim)?;
    let (already, won) = (wished.wins(&wished.clean), wished.wins(&victim.forward(&x)?));
    let open: Vec<bool> = already.iter().zip(won).filter(|(already, _)| !**already).map(|(_, won)| won).collect();
    Ok(Share { count: open.iter().filter(|won| **won).count(), of: open.len() })
}

fn without_bounds(share: Share) -> Check {
    let Share { count, of } = share;
    let low = share.value().is_some_and(|share| share < UNBOUNDED_MIN);
    let warning = low.then(|| {
        format!(
            "with eps 1, which allows any image, {STEPS} steps win only {count} of {of}: gradients lead nowhere here, so that low \
             success at small eps is no sign of a robust network"
        )
    });
    Check { name: "no bounds", told: format!("with eps 1, {STEPS} steps win {count} of {of} images"), warning }
}
