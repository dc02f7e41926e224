//! The environment variables of the simulated device, read once at `cuInit`.
//!
//! | variable | values | default | meaning |
//! |---|---|---|---|
//! | `CUDA_SIM_DEVICES` | 1..8 | 1 | simulated devices |
//! | `CUDA_SIM_SM` | 75, 80, 86, 89, 90 | 80 | compute capability times ten, which decides the chip |
//! | `CUDA_SIM_MEMORY` | bytes, or with `K`, `M`, `G` | `8G` | memory of each device |
//! | `CUDA_SIM_STRICT` | 0, 1 | 1 | all checks, not only bounds and alignment |
//! | `CUDA_SIM_THREADS` | 1.. | all cores | host threads that run a launch's blocks |
//! | `CUDA_SIM_BUDGET` | 1.. | 100000000000 | warp instructions after which a launch counts as hung (error 702) |
//! | `CUDA_SIM_FAIL` | `launch:N`, `alloc:N`, `lost:N`, with commas | none | the N-th launch fails with 719; the N-th allocation of device memory is out of memory (2); from the N-th operation on a stream on, the device is lost: every call that needs its context returns 214 for the rest of the process |
//! | `CUDA_SIM_REPORT` | a file | standard error | where findings are written; the file is begun anew |
//! | `CUDA_SIM_COUNTERS` | a file, or `-` | none | counters of every launch as a line of JSON each; `-`: a table on standard error at exit |
//! | `CUDA_SIM_LEAKS` | 0, 1 | 0 | memory that is left at the end of a context or of the process is reported |
//!
//! Counting from 1. A value that cannot be read makes `cuInit` fail with `CUDA_ERROR_INVALID_VALUE` and a line on standard
//! error that says which. A variable that starts with `CUDA_SIM_` and is not in this table gets a line too, and no more; the two
//! that `env.sh` sets, `CUDA_SIM_NVRTC` and `CUDA_SIM_INCLUDE`, mean nothing to the device.

use std::path::PathBuf;

/// What the variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CUDA_SIM_DEVICES`
    pub devices: u32,
    /// `CUDA_SIM_SM`
    pub sm: u32,
    /// `CUDA_SIM_MEMORY`
    pub memory: usize,
    /// `CUDA_SIM_STRICT`
    pub strict: bool,
    /// `CUDA_SIM_THREADS`
    pub threads: usize,
    /// `CUDA_SIM_BUDGET`
    pub budget: u64,
    /// `CUDA_SIM_FAIL`
    pub fail: Failures,
    /// `CUDA_SIM_REPORT`
    pub report: Option<PathBuf>,
    /// `CUDA_SIM_COUNTERS`
    pub counters: Option<Sink>,
    /// `CUDA_SIM_LEAKS`
    pub leaks: bool,
}

/// The injected faults: at the N-th event of a kind, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// This launch fails.
    pub launch: Option<u64>,
    /// This allocation fails.
    pub alloc: Option<u64>,
    /// From this operation on the device is lost.
    pub lost: Option<u64>,
}

/// Where counters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Lines of JSON.
    File(PathBuf),
    /// A table at exit.
    Table,
}

impl Default for Environment {
    fn default() -> Environment {
        Environment {
            devices: 1,
            sm: 80,
            memory: 8 << 30,
            strict: true,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            budget: 100_000_000_000,
            fail: Failures::default(),
            report: None,
            counters: None,
            leaks: false,
        }
    }
}

impl Environment {
    /// Reads the process's variables.
    pub fn read() -> Result<Environment, String> {
        let variables = std::env::vars_os()
            .filter(|(name, _)| name.to_string_lossy().starts_with("CUDA_SIM_"))
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Environment::parse(variables)
    }

    /// Reads variables from a list. The error says which one is wrong and what it may be.
    pub fn parse(variables: impl IntoIterator<Item = (String, String)>) -> Result<Environment, String> {
        let mut environment = Environment::default();
        for (name, value) in variables {
            let wrong = |may_be: &str| format!("{name}={value}: must be {may_be}");
            let value = value.trim();
            match name.as_str() {
                "CUDA_SIM_DEVICES" => {
                    environment.devices =
                        number(value).filter(|n| (1..=8).contains(n)).ok_or(wrong("a number from 1 to 8"))? as u32;
                }
                "CUDA_SIM_SM" => {
                    environment.sm = number(value)
                        .filter(|n| [75, 80, 86, 89, 90].contains(n))
                        .ok_or(wrong("75, 80, 86, 89 or 90"))? as u32;
                }
                "CUDA_SIM_MEMORY" => {
                    environment.memory = bytes(value)
                        .filter(|&n| n > 0)
                        .ok_or(wrong("a number of bytes, with K, M or G behind it if wanted"))?;
                }
                "CUDA_SIM_STRICT" => environment.strict = switch(value).ok_or(wrong("0 or 1"))?,
                "CUDA_SIM_LEAKS" => environment.leaks = switch(value).ok_or(wrong("0 or 1"))?,
                "CUDA_SIM_THREADS" => {
                    environment.threads = number(value)
                        .filter(|n| (1..=4096).contains(n))
                        .ok_or(wrong("a number from 1 to 4096"))? as usize;
                }
                "CUDA_SIM_BUDGET" => {
                    environment.budget = number(value).filter(|&n| n > 0).ok_or(wrong("a number from 1"))?;
                }
                "CUDA_SIM_FAIL" => {
                    environment.fail =
                        failures(value).ok_or(wrong("launch:N, alloc:N or lost:N, N from 1, with commas between"))?;
                }
                "CUDA_SIM_REPORT" => {
                    environment.report = Some(path(value).ok_or(wrong("the name of a file"))?);
                }
                "CUDA_SIM_COUNTERS" => {
                    environment.counters = Some(match value {
                        "-" => Sink::Table,
                        _ => Sink::File(path(value).ok_or(wrong("the name of a file, or -"))?),
                    });
                }
                // Those by which env.sh tells programs where NVRTC is.
                "CUDA_SIM_NVRTC" | "CUDA_SIM_INCLUDE" => {}
                _ => eprintln!("cuda-sim: {name}: there is no such variable"),
            }
        }
        Ok(environment)
    }
}

fn number(value: &str) -> Option<u64> {
    value.parse().ok()
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn bytes(value: &str) -> Option<usize> {
    let (digits, shift) = match value.as_bytes().last()? {
        b'K' | b'k' => (&value[..value.len() - 1], 10),
        b'M' | b'm' => (&value[..value.len() - 1], 20),
        b'G' | b'g' => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn path(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

fn failures(value: &str) -> Option<Failures> {
    let mut failures = Failures::default();
    for part in value.split(',') {
        let (what, n) = part.trim().split_once(':')?;
        let n = Some(number(n).filter(|&n| n > 0)?);
        match what {
            "launch" => failures.launch = n,
            "alloc" => failures.alloc = n,
            "lost" => failures.lost = n,
            _ => return None,
        }
    }
    Some(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Environment, String> {
        Environment::parse(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())))
    }

    #[test]
    fn every_variable_is_read() {
        let read = parse(&[
            ("CUDA_SIM_DEVICES", "2"),
            ("CUDA_SIM_SM", "90"),
            ("CUDA_SIM_MEMORY", "64M"),
            ("CUDA_SIM_STRICT", "0"),
            ("CUDA_SIM_THREADS", "3"),
            ("CUDA_SIM_BUDGET", "1000"),
            ("CUDA_SIM_FAIL", "launch:2,alloc:5,lost:9"),
            ("CUDA_SIM_REPORT", "report.txt"),
            ("CUDA_SIM_COUNTERS", "-"),
            ("CUDA_SIM_LEAKS", "1"),
        ])
        .unwrap();
        let expected = Environment {
            devices: 2,
            sm: 90,
            memory: 64 << 20,
            strict: false,
            threads: 3,
            budget: 1000,
            fail: Failures { launch: Some(2), alloc: Some(5), lost: Some(9) },
            report: Some("report.txt".into()),
            counters: Some(Sink::Table),
            leaks: true,
        };
        assert_eq!(read, expected);
        assert_eq!(parse(&[]), Ok(Environment::default()));
    }

    #[test]
    fn malformed_values_are_refused_by_name() {
        for (name, value) in [
            ("CUDA_SIM_DEVICES", "0"),
            ("CUDA_SIM_DEVICES", "9"),
            ("CUDA_SIM_DEVICES", "two"),
            ("CUDA_SIM_SM", "70"),
            ("CUDA_SIM_MEMORY", "8T"),
            ("CUDA_SIM_MEMORY", "99999999999999999G"),
            ("CUDA_SIM_MEMORY", ""),
            ("CUDA_SIM_MEMORY", "8\u{20ac}"),
            ("CUDA_SIM_STRICT", "yes"),
            ("CUDA_SIM_THREADS", "0"),
            ("CUDA_SIM_BUDGET", "0"),
            ("CUDA_SIM_FAIL", "launch"),
            ("CUDA_SIM_FAIL", "launch:0"),
            ("CUDA_SIM_FAIL", "copy:1"),
            ("CUDA_SIM_REPORT", ""),
            ("CUDA_SIM_COUNTERS", ""),
        ] {
            let error = parse(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
