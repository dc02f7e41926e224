//! Reductions, scans, histograms, sorting and transposition.

mod common;

use common::{Random, args, compile, equal, same, same_results};

fn integers(n: usize, seed: u64) -> Vec<i32> {
    Random::new(seed).words(n).into_iter().map(|x| x as i32).collect()
}

fn total(data: &[i32]) -> i32 {
    data.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// A kernel that leaves the sum of every `chunk` elements; `shared` bytes of dynamic shared memory.
fn partial_sums(kernel: &str, block: usize, chunk: usize, shared: usize) {
    let n = 1337;
    let data = integers(n, 1);
    let blocks = n.div_ceil(chunk);
    let got = same(&compile("reduce.cu"), |gpu| {
        let (input, output) = (gpu.upload(&data), gpu.empty::<i32>(blocks));
        gpu.launch(kernel, blocks, block, shared, args![&input, &output, n as u32]);
        gpu.read(&output)
    });
    equal(kernel, &got, &data.chunks(chunk).map(total).collect::<Vec<_>>());
}

#[test]
fn the_seven_steps() {
    partial_sums("reduce0", 128, 128, 512);
    partial_sums("reduce1", 128, 128, 512);
    partial_sums("reduce2", 256, 256, 1024);
    partial_sums("reduce3", 128, 256, 512);
    partial_sums("reduce4", 128, 256, 512);
    partial_sums("reduce5", 256, 512, 0);
}

#[test]
fn the_last_step_strides_over_the_grid() {
    let (n, blocks) = (4999, 3);
    let data = integers(n, 2);
    let got = same(&compile("reduce.cu"), |gpu| {
        let (input, output) = (gpu.upload(&data), gpu.empty::<i32>(blocks));
        gpu.launch("reduce6", blocks, 128, 0, args![&input, &output, n as u32]);
        gpu.read(&output)
    });
    let mut want = vec![0i32; blocks];
    for (i, x) in data.iter().enumerate() {
        want[i / 256 % blocks] = want[i / 256 % blocks].wrapping_add(*x);
    }
    equal("reduce6", &got, &want);
}

#[test]
fn whole_sums() {
    for (kernel, n) in [("device_reduce_atomic", 3001), ("device_reduce_atomic", 1), ("cg_reduce", 2777)] {
        let data = integers(n, 3);
        let got = same(&compile("reduce.cu"), |gpu| {
            let (input, output) = (gpu.upload(&data), gpu.zeros::<i32>(1));
            gpu.launch(kernel, 4, 160, 0, args![&input, &output, n as i32]);
            gpu.read(&output)
        });
        equal(kernel, &got, &[total(&data)]);
    }
}

#[test]
fn two_passes_over_vectors() {
    let n = 4 * 1023 + 3;
    let data = integers(n, 4);
    let got = same(&compile("reduce.cu"), |gpu| {
        let (input, partial, output) = (gpu.upload(&data), gpu.empty::<i32>(5), gpu.empty::<i32>(1));
        gpu.launch("device_reduce_two_pass", 5, 128, 0, args![&input, &partial, n as i32]);
        gpu.launch("device_reduce_two_pass", 1, 32, 0, args![&partial, &output, 5]);
        gpu.read(&output)
    });
    equal("device_reduce_two_pass", &got, &[total(&data)]);
}

#[test]
fn the_last_block_finishes_a_single_pass() {
    let n = 3000;
    // Small integers: every order of additions is exact.
    let data: Vec<f32> = integers(n, 5).iter().map(|x| (x % 1000) as f32).collect();
    let got = same_results(&compile("reduce.cu"), |gpu| {
        let (input, partial, output) = (gpu.upload(&data), gpu.empty::<f32>(7), gpu.empty::<f32>(2));
        for i in 0..2 {
            // The counter in global memory must be back at zero for the second launch.
            gpu.launch("reduce_single_pass", 7, 128, 0, args![&input, &partial, output.address + 4 * i, n as u32]);
        }
        gpu.read(&output)
    });
    let sum = data.iter().map(|x| *x as f64).sum::<f64>() as f32;
    equal("reduce_single_pass", &got, &[sum, sum]);
}

#[test]
fn small_tiles_and_coalesced_groups() {
    let n = 150;
    let data = integers(n, 6);
    let odd = data.iter().filter(|x| *x & 1 != 0).count();
    let (quads, list) = same_results(&compile("reduce.cu"), |gpu| {
        let (input, quads, list) = (gpu.upload(&data), gpu.empty::<i32>(n.div_ceil(4)), gpu.zeros::<i32>(1 + odd));
        gpu.launch("cg_tiles", 3, 64, 0, args![&input, &quads, &list, n as i32]);
        let mut list = gpu.read(&list);
        list[1..].sort(); // blocks append in any order
        (gpu.read(&quads), list)
    });
    equal("quads", &quads, &data.chunks(4).map(total).collect::<Vec<_>>());
    let want = (0..n as i32).filter(|&i| data[i as usize] & 1 != 0);
    equal("odd", &list, &std::iter::once(odd as i32).chain(want).collect::<Vec<_>>());
}

#[test]
fn tiles_of_several_warps() {
    let n = 3 * 256;
    let data: Vec<i32> = integers(n, 12).iter().map(|x| x >> 8).collect();
    let (sums, most, mirrored) = same_results(&compile("reduce.cu"), |gpu| {
        let (sums, most, mirrored) = (gpu.empty::<i32>(n), gpu.empty::<i32>(n), gpu.empty::<i32>(n));
        gpu.launch("cg_large_tiles", 3, 256, 0, args![&gpu.upload(&data), &sums, &most, &mirrored]);
        (gpu.read(&sums), gpu.read(&most), gpu.read(&mirrored))
    });
    let tile = |i: usize, size: usize| &data[i / size * size..][..size];
    let each = |f: &dyn Fn(usize) -> i32| (0..n).map(f).collect::<Vec<_>>();
    equal("sums", &sums, &each(&|i| total(tile(i, 128)).wrapping_add(tile(i, 128)[77])));
    equal("most", &most, &each(&|i| *tile(i, 64).iter().max().unwrap()));
    equal("mirrored", &mirrored, &each(&|i| data[i ^ 127]));
}

#[test]
fn a_barrier_over_the_grid() {
    let (n, blocks) = (2000, 6);
    let data = integers(n, 7);
    let got = same_results(&compile("reduce.cu"), |gpu| {
        let (input, sums, out) = (gpu.upload(&data), gpu.empty::<i32>(blocks), gpu.empty::<i32>(blocks));
        gpu.launch_cooperative("cg_grid", blocks, 96, 0, args![&input, &sums, &out, n as i32]);
        gpu.read(&out)
    });
    equal("cg_grid", &got, &vec![total(&data); blocks]);
}

#[test]
fn scans() {
    let n = 700;
    let data = Random::new(8).words(n);
    let inclusive = |block: usize| -> Vec<u32> {
        let scan = |chunk: &[u32]| {
            chunk
                .iter()
                .scan(0u32, |s, x| {
                    *s = s.wrapping_add(*x);
                    Some(*s)
                })
                .collect::<Vec<_>>()
        };
        data.chunks(block).flat_map(scan).collect()
    };
    let (blelloch, hillis, shfl) = same(&compile("reduce.cu"), |gpu| {
        let (input, in_place) = (gpu.upload(&data), gpu.upload(&data));
        let (a, b) = (gpu.empty::<u32>(n), gpu.empty::<u32>(n));
        gpu.launch("scan_blelloch", 3, 128, 1024, args![&in_place, n as i32]);
        gpu.launch("scan_hillis_steele", 6, 128, 1024, args![&input, &a, n as i32]);
        gpu.launch("scan_shfl", 4, 192, 0, args![&input, &b, n as i32]);
        (gpu.read(&in_place), gpu.read(&a), gpu.read(&b))
    });
    let exclusive: Vec<u32> = inclusive(256).iter().zip(&data).map(|(s, x)| s.wrapping_sub(*x)).collect();
    equal("scan_blelloch", &blelloch, &exclusive);
    equal("scan_hillis_steele", &hillis, &inclusive(128));
    equal("scan_shfl", &shfl, &inclusive(192));
}

#[test]
fn histogram_with_shared_atomics() {
    let data: Vec<u8> = Random::new(9).words(1501).into_iter().flat_map(|x| (x & 0x3f7f_ff0f).to_le_bytes()).collect();
    let got = same(&compile("reduce.cu"), |gpu| {
        let (input, output) = (gpu.upload(&data), gpu.zeros::<u32>(256));
        gpu.launch("histogram256", 3, 96, 0, args![&input, &output, data.len() as i32 / 4]);
        gpu.read(&output)
    });
    let mut want = vec![0u32; 256];
    data.iter().for_each(|&x| want[x as usize] += 1);
    equal("histogram256", &got, &want);
}

#[test]
fn sorting_inside_blocks() {
    let keys: Vec<u32> = Random::new(10).words(512);
    let values = Random::new(11).units(1024);
    let (radix, (bitonic, index)) = same(&compile("reduce.cu"), |gpu| {
        let (k, v, i) = (gpu.upload(&keys), gpu.upload(&values), gpu.empty::<i32>(1024));
        gpu.launch("radix_sort_block", 2, 256, 0, args![&k, 11]);
        gpu.launch("bitonic_sort", 2, 256, 0, args![&v, &i]);
        (gpu.read(&k), (gpu.read(&v), gpu.read(&i)))
    });
    let mut want = keys.clone();
    want.chunks_mut(256).for_each(|c| c.sort_by_key(|x| x & 0x7ff)); // stable
    equal("radix_sort_block", &radix, &want);
    let mut want = values.clone();
    want.chunks_mut(512).for_each(|c| c.sort_by(f32::total_cmp));
    equal("bitonic_sort", &bitonic, &want);
    let found: Vec<f32> = index.iter().enumerate().map(|(i, &at)| values[i / 512 * 512 + at as usize]).collect();
    equal("bitonic_sort index", &found, &want);
}

#[test]
fn transposition() {
    let (width, height) = (70, 45);
    let single = Random::new(12).units(width * height);
    let double: Vec<f64> = single.iter().map(|x| *x as f64 / 3.0).collect();
    let (a, b) = same(&compile("reduce.cu"), |gpu| {
        let (x, y) = (gpu.upload(&single), gpu.upload(&double));
        let (a, b) = (gpu.empty::<f32>(width * height), gpu.empty::<f64>(width * height));
        let size = [width as i32, height as i32];
        gpu.launch("transpose_padded", [3, 2], [32, 8], 0, args![&a, &x, size[0], size[1]]);
        gpu.launch("transpose_swizzled", [3, 2], [32, 8], 0, args![&b, &y, size[0], size[1]]);
        (gpu.read(&a), gpu.read(&b))
    });
    let from = |i: usize| i % height * width + i / height;
    equal("transpose_padded", &a, &(0..width * height).map(|i| single[from(i)]).collect::<Vec<_>>());
    equal("transpose_swizzled", &b, &(0..width * height).map(|i| double[from(i)]).collect::<Vec<_>>());
}
