//! PTX text to syntax tree: the tokens at hand, and the directives of a module (PTX ISA chapter 11).
//!
//! Recursive descent over the tokens, one pass; `declaration`, `function`, `operand` and `constant` hold the rest of it.
//! Everything is bounded by the length of the text: nesting by constants; register ranges and padded initialisers, which
//! say much in few characters, by `Parser::budget`.

use super::SyntaxError;
use super::ast::{Function, Module, Variable};
use super::lexer::{self, Kind, Token};
use std::collections::{HashMap, HashSet};

/// File, line and column, as in `.loc`.
pub(super) type Site = [u32; 3];

/// Bytes of register names and padding elements that a text may stand for beyond its own length.
const BUDGET: usize = 1 << 20;

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
    pub(super) module: Module,
    /// All names of the module's variables and functions.
    pub(super) names: HashSet<String>,
    /// Index of a variable in `module.variables`.
    variables: HashMap<String, usize>,
    /// Index of a function in `module.functions`.
    functions: HashMap<String, usize>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Result<Parser<'t>, SyntaxError> {
        Ok(Parser {
            tokens: lexer::tokens(text)?,
            at: 0,
            budget: BUDGET.saturating_add(text.len()),
            module: Module::default(),
            names: HashSet::new(),
            variables: HashMap::new(),
            functions: HashMap::new(),
        })
    }

    // Tokens.

    pub(super) fn ahead(&self, by: usize) -> Kind<'t> {
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

    pub(super) fn line(&self) -> u32 {
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
            Kind::Version(major, minor) => format!("`{major}.{minor}`"),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Sym(sym) => format!("`{sym}`"),
            Kind::End => "the end of the text".to_owned(),
        };
        self.error(format!("{wanted} is expected, not {found}"))
    }

    pub(super) fn unsupported(&self, what: &str) -> SyntaxError {
        self.error(format!("{what} is not supported"))
    }

    pub(super) fn is(&self, sym: &str) -> bool {
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

    pub(super) fn name(&mut self) -> Result<&'t str, SyntaxError> {
        match self.peek() {
            Kind::Name(name) => {
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// A name to declare: not `_`.
    pub(super) fn identifier(&mut self) -> Result<&'t str, SyntaxError> {
        if self.peek() == Kind::Name("_") { Err(self.unexpected("a name")) } else { self.name() }
    }

    pub(super) fn small(&mut self) -> Result<u32, SyntaxError> {
        match self.peek() {
            Kind::Int { bits, .. } => {
                let value = u32::try_from(bits).map_err(|_| self.error(format!("{bits} is too large")))?;
                self.advance();
                Ok(value)
            }
            _ => Err(self.unexpected("a number")),
        }
    }

    pub(super) fn spend(&mut self, count: usize) -> Result<(), SyntaxError> {
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
                "visible" | "extern" | "weak" | "common" | "entry" | "func" | "global" | "const" | "shared"
                | "align" => {
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
        let Kind::Version(major, minor) = self.peek() else { return Err(self.unexpected("a version")) };
        self.module.version = (major, minor);
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
            } else if !matches!(name, "debug" | "texmode_unified" | "texmode_independent") {
                return Err(self.unsupported(&format!("the target `{name}`")));
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
    pub(super) fn pragma(&mut self) -> Result<(), SyntaxError> {
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
    ///
    /// The first place, and the second if there is one.
    pub(super) fn loc(&mut self) -> Result<(Site, Option<Site>), SyntaxError> {
        self.advance();
        let site = [self.small()?, self.small()?, self.small()?];
        let mut inlined_at = None;
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
                    inlined_at = Some([self.small()?, self.small()?, self.small()?]);
                }
                _ => return Err(self.unexpected("`function_name` or `inlined_at`")),
            }
        }
        Ok((site, inlined_at))
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

    /// A variable or function with its linkage: `.extern .global .u32 x;`
    fn declaration(&mut self) -> Result<(), SyntaxError> {
        let external = self.peek() == Kind::Dot("extern");
        if let Kind::Dot("visible" | "extern" | "weak" | "common") = self.peek() {
            self.advance();
        }
        match self.peek() {
            Kind::Dot("entry") => self.function(true),
            Kind::Dot("func") => self.function(false),
            Kind::Dot("global" | "const" | "shared" | "align") => {
                for variable in self.variables(external)? {
                    self.define_variable(variable)?;
                }
                Ok(())
            }
            _ => Err(self.unexpected("`.entry`, `.func` or a state space")),
        }
    }

    /// Adds a variable to the module. One may be declared as external before or after its definition.
    fn define_variable(&mut self, variable: Variable) -> Result<(), SyntaxError> {
        if self.functions.contains_key(&variable.name) {
            return Err(self.twice(&variable.name));
        }
        match self.variables.get(&variable.name) {
            None => {
                self.names.insert(variable.name.clone());
                self.variables.insert(variable.name.clone(), self.module.variables.len());
                self.module.variables.push(variable);
            }
            Some(_) if variable.external => {}
            Some(&old) if self.module.variables[old].external => self.module.variables[old] = variable,
            Some(_) => return Err(self.twice(&variable.name)),
        }
        Ok(())
    }

    /// Makes a function's name known, before its body.
    pub(super) fn introduce(&mut self, name: &str) -> Result<(), SyntaxError> {
        if self.variables.contains_key(name) {
            return Err(self.twice(name));
        }
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// Adds a function to the module. It may have any number of prototypes; the last one stands for them, and the
    /// definition for all.
    pub(super) fn define_function(&mut self, function: Function) -> Result<(), SyntaxError> {
        let old = self.functions.get(&function.name).map(|old| &self.module.functions[*old]);
        let defined = old.is_some_and(|old| old.body.is_some());
        if defined && function.body.is_some() {
            return Err(SyntaxError { line: function.line, what: format!("`{}` is defined twice", function.name) });
        }
        if !defined {
            self.functions.insert(function.name.clone(), self.module.functions.len());
        }
        self.module.functions.push(function);
        Ok(())
    }

    pub(super) fn twice(&self, name: &str) -> SyntaxError {
        self.error(format!("`{name}` is declared twice"))
    }
}
