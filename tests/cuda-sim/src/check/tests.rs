//! Each rule both ways: the race is found, and correct code raises no alarm.

use super::*;

const ALL: u32 = u32::MAX;

/// A block under check, with memory accesses written as a kernel's author would think of them.
struct Block<'a>(BlockCheck<'a>);

impl Block<'_> {
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
