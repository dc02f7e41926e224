//! The `intervene` binary: the library's command line, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    intervene::cli::run(std::env::args_os())
}
