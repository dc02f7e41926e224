//! Seeded bugs: kernels of the kinds that an engine has, and the mistakes that people make in them.
//!
//! Each mutant is a correct kernel with one change of its text or of its launch. It is noticed if the checks report a
//! finding, or if the result is further from an exact reference than rounding explains; the table says which of the two,
//! what kind of finding it is and what stands in the source lines that it names. The unchanged kernels raise no alarm and
//! leave the same bytes whatever the number of host threads.
//!
//! `cargo test --test mutants -- --nocapture` prints how each mutant was noticed. With `CUDA_SIM_TEST_DRIVER=1` the
//! unchanged kernels run through a driver, simulated or real; mutants never do.

mod common;

use std::fmt::Write;
use std::path::Path;

use common::gpu::{options, through_driver};
use common::{Arg, Gpu, Plain, Random, args, compile_source, product, tf32};
use cuda::exec::Options;
use cuda::finding::{Finding, Kind};
use half::f16;

use Kind::{
    AsyncCopy, Barrier, Deadlock, Divergence, Misaligned, OutOfBounds, Race, ReadOnly, Timeout, Uninitialised,
    UseAfterFree,
};

/// A kernel under test.
struct Subject {
    /// Its name, and that of its file.
    kernel: &'static str,
    /// The first fits the tiles, others do not.
    shapes: &'static [[usize; 3]],
    prepare: fn(&Gpu, [usize; 3]) -> Work,
    mutants: Vec<Mutant>,
}

/// What a test launches on one shape, and the result it wants.
struct Work {
    grid: [usize; 3],
    block: [usize; 3],
    /// Bytes of dynamic shared memory.
    shared: usize,
    /// The arguments of each launch, one after the other.
    calls: Vec<Vec<Arg>>,
    /// Where the result is, in words of 32 bits.
    out: u64,
    /// The result's elements with their tolerances.
    want: Vec<(f64, f64)>,
    /// Whether they are f32, or else integers.
    float: bool,
}

struct Mutant {
    name: &'static str,
    change: Change,
    /// The first of the shapes that shows it.
    shape: usize,
    expected: Expected,
}

enum Change {
    /// A text that stands in the source once, and what replaces it.
    Source(&'static str, &'static str),
    /// Of arguments or extents.
    Launch(fn(&Gpu, &mut Work)),
}

/// How a mutant is noticed.
enum Expected {
    /// A finding of this kind. Each line of the source that it names holds one of the texts, and each of the texts stands in
    /// one of the lines: a race has two sides, and which of them is noticed last may depend on the order of blocks.
    Finding(Kind, &'static [&'static str]),
    /// The host reads bytes of the result that no kernel wrote.
    Unwritten,
    /// The result is wrong.
    Wrong,
}

/// How a run ended that did not end well.
enum Noticed {
    Finding(Box<Finding>),
    Unwritten(usize),
    Wrong(String),
}

fn patch(name: &'static str, old: &'static str, new: &'static str, expected: Expected) -> Mutant {
    Mutant { name, change: Change::Source(old, new), shape: 0, expected }
}

fn launch(name: &'static str, change: fn(&Gpu, &mut Work), expected: Expected) -> Mutant {
    Mutant { name, change: Change::Launch(change), shape: 0, expected }
}

fn finds(kind: Kind, lines: &'static [&'static str]) -> Expected {
    Expected::Finding(kind, lines)
}

impl Mutant {
    /// Says that only this shape shows it, and none before.
    fn starting_at_shape(mut self, shape: usize) -> Mutant {
        self.shape = shape;
        self
    }
}

impl Work {
    /// Replaces an argument of every launch.
    fn set(&mut self, argument: usize, value: impl Into<Arg>) {
        let value = value.into();
        self.calls.iter_mut().for_each(|call| call[argument] = value.clone());
    }

    /// An argument that is an address.
    fn address(&self, argument: usize) -> u64 {
        u64::from_ne_bytes(self.calls[0][argument].0[..].try_into().expect("an address"))
    }

    /// An argument that is an `int`.
    fn int(&self, argument: usize) -> i32 {
        i32::from_ne_bytes(self.calls[0][argument].0[..].try_into().expect("an int"))
    }

    /// Has two arguments change places.
    fn swap(&mut self, a: usize, b: usize) {
        self.calls.iter_mut().for_each(|call| call.swap(a, b));
    }
}

fn path(subject: &Subject) -> String {
    format!("tests/kernels/mutants/{}.cu", subject.kernel)
}

fn source(subject: &Subject) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path(subject));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Runs a kernel on one shape; the words of the result if they are right.
fn run(gpu: &Gpu, subject: &Subject, shape: [usize; 3], change: impl Fn(&Gpu, &mut Work)) -> Result<Vec<u32>, Noticed> {
    let mut work = (subject.prepare)(gpu, shape);
    change(gpu, &mut work);
    for call in &work.calls {
        gpu.try_launch(subject.kernel, work.grid, work.block, work.shared, call)
            .map_err(|finding| Noticed::Finding(Box::new(finding)))?;
    }
    let (words, unwritten) = gpu.read_any::<u32>(work.out, work.want.len());
    if unwritten > 0 {
        return Err(Noticed::Unwritten(unwritten));
    }
    for (i, (&word, (want, tolerance))) in words.iter().zip(work.want).enumerate() {
        let got = if work.float { f32::from_bits(word) as f64 } else { word as i32 as f64 };
        if !((got - want).abs() <= tolerance) {
            return Err(Noticed::Wrong(format!("element {i} is {got:e}, not {want:e}")));
        }
    }
    Ok(words)
}

/// Why a run is not what the table says, or nothing.
fn disagreement(expected: &Expected, noticed: &Noticed, subject: &Subject, source: &str) -> Option<String> {
    match (expected, noticed) {
        (Expected::Wrong, Noticed::Wrong(_)) | (Expected::Unwritten, Noticed::Unwritten(_)) => None,
        (&Expected::Finding(kind, texts), Noticed::Finding(finding)) => {
            let places: Vec<_> = finding.place.iter().chain(&finding.other).collect();
            let lines: Vec<&str> = places
                .iter()
                .filter_map(|p| p.source.as_ref())
                .filter(|(file, _)| file.ends_with(&path(subject)))
                .filter_map(|(_, line)| source.lines().nth((*line as usize).checked_sub(1)?))
                .collect();
            let right = finding.kind == kind
                && finding.kernel == subject.kernel
                && lines.len() == places.len()
                && lines.iter().all(|line| texts.iter().any(|text| line.contains(text)))
                && texts.iter().all(|text| lines.iter().any(|line| line.contains(text)));
            (!right).then(|| format!("not {kind:?} with {texts:?} in the lines: {finding}  lines: {lines:#?}"))
        }
        (_, noticed) => Some(format!("another outcome: {noticed}")),
    }
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Noticed::Finding(finding) => {
                write!(f, "{:?}: {}", finding.kind, finding.message)?;
                match finding.place.as_ref().and_then(|p| p.source.as_ref()) {
                    Some((_, line)) => write!(f, " (line {line})"),
                    None => Ok(()),
                }
            }
            Noticed::Unwritten(bytes) => write!(f, "result: {bytes} bytes that no kernel wrote"),
            Noticed::Wrong(how) => write!(f, "result: {how}"),
        }
    }
}

#[test]
fn the_kernels_are_right_and_raise_no_alarm() {
    for subject in subjects() {
        let ptx = compile_source(&path(&subject), &source(&subject)).unwrap_or_else(|log| panic!("{log}"));
        for &shape in subject.shapes {
            let go = |gpu: &Gpu, how: &str| match run(gpu, &subject, shape, |_, _| ()) {
                Ok(words) => words,
                Err(Noticed::Finding(finding)) => panic!("{} {shape:?}, {how}: {finding}", subject.kernel),
                Err(noticed) => panic!("{} {shape:?}, {how}: {noticed}", subject.kernel),
            };
            if through_driver() {
                go(&Gpu::driver(&ptx), "through the driver");
                continue;
            }
            let first = go(&Gpu::library(&ptx, options(true, 1)), "strict, 1 host thread");
            for (strict, threads) in [(true, 2), (true, 3), (true, 8), (false, 1), (false, 2), (false, 8)] {
                let how = format!("strict: {strict}, {threads} host threads");
                let words = go(&Gpu::library(&ptx, options(strict, threads)), &how);
                assert!(words == first, "{} {shape:?}, {how}: other bytes", subject.kernel);
            }
        }
    }
}

/// Runs a mutant on its shapes with one and two host threads: how it was noticed, or why that is not as expected.
fn test(subject: &Subject, mutant: &Mutant) -> Result<String, String> {
    let original = source(subject);
    let text = match mutant.change {
        Change::Source(old, new) => {
            let count = original.matches(old).count();
            if count != 1 {
                return Err(format!("{old:?} stands {count} times in {}", path(subject)));
            }
            original.replace(old, new)
        }
        Change::Launch(_) => original,
    };
    let ptx = compile_source(&path(subject), &text)?;
    let change = |gpu: &Gpu, work: &mut Work| {
        if let Change::Launch(f) = mutant.change {
            f(gpu, work);
        }
    };
    let mut told = String::new();
    for threads in [1, 2] {
        // Enough for any of the kernels; a hang ends soon.
        let limited = Options { budget: 1 << 20, ..options(true, threads) };
        for (i, &shape) in subject.shapes[..=mutant.shape].iter().enumerate() {
            match run(&Gpu::library(&ptx, limited), subject, shape, change) {
                Ok(_) if i < mutant.shape => {}
                Ok(_) => return Err(format!("{shape:?} with {threads} host threads: not noticed")),
                Err(noticed) if i < mutant.shape => {
                    return Err(format!("{shape:?} with {threads} host threads shows it already: {noticed}"));
                }
                Err(noticed) => {
                    if let Some(why) = disagreement(&mutant.expected, &noticed, subject, &text) {
                        return Err(format!("{shape:?} with {threads} host threads: {why}"));
                    }
                    if told.is_empty() {
                        told = format!("{noticed}");
                    }
                }
            }
        }
    }
    Ok(told)
}

#[test]
fn every_mutant_is_noticed() {
    if through_driver() {
        return println!("mutants are not run on a device");
    }
    let subjects = subjects();
    let reports: Vec<Vec<Result<String, String>>> = std::thread::scope(|scope| {
        let work = |subject| move || Subject::test_all(subject);
        let running: Vec<_> = subjects.iter().map(|subject| scope.spawn(work(subject))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let (mut summary, mut count, mut failed) = (String::new(), 0, 0);
    for (subject, reports) in subjects.iter().zip(reports) {
        let _ = writeln!(summary, "{}", subject.kernel);
        for (mutant, report) in subject.mutants.iter().zip(reports) {
            let (word, text) = match &report {
                Ok(text) => ("", text),
                Err(text) => ("FAILED: ", text),
            };
            count += 1;
            failed += report.is_err() as usize;
            let shape = subject.shapes[mutant.shape];
            let _ = writeln!(summary, "  {}\n    {word}{shape:?}: {text}", mutant.name);
        }
    }
    println!("{summary}{count} mutants of {} kernels, {} noticed as expected", subjects.len(), count - failed);
    assert_eq!(failed, 0, "mutants that were not noticed as expected, see above");
    assert!(count >= 40 && subjects.len() >= 8, "the suite has shrunk");
}

impl Subject {
    fn test_all(&self) -> Vec<Result<String, String>> {
        self.mutants.iter().map(|mutant| test(self, mutant)).collect()
    }
}

/// Half the distance from 1 to the next f32: what one rounding may do.
const U: f64 = f32::EPSILON as f64 / 2.0;

fn exact(values: impl IntoIterator<Item = i64>) -> Vec<(f64, f64)> {
    values.into_iter().map(|x| (x as f64, 0.0)).collect()
}

/// A sum of `count` terms in f32, in any order: `size` is that of the absolute values.
fn summed(sum: f64, size: f64, count: usize) -> (f64, f64) {
    (sum, count as f64 * U * 1.01 * size)
}

fn subjects() -> Vec<Subject> {
    vec![
        sgemm(),
        tf32_gemm(),
        hgemm(),
        block_sum(),
        grid_sum(),
        softmax(),
        layer_norm(),
        conv3x3(),
        transpose(),
        histogram(),
        pipeline(),
        scan(),
    ]
}

/// A product of `a` (m x k) and `b` (k x n) as kernels see them, tiled by `tile` in both directions; `grain` is a bound of
/// the relative error of one addition.
fn gemm<T: Plain>(
    gpu: &Gpu,
    [m, n, k]: [usize; 3],
    (a, b): (&[T], &[T]),
    seen: impl Fn(&T) -> f32,
    tile: usize,
    grain: f64,
) -> Work {
    let out = gpu.empty::<f32>(m * n);
    let [x, y] = [a, b].map(|data| data.iter().map(&seen).collect::<Vec<f32>>());
    let (sum, size) = product(&x, &y, [m, n, k]);
    let want = sum.into_iter().zip(size).map(|(sum, size)| (sum, (k + 4) as f64 * grain * size));
    let args = args![m as i32, n as i32, k as i32, &gpu.upload(a), &gpu.upload(b), &out];
    Work {
        grid: [n.div_ceil(tile), m.div_ceil(tile), 1],
        block: [128, 1, 1],
        shared: 0,
        calls: vec![args.into()],
        out: out.address,
        want: want.collect(),
        float: true,
    }
}

fn sgemm() -> Subject {
    let prepare = |gpu: &Gpu, [m, n, k]: [usize; 3]| {
        let mut random = Random::new(1);
        let (a, b) = (random.units(m * k), random.units(k * n));
        Work { block: [16, 16, 1], ..gemm(gpu, [m, n, k], (&a, &b), |&x| x, 16, U) }
    };
    let mutants = vec![
        patch(
            "no barrier before the tiles are read",
            "__syncthreads(); // the tiles are there",
            "",
            finds(Race, &["sum +=", "bs[ty][tx] ="]),
        ),
        patch(
            "no barrier before the tiles are overwritten",
            "__syncthreads(); // the tiles have been used",
            "",
            finds(Race, &["sum +=", "[ty][tx] ="]),
        ),
        patch("the last product of a tile is missing", "i < T;", "i < T - 1;", Expected::Wrong),
        patch("one product too many", "i < T;", "i <= T;", finds(OutOfBounds, &["sum +="])),
        patch("rows are not bounded at the load", "row < m && k0", "k0", finds(OutOfBounds, &["as[ty][tx] ="]))
            .starting_at_shape(1),
        patch(
            "columns are not bounded at the store",
            "(row < m && col < n)",
            "(row < m)",
            finds(Race, &["c[row * n + col]"]),
        )
        .starting_at_shape(1),
        patch("the wrong stride", "(k0 + ty) * n", "(k0 + ty) * k", Expected::Wrong),
        patch("a tile is read transposed", "as[ty][i]", "as[i][ty]", Expected::Wrong),
        patch(
            "the tail of a tile is not filled with zeros",
            "as[ty][tx] = row < m && k0 + tx < k ? a[row * k + k0 + tx] : 0.0f;",
            "if (row < m && k0 + tx < k) as[ty][tx] = a[row * k + k0 + tx];",
            finds(Uninitialised, &["sum +="]),
        )
        .starting_at_shape(1),
        patch("the sum starts over in each tile", "        as[ty][tx] =", "sum = 0; as[ty][tx] =", Expected::Wrong),
        patch(
            "a barrier that only some threads reach",
            "int row = blockIdx.y * T + ty, col = blockIdx.x * T + tx;",
            "int row = blockIdx.y * T + ty, col = blockIdx.x * T + tx; if (ty >= 8) __syncthreads();",
            finds(Uninitialised, &["sum +="]),
        ),
        launch("a and b are swapped", |_, work| work.swap(3, 4), finds(OutOfBounds, &["bs[ty][tx] ="])),
        launch("m and n are swapped", |_, work| work.swap(0, 1), Expected::Unwritten),
        launch("a row of blocks is missing", |_, work| work.grid[1] -= 1, Expected::Unwritten),
        launch(
            "the result overwrites a factor",
            |_, work| work.set(5, work.address(3)),
            finds(Race, &["as[ty][tx] =", "c[row * n + col] ="]),
        ),
        launch("k is too large", |_, work| work.set(2, work.int(2) + 1), finds(OutOfBounds, &["[ty][tx] ="])),
    ];
    Subject { kernel: "sgemm", shapes: &[[32, 48, 32], [37, 45, 29], [1, 1, 1], [16, 17, 33]], prepare, mutants }
}

fn tf32_gemm() -> Subject {
    let prepare = |gpu: &Gpu, [m, n, k]: [usize; 3]| {
        let mut random = Random::new(2);
        let (a, b) = (random.units(m * k), random.units(k * n));
        // Tensor cores add up with less than the precision of f32.
        gemm(gpu, [m, n, k], (&a, &b), |&x| tf32(x), 32, 4.0 * U)
    };
    let mutants = vec![
        patch("waits for one group too few", "wait<1>();", "wait<2>();", finds(AsyncCopy, &["fa[0] =", "cp.async"])),
        patch("does not wait", "        wait<1>();\n", "", finds(AsyncCopy, &["fa[0] =", "cp.async"])),
        patch(
            "the first copies are not committed",
            "commit(); // the first",
            "",
            finds(AsyncCopy, &["fa[", "cp.async"]),
        ),
        patch(
            "the copies ahead are not committed",
            "commit(); // the next one, or nothing",
            "",
            finds(AsyncCopy, &["fa[", "cp.async"]),
        ),
        patch(
            "no barrier behind the wait",
            "__syncthreads(); // all copies of this tile are there",
            "",
            finds(Race, &["fa[", "cp.async"]),
        ),
        patch(
            "no barrier before the buffer is filled again",
            "__syncthreads(); // the next turn fills this buffer again",
            "",
            finds(Race, &["cp.async", "fa["]),
        ),
        patch(
            "the next tile goes to the buffer in use",
            "load((t + 1) % 2, ",
            "load(t % 2, ",
            finds(AsyncCopy, &["cp.async"]),
        ),
        patch("the wrong buffer is used", "*at = as[t % 2]", "*at = as[(t + 1) % 2]", finds(AsyncCopy, &["fa", "cp"])),
        patch("the last tile is left out", "(k + BK - 1) / BK", "k / BK", Expected::Wrong).starting_at_shape(1),
        patch("the tail is not filled with zeros", "there ? 16 : 0", "16", Expected::Wrong).starting_at_shape(1),
        patch(
            "rows are not bounded at the copy",
            "row0 + i < m && k0 + j < k",
            "k0 + j < k",
            finds(OutOfBounds, &["cp.async"]),
        )
        .starting_at_shape(1),
        patch("rows that are not aligned", "BS = BN + 8", "BS = BN + 2", finds(Misaligned, &["cp.async"])),
        patch(
            "registers of fragment a in the wrong order",
            r#""r"(fa[1]), "r"(fa[2])"#,
            r#""r"(fa[2]), "r"(fa[1])"#,
            Expected::Wrong,
        ),
        patch(
            "fragment b is transposed",
            "bt[(kk + in) * BS + wn + h * 8 + group]",
            "bt[(kk + group) * BS + wn + h * 8 + in]",
            Expected::Wrong,
        ),
        patch("the sum starts undefined", "float d[2][4] = {};", "float d[2][4];", Expected::Wrong),
        patch("columns of the result as if one a lane", "in * 2 + e % 2", "in + e % 2 * 4", Expected::Wrong),
        patch("rows of the result by the wrong bit", "group + e / 2 * 8", "group + e % 2 * 8", Expected::Unwritten),
        patch(
            "numbers are cut off, not rounded, to tf32",
            r#"asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));"#,
            "y = __float_as_uint(x);",
            Expected::Wrong,
        ),
        launch("a and b are swapped", |_, work| work.swap(3, 4), Expected::Wrong),
    ];
    let shapes = &[[32, 32, 48], [37, 44, 28], [1, 4, 4], [64, 36, 16]];
    Subject { kernel: "tf32_gemm", shapes, prepare, mutants }
}

fn hgemm() -> Subject {
    let prepare = |gpu: &Gpu, [m, n, k]: [usize; 3]| {
        let mut random = Random::new(3);
        let [a, b] = [m * k, k * n].map(|n| random.units(n).into_iter().map(f16::from_f32).collect::<Vec<_>>());
        Work { shared: 2 * 2 * 32 * 40, ..gemm(gpu, [m, n, k], (&a, &b), |&x| x.to_f32(), 32, 4.0 * U) }
    };
    let mutants = vec![
        patch(
            "no barrier before the tiles are read",
            "__syncthreads(); // the tiles are there",
            "",
            finds(Race, &["ldmatrix", "*(uint4 *)&as"]),
        ),
        patch(
            "no barrier before the tiles are overwritten",
            "__syncthreads(); // the tiles have been used",
            "",
            finds(Race, &["ldmatrix", "*(uint4 *)&"]),
        ),
        patch("matrix b is not transposed", "m8n8.x4.trans.shared", "m8n8.x4.shared", Expected::Wrong),
        patch("row addresses of 8 lanes", "(wm + lane % 16) * AS", "(wm + lane % 8) * AS", Expected::Wrong),
        patch("matrices in the wrong order", "kk + lane / 16 * 8]", "kk + lane % 2 * 8]", Expected::Wrong),
        patch(
            "fragments of b in the wrong order",
            r#""r"(fb[2 * h]), "r"(fb[2 * h + 1])"#,
            r#""r"(fb[h]), "r"(fb[h + 2])"#,
            Expected::Wrong,
        ),
        patch("the sum starts undefined", "float d[2][4] = {};", "float d[2][4];", Expected::Wrong),
        patch("half of the depth", "kk < BK;", "kk + 16 < BK;", Expected::Wrong),
        patch("rows that are not aligned", "PAD = 8", "PAD = 4", finds(Misaligned, &["*(uint4 *)&"])),
        patch(
            "columns are not bounded at the store",
            "(row < m && col < n)",
            "(row < m)",
            finds(Race, &["*(float2 *)&c"]),
        )
        .starting_at_shape(1),
        patch(
            "columns are not bounded at the load",
            "k0 + i < k && col0 + j < n",
            "k0 + i < k",
            finds(OutOfBounds, &["y = *(const uint4 *)"]),
        )
        .starting_at_shape(1),
        patch(
            "a store that is not aligned",
            "lane % 4 * 2;",
            "lane % 4 * 2 + 1;",
            finds(Misaligned, &["*(float2 *)&c"]),
        ),
        patch(
            "a fragment is loaded by half a warp",
            "asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared",
            "if (lane < 16) asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared",
            finds(Divergence, &["ldmatrix"]),
        ),
        launch("too little dynamic shared memory", |_, work| work.shared -= 64, finds(OutOfBounds, &["*(uint4 *)&bs"])),
        launch(
            "b has been freed",
            |gpu, work| gpu.free(work.address(4)),
            finds(UseAfterFree, &["y = *(const uint4 *)"]),
        ),
        launch("a and b are swapped", |_, work| work.swap(3, 4), Expected::Wrong),
    ];
    let shapes = &[[32, 32, 64], [37, 40, 40], [1, 8, 8], [64, 72, 48]];
    Subject { kernel: "hgemm", shapes, prepare, mutants }
}

fn block_sum() -> Subject {
    let prepare = |gpu: &Gpu, [n, blocks, threads]: [usize; 3]| {
        let data = Random::new(4).units(n);
        let out = gpu.empty::<f32>(blocks);
        let mut sums = vec![(0.0, 0.0); blocks];
        for (i, &x) in data.iter().enumerate() {
            let (sum, size) = &mut sums[i / threads % blocks];
            (*sum, *size) = (*sum + x as f64, *size + x.abs() as f64);
        }
        Work {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            shared: 0,
            calls: vec![args![n as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: sums.into_iter().map(|(sum, size)| summed(sum, size, n)).collect(),
            float: true,
        }
    };
    let mutants = vec![
        patch("no barrier before the parts are read", "__syncthreads();", "", finds(Uninitialised, &["parts[lane]"])),
        patch(
            "a shuffle for all lanes inside of a branch",
            "if (warp == 0) {",
            "if (threadIdx.x < blockDim.x / 32) {",
            finds(Divergence, &["of the block"]),
        ),
        patch(
            "a mask without the upper lanes",
            "sum += __shfl_down_sync(0xffffffff, ",
            "sum += __shfl_down_sync(0x0000ffff, ",
            finds(Divergence, &["of the warp"]),
        ),
        patch(
            "a shuffle from lanes that take no part",
            "sum += __shfl_down_sync(~0u, ",
            "if (lane < 16) sum += __shfl_down_sync(0xffff, ",
            finds(Divergence, &["of the block"]),
        ),
        patch(
            "the last step is missing",
            "d > 0; d /= 2)\n        sum",
            "d > 1; d /= 2)\n        sum",
            Expected::Wrong,
        ),
        patch(
            "shuffles in the wrong direction",
            "__shfl_down_sync(0xffffffff",
            "__shfl_up_sync(0xffffffff",
            Expected::Wrong,
        ),
        patch(
            "one part too many",
            "lane < blockDim.x / 32",
            "lane <= blockDim.x / 32",
            finds(Uninitialised, &["parts[lane]"]),
        ),
        patch("one element too many", "i < n;", "i <= n;", finds(OutOfBounds, &["sum += in[i]"])),
        patch("the wrong lane leaves the part", "if (lane == 0)", "if (lane == 31)", Expected::Wrong),
        patch("all lanes leave their sums", "if (threadIdx.x == 0)", "", Expected::Wrong),
        patch(
            "a barrier in a branch of a warp",
            "parts[warp] = sum;\n    __syncthreads();",
            "{ parts[warp] = sum;\n    __syncthreads(); }",
            finds(Uninitialised, &["parts[lane]"]),
        ),
        patch(
            "blocks read the same elements",
            "blockIdx.x * blockDim.x + threadIdx.x; i < n;",
            "threadIdx.x; i < n;",
            Expected::Wrong,
        ),
        patch(
            "threads without work return before the shuffles",
            "    float sum = 0.0f;",
            "    if (blockIdx.x * blockDim.x + threadIdx.x >= n) return;\n    float sum = 0.0f;",
            finds(Divergence, &["of the warp"]),
        )
        .starting_at_shape(2),
        launch(
            "a block that is no multiple of a warp",
            |_, work| work.block[0] += 16,
            finds(Divergence, &["of the warp"]),
        ),
        launch(
            "the input is too short",
            |gpu, work| work.set(1, &gpu.zeros::<f32>(4095)),
            finds(OutOfBounds, &["in[i]"]),
        ),
    ];
    let shapes = &[[4096, 4, 128], [1000, 3, 96], [5, 2, 64], [100, 1, 1024]];
    Subject { kernel: "block_sum", shapes, prepare, mutants }
}

fn grid_sum() -> Subject {
    let prepare = |gpu: &Gpu, [n, blocks, _]: [usize; 3]| {
        let data = Random::new(5).units(n);
        let (input, partial, out) = (gpu.upload(&data), gpu.empty::<f32>(blocks), gpu.empty::<f32>(2));
        let call = |i: u64| args![n as i32, &input, &partial, out.address + 4 * i].into();
        let sum = data.iter().map(|&x| x as f64).sum();
        let size = data.iter().map(|&x| x.abs() as f64).sum();
        Work {
            grid: [blocks, 1, 1],
            block: [128, 1, 1],
            shared: 0,
            calls: vec![call(0), call(1)],
            out: out.address,
            want: vec![summed(sum, size, n); 2],
            float: true,
        }
    };
    let mutants = vec![
        patch("no fence", "__threadfence();", "", finds(Race, &["y += partial[i]", "partial[blockIdx.x] ="])),
        patch(
            "a fence for the block only",
            "__threadfence();",
            "__threadfence_block();",
            finds(Race, &["y += partial[i]", "partial[blockIdx.x] ="]),
        ),
        patch(
            "the fence comes behind the atomic",
            "__threadfence();\n        unsigned ticket = atomicInc(&finished, gridDim.x - 1);",
            "unsigned ticket = atomicInc(&finished, gridDim.x - 1);\n        __threadfence();",
            finds(Race, &["y += partial[i]", "partial[blockIdx.x] ="]),
        ),
        patch(
            "the counter is no atomic",
            "atomicInc(&finished, gridDim.x - 1)",
            "finished++",
            finds(Race, &["unsigned ticket"]),
        ),
        patch("an atomic of the block's scope", "atomicInc(", "atomicInc_block(", finds(Race, &["unsigned ticket"])),
        patch("the counter does not go back to zero", "gridDim.x - 1);", "gridDim.x);", Expected::Unwritten),
        patch(
            "the last but one adds up",
            "ticket == gridDim.x - 1",
            "ticket == gridDim.x - 2",
            finds(Uninitialised, &["y += partial[i]"]),
        ),
        patch(
            "no barrier before the threads ask who is last",
            "__syncthreads(); // whether this is the last block",
            "",
            finds(Uninitialised, &["if (last)"]),
        ),
        patch(
            "no barrier between levels",
            "__syncthreads(); // this level is done",
            "",
            finds(Race, &["scratch[threadIdx.x] += "]),
        ),
        patch(
            "no barrier before the first level",
            "__syncthreads(); // all values are there",
            "",
            finds(Uninitialised, &["scratch[threadIdx.x] +="]),
        ),
        patch(
            "one thread too many",
            "threadIdx.x < d",
            "threadIdx.x <= d",
            finds(OutOfBounds, &["scratch[threadIdx.x] +="]),
        ),
        patch("the last level is missing", "d > 0;", "d > 1;", Expected::Wrong),
        patch(
            "a barrier inside of the branch",
            "scratch[threadIdx.x] += scratch[threadIdx.x + d];\n        __syncthreads();",
            "{ scratch[threadIdx.x] += scratch[threadIdx.x + d];\n        __syncthreads(); }",
            finds(Uninitialised, &["if (last)"]),
        ),
        launch(
            "too few places for the blocks' sums",
            |gpu, work| work.set(2, &gpu.empty::<f32>(work.grid[0] - 1)),
            finds(OutOfBounds, &["partial[blockIdx.x] ="]),
        ),
    ];
    let shapes = &[[4096, 8, 0], [1000, 5, 0], [3, 150, 0], [77, 1, 0]];
    Subject { kernel: "grid_sum", shapes, prepare, mutants }
}

fn softmax() -> Subject {
    let prepare = |gpu: &Gpu, [rows, cols, _]: [usize; 3]| {
        let data: Vec<f32> = Random::new(6).units(rows * cols).into_iter().map(|x| 8.0 * x).collect();
        let out = gpu.empty::<f32>(rows * cols);
        let want = data.chunks(cols).flat_map(|row| {
            let most = row.iter().copied().fold(f32::MIN, f32::max) as f64;
            let powers: Vec<f64> = row.iter().map(|&x| (x as f64 - most).exp()).collect();
            let sum: f64 = powers.iter().sum();
            // expf is within 2 ulp, and its argument, at most 16 in size, is rounded; the sum is as good as its terms
            powers.into_iter().map(move |p| (p / sum, (2.0 * 16.0 + cols as f64 + 64.0) * U * p / sum))
        });
        Work {
            grid: [rows.div_ceil(4), 1, 1],
            block: [128, 1, 1],
            shared: 0,
            calls: vec![args![rows as i32, cols as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: want.collect(),
            float: true,
        }
    };
    let mutants = vec![
        patch("one row too many", "row >= rows", "row > rows", finds(OutOfBounds, &["fmaxf(most, x[i])"]))
            .starting_at_shape(1),
        patch("the last step is missing", "d > 0;", "d > 1;", Expected::Wrong),
        patch("the sum is not scaled to the new maximum", "sum * expf(old - most) +", "sum +", Expected::Wrong),
        patch(
            "a shuffle for all lanes inside of a branch",
            "__shfl_xor_sync(0xffffffff, sum, d);",
            "(lane & d) == 0 ? __shfl_xor_sync(0xffffffff, sum, d) : 0.0f;",
            finds(Divergence, &["float more ="]),
        ),
        patch(
            "a mask of the lanes that were there one by one",
            "__shfl_xor_sync(0xffffffff, sum, d);",
            "__shfl_xor_sync(1u << lane, sum, d);",
            finds(Divergence, &["float more ="]),
        ),
        patch("rows overlap", "out + row * cols", "out + row * 32", finds(Race, &["y[i] ="])),
        patch(
            "the last column is left out",
            "i < cols; i += 32)\n        y",
            "i < cols - 1; i += 32)\n        y",
            Expected::Unwritten,
        ),
        patch(
            "columns as if 32 could not be exceeded",
            "i < cols; i += 32)\n        y",
            "i < 32; i += 32)\n        y",
            Expected::Unwritten,
        ),
        launch("a block is missing", |_, work| work.grid[0] -= 1, Expected::Unwritten),
        launch(
            "the result lies one row behind the input",
            |gpu, work| {
                let [rows, cols] = [0, 1].map(|i| work.int(i) as usize);
                let both = gpu.zeros::<f32>((rows + 1) * cols);
                work.set(2, both.address);
                work.set(3, both.address + 4 * cols as u64);
            },
            finds(Race, &["fmaxf(most, x[i])", "y[i] ="]),
        ),
        launch(
            "the input has been freed",
            |gpu, work| gpu.free(work.address(2)),
            finds(UseAfterFree, &["fmaxf(most, x[i])"]),
        ),
        launch("rows and columns are swapped", |_, work| work.swap(0, 1), Expected::Unwritten),
    ];
    Subject { kernel: "softmax", shapes: &[[8, 64, 0], [7, 45, 0], [1, 1, 0], [5, 100, 0]], prepare, mutants }
}

fn layer_norm() -> Subject {
    let prepare = |gpu: &Gpu, [rows, cols, _]: [usize; 3]| {
        let mut random = Random::new(7);
        let (data, gamma, beta) = (random.units(rows * cols), random.units(cols), random.units(cols));
        let out = gpu.empty::<f32>(rows * cols);
        let epsilon = 1e-3f32;
        let mut want = Vec::new();
        for row in data.chunks(cols) {
            let mean = row.iter().map(|&x| x as f64).sum::<f64>() / cols as f64;
            let variance = row.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / cols as f64;
            let scale = 1.0 / (variance + epsilon as f64).sqrt();
            for ((&x, &g), &b) in row.iter().zip(&gamma).zip(&beta) {
                let normal = (x as f64 - mean) * scale;
                // the mean is off by what adding up values below 1 is; so are the differences
                let off = (cols + 16) as f64 * U * (scale + normal.abs());
                want.push((normal * g as f64 + b as f64, off * g.abs() as f64 + 4.0 * U));
            }
        }
        let args = args![cols as i32, epsilon, &gpu.upload(&data), &gpu.upload(&gamma), &gpu.upload(&beta), &out];
        Work {
            grid: [rows, 1, 1],
            block: [64, 1, 1],
            shared: 4 * cols,
            calls: vec![args.into()],
            out: out.address,
            want,
            float: true,
        }
    };
    let mutants = vec![
        patch(
            "no barrier before the parts are used again",
            "__syncthreads(); // the parts of the sum before have been read",
            "",
            finds(Race, &["parts[threadIdx.x / 32] = x", "return parts[0] + parts[1]"]),
        ),
        patch(
            "no barrier before the parts are read",
            "__syncthreads(); // the parts of this sum are there",
            "",
            finds(Uninitialised, &["return parts[0] + parts[1]"]),
        ),
        patch(
            "a barrier inside of a loop that not all threads go through as often",
            "row[i] = v;",
            "row[i] = v; __syncthreads();",
            finds(Divergence, &["__shfl_xor_sync"]),
        )
        .starting_at_shape(1),
        patch("a component is left out", "v.x + v.y + v.z + v.w;", "v.x + v.y + v.z;", Expected::Wrong),
        patch(
            "the mean of the vectors",
            "block_sum(sum, parts) / cols",
            "block_sum(sum, parts) / (cols / 4)",
            Expected::Wrong,
        ),
        patch("epsilon is left out", "/ cols + epsilon)", "/ cols)", Expected::Wrong),
        patch(
            "rows as if behind each other in vectors",
            "in + blockIdx.x * cols)",
            "in + blockIdx.x * cols / 4)",
            Expected::Wrong,
        ),
        patch(
            "rows start inside of a vector",
            "in + blockIdx.x * cols)",
            "in + blockIdx.x * (cols - 2))",
            finds(Misaligned, &["float4 v = x[i]"]),
        ),
        patch(
            "the row's last vectors are never loaded",
            "i < cols / 4; i += blockDim.x) {\n        float4 v = x[i];",
            "i < cols / 4 - 1; i += blockDim.x) {\n        float4 v = x[i];",
            finds(Uninitialised, &["float4 v = row[i]"]),
        ),
        launch("too little dynamic shared memory", |_, work| work.shared -= 16, finds(OutOfBounds, &["row[i] = v"])),
        launch("gamma and beta are swapped", |_, work| work.swap(3, 4), Expected::Wrong),
        launch(
            "gamma is too short",
            |gpu, work| work.set(3, &gpu.zeros::<f32>(work.int(0) as usize / 2)),
            finds(OutOfBounds, &["s = g[i]"]),
        ),
        launch(
            "gamma was never written",
            |gpu, work| work.set(3, &gpu.empty::<f32>(work.int(0) as usize)),
            finds(Uninitialised, &["s = g[i]"]),
        ),
        launch("beta has been freed", |gpu, work| gpu.free(work.address(4)), finds(UseAfterFree, &["t = b[i]"])),
        launch(
            "the result lies one row behind the input",
            |gpu, work| {
                let cols = work.int(0) as usize;
                let both = gpu.zeros::<f32>((work.grid[0] + 1) * cols);
                work.set(2, both.address);
                work.set(5, both.address + 4 * cols as u64);
            },
            finds(Race, &["float4 v = x[i]", "y[i] = v"]),
        ),
        launch("blocks of three warps", |_, work| work.block[0] = 96, Expected::Wrong).starting_at_shape(3),
    ];
    Subject { kernel: "layer_norm", shapes: &[[4, 256, 0], [3, 100, 0], [1, 4, 0], [5, 516, 0]], prepare, mutants }
}

fn conv3x3() -> Subject {
    let prepare = |gpu: &Gpu, [height, width, _]: [usize; 3]| {
        let mut random = Random::new(8);
        let (data, weights) = (random.units(3 * height * width), random.units(27));
        gpu.write(gpu.variable("weights").0, &weights);
        let out = gpu.empty::<f32>(height * width);
        let at = |y: usize, x: usize| {
            let (mut sum, mut size) = (0.0, 0.0);
            for (i, &weight) in weights.iter().enumerate() {
                let (channel, row, col) = (i / 9, y + i / 3 % 3, x + i % 3);
                if (1..=height).contains(&row) && (1..=width).contains(&col) {
                    let p = weight as f64 * data[(channel * height + row - 1) * width + col - 1] as f64;
                    (sum, size) = (sum + p, size + p.abs());
                }
            }
            summed(sum, size, 30)
        };
        Work {
            grid: [width.div_ceil(16), height.div_ceil(8), 1],
            block: [16, 8, 1],
            shared: 0,
            calls: vec![args![height as i32, width as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: (0..height * width).map(|i| at(i / width, i % width)).collect(),
            float: true,
        }
    };
    let mutants = vec![
        patch(
            "no barrier before the tile is read",
            "__syncthreads(); // the tile is there",
            "",
            finds(Race, &["sum += weights", "tile[i][j] ="]),
        ),
        patch(
            "no barrier before the tile is overwritten",
            "__syncthreads(); // the tile has been used",
            "",
            finds(Race, &["sum += weights", "tile[i][j] ="]),
        ),
        patch(
            "the halo's last row is missing",
            "i < TH + 2;",
            "i < TH + 1;",
            finds(Uninitialised, &["sum += weights"]),
        ),
        patch("the halo's columns are missing", "j < TW + 2;", "j < TW;", finds(Uninitialised, &["sum += weights"])),
        patch("the halo starts a row too low", "row = y0 + i - 1,", "row = y0 + i,", Expected::Wrong),
        patch("no bound at the left", "col >= 0 && ", "", finds(OutOfBounds, &["tile[i][j] ="])),
        patch("no bound at the right", " && col < width;", ";", finds(OutOfBounds, &["tile[i][j] ="])),
        patch(
            "the edge is not filled with zeros",
            "tile[i][j] = inside ? plane[row * width + col] : 0.0f;",
            "if (inside) tile[i][j] = plane[row * width + col];",
            finds(Uninitialised, &["sum += weights"]),
        ),
        patch("the same weights for all channels", "weights[ch * 9 + i", "weights[i", Expected::Wrong),
        patch("the wrong stride of channels", "ch * height * width", "ch * width", Expected::Wrong),
        patch("the kernel is turned around", "[threadIdx.y + i]", "[threadIdx.y + 2 - i]", Expected::Wrong),
        patch(
            "columns are not bounded at the store",
            "(x < width && y < height)",
            "(y < height)",
            finds(Race, &["out[y * width + x]"]),
        )
        .starting_at_shape(1),
        launch(
            "the result goes to constant memory",
            |gpu, work| work.set(3, gpu.variable("weights").0),
            finds(ReadOnly, &["out[y * width + x] = sum"]),
        ),
        patch("the tile lacks a column", "[TW + 2];", "[TW + 1];", finds(OutOfBounds, &["tile[i][j] ="])),
        launch("height and width are swapped", |_, work| work.swap(0, 1), Expected::Unwritten),
    ];
    Subject { kernel: "conv3x3", shapes: &[[16, 32, 0], [13, 21, 0], [1, 1, 0], [8, 17, 0]], prepare, mutants }
}

fn transpose() -> Subject {
    let prepare = |gpu: &Gpu, [height, width, _]: [usize; 3]| {
        let n = height * width;
        let data: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let out = gpu.empty::<f32>(n);
        Work {
            grid: [width.div_ceil(32), height.div_ceil(32), 1],
            block: [32, 8, 1],
            shared: 0,
            calls: vec![args![height as i32, width as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: exact((0..n).map(|i| (i % height * width + i / height) as i64)),
            float: true,
        }
    };
    let mutants = vec![
        patch("no barrier", "__syncthreads();", "", finds(Uninitialised, &["= tile["])),
        patch(
            "elements stay where they are in the tile",
            "tile[threadIdx.x][threadIdx.y + j];",
            "tile[threadIdx.y + j][threadIdx.x];",
            Expected::Wrong,
        ),
        patch(
            "the bounds are not swapped",
            "(x < height && y + j < width)",
            "(x < width && y + j < height)",
            finds(Uninitialised, &["= tile["]),
        )
        .starting_at_shape(1),
        patch(
            "the tile lacks a row",
            "tile[T][T + 1]",
            "tile[T - 1][T + 1]",
            finds(OutOfBounds, &["tile[threadIdx.y + j]"]),
        ),
        patch("the tile lacks a column", "tile[T][T + 1]", "tile[T][T - 1]", finds(Race, &["tile[threadIdx.y + j]"])),
        patch("the input's stride for the result", "* height + x]", "* width + x]", finds(OutOfBounds, &["= tile["]))
            .starting_at_shape(1),
        patch("blocks overlap", "x = blockIdx.y * T +", "x = blockIdx.y * (T - 1) +", finds(Race, &["= tile["])),
        patch(
            "no bound of rows at the load",
            "(x < width && y + j < height)",
            "(x < width)",
            finds(OutOfBounds, &["= in["]),
        )
        .starting_at_shape(1),
        patch(
            "a barrier for the columns inside only",
            "__syncthreads();",
            "if (x < width) __syncthreads();",
            finds(Uninitialised, &["= tile["]),
        )
        .starting_at_shape(1),
        launch("in place", |_, work| work.set(3, work.address(2)), finds(Race, &["= in[", "= tile["])),
        launch("half a block", |_, work| work.block[1] = 4, finds(Uninitialised, &["= tile["])),
        launch("the grid is transposed", |_, work| work.grid.swap(0, 1), Expected::Unwritten).starting_at_shape(1),
    ];
    Subject { kernel: "transpose", shapes: &[[64, 64, 0], [45, 70, 0], [1, 33, 0], [32, 7, 0]], prepare, mutants }
}

fn histogram() -> Subject {
    let prepare = |gpu: &Gpu, [n, blocks, _]: [usize; 3]| {
        let data: Vec<u8> = Random::new(9).words(n).into_iter().map(|x| x as u8).collect();
        let mut counts = vec![0i64; 256];
        data.iter().for_each(|&x| counts[x as usize] += 1);
        let out = gpu.zeros::<u32>(256);
        Work {
            grid: [blocks, 1, 1],
            block: [128, 1, 1],
            shared: 0,
            calls: vec![args![n as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: exact(counts),
            float: false,
        }
    };
    let mutants = vec![
        patch(
            "counts without atomics",
            "atomicAdd(&counts[in[i]], 1);",
            "counts[in[i]]++;",
            finds(Race, &["counts[in[i]]++"]),
        ),
        patch(
            "adds up blocks without atomics",
            "atomicAdd(&out[b], counts[b]);",
            "out[b] += counts[b];",
            finds(Race, &["out[b] +="]),
        ),
        patch(
            "adds up blocks with atomics of a block",
            "atomicAdd(&out[b]",
            "atomicAdd_block(&out[b]",
            finds(Race, &["atomicAdd_block"]),
        ),
        patch("counts do not start at zero", "counts[b] = 0;", ";", finds(Uninitialised, &["counts[in[i]]"])),
        patch(
            "half of the counts do not start at zero",
            "b < BINS; b += blockDim.x)\n        counts",
            "b < BINS; b += 2 * blockDim.x)\n        counts",
            finds(Uninitialised, &["counts[in[i]]"]),
        ),
        patch(
            "no barrier behind the zeros",
            "__syncthreads(); // all zero",
            "",
            finds(Uninitialised, &["counts[in[i]]"]),
        ),
        patch(
            "no barrier before the counts are added up",
            "__syncthreads(); // all counted",
            "",
            finds(Race, &["counts[in[i]]", "counts[b]"]),
        ),
        patch("too few bins", "counts[BINS];", "counts[BINS / 2];", finds(OutOfBounds, &["counts[b] = 0"])),
        patch(
            "the last bin is lost",
            "b < BINS; b += blockDim.x)\n        atomicAdd",
            "b < BINS - 1; b += blockDim.x)\n        atomicAdd",
            Expected::Wrong,
        ),
        patch(
            "bytes with a sign",
            "const unsigned char *in",
            "const signed char *in",
            finds(OutOfBounds, &["counts[in[i]]"]),
        ),
        launch(
            "the result does not start at zero",
            |gpu, work| work.set(2, &gpu.empty::<u32>(256)),
            finds(Uninitialised, &["atomicAdd(&out[b]"]),
        ),
        launch("one element too many", |_, work| work.set(0, work.int(0) + 1), finds(OutOfBounds, &["in[i]"])),
        launch(
            "the result is not aligned",
            |_, work| work.set(2, work.address(2) + 1),
            finds(Misaligned, &["atomicAdd(&out[b]"]),
        ),
    ];
    Subject { kernel: "histogram", shapes: &[[4096, 4, 0], [1001, 3, 0], [1, 1, 0], [300, 2, 0]], prepare, mutants }
}

fn pipeline() -> Subject {
    let prepare = |gpu: &Gpu, [rows, chunks, _]: [usize; 3]| {
        let data = Random::new(10).units(rows * chunks * 64);
        let out = gpu.empty::<f32>(rows * chunks * 32);
        let want = (0..rows * chunks * 32).map(|i| {
            let window = &data[i / 32 * 64 + i % 32 + 1..][..32];
            summed(window.iter().map(|&x| x as f64).sum(), window.iter().map(|&x| x.abs() as f64).sum(), 32)
        });
        Work {
            grid: [rows, 1, 1],
            block: [64, 1, 1],
            shared: 0,
            calls: vec![args![chunks as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: want.collect(),
            float: true,
        }
    };
    let mutants = vec![
        patch("too few threads wait", "bar.sync %0, 64;", "bar.sync %0, 32;", finds(Barrier, &["bar."])),
        patch("too many threads are to arrive", "bar.arrive %0, 64;", "bar.arrive %0, 96;", finds(Barrier, &["bar."])),
        patch("nobody says that a buffer is full", "signal(1 + s);", "", finds(Deadlock, &["bar.sync"])),
        patch("nobody says that a buffer is empty", "signal(3 + s);", ";", finds(Deadlock, &["bar.sync"])),
        patch(
            "does not wait for empty buffers",
            "if (i >= 2)\n                wait(3 + s);",
            "",
            finds(Barrier, &["bar.arrive"]),
        ),
        patch("waits for empty buffers a turn late", "i >= 2", "i >= 3", finds(Barrier, &["bar.arrive"])),
        patch(
            "waits for the other buffer",
            "wait(1 + s);",
            "wait(1 + (i + 1) % 2);",
            finds(Deadlock, &["bar.sync", "bar.arrive"]),
        ),
        patch(
            "says too early that a buffer is empty",
            "            float sum = 0.0f;\n            for (int j = 1; j <= 32; j++)\n                sum += buffers[s][lane + j];\n            if (i + 2 < chunks)\n                signal(3 + s);\n",
            "            if (i + 2 < chunks)\n                signal(3 + s);\n            float sum = 0.0f;\n            for (int j = 1; j <= 32; j++)\n                sum += buffers[s][lane + j];\n",
            finds(Race, &["sum += buffers", "buffers[s][j] ="]),
        ),
        patch(
            "the other buffer is said to be empty",
            "signal(3 + s);",
            "signal(4 - s);",
            finds(Deadlock, &["bar.sync", "bar.arrive"]),
        ),
        patch(
            "a barrier of the block in one role",
            "signal(1 + s);",
            "signal(1 + s); __syncthreads();",
            finds(Deadlock, &["__syncthreads()", "bar.arrive"]),
        ),
        patch(
            "one chunk too few is loaded",
            "i < chunks; i++) {\n            int s = i % 2;\n            if",
            "i < chunks - 1; i++) {\n            int s = i % 2;\n            if",
            finds(Deadlock, &["bar.sync", "bar.arrive"]),
        ),
        patch(
            "one lane arrives for its warp",
            "signal(1 + s);",
            "if (lane == 0) signal(1 + s);",
            finds(Deadlock, &["bar.sync", "bar.arrive"]),
        ),
        patch(
            "the window is shifted",
            "[lane + j]",
            "[lane + j + 1]",
            finds(Race, &["sum += buffers", "buffers[s][j] ="]),
        ),
        launch("blocks of one warp", |_, work| work.block[0] = 32, finds(Barrier, &["bar.arrive"])),
    ];
    Subject { kernel: "pipeline", shapes: &[[2, 5, 0], [1, 1, 0], [3, 2, 0], [1, 8, 0]], prepare, mutants }
}

fn scan() -> Subject {
    let prepare = |gpu: &Gpu, [rows, cols, _]: [usize; 3]| {
        let data: Vec<i32> = Random::new(11).words(rows * cols).into_iter().map(|x| x as i32 >> 16).collect();
        let out = gpu.empty::<i32>(rows * cols);
        let sums = data.chunks(cols).flat_map(|row| {
            row.iter().scan(0, |sum, &x| {
                *sum += x as i64;
                Some(*sum)
            })
        });
        Work {
            grid: [rows, 1, 1],
            block: [128, 1, 1],
            shared: 0,
            calls: vec![args![cols as i32, &gpu.upload(&data), &out].into()],
            out: out.address,
            want: exact(sums),
            float: false,
        }
    };
    let mutants = vec![
        patch(
            "no barrier behind the first write",
            "__syncwarp(); // all values are there",
            "",
            finds(Race, &["int left", "sums[t] = x"]),
        ),
        patch(
            "no barrier between read and write",
            "__syncwarp(); // all have read",
            "",
            finds(Race, &["sums[t] = x", "int left"]),
        ),
        patch(
            "no barrier between write and read",
            "__syncwarp(); // all have written",
            "",
            finds(Race, &["int left", "sums[t] = x"]),
        ),
        patch(
            "a barrier for half a warp",
            "__syncwarp(); // all have read",
            "__syncwarp(0xffff); // all have read",
            finds(Divergence, &["all have read"]),
        ),
        patch(
            "each lane waits for itself",
            "__syncwarp(); // all have read",
            "__syncwarp(1u << lane); // all have read",
            finds(Race, &["sums[t] = x", "int left"]),
        ),
        patch(
            "a barrier of some lanes",
            "__syncwarp(); // all have read",
            "if (lane >= d) __syncwarp(); // all have read",
            finds(Race, &["sums[t] = x", "int left"]),
        ),
        patch(
            "no barrier before the totals are read",
            "__syncthreads();",
            "",
            finds(Race, &["x += totals[w]", "totals[warp] = x"]),
        ),
        patch("lanes read the warp before", "lane >= d", "t >= d", finds(Race, &["int left", "sums[t] = x"])),
        patch("the last step is missing", "d < 32;", "d < 16;", Expected::Wrong),
        patch("all lanes leave the total", "if (lane == 31)\n        ", "", Expected::Wrong),
        patch("the first lane leaves the total", "lane == 31", "lane == 0", Expected::Wrong),
        patch("the own total counts too", "w < warp;", "w <= warp;", Expected::Wrong),
        patch(
            "columns are not bounded at the load",
            "t < cols ? in[blockIdx.x * cols + t] : 0",
            "in[blockIdx.x * cols + t]",
            finds(OutOfBounds, &["int x ="]),
        )
        .starting_at_shape(1),
        patch("columns are not bounded at the store", "if (t < cols)\n        out", "out", finds(Race, &["= x;"]))
            .starting_at_shape(1),
        patch("the loop never ends", "int d = 1; d", "int d = 0; d", finds(Timeout, &["all have written"])),
    ];
    Subject { kernel: "scan", shapes: &[[3, 128, 0], [2, 100, 0], [4, 1, 0], [1, 33, 0]], prepare, mutants }
}
