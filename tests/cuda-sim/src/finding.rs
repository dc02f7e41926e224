//! What is reported about a kernel or a program, in the words of compute-sanitizer.

use std::fmt;

/// What kind of mistake, which decides the error code that the driver returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    /// No allocation there, or beyond its end.
    OutOfBounds,
    UseAfterFree,
    Misaligned,
    /// A store to constant memory or to a read-only parameter.
    ReadOnly,
    /// Memory of another device without peer access, or pageable host memory.
    NotAccessible,
    Uninitialised,
    /// Two unordered accesses, at least one a write, inside a launch.
    Race,
    /// Two unordered operations on different streams touch the same bytes.
    StreamRace,
    /// A `.sync` instruction or a shuffle whose lanes never come together, or that reads a lane which takes no part.
    Divergence,
    /// A barrier that some threads do not reach, or with the wrong count.
    Barrier,
    Deadlock,
    /// `cp.async` data touched before its wait.
    AsyncCopy,
    /// `trap`
    Trap,
    /// `__assertfail`
    Assert,
    /// The instruction budget is spent.
    Timeout,
    StackOverflow,
    /// An instruction the hardware refuses at run time, such as a branch to an address that is no target.
    IllegalInstruction,
    /// Allocations left at context end.
    Leak,
    /// The program used the driver API in a way that only works by luck (size of arguments, an object of another context).
    Misuse,
}

impl Kind {
    /// The `CUresult` with which the driver fails after this finding; 0 for a finding that is only reported.
    pub fn result(self) -> u32 {
        match self {
            Kind::OutOfBounds | Kind::UseAfterFree | Kind::ReadOnly | Kind::NotAccessible => 700,
            Kind::Misaligned => 716,
            Kind::Timeout => 702,
            Kind::Assert => 710,
            Kind::IllegalInstruction => 715,
            Kind::Leak => 0,
            _ => 719,
        }
    }
}

/// Where something happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Place {
    /// `%ctaid`
    pub block: [u32; 3],
    /// `%tid`
    pub thread: [u32; 3],
    /// Warp of the block.
    pub warp: u32,
    /// Lane of the warp.
    pub lane: u32,
    /// File and line of the source, if the PTX has `.loc`.
    pub source: Option<(String, u32)>,
    /// Where that was inlined, from the inside out.
    pub inlined: Vec<(String, u32)>,
    /// Line of the PTX text.
    pub ptx_line: u32,
    /// The opcode as written.
    pub instruction: String,
    /// The function that the instruction stands in.
    pub function: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tx, ty, tz] = self.thread;
        let [bx, by, bz] = self.block;
        writeln!(f, "by thread ({tx},{ty},{tz}) in block ({bx},{by},{bz}), warp {}, lane {}", self.warp, self.lane)?;
        write!(f, "at {} in {}", self.instruction, self.function)?;
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        write!(f, " (PTX line {})", self.ptx_line)?;
        self.inlined.iter().try_for_each(|(file, line)| write!(f, "\ninlined at {file}:{line}"))
    }
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// One line: what, where in memory, how much.
    pub message: String,
    /// The kernel (or the driver call) during which it was noticed.
    pub kernel: String,
    /// Where it was noticed.
    pub place: Option<Box<Place>>,
    /// The other side of a race.
    pub other: Option<Box<Place>>,
    /// Further lines, such as what to do.
    pub notes: Vec<String>,
}

impl Finding {
    /// A report without places.
    pub fn new(kind: Kind, message: impl Into<String>) -> Finding {
        Finding { kind, message: message.into(), kernel: String::new(), place: None, other: None, notes: Vec::new() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "========= {}", self.message)?;
        let indent = |f: &mut fmt::Formatter<'_>, text: &str| -> fmt::Result {
            text.lines().try_for_each(|line| writeln!(f, "=========     {line}"))
        };
        if let Some(place) = &self.place {
            indent(f, &place.to_string())?;
        }
        if let Some(other) = &self.other {
            writeln!(f, "=========   and")?;
            indent(f, &other.to_string())?;
        }
        if !self.kernel.is_empty() {
            indent(f, &format!("during {}", self.kernel))?;
        }
        self.notes.iter().try_for_each(|note| indent(f, note))
    }
}

impl std::error::Error for Finding {}
