//! PTX that NVRTC and Triton wrote, and what is left of it after a few mutations.

#[path = "common/cases.rs"]
mod cases;

use cuda::exec::{Launch, Options, launch};
use cuda::memory::{Memory, Purpose};
use cuda::program::{Entry, Program};
use cuda::ptx::ast::{Instruction, Operand, Statement};
use cuda::ptx::{parse, parse_bytes};
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};

macro_rules! corpus {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("ptx/", $name)))),*] };
}

const CORPUS: [(&str, &str); 12] = corpus!(
    "features.nvrtc-12.9.sm_75.ptx"
    "features.nvrtc-12.9.sm_80.ptx"
    "features.nvrtc-12.9.sm_80.debug.ptx"
    "features.nvrtc-12.9.sm_90.ptx"
    "features.nvrtc-13.5.sm_75.ptx"
    "features.nvrtc-13.5.sm_80.ptx"
    "features.nvrtc-13.5.sm_80.debug.ptx"
    "features.nvrtc-13.5.sm_90.ptx"
    "matmul.triton-3.9.sm_90.ptx"
    "scale.lineinfo.ptx"
    "scale.sm_75.ptx"
    "softmax.triton-3.9.sm_80.ptx"
);

/// Another reading of the text, by lines and semicolons: the name of each function that has a body, with its instructions
/// (opcode and modifiers) in order.
fn counted(text: &str) -> Vec<(String, Vec<String>)> {
    let text: String = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let text = text.split("\t.section").next().unwrap();
    let mut functions = Vec::new();
    for chunk in text.split(".entry ").flat_map(|chunk| chunk.split(".func ")).skip(1) {
        let Some((header, rest)) = chunk.split_once('{') else { continue };
        if header.contains(';') {
            continue;
        }
        let depth_ends = |depth: &mut i32, c: char| {
            *depth += i32::from(c == '{') - i32::from(c == '}');
            *depth < 0
        };
        let mut depth = 0;
        let end = rest.find(|c| depth_ends(&mut depth, c)).unwrap();
        let header = header.trim_start();
        let header = if header.starts_with('(') { header.split_once(')').unwrap().1 } else { header };
        let name = header.split('(').next().unwrap().trim().to_owned();
        let mut opcodes = Vec::new();
        for statement in rest[..end].split(';') {
            let lines = statement.lines().filter(|line| !line.trim_start().starts_with(".loc"));
            let words = lines.flat_map(str::split_whitespace);
            let mut words =
                words.skip_while(|word| ["{", "}"].contains(word) || word.ends_with(':') || word.starts_with('@'));
            match words.next() {
                Some(word) if !word.starts_with('.') && words.next() != Some(":") => opcodes.push(word.to_owned()),
                _ => {}
            }
        }
        functions.push((name, opcodes));
    }
    functions
}

#[test]
fn every_instruction_is_there() {
    let mut total = 0;
    for (file, text) in CORPUS {
        let module = parse(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let opcode = |statement: &Statement| match statement {
            Statement::Instruction(instruction) => Some(instruction.form()),
            Statement::Label(_) => None,
        };
        let parsed = module.functions.iter().filter_map(|function| {
            let body = function.body.as_ref()?;
            Some((function.name.clone(), body.statements.iter().filter_map(opcode).collect::<Vec<_>>()))
        });
        let (parsed, counted) = (parsed.collect::<Vec<_>>(), counted(text));
        assert_eq!(parsed, counted, "{file}");
        total += counted.iter().map(|(_, opcodes)| opcodes.len()).sum::<usize>();
    }
    assert!(total > 3000, "{total}");
}

fn names<'a>(operand: &'a Operand, found: &mut Vec<&'a str>) {
    match operand {
        Operand::Name(name) | Operand::Offset(name, _) => found.push(name),
        Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {}
        Operand::Memory { base, .. } | Operand::Not(base) | Operand::Minus(base) => names(base, found),
        Operand::Vector(parts) | Operand::Tuple(parts) => parts.iter().for_each(|part| names(part, found)),
        Operand::Pair(first, second) => [first, second].into_iter().for_each(|part| names(part, found)),
    }
}

/// Every name that an instruction uses is declared, exactly once, after all renaming.
#[test]
fn every_name_is_declared_once() {
    for (file, text) in CORPUS {
        let module = parse(text).unwrap();
        let mut global: HashSet<&str> = module.variables.iter().map(|v| v.name.as_str()).collect();
        global.extend(module.functions.iter().map(|f| f.name.as_str()));
        for function in &module.functions {
            let Some(body) = &function.body else { continue };
            let mut local = HashSet::new();
            let mut declare = |name: &str| assert!(local.insert(name.to_owned()), "{file}: {name} twice");
            function.params.iter().chain(&function.returns).for_each(|p| declare(&p.name));
            body.registers.iter().for_each(|(name, _)| declare(name));
            body.variables.iter().for_each(|v| declare(&v.name));
            body.branch_targets.iter().for_each(|(name, _)| declare(name));
            body.call_prototypes.iter().for_each(|(name, _)| declare(name));
            let mut used: Vec<&str> = Vec::new();
            for statement in &body.statements {
                match statement {
                    Statement::Label(label) => declare(label),
                    Statement::Instruction(Instruction { guard, operands, .. }) => {
                        used.extend(guard.iter().map(|(name, _)| name.as_str()));
                        operands.iter().for_each(|operand| names(operand, &mut used));
                    }
                }
            }
            for name in used {
                let special =
                    ["%tid.", "%ctaid.", "%ntid.", "%nctaid.", "%cluster"].iter().any(|s| name.starts_with(s));
                assert!(special || name == "_" || local.contains(name) || global.contains(name), "{file}: {name}");
            }
        }
    }
}

#[test]
fn places_in_the_source() {
    let module = parse(CORPUS[9].1).unwrap();
    assert_eq!(module.files, [(1, "/scale.cu".to_owned())]);
    let body = module.functions[0].body.as_ref().unwrap();
    for statement in &body.statements {
        let Statement::Instruction(instruction) = statement else { continue };
        assert_eq!((instruction.location.file, instruction.location.line), (1, 1));
        let line = CORPUS[9].1.lines().nth(instruction.line as usize - 1).unwrap();
        assert!(line.contains(&instruction.form()), "{line}");
    }
}

#[test]
fn module_of_real_code() {
    let module = parse(CORPUS[5].1).unwrap();
    assert_eq!((module.version, module.target), ((9, 5), 80));
    let variable = |name: &str| module.variables.iter().find(|v| v.name == name).unwrap();
    assert_eq!(variable("table").init.len(), 21);
    assert_eq!(variable("table").count, 24);
    assert!(variable("dynamic").external);
    let kernel = module.functions.iter().find(|f| f.name == "branches").unwrap();
    assert_eq!((kernel.max_threads, kernel.min_blocks), (Some([128, 1, 1]), Some(2)));
    let body = kernel.body.as_ref().unwrap();
    assert_eq!(body.call_prototypes.len(), 1);
    // Each call has its own `param0`, each inline assembly its own `L`.
    assert!(["param0", "param0@2", "param0@3"].iter().all(|name| body.variables.iter().any(|v| v.name == *name)));
    assert!(
        ["L", "L@2"].iter().all(|name| body.statements.iter().any(|s| matches!(s, Statement::Label(l) if l == name)))
    );
}

/// One change to a text.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(usize, u8),
    Delete(usize, usize),
    Repeat(usize, usize, usize),
    Truncate(usize),
    Swap(usize, usize),
    Insert(usize, &'static str),
}

/// Text that has a meaning somewhere.
const PIECES: [&str; 24] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ":",
    ",",
    "@!",
    "\"",
    "/*",
    "*/",
    "//",
    "<4000000000>",
    "= {{1},{2}}",
    "[99999999]",
    ".reg .b32 %r<99>;",
    ".loc 1",
    ".section x {",
    "\0",
    "\u{e9}",
    "0x",
    ".v4",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>().prop_map(|i| i.index(1 << 16));
    let at = move || at.clone();
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, b)| Mutation::Flip(i, b)),
        (at(), 1..200_usize).prop_map(|(i, n)| Mutation::Delete(i, n)),
        (at(), 1..400_usize, 1..60_usize).prop_map(|(i, n, times)| Mutation::Repeat(i, n, times)),
        at().prop_map(Mutation::Truncate),
        (at(), at()).prop_map(|(i, j)| Mutation::Swap(i, j)),
        (at(), prop::sample::select(&PIECES[..])).prop_map(|(i, piece)| Mutation::Insert(i, piece)),
    ]
}

fn mutate(text: &mut Vec<u8>, mutation: &Mutation) {
    let length = text.len().max(1);
    // The word at an offset.
    let word = |text: &[u8], at: usize| {
        let part = |b: &u8| b.is_ascii_alphanumeric() || b"_%$.".contains(b);
        let start = at - text[..at].iter().rev().take_while(|b| part(b)).count();
        let end = at + text[at..].iter().take_while(|b| part(b)).count();
        start..end
    };
    match *mutation {
        _ if text.is_empty() => {}
        Mutation::Flip(at, byte) => text[at % length] ^= byte,
        Mutation::Delete(at, count) => {
            let at = at % length;
            text.drain(at..(at + count).min(length));
        }
        Mutation::Repeat(at, count, times) => {
            let at = at % length;
            let part = text[at..(at + count).min(length)].repeat(times);
            text.splice(at..at, part);
        }
        Mutation::Truncate(at) => text.truncate(at % length),
        Mutation::Swap(first, second) => {
            let (first, second) = (word(text, first % length), word(text, second % length));
            let (first, second) = if first.start <= second.start { (first, second) } else { (second, first) };
            if first.end <= second.start {
                let (a, b) = (text[first.clone()].to_vec(), text[second.clone()].to_vec());
                text.splice(second, a);
                text.splice(first, b);
            }
        }
        Mutation::Insert(at, piece) => {
            let at = at % length;
            text.splice(at..at, piece.bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases::cases(1500), failure_persistence: None, ..ProptestConfig::default() })]

    /// No text makes the parser panic, and none takes long.
    #[test]
    fn damaged_text(file in 0..CORPUS.len(), mutations in prop::collection::vec(mutation(), 1..8)) {
        let mut text = CORPUS[file].1.as_bytes().to_vec();
        mutations.iter().for_each(|m| mutate(&mut text, m));
        let start = Instant::now();
        let result = parse_bytes(&text);
        prop_assert!(start.elapsed() < Duration::from_secs(10), "{} bytes took {:?}", text.len(), start.elapsed());
        if let Err(error) = result {
            let lines = text.iter().filter(|b| **b == b'\n').count() as u32 + 1;
            prop_assert!((1..=lines).contains(&error.line), "{error} of {lines} lines");
        }
    }

    /// Any order of tokens.
    #[test]
    fn token_soup(tokens in prop::collection::vec(prop::sample::select(&[
        ".entry", ".func", ".reg", ".b32", ".pred", ".v4", ".f32", ".global", ".shared", ".param", ".extern", ".align", ".loc",
        ".branchtargets", ".callprototype", ".maxntid", ".alias", ".file", "a", "b", "%r", "_", "WARP_SZ", "generic", "call",
        "ld", "0", "1", "16", "0f3F800000", "1.5", "\"s\"", "{", "}", "(", ")", "[", "]", "<", ">", ";", ";", ",", ":", "=", "+",
        "-", "!", "~", "?", "@", "|", "%", "/", "<<",
    ][..]), 0..60)) {
        let text = tokens.join(" ");
        for text in [format!(".version 8.0 .target sm_80 {text}"), format!(".version 8.0 .target sm_80 .entry k() {{ {text} }}")] {
            if let Err(error) = parse(&text) {
                prop_assert_eq!(error.line, 1);
            }
        }
    }

    /// What is still a program is executed, with arguments that make no sense to it either.
    #[test]
    fn damaged_text_is_executed(
        file in 0..CORPUS.len(),
        mutations in prop::collection::vec(mutation(), 1..4),
        picks in prop::collection::vec(any::<(u8, u64)>(), 16),
        [grid, block] in any::<[u8; 2]>(),
        (strict, threads, cooperative) in (any::<bool>(), 1..3_usize, any::<bool>()),
    ) {
        let mut text = CORPUS[file].1.as_bytes().to_vec();
        mutations.iter().for_each(|m| mutate(&mut text, m));
        let Ok(module) = parse_bytes(&text) else { return Ok(()) };
        let memory = Memory::new(strict);
        let start = Instant::now();
        let Ok(program) = Program::load(&module, 90, 0, &memory) else { return Ok(()) };
        let own = memory.allocate(0, 8192, Purpose::Device, "").expect("memory");
        memory.fill(own, &[0, 0, 128, 63], 1024).expect("in bounds");
        let gone = memory.allocate(0, 512, Purpose::Device, "").expect("memory");
        memory.free(gone).expect("an allocation");
        let shapes = [[1, 1, 1], [32, 1, 1], [33, 1, 1], [8, 8, 2], [100, 1, 1]];
        let grid = [[1, 1, 1], [2, 1, 1], [2, 2, 2], [1, 5, 1]][grid as usize % 4];
        // The driver refuses what is larger than a device.
        let fits = |entry: &&Entry| entry.static_shared < 200 << 10;
        for (index, entry) in program.entries.iter().enumerate().filter(|(_, e)| fits(e)) {
            let block = entry.required_threads.unwrap_or(shapes[block as usize % shapes.len()]);
            if block.iter().map(|&n| n as u64).product::<u64>() > 1024 {
                continue;
            }
            let words = picks.iter().cycle().map(|&(which, number)| match which % 8 {
                0 => number,
                1 => number % 300,
                2 => own + number % 9000,
                3 => gone,
                4 => (number % 4) << 32,
                _ => own,
            });
            let mut params: Vec<u8> = words.take(entry.param_bytes.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
            params.truncate(entry.param_bytes);
            let outcome = launch(&Launch {
                program: &program,
                entry: index,
                grid,
                block,
                dynamic_shared: [0, 16, 4096][picks[0].0 as usize % 3],
                params: &params,
                cooperative,
                memory: &memory,
                device: 0,
                peers: 1,
                options: Options { strict, threads, budget: 2000, multiprocessors: 4, sm: 90 },
            });
            // It can be told.
            let _ = outcome.finding.map(|finding| finding.to_string());
        }
        prop_assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes(&bytes);
        let _ = parse_bytes(&[b".version 8.0 .target sm_80 ", &bytes[..]].concat());
    }
}
