//! Small kernels in PTX, each for one thing that the interpreter does.

use super::*;
use crate::finding::Kind;
use crate::ptx;

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// A device with one kernel, `k(out)`, whose body is given.
struct Case {
    memory: Memory,
    program: Program,
    out: u64,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: usize,
    cooperative: bool,
    budget: u64,
}

const OUT: usize = 4096;

impl Case {
    fn module(text: &str) -> Case {
        let memory = Memory::new(true);
        let module = ptx::parse(&format!("{HEAD}{text}")).expect("well-formed PTX");
        let program = Program::load(&module, 80, 0, &memory).expect("a supported module");
        let out = memory.allocate(0, OUT, Purpose::Device, "out").expect("memory");
        let (grid, block) = ([1, 1, 1], [32, 1, 1]);
        Case { memory, program, out, grid, block, dynamic_shared: 0, cooperative: false, budget: 1 << 20 }
    }

    /// `%rd0` is `out`, `%r0` the thread's x, `%rd1` the address of its word.
    fn kernel(body: &str) -> Case {
        Case::module(&format!(
            ".visible .entry k(.param .u64 out) {{
            .reg .pred %p<16>; .reg .b16 %rs<16>; .reg .b32 %r<64>; .reg .f32 %f<32>; .reg .b64 %rd<64>; .reg .f64 %fd<16>;
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

    fn launch(&self, threads: usize) -> Outcome {
        launch(&Launch {
            program: &self.program,
            entry: 0,
            grid: self.grid,
            block: self.block,
            dynamic_shared: self.dynamic_shared,
            params: &self.out.to_le_bytes(),
            cooperative: self.cooperative,
            memory: &self.memory,
            device: 0,
            peers: 1,
            options: Options { strict: true, threads, budget: self.budget, multiprocessors: 4, sm: 80 },
        })
    }

    /// The first `n` words of the output.
    fn words(&self, n: usize) -> Vec<u32> {
        let outcome = self.launch(1);
        if let Some(finding) = outcome.finding {
            panic!("{finding}");
        }
        let mut bytes = vec![0; 4 * n];
        assert_eq!(self.memory.read(self.out, &mut bytes).expect("in bounds"), 0, "all of it is written");
        bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
    }

    fn fails(&self) -> Finding {
        self.launch(1).finding.expect("a finding")
    }
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
        mov.u32 %r1, array;
        ld.local.u32 %r2, [%r1+4];
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
