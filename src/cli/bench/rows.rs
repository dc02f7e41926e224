//! What is compared, and how much faster and smaller it is to be.

use super::Job;

/// A row of the comparison: a job, what it works on, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is done.
    pub job: Job,
    /// In which network.
    pub model: &'static str,
    /// Where the autoencoder is; a job without one ignores it.
    pub tap: &'static str,
    /// On how many images.
    pub images: usize,
    /// The least ratio, the peer's time over ours, that is asked for.
    pub least: f64,
    /// The ratio that is aimed at.
    pub aim: f64,
}

/// The most memory that is asked for, as a share of the peer's, both beyond the weights; and what is aimed at.
pub const MEMORY_MOST: f64 = 0.5;
/// See [`MEMORY_MOST`].
pub const MEMORY_AIM: f64 = 0.25;

const fn row(job: Job, model: &'static str, tap: &'static str, images: usize, [least, aim]: [f64; 2]) -> Row {
    Row { job, model, tap, images, least, aim }
}

const INFERENCE: [f64; 2] = [2.0, 2.5];
const GRADIENT: [f64; 2] = [1.5, 2.0];

/// All rows.
pub const ROWS: [Row; 19] = [
    row(Job::Sweep, "vgg16", "13", 2, [2.2, 3.0]),
    row(Job::Sweep, "vgg16", "28", 2, [2.0, 3.0]),
    row(Job::Sweep, "fashion", "2", 256, [2.2, 3.0]),
    row(Job::Sweep, "densenet121", "8", 2, [1.8, 2.2]),
    row(Job::Forward, "vgg16", "13", 1, INFERENCE),
    row(Job::Forward, "vgg16", "13", 8, INFERENCE),
    row(Job::Forward, "vgg19", "13", 1, INFERENCE),
    row(Job::Forward, "vgg19", "13", 8, INFERENCE),
    row(Job::Forward, "densenet121", "8", 1, INFERENCE),
    row(Job::Forward, "densenet121", "8", 8, INFERENCE),
    row(Job::Attack, "vgg16", "13", 1, GRADIENT),
    row(Job::Attack, "vgg16", "13", 8, GRADIENT),
    row(Job::Attack, "vgg19", "13", 1, GRADIENT),
    row(Job::Attack, "vgg19", "13", 8, GRADIENT),
    row(Job::Attack, "densenet121", "8", 1, GRADIENT),
    row(Job::Attack, "densenet121", "8", 8, GRADIENT),
    row(Job::Train, "fashion", "2", 100, GRADIENT),
    row(Job::TrainAe, "vgg16", "13", 4, GRADIENT),
    row(Job::Start, "vgg16", "13", 1, [10.0, 10.0]),
];

impl Row {
    /// What it is called: `sweep vgg16 tap 13 x 2`.
    pub fn name(&self) -> String {
        let tap = if self.has_autoencoder() { format!(" tap {}", self.tap) } else { String::new() };
        format!("{} {}{tap} x {}", self.job.name(), self.model, self.images)
    }

    /// Whether an autoencoder takes part.
    pub fn has_autoencoder(&self) -> bool {
        matches!(self.job, Job::Sweep | Job::TrainAe)
    }
}

/// The rows with one of `texts` (a list with commas; all of them if there is none) in their name.
pub fn chosen(texts: Option<&str>) -> Vec<Row> {
    let wanted: Vec<String> = texts.into_iter().flat_map(|t| t.split(',')).map(|t| t.trim().to_lowercase()).collect();
    ROWS.into_iter().filter(|row| wanted.is_empty() || wanted.iter().any(|text| row.name().contains(text))).collect()
}
