//! Calls, control flow, memory spaces, structures, integers of every width, bits, traps and output.

mod common;

use common::{Arg, Plain, Random, args, close, compile_with, equal, same, same_results};
use cuda::finding::Kind;

fn ptx() -> std::sync::Arc<str> {
    compile_with("misc.cu", &["--device-int128"])
}

fn calls() -> std::sync::Arc<str> {
    compile_with("calls.cu", &[])
}

fn integers(n: usize, seed: u64) -> Vec<i32> {
    Random::new(seed).words(n).into_iter().map(|x| x as i32).collect()
}

#[test]
fn calls_direct_recursive_and_through_pointers() {
    let (n, each) = (100, 13);
    let (x, coefficients) = (Random::new(1).units(n), [1.0f32, -0.5, 0.25, 2.0]);
    let (a, b, data) = (integers(n, 2), integers(n, 3), integers(32 * each, 4));
    let (values, (ackermann, sorted), chosen, areas) = same(&calls(), |gpu| {
        let out = gpu.empty::<f32>(n);
        let args = args![&out, &gpu.upload(&x), &gpu.upload(&coefficients), n as i32];
        gpu.launch("device_functions", 4, 32, 0, args);
        let (numbers, sorted) = (gpu.empty::<i32>(32), gpu.upload(&data));
        gpu.launch("recursion", 1, 32, 0, args![&numbers, &sorted, each as i32]);
        let chosen = gpu.empty::<i32>(n);
        gpu.launch("function_pointers", 2, 64, 0, args![&chosen, &gpu.upload(&a), &gpu.upload(&b), n as i32]);
        let areas = gpu.empty::<f32>(32);
        gpu.launch("virtual_functions", 1, 32, 0, args![&areas, &gpu.upload(&x)]);
        (gpu.read(&out), (gpu.read(&numbers), gpu.read(&sorted)), gpu.read(&chosen), gpu.read(&areas))
    });
    let horner = |i: usize| (0..=i % 4).rev().fold(0f32, |y, k| y.mul_add(x[i], coefficients[k]));
    equal("device_functions", &values, &(0..n).map(horner).collect::<Vec<_>>());
    // Ackermann's function in closed form for a first argument below 3.
    let want = (0..32).map(|i| match i % 3 {
        0 => i % 5 + 1,
        1 => i % 5 + 2,
        _ => 2 * (i % 5) + 3,
    });
    equal("recursion", &ackermann, &want.collect::<Vec<_>>());
    let mut want = data.clone();
    want.chunks_mut(each).for_each(|c| c.sort());
    equal("quicksort", &sorted, &want);
    let operation = |(a, b): (&i32, &i32)| match *a as u32 % 4 {
        0 => a.wrapping_add(*b),
        1 => a.wrapping_sub(*b),
        2 => a.wrapping_mul(*b),
        _ => *a.max(b),
    };
    equal("function_pointers", &chosen, &a.iter().zip(&b).map(operation).collect::<Vec<_>>());
    let want = (0..32).map(|i| if i % 3 == 0 { x[i] * x[i] } else { 3.0 * x[i] * x[i] });
    equal("virtual_functions", &areas, &want.collect::<Vec<_>>());
}

#[test]
fn control_flow() {
    let n = 200;
    let op: Vec<i32> = integers(n, 5).iter().map(|x| x.rem_euclid(14)).collect();
    let x: Vec<i32> = integers(n, 6).iter().map(|x| x >> 12).collect();
    let start: Vec<u64> = (1..=n as u64).collect();
    let (switch, steps, image) = same(&ptx(), |gpu| {
        let (out, steps) = (gpu.zeros::<i32>(n), gpu.empty::<i32>(n));
        gpu.launch("switch_table", 2, 128, 0, args![&out, &gpu.upload(&op), &gpu.upload(&x), n as i32]);
        gpu.launch("collatz", 2, 64, 0, args![&steps, &gpu.upload(&start), n as i32, 100]);
        let image = gpu.empty::<u8>(90 * 33);
        gpu.launch("mandelbrot", [6, 5], [16, 8], 0, args![&image, 90, 33, 60]);
        (gpu.read(&out), gpu.read(&steps), gpu.read(&image))
    });
    let case = |i: usize| {
        let mut v = x[i];
        match op[i] {
            0 => v + 17,
            1 => v.wrapping_mul(v),
            2 => v ^ v >> 3,
            3 => -v - 1000,
            4 => v - 1000,
            5 => v.count_ones() as i32,
            6 => v / 7,
            7 => v % 13,
            8 => 0,
            9 => {
                while v & 1 != 0 {
                    v = v / 2 + v % 3;
                }
                v
            }
            10 => v.leading_zeros() as i32,
            // the shift to the right is arithmetic: no rotation
            11 => v << 5 | v.wrapping_shr(27),
            _ => i32::MAX,
        }
    };
    equal("switch_table", &switch, &(0..n).map(case).collect::<Vec<_>>());
    let collatz = |start: &u64| {
        let (mut x, mut count) = (*start, 0);
        while x != 1 && count < 100 {
            x = if x.is_multiple_of(2) { x / 2 } else { 3 * x + 1 };
            count += 1;
        }
        if x == 1 { count } else { -1 }
    };
    equal("collatz", &steps, &start.iter().map(collatz).collect::<Vec<_>>());
    let escape = |i: usize| {
        let (cx, cy) = ((i % 90) as f32 * 0.03125 - 2.0, (i / 90) as f32 * 0.0625 - 1.0);
        let (mut x, mut y, mut steps) = (0f32, 0f32, 0);
        while steps < 60 && x * x + y * y <= 4.0 {
            (x, y, steps) = (x * x - y * y + cx, 2.0 * x * y + cy, steps + 1);
        }
        steps
    };
    equal("mandelbrot", &image, &(0..90 * 33).map(escape).collect::<Vec<_>>());
}

#[test]
fn every_thread_of_a_grid_in_three_dimensions() {
    let [nx, ny, nz] = [13usize, 5, 7];
    let got = same(&ptx(), |gpu| {
        let out = gpu.empty::<u32>(4 * nx * ny * nz);
        gpu.launch("coordinates", [3, 2, 4], [5, 3, 2], 0, args![&out, nx as i32, ny as i32, nz as i32]);
        gpu.read(&out)
    });
    let want = (0..nx * ny * nz).flat_map(|i| [i % nx, i / nx % ny, i / nx / ny, 1].map(|v| v as u32));
    equal("coordinates", &got, &want.collect::<Vec<_>>());
}

#[test]
fn variables_of_a_module() {
    let n = 40;
    let (ints, floats) = same(&ptx(), |gpu| {
        let (out, fout) = (gpu.empty::<i32>(n), gpu.empty::<f32>(n));
        let (address, bytes) = gpu.variable("constants");
        assert_eq!((gpu.read_at::<i32>(address, 8), bytes), (vec![2, 3, 5, 7, 11, 13, 17, 19], 32));
        gpu.write(address + 4, &[100i32]);
        gpu.launch("variables", 1, 64, 0, args![&out, &fout, n as i32]);
        (gpu.read(&out), gpu.read(&fout))
    });
    let (constants, words) = ([2, 100, 5, 7, 11, 13, 17, 19], [b"zero", b"one\0", b"two\0"]);
    let want = (0..n).map(|i| 42 + constants[i % 8] + words[i % 3][i % 3] as i32);
    equal("variables", &ints, &want.collect::<Vec<_>>());
    let table = [1.5f32, -2.0, 3.25, 3.0];
    let want = (0..n).map(|i| table[i % 4] * 0.5 - 1.25 + (i << 3) as f32);
    equal("variables", &floats, &want.collect::<Vec<_>>());
}

#[test]
fn memory_spaces() {
    let n = 100;
    let (data, index) = (integers(n, 7), integers(n, 8).iter().map(|x| x & 0xff).collect::<Vec<_>>());
    let small: Vec<i32> = integers(64, 9).iter().map(|x| x & 0x7f).collect();
    let local = same(&ptx(), |gpu| {
        let out = gpu.empty::<i32>(n);
        gpu.launch("local_arrays", 4, 32, 0, args![&out, &gpu.upload(&data), &gpu.upload(&index), n as i32]);
        gpu.read(&out)
    });
    let spaces = same(&calls(), |gpu| {
        let out = gpu.empty::<i32>(64);
        gpu.launch("spaces", 1, 64, 64 * 13, args![&out, &gpu.upload(&small)]);
        gpu.read(&out)
    });
    let want = (0..n).map(|i| {
        let mut stack: Vec<i32> = (0..24).map(|k| data[(i + k) % n]).collect();
        let small: Vec<i16> = stack.iter().map(|x| (x >> 3) as i16).collect();
        let j = index[i] as usize;
        stack[j % 24] ^= 0x55;
        let sum = (0..24).fold(0i32, |s, k| s.wrapping_mul(31).wrapping_add(stack[(k * 7 + j) % 24]));
        sum.wrapping_add(small[j % 10] as i32)
    });
    equal("local_arrays", &local, &want.collect::<Vec<_>>());
    let want = (0..64).map(|t| {
        let u = 63 - t;
        let own = [t as i32, small[t]];
        let p = match t % 3 {
            0 => small[u],
            1 => 2 * small[u],
            _ => own[t & 1],
        };
        p + small[u] / 2 + small[u]
    });
    equal("spaces", &spaces, &want.collect::<Vec<_>>());
}

#[test]
fn structures_by_value_and_in_memory() {
    let count = 20;
    let mut particles = Vec::new();
    for i in 0..count {
        let x = [i as f32, -2.0 * i as f32, 0.5];
        particles.extend(x.iter().flat_map(|x| x.to_le_bytes()));
        particles.extend((i as u16 * 700).to_le_bytes());
        particles.extend([(i as i32 * 13 - 100) as u8, (i % 2) as u8]);
    }
    // A rotation by a quarter around z: exact.
    let rotate: Vec<u8> =
        [0f32, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let got = same(&ptx(), |gpu| {
        let out = gpu.empty::<u8>(16 * count);
        let args = vec![
            Arg::from(&out),
            Arg::from(&gpu.upload(&particles)),
            Arg(rotate.clone()),
            Arg::from(b'x' as i8),
            Arg::from(count as i16),
        ];
        gpu.launch("structures", 1, 32, 0, &args);
        gpu.read(&out)
    });
    let mut want = particles;
    for p in want.chunks_mut(16) {
        let number = |p: &[u8], i: usize| f32::from_le_bytes(p[i..i + 4].try_into().unwrap());
        let (x, y) = (number(p, 0), number(p, 4));
        p[0..4].copy_from_slice(&(0.0 * x + -y + 0.0).to_le_bytes());
        p[4..8].copy_from_slice(&(x + 0.0 * y + 0.0).to_le_bytes());
        let kind = u16::from_le_bytes([p[12], p[13]]).wrapping_add(1000);
        p[12..14].copy_from_slice(&kind.to_le_bytes());
        p[14] = (p[14] as i8).wrapping_neg() as u8;
        p[15] ^= 1;
    }
    equal("structures", &got, &want);
}

#[test]
fn gravitation_in_tiles() {
    let n = 77;
    let bodies = Random::new(10).units(4 * n);
    let got = same(&ptx(), |gpu| {
        let (out, bodies) = (gpu.empty::<f32>(4 * n), gpu.upload(&bodies));
        gpu.launch("nbody", 3, 32, 512, args![&out, &bodies, n as i32]);
        gpu.read(&out)
    });
    let want = (0..4 * n).map(|i| {
        if i % 4 == 3 {
            return (0.0, 0.0);
        }
        let at = |body: usize, axis: usize| bodies[4 * body + axis] as f64;
        let (mut sum, mut size) = (0.0, 0.0);
        for j in 0..n {
            let d2: f64 = (0..3).map(|k| (at(j, k) - at(i / 4, k)).powi(2)).sum::<f64>() + 0.01f32 as f64;
            let f = (at(j, i % 4) - at(i / 4, i % 4)) * at(j, 3) / (d2 * d2.sqrt());
            (sum, size) = (sum + f, size + f.abs());
        }
        // 96 additions and some twenty roundings a term.
        (sum, 120.0 / (1 << 24) as f64 * size)
    });
    close("nbody", &got, want);
}

#[test]
fn random_numbers() {
    let (counter, key) = ([0xffff_fff0u32, 1, 2, 3], [0xa409_3822u32, 0x299f_31d0]);
    let (pi, words) = same(&ptx(), |gpu| {
        let (inside, out) = (gpu.empty::<i32>(96), gpu.empty::<u32>(4 * 96));
        gpu.launch("monte_carlo_pi", 3, 32, 0, args![&inside, 50]);
        let bytes = |w: &[u32]| Arg(w.iter().flat_map(|w| w.to_le_bytes()).collect());
        let args = [Arg::from(&out), bytes(&counter), bytes(&key)];
        gpu.launch("philox", 3, 32, 0, &args);
        (gpu.read(&inside), gpu.read(&out))
    });
    let inside = |i: u32| {
        let mut s = i.wrapping_mul(2654435761).wrapping_add(1);
        let mut next = || {
            s ^= s << 13;
            s ^= s >> 17;
            s ^= s << 5;
            s >> 17
        };
        (0..50)
            .filter(|_| {
                let (x, y) = (next(), next());
                x * x + y * y < 1 << 30
            })
            .count() as i32
    };
    equal("monte_carlo_pi", &pi, &(0..96).map(inside).collect::<Vec<_>>());
    let philox = |i: u32| {
        let (mut c, mut k) = ([counter[0].wrapping_add(i), counter[1], counter[2], counter[3]], key);
        for _ in 0..10 {
            let (a, b) = (0xD251_1F53u64 * c[0] as u64, 0xCD9E_8D57u64 * c[2] as u64);
            c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        c
    };
    equal("philox", &words, &(0..96).flat_map(philox).collect::<Vec<_>>());
}

/// Eight operations on integers of one type, with edges first.
fn integer_operations<T: Plain + PartialEq + std::fmt::Debug>(kernel: &str, cut: fn(i128) -> T, value: fn(T) -> i128) {
    let mut random = Random::new(11);
    let edges = [0i128, 1, -1, 7, i64::MAX as i128, i64::MIN as i128, 0x7f, 0x80, 0x7fff_ffff, -0x8000_0000];
    let pairs = edges.iter().flat_map(|x| edges.iter().map(move |y| (*x, *y)));
    // Shifted by a random distance: small numbers too.
    let mut any = || random.bits() as i64 as i128 >> (random.bits() % 64);
    let random: Vec<_> = (0..100).map(|_| (any(), any())).collect();
    let (a, b): (Vec<T>, Vec<T>) = pairs.chain(random).map(|(x, y)| (cut(x), cut(y))).unzip();
    let n = a.len();
    let got = same(&ptx(), |gpu| {
        let out = gpu.empty::<T>(8 * n);
        gpu.launch(kernel, 2, 128, 0, args![&out, &gpu.upload(&a), &gpu.upload(&b), n as i32]);
        gpu.read(&out)
    });
    let undefined = |y: i128| y == 0 || y == -1;
    let operations: [fn(i128, i128) -> i128; 8] = [
        |x, y| x + y,
        |x, y| x - y,
        |x, y| x.wrapping_mul(y),
        |x, y| x / y,
        |x, y| x % y,
        |x, y| x >> (y & 7),
        |x, y| x.min(y),
        |x, y| x & y | !x ^ y,
    ];
    for (k, f) in operations.iter().enumerate() {
        let want = a.iter().zip(&b).map(|(&x, &y)| {
            let (x, y) = (value(x), value(y));
            cut(if matches!(k, 3 | 4) && undefined(y) { 0 } else { f(x, y) })
        });
        equal(&format!("{kernel}, operation {k}"), &got[k * n..(k + 1) * n], &want.collect::<Vec<_>>());
    }
}

#[test]
fn integers_of_every_width() {
    integer_operations::<i8>("integers_s8", |x| x as i8, |x| x as i128);
    integer_operations::<u8>("integers_u8", |x| x as u8, |x| x as i128);
    integer_operations::<i16>("integers_s16", |x| x as i16, |x| x as i128);
    integer_operations::<u16>("integers_u16", |x| x as u16, |x| x as i128);
    integer_operations::<i32>("integers_s32", |x| x as i32, |x| x as i128);
    integer_operations::<u32>("integers_u32", |x| x as u32, |x| x as i128);
    integer_operations::<i64>("integers_s64", |x| x as i64, |x| x as i128);
    integer_operations::<u64>("integers_u64", |x| x as u64, |x| x as i128);
}

#[test]
fn division_by_constants_and_wide_products() {
    let n = 120;
    let (data, a, b) = (integers(n, 12), Random::new(13), Random::new(14));
    let words = |mut r: Random| (0..n).map(|_| r.bits()).collect::<Vec<u64>>();
    let (a, b) = (words(a), words(b));
    let (signed, unsigned, long, wide) = same(&ptx(), |gpu| {
        let (s, u, l) = (gpu.empty::<i32>(4 * n), gpu.empty::<u32>(2 * n), gpu.empty::<i64>(2 * n));
        gpu.launch("constants_divide", 1, 128, 0, args![&s, &u, &l, &gpu.upload(&data), n as i32]);
        let w = gpu.empty::<u64>(2 * n);
        gpu.launch("wide", 1, 128, 0, args![&w, &gpu.upload(&a), &gpu.upload(&b), n as i32]);
        (gpu.read(&s), gpu.read(&u), gpu.read(&l), gpu.read(&w))
    });
    let each = |f: fn(i32) -> i32| data.iter().map(|x| f(*x)).collect::<Vec<_>>();
    let want = [each(|x| x / 3), each(|x| x % 10), each(|x| x / -7), each(|x| x / 16)].concat();
    equal("signed", &signed, &want);
    equal(
        "unsigned",
        &unsigned,
        &[each(|x| (x as u32 / 1000) as i32), each(|x| (x as u32 % 641) as i32)]
            .concat()
            .into_iter()
            .map(|x| x as u32)
            .collect::<Vec<_>>(),
    );
    let each = |f: fn(i64) -> i64| data.iter().map(|x| f(*x as i64)).collect::<Vec<_>>();
    equal("64 bits", &long, &[each(|x| x * 1000003 / 99), each(|x| x * x % 1000000007)].concat());
    let product = |(a, b): (&u64, &u64)| *a as u128 * *b as u128 + *a as u128;
    let want = a.iter().zip(&b).map(product).flat_map(|p| [p as u64, (p >> 64) as u64]);
    equal("128 bits", &wide, &want.collect::<Vec<_>>());
}

#[test]
fn traps_and_assertions_are_findings() {
    let (good, bad) = ([1i32; 32], std::array::from_fn::<i32, 32, _>(|i| i as i32));
    for (kernel, kind) in [("traps", Kind::Trap), ("asserts", Kind::Assert)] {
        let report = same_results(&ptx(), |gpu| {
            gpu.launch(kernel, 1, 32, 0, args![&gpu.upload(&good)]);
            let finding = gpu.try_launch(kernel, 1, 32, 0, args![&gpu.upload(&bad)]).expect_err(kernel);
            if gpu.is_driver() {
                return String::new();
            }
            assert_eq!(finding.kind, kind, "{finding}");
            finding.to_string()
        });
        assert!(report.is_empty() || report.contains("(7,0,0)") && report.contains("misc.cu"), "{report}");
    }
}

#[test]
fn printf_formats() {
    let printed = same(&ptx(), |gpu| {
        gpu.launch("prints", 2, 32, 0, args![3i32, 2.75f64]);
        if gpu.is_driver() { String::new() } else { gpu.printed() }
    });
    let block = |b: u32| format!("block {b} of 2:  2.75|text  |d%\n");
    for line in [block(0), block(1)] {
        assert!(printed.is_empty() || printed.contains(&line), "{printed}");
    }
    let rest = "-5000000000 feedfacecafe 0xbeef00 2.750e+00 +3\n";
    assert!(printed.is_empty() || printed.matches(rest).count() == 2, "{printed}");
}

#[test]
fn clocks_go_forward() {
    let ok = same_results(&ptx(), |gpu| {
        let (elapsed, ids) = (gpu.empty::<i64>(64), gpu.empty::<u32>(64));
        gpu.launch("clocks", 1, 64, 0, args![&elapsed, &ids]);
        assert!(gpu.read(&elapsed).iter().all(|t| *t > 0), "{:?}", gpu.read(&elapsed));
        gpu.read(&ids)
    });
    equal("clocks", &ok, &[1; 64]);
}

#[test]
fn bits_and_inline_ptx() {
    let mut random = Random::new(15);
    let edges = [0u32, 1, 0x8000_0000, u32::MAX, 0x7fff_ffff, 0x8080_7f01];
    let pairs = edges.iter().flat_map(|x| edges.iter().map(move |y| (*x, *y)));
    let random: Vec<_> = (0..100).map(|_| (random.bits() as u32, random.bits() as u32)).collect();
    let (a, b): (Vec<u32>, Vec<u32>) = pairs.chain(random).unzip();
    let n = a.len();
    let (bits, simd) = same(&compile_with("bits.cu", &[]), |gpu| {
        let (bits, simd, x, y) = (gpu.empty::<u32>(27 * n), gpu.empty::<u32>(10 * n), gpu.upload(&a), gpu.upload(&b));
        gpu.launch("bits", 2, 96, 0, args![&bits, &x, &y, n as i32]);
        gpu.launch("simd_in_word", 2, 96, 0, args![&simd, &x, &y, n as i32]);
        (gpu.read(&bits), gpu.read(&simd))
    });
    fn sign24(x: u32) -> i64 {
        ((x << 8) as i32 >> 8) as i64
    }
    fn bytes(x: u32, y: u32, f: fn(u8, u8) -> u8) -> u32 {
        let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
        u32::from_le_bytes(std::array::from_fn(|i| f(x[i], y[i])))
    }
    fn halves(x: u32, y: u32, f: fn(i16, i16) -> i16) -> u32 {
        let part = |k: u32| f((x >> k) as i16, (y >> k) as i16) as u16 as u32;
        part(0) | part(16) << 16
    }
    fn permuted(x: u32, y: u32, selector: u32) -> u32 {
        let all = ((y as u64) << 32 | x as u64).to_le_bytes();
        u32::from_le_bytes(std::array::from_fn(|i| {
            let s = selector >> (4 * i);
            let byte = all[s as usize & 7];
            if s & 8 != 0 { (byte as i8 >> 7) as u8 } else { byte }
        }))
    }
    let wide = |x: u32, y: u32| (x as u64) << 32 | y as u64;
    type Operation<'a> = (&'a str, &'a dyn Fn(u32, u32) -> u32);
    let operations: [Operation; 27] = [
        ("popc", &|x, _| x.count_ones()),
        ("clz", &|x, _| x.leading_zeros()),
        ("ffs", &|x, _| if x == 0 { 0 } else { x.trailing_zeros() + 1 }),
        ("brev", &|x, _| x.reverse_bits()),
        ("64-bit counts", &|x, y| {
            let w = wide(x, y);
            let first = if w == 0 { 0 } else { w.trailing_zeros() + 1 };
            w.count_ones() | w.leading_zeros() << 8 | first << 16
        }),
        ("brevll", &|x, y| (wide(x, y).reverse_bits() >> 16) as u32),
        // The intrinsic takes three bits a selector; the fourth is not its business.
        ("byte_perm", &|x, y| permuted(x, y, (x ^ y) & 0x7777)),
        ("funnelshift_l", &|x, y| ((wide(y, x) << (x & 31)) >> 32) as u32),
        ("funnelshift_rc", &|x, y| (wide(y, x) >> (x & 63).min(32)) as u32),
        ("mulhi", &|x, y| ((x as i32 as i64 * y as i32 as i64) >> 32) as u32),
        ("umulhi", &|x, y| ((x as u64 * y as u64) >> 32) as u32),
        ("mul64hi", &|x, y| ((wide(x, y) as i64 as i128 * y as i128) >> 64 >> 7) as u32),
        ("sad", &|x, y| (x as i32).abs_diff(y as i32).wrapping_add(x)),
        ("usad", &|x, y| x.abs_diff(y).wrapping_add(y)),
        ("mul24", &|x, y| (sign24(x) * sign24(y)) as u32),
        ("umul24", &|x, y| ((x & 0xff_ffff) as u64 * (y & 0xff_ffff) as u64) as u32),
        ("hadd", &|x, y| ((x as i32 as i64 + y as i32 as i64) >> 1) as u32),
        ("urhadd", &|x, y| ((x as u64 + y as u64 + 1) >> 1) as u32),
        ("abs", &|x, _| (x as i32).wrapping_abs() as u32),
        ("bfe", &|x, y| {
            let (at, bits) = (y & 31, y >> 8 & 31);
            // The sign comes from the last bit of the field, or of the word if the field ends beyond it.
            let field = ((x as i32 as i64) >> at) << (64 - bits).min(63) >> (64 - bits).min(63);
            if bits == 0 { 0 } else { field as u32 }
        }),
        ("bfi", &|x, y| {
            let (at, bits) = (y & 31, x & 31);
            let mask = (((1u64 << bits) - 1) << at) as u32;
            y & !mask | ((x as u64) << at) as u32 & mask
        }),
        ("lop3", &|x, y| x ^ y ^ (x >> 5)),
        ("prmt.f4e", &|x, y| (wide(y, x) >> (8 * (y & 3))) as u32),
        ("bfind", &|x, _| if x == 0 { u32::MAX } else { 31 - x.leading_zeros() }),
        ("add.sat", &|x, y| (x as i32).saturating_add(y as i32) as u32),
        ("addc", &|x, y| x.wrapping_add(y) ^ x.wrapping_add(((x as u64 + y as u64) >> 32) as u32)),
        ("mad.hi", &|x, y| (((x as u64 * y as u64) >> 32) as u32).wrapping_add(x)),
    ];
    for (k, (name, f)) in operations.iter().enumerate() {
        let want: Vec<u32> = a.iter().zip(&b).map(|(x, y)| f(*x, *y)).collect();
        equal(name, &bits[k * n..(k + 1) * n], &want);
    }
    let operations: [Operation; 10] = [
        ("vadd4", &|x, y| bytes(x, y, u8::wrapping_add)),
        ("vsub2", &|x, y| halves(x, y, i16::wrapping_sub)),
        ("vmaxs2", &|x, y| halves(x, y, i16::max)),
        ("vminu4", &|x, y| bytes(x, y, u8::min)),
        ("vabsdiffu4", &|x, y| bytes(x, y, u8::abs_diff)),
        ("vcmpgts4", &|x, y| bytes(x, y, |x, y| if x as i8 > y as i8 { 0xff } else { 0 })),
        ("vavgu4", &|x, y| bytes(x, y, |x, y| (x as u16 + y as u16).div_ceil(2) as u8)),
        ("vaddus4", &|x, y| bytes(x, y, u8::saturating_add)),
        ("vsadu4", &|x, y| bytes(x, y, u8::abs_diff).to_le_bytes().iter().map(|x| *x as u32).sum()),
        ("vaddss2", &|x, y| halves(x, y, i16::saturating_add)),
    ];
    for (k, (name, f)) in operations.iter().enumerate() {
        let want: Vec<u32> = a.iter().zip(&b).map(|(x, y)| f(*x, *y)).collect();
        equal(name, &simd[k * n..(k + 1) * n], &want);
    }
}
