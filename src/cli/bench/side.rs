//! One side of a comparison: a process that stays, and runs its job when it is told to (benches/README.md has the lines).

use crate::error::Error;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Most bytes of a log that an error repeats.
const TOLD: usize = 2000;
/// A turn's runs are at most so many, and none begins after so many seconds of them.
const TURN_RUNS: usize = 9;
const TURN_SECONDS: f64 = 0.5;
/// How soon Ctrl-C is heeded where an answer may take minutes.
const HEEDED: Duration = Duration::from_millis(200);

/// The end of a log, for an error.
pub fn told(log: &[u8]) -> String {
    String::from_utf8_lossy(&log[log.len().saturating_sub(TOLD)..]).trim().to_string()
}

/// A running side.
pub struct Side {
    name: String,
    started: Instant,
    child: Child,
    /// `None` once it was told to end.
    requests: Option<ChildStdin>,
    /// Its lines, which a thread reads.
    answers: Receiver<std::io::Result<String>>,
    log: File,
    stop: Arc<AtomicBool>,
}

impl Side {
    /// Starts `command`; `name` is what errors call it. It is not waited for once `stop` is set.
    ///
    /// # Errors
    /// [`Error::Failed`] when it cannot be started.
    pub fn start(name: &str, mut command: Command, stop: Arc<AtomicBool>) -> Result<Side, Error> {
        let failed = |e: std::io::Error| Error::Failed(format!("{name} cannot be started: {e}"));
        let log = tempfile::tempfile().map_err(failed)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone().map_err(failed)?);
        let started = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let (requests, out) = (child.stdin.take(), child.stdout.take());
        let (send, answers) = sync_channel(1);
        // ends with the side's stdout, or when nobody listens any more
        std::thread::spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            lines.map(|line| send.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Ok(Side { name: name.into(), started, child, requests, answers, log, stop })
    }

    /// What it says once it is ready, and how long that took from its start.
    ///
    /// # Errors
    /// [`Error::Failed`] when it says something else, or nothing.
    pub fn ready(&mut self) -> Result<(Value, Duration), Error> {
        let line = self.line()?;
        let took = self.started.elapsed();
        if line["ready"] != true { Err(self.odd("ready", &line)) } else { Ok((line, took)) }
    }

    /// A turn: a short job is run several times, for one run behind a pause is as much about sleeping threads and cold caches.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn turn(&mut self) -> Result<Vec<f64>, Error> {
        let mut seconds = Vec::new();
        while seconds.len() < TURN_RUNS && seconds.iter().sum::<f64>() < TURN_SECONDS {
            seconds.push(self.run()?);
        }
        Ok(seconds)
    }

    /// Makes it run its job once: the seconds that it took, by its own clock.
    fn run(&mut self) -> Result<f64, Error> {
        self.ask("run");
        let line = self.line()?;
        line["seconds"].as_f64().filter(|s| *s > 0.0).ok_or_else(|| self.odd("seconds", &line))
    }

    /// Ends it: its last line.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn end(mut self) -> Result<Value, Error> {
        self.ask("end");
        self.requests = None;
        let line = self.line()?;
        if line.get("peak_bytes").is_none() {
            return Err(self.odd("peak_bytes", &line));
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(line),
            Ok(status) => Err(self.failed(&format!("ended with {status}"))),
            Err(e) => Err(self.failed(&format!("cannot be waited for: {e}"))),
        }
    }

    /// A side that is gone is found out by the answer that does not come.
    fn ask(&mut self, what: &str) {
        if let Some(requests) = &mut self.requests {
            let _ = writeln!(requests, "{what}").and_then(|()| requests.flush());
        }
    }

    fn line(&mut self) -> Result<Value, Error> {
        loop {
            return match self.answers.recv_timeout(HEEDED) {
                Ok(Ok(line)) => {
                    let odd = |_| self.failed(&format!("answered `{}`, which is no JSON", line.trim_end()));
                    serde_json::from_str(&line).map_err(odd)
                }
                Ok(Err(e)) => Err(self.failed(&format!("cannot be read: {e}"))),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::SeqCst) => {
                    Err(Error::Stopped(format!("{} was not waited for", self.name)))
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    let how = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
                    Err(self.failed(&format!("ended ({how}) where an answer was due")))
                }
            };
        }
    }

    fn odd(&mut self, wanted: &str, line: &Value) -> Error {
        self.failed(&format!("answered {line} where `{wanted}` was due"))
    }

    /// An error with the end of what the side logged.
    fn failed(&mut self, what: &str) -> Error {
        let mut log = Vec::new();
        let read = self.log.seek(SeekFrom::Start(0)).and_then(|_| self.log.read_to_end(&mut log));
        let log = told(&log);
        let said = if read.is_err() || log.is_empty() { String::new() } else { format!("; it said: {log}") };
        Error::Failed(format!("{} {what}{said}", self.name))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // one that ended by itself is not there to be killed
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
