//! PTX text to syntax tree (PTX ISA chapters 4, 5, 6, 7 and 11).
//!
//! Recursive descent over the tokens, one pass. Everything is bounded by the length of the text: nesting by constants,
//! register ranges and padded initialisers, which say much in few characters, by `Parser::budget`.

use super::SyntaxError;
use super::ast::*;
use super::constant::{Constant, PRODUCT};
use super::lexer::{self, Kind, Token};
use super::scope::{self, PARAMETERS, Scopes};
use std::collections::{HashMap, HashSet};

/// Scopes inside of each other.
const SCOPES: usize = 64;
/// `{ [ ( ! -` inside of each other in an operand.
const OPERANDS: u32 = 8;
/// Extents of an array, its vector width included.
const EXTENTS: usize = 16;
/// Registers and padding elements that a text may declare beyond one for each of its bytes.
const BUDGET: usize = 1 << 18;

/// Parses PTX text.
pub fn parse(text: &str) -> Result<Module, SyntaxError> {
    let mut parser = Parser::new(text)?;
    parser.module()?;
    Ok(parser.finish())
}

/// Parses PTX as a program hands it over: up to the first NUL, if there is one. Bytes that are not UTF-8 may stand in
/// comments and strings only.
pub fn parse_bytes(bytes: &[u8]) -> Result<Module, SyntaxError> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    // The replacement character is no token.
    parse(&String::from_utf8_lossy(&bytes[..end]))
}

pub(super) struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    at: usize,
    budget: usize,
    module: Module,
    /// All names of the module's variables and functions.
    names: HashSet<String>,
    /// Index of a function in `module.functions`.
    functions: HashMap<String, usize>,
}

/// What stands before a declaration.
#[derive(Default)]
struct Linkage {
    external: bool,
}

/// A declaration's type, without the name and extents.
struct Typed {
    ty: Type,
    /// 0 for a scalar.
    width: usize,
    align: Option<usize>,
}

impl Typed {
    fn align(&self) -> usize {
        self.align.unwrap_or(self.ty.bytes() * self.width.max(1))
    }
}

/// A function's body while it is read.
struct Context<'m> {
    scopes: Scopes<'m>,
    body: Body,
    /// The scope of each statement, variable, target list and prototype.
    statement_scopes: Vec<usize>,
    /// Scope and statements before.
    variable_scopes: Vec<(usize, usize)>,
    list_scopes: Vec<usize>,
    scope: usize,
    location: Location,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Result<Parser<'t>, SyntaxError> {
        Ok(Parser {
            tokens: lexer::tokens(text)?,
            at: 0,
            budget: BUDGET.saturating_add(text.len()),
            module: Module::default(),
            names: HashSet::new(),
            functions: HashMap::new(),
        })
    }

    // Tokens.

    fn ahead(&self, by: usize) -> Kind<'t> {
        self.tokens.get(self.at + by).map_or(Kind::End, |t| t.kind)
    }

    pub(super) fn peek(&self) -> Kind<'t> {
        self.ahead(0)
    }

    pub(super) fn advance(&mut self) -> Kind<'t> {
        let kind = self.peek();
        if kind != Kind::End {
            self.at += 1;
        }
        kind
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    pub(super) fn error(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line(), what: what.into() }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> SyntaxError {
        let found = match self.peek() {
            Kind::Name(name) => format!("`{name}`"),
            Kind::Dot(name) => format!("`.{name}`"),
            Kind::Int { bits, .. } => format!("`{bits}`"),
            Kind::F32(bits) => format!("`0f{bits:08X}`"),
            Kind::F64(bits) => format!("`0d{bits:016X}`"),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Sym(sym) => format!("`{sym}`"),
            Kind::End => "the end of the text".to_owned(),
        };
        self.error(format!("{wanted} is expected, not {found}"))
    }

    fn unsupported(&self, what: &str) -> SyntaxError {
        self.error(format!("{what} is not supported"))
    }

    fn is(&self, sym: &str) -> bool {
        self.peek() == Kind::Sym(sym)
    }

    pub(super) fn eat(&mut self, sym: &str) -> bool {
        let found = self.is(sym);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect(&mut self, sym: &str) -> Result<(), SyntaxError> {
        if self.eat(sym) { Ok(()) } else { Err(self.unexpected(&format!("`{sym}`"))) }
    }

    fn name(&mut self) -> Result<&'t str, SyntaxError> {
        match self.peek() {
            Kind::Name(name) => {
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    fn small(&mut self) -> Result<u32, SyntaxError> {
        match self.peek() {
            Kind::Int { bits, .. } => {
                let value = u32::try_from(bits).map_err(|_| self.error(format!("{bits} is too large")))?;
                self.advance();
                Ok(value)
            }
            _ => Err(self.unexpected("a number")),
        }
    }

    fn spend(&mut self, count: usize) -> Result<(), SyntaxError> {
        self.budget = self
            .budget
            .checked_sub(count)
            .ok_or_else(|| self.error("more registers or elements are declared than a text of this length can use"))?;
        Ok(())
    }

    // The module.

    fn module(&mut self) -> Result<(), SyntaxError> {
        if self.peek() != Kind::Dot("version") {
            return Err(self.unexpected("`.version`"));
        }
        loop {
            let Kind::Dot(directive) = self.peek() else {
                if self.peek() == Kind::End {
                    break;
                }
                if self.eat(";") {
                    continue;
                }
                return Err(self.unexpected("a directive"));
            };
            match directive {
                "version" => self.version()?,
                "target" => self.target()?,
                "address_size" => {
                    self.advance();
                    if self.small()? != 64 {
                        return Err(self.unsupported("an `.address_size` other than 64"));
                    }
                }
                "file" => self.file()?,
                "section" => self.section()?,
                "pragma" => self.pragma()?,
                "loc" => {
                    self.loc()?;
                }
                "alias" => self.alias()?,
                "visible" | "extern" | "weak" | "common" | "entry" | "func" | "global" | "const" | "shared" => {
                    self.declaration()?;
                }
                _ => return Err(self.unsupported(&format!("`.{directive}` here"))),
            }
        }
        if self.module.target == 0 {
            return Err(self.error("there is no `.target`"));
        }
        Ok(())
    }

    /// A prototype is dropped when the function is defined elsewhere in the text.
    fn finish(self) -> Module {
        let mut module = self.module;
        let functions = self.functions;
        let mut index = 0;
        module.functions.retain(|function| {
            let last = functions.get(&function.name) == Some(&index);
            index += 1;
            last
        });
        module
    }

    fn version(&mut self) -> Result<(), SyntaxError> {
        self.advance();
        // `8.4` reads as a number; its shortest decimal form has the digits back.
        let Kind::F64(bits) = self.peek() else { return Err(self.unexpected("a version")) };
        let text = f64::from_bits(bits).to_string();
        let (major, minor) = text.split_once('.').unwrap_or((&text, "0"));
        self.module.version = match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => (major, minor),
            _ => return Err(self.unexpected("a version")),
        };
        self.advance();
        Ok(())
    }

    fn target(&mut self) -> Result<(), SyntaxError> {
        self.advance();
        loop {
            let name = self.name()?;
            if let Some(architecture) = name.strip_prefix("sm_") {
                let digits = architecture.trim_end_matches(['a', 'f']);
                match digits.parse() {
                    Ok(sm) if sm > 0 && architecture.len() - digits.len() < 2 => self.module.target = sm,
                    _ => return Err(self.error(format!("`{name}` is not a target"))),
                }
            } else if !matches!(name, "debug" | "texmode_unified" | "texmode_independent" | "map_f64_to_f32") {
                return Err(self.error(format!("`{name}` is not a target")));
            } else if name == "map_f64_to_f32" {
                return Err(self.unsupported("`map_f64_to_f32`"));
            }
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    /// `.file index "name", timestamp, size`
    fn file(&mut self) -> Result<(), SyntaxError> {
        self.advance();
        let index = self.small()?;
        let Kind::Text(name) = self.peek() else { return Err(self.unexpected("a file name")) };
        self.advance();
        self.module.files.push((index, name.to_owned()));
        for _ in 0..2 {
            if self.eat(",") {
                self.integer()?;
            }
        }
        Ok(())
    }

    /// `.section .debug_info { ... }`: DWARF, which nobody reads.
    fn section(&mut self) -> Result<(), SyntaxError> {
        self.advance();
        self.advance();
        self.expect("{")?;
        let mut depth = 1_usize;
        while depth > 0 {
            match self.advance() {
                Kind::Sym("{") => depth += 1,
                Kind::Sym("}") => depth -= 1,
                Kind::End => return Err(self.error("a `.section` does not end")),
                _ => {}
            }
        }
        Ok(())
    }

    /// `.pragma "string", "string";`: hints for the optimiser.
    fn pragma(&mut self) -> Result<(), SyntaxError> {
        self.advance();
        loop {
            let Kind::Text(_) = self.peek() else { return Err(self.unexpected("a string")) };
            self.advance();
            if !self.eat(",") {
                return self.expect(";");
            }
        }
    }

    /// `.loc file line column, function_name label+offset, inlined_at file line column`
    fn loc(&mut self) -> Result<Location, SyntaxError> {
        self.advance();
        let location = Location { file: self.small()?, line: self.small()? };
        self.small()?;
        while self.is(",") {
            self.advance();
            match self.peek() {
                Kind::Name("function_name") => {
                    self.advance();
                    self.name()?;
                    if self.eat("+") {
                        self.integer()?;
                    }
                }
                Kind::Name("inlined_at") => {
                    self.advance();
                    for _ in 0..3 {
                        self.small()?;
                    }
                }
                _ => return Err(self.unexpected("`function_name` or `inlined_at`")),
            }
        }
        Ok(location)
    }

    /// `.alias name, function;`
    fn alias(&mut self) -> Result<(), SyntaxError> {
        self.advance();
        let name = self.name()?;
        self.expect(",")?;
        let function = self.name()?;
        self.expect(";")?;
        self.module.aliases.push((name.to_owned(), function.to_owned()));
        Ok(())
    }

    fn linkage(&mut self) -> Linkage {
        let mut linkage = Linkage::default();
        while let Kind::Dot(word @ ("visible" | "extern" | "weak" | "common")) = self.peek() {
            linkage.external |= word == "extern";
            self.advance();
        }
        linkage
    }

    fn declaration(&mut self) -> Result<(), SyntaxError> {
        let linkage = self.linkage();
        match self.peek() {
            Kind::Dot("entry") => self.function(true),
            Kind::Dot("func") => self.function(false),
            Kind::Dot("global" | "const" | "shared") => {
                for variable in self.variables(&linkage)? {
                    // A declaration and its definition may both be there.
                    let name = variable.name.clone();
                    if !self.names.insert(name.clone()) {
                        match self.module.variables.iter_mut().find(|v| v.name == name) {
                            Some(_) if variable.external => continue,
                            Some(old) if old.external => {
                                *old = variable;
                                continue;
                            }
                            _ => return Err(self.twice(&name)),
                        }
                    }
                    self.module.variables.push(variable);
                }
                Ok(())
            }
            _ => Err(self.unexpected("`.entry`, `.func` or a state space")),
        }
    }

    fn twice(&self, name: &str) -> SyntaxError {
        self.error(format!("`{name}` is declared twice"))
    }

    // Declarations.

    fn space(&mut self) -> Result<Space, SyntaxError> {
        let space = match self.peek() {
            Kind::Dot("reg") => Space::Reg,
            Kind::Dot("const") => Space::Const,
            Kind::Dot("global") => Space::Global,
            Kind::Dot("local") => Space::Local,
            Kind::Dot("param") => Space::Param,
            Kind::Dot("shared" | "shared::cta") => Space::Shared,
            _ => return Err(self.unexpected("a state space")),
        };
        self.advance();
        Ok(space)
    }

    /// `.align 16 .v4 .f32`, and `.ptr .global .align 4`, which tells what a parameter points to.
    fn typed(&mut self, parameter: bool) -> Result<Typed, SyntaxError> {
        let (mut ty, mut width, mut align, mut pointer) = (None, 0, None, false);
        while let Kind::Dot(word) = self.peek() {
            match word {
                "align" => {
                    self.advance();
                    let bytes = self.small()?;
                    if !bytes.is_power_of_two() {
                        return Err(self.error(format!("an alignment of {bytes} is no power of two")));
                    }
                    if !pointer {
                        align = Some(bytes as usize);
                    }
                    continue;
                }
                "ptr" if parameter => pointer = true,
                "global" | "const" | "local" | "shared" if pointer => {}
                "v2" if width == 0 => width = 2,
                "v4" if width == 0 => width = 4,
                _ => match Type::named(word) {
                    Some(Type::E4m3 | Type::E5m2 | Type::E4m3x2 | Type::E5m2x2) | None => {
                        return Err(self.unsupported(&format!("`.{word}` in a declaration")));
                    }
                    Some(_) if ty.is_some() => return Err(self.unexpected("a name")),
                    named => ty = named,
                },
            }
            self.advance();
        }
        match ty {
            Some(ty) => Ok(Typed { ty, width, align }),
            None => Err(self.unexpected("a type")),
        }
    }

    /// `[2][3]`, the vector width last; the first extent may be missing and is `None` then.
    fn extents(&mut self, width: usize) -> Result<(Option<usize>, Vec<usize>), SyntaxError> {
        let mut extents = Vec::new();
        let mut open = false;
        while self.eat("[") {
            if self.is("]") && extents.is_empty() && !open {
                open = true;
            } else {
                let extent = self.integer()?;
                let extent = usize::try_from(extent).ok().filter(|e| *e > 0 && *e <= isize::MAX as usize);
                extents.push(extent.ok_or_else(|| self.error("an extent must be positive"))?);
            }
            self.expect("]")?;
            if extents.len() > EXTENTS {
                return Err(self.error("too many extents"));
            }
        }
        if width > 0 {
            extents.push(width);
        }
        let first = match open {
            true => None,
            false if extents.is_empty() => Some(1),
            false => Some(extents.remove(0)),
        };
        Ok((first, extents))
    }

    fn product(&self, ty: Type, first: usize, rest: &[usize]) -> Result<usize, SyntaxError> {
        let count = rest.iter().try_fold(first, |product, extent| product.checked_mul(*extent));
        count
            .filter(|c| c.checked_mul(ty.bytes()).is_some_and(|bytes| isize::try_from(bytes).is_ok()))
            .ok_or_else(|| self.error("the array is too large"))
    }

    /// `.global .align 4 .b8 a[24] = {...}, b;`, in any space but `.reg`.
    fn variables(&mut self, linkage: &Linkage) -> Result<Vec<Variable>, SyntaxError> {
        let space = self.space()?;
        let typed = self.typed(false)?;
        if typed.ty == Type::Pred {
            return Err(self.unsupported("a `.pred` variable"));
        }
        let mut variables = Vec::new();
        loop {
            let line = self.line();
            let name = self.name()?.to_owned();
            let (first, rest) = self.extents(typed.width)?;
            let row = self.product(typed.ty, 1, &rest)?;
            let mut count = self.product(typed.ty, first.unwrap_or(0), &rest)?;
            let mut init = Vec::new();
            if self.eat("=") {
                if !matches!(space, Space::Global | Space::Const) || linkage.external {
                    return Err(self.error(format!("`{name}` cannot have an initial value")));
                }
                if self.is("{") {
                    let limit = if first.is_none() { usize::MAX } else { count };
                    self.elements(typed.ty, &rest, limit, &mut init, EXTENTS)?;
                    if first.is_none() {
                        count = self.product(typed.ty, init.len().div_ceil(row), &rest)?;
                    }
                } else {
                    init.push(self.initial(typed.ty)?);
                }
            } else if first.is_none() && !linkage.external && space != Space::Param {
                return Err(self.error(format!("`{name}` has no extent")));
            }
            if init.len() > count {
                return Err(self.error(format!("`{name}` has too many initial values")));
            }
            let (ty, align, external) = (typed.ty, typed.align(), linkage.external);
            variables.push(Variable { name, space, ty, align, count, init, external, line });
            if !self.eat(",") {
                self.expect(";")?;
                return Ok(variables);
            }
        }
    }

    /// `{1, 2, {3}}` as in C: inner braces fill one row each, of the `rest` extents.
    fn elements(
        &mut self,
        ty: Type,
        rest: &[usize],
        limit: usize,
        init: &mut Vec<Init>,
        depth: usize,
    ) -> Result<(), SyntaxError> {
        let Some(depth) = depth.checked_sub(1) else { return Err(self.error("too many braces")) };
        self.expect("{")?;
        let start = init.len();
        while !self.eat("}") {
            if self.is("{") {
                let Some((_, inner)) = rest.split_first() else { return Err(self.error("too many braces")) };
                // Known not to overflow: the variable's own size has been computed.
                let row = rest.iter().product::<usize>();
                self.pad(start, row, init)?;
                let end = init.len().saturating_add(row);
                self.elements(ty, inner, end, init, depth)?;
                self.pad(start, row, init)?;
            } else {
                init.push(self.initial(ty)?);
            }
            if init.len() > limit {
                return Err(self.error("too many initial values"));
            }
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(())
    }

    /// Zeros up to the next multiple of `row` behind `start`.
    fn pad(&mut self, start: usize, row: usize, init: &mut Vec<Init>) -> Result<(), SyntaxError> {
        let zeros = (row - (init.len() - start) % row) % row;
        self.spend(zeros)?;
        init.resize(init.len() + zeros, Init::Bits(0));
        Ok(())
    }

    fn initial(&mut self, ty: Type) -> Result<Init, SyntaxError> {
        match self.peek() {
            Kind::Name("generic") if self.ahead(1) == Kind::Sym("(") => {
                self.advance();
                self.advance();
                let symbol = self.name()?.to_owned();
                let inside = self.offset()?;
                self.expect(")")?;
                let offset = inside.wrapping_add(self.offset()?);
                return self.address(ty, symbol, offset, true);
            }
            Kind::Name(symbol) if symbol != "WARP_SZ" => {
                self.advance();
                let offset = self.offset()?;
                return self.address(ty, symbol.to_owned(), offset, false);
            }
            _ => {}
        }
        let value = self.constant()?;
        if self.is("(") {
            return Err(self.unsupported("the mask operator `0xFF(symbol)`"));
        }
        let bits = match (ty, value) {
            (Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::Tf32 | Type::B128, _) => {
                return Err(self.unsupported("an initial value of this type"));
            }
            (Type::F32, Constant::Single(bits)) => u64::from(bits),
            (Type::F32, value) => u64::from((value.double() as f32).to_bits()),
            (Type::F64, value) => value.double().to_bits(),
            (_, Constant::Signed(_) | Constant::Unsigned(_)) => value.integer().unwrap_or(0) & mask(ty),
            (Type::B32, Constant::Single(bits)) => u64::from(bits),
            (Type::B64, Constant::Double(v)) => v.to_bits(),
            _ => return Err(self.error("an integer is expected")),
        };
        Ok(Init::Bits(bits))
    }

    fn address(&self, ty: Type, symbol: String, offset: i64, generic: bool) -> Result<Init, SyntaxError> {
        match ty.bytes() {
            4 | 8 if !ty.float() => Ok(Init::Address { symbol, offset, generic }),
            _ => Err(self.unsupported("an address in a variable of this type")),
        }
    }

    /// `+4`, `-4*2`, `+-8`, any number of them; 0 if there is none.
    fn offset(&mut self) -> Result<i64, SyntaxError> {
        let mut offset = 0_i64;
        while let Kind::Sym(sign @ ("+" | "-")) = self.peek() {
            self.advance();
            let term = self.term(PRODUCT)?.integer().ok_or_else(|| self.error("an integer is expected"))? as i64;
            offset = if sign == "+" { offset.wrapping_add(term) } else { offset.wrapping_sub(term) };
        }
        Ok(offset)
    }

    // Functions.

    /// `(.param .b32 a, .param .align 8 .b8 b[16])`
    fn parameters(&mut self, entry: bool) -> Result<Vec<Parameter>, SyntaxError> {
        let mut parameters = Vec::new();
        self.expect("(")?;
        if self.eat(")") {
            return Ok(parameters);
        }
        loop {
            let space = self.space()?;
            if !(space == Space::Param || space == Space::Reg && !entry) {
                return Err(self.error("a parameter is in `.param`"));
            }
            let typed = self.typed(true)?;
            if typed.ty == Type::Pred && space == Space::Param {
                return Err(self.unsupported("a `.pred` parameter in `.param`"));
            }
            let name = self.name()?.to_owned();
            let (first, rest) = self.extents(typed.width)?;
            let count = self.product(typed.ty, first.unwrap_or(0), &rest)?;
            if space == Space::Reg && count != 1 {
                return Err(self.unsupported("an array or vector parameter in `.reg`"));
            }
            let last = first.is_none();
            parameters.push(Parameter { name, space, ty: typed.ty, align: typed.align(), count });
            if last || !self.eat(",") {
                self.expect(")")?;
                return Ok(parameters);
            }
        }
    }

    fn function(&mut self, entry: bool) -> Result<(), SyntaxError> {
        self.advance();
        let returns = if !entry && self.is("(") { self.parameters(false)? } else { Vec::new() };
        let line = self.line();
        let name = self.name()?.to_owned();
        let params = if self.is("(") { self.parameters(entry)? } else { Vec::new() };
        let mut function = Function {
            name,
            entry,
            params,
            returns,
            body: None,
            max_threads: None,
            required_threads: None,
            min_blocks: None,
            max_registers: None,
            required_cluster: None,
            line,
        };
        self.tuning(&mut function)?;
        self.names.insert(function.name.clone());
        if !self.eat(";") {
            function.body = Some(self.body(&function)?);
        }
        let index = self.module.functions.len();
        match self.functions.get(&function.name) {
            Some(&old) if function.body.is_some() && self.module.functions[old].body.is_some() => {
                return Err(SyntaxError { line, what: format!("`{}` is defined twice", function.name) });
            }
            Some(&old) if self.module.functions[old].body.is_some() => {}
            _ => {
                self.functions.insert(function.name.clone(), index);
            }
        }
        self.module.functions.push(function);
        Ok(())
    }

    /// `128, 1, 1`: up to three extents.
    fn dimensions(&mut self) -> Result<[u32; 3], SyntaxError> {
        let mut extents = [1; 3];
        for (axis, extent) in extents.iter_mut().enumerate() {
            if axis > 0 && !self.eat(",") {
                break;
            }
            *extent = self.small()?;
        }
        Ok(extents)
    }

    /// The directives between a function's parameters and its body (PTX ISA 11.4 to 11.7).
    fn tuning(&mut self, function: &mut Function) -> Result<(), SyntaxError> {
        while let Kind::Dot(directive) = self.peek() {
            if directive == "pragma" {
                self.pragma()?;
                continue;
            }
            self.advance();
            match directive {
                "maxntid" => function.max_threads = Some(self.dimensions()?),
                "reqntid" => function.required_threads = Some(self.dimensions()?),
                "minnctapersm" => function.min_blocks = Some(self.small()?),
                "maxnreg" => function.max_registers = Some(self.small()?),
                "reqnctapercluster" => function.required_cluster = Some(self.dimensions()?),
                // Bounds and promises that change nothing of what the code does.
                "maxnctapersm" | "maxclusterrank" | "abi_preserve" | "abi_preserve_control" => {
                    self.small()?;
                }
                "noreturn" => {}
                _ => return Err(self.unsupported(&format!("`.{directive}` of a function"))),
            }
        }
        Ok(())
    }

    fn body(&mut self, function: &Function) -> Result<Body, SyntaxError> {
        let names = std::mem::take(&mut self.names);
        let mut scopes = Scopes::new(&names);
        for parameter in function.params.iter().chain(&function.returns) {
            if parameter.name != "_" && scopes.declare(PARAMETERS, &parameter.name, 0, 0).is_none() {
                return Err(self.twice(&parameter.name));
            }
        }
        let mut context = Context {
            scope: scopes.open(PARAMETERS),
            scopes,
            body: Body::default(),
            statement_scopes: Vec::new(),
            variable_scopes: Vec::new(),
            list_scopes: Vec::new(),
            location: Location::default(),
        };
        self.expect("{")?;
        let mut depth = 1;
        while depth > 0 {
            if self.eat("{") {
                depth += 1;
                if depth > SCOPES {
                    return Err(self.error("too many scopes inside of each other"));
                }
                context.scope = context.scopes.open(context.scope);
            } else if self.eat("}") {
                depth -= 1;
                context.scope = context.scopes.parent(context.scope).unwrap_or(PARAMETERS);
            } else {
                self.statement(&mut context)?;
            }
        }
        let body = context.finish();
        self.names = names;
        Ok(body)
    }

    fn statement(&mut self, context: &mut Context<'_>) -> Result<(), SyntaxError> {
        match self.peek() {
            Kind::Sym(";") => {
                self.advance();
                Ok(())
            }
            Kind::Name(_) if self.ahead(1) == Kind::Sym(":") => self.label(context),
            Kind::Name(_) | Kind::Sym("@") => self.instruction(context),
            Kind::Dot("reg") => self.registers(context),
            Kind::Dot("loc") => {
                context.location = self.loc()?;
                Ok(())
            }
            Kind::Dot("pragma") => self.pragma(),
            Kind::Dot("file") => self.file(),
            Kind::Dot("extern" | "local" | "shared" | "param" | "const" | "global" | "visible") => {
                let linkage = self.linkage();
                for mut variable in self.variables(&linkage)? {
                    variable.name = self.declare(context, &variable.name, 0)?;
                    context.variable_scopes.push((context.scope, context.body.statements.len()));
                    context.body.variables.push(variable);
                }
                Ok(())
            }
            Kind::Dot(directive) => Err(self.unsupported(&format!("`.{directive}` in a function"))),
            Kind::End => Err(self.error("a function does not end")),
            _ => Err(self.unexpected("a statement")),
        }
    }

    /// Declares a register or variable in the current scope.
    fn declare(&self, context: &mut Context<'_>, name: &str, width: usize) -> Result<String, SyntaxError> {
        if name == "_" {
            return Err(self.unexpected("a name"));
        }
        let from = context.body.statements.len();
        context.scopes.declare(context.scope, name, from, width).ok_or_else(|| self.twice(name))
    }

    /// `.reg .b32 %a, %r<5>;`
    fn registers(&mut self, context: &mut Context<'_>) -> Result<(), SyntaxError> {
        self.advance();
        let Typed { ty, width, .. } = self.typed(false)?;
        if width > 0 && ty == Type::Pred {
            return Err(self.unsupported("a vector of `.pred`"));
        }
        loop {
            let name = self.name()?;
            if self.eat("<") {
                let count = usize::try_from(self.term(PRODUCT)?.integer().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
                self.expect(">")?;
                for index in 0..count {
                    self.register(context, &format!("{name}{index}"), ty, width)?;
                }
            } else {
                self.register(context, name, ty, width)?;
            }
            if !self.eat(",") {
                return self.expect(";");
            }
        }
    }

    /// A register, or the elements of a vector register: `v.x`, `v.y`...
    fn register(&mut self, context: &mut Context<'_>, name: &str, ty: Type, width: usize) -> Result<(), SyntaxError> {
        self.spend(width.max(1))?;
        let name = self.declare(context, name, width)?;
        match width {
            0 => context.body.registers.push((name, ty)),
            _ => context.body.registers.extend((0..width).map(|i| (scope::element(&name, i), ty))),
        }
        Ok(())
    }

    fn label(&mut self, context: &mut Context<'_>) -> Result<(), SyntaxError> {
        let name = self.name()?;
        self.expect(":")?;
        let label = context.scopes.declare(context.scope, name, 0, 0).ok_or_else(|| self.twice(name))?;
        match self.peek() {
            Kind::Dot(list @ ("branchtargets" | "calltargets")) => {
                self.advance();
                let mut names = vec![self.name()?.to_owned()];
                while self.eat(",") {
                    names.push(self.name()?.to_owned());
                }
                self.expect(";")?;
                if list == "branchtargets" {
                    context.list_scopes.push(context.scope);
                    context.body.branch_targets.push((label, names));
                } else {
                    context.body.call_targets.push((label, names));
                }
            }
            Kind::Dot("callprototype") => {
                self.advance();
                let returns = if self.is("(") { self.parameters(false)? } else { Vec::new() };
                self.name()?;
                let params = if self.is("(") { self.parameters(false)? } else { Vec::new() };
                while let Kind::Dot(directive) = self.peek() {
                    self.advance();
                    match directive {
                        "noreturn" => {}
                        "abi_preserve" | "abi_preserve_control" => {
                            self.small()?;
                        }
                        _ => return Err(self.unsupported(&format!("`.{directive}` of a prototype"))),
                    }
                }
                self.expect(";")?;
                context.body.call_prototypes.push((label, Prototype { returns, params }));
            }
            _ => context.push(Statement::Label(label)),
        }
        Ok(())
    }

    fn instruction(&mut self, context: &mut Context<'_>) -> Result<(), SyntaxError> {
        let line = self.line();
        let mut guard = None;
        if self.eat("@") {
            let negated = self.eat("!");
            guard = Some((self.name()?.to_owned(), negated));
        }
        let opcode = self.name()?.to_owned();
        let mut modifiers = Vec::new();
        while let Kind::Dot(modifier) = self.peek() {
            modifiers.push(modifier.to_owned());
            self.advance();
        }
        let mut operands = Vec::new();
        if !self.eat(";") {
            loop {
                operands.push(match self.is("(") && opcode == "call" {
                    true => self.tuple()?,
                    false => self.operand(OPERANDS)?,
                });
                if self.eat(";") {
                    break;
                }
                if !self.eat(",") {
                    return Err(self.unexpected("`,` or `;`"));
                }
            }
        }
        let location = context.location;
        context.push(Statement::Instruction(Instruction { guard, opcode, modifiers, operands, line, location }));
        Ok(())
    }

    // Operands.

    fn tuple(&mut self) -> Result<Operand, SyntaxError> {
        self.advance();
        Ok(Operand::Tuple(self.list(")", OPERANDS)?))
    }

    /// Operands up to a closing bracket.
    fn list(&mut self, close: &str, depth: u32) -> Result<Vec<Operand>, SyntaxError> {
        let mut parts = Vec::new();
        if self.eat(close) {
            return Ok(parts);
        }
        loop {
            parts.push(self.operand(depth)?);
            if self.eat(close) {
                return Ok(parts);
            }
            if !self.eat(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }

    fn operand(&mut self, depth: u32) -> Result<Operand, SyntaxError> {
        let Some(depth) = depth.checked_sub(1) else { return Err(self.error("the operand is too deep")) };
        match self.peek() {
            Kind::Sym("{") => {
                self.advance();
                Ok(Operand::Vector(self.list("}", depth)?))
            }
            Kind::Sym("[") => self.memory(depth),
            Kind::Sym("!" | "-") if matches!(self.ahead(1), Kind::Name(name) if name != "WARP_SZ") => {
                self.advance();
                Ok(Operand::Not(Box::new(self.operand(depth)?)))
            }
            Kind::Name(name) if name != "WARP_SZ" => {
                let name = self.selected()?;
                match self.peek() {
                    Kind::Sym("|") => {
                        self.advance();
                        let second = self.selected()?;
                        Ok(Operand::Pair(Box::new(Operand::Name(name)), Box::new(Operand::Name(second))))
                    }
                    Kind::Sym("+" | "-") => Ok(Operand::Offset(name, self.offset()?)),
                    Kind::Sym("[") => Err(self.unsupported("an array element as an operand")),
                    _ => Ok(Operand::Name(name)),
                }
            }
            _ => Ok(match self.constant()? {
                Constant::Signed(v) => Operand::Int(v),
                Constant::Unsigned(v) => Operand::Int(v as i64),
                Constant::Single(bits) => Operand::F32(bits),
                Constant::Double(v) => Operand::F64(v.to_bits()),
            }),
        }
    }

    /// A name with its selector, if it has one: `%tid.x`.
    fn selected(&mut self) -> Result<String, SyntaxError> {
        let name = self.name()?;
        let Kind::Dot(selector) = self.peek() else { return Ok(name.to_owned()) };
        self.advance();
        Ok(format!("{name}.{selector}"))
    }

    /// `[base+offset]`, and the lists of texture and tensor instructions, `[a, {x, y}]`, as a vector.
    fn memory(&mut self, depth: u32) -> Result<Operand, SyntaxError> {
        self.expect("[")?;
        let mut parts = self.list("]", depth)?;
        if parts.len() > 1 {
            return Ok(Operand::Memory { base: Box::new(Operand::Vector(parts)), offset: 0 });
        }
        match parts.pop() {
            Some(Operand::Offset(name, offset)) => Ok(Operand::Memory { base: Box::new(Operand::Name(name)), offset }),
            Some(base @ (Operand::Name(_) | Operand::Int(_))) => {
                Ok(Operand::Memory { base: Box::new(base), offset: 0 })
            }
            _ => Err(self.error("`[...]` wants an address")),
        }
    }
}

impl Context<'_> {
    fn push(&mut self, statement: Statement) {
        self.body.statements.push(statement);
        self.statement_scopes.push(self.scope);
    }

    /// Resolves all names, now that all labels are known.
    fn finish(self) -> Body {
        let Context { scopes, mut body, .. } = self;
        for (at, (statement, scope)) in body.statements.iter_mut().zip(self.statement_scopes).enumerate() {
            scopes.rename_statement(scope, statement, at);
        }
        for (variable, (scope, at)) in body.variables.iter_mut().zip(self.variable_scopes) {
            scopes.rename_initialiser(scope, variable, at);
        }
        for ((_, targets), scope) in body.branch_targets.iter_mut().zip(self.list_scopes) {
            targets.iter_mut().for_each(|target| scopes.rename(scope, target, usize::MAX));
        }
        body
    }
}

/// The bits of an integer type.
fn mask(ty: Type) -> u64 {
    u64::MAX >> (64 - ty.bits().min(64))
}
