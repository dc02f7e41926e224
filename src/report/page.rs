//! `report.html`: a run as a page that a person can read without us, in one file, made from the files of its directory alone.
//!
//! Warnings and verdicts come first, then what a node is, then the tables. [`write()`] is called at the end of a run, and by `report`,
//! which makes the page anew. What a run did not do has no section, and the page says which command does.

mod chart;
mod claims;
mod conditions;
mod extras;
mod files;
mod maps;
mod sections;
mod shown;

pub use maps::MAPS;

use crate::atomic::write_atomic;
use crate::error::Error;
use crate::text::escaped;
use files::Run;
use std::path::Path;

/// Name of the page in a run directory.
pub const PAGE: &str = "report.html";

const CSS: &str = include_str!("page/page.css");

/// Makes the page of the run whose files are in `directory`, and writes it to `to`.
///
/// # Errors
/// [`Error::Input`] for a file of the run that is missing or is not what it should be; [`Error::Write`].
pub fn write(directory: &Path, to: &Path) -> Result<(), Error> {
    let page = html(&Run::read(directory)?);
    Ok(write_atomic(to, |file| file.write_all(page.as_bytes()))?)
}

/// The page.
fn html(run: &Run) -> String {
    let title = match run.effects.is_empty() {
        true => format!("Where answers of {} come from", run.arch()),
        false => format!("Causal effects in {} at {}", run.arch(), run.tap()),
    };
    let body: String = [
        sections::head(run, &title),
        sections::warnings(run),
        claims::claims(run),
        sections::nodes(run),
        sections::effects(run),
        sections::matrix(run),
        extras::extras(run),
        conditions::conditions(run),
        maps::maps(run),
        sections::detector(run),
        sections::strata(run),
        sections::measured(run),
        sections::reading(run),
    ]
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{CSS}</style>\n\
         </head>\n<body>\n{body}</body>\n</html>\n",
        escaped(&title)
    )
}
