//! Operands of instructions (PTX ISA chapter 6).

use super::SyntaxError;
use super::ast::Operand;
use super::constant::Constant;
use super::lexer::Kind;
use super::parser::Parser;

/// `{` and `[` inside of each other.
const DEPTH: u32 = 8;

impl Parser<'_> {
    /// `(a, b)` of a call.
    pub(super) fn tuple(&mut self) -> Result<Operand, SyntaxError> {
        self.advance();
        Ok(Operand::Tuple(self.list(")", DEPTH)?))
    }

    /// Operands up to a closing bracket.
    fn list(&mut self, close: &str, depth: u32) -> Result<Vec<Operand>, SyntaxError> {
        let mut parts = Vec::new();
        if self.eat(close) {
            return Ok(parts);
        }
        loop {
            parts.push(self.nested(depth)?);
            if self.eat(close) {
                return Ok(parts);
            }
            if !self.eat(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// Any operand.
    pub(super) fn operand(&mut self) -> Result<Operand, SyntaxError> {
        self.nested(DEPTH)
    }

    fn nested(&mut self, depth: u32) -> Result<Operand, SyntaxError> {
        let Some(depth) = depth.checked_sub(1) else { return Err(self.error("the operand is too deep")) };
        match self.peek() {
            Kind::Sym("{") => {
                self.advance();
                Ok(Operand::Vector(self.list("}", depth)?))
            }
            Kind::Sym("[") => self.memory(depth),
            Kind::Sym(sign @ ("!" | "-")) if matches!(self.ahead(1), Kind::Name(name) if name != "WARP_SZ") => {
                self.advance();
                let operand = Box::new(Operand::Name(self.selected()?));
                Ok(if sign == "!" { Operand::Not(operand) } else { Operand::Minus(operand) })
            }
            Kind::Name(name) if name != "WARP_SZ" => {
                let name = self.selected()?;
                match self.peek() {
                    Kind::Sym("|") => {
                        self.advance();
                        let second = self.selected()?;
                        Ok(Operand::Pair(Box::new(Operand::Name(name)), Box::new(Operand::Name(second))))
                    }
                    Kind::Sym("+") => Ok(Operand::Offset(name, self.offset()?)),
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
