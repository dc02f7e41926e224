//! What a PTX text says, before anything is known about what its instructions do.
//!
//! Names are kept as written, but a register or variable of an inner scope `{ ... }` that hides an outer one is renamed
//! (`%r1` becomes `%r1@2`), so that within a function a name means one thing.

/// The fundamental types of PTX ISA chapter 5.2, and the packed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Type {
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    /// fp8 and fp4/fp6 formats are named by instructions only; they have no registers of their own.
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
    Pred,
}

/// A state space (PTX ISA 5.1). `Generic` is the absence of a qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Space {
    Reg,
    Const,
    Global,
    Local,
    Param,
    Shared,
    Generic,
}

/// A module: one translation unit of PTX text.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// `.version`
    pub version: (u32, u32),
    /// The architecture of `.target sm_XX`: 80 for `sm_80`, and for `sm_90a`.
    pub target: u32,
    /// `.file index "name"`, as `.loc` refers to them.
    pub files: Vec<(u32, String)>,
    /// Calls that the compiler has inlined (`inlined_at`). One inside of another's body has that one's number, which is lower.
    pub calls: Vec<Location>,
    /// Module-scope variables, in order.
    pub variables: Vec<Variable>,
    /// Entries and device functions, in order; a prototype without a body is kept only if no definition follows.
    pub functions: Vec<Function>,
    /// `.alias name, function;`: another name for a function.
    pub aliases: Vec<(String, String)>,
}

/// A variable declaration in any state space but `.reg`.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    pub ty: Type,
    /// Bytes; the `.align`, else the natural alignment of the (vector) type.
    pub align: usize,
    /// Elements (array extents and vector width multiplied); 0 for an incomplete array, `extern .shared .b8 s[];`.
    pub count: usize,
    /// Initial values in element order; shorter than `count` means zeros behind.
    pub init: Vec<Init>,
    /// `.extern`: defined elsewhere (for `.shared`: the dynamic shared memory).
    pub external: bool,
    pub line: u32,
}

/// One element of an initialiser.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// The element's bits, in the variable's type.
    Bits(u64),
    /// The address of a symbol, plus bytes; `generic(symbol)` where asked.
    #[allow(missing_docs)]
    Address { symbol: String, offset: i64, generic: bool },
}

/// An `.entry` or a `.func`.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Function {
    pub name: String,
    pub entry: bool,
    /// Parameters in order; of an entry always in `.param`.
    pub params: Vec<Parameter>,
    /// Return values of a `.func`.
    pub returns: Vec<Parameter>,
    /// None: an external prototype, such as `vprintf`.
    pub body: Option<Body>,
    /// `.maxntid`, `.reqntid`, missing extents 1.
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub min_blocks: Option<u32>,
    pub max_registers: Option<u32>,
    /// `.reqnctapercluster`
    pub required_cluster: Option<[u32; 3]>,
    pub line: u32,
}

/// A parameter or return value.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Parameter {
    pub name: String,
    /// `Param` or `Reg`.
    pub space: Space,
    pub ty: Type,
    pub align: usize,
    /// Elements: 1 for a scalar, N for `.b8 name[N]`.
    pub count: usize,
}

/// What stands between a function's braces.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Body {
    /// Every register with its type; `.reg .b32 %r<5>` is expanded to `%r0..%r4`, and `.reg .v2 .f32 v` to `v.x` and `v.y`
    /// (then an operand `v` is the vector `{v.x, v.y}`).
    pub registers: Vec<(String, Type)>,
    /// Variables in `.shared`, `.local`, `.param`, `.const`, `.global` declared inside.
    pub variables: Vec<Variable>,
    pub statements: Vec<Statement>,
    /// `label: .branchtargets a, b, c;`
    pub branch_targets: Vec<(String, Vec<String>)>,
    /// `label: .calltargets f, g;`
    pub call_targets: Vec<(String, Vec<String>)>,
    /// `label: .callprototype (ret) _ (params);`
    pub call_prototypes: Vec<(String, Prototype)>,
}

/// The signature of an indirect call.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Prototype {
    pub returns: Vec<Parameter>,
    pub params: Vec<Parameter>,
}

/// A statement of a body.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Statement {
    Label(String),
    Instruction(Instruction),
}

/// A place in the source that the PTX was compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[allow(missing_docs)]
pub struct Location {
    /// Index into `Module::files`; 0 and line 0: unknown.
    pub file: u32,
    pub line: u32,
    /// Number in `Module::calls`, from 1, of the call whose inlined body this is; 0: none, or unknown.
    pub call: u32,
}

/// One instruction.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Instruction {
    /// The register of `@p` or `@!p` and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// `ld` of `ld.global.v4.f32`.
    pub opcode: String,
    /// `["global", "v4", "f32"]`; `shared::cta` is one modifier, `L2::128B` another.
    pub modifiers: Vec<String>,
    pub operands: Vec<Operand>,
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What `.loc` said last (with `inlined_at`, the innermost place).
    pub location: Location,
}

/// An operand. For `call`, the forms `(ret), f, (a, b)` become `Tuple, Name, Tuple`, then the prototype's or target list's
/// label of an indirect call as a last `Name`.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, special register (`%tid.x`), variable, function or label; `_` is the sink.
    Name(String),
    /// A variable plus a constant, outside of brackets: `mov.u64 %rd1, buffer+16;`
    Offset(String, i64),
    /// An integer constant (expression), 64 bits.
    Int(i64),
    /// `0fXXXXXXXX`
    F32(u32),
    /// `0dXXXXXXXXXXXXXXXX` or a decimal floating constant, as f64 bits.
    F64(u64),
    /// `[base+offset]`; the base is a name or a constant. Texture and tensor instructions have a list, `[a, {x, y}]`: then
    /// the base is a vector of its parts.
    #[allow(missing_docs)]
    Memory { base: Box<Operand>, offset: i64 },
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `p|q`
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`
    Not(Box<Operand>),
    /// `-r`, of a video instruction.
    Minus(Box<Operand>),
    /// `(a, b)` of a call.
    Tuple(Vec<Operand>),
}

impl Type {
    /// Bits of a value of this type; a predicate has 1.
    pub fn bits(self) -> u32 {
        use Type::*;
        match self {
            Pred => 1,
            B8 | U8 | S8 | E4m3 | E5m2 => 8,
            B16 | U16 | S16 | F16 | Bf16 | E4m3x2 | E5m2x2 => 16,
            B32 | U32 | S32 | F32 | Tf32 | F16x2 | Bf16x2 => 32,
            B64 | U64 | S64 | F64 => 64,
            B128 => 128,
        }
    }

    /// Bytes in memory; a predicate has none of its own and counts as 1.
    pub fn bytes(self) -> usize {
        (self.bits() as usize).div_ceil(8)
    }

    /// `.s8` to `.s64`.
    pub fn signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Any floating-point type.
    pub fn float(self) -> bool {
        use Type::*;
        matches!(self, F16 | F16x2 | Bf16 | Bf16x2 | Tf32 | F32 | F64 | E4m3 | E5m2 | E4m3x2 | E5m2x2)
    }

    /// The type that a modifier such as `u32` names.
    pub fn named(modifier: &str) -> Option<Type> {
        use Type::*;
        Some(match modifier {
            "b8" => B8,
            "b16" => B16,
            "b32" => B32,
            "b64" => B64,
            "b128" => B128,
            "u8" => U8,
            "u16" => U16,
            "u32" => U32,
            "u64" => U64,
            "s8" => S8,
            "s16" => S16,
            "s32" => S32,
            "s64" => S64,
            "f16" => F16,
            "f16x2" => F16x2,
            "bf16" => Bf16,
            "bf16x2" => Bf16x2,
            "tf32" => Tf32,
            "f32" => F32,
            "f64" => F64,
            "e4m3" => E4m3,
            "e5m2" => E5m2,
            "e4m3x2" => E4m3x2,
            "e5m2x2" => E5m2x2,
            "pred" => Pred,
            _ => return None,
        })
    }
}

impl Instruction {
    /// Whether the modifier is among the instruction's.
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|m| m == modifier)
    }

    /// The types among the modifiers, in order.
    pub fn types(&self) -> impl Iterator<Item = Type> + '_ {
        self.modifiers.iter().filter_map(|m| Type::named(m))
    }

    /// `ld.global.v4.f32`
    pub fn form(&self) -> String {
        let mut form = self.opcode.clone();
        for m in &self.modifiers {
            form.push('.');
            form.push_str(m);
        }
        form
    }
}
