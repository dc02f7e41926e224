//! Operations on streams as data: what a stream runs at once, a graph keeps for later.

use std::ffi::c_void;

use super::error::{self, Answer};
use super::order::Timeline;
use super::state::Driver;
use super::types::*;
use crate::finding::{Finding, Kind};
use crate::memory::Purpose;

/// An operation.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Kernel(Box<KernelWork>),
    Copy(Box<CopyWork>),
    Fill(FillWork),
    Host(unsafe extern "C" fn(*mut c_void), usize),
    Empty,
    Record(CUevent),
    Wait(CUevent),
}

/// A launch whose configuration has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelWork {
    pub function: CUfunction,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    pub params: Vec<u8>,
    pub cooperative: bool,
}

/// One side of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    pub address: u64,
    /// Bytes from a row to the next.
    pub pitch: usize,
    /// Bytes from a plane to the next.
    pub plane: usize,
    /// What the caller says it is.
    pub space: Space,
}

/// What the caller says about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Host,
    Device,
    Unified,
}

/// A copy of `rows` rows in each of `planes` planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyWork {
    pub to: Side,
    pub from: Side,
    pub width: usize,
    pub rows: usize,
    pub planes: usize,
}

/// A fill of `rows` rows of `count` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FillWork {
    pub address: u64,
    pub pitch: usize,
    pub value: u32,
    /// Bytes of an element: 1, 2 or 4.
    pub element: usize,
    pub count: usize,
    pub rows: usize,
}

impl Side {
    pub fn flat(space: Space, address: u64) -> Side {
        Side { address, pitch: 0, plane: 0, space }
    }
}

impl CopyWork {
    /// Bytes in a row.
    pub fn flat(to: Side, from: Side, bytes: usize) -> CopyWork {
        CopyWork { to, from, width: bytes, rows: 1, planes: 1 }
    }

    fn empty(&self) -> bool {
        self.width == 0 || self.rows == 0 || self.planes == 0
    }

    /// The two addresses of each row; none that overflows, which `check` has seen to.
    fn each_row(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let copy = *self;
        let at = |side: Side, z: usize, y: usize| side.address + (z * side.plane + y * side.pitch) as u64;
        (0..copy.planes).flat_map(move |z| (0..copy.rows).map(move |y| (at(copy.to, z, y), at(copy.from, z, y))))
    }

    /// The ranges of bytes on one side, in order, neighbours merged.
    fn ranges(&self, side: Side) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for z in 0..self.planes {
            for y in 0..self.rows {
                let start = side.address + (z * side.plane + y * side.pitch) as u64;
                push_range(&mut ranges, start, start + self.width as u64);
            }
        }
        ranges
    }
}

fn push_range(ranges: &mut Vec<(u64, u64)>, start: u64, end: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => ranges.push((start, end)),
    }
}

/// The last byte's offset plus one; none if that is no address.
fn extent(address: u64, width: usize, pitch: usize, rows: usize, plane: usize, planes: usize) -> Option<usize> {
    let last = planes.checked_sub(1)?.checked_mul(plane)?.checked_add(rows.checked_sub(1)?.checked_mul(pitch)?)?;
    let bytes = last.checked_add(width)?;
    usize::try_from(address).ok()?.checked_add(bytes).filter(|&end| end <= isize::MAX as usize)?;
    Some(bytes)
}

/// What went wrong with an operation.
enum Failure {
    Code(CUresult),
    /// Reported, and returned at once: an argument of the call is at fault.
    Argument(Box<Finding>),
    /// Reported, and the context fails: a device would have noticed while it ran.
    Context(Box<Finding>),
}

impl Failure {
    fn argument(finding: Finding) -> Failure {
        Failure::Argument(Box::new(finding))
    }

    fn context(finding: Finding) -> Failure {
        Failure::Context(Box::new(finding))
    }
}

impl From<CUresult> for Failure {
    fn from(code: CUresult) -> Failure {
        Failure::Code(code)
    }
}

/// Whether a call waits for what it asks for, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Synchronous,
    Asynchronous,
}

impl Driver {
    /// Does a call's operation, or captures it. `what` names it in counts.
    pub fn submit(&mut self, stream: CUstream, work: Work, form: Form) -> Answer {
        if self.is_capturing(stream)? {
            if form == Form::Synchronous {
                return Err(self.invalidate(stream, error::STREAM_CAPTURE_UNSUPPORTED));
            }
            return self.capture(stream, work);
        }
        self.no_implicit_capture(stream)?;
        let context = self.streams.find(stream)?.context;
        self.count_operation(work.name(), context)?;
        let timeline = self.begin(stream)?;
        let name = self.stream_name(stream);
        self.perform(&work, context, timeline, &name, form)
    }

    pub fn stream_name(&self, stream: CUstream) -> String {
        match self.streams.get(stream) {
            Some(stream) if stream.legacy => "default".into(),
            _ => format!("{stream:#x}"),
        }
    }

    /// Does an operation now. A fault of the device leaves the context failed, and is returned by a synchronous call only.
    pub fn perform(&mut self, work: &Work, context: CUcontext, timeline: Timeline, stream: &str, form: Form) -> Answer {
        let done = match work {
            Work::Kernel(kernel) => self.run_kernel(kernel, context, timeline, stream),
            Work::Copy(copy) => self.run_copy(copy, timeline, form),
            Work::Fill(fill) => self.run_fill(fill, timeline, form),
            // Host functions run without the lock; their callers see to it. Events of graphs are likewise theirs.
            Work::Host(..) | Work::Empty | Work::Record(_) | Work::Wait(_) => Ok(()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Failure::Code(code)) => Err(code),
            Err(Failure::Argument(finding)) => {
                self.report(*finding);
                Err(error::INVALID_VALUE)
            }
            Err(Failure::Context(finding)) => {
                let code = self.fail(context, *finding);
                if form == Form::Synchronous && code != error::SUCCESS { Err(code) } else { Ok(()) }
            }
        }
    }

    /// Tells the order what an operation touches; only strict mode looks.
    fn touch(
        &mut self,
        timeline: Timeline,
        what: &str,
        reads: &[(u64, u64)],
        writes: &[(u64, u64)],
    ) -> Result<(), Failure> {
        if !self.environment.strict {
            return Ok(());
        }
        self.order.touch(timeline, what, reads, writes).map_or(Ok(()), |finding| Err(Failure::context(finding)))
    }

    fn run_kernel(
        &mut self,
        kernel: &KernelWork,
        context: CUcontext,
        timeline: Timeline,
        stream: &str,
    ) -> Result<(), Failure> {
        let (outcome, name) = self.launch_now(kernel, context, stream)?;
        // What it wrote up to a finding counts as well.
        let raced =
            self.touch(timeline, &format!("kernel {name}"), &outcome.footprint.reads, &outcome.footprint.writes);
        match outcome.finding {
            Some(finding) => Err(Failure::context(finding)),
            None => raced,
        }
    }

    /// What is at an address: `None` for pageable host memory, or for nothing at all.
    fn purpose(&self, address: u64) -> Option<Purpose> {
        self.memory.find(address).map(|info| info.purpose)
    }

    /// Whether a copy's ranges are what the call says they are.
    pub fn check_copy(&mut self, copy: &CopyWork) -> Answer {
        if copy.empty() {
            return Ok(());
        }
        for side in [copy.to, copy.from] {
            let bytes = extent(side.address, copy.width, side.pitch, copy.rows, side.plane, copy.planes)
                .ok_or(error::INVALID_VALUE)?;
            let found = self.memory.find(side.address);
            match (side.space, found) {
                (Space::Host, None) if side.address == 0 || side.address >= crate::memory::BASE => {
                    return Err(error::INVALID_VALUE);
                }
                (Space::Host, None) => {}
                (Space::Unified, None) if side.address != 0 && side.address < crate::memory::BASE => {}
                (Space::Host | Space::Device | Space::Unified, Some(info)) => {
                    let rest = (info.base + info.bytes as u64 - side.address) as usize;
                    if bytes > rest {
                        self.report(Finding::new(
                            Kind::OutOfBounds,
                            format!(
                                "Copy of {bytes} bytes at {:#x}, where {rest} are left of the {} bytes at {:#x}",
                                side.address, info.bytes, info.base
                            ),
                        ));
                        return Err(error::INVALID_VALUE);
                    }
                }
                (Space::Device | Space::Unified, None) => {
                    let finding = match self.memory.read(side.address, &mut [0]) {
                        Err(finding) => finding,
                        Ok(_) => Finding::new(Kind::OutOfBounds, format!("No allocation at {:#x}", side.address)),
                    };
                    self.report(finding);
                    return Err(error::INVALID_VALUE);
                }
            }
        }
        Ok(())
    }

    fn run_copy(&mut self, copy: &CopyWork, timeline: Timeline, form: Form) -> Result<(), Failure> {
        self.check_copy(copy)?;
        if copy.empty() {
            return Ok(());
        }
        let (to, from) = (self.purpose(copy.to.address), self.purpose(copy.from.address));
        // Pageable memory is the host's alone: the host has it ready at the call and uses it only after it.
        let reads = if from.is_some() { copy.ranges(copy.from) } else { Vec::new() };
        let writes = if to.is_some() { copy.ranges(copy.to) } else { Vec::new() };
        let what = self.call;
        let raced = self.touch(timeline, what, &reads, &writes);
        let mut unknown = 0;
        for (target, source) in copy.each_row() {
            // SAFETY (both slices): memory that no allocation holds is the caller's, which the C contract makes valid for
            // the whole row; the other side is an allocation, checked by `Memory`.
            let moved = match (to, from) {
                (Some(_), Some(_)) => self.memory.copy(target, source, copy.width),
                (Some(_), None) => {
                    let bytes = unsafe { std::slice::from_raw_parts(source as *const u8, copy.width) };
                    self.memory.write(target, bytes)
                }
                (None, Some(_)) => {
                    let bytes = unsafe { std::slice::from_raw_parts_mut(target as *mut u8, copy.width) };
                    self.memory.read(source, bytes).map(|count| unknown += count)
                }
                (None, None) => {
                    unsafe { std::ptr::copy(source as *const u8, target as *mut u8, copy.width) };
                    Ok(())
                }
            };
            moved.map_err(Failure::argument)?;
        }
        let host = |purpose: Option<Purpose>| purpose.is_none_or(|purpose| purpose.host());
        let direction = match (host(to), host(from)) {
            (true, true) => "host to host",
            (true, false) => "device to host",
            (false, true) => "host to device",
            (false, false) => "device to device",
        };
        let bytes = (copy.width as u64).saturating_mul(copy.rows as u64).saturating_mul(copy.planes as u64);
        *self.record.copied.entry(direction).or_default() += bytes;
        // "API synchronization behavior" of the driver API: when the call is back, what has happened?
        let managed = [to, from].contains(&Some(Purpose::Managed));
        let complete = match form {
            Form::Synchronous => match (host(to), host(from)) {
                _ if managed => true,
                (true, _) => true,
                (false, true) => from.is_some(), // pageable memory has been staged, not delivered
                (false, false) => false,
            },
            // Into pageable memory the copy is done when the call is back; so is any between host memory.
            Form::Asynchronous => to.is_none(),
        };
        if complete {
            let clock = self.order.clock(timeline);
            self.order.host_waits(&clock);
        }
        if unknown > 0 {
            let message = format!("Copy to the host of {unknown} bytes that nobody has written (they arrive as 0xcd)");
            self.report(Finding::new(Kind::Uninitialised, message));
        }
        raced
    }

    /// Whether a fill's range is one allocation's.
    pub fn check_fill(&mut self, fill: &FillWork) -> Answer {
        if fill.count == 0 || fill.rows == 0 {
            return Ok(());
        }
        let width = fill.count.checked_mul(fill.element).ok_or(error::INVALID_VALUE)?;
        let bytes = extent(fill.address, width, fill.pitch, fill.rows, 0, 1).ok_or(error::INVALID_VALUE)?;
        if !fill.address.is_multiple_of(fill.element as u64) || (fill.rows > 1 && fill.pitch < width) {
            return Err(error::INVALID_VALUE);
        }
        let finding = match self.memory.find(fill.address) {
            Some(info) if bytes as u64 <= info.base + info.bytes as u64 - fill.address => return Ok(()),
            Some(info) => Finding::new(
                Kind::OutOfBounds,
                format!(
                    "Fill of {bytes} bytes at {:#x}, in an allocation of {} bytes at {:#x}",
                    fill.address, info.bytes, info.base
                ),
            ),
            None => match self.memory.read(fill.address, &mut [0]) {
                Err(finding) => finding,
                Ok(_) => Finding::new(Kind::OutOfBounds, format!("No allocation at {:#x}", fill.address)),
            },
        };
        self.report(finding);
        Err(error::INVALID_VALUE)
    }

    fn run_fill(&mut self, fill: &FillWork, timeline: Timeline, form: Form) -> Result<(), Failure> {
        self.check_fill(fill)?;
        if fill.count == 0 || fill.rows == 0 {
            return Ok(());
        }
        let width = fill.count * fill.element;
        let mut ranges = Vec::new();
        for row in 0..fill.rows {
            let start = fill.address + (row * fill.pitch) as u64;
            push_range(&mut ranges, start, start + width as u64);
        }
        let what = self.call;
        let raced = self.touch(timeline, what, &[], &ranges);
        for row in 0..fill.rows {
            let start = fill.address + (row * fill.pitch) as u64;
            let pattern = &fill.value.to_le_bytes()[..fill.element];
            self.memory.fill(start, pattern, fill.count).map_err(Failure::argument)?;
        }
        // Fills of device memory are asynchronous whatever their name; those of host memory are what it says.
        if form == Form::Synchronous && self.purpose(fill.address).is_some_and(|purpose| purpose.host()) {
            let clock = self.order.clock(timeline);
            self.order.host_waits(&clock);
        }
        raced
    }
}

impl Work {
    /// What it is called in counts.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Kernel(_) => "kernel",
            Work::Copy(_) => "copy",
            Work::Fill(_) => "fill",
            Work::Host(..) => "host function",
            Work::Empty => "empty",
            Work::Record(_) => "event record",
            Work::Wait(_) => "event wait",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_touch_are_one_range() {
        let side = Side { address: 1000, pitch: 16, plane: 64, space: Space::Device };
        let copy = CopyWork { to: side, from: side, width: 16, rows: 4, planes: 2 };
        assert_eq!(copy.ranges(side), [(1000, 1128)]);
        let copy = CopyWork { width: 8, rows: 2, planes: 1, ..copy };
        assert_eq!(copy.ranges(side), [(1000, 1008), (1016, 1024)]);
    }

    #[test]
    fn an_extent_beyond_all_addresses_is_none() {
        assert_eq!(extent(16, 8, 0, 1, 0, 1), Some(8));
        assert_eq!(extent(16, 8, 32, 3, 0, 1), Some(72));
        assert_eq!(extent(16, usize::MAX, 0, 1, 0, 1), None);
        assert_eq!(extent(u64::MAX, 1, 0, 1, 0, 1), None);
        assert_eq!(extent(16, 8, usize::MAX, 3, 0, 1), None);
    }
}
