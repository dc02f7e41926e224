//! Atomics and reductions: read, combine and write as one, on whatever memory the address is in.

use super::*;

impl Machine<'_> {
    pub(in crate::exec) fn atomic(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        frame: u32,
        atomic: &Atomic,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<()> {
        let operands = atomic.operands.of(pool);
        let (base, rest) = split(atomic.address.base, operands);
        let (result, inputs) = if atomic.result { (Some(rest[0]), &rest[1..]) } else { (None, rest) };
        let units = atomic.ty.bits().div_ceil(32) as u8;
        // SAFETY: the registers have that many units.
        let b = unsafe { read_lanes(file, inputs[0], units) };
        let c = inputs.get(1).map_or([0; 32], |&slot| unsafe { read_lanes(file, slot, units) });
        let memory = warp.frames[frame as usize].memory;
        let all = addresses(&atomic.address, base, file, memory, lanes);
        let bytes = atomic.ty.bytes() as u32;
        if self.strict && atomic.order.release {
            block.check_fence(warp.index, lanes, atomic.order.scope);
        }
        let mut old = [0u64; 32];
        let (spaces, count) = Self::spaces(&atomic.address, &all, lanes);
        for &(space, mask) in &spaces[..count] {
            let mut here = all;
            if count > 1 {
                fill(&mut here, mask);
            }
            match space {
                Space::Shared => {
                    if atomic.address.space == Space::Generic {
                        here.iter_mut().for_each(|a| *a -= SHARED_WINDOW);
                    }
                    self.shared(block, warp, &here, bytes, mask, Doing::Atomic, atomic.order, at, &mut |_| false)?;
                    for l in each(mask) {
                        // SAFETY: bounds and alignment were checked by `shared`.
                        old[l] =
                            unsafe { exchange(block.shared.as_mut_ptr().add(here[l] as usize), atomic, b[l], c[l]) };
                    }
                }
                Space::Global | Space::Generic => {
                    let pieces = &mut |_: &mut Self, _: &mut Block, _: &mut Warp, piece: &Piece| {
                        for l in each(piece.lanes) {
                            // SAFETY: bounds and alignment were checked by `global`.
                            old[l] = unsafe { exchange(piece.data.add(piece.offsets[l] as usize), atomic, b[l], c[l]) };
                        }
                        Ok(())
                    };
                    self.global(
                        block,
                        warp,
                        &here,
                        bytes,
                        mask,
                        Doing::Atomic,
                        atomic.order,
                        at,
                        &mut |_, _| false,
                        pieces,
                    )?;
                }
                Space::Local => {
                    self.local(block, warp, &mut here, bytes, mask, Doing::Atomic, true, at)?;
                    for l in each(mask) {
                        old[l] = read_local(&warp.local, here[l] as usize, l, bytes as usize);
                        let new = combine(atomic, old[l], b[l], c[l]);
                        write_local(&mut warp.local, here[l] as usize, l, bytes as usize, new);
                    }
                }
                Space::Param => {
                    let message = format!("atomic of {bytes} bytes on the kernel's parameters");
                    return Err(self.finding(Kind::ReadOnly, message, block, warp, at, mask));
                }
            }
        }
        if let Some(slot) = result {
            // SAFETY: the register has that many units.
            unsafe { write_lanes(file, slot, units, lanes, |l| old[l]) };
        }
        Ok(())
    }
}

fn add_half<F: num::format::Format>(a: u64, b: u64) -> u64 {
    num::exact::add::<F>(a, b, num::Round::Nearest)
}

/// What an atomic leaves.
fn combine(atomic: &Atomic, old: u64, b: u64, c: u64) -> u64 {
    use Type::{Bf16x2, F16x2, F32, F64, S32, S64, U64};
    let (o32, b32) = (old as u32, b as u32);
    match (atomic.combine, atomic.ty) {
        (Combine::Add, F32) => num::native::canonical(f32::from_bits(o32) + f32::from_bits(b32)).to_bits() as u64,
        (Combine::Add, F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (Combine::Add, Type::F16) => add_half::<F16>(old, b),
        (Combine::Add, Type::Bf16) => add_half::<Bf16>(old, b),
        (Combine::Add, F16x2 | Bf16x2) => {
            let add = if atomic.ty == Type::F16x2 { add_half::<F16> } else { add_half::<Bf16> };
            add(old & 0xffff, b & 0xffff) | add(old >> 16, b >> 16) << 16
        }
        (Combine::Add, U64 | S64) => old.wrapping_add(b),
        (Combine::Add, _) => o32.wrapping_add(b32) as u64,
        (Combine::Min, S32) => (o32 as i32).min(b32 as i32) as u32 as u64,
        (Combine::Max, S32) => (o32 as i32).max(b32 as i32) as u32 as u64,
        (Combine::Min, S64) => (old as i64).min(b as i64) as u64,
        (Combine::Max, S64) => (old as i64).max(b as i64) as u64,
        (Combine::Min, _) => old.min(b),
        (Combine::Max, _) => old.max(b),
        (Combine::And, _) => old & b,
        (Combine::Or, _) => old | b,
        (Combine::Xor, _) => old ^ b,
        // PTX ISA 9.7.13.4: inc wraps to zero at b, dec wraps to b at zero and above b
        (Combine::Inc, _) => {
            if o32 >= b32 {
                0
            } else {
                old + 1
            }
        }
        (Combine::Dec, _) => {
            if o32 == 0 || o32 > b32 {
                b
            } else {
                old - 1
            }
        }
        (Combine::Exchange, _) => b,
        (Combine::CompareAndSwap, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
    }
}

/// Performs an atomic on host memory, atomically: other blocks run at the same time. Returns the old value.
///
/// # Safety
/// The type's bytes lie at `place`, aligned.
unsafe fn exchange(place: *mut u8, atomic: &Atomic, b: u64, c: u64) -> u64 {
    macro_rules! update {
        ($atomic:ty, $int:ty) => {{
            // SAFETY: the caller's.
            let cell = unsafe { <$atomic>::from_ptr(place as *mut $int) };
            let new = |old: $int| Some(combine(atomic, old as u64, b, c) as $int);
            match cell.fetch_update(Relaxed, Relaxed, new) {
                Ok(old) | Err(old) => old as u64,
            }
        }};
    }
    match atomic.ty.bytes() {
        2 => update!(AtomicU16, u16),
        4 => update!(AtomicU32, u32),
        _ => update!(AtomicU64, u64),
    }
}
