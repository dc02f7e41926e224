//! The command line: one file a verb, text in, results on stdout, log and progress on stderr.

mod attack;
mod attacks;
mod bench;
mod ce;
mod common;
mod convert;
mod detect;
mod devices;
mod diff;
mod fetch;
mod gate;
mod inspect;
mod map;
mod merge;
mod phase;
mod report;
mod reproduce;
mod study;
mod subject;
mod train;
mod ui;
mod validate;

use crate::error::Error;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Which concept inside a trained vision network causes which answer, by how much, and how surely.
#[derive(Debug, Parser)]
#[command(
    name = "intervene",
    version,
    args_override_self = true,
    after_help = "Exit codes: 0 done · 1 the run failed · 2 usage · 3 input or weights invalid · 4 gate, validation or diff failed · \
                  5 device · 130 interrupted (go on with --resume)"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the paper's experiments (fashion, imagenet, chest) and judge its claims
    Reproduce(reproduce::Args),
    /// Get and check a data set or published weights
    Fetch(fetch::Args),
    /// Train a classifier
    Train(train::classifier::Args),
    /// Train the autoencoder whose code channels are the nodes
    TrainAe(train::autoencoder::Args),
    /// Causal effects of nodes on answers, clean, masked and attacked
    Ce(ce::Args),
    /// The parts of a run that `ce --shard` made, put together and ended as one run
    Merge(merge::Args),
    /// Adversarial images, each with a certificate, and whether the attacks can be believed
    Attack(attack::Args),
    /// Maps of where answers come from, clean and attacked, and how far attacks move them
    Map(map::Args),
    /// What a detector that a study fitted says of other images
    Detect(detect::Args),
    /// Layers, shapes, parameters, multiply-adds, taps and what a sweep costs there
    Inspect(inspect::Args),
    /// Replay a folder that PyTorch made, and print how far each tensor lies from it
    Validate(validate::Args),
    /// Weights of PyTorch or ONNX, checked, as safetensors
    Convert(convert::Args),
    /// The page of a run, made again from its files
    Report(report::Args),
    /// Whether two runs say the same, effect by effect
    Diff(diff::Args),
    /// Time a job and print it as one JSON line
    Bench(bench::Args),
    /// What this program can run on
    Devices(devices::Args),
}

/// Runs the command line and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    survive_file_size_limit();
    let arguments = match common::with_config_file(arguments.into_iter().collect(), &Cli::command()) {
        Ok(arguments) => arguments,
        Err(e) => return fail(&e),
    };
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // to stdout for --help and --version, else to stderr
            let printed = e.print();
            if e.use_stderr() {
                return ExitCode::from(2);
            }
            return match ui::printed(printed) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(&e),
            };
        }
    };
    let result = match cli.verb {
        Verb::Reproduce(args) => reproduce::run(args),
        Verb::Fetch(args) => fetch::run(args),
        Verb::Train(args) => train::classifier::run(args),
        Verb::TrainAe(args) => train::autoencoder::run(args),
        Verb::Ce(args) => ce::run(args),
        Verb::Merge(args) => merge::run(args),
        Verb::Attack(args) => attack::run(args),
        Verb::Map(args) => map::run(args),
        Verb::Detect(args) => detect::run(args),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Validate(args) => validate::run(args),
        Verb::Convert(args) => convert::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Diff(args) => diff::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Devices(args) => devices::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

/// Makes a write beyond `ulimit -f` an error like that of a full disk; the signal's default ends the process wordlessly.
fn survive_file_size_limit() {
    #[cfg(unix)]
    {
        // nobody reads the flag: having a handler is what turns the signal into EFBIG. It cannot fail for this signal.
        let flag = std::sync::Arc::default();
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag);
    }
}

fn fail(error: &Error) -> ExitCode {
    ui::say(format!("error: {error}"));
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        ui::say(format!("  because: {cause}"));
        source = cause.source();
    }
    if let Some(help) = error.help() {
        ui::say(format!("  help: {help}"));
    }
    ExitCode::from(error.exit_code())
}
