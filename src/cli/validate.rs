//! `validate`: replays a reference folder that another framework made, and prints how far each tensor lies from it.

use super::common::{Common, Context, ConvArg, check_out};
use super::ui;
use crate::backend::Backend;
use crate::backend::reference::Reference;
use crate::error::Error;
use crate::report::run::{RunDirectory, SCHEMA_VERSION};
use crate::validate::compare::Report;
use crate::validate::format::Folder;
use crate::validate::validate;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Flags of `validate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder with reference.json and reference.safetensors
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// How much wider the tolerances are for convolutions that round otherwise.
const WINOGRAD_FACTOR: f64 = 10.0;
/// The judge of the other devices, as a device: naive loops in f64.
const REFERENCE: &str = "reference";

/// `validate`.
pub fn run(args: Args) -> Result<(), Error> {
    let common = &args.common;
    if let Some(directory) = &common.resume {
        return Err(Error::Usage(format!(
            "--resume {}: `validate` starts anew, it takes minutes at most",
            directory.display()
        )));
    }
    if common.precision != super::common::PrecisionArg::Fp32 {
        return Err(Error::Usage("--precision: `validate` compares in fp32; its tolerances are for that".into()));
    }
    check_out(common.out.as_deref())?;
    let judge = common.device == REFERENCE;
    // tolerances are those of sums over taps
    let conv = if common.conv == ConvArg::Auto { ConvArg::Exact } else { common.conv };
    let device = if judge { "cpu".into() } else { common.device.clone() };
    let context = Context::new(&Common { device, conv, ..common.clone() })?;
    let backend: &dyn Backend = if judge { &Reference } else { context.backend() };
    let factor = if conv == ConvArg::Winograd { WINOGRAD_FACTOR } else { 1.0 };

    let folder = Folder::read(&args.reference)?;
    for note in &folder.notes {
        context.ui.log(note);
    }
    let (arch, n) = (folder.model.arch, folder.images);
    let input = crate::tensor::Shape::from(folder.model.input);
    let tap = folder.tap.as_ref().map_or("no tap".into(), |t| format!("tap {} ({})", t.number, t.name));
    let head = folder.model.head;
    let subject = format!("{arch}, {head}, {n} images of {input}, {tap}, on {}", backend.name());
    context.ui.log(format!("{}: {subject}, {} expectations", folder.path.display(), folder.expected.len()));
    if common.dry_run {
        return ui::print(&format!("would check {} tensors of {subject}\n", folder.expected.len()));
    }
    let report = validate(&folder, backend, factor)?;
    if report.checked == 0 {
        let why: Vec<String> =
            report.tensors.iter().map(|l| format!("{}: {}", l.name, l.note.as_deref().unwrap_or_default())).collect();
        let reason = format!("nothing could be checked; {}", why.join("; "));
        return Err(Error::Input { path: folder.path, reason });
    }

    let mut json = serde_json::to_value(&report).map_err(|e| Error::Failed(e.to_string()))?;
    json["schema_version"] = json!(SCHEMA_VERSION);
    json["arch"] = json!(arch);
    json["device"] = json!(backend.name());
    json["simulated"] = json!(backend.details().simulated);
    json["conv"] = json!(backend.details().conv.name());
    if let Some(out) = &common.out {
        save(out.clone(), &folder, backend, &report, &json)?;
    }
    match context.json {
        true => ui::print(&format!("{json}\n"))?,
        false => ui::print(&format!("{subject}{}\n{}", factor_note(factor), report.table()))?,
    }
    match (report.failed().as_slice(), &report.parted_at) {
        ([], _) => Ok(()),
        (failed, at) => Err(Error::Validation(format!(
            "{} of {} tensors lie outside of their tolerance; the first is {}",
            failed.len(),
            report.checked,
            at.as_deref().unwrap_or_default()
        ))),
    }
}

fn factor_note(factor: f64) -> String {
    if factor == 1.0 { String::new() } else { format!(", tolerances {factor} times as wide") }
}

/// The run directory: a manifest, and the report as JSON and as text.
fn save(out: PathBuf, folder: &Folder, backend: &dyn Backend, report: &Report, json: &Value) -> Result<(), Error> {
    let mut hashes = BTreeMap::from([("host".to_string(), folder.host.hash())]);
    if let Some((_, ae)) = &folder.autoencoder {
        hashes.insert("autoencoder".into(), ae.hash());
    }
    let configuration = json!({ "arch": folder.model.arch, "head": folder.model.head.to_string(),
        "classes": folder.model.classes, "images": folder.images, "input": folder.model.input });
    let mut manifest =
        crate::report::run::Manifest::new("validate", configuration, hashes, backend.name(), backend.details());
    let directory = RunDirectory::create(out, &manifest)?;
    let write = |name: &str, text: &str| {
        crate::atomic::write_atomic(&directory.path(name), |f| f.write_all(text.as_bytes())).map_err(Error::from)
    };
    write("validate.json", &format!("{json}\n"))?;
    write("validate.txt", &report.table())?;
    let results =
        [("checked", json!(report.checked)), ("of", json!(report.of)), ("parted_at", json!(report.parted_at))];
    manifest.results.extend(results.map(|(key, value)| (key.to_string(), value)));
    directory.finish(&manifest)?;
    Ok(())
}
