//! From the syntax of one kernel, with all that it calls, to code.

use std::cell::Cell;
use std::collections::HashMap;

use super::LoadError;
use super::code::*;
use super::flow::{self, Bits, Effect, Interval};
use super::select;
use crate::isa::logic::LOCAL_WINDOW;
use crate::lanes::{Class, Role, Unit};
use crate::memory::POISON;
use crate::ptx::ast::{self, Instruction, Module, Operand, Statement, Type};

/// Function addresses start here; each is 16 further.
pub(crate) const FUNCTIONS: u64 = 0x0f00_0000_0000;

/// Instructions that a kernel may have, and registers: beyond that a text is not a kernel but an attack.
const LIMIT: usize = 4 << 20;

/// Bytes of parameters that a kernel may have (PTX ISA 5.1.6).
const PARAMETERS: usize = 32764;

/// A name's meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Symbol {
    /// An address in global or constant memory.
    Global(u64),
    /// An offset in shared memory.
    Shared(u64),
    /// So many bytes in the frame.
    Frame { offset: u32, bytes: u32 },
    /// An offset in the launch's parameters.
    Param(u32),
    /// The address of a function.
    Function(u64),
}

/// What is known of the module when its kernels are lowered.
pub(crate) struct Context<'a> {
    pub(crate) module: &'a Module,
    /// Addresses of `.global` and `.const` variables; those of a function are named `function/variable`.
    pub(crate) globals: &'a HashMap<String, u64>,
    /// Index of each function by name.
    pub(crate) functions: &'a HashMap<&'a str, usize>,
    /// What lowering may still look at: every kernel has its own copy of what it calls, so that a short text may be much
    /// work.
    pub(crate) work: Cell<usize>,
}

impl Context<'_> {
    /// All that lowering a module may look at: statements, names, words of sets.
    pub(crate) const WORK: usize = 1 << 26;

    /// Takes from the work that is allowed; `line` is told if there is none left.
    pub(crate) fn spend(&self, work: usize, line: u32) -> Result<(), LoadError> {
        match self.work.get().checked_sub(work) {
            Some(left) => {
                self.work.set(left);
                Ok(())
            }
            None => Err(LoadError::Unsupported { line, what: "the size of the module".into() }),
        }
    }
}

/// A value that an operand names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    /// A special register; `wide` where 64 bits are asked for.
    Special { special: Special, wide: bool },
    /// Bits, broadcast; as many units.
    Constant { bits: u64, units: u16 },
    /// All lanes true or none.
    Truth(bool),
    /// The frame's start plus so many bytes; `wide` where 64 bits are asked for.
    FrameAddress { offset: i64, wide: bool },
    /// What is written to `_`.
    Scratch,
    /// Index into the function's registers.
    Register(u32),
}

/// An instruction before its registers have places. Operands are indices into `Lowering::values`.
pub(crate) struct Draft {
    pub(crate) guard: Option<(u32, bool)>,
    pub(crate) action: Action,
    pub(crate) operands: Operands,
    pub(crate) info: OpInfo,
}

/// The state of lowering one function.
pub(crate) struct Lowering<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) function: &'a ast::Function,
    registers: HashMap<&'a str, (u32, Type)>,
    types: Vec<Type>,
    /// The function's own; others are the module's.
    symbols: HashMap<&'a str, Symbol>,
    shared: &'a HashMap<String, u64>,
    values: Vec<Value>,
    interned: HashMap<Value, u32>,
    pool: Vec<(u32, Role)>,
    pub(crate) labels: HashMap<&'a str, u32>,
    pub(crate) callees: &'a HashMap<usize, u32>,
}

fn units(ty: Type) -> u16 {
    (ty.bits().div_ceil(32)).max(1) as u16
}

/// What a unit of an undefined register holds: as many bytes as the register has, since narrow ones are zero-extended.
fn poison(ty: Type) -> u32 {
    let all = u32::from_ne_bytes([POISON; 4]);
    match ty.bits() {
        8 | 16 => all & ((1 << ty.bits()) - 1),
        _ => all,
    }
}

/// The layout of shared memory and the functions of an entry.
pub(crate) fn kernel(context: &Context<'_>, entry: usize) -> Result<Kernel, LoadError> {
    let functions = reachable(context, entry)?;
    let index: HashMap<usize, u32> = functions.iter().enumerate().map(|(i, &f)| (f, i as u32)).collect();
    let mut shared = 0u64;
    let mut places: HashMap<String, u64> = HashMap::new();
    let mut dynamic: Vec<(String, u64)> = Vec::new();
    let used = used_names(context, &functions);
    let module_level = context.module.variables.iter().map(|v| (String::new(), v));
    let inner = functions.iter().flat_map(|&f| {
        let function = &context.module.functions[f];
        let variables = function.body.iter().flat_map(|b| &b.variables);
        variables.map(|v| (function.name.clone(), v))
    });
    for (owner, variable) in module_level.chain(inner) {
        if variable.space != ast::Space::Shared || (owner.is_empty() && !used.contains(variable.name.as_str())) {
            continue;
        }
        let key = if owner.is_empty() { variable.name.clone() } else { format!("{owner}/{}", variable.name) };
        let align = variable.align.max(1) as u64;
        if variable.external || variable.count == 0 {
            dynamic.push((key, align));
            continue;
        }
        shared = shared.next_multiple_of(align);
        places.insert(key, shared);
        shared = shared.saturating_add(bytes(variable)?);
        if shared > 1 << 20 {
            let what = format!("more than 1 MiB of shared memory ({})", variable.name);
            return Err(LoadError::Unsupported { line: variable.line, what });
        }
    }
    let align = dynamic.iter().map(|d| d.1).max().unwrap_or(1).max(16);
    let static_shared = shared as usize;
    if !dynamic.is_empty() {
        shared = shared.next_multiple_of(align);
        if shared > 1 << 20 {
            let line = context.module.functions[entry].line;
            return Err(LoadError::Unsupported { line, what: format!("shared memory aligned to {align} bytes") });
        }
    }
    let has_dynamic = !dynamic.is_empty();
    places.extend(dynamic.into_iter().map(|(key, _)| (key, shared)));
    let mut specials = Vec::new();
    let drafts = functions
        .iter()
        .map(|&f| Lowering::new(context, f, &places, &index)?.drafts(&mut specials))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sensitive = false;
    let functions: Vec<Function> =
        drafts.into_iter().map(|d| d.place(&specials, &mut sensitive)).collect::<Result<_, _>>()?;
    let addresses = index.iter().map(|(&f, &i)| (FUNCTIONS + 16 * f as u64, i)).collect();
    Ok(Kernel { functions, addresses, specials, static_shared, dynamic_start: shared as usize, has_dynamic, sensitive })
}

/// Bytes of a variable.
pub(crate) fn bytes(variable: &ast::Variable) -> Result<u64, LoadError> {
    let bytes = variable.ty.bytes() as u64 * variable.count as u64;
    if variable.count as u64 > 1 << 36 || bytes > 1 << 36 {
        return Err(LoadError::Unsupported { line: variable.line, what: format!("the size of {}", variable.name) });
    }
    Ok(bytes)
}

/// Every name among the operands of these functions.
fn used_names<'a>(context: &Context<'a>, functions: &[usize]) -> std::collections::HashSet<&'a str> {
    let mut names = std::collections::HashSet::new();
    for instruction in functions.iter().flat_map(|&f| instructions(&context.module.functions[f])) {
        instruction.operands.iter().for_each(|o| names_in(o, &mut |n| _ = names.insert(n)));
    }
    names
}

fn instructions(function: &ast::Function) -> impl Iterator<Item = &Instruction> {
    function.body.iter().flat_map(|b| &b.statements).filter_map(|s| match s {
        Statement::Instruction(i) => Some(i),
        Statement::Label(_) => None,
    })
}

fn names_in<'a>(operand: &'a Operand, found: &mut impl FnMut(&'a str)) {
    match operand {
        Operand::Name(n) | Operand::Offset(n, _) => found(n),
        Operand::Memory { base, .. } | Operand::Not(base) | Operand::Minus(base) => names_in(base, found),
        Operand::Vector(v) | Operand::Tuple(v) => v.iter().for_each(|o| names_in(o, found)),
        Operand::Pair(a, b) => {
            names_in(a, found);
            names_in(b, found);
        }
        Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {}
    }
}

/// The functions that an entry may call, the entry first. An indirect call may reach every function whose address is
/// taken anywhere.
fn reachable(context: &Context<'_>, entry: usize) -> Result<Vec<usize>, LoadError> {
    let mut found = vec![entry];
    let mut seen = std::collections::HashSet::from([entry]);
    let mut at = 0;
    let mut indirect = false;
    context.spend(context.module.variables.len(), 0)?;
    while let Some(&f) = found.get(at) {
        at += 1;
        let function = &context.module.functions[f];
        let body = function.body.as_ref();
        let size = body.map_or(0, |b| b.statements.len() + b.registers.len() + b.variables.len());
        context.spend(4 * size, function.line)?;
        let mut add = |name: &str| {
            if let Some(&g) = context.functions.get(name)
                && context.module.functions[g].body.is_some()
                && seen.insert(g)
            {
                found.push(g);
            }
        };
        let mut wild = false;
        for i in instructions(function).filter(|i| i.opcode == "call") {
            i.operands.iter().for_each(|o| names_in(o, &mut |n| add(n)));
            wild |= callee(i).is_some_and(|name| !context.functions.contains_key(name));
        }
        if wild && !std::mem::replace(&mut indirect, true) {
            let all = context.module.functions.iter().filter_map(|f| f.body.as_ref()).map(|b| b.statements.len() + 1);
            context.spend(all.sum(), function.line)?;
            let everywhere = context.module.functions.iter().flat_map(instructions).filter(|i| i.opcode != "call");
            everywhere.for_each(|i| i.operands.iter().for_each(|o| names_in(o, &mut |n| add(n))));
            for init in context.module.variables.iter().flat_map(|v| &v.init) {
                if let ast::Init::Address { symbol, .. } = init {
                    add(symbol);
                }
            }
        }
    }
    Ok(found)
}

/// The name that a call calls: the first operand that is a plain name.
pub(crate) fn callee(call: &Instruction) -> Option<&str> {
    call.operands.iter().find_map(|o| match o {
        Operand::Name(n) => Some(n.as_str()),
        _ => None,
    })
}

/// A block: drafts `start..end` and where it goes.
struct Block {
    start: usize,
    end: usize,
    successors: Vec<u32>,
    /// The block that follows when nothing jumps.
    through: Option<u32>,
}

/// Drafts of a function, with what is needed to give its registers places.
pub(crate) struct Drafts<'a> {
    lowering: Lowering<'a>,
    drafts: Vec<Draft>,
    blocks: Vec<Block>,
    parameters: Vec<Place>,
    returns: Vec<Place>,
    own: Operands,
    frame_bytes: u32,
}

impl<'a> Lowering<'a> {
    fn new(
        context: &'a Context<'a>,
        index: usize,
        shared: &'a HashMap<String, u64>,
        callees: &'a HashMap<usize, u32>,
    ) -> Result<(Lowering<'a>, u32), LoadError> {
        let function = &context.module.functions[index];
        let Some(body) = &function.body else {
            return Err(LoadError::Undefined { line: function.line, name: function.name.clone() });
        };
        if body.statements.len() > LIMIT || body.registers.len() > LIMIT {
            return Err(LoadError::Unsupported { line: function.line, what: format!("the size of {}", function.name) });
        }
        let mut lowering = Lowering {
            context,
            function,
            registers: HashMap::new(),
            types: Vec::new(),
            symbols: HashMap::new(),
            shared,
            values: Vec::new(),
            interned: HashMap::new(),
            pool: Vec::new(),
            labels: HashMap::new(),
            callees,
        };
        for (name, ty) in &body.registers {
            lowering.register(name, *ty);
        }
        let mut frame = 0u64;
        // what is too large is refused below; until then nothing may overflow
        let mut place = |align: usize, bytes: u64| {
            let offset = frame.next_multiple_of(align.max(4) as u64);
            frame = offset.saturating_add(bytes).min(1 << 32);
            Symbol::Frame { offset: offset as u32, bytes: bytes as u32 }
        };
        let mut offset = 0usize;
        for p in function.params.iter().chain(&function.returns) {
            let bytes = p.ty.bytes() as u64 * p.count as u64;
            if function.entry {
                offset = offset.next_multiple_of(p.align.max(1));
                lowering.symbols.insert(&p.name, Symbol::Param(offset as u32));
                offset = offset.saturating_add(bytes as usize);
                if offset > PARAMETERS {
                    let what = format!("more than {PARAMETERS} bytes of parameters ({})", function.name);
                    return Err(LoadError::Unsupported { line: function.line, what });
                }
            } else if p.space == ast::Space::Reg {
                lowering.register(&p.name, p.ty);
            } else {
                lowering.symbols.insert(&p.name, place(p.align, bytes));
            }
        }
        for variable in &body.variables {
            let key = format!("{}/{}", function.name, variable.name);
            let symbol = match variable.space {
                ast::Space::Shared => shared.get(&key).map(|&a| Symbol::Shared(a)),
                ast::Space::Global | ast::Space::Const => context.globals.get(&key).map(|&a| Symbol::Global(a)),
                _ => Some(place(variable.align, bytes(variable)?)),
            };
            if let Some(symbol) = symbol {
                lowering.symbols.insert(&variable.name, symbol);
            }
        }
        // the hardware's limit of local memory a thread
        if frame > 512 << 10 {
            return Err(LoadError::Unsupported {
                line: function.line,
                what: format!("{frame} bytes of local memory a thread in {}", function.name),
            });
        }
        Ok((lowering, frame.next_multiple_of(16) as u32))
    }

    fn register(&mut self, name: &'a str, ty: Type) {
        self.registers.insert(name, (self.types.len() as u32, ty));
        self.types.push(ty);
    }

    /// The declared type of a register.
    pub(crate) fn register_type(&self, name: &str) -> Option<Type> {
        self.registers.get(name).map(|r| r.1)
    }

    /// What a name means, if it is no register.
    pub(crate) fn symbol(&self, name: &str) -> Option<Symbol> {
        let function = || self.context.functions.get(name).map(|&f| Symbol::Function(FUNCTIONS + 16 * f as u64));
        let shared = || self.shared.get(name).map(|&a| Symbol::Shared(a));
        let global = || self.context.globals.get(name).map(|&a| Symbol::Global(a));
        self.symbols.get(name).copied().or_else(function).or_else(shared).or_else(global)
    }

    /// Adds a value to the operands of the current draft.
    pub(crate) fn push(&mut self, value: Value, role: Role) {
        let next = self.values.len() as u32;
        let id = *self.interned.entry(value).or_insert(next);
        if id == next {
            self.values.push(value);
        }
        self.pool.push((id, role));
    }

    /// Where the operands pushed next begin.
    pub(crate) fn begin(&self) -> u32 {
        self.pool.len() as u32
    }

    /// The operands pushed since.
    pub(crate) fn since(&self, at: u32) -> Operands {
        Operands { at, len: self.pool.len() as u32 - at }
    }

    /// Adds a register by name. `bits` is what the instruction takes: 64 from a 32-bit register would read another's.
    pub(crate) fn push_register(&mut self, name: &str, role: Role, bits: u32, line: u32) -> Result<Type, LoadError> {
        let Some(&(index, ty)) = self.registers.get(name) else {
            return Err(LoadError::Undefined { line, name: name.to_string() });
        };
        let fits = if bits == 1 { ty == Type::Pred } else { ty != Type::Pred && units(ty) == bits.div_ceil(32) as u16 };
        if bits != 0 && !fits {
            return Err(LoadError::Syntax {
                line,
                what: format!("{name} has {} bits, the instruction wants {bits}", ty.bits()),
            });
        }
        self.push(Value::Register(index), role);
        Ok(ty)
    }

    /// Adds whatever stands at an operand's place as a value of type `ty`.
    pub(crate) fn operand(&mut self, operand: &Operand, role: Role, ty: Type, line: u32) -> Result<(), LoadError> {
        let wrong = |what: String| Err(LoadError::Syntax { line, what });
        if let Operand::Name(name) = operand {
            if name == "_" {
                self.push(Value::Scratch, role);
                return Ok(());
            }
            if self.registers.contains_key(name.as_str()) {
                return self.push_register(name, role, ty.bits(), line).map(drop);
            }
            if name == "%cc" {
                self.registers.insert("%cc", (self.types.len() as u32, Type::Pred));
                self.types.push(Type::Pred);
                return self.push_register(name, role, 1, line).map(drop);
            }
        }
        if role == Role::Out {
            return match operand {
                Operand::Name(name) => Err(LoadError::Undefined { line, name: name.clone() }),
                _ => wrong("a register was expected as the destination".into()),
            };
        }
        let value = match operand {
            Operand::Name(name) => match select::special(name) {
                Some(special) if units(ty) <= 2 => Value::Special { special, wide: units(ty) == 2 },
                Some(_) => return wrong(format!("{name} is not {} bits wide", ty.bits())),
                None => self.address(name, 0, ty, line)?,
            },
            Operand::Offset(name, offset) => self.address(name, *offset, ty, line)?,
            Operand::Int(v) if ty == Type::Pred => Value::Truth(*v != 0),
            Operand::Int(v) => match ty {
                // an integer where a float is wanted is its value, not its bits, as in C
                Type::F32 => constant((*v as f32).to_bits() as u64, ty),
                Type::F64 => constant((*v as f64).to_bits(), ty),
                _ => constant(*v as u64, ty),
            },
            Operand::F32(bits) => match ty {
                Type::F64 => constant((f32::from_bits(*bits) as f64).to_bits(), ty),
                _ => constant(*bits as u64, ty),
            },
            Operand::F64(bits) => match ty {
                Type::F32 | Type::B32 | Type::Tf32 => constant((f64::from_bits(*bits) as f32).to_bits() as u64, ty),
                _ => constant(*bits, ty),
            },
            _ => return wrong("a register or a constant was expected".into()),
        };
        self.push(value, role);
        Ok(())
    }

    fn address(&self, name: &str, offset: i64, ty: Type, line: u32) -> Result<Value, LoadError> {
        let plus = |base: u64| base.wrapping_add(offset as u64);
        match self.symbol(name) {
            Some(Symbol::Global(a) | Symbol::Shared(a) | Symbol::Function(a)) => Ok(constant(plus(a), ty)),
            Some(Symbol::Param(a)) => Ok(constant(plus(a as u64), ty)),
            Some(Symbol::Frame { offset, .. }) if matches!(ty.bits(), 32 | 64) => {
                Ok(Value::FrameAddress { offset: plus(offset as u64) as i64, wide: ty.bits() == 64 })
            }
            Some(Symbol::Frame { .. }) => {
                Err(LoadError::Unsupported { line, what: format!("the address of {name} in {} bits", ty.bits()) })
            }
            None => Err(LoadError::Undefined { line, name: name.to_string() }),
        }
    }

    /// The value of the operand pushed first since `begin`.
    pub(crate) fn id_at(&self, begin: u32) -> u32 {
        self.pool[begin as usize].0
    }

    /// The labels of a `.branchtargets` list.
    pub(crate) fn targets(&self, list: &str) -> Option<&'a [String]> {
        let body = self.function.body.as_ref()?;
        body.branch_targets.iter().find(|(name, _)| name == list).map(|(_, targets)| targets.as_slice())
    }

    /// Where an argument, a result or a parameter lies.
    pub(crate) fn place(
        &mut self,
        operand: &Operand,
        parameter: &ast::Parameter,
        role: Role,
        begin: u32,
        line: u32,
    ) -> Result<Place, LoadError> {
        let ty = parameter.ty;
        if let Operand::Name(name) = operand
            && let Some(Symbol::Frame { offset, bytes }) = self.symbol(name)
        {
            let wanted = ty.bytes() as u64 * parameter.count as u64;
            if wanted > bytes as u64 {
                let what = format!("{name} has {bytes} bytes, the parameter {} has {wanted}", parameter.name);
                return Err(LoadError::Syntax { line, what });
            }
            return Ok(Place::Memory { offset, bytes: wanted as u32 });
        }
        if ty == Type::Pred {
            return Err(LoadError::Unsupported { line, what: format!("a predicate as parameter {}", parameter.name) });
        }
        self.operand(operand, role, ty, line)?;
        Ok(Place::Register { operand: self.begin() - begin - 1, units: units(ty) })
    }
}

fn constant(bits: u64, ty: Type) -> Value {
    let bits = if ty.bits() >= 64 { bits } else { bits & ((1 << ty.bits()) - 1) };
    Value::Constant { bits, units: units(ty) }
}

trait DraftsOf<'a> {
    fn drafts(self, specials: &mut Vec<(Special, bool)>) -> Result<Drafts<'a>, LoadError>;
}

impl<'a> DraftsOf<'a> for (Lowering<'a>, u32) {
    fn drafts(self, specials: &mut Vec<(Special, bool)>) -> Result<Drafts<'a>, LoadError> {
        let (mut lowering, frame_bytes) = self;
        let function = lowering.function;
        let statements: &'a [Statement] = function.body.as_ref().map(|b| b.statements.as_slice()).unwrap_or_default();
        // labels first: branches may go forward
        let mut starts = vec![0usize];
        let mut count = 0;
        for (i, statement) in statements.iter().enumerate() {
            match statement {
                Statement::Label(name) => {
                    if starts.last() != Some(&count) {
                        starts.push(count);
                    }
                    lowering.labels.insert(name, starts.len() as u32 - 1);
                }
                Statement::Instruction(instruction) => {
                    count += 1;
                    let ends = matches!(instruction.opcode.as_str(), "bra" | "brx" | "ret" | "exit" | "trap");
                    if ends && i + 1 < statements.len() && starts.last() != Some(&count) {
                        starts.push(count);
                    }
                }
            }
        }
        let own_begin = lowering.begin();
        let mut own_place = |p: &'a ast::Parameter, role| {
            lowering.place(&Operand::Name(p.name.clone()), p, role, own_begin, function.line)
        };
        let (mut parameters, mut returns) = (Vec::new(), Vec::new());
        if !function.entry {
            for p in &function.params {
                parameters.push(own_place(p, Role::Out)?);
            }
            for p in &function.returns {
                returns.push(own_place(p, Role::In)?);
            }
        }
        let own = lowering.since(own_begin);
        let mut drafts: Vec<Draft> = Vec::with_capacity(count + 1);
        for statement in statements {
            if let Statement::Instruction(instruction) = statement {
                let draft = select::draft(&mut lowering, instruction)?;
                drafts.push(draft);
            }
        }
        // the end of the text is an end of the function
        let line = drafts.last().map_or(function.line, |d| d.info.line);
        let location = drafts.last().map_or(Default::default(), |d| d.info.location);
        drafts.push(Draft {
            guard: None,
            action: if function.entry { Action::Exit } else { Action::Return },
            operands: Operands::default(),
            info: OpInfo { line, location, form: "ret".into(), class: Class::Control, fma: 0 },
        });
        let mut blocks = Vec::with_capacity(starts.len());
        for (b, &start) in starts.iter().enumerate() {
            let end = starts.get(b + 1).copied().unwrap_or(drafts.len());
            let next = (b + 1 < starts.len()).then_some(b as u32 + 1);
            let last = (end > start).then(|| &drafts[end - 1]);
            let (mut successors, falls) = match last.map(|d| (&d.action, d.guard.is_some())) {
                Some((Action::Jump { target }, guarded)) => (vec![*target], guarded),
                Some((Action::Switch(s), guarded)) => (s.targets.clone(), guarded),
                Some((Action::Return | Action::Exit | Action::Trap, guarded)) => (Vec::new(), guarded),
                _ => (Vec::new(), true),
            };
            let through = if falls { next } else { None };
            successors.extend(through);
            successors.sort_unstable();
            successors.dedup();
            blocks.push(Block { start, end, successors, through });
        }
        for value in &lowering.values {
            if let Value::Special { special, wide } = *value
                && !specials.contains(&(special, wide))
            {
                specials.push((special, wide));
            }
        }
        Ok(Drafts { lowering, drafts, blocks, parameters, returns, own, frame_bytes })
    }
}

impl Drafts<'_> {
    /// Lays the blocks out, gives every value a place, and writes the code.
    fn place(self, specials: &[(Special, bool)], sensitive: &mut bool) -> Result<Function, LoadError> {
        let Drafts { lowering, drafts, blocks, parameters, returns, own, frame_bytes } = self;
        let Lowering { context, values, pool, types, function, .. } = lowering;
        let register = |id: u32| match values[id as usize] {
            Value::Register(r) => Some(r as usize),
            _ => None,
        };
        let order = flow::layout(&blocks.iter().map(|b| b.successors.clone()).collect::<Vec<_>>());
        // Positions: a draft is one, and so is a jump that the layout needs.
        let mut position = vec![0u32; blocks.len() + 1];
        let mut jump_after = vec![false; blocks.len()];
        let mut at = 0u32;
        for (i, &b) in order.iter().enumerate() {
            position[b as usize] = at;
            let block = &blocks[b as usize];
            at += (block.end - block.start) as u32;
            if let Some(through) = block.through
                && order.get(i + 1) != Some(&through)
            {
                jump_after[b as usize] = true;
                at += 1;
            }
        }
        let total = at;
        let touched = |draft: &Draft| pool[draft.operands.at as usize..][..draft.operands.len as usize].to_vec();
        let returns_here = |draft: &Draft| matches!(draft.action, Action::Return);
        let own_values = &pool[own.at as usize..][..own.len as usize];
        // Liveness: four sets of registers a block.
        context.spend(blocks.len().saturating_mul(types.len().div_ceil(64)), function.line)?;
        let effects: Vec<Effect> = blocks
            .iter()
            .map(|block| {
                let (mut uses, mut kills) = (Bits::new(types.len()), Bits::new(types.len()));
                for draft in drafts[block.start..block.end].iter().rev() {
                    step_back(draft, &touched(draft), register, &mut |r, write| {
                        if write {
                            uses.remove(r);
                            kills.insert(r);
                        } else {
                            uses.insert(r);
                        }
                    });
                    if returns_here(draft) {
                        own_values
                            .iter()
                            .filter(|v| v.1 == Role::In)
                            .filter_map(|v| register(v.0))
                            .for_each(|r| uses.insert(r));
                    }
                }
                Effect { uses, kills, successors: block.successors.clone() }
            })
            .collect();
        let out = flow::live_out(&effects);
        // An instruction at position p reads at 2p and writes at 2p + 1.
        let mut intervals: Vec<Option<Interval>> = vec![None; types.len()];
        let mut touch = |r: usize, at: u32| {
            let predicate = types[r] == Type::Pred;
            let v = intervals[r].get_or_insert(Interval { first: at, last: at, units: units(types[r]), predicate });
            (v.first, v.last) = (v.first.min(at), v.last.max(at));
        };
        let weight = |r: usize| if types[r] == Type::Pred { 0 } else { units(types[r]) as u32 };
        let mut pressure = 0;
        let mut dead = vec![false; drafts.len()];
        let mut undefined = Vec::new();
        for (b, block) in blocks.iter().enumerate() {
            let length = (block.end - block.start) as u32 + jump_after[b] as u32;
            let mut live = out[b].clone();
            let mut now: u32 = live.iter().map(weight).sum();
            pressure = pressure.max(now);
            live.iter().for_each(|r| touch(r, 2 * (position[b] + length) - (length > 0) as u32));
            for (i, draft) in drafts[block.start..block.end].iter().enumerate().rev() {
                let here = position[b] + i as u32;
                let operands = touched(draft);
                for &(id, role) in &operands {
                    if let Some(r) = register(id) {
                        touch(r, 2 * here + (role == Role::Out) as u32);
                        dead[block.start + i] |= role == Role::Out && !live.contains(r);
                    } else if role == Role::Out && values[id as usize] == Value::Scratch {
                        dead[block.start + i] = true;
                    }
                }
                if let Some(r) = draft.guard.and_then(|g| register(g.0)) {
                    touch(r, 2 * here);
                }
                step_back(draft, &operands, register, &mut |r, write| {
                    if write && live.contains(r) {
                        live.remove(r);
                        now -= weight(r);
                    } else if !write && !live.contains(r) {
                        live.insert(r);
                        now += weight(r);
                    }
                });
                if returns_here(draft) {
                    for r in own_values.iter().filter(|v| v.1 == Role::In).filter_map(|v| register(v.0)) {
                        touch(r, 2 * here);
                        if !live.contains(r) {
                            live.insert(r);
                            now += weight(r);
                        }
                    }
                }
                pressure = pressure.max(now);
            }
            live.iter().for_each(|r| touch(r, 2 * position[b]));
            if b == 0 {
                undefined = live.iter().collect();
            }
        }
        // parameters in registers are written by the call, before the first instruction
        own_values.iter().filter_map(|v| register(v.0)).for_each(|r| touch(r, 0));
        // Places: specials, constants, scratch, registers.
        let mut constants: Vec<Unit> = Vec::new();
        let mut frame_addresses = Vec::new();
        let base = 2 * specials.len() as u32;
        let mut places = vec![0u32; values.len()];
        for (id, value) in values.iter().enumerate() {
            let next = base + constants.len() as u32;
            match *value {
                Value::Special { special, wide } => {
                    let at = specials.iter().position(|&s| s == (special, wide)).unwrap_or(0);
                    places[id] = 2 * at as u32;
                }
                Value::Constant { bits, units } => {
                    places[id] = next;
                    constants.extend(broadcast(bits, units));
                }
                Value::Truth(all) => {
                    places[id] = next;
                    constants.push(Unit([if all { u32::MAX } else { 0 }; 32]));
                }
                Value::FrameAddress { offset, wide } => {
                    places[id] = next;
                    frame_addresses.push((next, offset, wide));
                    constants.extend(broadcast(0, 1 + wide as u16));
                }
                Value::Scratch | Value::Register(_) => {}
            }
        }
        let scratch = base + constants.len() as u32;
        let (registers, top) = flow::allocate(&intervals, scratch + 4);
        for (id, value) in values.iter().enumerate() {
            match *value {
                Value::Scratch => places[id] = scratch,
                Value::Register(r) => places[id] = registers[r as usize],
                _ => {}
            }
        }
        if top >= NONE as u32 {
            let what = format!("{top} registers, constants and special registers in {}", function.name);
            return Err(LoadError::Unsupported { line: function.line, what });
        }
        let undefined = undefined
            .into_iter()
            .filter(|&r: &usize| !own_values.iter().any(|v| v.1 == Role::Out && register(v.0) == Some(r)))
            .flat_map(|r| (0..units(types[r])).map(move |u| (r, u)))
            .map(|(r, u)| (registers[r] as u16 + u, poison(types[r])))
            .collect();
        // The code.
        let mut code = Vec::with_capacity(total as usize);
        let mut info = Vec::with_capacity(total as usize);
        let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
        for &b in &order {
            let block = &blocks[b as usize];
            for i in block.start..block.end {
                let Some(mut draft) = drafts[i].take() else { continue };
                match &mut draft.action {
                    Action::Jump { target } => *target = position[*target as usize],
                    Action::Switch(s) => s.targets.iter_mut().for_each(|t| *t = position[*t as usize]),
                    Action::Atomic(atomic) => {
                        let used = atomic.result && !dead[i];
                        let exact = !atomic.ty.float() && atomic.combine != Combine::Exchange;
                        let cas = atomic.combine == Combine::CompareAndSwap;
                        *sensitive |= atomic.address.space != Space::Shared && (used || !exact || cas);
                    }
                    Action::Load(access) => {
                        *sensitive |= access.order.strong && access.address.space != Space::Shared;
                    }
                    _ => {}
                }
                let (guard, negate) = match draft.guard {
                    Some((id, negated)) => (places[id as usize] as u16, if negated { u32::MAX } else { 0 }),
                    None => (NONE, 0),
                };
                code.push(Op { guard, negate, action: draft.action });
                info.push(draft.info);
            }
            if jump_after[b as usize]
                && let Some(through) = block.through
            {
                code.push(Op { guard: NONE, negate: 0, action: Action::Jump { target: position[through as usize] } });
                let (form, class) = ("jump".into(), Class::Control);
                info.push(OpInfo { line: 0, location: Default::default(), form, class, fma: 0 });
            }
        }
        Ok(Function {
            name: function.name.clone(),
            code,
            info,
            pool: pool.iter().map(|&(id, _)| places[id as usize] as u16).collect(),
            units: top as usize,
            constants,
            frame_addresses: frame_addresses.into_iter().map(|(p, o, wide)| (p as u16, o, wide)).collect(),
            undefined,
            frame_bytes,
            parameters,
            returns,
            own,
            pressure,
        })
    }
}

/// What a draft does to registers, seen from its end to its start. A guarded write may leave the old value.
fn step_back(
    draft: &Draft,
    operands: &[(u32, Role)],
    register: impl Fn(u32) -> Option<usize>,
    effect: &mut impl FnMut(usize, bool),
) {
    for &(id, role) in operands {
        if let (Some(r), Role::Out) = (register(id), role) {
            effect(r, draft.guard.is_none());
        }
    }
    for &(id, role) in operands {
        if let (Some(r), Role::In) = (register(id), role) {
            effect(r, false);
        }
    }
    if let Some(r) = draft.guard.and_then(|g| register(g.0)) {
        effect(r, false);
    }
}

fn broadcast(bits: u64, units: u16) -> Vec<Unit> {
    match units {
        1 => vec![Unit([bits as u32; 32])],
        _ => {
            let pair: [u32; 2] = [bits as u32, (bits >> 32) as u32];
            let mut all: Vec<Unit> = (0..2).map(|_| Unit(std::array::from_fn(|w| pair[w % 2]))).collect();
            // the upper half of 128 bits is zero: such constants are not written in PTX
            all.extend((2..units).map(|_| Unit([0; 32])));
            all
        }
    }
}

/// Bytes that the local window is above a frame address.
pub(crate) const LOCAL: u64 = LOCAL_WINDOW;
