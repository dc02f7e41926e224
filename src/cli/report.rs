//! `report`: the page of a run, made again from its files.

use super::ui;
use crate::error::Error;
use crate::report::page::{self, PAGE};
use std::path::PathBuf;

/// Flags of `report`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory of a run of `ce`, `map` or `reproduce fashion`, or of one inside of a reproduction
    directory: PathBuf,
    /// Where the page goes; default: report.html in the directory, in the place of the one there
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `report`.
pub fn run(args: Args) -> Result<(), Error> {
    let to = args.out.unwrap_or_else(|| args.directory.join(PAGE));
    page::write(&args.directory, &to)?;
    ui::print(&format!("{}\n", to.display()))
}
