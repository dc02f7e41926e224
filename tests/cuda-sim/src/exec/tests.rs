//! Small kernels in PTX, each for one thing that the interpreter does.

mod atomics;
mod barriers;
mod checks;
mod copies;
mod counts;
mod flow;
mod memory;

use super::*;
use crate::finding::Kind;
use crate::ptx;

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// A device with one kernel, `k(out)`, whose body is given.
struct Case {
    memory: Memory,
    program: Program,
    out: u64,
    /// Further parameters, behind `out`.
    params: Vec<u8>,
    strict: bool,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: usize,
    cooperative: bool,
    budget: u64,
}

const OUT: usize = 4096;

const REGISTERS: &str = ".reg .pred %p<16>; .reg .b16 %rs<16>; .reg .b32 %r<64>; .reg .f32 %f<32>; .reg .b64 %rd<64>;
    .reg .f64 %fd<16>; .reg .b128 %rq<4>;";

impl Case {
    fn module(text: &str) -> Case {
        let memory = Memory::new(true);
        let module = ptx::parse(&format!("{HEAD}{text}")).expect("well-formed PTX");
        let program = Program::load(&module, 80, 0, &memory).expect("a supported module");
        let out = memory.allocate(0, OUT, Purpose::Device, "out").expect("memory");
        let (grid, block, params) = ([1, 1, 1], [32, 1, 1], Vec::new());
        let (dynamic_shared, cooperative, budget, strict) = (0, false, 1 << 20, true);
        Case { memory, program, out, params, strict, grid, block, dynamic_shared, cooperative, budget }
    }

    /// `%rd0` is `out`, `%r0` the thread's x, `%rd1` the address of its word.
    fn kernel(body: &str) -> Case {
        Case::kernel_with("", body)
    }

    /// As `kernel`, with declarations in front of it.
    fn kernel_with(declarations: &str, body: &str) -> Case {
        Case::module(&format!(
            "{declarations}
            .visible .entry k(.param .u64 out) {{
            {REGISTERS}
            ld.param.u64 %rd0, [out];
            mov.u32 %r0, %tid.x;
            mul.wide.u32 %rd1, %r0, 4;
            add.u64 %rd1, %rd0, %rd1;
            {body}
            ret; }}"
        ))
    }

    fn threads(mut self, threads: u32) -> Case {
        self.block = [threads, 1, 1];
        self
    }

    fn blocks(mut self, blocks: u32) -> Case {
        self.grid = [blocks, 1, 1];
        self
    }

    /// Writes to the output, at a byte.
    fn input<T: Copy + Into<u64>>(self, at: u64, values: &[T]) -> Case {
        let bytes = std::mem::size_of::<T>();
        let all: Vec<u8> = values.iter().flat_map(|&v| v.into().to_le_bytes()[..bytes].to_vec()).collect();
        self.memory.write(self.out + at, &all).expect("in bounds");
        self
    }

    /// Further parameters of the kernel, as bytes behind `out`.
    fn argument(mut self, bytes: &[u8]) -> Case {
        self.params.extend(bytes);
        self
    }

    fn cooperative(mut self) -> Case {
        self.cooperative = true;
        self
    }

    fn launch(&self, threads: usize) -> Outcome {
        launch(&Launch {
            program: &self.program,
            entry: 0,
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.dynamic_shared,
            params: &[&self.out.to_le_bytes()[..], &self.params].concat(),
            cooperative: self.cooperative,
            memory: &self.memory,
            device: 0,
            peers: 1,
            options: Options { strict: self.strict, threads, budget: self.budget, multiprocessors: 4, sm: 80 },
        })
    }

    /// Launches, and returns the first `n` bytes of the output.
    #[track_caller]
    fn bytes(&self, n: usize) -> Vec<u8> {
        let outcome = self.launch(1);
        if let Some(finding) = outcome.finding {
            panic!("{finding}");
        }
        let mut bytes = vec![0; n];
        assert_eq!(self.memory.read(self.out, &mut bytes).expect("in bounds"), 0, "all of it is written");
        bytes
    }

    /// As `bytes`, for words.
    #[track_caller]
    fn words(&self, n: usize) -> Vec<u32> {
        self.bytes(4 * n).chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
    }

    /// As `bytes`, for double words.
    #[track_caller]
    fn longs(&self, n: usize) -> Vec<u64> {
        let words = self.words(2 * n);
        words.chunks_exact(2).map(|w| w[0] as u64 | (w[1] as u64) << 32).collect()
    }

    #[track_caller]
    fn fails(&self) -> Finding {
        self.launch(1).finding.expect("a finding")
    }
}

/// What a function says about each thread of the first block.
fn each(threads: u32, f: impl FnMut(u32) -> u32) -> Vec<u32> {
    (0..threads).map(f).collect()
}

#[test]
fn modulo_by_multiplication() {
    let words = Case::kernel(
        "mul.wide.u32 %rd2, %r0, -1431655765;
        shr.u64 %rd3, %rd2, 33;
        cvt.u32.u64 %r2, %rd3;
        mad.lo.s32 %r3, %r2, -3, %r0;
        st.global.u32 [%rd1], %r3;",
    )
    .words(32);
    assert_eq!(words, (0..32).map(|t| t % 3).collect::<Vec<_>>());
}

#[test]
fn an_address_before_an_allocation_is_told_as_such() {
    let case = Case::kernel("st.global.u32 [%rd0+-8], %r0;");
    // `out` is the first of a memory: nothing is known of what lies before.
    assert_eq!(case.fails().kind, Kind::OutOfBounds);
    let first = case.out;
    let case = Case { out: case.memory.allocate(0, OUT, Purpose::Device, "").expect("memory"), ..case };
    let told = |what: &str| {
        let finding = case.fails();
        let wanted = format!("8 bytes before the allocation of {OUT} bytes at 0x{:x}", case.out);
        assert!(finding.kind == Kind::OutOfBounds && finding.message.contains(&wanted), "{what}: {finding}");
    };
    told("behind a living one");
    case.memory.free(first).expect("an allocation");
    told("behind one that has been freed");
}

#[test]
fn what_was_never_written_is_no_zero() {
    let case = Case::kernel(
        ".local .align 4 .b8 array[8];
        mov.u64 %rd2, array;
        ld.local.u32 %r2, [%rd2+4];
        cvt.u32.u16 %r3, %rs3;
        add.u32 %r2, %r2, %r3;
        xor.b32 %r2, %r2, %r9;
        st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(case.words(32), [(0xcdcd_cdcd + 0xcdcd) ^ 0xcdcd_cdcd; 32]);
}

#[test]
fn neither_the_first_nor_the_last_lane_wins() {
    let stores = |guard: &str| {
        let body = format!("setp.ge.u32 %p1, %r0, 16; {guard} st.global.u32 [%rd0], %r0;");
        Case::kernel(&body).words(1)[0]
    };
    assert_eq!(stores(""), 15);
    assert_eq!(stores("@%p1"), 31);
}
