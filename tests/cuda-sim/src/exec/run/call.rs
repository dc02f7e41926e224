//! What a call carries: arguments into the callee's frame, results back into the caller's.

use super::*;

/// Copies a call's arguments into the callee's frame.
pub(super) fn arguments(kernel: &Kernel, warp: &mut Warp, caller: u32, callee: u32, call: &Call, lanes: u32) {
    let from = Side::new(kernel, warp, caller, call.operands);
    let function = &kernel.functions[warp.frames[callee as usize].function as usize];
    let to = Side::new(kernel, warp, callee, function.own);
    for (a, p) in call.arguments.iter().zip(&function.parameters) {
        carry(kernel, warp, &from, a, &to, p, lanes);
    }
}

/// Copies a function's results into the caller's frame.
pub(super) fn results(kernel: &Kernel, warp: &mut Warp, callee: u32, caller: u32, call: u32, lanes: u32) {
    let function = &kernel.functions[warp.frames[callee as usize].function as usize];
    let caller_code = &kernel.functions[warp.frames[caller as usize].function as usize];
    let Action::Call(call) = &caller_code.code[call as usize].action else { return };
    let from = Side::new(kernel, warp, callee, function.own);
    let to = Side::new(kernel, warp, caller, call.operands);
    for (r, p) in function.returns.iter().zip(&call.returns) {
        carry(kernel, warp, &from, r, &to, p, lanes);
    }
}

/// A frame, as one end of a call.
struct Side {
    function: u32,
    base: usize,
    memory: u32,
    operands: Operands,
}

impl Side {
    fn new(_kernel: &Kernel, warp: &Warp, frame: u32, operands: Operands) -> Side {
        let f = &warp.frames[frame as usize];
        Side { function: f.function, base: f.base, memory: f.memory, operands }
    }

    fn slot(&self, kernel: &Kernel, operand: u32) -> usize {
        let pool = &kernel.functions[self.function as usize].pool;
        self.base + self.operands.of(pool)[operand as usize] as usize
    }
}

fn carry(kernel: &Kernel, warp: &mut Warp, from: &Side, a: &Place, to: &Side, b: &Place, lanes: u32) {
    let at = |offset: u32, lane: usize| (offset as usize / 4 * 32 + lane) * 4 + offset as usize % 4;
    // through a buffer of bytes, since either end may be memory or a register
    let bytes = match (a, b) {
        (Place::Memory { bytes: a, .. }, Place::Memory { bytes: b, .. }) => *a.min(b) as usize,
        (Place::Memory { bytes, .. }, _) | (_, Place::Memory { bytes, .. }) => *bytes as usize,
        (Place::Register { units: a, .. }, Place::Register { units: b, .. }) => 4 * *a.min(b) as usize,
    };
    let word = |side: &Side, operand: u32, units: u16, lane: usize, i: usize| {
        let place = side.slot(kernel, operand);
        // 32 bits: a word a lane; 64 bits: two words a lane over two units; 128 bits: four over four
        if units == 1 {
            (place, lane, i)
        } else {
            let w = units as usize * lane + i;
            (place + w / 32, w % 32, 0)
        }
    };
    for lane in (0..32).filter(|l| lanes >> l & 1 != 0) {
        let mut buffer = vec![0u8; bytes.next_multiple_of(4)];
        match *a {
            Place::Memory { offset, .. } => {
                for (i, byte) in buffer[..bytes].iter_mut().enumerate() {
                    *byte = warp.local[at(from.memory + offset + i as u32, lane)];
                }
            }
            Place::Register { operand, units } => {
                for (i, chunk) in buffer.chunks_exact_mut(4).enumerate().take(units as usize) {
                    let (unit, w, _) = word(from, operand, units, lane, i);
                    chunk.copy_from_slice(&warp.file[unit].0[w].to_le_bytes());
                }
            }
        }
        match *b {
            Place::Memory { offset, .. } => {
                for (i, byte) in buffer[..bytes].iter().enumerate() {
                    warp.local[at(to.memory + offset + i as u32, lane)] = *byte;
                }
            }
            Place::Register { operand, units } => {
                for (i, chunk) in buffer.chunks_exact(4).enumerate().take(units as usize) {
                    let (unit, w, _) = word(to, operand, units, lane, i);
                    warp.file[unit].0[w] = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                }
            }
        }
    }
}
