//! Each rule both ways: the race is found, and correct code raises no alarm.

mod model;

use super::*;

const ALL: u32 = u32::MAX;

/// A block under check, with memory accesses written as a kernel's author would think of them.
struct Block<'a>(BlockCheck<'a>);

impl Block<'_> {
    #[allow(clippy::too_many_arguments, reason = "an access is as many things")]
    fn go(
        &mut self,
        shared: bool,
        kind: Kind,
        strong: bool,
        warp: u32,
        mask: u32,
        bytes: u32,
        at: &dyn Fn(u64) -> u64,
    ) -> Option<Conflict> {
        let addresses = std::array::from_fn(|i| at(i as u64));
        let op = 10 * warp + kind as u32;
        let a = Access { warp, mask, op, addresses: &addresses, bytes, kind, strong, scope: Scope::Gpu };
        if shared { self.0.shared(&a, &mut |_| false) } else { self.0.global(&a, &mut |_| false) }
    }
    fn read(&mut self, warp: u32, mask: u32, at: impl Fn(u64) -> u64) -> Option<Conflict> {
        self.go(true, Kind::Read, false, warp, mask, 4, &at)
    }
    fn write(&mut self, warp: u32, mask: u32, at: impl Fn(u64) -> u64) -> Option<Conflict> {
        self.go(true, Kind::Write, false, warp, mask, 4, &at)
    }
    fn barrier(&mut self) {
        let all: Vec<(u32, u32)> = (0..self.0.threads.warps()).map(|w| (w, ALL)).collect();
        self.0.barrier(0, &all);
    }
}

/// Runs a body on one block with so many warps and 16 KiB of shared memory.
fn block(warps: u32, body: impl FnOnce(&mut Block)) {
    let launch = LaunchCheck::new(32 * warps);
    body(&mut Block(launch.block(0, 16384)));
}

/// Lane `i` of warp `w` at word `w * 32 + i`.
fn own(w: u32) -> impl Fn(u64) -> u64 {
    move |i| 4 * (32 * w as u64 + i)
}

#[test]
fn read_after_write_wants_a_barrier() {
    for with in [false, true] {
        block(4, |b| {
            for w in 0..4 {
                assert_eq!(b.write(w, ALL, own(w)), None);
            }
            if with {
                b.barrier();
            }
            // Every warp reads what the next one wrote.
            let found = b.read(0, ALL, own(1));
            if with {
                assert_eq!(found, None);
            } else {
                let other = Thread { block: 0, warp: 1, lane: 0 };
                let expected =
                    Conflict { lane: 0, address: 128, kind: Kind::Read, other, other_op: 11, other_kind: Kind::Write };
                assert_eq!(found, Some(expected));
            }
        });
    }
}

#[test]
fn write_after_read_wants_a_barrier_even_of_a_reader() {
    // The tile is read by all warps (rows, broadcasts, float4) and then overwritten, each word by one of its readers.
    for with in [false, true] {
        for shape in 0..3 {
            block(4, |b| {
                assert_eq!((0..4).find_map(|w| b.write(w, ALL, own(w))), None);
                b.barrier();
                for w in 0..4 {
                    for k in 0..4 {
                        let found = match shape {
                            0 => b.read(w, ALL, own(k)),
                            1 => b.read(w, ALL, |_| 4 * (32 * w as u64 + k as u64)),
                            _ => b.go(true, Kind::Read, false, w, ALL, 16, &|i| 16 * i),
                        };
                        assert_eq!(found, None);
                    }
                }
                if with {
                    b.barrier();
                }
                let found = (0..4).find_map(|w| b.write(w, ALL, own(w)));
                assert_eq!(found.is_none(), with, "{shape} {found:?}");
                if let Some(found) = found {
                    assert_eq!((found.kind, found.other_kind), (Kind::Write, Kind::Read));
                    // A broadcast within the writer's own warp counts as much as another warp.
                    assert!(found.other.warp != 0 || shape == 1 && found.other.lane != found.lane, "{found:?}");
                }
            });
        }
    }
}

#[test]
fn write_after_write_wants_a_barrier() {
    for with in [false, true] {
        block(2, |b| {
            assert_eq!(b.write(0, ALL, own(0)), None);
            if with {
                b.barrier();
            }
            assert_eq!(b.write(1, ALL, own(0)).is_none(), with);
        });
    }
}

#[test]
fn double_buffering_needs_one_barrier_an_iteration() {
    for buffers in [1, 2] {
        block(8, |b| {
            let found = (0..10).find_map(|k| {
                let base = 4096 * (k % buffers);
                let found = (0..8).find_map(|w| b.write(w, ALL, |i| base + own(w)(i)));
                b.barrier();
                found.or_else(|| {
                    (0..8).find_map(|w| {
                        (0..8).find_map(|v| b.read(w, ALL, |i| base + own(v)(i))).or(b.read(w, ALL, |_| base))
                    })
                })
            });
            assert_eq!(found.is_none(), buffers == 2, "{found:?}");
        });
    }
}

#[test]
fn lanes_of_a_warp_are_ordered_by_syncwarp_only() {
    for with in [None, Some(ALL), Some(0b11), Some(0b101)] {
        block(1, |b| {
            assert_eq!(b.write(0, 1, |_| 0), None);
            if let Some(mask) = with {
                b.0.warp_sync(0, mask);
            }
            assert_eq!(b.read(0, 2, |_| 0).is_none(), with.is_some_and(|m| m & 2 != 0), "{with:?}");
        });
    }
}

#[test]
fn a_thread_is_ordered_with_itself() {
    block(2, |b| {
        for _ in 0..3 {
            assert_eq!(b.write(0, ALL, own(0)), None);
            assert_eq!(b.read(0, ALL, own(0)), None);
            assert_eq!(b.write(0, 0xff00, own(0)), None);
            b.0.warp_sync(0, 0xff);
            assert_eq!(b.write(0, ALL, own(0)), None);
        }
    });
}

/// What a fence between a kernel's two phases can be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fenced {
    No,
    Block,
    Device,
}

impl Block<'_> {
    fn load(&mut self, warp: u32, mask: u32, at: impl Fn(u64) -> u64) -> Option<Conflict> {
        self.go(false, Kind::Read, false, warp, mask, 4, &at)
    }
    fn store(&mut self, warp: u32, mask: u32, at: impl Fn(u64) -> u64) -> Option<Conflict> {
        self.go(false, Kind::Write, false, warp, mask, 4, &at)
    }
    fn atomic(&mut self, warp: u32, mask: u32, at: impl Fn(u64) -> u64) -> Option<Conflict> {
        self.go(false, Kind::Atomic, true, warp, mask, 4, &at)
    }
    fn fence(&mut self, warp: u32, mask: u32, fenced: Fenced) {
        match fenced {
            Fenced::No => {}
            Fenced::Block => self.0.fence(warp, mask, Scope::Cta),
            Fenced::Device => self.0.fence(warp, mask, Scope::Gpu),
        }
    }
}

#[test]
fn same_value_from_all_threads_is_no_race() {
    block(2, |b| {
        let addresses = [0; 32];
        let scope = Scope::Cta;
        let mut a = Access {
            warp: 0,
            mask: ALL,
            op: 0,
            addresses: &addresses,
            bytes: 4,
            kind: Kind::Write,
            strong: false,
            scope,
        };
        assert_eq!(b.0.shared(&a, &mut |_| false), None);
        a.warp = 1;
        assert_eq!(b.0.shared(&a, &mut |_| true), None);
        assert_eq!(b.0.global(&a, &mut |_| false), None);
        a.warp = 0;
        assert_eq!(b.0.global(&a, &mut |_| true), None);
        // Another value is one, from one lane as well.
        a.mask = 1 << 7;
        let found = b.0.shared(&a, &mut |_| false);
        assert_eq!(found.map(|f| (f.lane, f.other.warp)), Some((7, 1)));
        assert!(b.0.global(&a, &mut |_| false).is_some());
        b.barrier();
        assert_eq!(b.read(0, ALL, |_| 0), None);
    });
}

#[test]
fn one_lane_changes_what_all_have_set() {
    // All lanes set two words together, then one lane one of them, and another lane reads it.
    for with in [false, true] {
        block(1, |b| {
            for shared in [true, false] {
                assert_eq!(b.go(shared, Kind::Write, false, 0, ALL, 4, &|i| 8 * (i % 2)), None);
                assert_eq!(b.go(shared, Kind::Write, false, 0, 8, 4, &|_| 8), None);
            }
            if with {
                b.0.warp_sync(0, ALL);
            }
            for shared in [true, false] {
                assert_eq!(b.go(shared, Kind::Read, false, 0, 1, 4, &|_| 0), None);
                assert_eq!(b.go(shared, Kind::Read, false, 0, 2, 4, &|_| 8).is_none(), with);
            }
        });
    }
}

#[test]
fn neighbouring_bytes_are_not_each_others() {
    for bytes in [1, 2, 4, 8] {
        block(2, |b| {
            // Warp 0 the even ones, warp 1 the odd ones.
            for w in 0..2 {
                let at = |i: u64| bytes * (2 * i + w as u64);
                assert_eq!(b.go(true, Kind::Write, false, w, ALL, bytes as u32, &at), None);
                assert_eq!(b.go(false, Kind::Write, false, w, ALL, bytes as u32, &at), None);
            }
            // A wider read takes both, and tells the first byte which is not its own.
            for shared in [true, false] {
                let found = b.go(shared, Kind::Read, false, 0, 1, 2 * bytes as u32, &|_| 0);
                assert_eq!(found.map(|f| (f.address, f.other.warp)), Some((bytes, 1)));
            }
        });
    }
}

#[test]
fn named_barriers_order_producers_and_consumers() {
    const FULL: u32 = 1;
    const EMPTY: u32 = 2;
    // Which of the four calls is left out.
    for broken in 0..5 {
        block(4, |b| {
            let found = (0..4).find_map(|k| {
                if k > 0 {
                    (2..4).filter(|_| broken != 1).for_each(|w| b.0.arrive(EMPTY, w, ALL));
                    if broken != 2 {
                        b.0.barrier(EMPTY, &[(0, ALL), (1, ALL)]);
                    }
                }
                let found = (0..2).find_map(|w| b.write(w, ALL, own(w)));
                (0..2).filter(|_| broken != 3).for_each(|w| b.0.arrive(FULL, w, ALL));
                if broken != 4 {
                    b.0.barrier(FULL, &[(2, ALL), (3, ALL)]);
                }
                found.or_else(|| (2..4).find_map(|w| b.read(w, ALL, own(0)).or(b.read(w, ALL, own(1)))))
            });
            assert_eq!(found.is_none(), broken == 0, "{broken} {found:?}");
        });
    }
}

#[test]
fn who_arrives_learns_nothing() {
    block(2, |b| {
        assert_eq!(b.write(0, 1, |_| 0), None);
        b.0.arrive(1, 1, ALL);
        b.0.barrier(1, &[(0, ALL)]);
        assert!(b.read(1, 1, |_| 0).is_some());
    });
    // What comes after the arrival is not covered by it.
    block(2, |b| {
        b.0.arrive(1, 1, ALL);
        assert_eq!(b.write(1, 1, |_| 0), None);
        b.0.barrier(1, &[(0, ALL)]);
        assert!(b.read(0, 1, |_| 0).is_some());
    });
}

#[test]
fn an_exited_thread_has_arrived() {
    for exited in [false, true] {
        block(3, |b| {
            assert_eq!(b.write(0, 1, |_| 0), None);
            assert_eq!(b.write(1, 2, |_| 4), None);
            if exited {
                b.0.exit(0, ALL);
                b.0.exit(1, 2);
            }
            b.0.barrier(0, &[(1, !2), (2, ALL)]);
            assert_eq!(b.read(2, ALL, |_| 0).is_none(), exited);
            assert_eq!(b.read(2, ALL, |_| 4).is_none(), exited);
            assert_eq!(b.read(1, 1, |_| 4).is_none(), exited);
        });
    }
}

/// `threadFenceReduction` of the CUDA samples: each block leaves a partial sum and counts itself; the last one reads all.
fn thread_fence_reduction(fenced: Fenced, who: u32, barrier: bool) -> Option<Conflict> {
    let launch = LaunchCheck::new(64);
    let (partial, counter) = (1 << 52, (1 << 52) + 4096);
    (0..5).find_map(|k| {
        let mut b = Block(launch.block(k, 4096));
        // The sum is the work of `who`, the count is thread 0's.
        let mut found = b.store(who, 1, |_| partial + 4 * k as u64);
        if barrier {
            b.fence(who, 1, if who == 0 { fenced } else { Fenced::No });
            b.barrier();
        }
        b.fence(0, 1, fenced);
        found = found.or(b.atomic(0, 1, |_| counter));
        if k == 4 {
            found = found.or(b.write(0, 1, |_| 0));
            b.barrier();
            found = found.or(b.read(1, ALL, |_| 0));
            found = found.or(b.load(1, 0x1f, |i| partial + 4 * i));
            found = found.or(b.load(0, 0x1f, |i| partial + 4 * i));
        }
        found
    })
}

#[test]
fn thread_fence_reduction_needs_its_fence() {
    assert_eq!(thread_fence_reduction(Fenced::Device, 0, false), None);
    assert_eq!(thread_fence_reduction(Fenced::Device, 0, true), None);
    // Another warp's store reaches the fence through the barrier.
    assert_eq!(thread_fence_reduction(Fenced::Device, 1, true), None);
    assert!(thread_fence_reduction(Fenced::Device, 1, false).is_some());
    for who in 0..2 {
        let found = thread_fence_reduction(Fenced::No, who, true).unwrap();
        assert_eq!((found.kind, found.other_kind, found.other.block), (Kind::Read, Kind::Write, 0));
        assert!(thread_fence_reduction(Fenced::Block, who, true).is_some());
    }
}

#[test]
fn a_fence_speaks_for_its_own_thread_only() {
    // data[tid] = x; __threadfence(); if (tid == 0) flag = 1; there is no barrier before the flag.
    for with in [false, true] {
        let launch = LaunchCheck::new(32);
        let (data, flag) = (1 << 52, 1 << 53);
        let mut a = Block(launch.block(0, 0));
        assert_eq!(a.store(0, ALL, |i| data + 4 * i), None);
        a.fence(0, ALL, Fenced::Device);
        if with {
            a.0.warp_sync(0, ALL);
        }
        assert_eq!(a.go(false, Kind::Write, true, 0, 1, 4, &|_| flag), None);
        let mut b = Block(launch.block(1, 0));
        assert_eq!(b.go(false, Kind::Read, true, 0, ALL, 4, &|_| flag), None);
        // Lane 0's own word is released in either case.
        assert_eq!(b.load(0, ALL, |_| data), None);
        assert_eq!(b.load(0, ALL, |i| data + 4 * i).is_none(), with);
    }
}

#[test]
fn all_may_fence_before_the_barrier() {
    // data[tid] = x; __threadfence(); __syncthreads(); if (tid == 0) flag = 1;
    for (fenced, late) in [(Fenced::No, false), (Fenced::Block, false), (Fenced::Device, false), (Fenced::Device, true)]
    {
        let launch = LaunchCheck::new(64);
        let (data, flag) = (1 << 52, 1 << 53);
        let mut a = Block(launch.block(0, 0));
        for w in 0..2 {
            assert_eq!(a.store(w, ALL, |i| data + own(w)(i)), None);
            a.fence(w, ALL, fenced);
        }
        if late {
            // Written behind the fence.
            assert_eq!(a.store(1, 1, |_| data + 256), None);
        }
        a.barrier();
        assert_eq!(a.go(false, Kind::Write, true, 0, 1, 4, &|_| flag), None);
        let mut b = Block(launch.block(1, 0));
        assert_eq!(b.go(false, Kind::Read, true, 0, 1, 4, &|_| flag), None);
        b.barrier();
        let found = b.load(1, ALL, |i| data + own(1)(i)).or(b.load(0, ALL, |i| data + own(0)(i)));
        assert_eq!(found.is_none(), fenced == Fenced::Device, "{fenced:?} {found:?}");
        assert_eq!(b.load(0, 1, |_| data + 256).is_some(), late);
    }
}

#[test]
fn spin_locks_order_critical_sections() {
    for fenced in [Fenced::No, Fenced::Block, Fenced::Device] {
        let launch = LaunchCheck::new(64);
        let (lock, data) = (1 << 52, 1 << 53);
        let mut blocks = [Block(launch.block(0, 0)), Block(launch.block(1, 0))];
        let turn = |b: &mut Block, warp: u32, lane: u32| {
            // A failed attempt, then the lock, the work, and the release with atomicExch.
            b.atomic(warp, 1 << lane, |_| lock)
                .or_else(|| b.atomic(warp, 1 << lane, |_| lock))
                .or_else(|| b.load(warp, 1 << lane, |_| data))
                .or_else(|| b.store(warp, 1 << lane, |_| data))
                .or_else(|| {
                    b.fence(warp, 1 << lane, fenced);
                    b.atomic(warp, 1 << lane, |_| lock)
                })
        };
        // Within a block, the block's scope is enough.
        let found = [(0, 0), (0, 5), (1, 5), (0, 0)].iter().find_map(|&(w, l)| turn(&mut blocks[0], w, l));
        assert_eq!(found.is_none(), fenced != Fenced::No, "{fenced:?} {found:?}");
        if found.is_none() {
            let found = [(1, 3), (0, 9)].iter().find_map(|&(w, l)| turn(&mut blocks[1], w, l));
            assert_eq!(found.is_none(), fenced == Fenced::Device, "{fenced:?} {found:?}");
        }
    }
}

#[test]
fn atomics_do_not_race_with_each_other_but_with_the_rest() {
    let launch = LaunchCheck::new(64);
    let mut a = Block(launch.block(0, 4096));
    let mut b = Block(launch.block(1, 4096));
    let bins = |i: u64| (1 << 52) + 4 * (i * 7 % 5);
    for w in 0..2 {
        assert_eq!(a.atomic(w, ALL, bins), None);
        assert_eq!(b.atomic(w, ALL, bins), None);
        assert_eq!(a.go(true, Kind::Atomic, true, w, ALL, 4, &|i| 4 * (i * 7 % 5)), None);
    }
    assert!(a.read(0, 1, |_| 0).is_some());
    assert!(a.load(0, 1, |_| 1 << 52).is_some());
    a.barrier();
    assert_eq!(a.read(0, ALL, |i| 4 * (i % 5)), None);
    // Its own block's atomics are now ordered, the other's are not.
    assert_eq!(a.load(0, 1, |_| 1 << 52).map(|f| f.other.block), Some(1));
    // Volatile reads are strong.
    assert_eq!(a.go(false, Kind::Read, true, 0, ALL, 4, &bins), None);
    // A weak access first, then an atomic.
    assert_eq!(a.load(0, 1, |_| 1 << 54), None);
    assert_eq!(b.atomic(1, 1, |_| 1 << 54).map(|f| f.other.block), Some(0));
}

#[test]
fn strong_accesses_of_the_blocks_scope_race_with_other_blocks() {
    for (first, second) in [(Scope::Cta, Scope::Cta), (Scope::Cta, Scope::Gpu), (Scope::Gpu, Scope::Sys)] {
        let launch = LaunchCheck::new(32);
        let addresses = [1 << 52; 32];
        let mut a = Access {
            warp: 0,
            mask: ALL,
            op: 0,
            addresses: &addresses,
            bytes: 4,
            kind: Kind::Atomic,
            strong: true,
            scope: first,
        };
        assert_eq!(launch.block(0, 0).global(&a, &mut |_| false), None);
        a.scope = second;
        assert_eq!(launch.block(1, 0).global(&a, &mut |_| false).is_none(), first != Scope::Cta);
    }
}

#[test]
fn volatile_flags_carry_data_behind_a_fence() {
    for fenced in [Fenced::No, Fenced::Block] {
        block(2, |b| {
            assert_eq!(b.write(0, 1, |_| 64), None);
            b.fence(0, 1, fenced);
            assert_eq!(b.go(true, Kind::Write, true, 0, 1, 4, &|_| 0), None);
            assert_eq!(b.go(true, Kind::Read, true, 1, 1, 4, &|_| 0), None);
            assert_eq!(b.read(1, 1, |_| 64).is_none(), fenced == Fenced::Block);
            // Who did not look at the flag knows nothing.
            assert!(b.read(1, 2, |_| 64).is_some());
        });
    }
}

#[test]
fn reserved_shared_memory_synchronises_and_has_no_races() {
    const RESERVED: u64 = 8192;
    for scratch in [RESERVED, RESERVED - 4] {
        block(2, |b| {
            b.0.reserved = RESERVED;
            assert_eq!(b.write(0, ALL, own(0)), None);
            b.0.warp_sync(0, ALL);
            b.0.fence(0, 1, Scope::Cta);
            assert_eq!(b.go(true, Kind::Atomic, true, 0, 1, 4, &|_| RESERVED + 64), None);
            // Without the acquire, and with it.
            assert!(b.read(1, 1, own(0)).is_some());
            assert_eq!(b.go(true, Kind::Atomic, true, 1, 1, 4, &|_| RESERVED + 64), None);
            assert_eq!(b.read(1, 1, own(0)), None);
            // One lane's plain write and another's plain read, each beside one of the program's own.
            assert_eq!(b.write(1, 0b11, |i| if i == 0 { scratch } else { 512 }), None);
            let found = b.read(1, 0b1100, |i| if i == 2 { scratch } else { 516 });
            assert_eq!(found.map(|c| (c.lane, c.address)), (scratch < RESERVED).then_some((2, scratch)));
            let all = std::array::from_fn(|i| RESERVED + 4 * i as u64);
            assert_eq!(b.0.uninitialised(ALL, &all, 4), None);
            assert_eq!(b.0.uninitialised(ALL, &all.map(|a| a - 64), 4), Some(0));
        });
    }
}

#[test]
fn a_plain_strong_write_ends_what_was_released() {
    let launch = LaunchCheck::new(32);
    let (flag, data) = (1 << 52, 1 << 53);
    let mut blocks: Vec<Block> = (0..3).map(|k| Block(launch.block(k, 0))).collect();
    assert_eq!(blocks[0].store(0, 1, |_| data), None);
    blocks[0].fence(0, 1, Fenced::Device);
    assert_eq!(blocks[0].go(false, Kind::Write, true, 0, 1, 4, &|_| flag), None);
    assert_eq!(blocks[1].go(false, Kind::Write, true, 0, 1, 4, &|_| flag), None);
    assert_eq!(blocks[2].go(false, Kind::Read, true, 0, 1, 4, &|_| flag), None);
    assert!(blocks[2].load(0, 1, |_| data).is_some());
}

/// The barrier of cooperative groups: bar.sync, then thread 0 fences, counts the block and spins, then bar.sync.
fn grid_sync(blocks: &mut [Block], fenced: Fenced, epoch: u64) -> Option<Conflict> {
    let counter = 1 << 50;
    let mut found = None;
    for b in blocks.iter_mut() {
        b.barrier();
        b.fence(0, 1, fenced);
        found = found.or(b.atomic(0, 1, |_| counter));
    }
    for b in blocks.iter_mut() {
        for _ in 0..1 + epoch {
            found = found.or(b.go(false, Kind::Read, true, 0, 1, 4, &|_| counter));
        }
        b.fence(0, 1, fenced);
        b.barrier();
    }
    found
}

#[test]
fn grid_wide_barriers_are_understood() {
    for (fenced, skip) in [(Fenced::No, 9), (Fenced::Device, 9), (Fenced::Device, 2)] {
        let launch = LaunchCheck::new(64);
        let mut blocks: Vec<Block> = (0..4).map(|k| Block(launch.block(k, 4096))).collect();
        let data = |k: u64| (1 << 52) + 256 * k;
        let found = (0..4).find_map(|step| {
            let mut found = None;
            for (k, b) in blocks.iter_mut().enumerate() {
                for w in 0..2 {
                    found = found.or(b.store(w, ALL, |i| data(k as u64) + own(w)(i)));
                }
            }
            found = found.or(grid_sync(&mut blocks, fenced, 2 * step));
            for (k, b) in blocks.iter_mut().enumerate() {
                for w in 0..2 {
                    found = found.or(b.load(w, ALL, |i| data((k as u64 + 1) % 4) + own(w)(i)));
                }
            }
            if step != skip {
                found = found.or(grid_sync(&mut blocks, fenced, 2 * step + 1));
            }
            found
        });
        assert_eq!(found.is_none(), fenced == Fenced::Device && skip == 9, "{fenced:?} {skip} {found:?}");
    }
}

/// A pipeline of `stages` buffers that is filled with `cp.async`; at most `left` groups stay in flight at its wait.
fn pipeline(stages: u64, left: u32, barriers: [bool; 2]) -> Option<Conflict> {
    let mut result = None;
    block(4, |b| {
        let issue = |b: &mut Block, k: u64| {
            let found = (0..4).find_map(|w| {
                let to = std::array::from_fn(|i| 2048 * (k % stages) + 16 * (32 * w as u64 + i as u64));
                let scope = Scope::Cta;
                let kind = Kind::Write;
                let a = Access { warp: w, mask: ALL, op: 90, addresses: &to, bytes: 16, kind, strong: false, scope };
                b.0.async_issue(&a)
            });
            (0..4).for_each(|w| b.0.async_commit(w, ALL));
            found
        };
        result = (0..stages - 1).find_map(|k| issue(b, k)).or_else(|| {
            (0..12).find_map(|k| {
                (0..4).for_each(|w| b.0.async_wait(w, ALL, left));
                if barriers[0] {
                    b.barrier();
                }
                let read = (0..4).find_map(|w| b.read(w, ALL, |i| 2048 * (k % stages) + 512 * (w as u64 ^ 1) + 4 * i));
                if barriers[1] {
                    b.barrier();
                }
                read.or_else(|| issue(b, k + stages - 1))
            })
        });
    });
    result
}

#[test]
fn asynchronous_copies_want_their_wait() {
    // One barrier between wait and read also keeps the copy away from the buffer that was read an iteration ago.
    assert_eq!(pipeline(3, 1, [true, false]), None);
    assert_eq!(pipeline(4, 2, [true, false]), None);
    assert_eq!(pipeline(2, 0, [true, false]), None);
    assert_eq!(pipeline(2, 0, [true, true]), None);
    assert_eq!(pipeline(3, 0, [true, true]), None);
    // The wait leaves too many in flight.
    let found = pipeline(3, 2, [true, true]).unwrap();
    assert_eq!((found.kind, found.other_kind, found.other_op), (Kind::Read, Kind::Copy, 90));
    // Waiting completes one's own copies only; the others' need the barrier.
    let found = pipeline(3, 1, [false, true]).unwrap();
    assert_eq!((found.kind, found.other_kind, found.other_op, found.other.warp), (Kind::Read, Kind::Write, 90, 1));
}

#[test]
fn bytes_in_flight_are_nobodys() {
    block(2, |b| {
        let to = [256; 32];
        let (kind, scope) = (Kind::Write, Scope::Cta);
        let a = Access { warp: 0, mask: 1, op: 3, addresses: &to, bytes: 8, kind, strong: false, scope };
        assert_eq!(b.0.uninitialised(1, &to, 8), Some(0));
        assert_eq!(b.0.async_issue(&a), None);
        for w in 0..2 {
            let found = b.go(true, Kind::Read, true, w, 4, 1, &|_| 263).unwrap();
            let other = Thread { block: 0, warp: 0, lane: 0 };
            assert_eq!((found.lane, found.address, found.other, found.other_kind), (2, 263, other, Kind::Copy));
            assert!(b.write(w, 1, |_| 260).is_some());
        }
        assert_eq!(b.write(1, 1, |_| 264), None);
        assert!(b.0.async_issue(&a).is_some());
        // Without a commit, a wait has nothing to wait for.
        b.0.async_wait(0, ALL, 0);
        assert!(b.read(0, 1, |_| 256).is_some());
        b.0.async_commit(0, ALL);
        b.0.async_wait(0, ALL, 1);
        assert!(b.read(0, 1, |_| 256).is_some());
        b.0.async_wait(0, ALL, 0);
        assert_eq!(b.read(0, 1, |_| 256), None);
        assert_eq!(b.0.uninitialised(1, &to, 8), None);
        // The write happened at the wait, by the lane that issued it.
        assert!(b.read(0, 2, |_| 256).is_some());
        b.barrier();
        assert_eq!(b.read(1, ALL, |_| 260), None);
    });
}

#[test]
fn unwritten_shared_memory_is_uninitialised() {
    block(2, |b| {
        let row: [u64; 32] = std::array::from_fn(|i| 4 * i as u64);
        assert_eq!(b.0.uninitialised(ALL, &row, 4), Some(0));
        assert_eq!(b.write(0, 0xffff, |i| 4 * i), None);
        assert_eq!(b.0.uninitialised(ALL, &row, 4), Some(16));
        assert_eq!(b.0.uninitialised(0xffff, &row, 4), None);
        assert_eq!(b.0.uninitialised(0xf0, &row, 1), None);
        assert_eq!(b.go(true, Kind::Write, false, 1, 1, 1, &|_| 64), None);
        let byte = [64; 32];
        assert_eq!((b.0.uninitialised(1, &byte, 1), b.0.uninitialised(1, &byte, 2)), (None, Some(0)));
        assert_eq!(b.go(true, Kind::Write, true, 1, 1, 1, &|_| 65), None);
        assert_eq!(b.0.uninitialised(1, &byte, 2), None);
        // Another block starts from nothing, and nothing of this one is in its way.
        b.0.reset(1);
        assert_eq!(b.0.uninitialised(ALL, &row, 4), Some(0));
        assert_eq!(b.write(1, ALL, |i| 4 * i), None);
        assert_eq!(b.0.uninitialised(ALL, &row, 4), None);
    });
}

#[test]
fn blocks_race_in_global_memory() {
    for first in [Kind::Read, Kind::Write] {
        for second in [Kind::Read, Kind::Write] {
            for (bytes, mask) in [(4, ALL), (16, ALL), (2, 0x8421), (8, 1)] {
                // The order of the blocks and who else reads meanwhile make no difference.
                for readers in 0..4 {
                    let launch = LaunchCheck::new(64);
                    let at = |i: u64| (1 << 52) + 992 + bytes as u64 * i;
                    let mut a = Block(launch.block(7, 0));
                    assert_eq!(a.go(false, first, false, 1, mask, bytes, &at), None);
                    if first == Kind::Read {
                        for r in 0..readers {
                            let mut b = Block(launch.block(r, 0));
                            assert_eq!(b.go(false, Kind::Read, false, 0, mask, bytes, &at), None);
                        }
                    }
                    // The first block has passed a barrier, or is a reader itself, neither of which helps.
                    a.barrier();
                    let mut b = Block(launch.block(3, 0));
                    assert_eq!(b.go(false, Kind::Read, false, 0, mask, bytes, &at).is_some(), first == Kind::Write);
                    let found = b.go(false, second, false, 1, mask, bytes, &at);
                    assert_eq!(found.is_some(), first == Kind::Write || second == Kind::Write);
                }
            }
        }
    }
}

#[test]
fn one_block_in_global_memory_follows_the_rules_of_shared() {
    for with in [false, true] {
        block(4, |b| {
            let at = |w: u32| move |i| (1 << 52) + 4 * (32 * w as u64 + i);
            for w in 0..4 {
                assert_eq!(b.load(w, ALL, |_| 1 << 52), None);
                assert_eq!(b.load(w, ALL, at(w)), None);
            }
            assert_eq!((1..4).find_map(|w| b.store(w, ALL, at(w))), None);
            if with {
                b.barrier();
            }
            assert_eq!(b.store(0, ALL, at(0)).is_none(), with);
            assert_eq!(b.load(0, ALL, at(1)).is_none(), with);
        });
    }
}

#[test]
fn a_race_is_found_whichever_host_thread_is_first() {
    for _ in 0..50 {
        let launch = LaunchCheck::new(32);
        let found: Vec<bool> = std::thread::scope(|s| {
            let run = |k: u32| {
                let launch = &launch;
                s.spawn(move || {
                    let mut b = Block(launch.block(k, 0));
                    // Each block writes a row of its own and, with one lane, a common word on its way.
                    (0..64).any(|r| {
                        b.store(0, ALL, |i| (1 << 52) + 65536 * k as u64 + 128 * r + 4 * i).is_some()
                            || r == 32 && b.store(0, ALL, |i| (1 << 51) + 1000 + 4 * i).is_some()
                    })
                })
            };
            let handles = [run(0), run(1), run(2)];
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        });
        assert_eq!(found.iter().filter(|&&f| f).count(), 2);
    }
}

#[test]
fn footprints_are_exact_to_the_byte() {
    let launch = LaunchCheck::new(32);
    let mut b = Block(launch.block(0, 0));
    let base = 1 << 52;
    assert_eq!(b.load(0, ALL, |i| base + 1000 + 4 * i), None);
    assert_eq!(b.load(0, 3, |i| base + 8 + 4 * i), None);
    assert_eq!(b.go(false, Kind::Write, false, 0, 0b101, 1, &|i| base + 2001 + i), None);
    assert_eq!(b.go(false, Kind::Write, false, 0, 1, 16, &|_| base + 4096), None);
    assert_eq!(b.atomic(0, ALL, |_| base + 4112), None);
    assert_eq!(b.go(false, Kind::Read, true, 0, 1, 8, &|_| 64), None);
    drop(b);
    let expected = Footprint {
        reads: vec![(64, 72), (base + 8, base + 16), (base + 1000, base + 1128)],
        writes: vec![(base + 2001, base + 2002), (base + 2003, base + 2004), (base + 4096, base + 4116)],
    };
    assert_eq!(launch.finish(), expected);
}

/// What one access costs; printed with `--nocapture`, judged by nobody.
#[test]
fn speed() {
    let launch = LaunchCheck::new(256);
    let mut b = Block(launch.block(0, 16384));
    let addresses = |at: &dyn Fn(u64) -> u64| -> [u64; 32] { std::array::from_fn(|i| at(i as u64)) };
    let base = 1 << 52;
    let cases: [(&str, bool, u32, [u64; 32]); 12] = [
        ("shared row, 4 bytes", true, 4, addresses(&|i| 1024 + 4 * i)),
        ("shared row, 16 bytes", true, 16, addresses(&|i| 1024 + 16 * i)),
        ("shared broadcast", true, 4, addresses(&|_| 4096)),
        ("shared two addresses", true, 4, addresses(&|i| 4096 + 512 * (i / 16))),
        ("shared half row twice, 16 bytes", true, 16, addresses(&|i| 16 * (i % 16))),
        ("shared column, padded", true, 4, addresses(&|i| 132 * i)),
        ("global row, 4 bytes", false, 4, addresses(&|i| base + 4 * i)),
        ("global row, 16 bytes", false, 16, addresses(&|i| base + 512 + 16 * i)),
        ("global broadcast", false, 4, addresses(&|_| base + 4096)),
        ("global column", false, 4, addresses(&|i| base + 8192 + 1024 * i)),
        ("global rows of 64 bytes", false, 4, addresses(&|i| base + 65536 + 4096 * (i / 16) + 4 * (i % 16))),
        ("global row, 2 bytes", false, 2, addresses(&|i| base + (1 << 20) + 2 * i)),
    ];
    for (name, shared, bytes, addresses) in cases {
        let mut cost = [0.0; 3];
        for (kind, cost) in [Kind::Read, Kind::Write].into_iter().zip(&mut cost) {
            *cost = f64::MAX;
            for _ in 0..200 {
                b.barrier();
                let warps = if kind == Kind::Read { 8 } else { 1 };
                let start = std::time::Instant::now();
                for _ in 0..16 / warps {
                    for warp in 0..warps {
                        let a = Access {
                            warp,
                            mask: ALL,
                            op: 1,
                            addresses: &addresses,
                            bytes,
                            kind,
                            strong: false,
                            scope: Scope::Cta,
                        };
                        let found = if shared { b.0.shared(&a, &mut |_| true) } else { b.0.global(&a, &mut |_| true) };
                        assert_eq!(found, None);
                    }
                }
                *cost = cost.min(start.elapsed().as_nanos() as f64 / 16.0);
            }
        }
        println!("{name:32} read {:6.1} ns, write {:6.1} ns", cost[0], cost[1]);
    }
}

#[test]
fn many_blocks_count_themselves_quickly() {
    // The counter of threadFenceReduction with a large grid: linear in the number of blocks.
    let launch = LaunchCheck::new(256);
    let (partial, counter) = (1 << 52, 1 << 51);
    let mut b = Block(launch.block(0, 0));
    for k in 0..20_000 {
        b.0.reset(k);
        assert_eq!(b.store(0, 1, |_| partial + 4 * k as u64), None);
        b.fence(0, 1, Fenced::Device);
        assert_eq!(b.atomic(0, 1, |_| counter), None);
        b.barrier();
    }
    for k in 0..20_000 / 32 {
        assert_eq!(b.load(7, ALL, |i| partial + 128 * k + 4 * i), None);
    }
}

#[test]
fn a_reduction_by_shuffles_wants_its_one_barrier() {
    // Each warp reduces in registers, which is nothing to check; its lane 0 leaves the sum, and warp 0 reads all.
    for with in [false, true] {
        block(8, |b| {
            assert_eq!((0..8).find_map(|w| b.write(w, 1, |_| 4 * w as u64)), None);
            if with {
                b.barrier();
            }
            assert_eq!(b.read(0, 0xff, |i| 4 * i).is_none(), with);
            assert_eq!(b.store(0, 1, |_| 1 << 52), None);
        });
    }
}
