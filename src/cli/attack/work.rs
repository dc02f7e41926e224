//! The work of `attack`: shard by shard, each saved; then the tables, made from what was saved.

use super::checks::{self, Seen};
use super::{Aim, Config, Done, Loaded, label_of};
use crate::attack::certificate::{Certificate, Wish, eight_bits, from_eight_bits};
use crate::attack::method::Images;
use crate::attack::victim::Alone;
use crate::attack::{Attack, AttackError, Goal, Targets, Victim, losses};
use crate::backend::takes_images;
use crate::causal::perturbation::{Answered, Perturbation};
use crate::causal::study::AttackLabel;
use crate::cli::common::Context;
use crate::cli::study::shard_images;
use crate::data::Dataset;
use crate::error::Error;
use crate::model::Head;
use crate::report::adversarial::{self, ADVERSARIAL, Attacked, Row, Shard, Success, Want};
use crate::report::run::{Manifest, RunDirectory};
use crate::tensor::argmax;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// How and where a run goes.
pub(super) struct Run {
    /// Images a batch.
    pub rows: usize,
    /// Where it goes.
    pub directory: RunDirectory,
    /// Its manifest so far.
    pub manifest: Manifest,
}

/// Pictures of images after an attack.
const PICTURES: &str = "pictures";

/// Runs the attacks into the run's directory.
pub(super) fn execute(
    context: &Context,
    config: &Config,
    loaded: &Loaded,
    data: &Dataset,
    run: Run,
) -> Result<Done, Error> {
    let Run { rows, directory, mut manifest } = run;
    let started = Instant::now();
    let mut alone = loaded.subject(|subject| Alone::load(subject, rows, context.backend()))?;
    takes_images(alone.program(), alone.pixels(), data.shape())?;
    let made = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|e| Error::Failed(format!("{}: cannot create it: {e}", path.display())))
    };
    made(&directory.path(ADVERSARIAL))?;
    for attack in config.attacks.iter().filter(|_| config.pictures > 0) {
        made(&directory.path(PICTURES).join(slug(attack)))?;
    }
    // what stopped an attack: the user, or an error
    let failed = |e: AttackError| match e {
        AttackError::Stopped => Error::Interrupted { resume: directory.finished_path().into() },
        e => e.into(),
    };
    let size = images_a_shard(config, loaded);
    let halts: Vec<usize> = config.attacks.iter().map(|attack| attack.halts().len()).collect();
    let image = loaded.model.input;
    let mut bar = context.ui.progress("attack", data.len() as u64);
    data.announce(&(0..data.len() as u32).collect::<Vec<_>>());
    let mut rows: Vec<Vec<Row>> = vec![Vec::new(); config.attacks.len()];
    let mut seen = Seen::new(&config.attacks);
    for (k, first) in (0..data.len()).step_by(size).enumerate() {
        if context.stopped() {
            bar.finish();
            return Err(failed(AttackError::Stopped));
        }
        let batch = Batch::of(config, loaded.model.head, data, first..data.len().min(first + size))?;
        let want =
            Want { run_id: &manifest.run_id, ids: batch.ids(), halts: &halts, image, classes: loaded.model.classes };
        let path = directory.path(&adversarial::file_name(k));
        let shard = match adversarial::load(&path, &want)? {
            Some(shard) => shard,
            None => {
                let mut victim = alone.victim().until(Some(context.stop.clone()));
                let goal = batch.goal(&mut victim)?;
                let shard = batch.attacked(&mut victim, &goal).map_err(failed).inspect_err(|_| bar.finish())?;
                adversarial::save(&path, &shard, &want)?;
                shard
            }
        };
        let goal = batch.goal_of(&shard.clean)?;
        for (a, (attack, attacked)) in config.attacks.iter().zip(&shard.attacked).enumerate() {
            let made = batch.rows(attack, &shard, attacked, &goal)?;
            seen.path(a, &attacked.path, &made);
            rows[a].extend(made);
            let size = image.iter().product::<usize>().max(1);
            let shown = config.pictures.saturating_sub(first);
            for (x, id) in attacked.x.chunks_exact(size).zip(batch.ids()).take(shown) {
                let name = directory.path(PICTURES).join(slug(attack)).join(format!("{id}.png"));
                adversarial::picture(&name, &eight_bits(x), image)?;
            }
        }
        bar.set((first + batch.ids().len()) as u64);
    }
    bar.finish();
    let attacked: Vec<(Attack, Vec<Row>)> = config.attacks.iter().copied().zip(rows).collect();
    let batch = Batch::of(config, loaded.model.head, data, 0..data.len().min(checks::IMAGES))?;
    let mut victim = alone.victim().until(Some(context.stop.clone()));
    let goal = batch.goal(&mut victim)?;
    let checks = seen.checks(&attacked, checks::unbounded(&batch, &goal, &mut victim).map_err(failed)?);
    adversarial::certificates(&directory.path("certificates.csv"), &manifest.run_id, &attacked)?;
    let success: Vec<Success> = attacked.iter().map(|(attack, rows)| Success::of(*attack, rows)).collect();
    adversarial::success(&directory.path("success.csv"), &manifest.run_id, &success)?;

    let mut warnings = Vec::new();
    if manifest.simulated {
        warnings.push("run on a simulated device: the kernels' results, nothing about a GPU's time".to_string());
    }
    warnings.extend(success.iter().filter(|s| s.outside > 0).map(|s| {
        format!("{}: {} images left the ball or 0 to 1, or are not numbers (see certificates.csv)", s.attack, s.outside)
    }));
    warnings.extend(checks.iter().filter_map(|check| check.warning.clone()));
    manifest.warnings = warnings.clone();
    manifest.results.insert("checks".into(), json!(checks));
    manifest.timing.insert("attack_seconds".into(), json!(started.elapsed().as_secs_f64()));
    let run_id = manifest.run_id.clone();
    let directory = directory.finish(&manifest)?;
    Ok(Done { success, checks, warnings, directory, run_id })
}

/// `fgsm-0.3`, `pgd-l2-2`, `jsma-1-0.1`: an attack as the name of a directory.
fn slug(attack: &Attack) -> String {
    match (attack.ball(), attack) {
        (Some((norm, eps)), _) if norm.is_linf() => format!("{}-{eps}", attack.name()),
        (Some((norm, eps)), _) => format!("{}-{}-{eps}", attack.name(), norm.name()),
        (None, Attack::Jsma(jsma)) => format!("jsma-{}-{}", jsma.theta, jsma.gamma),
        (None, _) => attack.name().into(),
    }
}

/// Images a shard, by what the gradients of one take.
fn images_a_shard(config: &Config, loaded: &Loaded) -> usize {
    let pixels: usize = loaded.model.input.iter().product();
    let gradients: f64 = config.attacks.iter().map(|attack| f64::from(attack.gradients(pixels))).sum();
    shard_images(2.0 * (gradients + 1.0) * loaded.macs())
}

/// Some images of a run.
pub(super) struct Batch<'a> {
    config: &'a Config,
    head: Head,
    data: &'a Dataset,
    /// Their positions in the data.
    which: Vec<u32>,
    pixels: Vec<f32>,
}

/// What is wished for of some images, and the targets that attacks move from or to for it.
pub(super) struct Wished {
    pub wishes: Vec<Wish>,
    /// Logits of the images before.
    pub clean: Vec<f32>,
    targets: Answered,
    towards: bool,
}

impl Wished {
    fn targets(&self) -> Targets<'_> {
        self.targets.borrowed()
    }

    fn goal(&self) -> Goal<'_> {
        if self.towards { Goal::towards(self.targets()) } else { self.targets().into() }
    }

    fn classes(&self) -> usize {
        (self.clean.len() / self.wishes.len().max(1)).max(1)
    }

    /// Whether each image's wish is reached by `logits`.
    pub fn wins(&self, logits: &[f32]) -> Vec<bool> {
        let rows = self.clean.chunks_exact(self.classes()).zip(logits.chunks_exact(self.classes()));
        self.wishes.iter().zip(rows).map(|(wish, (clean, logits))| wish.reached(clean, logits)).collect()
    }
}

impl<'a> Batch<'a> {
    fn of(config: &'a Config, head: Head, data: &'a Dataset, range: std::ops::Range<usize>) -> Result<Self, Error> {
        let which: Vec<u32> = range.map(|i| i as u32).collect();
        Ok(Batch { config, head, data, pixels: data.pixels(&which)?, which })
    }

    fn ids(&self) -> &'a [u64] {
        let first = self.which.first().map_or(0, |&i| i as usize);
        &self.data.ids()[first..first + self.which.len()]
    }

    /// The images with their ids.
    fn images(&self) -> Images<'_> {
        Images { pixels: &self.pixels, ids: self.ids(), seed: self.config.seed }
    }

    /// What is wished for, by what the network answers now.
    fn goal(&self, victim: &mut Victim<'_>) -> Result<Wished, Error> {
        self.goal_of(&victim.forward(&self.pixels)?)
    }

    /// What is wished for of images with these logits.
    fn goal_of(&self, clean: &[f32]) -> Result<Wished, Error> {
        let classes = (clean.len() / self.which.len().max(1)).max(1);
        let each = clean.chunks_exact(classes).zip(&self.which).map(|(row, &i)| {
            let wish = self.config.aim.wish(self.head, row, label_of(self.data, i as usize, self.head));
            wish.ok_or_else(|| Error::Usage(format!("--attack-label true: image {i} has no label")))
        });
        let wishes: Vec<Wish> = each.collect::<Result<_, _>>()?;
        let (targets, towards) = self.targets(clean, classes, &wishes)?;
        Ok(Wished { wishes, clean: clean.to_vec(), targets, towards })
    }

    fn targets(&self, clean: &[f32], classes: usize, wishes: &[Wish]) -> Result<(Answered, bool), Error> {
        if self.head == Head::Softmax {
            let class = |wish: &Wish| match wish {
                Wish::NotClass(class) | Wish::Class(class) => *class,
                Wish::OtherFindings | Wish::Finding { .. } => 0,
            };
            let towards = wishes.iter().any(|wish| matches!(wish, Wish::Class(_)));
            return Ok((Answered::Classes(wishes.iter().map(class).collect()), towards));
        }
        let (data, head) = (self.data, self.head);
        let label =
            |attack_label| Perturbation { data, head, classes, attack_label, file: None }.targets(&self.which, clean);
        let Aim::Finding { label: finding, present } = self.config.aim else {
            let asked = if let Aim::Other { label } = self.config.aim { label } else { AttackLabel::Predicted };
            return Ok((label(asked)?, false));
        };
        let Answered::Findings(mut findings) = label(AttackLabel::Predicted)? else {
            return Err(Error::Usage("a finding is no target of a network that answers with a class".into()));
        };
        // all as they are but the one
        let wanted = f32::from(u8::from(present));
        findings.iter_mut().skip(finding as usize).step_by(classes).for_each(|finding| *finding = wanted);
        Ok((Answered::Findings(findings), true))
    }

    /// The images after every attack.
    fn attacked(&self, victim: &mut Victim<'_>, wished: &Wished) -> Result<Shard, AttackError> {
        let gradient = victim.input_gradient(&self.pixels, wished.targets())?;
        let image = (self.pixels.len() / self.which.len().max(1)).max(1);
        let zero = |g: &[f32]| g.iter().filter(|g| **g == 0.0).count() as f32 / g.len() as f32;
        let zero = gradient.chunks_exact(image).map(zero).collect();
        let mut attacked = Vec::with_capacity(self.config.attacks.len());
        for attack in &self.config.attacks {
            // won after each halt
            let mut won: Vec<Vec<bool>> = Vec::new();
            let mut watch = |_, x: &[f32], victim: &mut Victim<'_>| -> Result<(), AttackError> {
                won.push(wished.wins(&victim.forward(x)?));
                Ok(())
            };
            let x = attack.run_watched(victim, self.images(), wished.goal(), Some(&mut watch))?;
            let logits = victim.forward(&x)?;
            let rounded = victim.forward(&from_eight_bits(&eight_bits(&x)))?;
            let path = (0..self.which.len()).flat_map(|i| won.iter().map(move |at| at[i])).collect();
            attacked.push(Attacked { x, logits, rounded, path });
        }
        Ok(Shard { ids: self.ids().to_vec(), clean: wished.clean.clone(), zero, attacked })
    }

    /// What `attack` came to on each image.
    fn rows(&self, attack: &Attack, shard: &Shard, attacked: &Attacked, wished: &Wished) -> Result<Vec<Row>, Error> {
        let (classes, image) = (wished.classes(), self.pixels.len() / self.which.len().max(1));
        let before = losses(&shard.clean, classes, wished.targets())?;
        let after = losses(&attacked.logits, classes, wished.targets())?;
        let rows = wished.wishes.iter().enumerate().map(|(i, &wish)| {
            let row = i * classes..(i + 1) * classes;
            let [clean, logits, rounded] =
                [&shard.clean[row.clone()], &attacked.logits[row.clone()], &attacked.rounded[row]];
            let pixels = i * image..(i + 1) * image;
            Row {
                id: shard.ids[i],
                label: label_of(self.data, self.which[i] as usize, self.head),
                wish,
                already: wish.reached(clean, clean),
                success: wish.reached(clean, logits),
                success_8bit: wish.reached(clean, rounded),
                others_kept: wish.others_kept(clean, logits),
                certificate: Certificate::of(attack, &self.pixels[pixels.clone()], &attacked.x[pixels]),
                loss: [before[i], after[i]],
                answers: [clean, logits, rounded].map(|row| answer(self.head, row)),
                zero: shard.zero[i],
            }
        });
        Ok(rows.collect())
    }

    /// The images after `attack`, for a check.
    pub fn after(&self, attack: &Attack, wished: &Wished, victim: &mut Victim<'_>) -> Result<Vec<f32>, AttackError> {
        attack.run(victim, self.images(), wished.goal())
    }
}

/// A class, or findings joined by `|`; nothing where logits are not numbers.
fn answer(head: Head, logits: &[f32]) -> String {
    match head {
        Head::Softmax => argmax(logits).map_or(String::new(), |class| class.to_string()),
        Head::Sigmoid => {
            let present = logits.iter().enumerate().filter(|(_, o)| **o > 0.0);
            present.map(|(j, _)| j.to_string()).collect::<Vec<_>>().join("|")
        }
    }
}
