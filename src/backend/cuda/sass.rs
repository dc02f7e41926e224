//! What a kernel's innermost loop is made of: machine code as NVIDIA's `nvdisasm` prints it, if that is there.

use super::compile::Compiled;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

/// The loop of a kernel that multiplies most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MainLoop {
    /// Instructions by opcode, without modifiers: FFMA, LDS; but those of tensor cores in tf32 are HMMA.TF32.
    pub mix: BTreeMap<String, usize>,
}

impl MainLoop {
    /// All instructions.
    pub fn instructions(&self) -> usize {
        self.mix.values().sum()
    }

    /// How many of these opcodes.
    pub fn count(&self, opcodes: &[&str]) -> usize {
        opcodes.iter().filter_map(|o| self.mix.get(*o)).sum()
    }
}

/// What multiplies: fused multiply-adds in f32 and f64, tensor cores.
const MULTIPLY: [&str; 5] = ["FFMA", "FFMA2", "DFMA", "HMMA", TF32];
/// Tensor cores in tf32, whose peak is another.
const TF32: &str = "HMMA.TF32";

/// The main loop of each kernel that has a loop; `None` where `nvdisasm` is not in the PATH or does not read the code.
pub fn main_loops(compiled: &Compiled) -> Option<BTreeMap<String, MainLoop>> {
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(compiled.cubin.as_deref()?).ok()?;
    let output = Command::new("nvdisasm").arg("--print-code").arg(file.path()).output().ok()?;
    output.status.success().then(|| parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(text: &str) -> BTreeMap<String, MainLoop> {
    let mut loops = BTreeMap::new();
    for section in text.split("\n.text.").skip(1) {
        let (name, code) = section.split_once(':').unwrap_or_default();
        if let Some(found) = main_loop(code.split("\n//---").next().unwrap_or_default()) {
            loops.insert(name.to_string(), found);
        }
    }
    loops
}

/// Of the loops, which a branch back to a label makes, the one with the most multiplications, the shortest of several: a loop
/// around it has what it has and more, and so counts without those that it holds.
fn main_loop(code: &str) -> Option<MainLoop> {
    let mut opcodes: Vec<&str> = Vec::new();
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for line in code.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label, opcodes.len());
            continue;
        }
        let Some((_, instruction)) = line.split_once("*/").filter(|_| line.starts_with("/*")) else { continue };
        let instruction = instruction.trim();
        // behind a predicate
        let instruction =
            instruction.strip_prefix('@').map_or(instruction, |i| i.split_once(' ').map_or("", |i| i.1).trim());
        let Some(opcode) = instruction.split([' ', '.', ';']).next().filter(|o| !o.is_empty()) else { continue };
        let operation = instruction.split([' ', ';']).next().unwrap_or_default();
        opcodes.push(if opcode == "HMMA" && operation.ends_with(".TF32") { TF32 } else { opcode });
        let target = instruction.split_once("`(").and_then(|(_, label)| Some(label.split_once(')')?.0));
        if let (true, Some(&first)) = (opcode == "BRA", target.and_then(|t| labels.get(t))) {
            spans.push((first, opcodes.len()));
        }
    }
    let multiplications = |&(first, end): &(usize, usize)| {
        let inside = |at: &usize| {
            spans.iter().any(|&(f, e)| (f, e) != (first, end) && first <= f && e <= end && (f..e).contains(at))
        };
        (first..end).filter(|at| MULTIPLY.contains(&opcodes[*at]) && !inside(at)).count()
    };
    let best = spans.iter().max_by_key(|s| (multiplications(s), std::cmp::Reverse(s.1 - s.0)))?;
    let mut found = MainLoop::default();
    for opcode in &opcodes[best.0..best.1] {
        *found.mix.entry(opcode.to_string()).or_default() += 1;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_that_multiplies_most_is_found_and_counted_without_what_is_around_it() {
        let text = "\
\t.target\tsm_80
//--------------------- .text.gemm --------------------------
gemm:
.text.gemm:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   FFMA R1, R1, R2, R3 ;
.L_x_2:
        /*0020*/                   LDS.128 R4, [R1] ;
        /*0030*/              @!P0 FFMA R1, R1, R2, R3 ;
        /*0040*/                   FFMA.FTZ R1, R1, R2, R3 ;
        /*0048*/                   HMMA.1688.F32.TF32 R4, R8, R12, R4 ;
        /*004c*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0050*/               @P0 BRA `(.L_x_2) ;
        /*0060*/               @P1 BRA `(.L_x_3) ;
        /*0070*/                   BRA `(.L_x_1) ;
.L_x_3:
        /*0080*/                   EXIT ;
//--------------------- .text.flat --------------------------
.text.flat:
        /*0000*/                   EXIT ;
";
        let loops = parse(text);
        assert_eq!(loops.keys().collect::<Vec<_>>(), ["gemm"]);
        let mix = &loops["gemm"];
        assert_eq!((mix.instructions(), mix.count(&["FFMA"]), mix.count(&["LDS", "BRA"])), (6, 2, 2));
        assert_eq!((mix.count(&["HMMA"]), mix.count(&["HMMA.TF32"])), (1, 1));
    }
}
