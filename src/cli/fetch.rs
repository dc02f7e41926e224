//! `fetch`: gets a data set, checks it, says where it is.

use super::common::{Common, makes_no_run};
use super::ui::{self, Ui};
use crate::data::fetch::{Check, Sources, find_fashion};
use crate::error::Error;
use crate::text::closest;
use serde_json::json;

/// Flags of `fetch`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to fetch: fashion-mnist
    name: String,
    /// Check the files in this directory instead
    #[arg(long, value_name = "DIR")]
    data: Option<std::path::PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Data sets that can be fetched.
const NAMES: [&str; 1] = ["fashion-mnist"];

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
