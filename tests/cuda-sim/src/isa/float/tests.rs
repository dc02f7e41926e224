//! Forms against references, through the register file.

use super::operation::Modifiers;
use crate::isa;
use crate::lanes::{Form, Lane, Role, Unit, Unsupported};
use crate::num::format::{F32, F64, Format};
use crate::num::native::{NAN32, NAN64};
use crate::num::reference::{self, Patterns, finite};
use crate::num::{Round, exact};
use crate::ptx::ast::{Instruction, Location, Operand, Type};

/// An instruction whose operands are registers `%0`, `%1`, ...
pub(crate) fn instruction(form: &str, operands: usize) -> Instruction {
    let mut words = form.split('.').map(String::from);
    Instruction {
        guard: None,
        opcode: words.next().unwrap(),
        modifiers: words.collect(),
        operands: (0..operands).map(|n| Operand::Name(format!("%{n}"))).collect(),
        line: 1,
        location: Location::default(),
    }
}

/// The form of an instruction between registers of the types.
pub(crate) fn form(text: &str, registers: &[Type]) -> Result<Option<Form>, Unsupported> {
    let register = |name: &str| name.strip_prefix('%').and_then(|n| registers.get(n.parse::<usize>().ok()?)).copied();
    isa::form(&instruction(text, registers.len()), &register)
}

/// Runs an instruction over all 32 lanes and over some, also with its result in the place of an operand, and returns the
/// lanes of its result as they lie in the register.
pub(crate) fn run(text: &str, registers: &[Type], inputs: &[[u64; 32]]) -> [u64; 32] {
    let form = form(text, registers).unwrap_or_else(|e| panic!("{e}")).unwrap_or_else(|| panic!("no family has {text}"));
    assert_eq!(form.slots.len(), registers.len(), "{text}");
    assert!(form.slots[0].role == Role::Out && form.slots[1..].iter().all(|s| s.role == Role::In));
    let place = |file: &mut [Unit], slot: usize, wide: bool, lanes: &[u64; 32]| unsafe {
        if wide {
            u64::write(file.as_mut_ptr(), slot as u16, lanes, u32::MAX)
        } else {
            u32::write(file.as_mut_ptr(), slot as u16, &lanes.map(|x| x as u32), u32::MAX)
        }
    };
    let take = |file: &[Unit], slot: usize, wide: bool| unsafe {
        if wide {
            u64::read(file.as_ptr(), slot as u16)
        } else {
            u32::read(file.as_ptr(), slot as u16).map(u64::from)
        }
    };
    let wide: Vec<bool> = form.slots.iter().map(|s| s.ty.bits() == 64).collect();
    let before = [0x5a5a_5a5a_a5a5_a5a5; 32];
    let execute = |out: usize, mask: u32| {
        let mut file = vec![Unit([0; 32]); 2 * registers.len()];
        place(&mut file, 0, wide[0], &before);
        for (n, lanes) in inputs.iter().enumerate() {
            place(&mut file, 2 * (n + 1), wide[n + 1], lanes);
        }
        let mut operands: Vec<u16> = (0..registers.len() as u16).map(|n| 2 * n).collect();
        operands[0] = 2 * out as u16;
        let was = take(&file, 2 * out, wide[0]);
        unsafe { (form.run)(file.as_mut_ptr(), &operands, mask) };
        (was, take(&file, 2 * out, wide[0]))
    };
    let (_, all) = execute(0, u32::MAX);
    if form.slots[0].ty == Type::Pred {
        return all;
    }
    for mask in [0, 1, 0x8000_0000, 0xffff_0000, 0x1234_5678] {
        for out in (0..registers.len()).filter(|&out| wide[out] == wide[0]) {
            let (was, some) = execute(out, mask);
            for l in 0..32 {
                let expected = if mask >> l & 1 != 0 { all[l] } else { was[l] };
                assert_eq!(some[l], expected, "{text}, lane {l} of {mask:#x}, result in operand {out}");
            }
        }
    }
    all
}

/// That the instruction is known to no one, and why.
pub(crate) fn refused(text: &str, operands: usize) {
    match form(text, &[Type::B32; 4][..operands]) {
        Err(Unsupported(what)) => assert_eq!(what, text),
        Ok(other) => panic!("{text} became {other:?}"),
    }
}

#[test]
fn bench() {
    for (text, n) in [("fma.rn.f32", 4), ("add.f32", 3), ("mul.f32", 3), ("max.f32", 3), ("fma.rn.ftz.f32", 4), ("ex2.approx.ftz.f32", 2), ("ex2.approx.f32", 2), ("lg2.approx.f32", 2), ("tanh.approx.f32", 2), ("rcp.approx.f32",2), ("rsqrt.approx.f32",2),("sin.approx.f32", 2), ("div.rn.f32", 3), ("add.rz.f32", 3), ("fma.rn.f64", 4), ("fma.rn.f16x2", 4), ("fma.rn.bf16x2", 4), ("add.f16x2", 3), ("cvt.rn.f16.f32", 2), ("cvt.rn.f16x2.f32", 3),("cvt.rn.bf16x2.f32", 3), ("cvt.f32.f16", 2), ("cvt.rna.tf32.f32", 2), ("cvt.rn.satfinite.e4m3x2.f32", 3), ("cvt.rzi.s32.f32", 2), ("cvt.rn.f32.s32", 2), ("cvt.s64.s32", 2), ("cvt.u16.u32", 2)] {
        let ty = if text.contains("64") { Type::B64 } else { Type::B32 };
        let f = form(text, &[ty; 4][..n]).unwrap().unwrap();
        let mut file = vec![Unit([0x3f80_1234; 32]); 64];
        let sets: Vec<[u16; 4]> = (0..8).map(|k| [k * 2, 16 + k * 2, 32 + k * 2, 48 + k * 2]).collect();
        for mask in [u32::MAX, 0xffff] {
            let t = std::time::Instant::now();
            let count = 200_000;
            for k in 0..count {
                unsafe { (f.run)(file.as_mut_ptr(), &sets[k & 7][..n], mask) };
            }
            print!("{text} {mask:x}: {:.1} ns   ", t.elapsed().as_nanos() as f64 / count as f64);
        }
        println!();
    }
}
