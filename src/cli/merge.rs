//! `merge`: the parts of a run that `ce --shard` made, put together and ended as one run.

use super::ce;
use super::common::{self, Common, Context};
use super::ui;
use crate::error::Error;
use crate::report::part::Parts;
use crate::report::run::default_directory;
use serde_json::json;
use std::path::PathBuf;

/// Flags of `merge`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directories of all parts, with or without `.partial`; they stay as they are
    #[arg(required = true, value_name = "DIR")]
    parts: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// `merge`.
pub fn run(args: Args) -> Result<(), Error> {
    if args.common.resume.is_some() {
        let reason =
            "`merge` starts a run of `ce`; what is left of it when it is interrupted, `intervene ce --resume` ends";
        return Err(Error::Usage(reason.into()));
    }
    common::check_out(args.common.out.as_deref())?;
    let parts = Parts::find(&args.parts)?;
    let manifest = parts.manifest();
    if args.common.dry_run {
        let (run, shards, directories) = (&manifest.run_id, parts.shards(), args.parts.len());
        let told = format!("all {shards} shards of run {run} are there, in {directories} directories\n");
        let out = json!({ "dry_run": true, "run_id": run, "shards": shards, "directories": directories });
        return ui::print(&if args.common.json { format!("{out}\n") } else { told });
    }
    // a device that is not there is said before anything is written
    let context = Context::new(&args.common)?;
    let out = args.common.out.unwrap_or_else(|| default_directory(&manifest.verb, &manifest.run_id));
    parts.put_together(out.clone())?;
    ce::go_on(&context, &out)
}
