//! Atomics, locks, flags, votes and barriers. Where the order of threads shows, only what every order has in common is
//! compared.

mod common;

use common::{Random, args, compile, equal, same, same_results};

fn integers(n: usize, seed: u64) -> Vec<i32> {
    Random::new(seed).words(n).into_iter().map(|x| x as i32).collect()
}

#[test]
fn every_integer_atomic() {
    let n = 200;
    let data = integers(n, 1);
    let (s0, u0) = ([5, 5, 5, 5, -1, 0, 7], [u32::MAX, 0, 0, 0]);
    let w0 = [9u64, u64::MAX, i64::MIN as u64, 3, u64::MAX, 0];
    let (s, u, w) = same(&compile("atomics.cu"), |gpu| {
        let (s, u, w, input) = (gpu.upload(&s0), gpu.upload(&u0), gpu.upload(&w0), gpu.upload(&data));
        gpu.launch("integer_atomics", 3, 96, 0, args![&s, &u, &w, &input, n as i32]);
        (gpu.read(&s), gpu.read(&u), gpu.read(&w))
    });
    let fold = |start: i32, f: fn(i32, i32) -> i32| data.iter().fold(start, |a, b| f(a, *b));
    let want = [
        fold(5, i32::wrapping_add),
        fold(5, i32::wrapping_sub),
        fold(5, i32::min),
        fold(5, i32::max),
        fold(-1, |a, b| a & b),
        fold(0, |a, b| a | b),
        fold(7, |a, b| a ^ b),
    ];
    equal("32 bits, signed", &s, &want);
    let unsigned = data.iter().map(|x| *x as u32);
    let counted = n as u32 % 7; // up to 6, then 0 again; and 0, then down from 6
    let want = [unsigned.clone().min().unwrap(), unsigned.max().unwrap(), counted, (7 - counted) % 7];
    equal("32 bits, unsigned", &u, &want);
    let fold = |start: u64, f: fn(u64, i32) -> u64| data.iter().fold(start, |a, b| f(a, *b));
    let want = [
        fold(9, |a, b| a.wrapping_add(b as i64 as u64)),
        fold(u64::MAX, |a, b| a.min(b as i64 as u64)),
        fold(i64::MIN as u64, |a, b| (a as i64).max((b as i64) << 20) as u64),
        fold(3, |a, b| a ^ (b as u32 as u64) << 16),
        fold(u64::MAX, |a, b| a & !(b as u32 as u64 & 0xff)),
        fold(0, |a, b| a | 1 << (b & 63)),
    ];
    equal("64 bits", &w, &want);
}

#[test]
fn every_ticket_is_drawn_once() {
    let n = 150;
    let got = same_results(&compile("atomics.cu"), |gpu| {
        let (counter, owner) = (gpu.zeros::<i32>(1), gpu.empty::<i32>(n));
        gpu.launch("tickets", 4, 64, 0, args![&counter, &owner, n as i32]);
        let mut owner = gpu.read(&owner);
        owner.sort();
        owner
    });
    equal("tickets", &got, &(0..n as i32).collect::<Vec<_>>());
    // Each thread sees what another left, the first one zero, and the last one's stays.
    let got = same(&compile("atomics.cu"), |gpu| {
        let (slot, seen) = (gpu.zeros::<u32>(1), gpu.empty::<u32>(128));
        gpu.launch("exchange_chain", 2, 64, 0, args![&slot, &seen]);
        let mut all = [gpu.read(&seen), gpu.read(&slot)].concat();
        all.sort();
        all
    });
    equal("exchange_chain", &got, &(0..=128).collect::<Vec<_>>());
}

#[test]
fn loops_of_compare_and_swap() {
    let n = 170;
    // Multiples of 1/8: their sums are exact.
    let data: Vec<f32> = integers(n, 2).iter().map(|x| (x % 1000) as f32 / 8.0).collect();
    let ((sum, native), (largest, smallest), small) = same_results(&compile("atomics.cu"), |gpu| {
        let (sum, native) = (gpu.zeros::<f64>(1), gpu.upload(&[0.5f64]));
        let (largest, smallest) = (gpu.upload(&[f32::NEG_INFINITY]), gpu.upload(&[f32::INFINITY]));
        let (small, input) = (gpu.upload(&[65500u16, 77]), gpu.upload(&data));
        let args = args![&sum, &native, &largest, &smallest, &small, &input, n as i32];
        gpu.launch("cas_loops", 3, 64, 0, args);
        ((gpu.read(&sum), gpu.read(&native)), (gpu.read(&largest), gpu.read(&smallest)), gpu.read(&small))
    });
    let total: f64 = data.iter().map(|x| *x as f64).sum();
    equal("sums", &[sum[0], native[0]], &[total, total + 0.5]);
    let extremes = [data.iter().copied().fold(f32::MIN, f32::max), data.iter().copied().fold(f32::MAX, f32::min)];
    equal("extremes", &[largest[0], smallest[0]], &extremes);
    // The neighbour in the same word is left alone.
    equal("16 bits", &small, &[65500u16.wrapping_add(3 * n as u16), 77]);
}

#[test]
fn blocks_wait_for_each_other() {
    let (blocks, n) = (9, 9 * 64);
    let data = Random::new(3).words(n);
    let (counter, out, answers) = same_results(&compile("atomics.cu"), |gpu| {
        let (lock, counter) = (gpu.zeros::<i32>(1), gpu.zeros::<i32>(1));
        gpu.launch("spin_lock", blocks, 64, 0, args![&lock, &counter]);
        let (flag, prefix, input, out) =
            (gpu.zeros::<i32>(blocks), gpu.empty::<u32>(blocks), gpu.upload(&data), gpu.empty::<u32>(n));
        gpu.launch("flag_chain", blocks, 64, 0, args![&flag, &prefix, &input, &out]);
        let (flag, data, answers) = (gpu.zeros::<i32>(4), gpu.empty::<i32>(4), gpu.empty::<i32>(4));
        gpu.launch("release_acquire", 8, 32, 0, args![&flag, &data, &answers]);
        (gpu.read(&counter), gpu.read(&out), gpu.read(&answers))
    });
    equal("spin_lock", &counter, &[blocks as i32]);
    let mut sum = 0u32;
    let scan: Vec<u32> = data
        .iter()
        .map(|x| {
            sum = sum.wrapping_add(*x);
            sum
        })
        .collect();
    equal("flag_chain", &out, &scan);
    equal("release_acquire", &answers, &[41, 43, 45, 47]);
}

#[test]
fn atomics_on_shared_memory() {
    let (blocks, threads) = (3, 96);
    let data: Vec<i32> = integers(blocks * threads, 4).iter().map(|x| x & 0xffff).collect();
    let (wide, narrow) = same(&compile("atomics.cu"), |gpu| {
        let (wide, narrow) = (gpu.empty::<u64>(2 * blocks), gpu.empty::<i32>(3 * blocks));
        gpu.launch("shared_atomics", blocks, threads, 0, args![&wide, &narrow, &gpu.upload(&data)]);
        (gpu.read(&wide), gpu.read(&narrow))
    });
    let (mut want64, mut want32) = (vec![], vec![]);
    for block in data.chunks(threads) {
        want64.push(block.iter().map(|&v| v as u64 * v as u64).sum());
        want64.push(block.iter().enumerate().map(|(i, &v)| (v as u64) << 32 | i as u64).min().unwrap());
        want32.push(block.iter().filter(|v| *v & 1 != 0).count() as i32);
        want32.push(*block.iter().max().unwrap());
        want32.push(block.iter().map(|v| v & 15).sum());
    }
    equal("64 bits", &wide, &want64);
    equal("32 bits", &narrow, &want32);
}

#[test]
fn warps_aggregate() {
    let n = 500;
    let data = integers(n, 5);
    let keys: Vec<u32> = data.iter().map(|x| (*x as u32 >> 3) % 11).collect();
    let (kept, bins) = same_results(&compile("atomics.cu"), |gpu| {
        let (src, dst, count) = (gpu.upload(&data), gpu.zeros::<i32>(n), gpu.zeros::<i32>(1));
        gpu.launch("filter_aggregated", 2, 128, 0, args![&dst, &count, &src, n as i32]);
        let mut kept = gpu.read(&dst);
        kept.truncate(gpu.read(&count)[0] as usize);
        kept.sort();
        let (bins, k) = (gpu.zeros::<u32>(11), gpu.upload(&keys));
        gpu.launch("histogram_match", 4, 128, 0, args![&bins, &k, n as i32]);
        (kept, gpu.read(&bins))
    });
    let mut want: Vec<i32> = data.into_iter().filter(|x| *x > 0).collect();
    want.sort();
    equal("filter_aggregated", &kept, &want);
    let mut want = vec![0; 11];
    keys.iter().for_each(|k| want[*k as usize] += 1);
    equal("histogram_match", &bins, &want);
}

#[test]
fn votes_and_matches() {
    let values: Vec<i32> = integers(32, 6).iter().map(|x| x & 0xff).collect();
    let mut random = Random::new(7);
    let keys: Vec<u64> = (0..32).map(|_| random.below(4) << 40).collect();
    let got = same(&compile("atomics.cu"), |gpu| {
        let out = gpu.empty::<u32>(352);
        gpu.launch("votes", 1, 32, 0, args![&out, &gpu.upload(&values), &gpu.upload(&keys)]);
        gpu.read(&out)
    });
    let mask = |f: &dyn Fn(usize) -> bool| (0..32).fold(0u32, |m, i| m | (f(i) as u32) << i);
    let positive = mask(&|i| values[i] > 0);
    let mut want = vec![1; 32];
    want.extend([values.contains(&7) as u32; 32]);
    want.extend([positive; 32]);
    want.extend((0..32).map(|l| mask(&|i| keys[i] == keys[l])));
    want.extend([u32::MAX; 32]); // values >> 8 are all zero
    want.extend([1; 32]);
    want.extend([*values.iter().max().unwrap() as u32; 32]);
    want.extend([values.iter().fold(0, |a, b| a ^ *b as u32); 32]);
    want.extend([mask(&|i| i < 20 && values[i] & 1 != 0); 20]);
    want.extend([*values[20..].iter().min().unwrap() as u32; 12]);
    want.extend([positive.count_ones(); 32]);
    want.extend([(positive == u32::MAX) as u32 | ((positive != 0) as u32) << 1; 32]);
    equal("votes", &got, &want);
}

#[test]
fn named_barriers() {
    let data = integers(128, 8);
    let got = same(&compile("atomics.cu"), |gpu| {
        let (input, out) = (gpu.upload(&data), gpu.empty::<i32>(128));
        gpu.launch("named_barriers", 1, 64, 0, args![&input, &out]);
        gpu.read(&out)
    });
    let want: Vec<i32> = (0..128).map(|i| data[i / 32 * 32 + 31 - i % 32].wrapping_mul(3)).collect();
    equal("named_barriers", &got, &want);
}
