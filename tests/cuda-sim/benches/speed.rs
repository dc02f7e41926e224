//! How fast the simulated device is, on one host thread: `. tests/cuda-sim/env.sh && cargo bench -p cuda-sim`.
//!
//! Throughput is in lane instructions a second for `fma` and in multiply-accumulates a second for the products, so
//! `512^3 tf32` in 40 ms reads 3.4 G elements a second.

#[path = "../tests/common/nvrtc.rs"]
mod nvrtc;

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cuda::exec::{Launch, Options, launch};
use cuda::memory::{Memory, Purpose};
use cuda::program::Program;
use cuda::ptx;

/// 16 warps, each 64 times through a loop of 64 independent chains' worth of multiply-adds in registers.
fn fma_kernel() -> String {
    let registers = 16;
    let fma = (0..64).map(|i| {
        let d = i % registers;
        format!("fma.rn.f32 %f{d}, %f{d}, %f{}, %f{};\n", registers, registers + 1)
    });
    let sum = (1..registers).map(|i| format!("add.f32 %f0, %f0, %f{i};\n"));
    let start = (0..registers).map(|i| format!("cvt.rn.f32.u32 %f{i}, %r1;\n"));
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out) {{
        .reg .pred %p; .reg .b32 %r<8>; .reg .f32 %f<{}>; .reg .b64 %rd<4>;
        ld.param.u64 %rd0, [out];
        mov.u32 %r1, %tid.x;
        {}mov.f32 %f{registers}, 0f3F000000; mov.f32 %f{}, 0f3F800000; mov.u32 %r2, 0;
        L: {}
        add.u32 %r2, %r2, 1; setp.lt.u32 %p, %r2, 64; @%p bra L;
        {}mul.wide.u32 %rd1, %r1, 4; add.u64 %rd0, %rd0, %rd1; st.global.f32 [%rd0], %f0; ret; }}",
        registers + 2,
        start.collect::<String>(),
        registers + 1,
        fma.collect::<String>(),
        sum.collect::<String>(),
    )
}

struct Device {
    memory: Memory,
    program: Program,
    strict: bool,
}

impl Device {
    fn new(text: &str, strict: bool) -> Device {
        let memory = Memory::new(strict);
        let module = ptx::parse(text).expect("PTX");
        let program = Program::load(&module, 80, 0, &memory).expect("a supported module");
        Device { memory, program, strict }
    }

    fn upload(&self, data: &[u8]) -> u64 {
        let address = self.memory.allocate(0, data.len(), Purpose::Device, "").expect("memory");
        self.memory.write(address, data).expect("in bounds");
        address
    }

    fn run(&self, grid: [u32; 2], block: u32, dynamic_shared: usize, params: &[u8]) -> cuda::exec::Outcome {
        let outcome = launch(&Launch {
            program: &self.program,
            entry: 0,
            grid: [grid[0], grid[1], 1],
            block: [block, 1, 1],
            dynamic_shared,
            params,
            cooperative: false,
            memory: &self.memory,
            device: 0,
            peers: 1,
            options: Options { strict: self.strict, threads: 1, budget: 1 << 40, multiprocessors: 108, sm: 80 },
        });
        assert!(outcome.finding.is_none(), "{}", outcome.finding.expect("checked"));
        outcome
    }
}

fn multiply_add(c: &mut Criterion) {
    let mut group = c.benchmark_group("fma");
    for strict in [false, true] {
        let device = Device::new(&fma_kernel(), strict);
        let out = device.upload(&[0; 4 * 512]);
        let lanes: u64 =
            device.run([1, 1], 512, 0, &out.to_le_bytes()).counters.instructions.values().map(|c| c.lanes).sum();
        group.throughput(Throughput::Elements(lanes));
        group.bench_function(if strict { "strict" } else { "plain" }, |b| {
            b.iter(|| black_box(device.run([1, 1], 512, 0, &out.to_le_bytes())));
        });
    }
    group.finish();
}

/// A kernel that multiplies matrices.
struct Product {
    name: &'static str,
    text: String,
    element: usize,
    grid: [u32; 2],
    threads: u32,
    shared: usize,
    /// Numbers behind the three addresses, and bytes behind those.
    numbers: Vec<u32>,
    scratch: usize,
}

fn product(c: &mut Criterion) {
    let mut group = c.benchmark_group("512^3");
    group.sample_size(20);
    let n = 512u32;
    let triton = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/triton/{file}.ptx"));
        std::fs::read_to_string(path).expect("the fixture")
    };
    let by_triton = |name, file, element, shared| Product {
        name,
        text: triton(file),
        element,
        grid: [64, 1],
        threads: 128,
        shared,
        numbers: vec![n; 6],
        scratch: 16,
    };
    let products = [
        Product {
            name: "tf32",
            text: nvrtc::compile("gemm_tf32.cu").to_string(),
            element: 4,
            grid: [4, 4],
            threads: 256,
            shared: 2 * 3 * 128 * 36 * 4,
            numbers: vec![n; 3],
            scratch: 0,
        },
        by_triton("tf32 by Triton", "matmul_tf32", 4, 32768),
        by_triton("fp16 by Triton", "matmul_fp16", 2, 16384),
    ];
    for p in products {
        for strict in [false, true] {
            let device = Device::new(&p.text, strict);
            let matrix = vec![0x38u8; (n * n) as usize * p.element];
            let [a, b, out] = [&matrix, &matrix, &vec![0; 4 * (n * n) as usize]].map(|m| device.upload(m));
            let mut params: Vec<u8> = [a, b, out].iter().flat_map(|p| p.to_le_bytes()).collect();
            params.extend(p.numbers.iter().flat_map(|p| p.to_le_bytes()));
            params.resize(params.len() + p.scratch, 0);
            group.throughput(Throughput::Elements((n as u64).pow(3)));
            group.bench_function(format!("{}/{}", p.name, if strict { "strict" } else { "plain" }), |b| {
                b.iter(|| black_box(device.run(p.grid, p.threads, p.shared, &params)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, multiply_add, product);
criterion_main!(benches);
