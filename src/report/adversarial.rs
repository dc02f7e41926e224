//! What a run of `attack` leaves: `adversarial/shard-00000.safetensors`, the images after each attack with what the network
//! makes of them, written whole or not at all; `certificates.csv`, a row an image and attack; `success.csv`, a row an attack;
//! pictures as PNG.
//!
//! A shard holds `id` (i64, images), `clean` (images x classes logits), `zero` (share of pixels whose gradient is
//! exactly 0), and for attack `k` in order `k.x` (images x C x H x W), `k.logits` and `k.rounded` (after 8-bit rounding),
//! `k.path` (u8, images x watched steps: whether the wish was reached by then).

use super::run::SCHEMA_VERSION;
use super::table::{number, optional};
use crate::atomic::write_atomic;
use crate::attack::Attack;
use crate::attack::certificate::{Certificate, Wish};
use crate::error::Error;
use crate::interval::{Interval, Share};
use crate::picture::{self, Channels};
use crate::tensor::Shape;
use crate::weights::safetensors::{self, Elements, TensorFile};
use std::collections::BTreeMap;
use std::path::Path;

/// Where shards are in the run directory.
pub const ADVERSARIAL: &str = "adversarial";

/// Name of a shard's file in the run directory.
pub fn file_name(shard: usize) -> String {
    format!("{ADVERSARIAL}/shard-{shard:05}.safetensors")
}

/// Some images after every attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    /// Image ids.
    pub ids: Vec<u64>,
    /// Logits of the images before.
    pub clean: Vec<f32>,
    /// Share of pixels of each image whose gradient is exactly 0.
    pub zero: Vec<f32>,
    /// One for each attack.
    pub attacked: Vec<Attacked>,
}

/// The images after an attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Attacked {
    /// Pixels.
    pub x: Vec<f32>,
    /// What the network makes of them.
    pub logits: Vec<f32>,
    /// What it makes of them as 8 bits a channel.
    pub rounded: Vec<f32>,
    /// Images x watched steps: whether the wish was reached by then.
    pub path: Vec<bool>,
}

/// What a shard must hold to be taken up again.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Whose shard it is.
    pub run_id: &'a str,
    /// Its images.
    pub ids: &'a [u64],
    /// For each attack, how often it is watched.
    pub halts: &'a [usize],
    /// C, H and W.
    pub image: [usize; 3],
    /// Answers of the network.
    pub classes: usize,
}

/// Saves a shard.
///
/// # Errors
/// [`Error::Weights`] with the path when it cannot be written.
pub fn save(path: &Path, shard: &Shard, want: &Want<'_>) -> Result<(), Error> {
    let n = shard.ids.len();
    let [c, h, w] = want.image;
    let ids: Vec<i64> = shard.ids.iter().map(|&id| id as i64).collect();
    let rows = |width: usize| Shape::from([n, width]);
    let mut tensors: Vec<(String, Shape, Elements<'_>)> = vec![
        ("id".into(), Shape::from([n]), Elements::from(ids)),
        ("clean".into(), rows(want.classes), Elements::from(shard.clean.as_slice())),
        ("zero".into(), Shape::from([n]), Elements::from(shard.zero.as_slice())),
    ];
    for (k, a) in shard.attacked.iter().enumerate() {
        let path: Vec<u8> = a.path.iter().map(|&reached| reached.into()).collect();
        tensors.push((format!("{k}.x"), Shape::from([n, c, h, w]), Elements::from(a.x.as_slice())));
        tensors.push((format!("{k}.logits"), rows(want.classes), Elements::from(a.logits.as_slice())));
        tensors.push((format!("{k}.rounded"), rows(want.classes), Elements::from(a.rounded.as_slice())));
        tensors.push((format!("{k}.path"), rows(path.len() / n.max(1)), Elements::from(path)));
    }
    let metadata = BTreeMap::from([("run_id".to_string(), want.run_id.to_string())]);
    let list: Vec<(&str, &Shape, Elements<'_>)> =
        tensors.iter().map(|(name, shape, elements)| (name.as_str(), shape, elements.clone())).collect();
    Ok(safetensors::write(path, &list, &metadata)?)
}

/// Loads a shard of a run; `Ok(None)` when there is no such file.
///
/// # Errors
/// [`Error::Input`] when the file is damaged or another run's: remove it and resume.
pub fn load(path: &Path, want: &Want<'_>) -> Result<Option<Shard>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let damaged = |what: &str| Error::Input {
        path: path.into(),
        reason: format!("{what}; remove this file and resume, its images are attacked again"),
    };
    let file = TensorFile::open(path).map_err(|e| damaged(&format!("is damaged ({e})")))?;
    if file.metadata().get("run_id").map(String::as_str) != Some(want.run_id) {
        return Err(damaged("belongs to another run"));
    }
    let n = want.ids.len();
    let floats = |name: &str, len: usize| match file.elements(name)? {
        Some(Elements::F32(v)) if v.len() == len => Ok(v.into_owned()),
        _ => Err(damaged("lacks images or logits of this run")),
    };
    let ids: Vec<u64> = match file.elements("id")? {
        Some(Elements::I64(v)) => v.iter().map(|&id| id as u64).collect(),
        _ => return Err(damaged("lacks ids")),
    };
    if ids != want.ids {
        return Err(damaged("holds other images"));
    }
    let attacked = |k: usize| -> Result<Attacked, Error> {
        let path = match file.elements(&format!("{k}.path"))? {
            Some(Elements::U8(v)) if v.len() == n * want.halts[k] => v.iter().map(|&reached| reached != 0).collect(),
            _ => return Err(damaged("lacks an attack's path")),
        };
        Ok(Attacked {
            x: floats(&format!("{k}.x"), n * want.image.iter().product::<usize>())?,
            logits: floats(&format!("{k}.logits"), n * want.classes)?,
            rounded: floats(&format!("{k}.rounded"), n * want.classes)?,
            path,
        })
    };
    let clean = floats("clean", n * want.classes)?;
    let zero = floats("zero", n)?;
    let attacked = (0..want.halts.len()).map(attacked).collect::<Result<_, _>>()?;
    Ok(Some(Shard { ids, clean, zero, attacked }))
}

/// What an attack came to on one image.
#[derive(Clone, Debug)]
pub struct Row {
    /// The image.
    pub id: u64,
    /// Its label, where it has one.
    pub label: Option<u32>,
    /// What was wished for.
    pub wish: Wish,
    /// Whether the image before the attack was that already: then there is nothing to succeed at.
    pub already: bool,
    /// Whether the attack reached it.
    pub success: bool,
    /// Whether a picture file of the image does.
    pub success_8bit: bool,
    /// Of one finding: whether all others are as they were.
    pub others_kept: Option<bool>,
    /// How far it went.
    pub certificate: Certificate,
    /// The attack's loss before and after.
    pub loss: [f64; 2],
    /// What the network answers before, after, and to 8 bits: a class, or the findings joined by `|`.
    pub answers: [String; 3],
    /// Share of pixels whose gradient is exactly 0 before the attack.
    pub zero: f32,
}

/// `not:3`, `to:5`, `other`, `present:2`, `absent:2`: a wish in tables, with numbers of classes.
pub fn wish_name(wish: Wish) -> String {
    match wish {
        Wish::NotClass(class) => format!("not:{class}"),
        Wish::Class(class) => format!("to:{class}"),
        Wish::OtherFindings => "other".into(),
        Wish::Finding { label, present: true } => format!("present:{label}"),
        Wish::Finding { label, present: false } => format!("absent:{label}"),
    }
}

const CERTIFICATES: &str = "schema_version,run_id,image_id,label,attack,norm,eps,wish,answer,answer_attacked,answer_8bit,\
                            already,success,success_8bit,others_kept,linf,l2,l0,in_ball,in_range,loss,loss_attacked,\
                            zero_gradient\n";

/// Norm and eps of an attack as two fields.
fn ball(attack: &Attack) -> String {
    attack.ball().map_or(",".into(), |(norm, eps)| format!("{},{eps}", norm.name()))
}

/// Writes `certificates.csv`: 23 columns. `l0` counts values (pixels of all channels); truth is 1, falsehood 0.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn certificates(path: &Path, run_id: &str, attacks: &[(Attack, Vec<Row>)]) -> Result<(), Error> {
    Ok(write_atomic(path, |file| {
        file.write_all(CERTIFICATES.as_bytes())?;
        for (attack, rows) in attacks {
            let (name, ball) = (attack.name(), ball(attack));
            for r in rows {
                let label = r.label.map_or(String::new(), |label| label.to_string());
                let kept = r.others_kept.map_or(String::new(), |kept| u8::from(kept).to_string());
                let c = &r.certificate;
                writeln!(
                    file,
                    "{SCHEMA_VERSION},{run_id},{},{label},{name},{ball},{},{},{},{},{},{kept},{},{},{},{},{},{},{},{}",
                    r.id,
                    wish_name(r.wish),
                    r.answers.join(","),
                    u8::from(r.already),
                    u8::from(r.success),
                    u8::from(r.success_8bit),
                    number(c.linf),
                    number(c.l2),
                    c.l0,
                    u8::from(c.in_ball),
                    u8::from(c.in_range),
                    number(r.loss[0]),
                    number(r.loss[1]),
                    r.zero,
                )?;
            }
        }
        Ok(())
    })?)
}

/// What an attack came to on all images.
#[derive(Clone, Debug)]
pub struct Success {
    /// The attack.
    pub attack: Attack,
    /// Images.
    pub images: usize,
    /// Successes, among the images that were not already what was wished for.
    pub success: Share,
    /// The same as 8 bits a channel.
    pub success_8bit: Share,
    /// Of successes, those that left all other findings as they were; only where one finding was the wish.
    pub others_kept: Option<Share>,
    /// Means over images: largest change, L2, changed values.
    pub size: [f64; 3],
    /// Largest change of any image.
    pub linf_max: f64,
    /// Images that left the ball, or 0 to 1.
    pub outside: usize,
    /// Mean rise of the loss.
    pub rise: f64,
}

impl Success {
    /// Of the rows of one attack.
    pub fn of(attack: Attack, rows: &[Row]) -> Success {
        let open = || rows.iter().filter(|r| !r.already);
        let share =
            |count: &dyn Fn(&Row) -> bool| Share { count: open().filter(|r| count(r)).count(), of: open().count() };
        let won = || open().filter(|r| r.success);
        let kept: Vec<bool> = won().filter_map(|r| r.others_kept).collect();
        let one_finding = rows.iter().any(|r| r.others_kept.is_some());
        let n = rows.len() as f64;
        let mean = |value: &dyn Fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / n;
        let largest = |m: f64, c: f64| if c.is_nan() || c > m { c } else { m };
        Success {
            attack,
            images: rows.len(),
            success: share(&|r| r.success),
            success_8bit: share(&|r| r.success_8bit),
            others_kept: one_finding
                .then(|| Share { count: kept.iter().filter(|kept| **kept).count(), of: kept.len() }),
            size: [mean(&|r| r.certificate.linf), mean(&|r| r.certificate.l2), mean(&|r| r.certificate.l0 as f64)],
            linf_max: rows.iter().map(|r| r.certificate.linf).fold(0.0, largest),
            outside: rows.iter().filter(|r| !(r.certificate.in_ball && r.certificate.in_range)).count(),
            rise: mean(&|r| r.loss[1] - r.loss[0]),
        }
    }
}

/// Level of the intervals of `success.csv` and of what is printed.
pub const LEVEL: f64 = 0.95;

const SUCCESS: &str = "schema_version,run_id,attack,norm,eps,images,open,success,success_lo,success_hi,success_8bit,\
                       success_8bit_lo,success_8bit_hi,others_kept,linf,l2,l0,linf_max,outside,loss_rise\n";

/// Writes `success.csv`: 20 columns. `open` are the images that were not what was wished for before; shares are of those, with
/// Wilson's 95 % intervals over images; sizes are means over all images.
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn success(path: &Path, run_id: &str, rows: &[Success]) -> Result<(), Error> {
    let ends = |i: Option<Interval>| format!("{},{}", optional(i.map(|i| i.lo)), optional(i.map(|i| i.hi)));
    let share = |s: &Share| format!("{},{}", optional(s.value()), ends(s.wilson(LEVEL)));
    Ok(write_atomic(path, |file| {
        file.write_all(SUCCESS.as_bytes())?;
        for s in rows {
            writeln!(
                file,
                "{SCHEMA_VERSION},{run_id},{},{},{},{},{},{},{},{},{},{},{}",
                s.attack.name(),
                ball(&s.attack),
                s.images,
                s.success.of,
                share(&s.success),
                share(&s.success_8bit),
                optional(s.others_kept.and_then(Share::value)),
                s.size.map(number).join(","),
                number(s.linf_max),
                s.outside,
                number(s.rise),
            )?;
        }
        Ok(())
    })?)
}

/// Writes an image, C x H x W of 8 bits, C 1 or 3, as PNG.
///
/// # Errors
/// [`Error::Write`] with the path; [`Error::Failed`] for another number of channels.
pub fn picture(path: &Path, pixels: &[u8], [c, h, w]: [usize; 3]) -> Result<(), Error> {
    let channels = match c {
        1 => Channels::Grey,
        3 => Channels::Rgb,
        _ => return Err(Error::Failed(format!("{}: a picture has 1 or 3 channels, not {c}", path.display()))),
    };
    // from planes to pixels
    let order = (0..h * w).flat_map(|at| (0..c).map(move |channel| channel * h * w + at));
    let rows: Vec<u8> = order.filter_map(|i| pixels.get(i).copied()).collect();
    Ok(write_atomic(path, |file| file.write_all(&picture::png(&rows, [w, h], channels)?))?)
}
