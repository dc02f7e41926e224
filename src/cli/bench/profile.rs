//! `bench --profile`: where a job's time goes, op by op and layer by layer, beside what the machine can do at most.

use crate::backend::Profile;
use crate::backend::cpu::isa::Isa;
use crate::backend::cpu::peak::Peak;
use crate::backend::problems::Cost;
use crate::backend::profile::{Sum, Task};
use crate::cli::common::Context;
use crate::error::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Makes the device time its steps.
///
/// # Errors
/// [`Error::Usage`] for a device that cannot.
pub fn begin(context: &mut Context) -> Result<Arc<Profile>, Error> {
    let profile = Arc::new(Profile::default());
    let device = context.device();
    let profiled = context.backends.iter().map(|backend| backend.profiled(profile.clone())).collect::<Option<_>>();
    context.backends = profiled.ok_or_else(|| {
        Error::Usage(format!(
            "--profile times the steps of the CPU, not of {device}: add --device cpu, or see each kernel's time in `bench kernels`"
        ))
    })?;
    Ok(profile)
}

/// Share of a run under which a line is not worth reading.
const LEAST: f64 = 0.001;

/// What `repeats` runs of a job came to.
pub struct Profiled {
    repeats: usize,
    wall: Duration,
    tasks: Vec<(Task, Sum)>,
    peak: Peak,
}

impl Profiled {
    /// Takes the profile, and measures the machine.
    pub fn new(profile: &Profile, repeats: usize) -> Profiled {
        let (wall, tasks) = profile.taken();
        Profiled { repeats, wall, tasks, peak: Peak::measure(Isa::detect()) }
    }

    /// Time outside of steps and moves.
    fn outside(&self) -> Duration {
        self.wall.saturating_sub(self.tasks.iter().map(|(_, sum)| sum.time).sum())
    }

    /// By node, everything in sums over the runs.
    pub fn json(&self) -> Value {
        let row = |(task, sum): &(Task, Sum)| {
            let rates = Rates::of(sum, self.peak);
            json!({ "op": task.op, "way": task.way, "node": task.node, "shape": task.shape, "rows": task.rows, "calls": sum.calls,
                "seconds": sum.time.as_secs_f64(), "share": self.share(sum.time), "flops": sum.cost.flops,
                "bytes": sum.cost.bytes, "flops_per_second": rates.flops, "share_of_peak": rates.of_peak,
                "bytes_per_second": rates.bytes, "share_of_bandwidth": rates.of_bandwidth })
        };
        json!({ "repeats": self.repeats, "seconds": self.wall.as_secs_f64(),
            "outside_seconds": self.outside().as_secs_f64(), "peak_flops": self.peak.flops,
            "peak_bandwidth": self.peak.bandwidth, "tasks": self.tasks.iter().map(row).collect::<Vec<_>>() })
    }

    /// By op and shape, for one run, the longest first; what takes next to nothing in one line.
    pub fn text(&self) -> String {
        let mut lines: BTreeMap<(&str, &str, &str, usize), Sum> = BTreeMap::new();
        for (task, sum) in &self.tasks {
            lines.entry((task.op, task.way.unwrap_or("-"), &task.shape, task.rows)).or_default().add(*sum);
        }
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.time));
        let listed = lines.iter().take_while(|(_, sum)| self.share(sum.time) >= LEAST).count();
        let mut rest = Sum::default();
        lines[listed..].iter().for_each(|(_, sum)| rest.add(*sum));
        let mut text = format!(
            "\na run, mean of {}: {:.2} ms; measured on {} threads: {:.0} GFLOP/s of multiply-adds, {:.1} GB/s of copying\n\
             GFLOP/s are effective, by the operations of the plain algorithm; bytes are every operand once, from caches perhaps\n\n",
            self.repeats,
            self.milliseconds(self.wall),
            rayon::current_num_threads(),
            self.peak.flops / 1e9,
            self.peak.bandwidth / 1e9,
        );
        // writing to a String cannot fail
        let _ = writeln!(
            text,
            "{:<20}{:<10}{:<52}{:>5}{:>7}{:>10}{:>8}{:>9}{:>8}{:>7}{:>9}",
            "op", "way", "shape", "rows", "calls", "ms", "share", "GFLOP/s", "of FMA", "GB/s", "of copy"
        );
        for ((op, way, shape, rows), sum) in &lines[..listed] {
            let rows = if *rows > 0 { rows.to_string() } else { "-".into() };
            let _ = writeln!(text, "{op:<20}{way:<10}{shape:<52}{rows:>5}{}", self.figures(sum));
        }
        if listed < lines.len() {
            let more = format!("{} more, each under {} %", lines.len() - listed, 100.0 * LEAST);
            let _ = writeln!(text, "{more:<87}{}", self.figures(&rest));
        }
        let outside = Sum { calls: 0, time: self.outside(), cost: Cost::default() };
        let _ = writeln!(text, "{:<87}{}", "outside of steps and moves", self.figures(&outside));
        text
    }

    /// The columns of numbers.
    fn figures(&self, sum: &Sum) -> String {
        let rates = Rates::of(sum, self.peak);
        let percent = |share: Option<f64>| share.map_or("-".into(), |s| format!("{:.0} %", 100.0 * s));
        let giga = |rate: Option<f64>, digits| rate.map_or("-".into(), |r| format!("{:.digits$}", r / 1e9));
        let calls = if sum.calls > 0 { (sum.calls / self.repeats.max(1) as u64).to_string() } else { "-".into() };
        format!(
            "{calls:>7}{:>10.3}{:>6.1} %{:>9}{:>8}{:>7}{:>9}",
            self.milliseconds(sum.time),
            100.0 * self.share(sum.time),
            giga(rates.flops, 0),
            percent(rates.of_peak),
            giga(rates.bytes, 1),
            percent(rates.of_bandwidth),
        )
    }

    /// Of one run.
    fn milliseconds(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e3 / self.repeats as f64
    }

    fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// What a task does a second; none where nothing is counted or the clock saw nothing.
struct Rates {
    flops: Option<f64>,
    of_peak: Option<f64>,
    bytes: Option<f64>,
    of_bandwidth: Option<f64>,
}

impl Rates {
    fn of(sum: &Sum, peak: Peak) -> Rates {
        let seconds = sum.time.as_secs_f64();
        let rate = |count: u64| (count > 0 && seconds > 0.0).then(|| count as f64 / seconds);
        let (flops, bytes) = (rate(sum.cost.flops), rate(sum.cost.bytes));
        let share = |rate: Option<f64>, of: f64| rate.map(|r| r / of).filter(|s| s.is_finite());
        Rates { flops, of_peak: share(flops, peak.flops), bytes, of_bandwidth: share(bytes, peak.bandwidth) }
    }
}
