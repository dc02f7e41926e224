//! NVIDIA's CUB, which comes with NVRTC: block and warp algorithms against plain ones.

mod common;

use common::{Random, args, compile, equal, same};

fn numbers(count: usize, seed: u64, below: u64) -> Vec<i32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(below) as i32 - (below / 2) as i32).collect()
}

#[test]
fn block_sums_by_three_algorithms() {
    let data = numbers(128, 1, 1 << 20);
    let got = same(&compile("cub.cu"), |gpu| {
        let out = gpu.empty::<i32>(3);
        gpu.launch("reduces", 1, 128, 0, args![&gpu.upload(&data), &out]);
        gpu.read(&out)
    });
    equal("reduces", &got, &[data.iter().sum::<i32>(); 3]);
}

#[test]
fn block_scans_by_three_algorithms() {
    let data = numbers(288, 2, 1 << 16);
    let got = same(&compile("cub.cu"), |gpu| {
        let out = gpu.empty::<i32>(3 * 288);
        gpu.launch("scans", 1, 96, 0, args![&gpu.upload(&data), &out]);
        gpu.read(&out)
    });
    let sums: Vec<i32> = data.iter().scan(0, |s, x| Some(std::mem::replace(s, *s + x) + x)).collect();
    equal("scans", &got, &sums.repeat(3));
}

#[test]
fn block_radix_sort() {
    let data: Vec<u32> = numbers(1024, 3, 200).iter().map(|x| (*x as u32).wrapping_mul(0x0100_0193)).collect();
    let (keys, heads) = same(&compile("cub.cu"), |gpu| {
        let (out, heads) = (gpu.empty::<u32>(1024), gpu.empty::<i32>(1024));
        gpu.launch("sorts", 2, 128, 0, args![&gpu.upload(&data), &out, &heads]);
        (gpu.read(&out), gpu.read(&heads))
    });
    let mut want = data;
    want.chunks_mut(512).for_each(|c| c.sort());
    equal("sorts", &keys, &want);
    let first = |(i, k): (usize, &u32)| (i % 512 == 0 || want[i - 1] != *k) as i32;
    equal("heads", &heads, &want.iter().enumerate().map(first).collect::<Vec<_>>());
}

#[test]
fn block_histograms() {
    let mut random = Random::new(4);
    let data: Vec<u8> = (0..256).map(|_| random.below(32) as u8).collect();
    let (sorted, atomic) = same(&compile("cub.cu"), |gpu| {
        let (sorted, atomic) = (gpu.empty::<u32>(32), gpu.empty::<u32>(32));
        gpu.launch("histograms", 1, 64, 0, args![&gpu.upload(&data), &sorted, &atomic]);
        (gpu.read(&sorted), gpu.read(&atomic))
    });
    let mut want = vec![0u32; 32];
    data.iter().for_each(|d| want[*d as usize] += 1);
    equal("sorted", &sorted, &want);
    equal("atomic", &atomic, &want);
}

#[test]
fn warp_algorithms() {
    let data = numbers(64, 5, 1000);
    let (maxima, prefix) = same(&compile("cub.cu"), |gpu| {
        let (maxima, prefix) = (gpu.empty::<i32>(8), gpu.empty::<i32>(64));
        gpu.launch("warps", 1, 64, 0, args![&gpu.upload(&data), &maxima, &prefix]);
        (gpu.read(&maxima), gpu.read(&prefix))
    });
    let want: Vec<i32> = data.chunks(8).map(|c| *c.iter().max().unwrap()).collect();
    equal("maxima", &maxima, &want);
    let before = |w: &[i32]| w.iter().scan(0, |s, x| Some(std::mem::replace(s, *s + x))).collect::<Vec<_>>();
    equal("prefix", &prefix, &data.chunks(32).flat_map(before).collect::<Vec<_>>());
}
