//! The names of a function: scopes `{ ... }`, what they declare, and what a name in them means.
//!
//! A label is known in all of its scope, a register or variable from its declaration on. So names are resolved when the
//! whole body has been read.

use super::SyntaxError;
use super::ast::{Init, Instruction, Operand, Variable};
use std::collections::{HashMap, HashSet};

/// The scope of the parameters, which holds the body's.
pub(super) const PARAMETERS: usize = 0;

#[derive(Default)]
struct Scope {
    parent: Option<usize>,
    names: HashMap<String, Symbol>,
}

#[derive(Clone, Copy)]
struct Symbol {
    /// How many declarations of this name, in any scope of the function or the module, there were, with this one.
    ordinal: u32,
    /// Statements before the declaration; 0 for a label.
    from: usize,
    /// Elements of a vector register; 0 for a scalar.
    width: usize,
}

/// The elements' names, and their alternative names.
const ELEMENTS: [[&str; 4]; 2] = [["x", "y", "z", "w"], ["r", "g", "b", "a"]];

/// `name`, or `name@2` for a second meaning of it.
fn unique(name: &str, ordinal: u32) -> String {
    if ordinal < 2 { name.to_owned() } else { format!("{name}@{ordinal}") }
}

/// The name of an element of a vector register.
pub(super) fn element(vector: &str, index: usize) -> String {
    format!("{vector}.{}", ELEMENTS[0][index % 4])
}

/// What is said of a name that only other scopes declare.
pub(super) fn unknown(line: u32, name: &str) -> SyntaxError {
    SyntaxError { line, what: format!("`{name}` is not known in this scope") }
}

/// All scopes of a function.
pub(super) struct Scopes<'m> {
    /// What the module declares.
    module: &'m HashSet<String>,
    scopes: Vec<Scope>,
    declared: HashMap<String, u32>,
}

impl<'m> Scopes<'m> {
    pub fn new(module: &'m HashSet<String>) -> Scopes<'m> {
        Scopes { module, scopes: vec![Scope::default()], declared: HashMap::new() }
    }

    /// Opens a scope inside of another.
    pub fn open(&mut self, parent: usize) -> usize {
        self.scopes.push(Scope { parent: Some(parent), names: HashMap::new() });
        self.scopes.len() - 1
    }

    /// The scope around one.
    pub fn parent(&self, scope: usize) -> Option<usize> {
        self.scopes[scope].parent
    }

    /// Declares a name, visible behind the first `from` statements, and returns what it is called from now on; `None` if
    /// the scope has it already.
    pub fn declare(&mut self, scope: usize, name: &str, from: usize, width: usize) -> Option<String> {
        if self.scopes[scope].names.contains_key(name) {
            return None;
        }
        let ordinal = match self.declared.get_mut(name) {
            Some(count) => {
                *count += 1;
                *count
            }
            None => {
                // A parameter keeps its name: nothing in the function can mean what it hides.
                let hides = scope != PARAMETERS && self.module.contains(name);
                let ordinal = if hides { 2 } else { 1 };
                self.declared.insert(name.to_owned(), ordinal);
                ordinal
            }
        };
        self.scopes[scope].names.insert(name.to_owned(), Symbol { ordinal, from, width });
        Some(unique(name, ordinal))
    }

    fn find(&self, mut scope: usize, name: &str, at: usize) -> Option<Symbol> {
        loop {
            let Scope { parent, names } = &self.scopes[scope];
            if let Some(symbol) = names.get(name).filter(|s| s.from <= at) {
                return Some(*symbol);
            }
            scope = (*parent)?;
        }
    }

    /// Replaces a name, used by statement `at`, by what it is called. Names that the function does not declare stay; one
    /// that it declares elsewhere only is not known here, and returned as the error.
    pub fn rename(&self, scope: usize, name: &mut String, at: usize) -> Result<(), String> {
        let (base, selector) = match name.split_once('.') {
            Some((base, selector)) => (base, Some(selector)),
            None => (name.as_str(), None),
        };
        let Some(symbol) = self.find(scope, base, at) else {
            let elsewhere = self.declared.contains_key(base) && !self.module.contains(base);
            return if elsewhere { Err(base.to_owned()) } else { Ok(()) };
        };
        let base = unique(base, symbol.ordinal);
        *name = match selector {
            None => base,
            Some(selector) => {
                let index = ELEMENTS.iter().find_map(|names| names.iter().position(|n| *n == selector));
                match index.filter(|i| *i < symbol.width) {
                    Some(index) => element(&base, index),
                    None => format!("{base}.{selector}"),
                }
            }
        };
        Ok(())
    }

    fn rename_operand(&self, scope: usize, operand: &mut Operand, at: usize) -> Result<(), String> {
        match operand {
            Operand::Name(name) => {
                let width = self.find(scope, name, at).map_or(0, |s| s.width);
                self.rename(scope, name, at)?;
                if width > 0 {
                    *operand = Operand::Vector((0..width).map(|i| Operand::Name(element(name, i))).collect());
                }
            }
            Operand::Offset(name, _) => self.rename(scope, name, at)?,
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) => {}
            Operand::Memory { base: inner, .. } | Operand::Not(inner) | Operand::Minus(inner) => {
                self.rename_operand(scope, inner, at)?
            }
            Operand::Vector(parts) | Operand::Tuple(parts) => {
                parts.iter_mut().try_for_each(|part| self.rename_operand(scope, part, at))?;
            }
            Operand::Pair(first, second) => {
                self.rename_operand(scope, first, at)?;
                self.rename_operand(scope, second, at)?;
            }
        }
        Ok(())
    }

    /// Renames what the instruction at index `at` uses.
    pub fn rename_instruction(
        &self,
        scope: usize,
        instruction: &mut Instruction,
        at: usize,
    ) -> Result<(), SyntaxError> {
        let Instruction { guard, operands, line, .. } = instruction;
        guard
            .iter_mut()
            .try_for_each(|(register, _)| self.rename(scope, register, at))
            .and_then(|()| operands.iter_mut().try_for_each(|operand| self.rename_operand(scope, operand, at)))
            .map_err(|name| unknown(*line, &name))
    }

    /// Renames what a variable's initialiser refers to.
    pub fn rename_initialiser(&self, scope: usize, variable: &mut Variable, at: usize) -> Result<(), SyntaxError> {
        let line = variable.line;
        variable.init.iter_mut().try_for_each(|init| match init {
            Init::Address { symbol, .. } => self.rename(scope, symbol, at).map_err(|name| unknown(line, &name)),
            Init::Bits(_) => Ok(()),
        })
    }
}
