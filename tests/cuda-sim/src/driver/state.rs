//! Everything that the driver knows: one structure behind one lock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::context::Context;
use super::device::{Chip, Device};
use super::environment::{Environment, Sink};
use super::error::{self, Answer};
use super::event::Event;
use super::function::{Function, Kernel};
use super::graph::{Captures, Exec, Graph};
use super::memory::{Allocation, Pool};
use super::module::{Library, Link, Module};
use super::order::Order;
use super::stream::Stream;
use super::types::{CUcontext, CUresult};
use crate::exec::Options;
use crate::exec::counters::{Banks, Counters};
use crate::finding::{Finding, Kind};
use crate::memory::Memory;

/// What a handle stands for; it is part of the handle, so that one kind is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Sort {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Library,
    Kernel,
    Graph,
    Node,
    Exec,
    Pool,
    Link,
}

/// The objects of one sort by handle. A handle is never given twice, so a stale one is known as such.
pub(crate) struct Table<T> {
    sort: Sort,
    next: usize,
    objects: BTreeMap<usize, T>,
}

impl<T> Table<T> {
    fn new(sort: Sort) -> Table<T> {
        Table { sort, next: 1, objects: BTreeMap::new() }
    }

    /// A handle that the next `insert_at` may use.
    pub fn reserve(&mut self) -> usize {
        let handle = ((self.sort as usize) << 40) | (self.next << 4);
        self.next += 1;
        handle
    }

    pub fn insert_at(&mut self, handle: usize, object: T) {
        self.objects.insert(handle, object);
    }

    pub fn insert(&mut self, object: T) -> usize {
        let handle = self.reserve();
        self.objects.insert(handle, object);
        handle
    }

    pub fn get(&self, handle: usize) -> Option<&T> {
        self.objects.get(&handle)
    }

    /// The object, or the error of an invalid handle.
    pub fn find(&self, handle: usize) -> Answer<&T> {
        self.objects.get(&handle).ok_or(error::INVALID_HANDLE)
    }

    /// The object, or the error of an invalid handle.
    pub fn find_mut(&mut self, handle: usize) -> Answer<&mut T> {
        self.objects.get_mut(&handle).ok_or(error::INVALID_HANDLE)
    }

    pub fn remove(&mut self, handle: usize) -> Answer<T> {
        self.objects.remove(&handle).ok_or(error::INVALID_HANDLE)
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.objects.iter().map(|(handle, object)| (*handle, object))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.objects.iter_mut().map(|(handle, object)| (*handle, object))
    }

    /// The handles of those that the condition holds for.
    pub fn which(&self, condition: impl Fn(&T) -> bool) -> Vec<usize> {
        self.iter().filter(|(_, object)| condition(object)).map(|(handle, _)| handle).collect()
    }
}

/// A launch, as `cuSimCounters` and `CUDA_SIM_COUNTERS` tell of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Launched {
    pub launch: u64,
    pub kernel: String,
    pub device: i32,
    pub stream: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    pub counters: Counters,
}

/// Launches that are kept for `cuSimCounters`; those before are summed by kernel only.
const KEPT: usize = 4096;

/// The sums over the launches of a kernel.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Total {
    pub launches: u64,
    #[serde(flatten)]
    pub counters: Counters,
}

/// What was counted since the start or since `cuSimReset`.
#[derive(Default, Serialize)]
pub(crate) struct Record {
    /// Operations, by what they are.
    pub operations: BTreeMap<&'static str, u64>,
    /// Bytes copied, by direction.
    pub copied: BTreeMap<&'static str, u64>,
    /// Findings, by kind.
    pub findings: BTreeMap<String, u64>,
    pub kernels: BTreeMap<String, Total>,
    /// Launches that are no longer in `launches`.
    pub dropped: u64,
    pub launches: std::collections::VecDeque<Launched>,
}

/// The driver.
pub(crate) struct Driver {
    pub environment: Environment,
    pub chip: Chip,
    pub memory: Memory,
    pub devices: Vec<Device>,
    pub contexts: Table<Context>,
    pub streams: Table<Stream>,
    pub events: Table<Event>,
    pub modules: Table<Module>,
    pub functions: Table<Function>,
    pub libraries: Table<Library>,
    pub kernels: Table<Kernel>,
    pub graphs: Table<Graph>,
    pub nodes: Table<usize>,
    pub execs: Table<Exec>,
    pub pools: Table<Pool>,
    pub links: Table<Link>,
    /// By first address.
    pub allocations: BTreeMap<u64, Allocation>,
    pub order: Order,
    pub captures: Captures,
    /// Allocations ever made.
    pub buffers: u64,
    /// The function that runs now.
    pub call: &'static str,
    pub record: Record,
    /// Events that `CUDA_SIM_FAIL` counts.
    launches: u64,
    allocs: u64,
    operations: u64,
    report: Option<File>,
    counters: Option<File>,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// Takes the lock. A panic while it was held left nothing half done that a handle could reach.
pub(crate) fn lock() -> MutexGuard<'static, Option<Driver>> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> std::ffi::c_int;
}

extern "C" fn at_exit() {
    // Another thread may hold the lock for good: then nothing is said.
    if let Ok(mut guard) = DRIVER.try_lock()
        && let Some(driver) = guard.as_mut()
    {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.finish()));
    }
}

/// `cuInit`
pub(crate) fn initialise() -> Answer {
    let mut guard = lock();
    if guard.is_some() {
        return Ok(());
    }
    let driver = Environment::read().and_then(Driver::new).map_err(|problem| {
        eprintln!("cuda-sim: {problem}");
        error::INVALID_VALUE
    })?;
    *guard = Some(driver);
    // Without room for one more handler the table at exit is missing, which is no reason to fail.
    let _ = unsafe { atexit(at_exit) };
    Ok(())
}

impl Driver {
    pub fn new(environment: Environment) -> Result<Driver, String> {
        let open = |path: &std::path::Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
        let report = environment.report.as_deref().map(open).transpose()?;
        let counters = match &environment.counters {
            Some(Sink::File(path)) => Some(open(path)?),
            _ => None,
        };
        let chip = Chip::of(environment.sm).ok_or("no such chip")?;
        let mut driver = Driver {
            chip,
            memory: Memory::new(environment.strict),
            devices: Vec::new(),
            contexts: Table::new(Sort::Context),
            streams: Table::new(Sort::Stream),
            events: Table::new(Sort::Event),
            modules: Table::new(Sort::Module),
            functions: Table::new(Sort::Function),
            libraries: Table::new(Sort::Library),
            kernels: Table::new(Sort::Kernel),
            graphs: Table::new(Sort::Graph),
            nodes: Table::new(Sort::Node),
            execs: Table::new(Sort::Exec),
            pools: Table::new(Sort::Pool),
            links: Table::new(Sort::Link),
            allocations: BTreeMap::new(),
            order: Order::default(),
            captures: Captures::default(),
            buffers: 0,
            call: "cuInit",
            record: Record::default(),
            launches: 0,
            allocs: 0,
            operations: 0,
            report,
            counters,
            environment,
        };
        for device in 0..driver.environment.devices as i32 {
            let pool = driver.pools.insert(Pool::new(device, true));
            driver.devices.push(Device::new(pool));
        }
        Ok(driver)
    }

    pub fn device(&self, device: i32) -> Answer<&Device> {
        usize::try_from(device).ok().and_then(|i| self.devices.get(i)).ok_or(error::INVALID_DEVICE)
    }

    pub fn device_mut(&mut self, device: i32) -> Answer<&mut Device> {
        usize::try_from(device).ok().and_then(|i| self.devices.get_mut(i)).ok_or(error::INVALID_DEVICE)
    }

    pub fn options(&self) -> Options {
        Options {
            strict: self.environment.strict,
            threads: self.environment.threads,
            budget: self.environment.budget,
            multiprocessors: self.chip.multiprocessors(),
            sm: self.environment.sm,
        }
    }

    /// Whether the context can be used: neither a sticky error nor a lost device.
    pub fn healthy(&self, context: CUcontext) -> Answer {
        let context = self.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        if self.device(context.device)?.lost {
            return Err(error::ECC_UNCORRECTABLE);
        }
        context.sticky.map_or(Ok(()), Err)
    }

    /// Reports a finding, without consequences.
    pub fn report(&mut self, mut finding: Finding) {
        if finding.kernel.is_empty() {
            finding.kernel = self.call.into();
        }
        *self.record.findings.entry(kind_name(finding.kind)).or_default() += 1;
        let text = finding.to_string();
        // A report that cannot be written is still counted, and the error code of the call still says that there is one.
        let _ = match &mut self.report {
            Some(file) => file.write_all(text.as_bytes()),
            None => std::io::stderr().write_all(text.as_bytes()),
        };
    }

    /// Reports a finding, and the context fails from here on as it would on a device. Returns the error.
    pub fn fail(&mut self, context: CUcontext, finding: Finding) -> CUresult {
        let code = finding.kind.result();
        self.report(finding);
        if code != error::SUCCESS
            && let Ok(context) = self.contexts.find_mut(context)
        {
            context.sticky.get_or_insert(code);
        }
        code
    }

    /// Counts an operation on a stream of the context. Fails if the device is lost with it.
    pub fn count_operation(&mut self, what: &'static str, context: CUcontext) -> Answer {
        *self.record.operations.entry(what).or_default() += 1;
        self.operations += 1;
        if self.environment.fail.lost == Some(self.operations) {
            let device = self.contexts.find(context)?.device;
            self.device_mut(device)?.lost = true;
            eprintln!("cuda-sim: CUDA_SIM_FAIL loses device {device} at operation {} ({})", self.operations, self.call);
        }
        self.healthy(context)
    }

    /// Counts a launch; true if it is the one that is to fail.
    pub fn count_launch(&mut self) -> bool {
        self.launches += 1;
        self.environment.fail.launch == Some(self.launches)
    }

    /// Counts an allocation; true if it is the one that is to fail.
    pub fn count_alloc(&mut self) -> bool {
        self.allocs += 1;
        self.environment.fail.alloc == Some(self.allocs)
    }

    /// Keeps what a launch counted.
    pub fn launched(&mut self, mut launched: Launched) {
        launched.launch = self.launches;
        if let Some(file) = &mut self.counters {
            // A full disk must not change what the program computes.
            if let Ok(line) = serde_json::to_string(&launched) {
                let _ = writeln!(file, "{line}");
            }
        }
        let total = self.record.kernels.entry(launched.kernel.clone()).or_default();
        total.launches += 1;
        total.counters.merge(&launched.counters);
        if self.record.launches.len() == KEPT {
            self.record.launches.pop_front();
            self.record.dropped += 1;
        }
        self.record.launches.push_back(launched);
    }

    /// The process ends.
    fn finish(&mut self) {
        self.call = "exit";
        if self.environment.leaks {
            for context in self.contexts.which(|_| true) {
                self.report_leaks(context);
            }
        }
        if self.environment.counters == Some(Sink::Table) {
            eprint!("{}", self.record.table());
        }
    }
}

fn kind_name(kind: Kind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{kind:?}"),
    }
}

impl Record {
    /// The kernels as a table for people.
    pub fn table(&self) -> String {
        let header =
            ["kernel", "launches", "warp instr", "fma", "tensor macs", "global bytes", "sectors", "bank conflicts"];
        let mut rows = vec![header.map(String::from)];
        for (name, total) in &self.kernels {
            let c = &total.counters;
            let conflicts = |banks: &Banks| banks.wavefronts.saturating_sub(banks.ideal);
            let counts = [
                total.launches,
                c.instructions.values().map(|count| count.warps).sum(),
                c.fma,
                c.tensor_macs,
                c.global_load.bytes + c.global_store.bytes,
                c.global_load.sectors + c.global_store.sectors,
                conflicts(&c.shared_load) + conflicts(&c.shared_store),
            ];
            rows.push(std::array::from_fn(|i| i.checked_sub(1).map_or(name.clone(), |i| counts[i].to_string())));
        }
        let width: [usize; 8] =
            std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
        let mut text = String::new();
        for row in &rows {
            let mut line = format!("{:<1$}", row[0], width[0]);
            for i in 1..8 {
                line.push_str(&format!("  {:>1$}", row[i], width[i]));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_different_sorts_differ_and_are_not_given_twice() {
        let mut streams = Table::new(Sort::Stream);
        let mut events = Table::new(Sort::Event);
        let a = streams.insert(1);
        let b = events.insert(2);
        assert_ne!(a, b);
        assert_eq!(events.find(a), Err(error::INVALID_HANDLE));
        assert_eq!(streams.remove(a), Ok(1));
        assert_eq!(streams.find(a), Err(error::INVALID_HANDLE));
        assert_ne!(streams.insert(3), a);
    }

    #[test]
    fn the_table_lines_up() {
        let mut record = Record::default();
        record.kernels.insert("a".into(), Total { launches: 1, ..Total::default() });
        record.kernels.insert("a_long_name".into(), Total { launches: 123456789, ..Total::default() });
        let table = record.table();
        let lengths: Vec<usize> = table.lines().map(str::len).collect();
        assert_eq!(lengths.len(), 3);
        assert!(lengths.iter().all(|&length| length == lengths[0]), "{table}");
        assert!(table.contains("123456789"));
    }
}
