//! Every syntactic form of PTX that the parser knows, and those that it refuses. Accepted here means accepted by `ptxas`
//! 13.5 unless the test says otherwise.

use cuda::ptx::ast::*;
use cuda::ptx::{SyntaxError, parse, parse_bytes};

const HEAD: &str = ".version 8.7\n.target sm_80\n.address_size 64\n";
/// Lines of a text before what `body` is given.
const BODY_LINE: u32 = 6;

fn module(text: &str) -> Module {
    parse(&format!("{HEAD}{text}")).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn refused(text: &str) -> SyntaxError {
    match parse(&format!("{HEAD}{text}")) {
        Err(error) => error,
        Ok(module) => panic!("accepted: {text}\n{module:#?}"),
    }
}

fn kernel(body: &str) -> String {
    format!(".visible .entry k(.param .u64 p)\n{{\n{body}\n}}\n")
}

fn body(text: &str) -> Body {
    module(&kernel(text)).functions.remove(0).body.unwrap()
}

fn instructions<'b>(body: &'b Body) -> Vec<&'b Instruction> {
    let instruction = |statement: &'b Statement| match statement {
        Statement::Instruction(instruction) => Some(instruction),
        Statement::Label(_) => None,
    };
    body.statements.iter().filter_map(instruction).collect()
}

fn labels<'b>(body: &'b Body) -> Vec<&'b str> {
    let label = |statement: &'b Statement| match statement {
        Statement::Label(label) => Some(label.as_str()),
        Statement::Instruction(_) => None,
    };
    body.statements.iter().filter_map(label).collect()
}

/// The operands of one instruction.
fn operands(text: &str) -> Vec<Operand> {
    let body = body(text);
    assert_eq!(instructions(&body).len(), 1, "{text}");
    instructions(&body)[0].operands.clone()
}

fn name(name: &str) -> Operand {
    Operand::Name(name.to_owned())
}

fn memory(base: Operand, offset: i64) -> Operand {
    Operand::Memory { base: Box::new(base), offset }
}

fn variable(text: &str) -> Variable {
    module(text).variables.pop().unwrap()
}

fn bits(variable: &Variable) -> Vec<u64> {
    let bits = |init: &Init| match init {
        Init::Bits(bits) => *bits,
        Init::Address { .. } => panic!("an address: {init:?}"),
    };
    variable.init.iter().map(bits).collect()
}

#[test]
fn module_directives() {
    let module = parse(
        "//\n.version 9.5\n.target sm_90a, debug\n.address_size 64\n.file 1 \"a.cu\", 1700000000, 4096\n.file\t2 \"b.h\"\n\
         .extern .func f(.param .b32 a);\n.weak .func g() { ret; }\n.alias f, g;\n.pragma \"nounroll\", \"x\";\n\
         .section .debug_str { $L__info: .b8 1, 2 { } .b64 $L__tmp0 .b32 .debug_abbrev }\n.section .debug_macinfo { }\n",
    )
    .unwrap();
    assert_eq!(module.version, (9, 5));
    assert_eq!(module.target, 90);
    assert_eq!(module.files, [(1, "a.cu".to_owned()), (2, "b.h".to_owned())]);
    assert_eq!(module.aliases, [("f".to_owned(), "g".to_owned())]);
    assert_eq!(module.functions.len(), 2);
}

#[test]
fn versions() {
    for (text, version) in [("8.0", (8, 0)), ("9.10", (9, 10)), ("1.4", (1, 4))] {
        assert_eq!(parse(&format!(".version {text}\n.target sm_80")).unwrap().version, version);
    }
}

#[test]
fn module_directives_refused() {
    for (text, line) in [
        ("", 1),
        (".target sm_80", 1),
        (".version 8", 1),
        (".version 8.0", 1),
        (".version 8.0.1\n.target sm_80", 1),
        (".version 8.99999999999", 1),
        (".version 8.0\n.target sm_x", 2),
        (".version 8.0\n.target sm_80aa", 2),
        (".version 8.0\n.target sm_80, map_f64_to_f32", 2),
        (".version 8.0\n.target sm_80\n.address_size 32", 3),
        (".version 8.0\n.target sm_80\n.section .x {\n", 4),
        (".version 8.0\n.target sm_80\n\n.bogus x;", 4),
        (".version 8.0\n.target sm_80\nret;", 3),
        (".version 8.0\n.target sm_80\n;", 3),
        (".version 8.0\n.target sm_80\n/* no\nend", 3),
        (".version 8.0\n.target sm_80\n.file 1 \"a\n\"", 3),
        (".version 8.0\n.target sm_80\n.global .u32 a = 1 # 2;", 3),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
    }
}

#[test]
fn comments_and_bytes() {
    let text =
        b".version 8.0 /* \xFF * / \n // */\n.target sm_80 // \xC3\x28\n@@DWARF .byte 1, 2\n.global .u32 a;\0garbage";
    let module = parse_bytes(text).unwrap();
    assert_eq!((module.variables[0].name.as_str(), module.variables[0].line), ("a", 5));
    let error = parse_bytes(b".version 8.0\n.target sm_80\n.global .u32 a\xFF;").unwrap_err();
    assert_eq!(error.line, 3);
    assert!(parse_bytes(b"").is_err());
    assert!(parse_bytes(b"\0.version 8.0").is_err());
}

#[test]
fn functions() {
    let module = module(
        ".func (.param .b32 r) f (.param .align 16 .b8 a[32], .param .u64 .ptr .shared .align 8 b);\n\
         .visible .func (.reg .b32 r, .reg .pred q) g (.reg .f64 x) .noreturn { ret; }\n\
         .func (.param .b32 r) f (.param .align 16 .b8 a[32], .param .u64 b) { ret; }\n\
         .func (.param .b32 r) f (.param .align 16 .b8 a[32], .param .u64 b);\n\
         .extern .func variadic (.param .b32 n, .param .align 8 .b8 rest[]);\n\
         .entry bare { ret; }\n\
         .visible .entry k(.param .u64 .ptr .global .align 4 p, .param .v4 .f32 v, .param .b8 s[3][5])\n\
         .maxntid 128, 2\n.minnctapersm 3 .maxnreg 64 .pragma \"x\"; { exit; }\n\
         .entry c() .explicitcluster .reqnctapercluster 2 .reqntid 32, 1, 1 { }\n",
    );
    let names: Vec<_> = module.functions.iter().map(|f| (f.name.as_str(), f.entry, f.body.is_some())).collect();
    let expected = [
        ("g", false, true),
        ("f", false, true),
        ("variadic", false, false),
        ("bare", true, true),
        ("k", true, true),
        ("c", true, true),
    ];
    assert_eq!(names, expected);
    let [g, f, variadic, bare, k, c] = &module.functions[..] else { unreachable!() };
    let parameter = |p: &Parameter| (p.name.clone(), p.space, p.ty, p.align, p.count);
    assert_eq!(
        g.returns.iter().map(parameter).collect::<Vec<_>>(),
        [("r".to_owned(), Space::Reg, Type::B32, 4, 1), ("q".to_owned(), Space::Reg, Type::Pred, 1, 1),]
    );
    assert_eq!(parameter(&g.params[0]), ("x".to_owned(), Space::Reg, Type::F64, 8, 1));
    assert_eq!(parameter(&f.params[0]), ("a".to_owned(), Space::Param, Type::B8, 16, 32));
    assert_eq!(parameter(&f.returns[0]), ("r".to_owned(), Space::Param, Type::B32, 4, 1));
    assert_eq!(parameter(&variadic.params[1]), ("rest".to_owned(), Space::Param, Type::B8, 8, 0));
    assert!(bare.params.is_empty());
    // The alignment behind `.ptr` is that of what is pointed to.
    assert_eq!(parameter(&k.params[0]), ("p".to_owned(), Space::Param, Type::U64, 8, 1));
    assert_eq!(parameter(&k.params[1]), ("v".to_owned(), Space::Param, Type::F32, 16, 4));
    assert_eq!(parameter(&k.params[2]), ("s".to_owned(), Space::Param, Type::B8, 1, 15));
    assert_eq!((k.max_threads, k.min_blocks, k.max_registers), (Some([128, 2, 1]), Some(3), Some(64)));
    assert_eq!((c.required_threads, c.required_cluster), (Some([32, 1, 1]), Some([2, 1, 1])));
    assert_eq!((k.line, f.line), (HEAD.lines().count() as u32 + 7, HEAD.lines().count() as u32 + 3));
}

#[test]
fn functions_refused() {
    for text in [
        ".entry k() { ret; } .entry k() { ret; }",
        ".global .u32 k; .entry k() { ret; }",
        ".entry k() { ret; } .global .u32 k;",
        ".entry k(.reg .u32 a) { ret; }",
        ".entry k(.param .u32 a, .param .u32 a) { ret; }",
        ".entry k(.param .pred a) { ret; }",
        ".entry k() .blocksareclusters { ret; }",
        ".entry k() .explicitcluster { ret; }",
        ".entry k() { ret; ",
        ".entry k() { ret }",
        ".entry k() { ret; ; }",
        ".entry k() { .maxntid 4; }",
        ".entry k() { 5; }",
        ".entry k() }",
    ] {
        refused(text);
    }
}

#[test]
fn variables() {
    let v = variable(".visible .global .align 8 .b8 a[3][5];");
    assert_eq!((v.space, v.ty, v.align, v.count, v.external, v.line), (Space::Global, Type::B8, 8, 15, false, 4));
    let v = variable(".align 32 .const .v4 .f32 a[2];");
    assert_eq!((v.space, v.ty, v.align, v.count), (Space::Const, Type::F32, 32, 8));
    let v = variable(".extern .shared .align 16 .b8 s[];");
    assert_eq!((v.space, v.align, v.count, v.external), (Space::Shared, 16, 0, true));
    assert_eq!(variable(".extern .shared .b8 s[0];").count, 0);
    assert_eq!(variable(".global .v2 .u16 a;").align, 4);
    let names: Vec<_> =
        module(".global .u32 a, b[4] = {1}, c;").variables.into_iter().map(|v| (v.name, v.count)).collect();
    assert_eq!(names, [("a".to_owned(), 1), ("b".to_owned(), 4), ("c".to_owned(), 1)]);
    // A declaration and the definition, in either order, are one variable.
    for text in [".extern .global .u32 x; .global .u32 x = 3;", ".global .u32 x = 3; .extern .global .u32 x;"] {
        let module = module(text);
        assert_eq!((module.variables.len(), module.variables[0].external), (1, false));
        assert_eq!(bits(&module.variables[0]), [3]);
    }
}

#[test]
fn initial_values() {
    for (text, expected) in [
        (".u8 x = 300", vec![0x2c]),
        (".s8 x = -1", vec![0xff]),
        (".b16 x = 0x12345", vec![0x2345]),
        (".u32 x = -1", vec![0xffff_ffff]),
        (".u64 x = -1", vec![u64::MAX]),
        (".f32 x = 0f7FA00001", vec![0x7fa0_0001]),
        (".f32 x = 0.1", vec![0x3dcc_cccd]),
        (".f32 x = 0d3FF0000000000000", vec![0x3f80_0000]),
        (".f64 x = -1.5e-3", vec![(-1.5e-3_f64).to_bits()]),
        (".f64 x = .5", vec![0.5_f64.to_bits()]),
        (".f64 x = 1.", vec![1.0_f64.to_bits()]),
        (".f64 x = 1e5", vec![1e5_f64.to_bits()]),
        (".f64 x = -0.0", vec![1 << 63]),
        (".f64 x = 1.5 + 2.5 * 2.0 - 1.0 / 4.0", vec![6.25_f64.to_bits()]),
        (".b32 x = 1.5", vec![0x3fc0_0000]),
        (".b32 x = 0f3F800000", vec![0x3f80_0000]),
        (".b64 x = 1.5", vec![1.5_f64.to_bits()]),
        (".u32 x[] = {1, 2, 3}", vec![1, 2, 3]),
        (".u32 x[2] = {}", vec![]),
        (".u32 x[2][3] = {{1, 2}, {3}}", vec![1, 2, 0, 3]),
        (".u32 x[2][2] = {{}, {1}}", vec![0, 0, 1]),
        (".u32 x[2][2][2] = {{{1}, {2}}, {{3}}}", vec![1, 0, 2, 0, 3]),
        (".u32 x[][2] = {{1, 2}, {3}}", vec![1, 2, 3]),
        (".v4 .f32 x = {1.0, 2.0, 3.0, 4.0}", [1.0_f32, 2.0, 3.0, 4.0].map(|v| u64::from(v.to_bits())).to_vec()),
        (".v2 .u32 x[][2] = {{{1, 2}, {3, 4}}}", vec![1, 2, 3, 4]),
    ] {
        let v = variable(&format!(".visible .global {text};"));
        assert_eq!(bits(&v), expected, "{text}");
        assert!(v.init.len() <= v.count, "{text}");
    }
    assert_eq!(variable(".global .u32 x[][2] = {{1, 2}, {3}};").count, 4);
    assert_eq!(variable(".global .u32 x[] = {1, 2, 3};").count, 3);
}

#[test]
fn initial_addresses() {
    let address = |symbol: &str, offset, generic| Init::Address { symbol: symbol.to_owned(), offset, generic };
    let v = variable(".global .u32 y[4]; .global .u64 x[5] = {y, y+4, generic(y)+4*2, y+-4, 7};");
    let expected =
        [address("y", 0, false), address("y", 4, false), address("y", 8, true), address("y", -4, false), Init::Bits(7)];
    assert_eq!(v.init, expected);
}

#[test]
fn variables_refused() {
    for text in [
        ".global .u64 x = 1.5;",
        ".global .u32 x = 0f3F800000;",
        ".global .f64 x = 3;",
        ".global .f32 x = 1.5 + 2;",
        ".global .f32 x = -0f3F800000;",
        ".global .f64 x = 0f3F800000;",
        ".global .f16 x = 1.0;",
        ".global .f64 x = 3.0 / 0.0;",
        ".global .u32 x = 3 % 0;",
        ".global .u32 x = 5%3;",
        ".global .u64 x = 1.5 ? 2 : 3;",
        ".global .u64 x = !1.5;",
        ".global .u64 x = 0x;",
        ".global .u64 x = 08;",
        ".global .u64 x = 5u;",
        ".global .f64 x = 0d3FF;",
        ".global .u64 x = 36893488147419103232;",
        ".global .u32 x[2][3] = {1, 2, 3};",
        ".global .u32 x[2][3] = {{1, 2}, 3};",
        ".global .u32 x[2][3] = {{1, 2, 3, 4}};",
        ".global .u32 x[][2] = {1, 2, 3};",
        ".global .u32 x[2] = {1, 2, 3};",
        ".global .u32 x[2] = {1,};",
        ".global .u32 x[2] = 1;",
        ".global .u32 x = {1};",
        ".global .u32 x[2][] = {{1}};",
        ".global .u32 x[2+1];",
        ".global .u32 x[];",
        ".shared .u32 x[];",
        ".shared .u32 x = 4;",
        ".extern .global .u32 x = 4;",
        ".global .u32 x; .global .u32 x;",
        ".global .v3 .u32 x;",
        ".global .align 3 .u32 x;",
        ".global .align 0 .u32 x;",
        ".global .u32 .align;",
        ".global .pred x;",
        ".global .bf16 x;",
        ".global .tf32 x;",
        ".global .e4m3 x;",
        ".global .u32 _;",
        ".global .u32 y; .global .u64 x = y-4;",
        ".global .u32 y; .global .u64 x = 4+y;",
        ".global .u32 y; .global .f64 x = y;",
        ".global .u32 y; .global .b64 x = y;",
        ".local .u32 x;",
        ".param .u32 x;",
        ".reg .u32 x;",
        // Accepted by ptxas, and not by us.
        ".global .u32 y; .global .u8 x[2] = {0xff(y), 0xff00(y)};",
        ".global .attribute(.managed) .u32 x;",
        ".global .texref x;",
        ".global .b128 x = 5;",
    ] {
        let error = refused(text);
        assert_eq!(error.line, 4, "{text}: {error}");
    }
    assert!(refused(".global .u32 y; .global .u8 x[1] = {0xff(y)};").what.contains("mask operator"));
}

/// What `ptxas` 13.5 makes of integer constant expressions.
#[test]
fn constants_as_ptxas_has_them() {
    let lines = include_str!("ptx/constants.txt").lines();
    let pairs: Vec<_> = lines.map(|line| line.split_once(" => ").unwrap()).collect();
    let text: String =
        (0..).zip(&pairs).map(|(i, (constant, _))| format!(".global .u64 x{i} = {constant};\n")).collect();
    let module = module(&text);
    assert!(pairs.len() > 190 && module.variables.len() == pairs.len());
    for (variable, (constant, expected)) in module.variables.iter().zip(&pairs) {
        assert_eq!(bits(variable), [u64::from_str_radix(expected, 16).unwrap()], "{constant}");
    }
}

#[test]
fn instruction_forms() {
    let body = body(
        "@%p1 ld.global.L1::no_allocate.L2::cache_hint.L2::128B.v4.f32 {a, b, _, d}, [p+16], q;\n\
         @!%p2 bra.uni DONE; DONE: ret ;\n st .shared::cta .u32 [4] , 5 ;\n bar.sync\n 0\n,\n 32;",
    );
    let all = instructions(&body);
    let forms: Vec<_> = all.iter().map(|i| i.form()).collect();
    let expected = [
        "ld.global.L1::no_allocate.L2::cache_hint.L2::128B.v4.f32",
        "bra.uni",
        "ret",
        "st.shared::cta.u32",
        "bar.sync",
    ];
    assert_eq!(forms, expected);
    let lines: Vec<_> = all.iter().map(|i| i.line - BODY_LINE).collect();
    assert_eq!(lines, [0, 1, 1, 2, 3]);
    assert_eq!(all[0].guard, Some(("%p1".to_owned(), false)));
    assert_eq!(all[1].guard, Some(("%p2".to_owned(), true)));
    assert_eq!(all[0].modifiers[1], "L1::no_allocate");
    let vector = Operand::Vector(vec![name("a"), name("b"), name("_"), name("d")]);
    assert_eq!(all[0].operands, [vector, memory(name("p"), 16), name("q")]);
    assert_eq!(all[3].operands, [memory(Operand::Int(4), 0), Operand::Int(5)]);
    assert_eq!(all[4].operands, [Operand::Int(0), Operand::Int(32)]);
    assert_eq!(labels(&body), ["DONE"]);
}

/// Forms of sm_90 and sm_100, with their numbers of operands; the simulated device may not know what they do.
#[test]
fn forms_of_newer_architectures() {
    for (text, count) in [
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f0, %f1, %f2, %f3}, %rd1, %rd2, %p1, 1, -1, 0, 1;", 8),
        (
            "tcgen05.mma.cta_group::1.kind::tf32.collector::a::fill [%r1], %rd1, %rd2, %r2, {%r3, %r4, %r5, %r6}, %p1;",
            6,
        ),
        ("tcgen05.ld.sync.aligned.16x64b.x1.b32 {%r1}, [%r2 + 16];", 2),
        ("tcgen05.cp.cta_group::1.32x128b.warpx4 [%r1], %rd1;", 2),
        (
            "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::cluster [%r1], \
          [%rd1, {%r2, %r3, %r4}], [%r5], {%h1}, %h2;",
            5,
        ),
        ("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%r1], 5;", 3),
        ("elect.sync _|%p1, 0xffffffff;", 2),
        ("createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 %rd1, 1.0;", 2),
        ("mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e5m2.f32 {%f0}, {%r0}, {%r1}, {%f0};", 4),
        ("multimem.ld_reduce.relaxed.sys.global.add.v4.f32 {%f0, %f1, %f2, %f3}, [%rd1];", 2),
        ("setmaxnreg.inc.sync.aligned.u32 240;", 1),
        ("barrier.cluster.arrive.release.aligned;", 0),
    ] {
        let all = body(text);
        let instruction = instructions(&all)[0];
        assert_eq!(instruction.operands.len(), count, "{text}");
        assert_eq!(instruction.form(), text.split([' ', ';']).next().unwrap());
    }
}

#[test]
fn operand_forms() {
    let pair = |a: &str, b: &str| Operand::Pair(Box::new(name(a)), Box::new(name(b)));
    let not = |a: &str| Operand::Not(Box::new(name(a)));
    for (text, expected) in [
        ("ret;", vec![]),
        ("mov.u32 r, %tid.x;", vec![name("r"), name("%tid.x")]),
        ("mov.v4.u32 r, %tid;", vec![name("r"), name("%tid")]),
        ("mov.u32 r , %tid .x;", vec![name("r"), name("%tid.x")]),
        ("vadd.s32.s32.s32 r, q.b0, s.h1;", vec![name("r"), name("q.b0"), name("s.h1")]),
        ("mov.u32 r, WARP_SZ;", vec![name("r"), Operand::Int(32)]),
        ("mov.u32 r, WARP_SZ+1;", vec![name("r"), Operand::Int(33)]),
        ("mov.u32 r, s+4*2;", vec![name("r"), Operand::Offset("s".to_owned(), 8)]),
        ("mov.u32 r, (1+2)*3;", vec![name("r"), Operand::Int(9)]),
        ("mov.u32 r, -2147483648;", vec![name("r"), Operand::Int(-2147483648)]),
        ("mov.u64 r, 0xFFFFFFFFFFFFFFFF;", vec![name("r"), Operand::Int(-1)]),
        ("mov.u32 r, ~5;", vec![name("r"), Operand::Int(!5)]),
        ("mov.f32 r, 0f3F800000;", vec![name("r"), Operand::F32(0x3f80_0000)]),
        ("mov.f32 r, 0F7fa00001;", vec![name("r"), Operand::F32(0x7fa0_0001)]),
        ("mov.f64 r, 0d3FF921FB54442D18;", vec![name("r"), Operand::F64(0x3ff9_21fb_5444_2d18)]),
        ("mov.f32 r, -1.5;", vec![name("r"), Operand::F64((-1.5_f64).to_bits())]),
        ("mov.f32 r, .5;", vec![name("r"), Operand::F64(0.5_f64.to_bits())]),
        ("ld.u32 r, [q];", vec![name("r"), memory(name("q"), 0)]),
        ("ld.u32 r, [q+-4];", vec![name("r"), memory(name("q"), -4)]),
        ("ld.u32 r, [q + 1 << 2];", vec![name("r"), memory(name("q"), 4)]),
        ("ld.u32 r, [q+16-8];", vec![name("r"), memory(name("q"), 8)]),
        ("ld.local.u32 r, [16+16];", vec![name("r"), memory(Operand::Int(32), 0)]),
        ("setp.eq.and.u32 p1|p2, r, 5, !p3;", vec![pair("p1", "p2"), name("r"), Operand::Int(5), not("p3")]),
        ("setp.eq.u32 _ | p2, r, q;", vec![pair("_", "p2"), name("r"), name("q")]),
        ("mov.b64 {_, r}, q;", vec![Operand::Vector(vec![name("_"), name("r")]), name("q")]),
        ("mov.b64 r, {1, q};", vec![name("r"), Operand::Vector(vec![Operand::Int(1), name("q")])]),
        (
            "tex.2d.v4.f32.f32 {a, b, c, d}, [t, {x, y}];",
            vec![
                Operand::Vector(["a", "b", "c", "d"].map(name).to_vec()),
                memory(Operand::Vector(vec![name("t"), Operand::Vector(vec![name("x"), name("y")])]), 0),
            ],
        ),
    ] {
        assert_eq!(operands(text), expected, "{text}");
    }
}

#[test]
fn call_forms() {
    let tuple = |names: &[&str]| Operand::Tuple(names.iter().map(|n| name(n)).collect());
    for (text, expected) in [
        ("call f;", vec![name("f")]),
        ("call.uni f, (a, b);", vec![name("f"), tuple(&["a", "b"])]),
        ("call (r), f;", vec![tuple(&["r"]), name("f")]),
        ("call.uni (r), \nf, \n(\na, \nb\n)\n;", vec![tuple(&["r"]), name("f"), tuple(&["a", "b"])]),
        ("call (r), %rd1, (a), proto;", vec![tuple(&["r"]), name("%rd1"), tuple(&["a"]), name("proto")]),
        ("call %rd1, (), targets;", vec![name("%rd1"), tuple(&[]), name("targets")]),
        ("call f, (1, a);", vec![name("f"), Operand::Tuple(vec![Operand::Int(1), name("a")])]),
    ] {
        assert_eq!(operands(text), expected, "{text}");
    }
}

#[test]
fn instructions_refused() {
    for text in [
        "mov.u32 r, q s;",
        "mov.u32 r, q,;",
        "mov.u32 (r), q;",
        "mov.u32 r = q;",
        "mov. u32 r, q;",
        "mov.u32 r, \"a\";",
        "mov.u32 r, s-8;",
        "ld.u32 r, [q-4];",
        "ld.u32 r, [4+q];",
        "ld.u32 r, [s[2]];",
        "ld.u32 r, [];",
        "ld.u32 r, [1.5];",
        "ld.u32 r, [q;",
        "@%p1 { ret; }",
        "@%p1 L: ret;",
        "@ ret;",
        "{ ret;",
        ".extern .shared .b8 s[];",
        ".visible .global .b32 g;",
        ".file 1 \"a.cu\"",
        // Accepted by ptxas, and not by us.
        "mov.u32 r, s[2];",
    ] {
        let error = refused(&kernel(text));
        assert!(error.line >= BODY_LINE, "{text}: {error}");
    }
}

#[test]
fn registers() {
    let body =
        body(".reg .b32 %a, %r<3>, z<0x2>;\n.reg .pred %p<1>;\n.reg .v4 .f32 v; .reg .v2 .u16 w<2>; .reg .f64 q<0>;");
    let names: Vec<_> = body.registers.iter().map(|(name, ty)| format!("{name} {ty:?}")).collect();
    let expected = "%a B32,%r0 B32,%r1 B32,%r2 B32,z0 B32,z1 B32,%p0 Pred,v.x F32,v.y F32,v.z F32,v.w F32,\
                    w0.x U16,w0.y U16,w1.x U16,w1.y U16";
    assert_eq!(names.join(","), expected);
}

#[test]
fn vector_registers_are_their_elements() {
    let elements = |v: &str| Operand::Vector(["x", "y", "z", "w"].map(|e| name(&format!("{v}.{e}"))).to_vec());
    let body = body(
        ".reg .v4 .f32 v; .reg .f32 f;\nld.global.v4.f32 v, [p];\nmov.f32 f, v.y;\nmov.f32 f, v.b;\n\
         { .reg .v4 .f32 v; mov.f32 v.r, f; mov.v4.f32 v, v; }",
    );
    let operands: Vec<_> = instructions(&body).iter().map(|i| i.operands.clone()).collect();
    assert_eq!(operands[0][0], elements("v"));
    assert_eq!(operands[1][1], name("v.y"));
    assert_eq!(operands[2][1], name("v.z"));
    assert_eq!(operands[3][0], name("v@2.x"));
    assert_eq!(operands[4], [elements("v@2"), elements("v@2")]);
    assert!(body.registers.iter().any(|(name, _)| name == "v@2.w"));
}

#[test]
fn registers_refused() {
    for text in [
        ".reg .b32 %r1, %r<3>;",
        ".reg .b32 q<2+2>;",
        ".reg .b32 q[4];",
        ".reg .v4 .pred q;",
        ".reg .v8 .b32 q;",
        ".reg .bf16 q;",
        ".reg .bf16x2 q;",
        ".reg .tf32 q;",
        ".reg .e4m3 q;",
        ".reg .b32 _;",
        ".reg q;",
        ".reg .b32 %r<-1>;",
        ".reg .b32 %r<1;",
    ] {
        refused(&kernel(text));
    }
}

/// A short text does not buy much memory.
#[test]
fn what_is_declared_is_bounded() {
    for text in [
        ".reg .b32 %r<4000000000>;".to_owned(),
        ".reg .v4 .b32 %r<400000>;".to_owned(),
        format!(".reg .b32 {}<1000>;", "r".repeat(10_000)),
        (0..100).map(|i| format!(".reg .b32 %r{i}_<200000>;\n")).collect(),
        ".global .b32 x[4000000000][4000000000][4000000000];".to_owned(),
        ".global .b32 x[2][4000000000] = {{1}, {2}};".to_owned(),
        ".global .b32 x[][4000000000] = {{1}, {2}};".to_owned(),
        format!(".global .b32 x{};", "[1]".repeat(100)),
    ] {
        refused(&kernel(&text));
    }
    // A row that is short at the end costs nothing.
    assert_eq!(variable(".global .b32 x[2][1000000000] = {{1}};").init.len(), 1);
    // As many registers as there are, if they are used.
    let long = "%a_register_of_a_long_name_";
    let declared = format!(".reg .b32 {long}<50000>;\n");
    refused(&kernel(&declared));
    let uses: String = (0..50_000).map(|i| format!("mov.b32 {long}{i}, 0;\n")).collect();
    assert_eq!(body(&format!("{declared}{uses}")).registers.len(), 50_000);
}

#[test]
fn depth_is_bounded() {
    for (open, middle, close) in [("{", "ret;", "}"), ("mov.u32 a, ", "{", ""), ("mov.u32 a, ", "[", "")] {
        let deep = if open.len() == 1 {
            format!("{}{middle}{}", open.repeat(100_000), close.repeat(100_000))
        } else {
            format!("{open}{};", middle.repeat(100_000))
        };
        assert!(refused(&kernel(&deep)).what.contains("too "), "{middle}");
    }
    for (part, end) in
        [("(", "1"), ("-", "1"), ("!", "1"), ("~", "1"), ("(.s64)", "1"), ("1 ? ", "1"), ("1 ? 1 : ", "1")]
    {
        let error = refused(&format!(".global .u64 x = {}{end};", part.repeat(100_000)));
        assert!(error.what.contains("too deep"), "{part}: {error}");
    }
    // Length is no depth.
    assert_eq!(bits(&variable(&format!(".global .u64 x = 1{};", " + 1".repeat(10_000)))), [10_001]);
    assert!(body(&format!("{}ret;{}", "{".repeat(60), "}".repeat(60))).statements.len() == 1);
    let braces = format!(".section .debug_str {} {}", "{".repeat(100_000), "}".repeat(100_000));
    assert!(module(&braces).functions.is_empty());
}

#[test]
fn scopes_rename_what_they_hide() {
    let body = body(
        ".reg .b32 %r1, %r2;\nmov.b32 %r1, 1;\n\
         { mov.b32 %r1, 2; .reg .b32 %r<2>; mov.b32 %r1, %r0; mov.b32 %r2, 3; { .reg .b32 %r1; @%r1 mov.b32 %r1, 4; } mov.b32 %r1, 5; }\n\
         mov.b32 %r1, 6;\n\
         { .param .b32 a; .param .b32 %r1; st.param.b32 [%r1+4], a; }\n\
         { .param .b32 a; st.param.b32 [a], %r1; }\n",
    );
    let text: Vec<_> = instructions(&body).iter().map(|i| format!("{:?} {:?}", i.guard, i.operands)).collect();
    let written = |at: usize| match &instructions(&body)[at].operands[0] {
        Operand::Name(name) => name.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(written), ["%r1", "%r1", "%r1@2", "%r2", "%r1@3", "%r1@2", "%r1"]);
    assert!(text[2].contains("\"%r0\"") && text[4].contains("Some((\"%r1@3\", false))"), "{text:#?}");
    assert_eq!(instructions(&body)[7].operands, [memory(name("%r1@4"), 4), name("a")]);
    assert_eq!(instructions(&body)[8].operands, [memory(name("a@2"), 0), name("%r1")]);
    let registers: Vec<_> = body.registers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(registers, ["%r1", "%r2", "%r0", "%r1@2", "%r1@3"]);
    let variables: Vec<_> = body.variables.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(variables, ["a", "%r1@4", "a@2"]);
}

#[test]
fn labels_are_known_in_all_of_their_scope() {
    let body = body("L: bra M; { bra L; bra M; L: bra L; } M: { L: { bra L; } } bra L;");
    let targets: Vec<_> = instructions(&body).iter().map(|i| i.operands[0].clone()).collect();
    assert_eq!(targets, ["M", "L@2", "M", "L@2", "L@3", "L"].map(name));
    assert_eq!(labels(&body), ["L", "L@2", "M", "L@3"]);
}

#[test]
fn names_of_the_module_may_be_hidden() {
    let module = module(
        ".shared .u32 s[16]; .visible .entry k(.param .u64 p) { mov.u32 %r1, s; { .reg .b32 s, k, p; mov.b32 s, k; \
         mov.b64 s, p; } mov.u64 %rd1, k; ld.param.u64 %rd1, [p]; }",
    );
    let body = module.functions[0].body.as_ref().unwrap();
    let operands: Vec<_> = instructions(body).iter().map(|i| i.operands.clone()).collect();
    assert_eq!(operands[0][1], name("s"));
    assert_eq!(operands[1], [name("s@2"), name("k@2")]);
    assert_eq!(operands[2][1], name("p@2"));
    assert_eq!(operands[3][1], name("k"));
    assert_eq!(operands[4][1], memory(name("p"), 0));
}

#[test]
fn scopes_refused() {
    for text in [
        "L: L: ret;",
        ".reg .b32 L; L: ret;",
        ".reg .b32 %r1; .reg .b32 %r1;",
        ".reg .b32 %r<4>; .reg .b32 %r1;",
        // A name of an inner scope means nothing outside of it, nor a register before its declaration.
        "{ L: ret; } bra L;",
        "{ .reg .b32 t; } mov.b32 t, 1;",
        "mov.b32 t, 1; .reg .b32 t;",
        "{ .reg .b32 t; } @t ret;",
        "{ .reg .b32 t; } ld.u32 %r1, [t+4];",
        "{ A: ret; } x: .branchtargets A;",
    ] {
        let error = refused(&kernel(text));
        assert_eq!(error.line, BODY_LINE, "{text}: {error}");
    }
}

#[test]
fn targets_and_prototypes() {
    let body = body(
        "A: t: .branchtargets A, B;\n{ B: t: .branchtargets A, B; brx.idx %r1, t; }\nbrx.idx %r1, t; B:\nc: .calltargets f, g;\n\
         proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .align 16 .b8 _[32]) .noreturn;\n\
         q: .callprototype _ ();",
    );
    let list =
        |label: &str, names: &[&str]| (label.to_owned(), names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    // The inner `B` comes first in the text, and so keeps its name.
    assert_eq!(body.branch_targets, [list("t", &["A", "B@2"]), list("t@2", &["A", "B"])]);
    assert_eq!(instructions(&body)[0].operands[1], name("t@2"));
    assert_eq!(instructions(&body)[1].operands[1], name("t"));
    assert_eq!(body.call_targets, [list("c", &["f", "g"])]);
    let (label, prototype) = &body.call_prototypes[0];
    assert_eq!((label.as_str(), prototype.returns.len(), prototype.params.len()), ("proto", 1, 2));
    assert_eq!((prototype.params[1].align, prototype.params[1].count), (16, 32));
    assert!(body.call_prototypes[1].1.params.is_empty());
}

#[test]
fn locations() {
    let body = body(
        "ret;\n.loc 1 8 31\nret; ret;\n.loc\t2 358 12, function_name $L__info_string0, inlined_at 1 20 110 // x\nret;\n\
         .loc 3 1 0, function_name $L__info_string0+16, inlined_at 1 20 110 ret;",
    );
    let places: Vec<_> = instructions(&body).iter().map(|i| (i.location.file, i.location.line)).collect();
    assert_eq!(places, [(0, 0), (1, 8), (1, 8), (2, 358), (3, 1)]);
}

#[test]
fn inlined_calls_lead_to_the_outermost() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\n\
        .loc 2 358 12, function_name $a, inlined_at 1 20 110\n.loc 3 7 1, function_name $b, inlined_at 2 358 12\nret;\n\
        .loc 1 21 5\nret;\n.loc 3 7 1, function_name $b, inlined_at 1 22 9\nret;\n}";
    let module = cuda::ptx::parse(text).unwrap();
    let chain = |i: &Instruction| {
        let mut at = i.location;
        let mut chain = vec![(at.file, at.line)];
        while at.call != 0 {
            at = module.calls[at.call as usize - 1];
            chain.push((at.file, at.line));
        }
        chain
    };
    let body = module.functions[0].body.as_ref().unwrap();
    let chains: Vec<_> = instructions(body).into_iter().map(chain).collect();
    assert_eq!(chains, [vec![(3, 7), (2, 358), (1, 20)], vec![(1, 21)], vec![(3, 7), (1, 22)]]);
}
