//! Log lines and progress bars on stderr, results on stdout. No bars and no colour when stderr is not a terminal.

use crate::error::Error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    quiet: bool,
}

impl Ui {
    /// `quiet` leaves errors and results.
    pub fn new(quiet: bool) -> Ui {
        Ui { quiet }
    }

    /// A line of log.
    pub fn log(self, line: impl AsRef<str>) {
        if !self.quiet {
            say(line);
        }
    }

    /// A line that is said even when quiet: the reader should know it.
    pub fn warn(self, line: impl AsRef<str>) {
        say(format!("warning: {}", line.as_ref()));
    }

    /// Progress over `total` steps: a bar with ETA on a terminal, a line every 15 seconds elsewhere.
    pub fn progress(self, what: &str, total: u64) -> Progress {
        let terminal = io::stderr().is_terminal() && !self.quiet;
        let target = if terminal { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} eta {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        let now = Instant::now();
        Progress {
            bar,
            what: what.into(),
            total,
            lines: !terminal && !self.quiet,
            started: now,
            said: now,
            first: None,
        }
    }
}

/// Progress under way.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: String,
    total: u64,
    lines: bool,
    started: Instant,
    said: Instant,
    /// Where a resumed run began: its steps took no time of ours.
    first: Option<u64>,
}

/// Without a terminal, seconds between lines.
const LINE_EVERY: Duration = Duration::from_secs(15);

impl Progress {
    /// `done` of the total were done before: their time is not ours.
    pub fn begin_at(&mut self, done: u64) {
        self.first = Some(done);
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// Step `done` of the total, of which none is left out, is done.
    pub fn step(&mut self, done: u64) {
        if self.first.is_none() {
            self.begin_at(done.saturating_sub(1));
        }
        self.set(done);
    }

    /// `done` of the total are done.
    pub fn set(&mut self, done: u64) {
        self.bar.set_position(done);
        let ours = done.saturating_sub(self.first.unwrap_or(0));
        if self.lines && self.said.elapsed() >= LINE_EVERY && ours > 0 {
            self.said = Instant::now();
            let per_step = self.started.elapsed().as_secs_f64() / ours as f64;
            let left = per_step * self.total.saturating_sub(done) as f64;
            say(format!("{}: {done}/{}, about {left:.0} s left", self.what, self.total));
        }
    }

    /// A log line that does not break the bar.
    pub fn log(&self, line: &str) {
        if self.lines {
            say(line);
        } else {
            self.bar.println(line);
        }
    }

    /// Ends it.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line on stderr. Where nobody reads it (a closed pipe) the work goes on; `eprintln!` would panic.
pub fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", line.as_ref());
}

/// Writes results to stdout; a reader that closed the pipe has seen enough.
///
/// # Errors
/// [`Error::Failed`] when stdout cannot be written.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What became of results on stdout.
///
/// # Errors
/// [`Error::Failed`], unless only the reader is gone.
pub fn printed(outcome: io::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::Failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}
