//! Functions: the signature, the directives behind it, and the statements of the body (PTX ISA chapter 11).

use std::collections::HashMap;

use super::SyntaxError;
use super::ast::{Body, Function, Instruction, Location, Prototype, Statement, Type};
use super::declaration::Typed;
use super::lexer::Kind;
use super::parser::{Parser, Site};
use super::scope::{self, PARAMETERS, Scopes};

/// Scopes inside of each other.
const SCOPES: usize = 64;

/// A function's body while it is read.
struct Context<'m> {
    scopes: Scopes<'m>,
    body: Body,
    /// Parallel to the body's statements, variables and target lists: the scope they stand in.
    statement_scopes: Vec<usize>,
    /// And statements before.
    variable_scopes: Vec<(usize, usize)>,
    /// And line.
    list_scopes: Vec<(usize, u32)>,
    scope: usize,
    location: Location,
    /// Of the places that `.loc` named in this function: whose inlined body they are, as in `Location::call`.
    calls: HashMap<Site, u32>,
}

impl Parser<'_> {
    /// `.entry` or `.func` and all behind it, up to the end of the body or the `;` of a prototype.
    pub(super) fn function(&mut self, entry: bool) -> Result<(), SyntaxError> {
        self.advance();
        let returns = if !entry && self.is("(") { self.parameters(false)? } else { Vec::new() };
        let line = self.line();
        let name = self.identifier()?.to_owned();
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
        self.introduce(&function.name)?;
        if !self.eat(";") {
            function.body = Some(self.body(&function)?);
        }
        self.define_function(function)
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

    /// The performance-tuning and cluster directives between a function's parameters and its body.
    fn tuning(&mut self, function: &mut Function) -> Result<(), SyntaxError> {
        let mut explicit = false;
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
                "explicitcluster" => explicit = true,
                _ => return Err(self.unsupported(&format!("`.{directive}` of a function"))),
            }
        }
        if explicit && function.required_cluster.is_none() {
            return Err(self.unsupported("`.explicitcluster` without `.reqnctapercluster`"));
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
            calls: HashMap::new(),
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
        let body = context.finish()?;
        self.names = names;
        Ok(body)
    }

    fn statement(&mut self, context: &mut Context<'_>) -> Result<(), SyntaxError> {
        match self.peek() {
            Kind::Name(_) if self.ahead(1) == Kind::Sym(":") => self.label(context),
            Kind::Name(_) | Kind::Sym("@") => self.instruction(context),
            Kind::Dot("reg") => self.registers(context),
            Kind::Dot("loc") => {
                let (site, inlined_at) = self.loc()?;
                // The place of a call inside of an inlined body stands in a `.loc` of its own, before.
                let call = inlined_at.map_or(0, |at| {
                    let outer = context.calls.get(&at).copied().unwrap_or(0);
                    self.module.calls.push(Location { file: at[0], line: at[1], call: outer });
                    self.module.calls.len() as u32
                });
                context.calls.insert(site, call);
                context.location = Location { file: site[0], line: site[1], call };
                Ok(())
            }
            Kind::Dot("pragma") => self.pragma(),
            Kind::Dot("local" | "shared" | "param" | "const" | "global") => {
                for mut variable in self.variables(false)? {
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
            let name = self.identifier()?;
            if self.eat("<") {
                let count = self.small()?;
                self.expect(">")?;
                // What the names would take if each stood in the text.
                self.spend((count as usize).saturating_mul(name.len().saturating_add(1)).saturating_mul(width.max(1)))?;
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
        let name = self.declare(context, name, width)?;
        match width {
            0 => context.body.registers.push((name, ty)),
            _ => context.body.registers.extend((0..width).map(|i| (scope::element(&name, i), ty))),
        }
        Ok(())
    }

    fn label(&mut self, context: &mut Context<'_>) -> Result<(), SyntaxError> {
        let line = self.line();
        let name = self.identifier()?;
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
                    context.list_scopes.push((context.scope, line));
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
                    false => self.operand()?,
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
}

impl Context<'_> {
    fn push(&mut self, statement: Statement) {
        self.body.statements.push(statement);
        self.statement_scopes.push(self.scope);
    }

    /// Resolves all names, now that all labels are known.
    fn finish(self) -> Result<Body, SyntaxError> {
        let Context { scopes, mut body, .. } = self;
        for (at, (statement, scope)) in body.statements.iter_mut().zip(self.statement_scopes).enumerate() {
            if let Statement::Instruction(instruction) = statement {
                scopes.rename_instruction(scope, instruction, at)?;
            }
        }
        for (variable, (scope, at)) in body.variables.iter_mut().zip(self.variable_scopes) {
            scopes.rename_initialiser(scope, variable, at)?;
        }
        for ((_, targets), (scope, line)) in body.branch_targets.iter_mut().zip(self.list_scopes) {
            for target in targets {
                scopes.rename(scope, target, usize::MAX).map_err(|name| scope::unknown(line, &name))?;
            }
        }
        Ok(body)
    }
}
