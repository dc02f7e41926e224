//! The kernels as machine code: they compile for every chip without a spill, agree with their launchers, and take and do what
//! `kernels/TABLE.md` says.
//!
//! Needs NVRTC and a driver, simulated or not (`. tests/cuda-sim/env.sh`). Counters exist on the simulated device alone.

use intervene::backend::cuda::{
    Compiled, Counts, Cuda, Libraries, Precision, Resources, Source, cached, kernel_of, on_tensor_cores, sources,
};
use intervene::backend::layout::{ConvShape, PoolShape};
use intervene::backend::problems::{Map, Pass, Problem, Work};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Chips that every kernel compiles for: the oldest supported, those with asynchronous copies, and the newest known.
const CHIPS: [u32; 5] = [75, 80, 86, 90, 100];
/// The chip of the table's occupancy.
const CHIP: u32 = 80;

/// Every file for every chip.
fn compiled() -> &'static BTreeMap<(&'static str, u32), Compiled> {
    static COMPILED: OnceLock<BTreeMap<(&'static str, u32), Compiled>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let mut all: Vec<(Source, u32)> = sources().iter().flat_map(|&s| CHIPS.map(|sm| (s, sm))).collect();
        // the longest first, so that none is left over at the end
        all.sort_by_key(|(source, _)| std::cmp::Reverse(source.text.len()));
        let one = |(source, sm): (Source, u32)| {
            let compiled = cached(&source, sm).unwrap_or_else(|e| panic!("{e}\nfirst do `. tests/cuda-sim/env.sh`"));
            ((source.file, sm), compiled)
        };
        all.into_par_iter().with_max_len(1).map(one).collect()
    })
}

/// What each kernel takes on a chip.
fn resources(sm: u32) -> BTreeMap<String, Resources> {
    let of_file = |source: &Source| compiled()[&(source.file, sm)].resources();
    sources().iter().flat_map(of_file).map(|r| (r.kernel.clone(), r)).collect()
}

/// Whether a kernel of this file may be missing for `sm`: tensor cores of the kind that we use begin at sm_80.
fn optional(source: &Source, sm: u32) -> bool {
    sm < 80 && source.text.contains("mma.sync")
}

#[test]
fn every_kernel_compiles_for_every_chip_without_spills_and_stack() {
    let mut wrong = Vec::new();
    for sm in CHIPS {
        let found = resources(sm);
        for source in sources() {
            assert!(compiled()[&(source.file, sm)].cubin.is_some(), "{} for sm_{sm}: no machine code", source.file);
            for &kernel in source.kernels {
                match found.get(kernel) {
                    None if optional(source, sm) => {}
                    None => wrong.push(format!("{kernel} is missing for sm_{sm}")),
                    Some(r) => {
                        let bad = r.spill > 0 || r.stack > 0 || r.registers == 0 || r.threads == 0;
                        wrong.extend(bad.then(|| format!("sm_{sm}: {r:?}")));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The launchers, without their tests: (file, text).
fn launchers() -> Vec<(String, String)> {
    let folders = ["src/backend/cuda/launch", "src/backend/cuda/launch/conv"];
    let files = folders.into_iter().flat_map(|folder| std::fs::read_dir(directory(folder)).unwrap());
    let is_code = |p: &PathBuf| p.extension().is_some_and(|e| e == "rs") && !p.ends_with("tests.rs");
    let paths = files.map(|f| f.unwrap().path()).filter(is_code);
    let mut found: Vec<_> = paths
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_string();
            (path.file_name().unwrap().to_str().unwrap().to_string(), code)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn launchers_name_every_kernel_and_no_other() {
    let kernels: BTreeSet<&str> = sources().iter().flat_map(|s| s.kernels).copied().collect();
    let texts = launchers();
    let literals: BTreeSet<&str> = texts.iter().flat_map(|(_, text)| text.split('"').skip(1).step_by(2)).collect();
    let unnamed: Vec<_> = kernels.difference(&literals).collect();
    assert!(unnamed.is_empty(), "no launcher names {unnamed:?}");
    // a text with an underscore and nothing but small letters, digits and underscores is a kernel's name
    let named =
        |t: &&&str| t.contains('_') && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let unknown: Vec<_> = literals.difference(&kernels).filter(named).collect();
    assert!(unknown.is_empty(), "launchers name kernels that do not exist: {unknown:?}");
}

/// The sizes that `text` asserts: what follows `before`, a name, `between`, a number.
fn asserted_sizes(text: &str, before: &str, between: &str) -> BTreeMap<String, usize> {
    let sizes = text.split(before).skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once(between)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((name.to_string(), digits.parse().ok()?))
    });
    sizes.collect()
}

#[test]
fn argument_structs_have_one_size_on_both_sides() {
    let mut device = BTreeMap::new();
    let headers = std::fs::read_dir(directory("kernels")).unwrap().map(|f| f.unwrap().path());
    for header in headers.filter(|p| p.extension().is_some_and(|e| e == "cuh")) {
        let text = std::fs::read_to_string(header).unwrap();
        device.extend(asserted_sizes(&text, "static_assert(sizeof(", ") == "));
    }
    for source in sources() {
        device.extend(asserted_sizes(source.text, "static_assert(sizeof(", ") == "));
        let taken = source.text.matches("__global__ void").count();
        assert!(taken == source.kernels.len(), "{}: a kernel that the table of kernels lacks", source.file);
        // what kernels take is asserted
        for rest in source.text.split("extern \"C\" __global__ void").skip(1) {
            let parameters = rest.split_once('{').unwrap().0.rsplit_once('(').unwrap().1;
            let words = parameters.split([' ', ')']).filter(|w| w.ends_with("Arguments"));
            let asserted: Vec<bool> = words.map(|name| device.contains_key(name)).collect();
            assert_eq!(asserted, [true], "{}: {parameters}", source.file);
        }
    }
    let mut host = BTreeMap::new();
    for (_, text) in launchers() {
        host.extend(asserted_sizes(&text, "assert!(size_of::<", ">() == "));
    }
    // a struct inside of a fused kernel's arguments has a name of its own on either side
    let rename = |name: &str| if name == "AdamTensor" { "AdamTensorArguments".to_string() } else { name.to_string() };
    let device: BTreeMap<String, usize> = device.into_iter().map(|(name, n)| (rename(&name), n)).collect();
    assert!(device.len() > 20, "{device:?}");
    assert_eq!(device, host);
}

#[test]
fn asynchronous_copies_and_tensor_cores_are_in_the_code_from_sm_80_on() {
    for source in sources() {
        for sm in CHIPS {
            let ptx = &compiled()[&(source.file, sm)].ptx;
            let copies = ptx.lines().any(|l| l.contains("cp.async.c") && l.contains(", 16"));
            // the prelude's `copy_async` is the instruction for most files
            let async_ = ["cp.async.c", "copy_async"].iter().any(|word| source.text.contains(word));
            let (file, tensor) = (source.file, source.text.contains("mma.sync"));
            assert_eq!(copies, sm >= 80 && (async_ || tensor), "{file} for sm_{sm}: copies of 16 bytes");
            assert_eq!(ptx.contains("mma.sync"), sm >= 80 && tensor, "{file} for sm_{sm}: mma.sync");
        }
    }
}

/// [channels, height = width, outputs, kernel, stride, padding]
fn shape([c, hw, o, k, stride, pad]: [usize; 6]) -> ConvShape {
    ConvShape { c, h: hw, w: hw, o, kh: k, kw: k, stride, pad }
}

fn conv(pass: Pass, rows: usize, dims: [usize; 6]) -> Problem {
    let [c, hw, o, k, ..] = dims;
    Problem::new(format!("{c}->{o} {k}x{k} at {hw}, {pass:?}"), rows, Work::Conv(pass, shape(dims)))
}

/// Small aligned problems: every kernel on tensor cores is in one of them, in one of the precisions.
fn counted_on_tensor_cores() -> Vec<Problem> {
    let [large, wide, narrow, deep] =
        [[32, 16, 128, 3, 1, 1], [32, 16, 64, 3, 1, 1], [32, 16, 32, 3, 1, 1], [1024, 1, 256, 1, 1, 0]];
    vec![
        conv(Pass::Forward, 1, large),
        conv(Pass::Forward, 1, wide),
        conv(Pass::Forward, 1, narrow),
        conv(Pass::Forward, 32, deep),
        conv(Pass::GradInput, 1, wide),
        conv(Pass::GradWeight, 2, wide),
        conv(Pass::GradWeight, 2, narrow),
        conv(Pass::PackForward, 1, [64, 16, 64, 3, 1, 1]),
        conv(Pass::PackGradInput, 1, [64, 16, 64, 3, 1, 1]),
    ]
}

/// Small aligned problems: every kernel of fp32 is in one of them.
fn counted_problems() -> Vec<Problem> {
    use Map::*;
    let s = |c, hw, o, k, stride, pad| shape([c, hw, o, k, stride, pad]);
    let [wide, narrow, thin, deep] =
        [[32, 16, 64, 3, 1, 1], [32, 16, 32, 3, 1, 1], [32, 16, 4, 3, 1, 1], [64, 8, 64, 3, 1, 1]];
    let mut all = vec![
        conv(Pass::Forward, 1, wide),
        conv(Pass::Forward, 1, [3, 16, 64, 3, 1, 1]),
        conv(Pass::Prologue, 1, wide),
        conv(Pass::Forward, 1, narrow),
        conv(Pass::Forward, 1, [1, 16, 32, 3, 1, 1]),
        conv(Pass::Prologue, 1, narrow),
        conv(Pass::Forward, 1, thin),
        conv(Pass::Forward, 1, [3, 16, 4, 3, 1, 1]),
        conv(Pass::Forward, 1, deep),
        conv(Pass::Forward, 1, [30, 8, 32, 3, 1, 1]),
        conv(Pass::Prologue, 1, deep),
        conv(Pass::Forward, 32, [1024, 1, 256, 1, 1, 0]),
        conv(Pass::GradInput, 1, wide),
        conv(Pass::GradInput, 1, [64, 16, 64, 3, 2, 1]),
        conv(Pass::GradWeight, 2, wide),
        conv(Pass::GradWeight, 2, [9, 16, 64, 3, 1, 1]),
        conv(Pass::GradWeight, 2, narrow),
        conv(Pass::GradWeight, 2, [9, 16, 32, 3, 1, 1]),
        conv(Pass::GradWeight, 2, [4, 16, 32, 3, 1, 1]),
        conv(Pass::GradWeight, 2, [1, 16, 32, 3, 1, 1]),
        conv(Pass::Winograd, 8, [64, 16, 64, 3, 1, 1]),
        conv(Pass::Winograd, 8, [128, 16, 32, 3, 1, 1]),
        conv(Pass::Winograd, 2, [128, 6, 128, 3, 1, 1]),
        conv(Pass::PackWinograd, 1, [64, 16, 64, 3, 1, 1]),
        conv(Pass::PackWinograd, 1, [128, 6, 128, 3, 1, 1]),
        conv(Pass::PackForward, 1, [64, 16, 64, 3, 1, 1]),
        conv(Pass::PackGradInput, 1, [64, 16, 64, 3, 1, 1]),
        Problem::new("16 nodes, 16->32 3x3 at 16", 32, Work::InterveneConv(s(16, 16, 32, 3, 1, 1))),
        Problem::new("16 nodes, 16->32 1x1 at 16", 32, Work::InterveneConv(s(16, 16, 32, 1, 1, 0))),
        Problem::new("1024 rounds", 4, Work::Fma(8)),
    ];
    for (k, pad) in [(2, 0), (3, 1)] {
        let shape = PoolShape { c: 32, h: 32, w: 32, k, stride: 2, pad };
        all.push(Problem::new(format!("{k}x{k} s2, 32x32x32"), 2, Work::MaxPool(shape)));
        all.push(Problem::new(format!("{k}x{k} s2, 32x32x32, gradient"), 2, Work::MaxPoolGrad(shape)));
    }
    let maps = [
        Relu,
        ReluGrad,
        Scale,
        SquareRoot,
        Add,
        Affine,
        SignStep,
        Transpose,
        SumToChannels,
        SumRows,
        BroadcastRows,
        GlobalAverage,
        GlobalAverageGrad,
        ChannelMax,
        MeanAbs,
        MeanAbsGrad,
        MeanSquare,
        MeanSquareGrad,
        TotalVariation,
        TotalVariationGrad,
        Copy,
        AddViews,
        Average,
        AverageGrad,
        ChannelSum,
        BatchMoments,
        Normalise,
        NormaliseGradWeight,
        NormaliseGradInput,
        RunningMean,
        AdamMean,
        AdamSquare,
        AdamStep,
        AdamFused,
    ];
    all.extend(maps.map(|map| Problem::new("4 x 32x32x32", 4, Work::Map(map, [32, 32, 32]))));
    let rows = [
        CrossEntropy,
        CrossEntropyGrad,
        SoftmaxKl,
        SoftmaxKlGrad,
        BinaryCrossEntropy,
        BinaryCrossEntropyGrad,
        SigmoidKl,
        SigmoidKlGrad,
        Effects,
        WeightedEffect,
    ];
    all.extend(rows.map(|map| Problem::new("32 x 64 logits", 32, Work::Map(map, [64, 1, 1]))));
    all.push(Problem::new("16 nodes, 16x32x32", 32, Work::Map(Intervene, [16, 32, 32])));
    all.extend([GridMask, RandomSigns].map(|map| Problem::new("4 images 3x64x64", 4, Work::Map(map, [3, 64, 64]))));
    all
}

/// A bound of the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// Sectors that a kernel's requests touch, over those that the bytes asked for fill.
    Asked,
    /// Sectors of a problem, over those of every operand once.
    Least,
    /// Wavefronts of shared memory beyond the least, in percent of it: 0.
    Conflicts,
}

/// How far above 1 the sectors may be.
const GATE: f64 = 1.1;

/// An exception: kernels (a star stands for any ending), the bound that holds for them instead, and why.
type Exception = (&'static [&'static str], Gate, f64, &'static str);

const EXCEPTIONS: &[Exception] = &[
    (
        &["conv_narrow_scalar", "conv_thin_scalar"],
        Gate::Asked,
        1.2,
        "a first layer's pixel is one or three floats: a warp's pixels begin where the line of the image does, in the middle of a \
         sector",
    ),
    (
        &["broadcast_rows", "column_sums"],
        Gate::Asked,
        4.6,
        "the value without rows lies in logical order, the rows channels-last: one of the two is met across its lines. A block meets \
         whole sectors of it, so that L1 or L2 serves the rest; beside many rows it is little",
    ),
    (
        &["conv_pack_grad_input"],
        Gate::Asked,
        4.6,
        "neighbouring channels of a weight lie KH x KW floats apart; what else a sector holds serves the block's other taps",
    ),
    (
        &["conv_wgrad_sum"],
        Gate::Asked,
        1.9,
        "the result has the order of the weight file, taps innermost; there are many parts to read for each write, and they are runs",
    ),
    (
        &["conv_wgrad_small_scalar", "conv_wgrad_narrow_scalar", "conv_wgrad_wide_scalar"],
        Gate::Asked,
        2.5,
        "channels that are no multiple of 4 (1 and 9 here) begin anywhere in a sector; layers of 1 or 3 channels come first in a net",
    ),
    (
        &["conv_mma_pack*"],
        Gate::Asked,
        5.7,
        "a thread gathers the 4 or 8 weights of a lane's fragments, KH x KW floats or a line of them apart: what else a sector holds \
         serves the block's other threads. A weight is packed once",
    ),
    (
        &["conv_wgrad_wide_tf32", "conv_wgrad_narrow_tf32", "conv_wgrad_wide_bf16", "conv_wgrad_narrow_bf16"],
        Gate::Asked,
        1.4,
        "a lane's sums are two quads that fill a sector, stored one after the other and counted twice, in front of the cache that joins \
         them; layers this small have few pixels for each sum",
    ),
    (
        &["cross_entropy"],
        Gate::Asked,
        1.2,
        "a row's label and the logit there are 4 bytes of a sector each, beside 64 logits here",
    ),
    (
        &["conv_wgrad_wide_tf32", "conv_wgrad_narrow_tf32", "conv_wgrad_wide_bf16", "conv_wgrad_narrow_bf16"],
        Gate::Least,
        12.2,
        "parts of a weight gradient are written, by halves of sectors, and read once; both operands are read again for every tile, from \
         the caches",
    ),
    (
        &["conv_mma_pack*"],
        Gate::Least,
        4.6,
        "a thread gathers: what else a sector holds serves the block's other threads",
    ),
    (
        &[
            "conv_wide*",
            "conv_narrow*",
            "conv_thin*",
            "conv_deep*",
            "conv_mma_*",
            "conv_wgrad_wide*",
            "conv_wgrad_narrow*",
            "conv_wgrad_small*",
            "conv_wgrad_sum",
        ],
        Gate::Least,
        10.1,
        "an implicit GEMM reads its left tile again for every tap and for every tile of columns, and a weight for every tile of \
         pixels: counted in front of the caches, from which these reads come. Parts of a weight gradient are written and read once",
    ),
    (
        &["winograd_input*", "winograd_product*", "winograd_output*"],
        Gate::Least,
        1.3,
        "tiles of the input overlap by two lines, and a transformed weight is read for every tile of rows, V for every tile of columns: \
         from the caches. One value for all three, a layer's whole",
    ),
    (
        &["conv_pack_grad_input"],
        Gate::Least,
        4.6,
        "as for what is asked for: of a sector that neighbouring channels touch, the rest serves the block's other taps",
    ),
    (
        &["broadcast_rows", "column_sums"],
        Gate::Least,
        7.3,
        "the value without rows is met across its lines, beside 4 rows here",
    ),
    (
        &["affine", "global_average_grad", "random_signs"],
        Gate::Least,
        1.3,
        "a warp reads the channels' (or the image's) numbers for each of its quads: from L1",
    ),
    (
        &["normalise", "normalise_grad_input"],
        Gate::Least,
        1.2,
        "a thread reads its channels' numbers once for all its pixels, of which it has four here and up to 32: from L1",
    ),
    (&["average_cells_grad"], Gate::Least, 1.3, "a window's gradient is read for each of its cells, from L1"),
    (&["channel_sum"], Gate::Asked, 1.2, "a warp writes one number, 4 bytes of a sector that its neighbours fill"),
    (
        &["channel_sum"],
        Gate::Least,
        2.3,
        "the weights of an image's channels are read for each of its positions, from L1",
    ),
    (&["max_pool", "max_pool_grad"], Gate::Least, 6.7, "windows that overlap are read again, from the caches"),
    (&["total_variation*"], Gate::Least, 3.0, "a cell's neighbours are read with each cell, from the caches"),
    (
        &["cross_entropy*", "softmax_kl*", "effects", "weighted_effect"],
        Gate::Least,
        9.4,
        "a warp goes over its row of logits for the maximum, the sum and the result: 256 bytes here, which stay in L1. Idle logits \
         are counted once an image and read once a row",
    ),
    (
        &["intervene*"],
        Gate::Least,
        3.3,
        "16 rows share an image, which is counted once and read by each of them, from L2; taps read a cell again, from L1",
    ),
    (
        &[
            "conv_wide*",
            "conv_narrow*",
            "conv_thin*",
            "conv_deep*",
            "conv_mma_tf32_deep",
            "conv_mma_f16_deep",
            "conv_mma_bf16_deep",
        ],
        Gate::Conflicts,
        10.0,
        "the table of pixels, 16 bytes each, is written once a block, a word at a time: 4 ways. Of a prologue's stores into a stage, \
         and of the eight of a deep tile's sums, NVRTC splits one into four of single floats: 4 ways",
    ),
    (
        &["conv_wgrad_wide*", "conv_wgrad_narrow*", "conv_wgrad_small*"],
        Gate::Conflicts,
        5.3,
        "windows, 16 bytes each, are written in two halves by one warp a tile: 2 ways; of the small tile's sums, NVRTC splits a store \
         as above",
    ),
];

/// Which kernels an exception is for.
fn covers(exception: &Exception, kernel: &str) -> bool {
    exception.0.iter().any(|name| match name.strip_suffix('*') {
        Some(begin) => kernel.starts_with(begin),
        None => kernel == *name,
    })
}

/// What a kernel did in a problem.
struct Row {
    problem: String,
    kernel: String,
    counts: Counts,
    /// Sectors of all the problem's kernels over the least.
    of_least: f64,
}

impl Row {
    fn of_asked(&self) -> f64 {
        32.0 * self.counts.sectors as f64 / self.counts.bytes.max(1) as f64
    }

    /// What a gate looks at, and what it lets through.
    fn gated(&self, gate: Gate) -> (f64, f64) {
        let value = match gate {
            Gate::Asked => self.of_asked(),
            Gate::Least => self.of_least,
            Gate::Conflicts => 100.0 * self.counts.conflicts as f64 / self.counts.wavefronts.max(1) as f64,
        };
        let plain = if gate == Gate::Conflicts { 0.0 } else { GATE };
        let exception = EXCEPTIONS.iter().find(|e| e.1 == gate && covers(e, &self.kernel));
        (value, exception.map_or(plain, |e| e.2))
    }
}

/// What every kernel does; `None` where the driver is no simulated one of the table's chip.
fn counted() -> Option<Vec<Row>> {
    let cuda = Cuda::open(0).unwrap_or_else(|e| panic!("{e}\nfirst do `. tests/cuda-sim/env.sh`"));
    if !cuda.is_simulated() || cuda.sm() != CHIP {
        return None;
    }
    let mut rows = counted_in(&cuda, Precision::Fp32, counted_problems());
    for precision in [Precision::Tf32, Precision::Fp16, Precision::Bf16] {
        let cuda = Cuda::open_with(0, precision).unwrap_or_else(|e| panic!("{e}"));
        let all = counted_in(&cuda, precision, counted_on_tensor_cores());
        // the others are those of fp32, and a gradient in fp16 is that of tf32
        let new =
            |row: &Row| on_tensor_cores(&row.kernel) && (precision != Precision::Fp16 || !row.kernel.contains("_tf32"));
        rows.extend(all.into_iter().filter(new));
    }
    rows.sort_by(|a, b| (&a.kernel, &a.problem).cmp(&(&b.kernel, &b.problem)));
    Some(rows)
}

/// What every kernel does in the problems.
fn counted_in(cuda: &Cuda, precision: Precision, problems: Vec<Problem>) -> Vec<Row> {
    let mut rows = Vec::new();
    for problem in problems {
        let counts = cuda.trial(&problem).and_then(|mut trial| trial.counts());
        let counts = counts.unwrap_or_else(|e| panic!("{}: {e}", problem.name));
        // what benchmarks take for the kernel that does the work is it
        let most = counts.iter().max_by_key(|(_, c)| c.warp_instructions).map(|(kernel, _)| kernel.as_str());
        assert_eq!(kernel_of(&problem, precision), most, "{}", problem.name);
        let sectors: u64 = counts.values().map(|c| c.sectors).sum();
        let of_least = 32.0 * sectors as f64 / problem.cost().bytes as f64;
        let row = |(kernel, counts)| Row { problem: problem.name.clone(), kernel, counts, of_least };
        rows.extend(counts.into_iter().map(row));
    }
    rows
}

/// The version of NVRTC that a table was made with, and the headings of its parts.
const MADE_WITH: &str = "Compiled by NVRTC ";
const TAKES: &str = "## What they take\n";
const DOES: &str = "## What they do\n";
const WHY: &str = "## Where a bound does not hold, and why\n";

fn nvrtc() -> String {
    let (major, minor) = intervene::backend::cuda::compiler().unwrap();
    format!("{major}.{minor}")
}

fn head() -> String {
    format!(
        "# The kernels in numbers\n\n\
         Made by `tests/kernels_compile.rs`, which fails where it is out of date. To make it anew:\n\
         `. tests/cuda-sim/env.sh && UPDATE_TABLE=1 cargo test --locked --test kernels_compile`\n\n\
         {MADE_WITH}{}. Nothing here was measured by a clock.\n\n",
        nvrtc()
    )
}

fn takes() -> String {
    let mut text = format!(
        "{TAKES}\nThreads of a block, bytes of shared memory, registers of a thread on each chip (NVRTC's choice, which varies by as much as 18 from \
         one compilation of a large file to the next); blocks and warps that a \
         multiprocessor of sm_{CHIP} holds\n(of 64 warps), and what keeps more away. No kernel spills or has a stack.\n\n\
         | kernel | threads | shared |"
    );
    CHIPS.iter().for_each(|sm| write!(text, " sm_{sm} |").unwrap());
    text += " blocks | warps | limit |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n";
    let by_chip = CHIPS.map(resources);
    for (kernel, r) in &resources(CHIP) {
        write!(text, "| {kernel} | {} | {} |", r.threads, r.shared).unwrap();
        for resources in &by_chip {
            let registers = resources.get(kernel).map_or("-".into(), |r| r.registers.to_string());
            write!(text, " {registers} |").unwrap();
        }
        let o = r.occupancy(CHIP).unwrap();
        writeln!(text, " {} | {} | {} |", o.blocks, o.warps, o.limit.name()).unwrap();
    }
    text
}

fn does(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{DOES}\nCounted by the simulated device (PTX instructions, as sm_80). `sectors`: of 32 bytes, as warps touch them, in front of \
         all caches; `of asked`: over the\nbytes that lanes ask for; `of least`: over every operand once, all kernels of the problem \
         together. `conflicts`: wavefronts of shared memory beyond the least.\n\n\
         | kernel | problem | warp instructions | FMAs | lane instructions an FMA | sectors | of asked | of least | conflicts |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for r in rows {
        let c = r.counts;
        // beside a tile's, multiply-adds are a handful in an exponential
        let lanes = c.lanes_per_fma().filter(|l| *l < 10.0).map_or("-".into(), |l| format!("{l:.2}"));
        writeln!(
            text,
            "| {} | {} | {} | {} | {lanes} | {} | {:.2} | {:.2} | {} |",
            r.kernel,
            r.problem,
            c.warp_instructions,
            c.fma,
            c.sectors,
            r.of_asked(),
            r.of_least,
            c.conflicts
        )
        .unwrap();
    }
    text
}

fn why() -> String {
    let mut text = format!(
        "\n{WHY}\nFor all others: sectors of asked and of least at most {GATE}, no conflicts. Conflicts are in percent of \
         the least.\n\n| bound | up to | kernels | because |\n|---|--:|---|---|\n"
    );
    for (kernels, gate, limit, reason) in EXCEPTIONS {
        let gate = match gate {
            Gate::Asked => "of asked",
            Gate::Least => "of least",
            Gate::Conflicts => "conflicts",
        };
        writeln!(text, "| {gate} | {limit} | {} | {reason} |", kernels.join(", ")).unwrap();
    }
    text
}

/// Whether a row says the same as the recorded one, as far as NVRTC lets it: two compilations of one large file differ, within one
/// process or not, in the order of instructions and by some registers.
fn agrees(columns: &[&str], old: &[&str], new: &[&str]) -> bool {
    let same = |column: &str| columns.iter().position(|c| *c == column).is_some_and(|i| old.get(i) == new.get(i));
    let cell = |(i, column): (usize, &&str)| {
        let (Some(old), Some(new)) = (old.get(i), new.get(i)) else { return false };
        let (Ok(a), Ok(b)) = (old.parse::<f64>(), new.parse::<f64>()) else {
            return old == new || (*column == "limit" && !same("sm_80"));
        };
        match *column {
            "warp instructions" | "lane instructions an FMA" => (a - b).abs() <= 0.03 * a,
            // conv_wgrad_narrow was seen with 75 and 93 on sm_90
            c if c.starts_with("sm_") => (a - b).abs() <= 24.0,
            // follow from the registers
            "blocks" | "warps" if !same("sm_80") => true,
            _ => a == b,
        }
    };
    old.len() == new.len() && columns.iter().enumerate().all(cell)
}

/// `new` with the recorded rows wherever they still agree.
fn settled(old: &str, new: &str) -> String {
    fn split(line: &str) -> Vec<&str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    }
    let mut columns = Vec::new();
    let mut text = String::new();
    for line in new.lines() {
        let row = split(line);
        if row[0] == "kernel" {
            columns = row.clone();
        }
        let named = if columns.get(1) == Some(&"problem") { 2 } else { 1 };
        let recorded = old.lines().find(|old| {
            let old = split(old);
            line.starts_with("| ") && old.get(..named) == row.get(..named) && agrees(&columns, &old, &row)
        });
        text += recorded.unwrap_or(line);
        text.push('\n');
    }
    text
}

/// The lines of two texts that are not in both.
fn difference(old: &str, new: &str) -> String {
    let lines = |text: &'_ str| text.lines().map(String::from).collect::<BTreeSet<_>>();
    let (old, new) = (lines(old), lines(new));
    let gone = old.difference(&new).map(|l| format!("-{l}\n"));
    let come = new.difference(&old).map(|l| format!("+{l}\n"));
    gone.chain(come).collect()
}

#[test]
fn a_row_is_the_recorded_one_as_long_as_only_the_compiler_moved() {
    let table = |sm_80: u32, blocks: u32, threads: u32| {
        format!(
            "| kernel | threads | sm_80 | blocks | limit |\n|---|--:|--:|--:|---|\n| a | {threads} | {sm_80} | {blocks} | registers |\n"
        )
    };
    let old = table(80, 3, 128);
    assert_eq!(settled(&old, &table(84, 2, 128)), old);
    for moved in [table(80, 2, 128), table(120, 2, 128), table(84, 2, 256)] {
        assert_eq!(settled(&old, &moved), moved);
    }
    let counts = |instructions: u32, sectors: u32| {
        format!(
            "| kernel | problem | warp instructions | sectors |\n| a | one | {instructions} | {sectors} |\n| a | two | 5 | 5 |\n"
        )
    };
    assert_eq!(settled(&counts(1000, 7), &counts(1020, 7)), counts(1000, 7));
    assert_eq!(settled(&counts(1000, 7), &counts(1020, 8)), counts(1020, 8));
    assert_eq!(settled(&counts(1000, 7), &counts(1100, 7)), counts(1100, 7));
}

#[test]
fn the_table_says_what_kernels_take_and_do_and_nothing_is_beyond_its_bounds() {
    let path = directory("kernels/TABLE.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let rows = counted();
    let mut new = [head(), takes(), rows.as_deref().map_or(String::new(), does), why()].concat();
    if let Some(rows) = &rows {
        let mut wrong = Vec::new();
        for row in rows {
            for gate in [Gate::Asked, Gate::Least, Gate::Conflicts] {
                let (value, limit) = row.gated(gate);
                let text =
                    || format!("{}, {}: {gate:?} {value:.2}, where {limit} is the bound", row.kernel, row.problem);
                wrong.extend((!(value <= limit)).then(text));
            }
        }
        assert!(wrong.is_empty(), "improve these, or argue an exception:\n{}", wrong.join("\n"));
        let did: BTreeSet<&str> = rows.iter().map(|r| r.kernel.as_str()).collect();
        let idle: Vec<&str> = sources().iter().flat_map(|s| s.kernels).copied().filter(|k| !did.contains(k)).collect();
        assert!(idle.is_empty(), "no counted problem runs {idle:?}");
    }
    if std::env::var_os("UPDATE_TABLE").is_some_and(|v| v == "1") {
        assert!(rows.is_some(), "the table is made on the simulated sm_{CHIP}: CUDA_SIM=1");
        std::fs::write(&path, settled(&old, &new)).unwrap();
        return;
    }
    let made_with = old.split(MADE_WITH).nth(1).and_then(|rest| rest.split(". ").next()).unwrap_or("nothing");
    if made_with != nvrtc() {
        // registers are the compiler's choice, and so are the instructions that the simulated device counts
        let (kernels, problems) = (resources(CHIP).len(), rows.map_or(0, |r| r.len()));
        println!(
            "kernels/TABLE.md was made with NVRTC {made_with}, this is {}: not compared are the registers of {kernels} kernels and \
             the counts of {problems} rows",
            nvrtc()
        );
        return;
    }
    if rows.is_none() {
        let counts = old.split_once(&format!("\n{DOES}")).and_then(|(_, rest)| rest.split_once(&format!("\n{WHY}")));
        let counts = counts.map_or("", |(counts, _)| counts);
        println!(
            "not compared are {} rows of counts: this is no simulated sm_{CHIP}",
            counts.matches("\n| ").count() - 1
        );
        new = [head(), takes(), format!("\n{DOES}{counts}"), why()].concat();
    }
    let (found, new) = (Libraries::get().unwrap(), settled(&old, &new));
    assert!(
        new == old,
        "kernels/TABLE.md is out of date (UPDATE_TABLE=1 makes it anew; {found:?}):\n{}",
        difference(&old, &new)
    );
}
