//! Constant expressions (PTX ISA 4.5): 64-bit integers, signed or unsigned, and doubles, with the operators of C. Where the
//! text of the ISA leaves a choice (shifts by 64 and more, the type of a remainder), it is made as `ptxas` makes it.

use super::SyntaxError;
use super::lexer::Kind;
use super::parser::Parser;

/// Parentheses and operators that may stand inside each other.
const DEPTH: u32 = 64;

/// The value of a constant expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Constant {
    /// `.s64`
    Signed(i64),
    /// `.u64`
    Unsigned(u64),
    /// The bits of a `0f` literal, which takes part in no operation.
    Single(u32),
    /// `.f64`
    Double(f64),
}

use Constant::{Double, Signed, Single, Unsigned};

impl Constant {
    /// The 64 bits of an integer.
    pub fn integer(self) -> Option<u64> {
        match self {
            Signed(v) => Some(v as u64),
            Unsigned(v) => Some(v),
            Single(_) | Double(_) => None,
        }
    }
}

/// The strength of a binary operator; a larger number binds closer.
fn strength(operator: &str) -> Option<u32> {
    Some(match operator {
        "||" => 1,
        "&&" => 2,
        "|" => 3,
        "^" => 4,
        "&" => 5,
        "==" | "!=" => 6,
        "<" | ">" | "<=" | ">=" => 7,
        "<<" | ">>" => 8,
        "+" | "-" => 9,
        "*" | "/" | "%" => 10,
        _ => return None,
    })
}

impl<'t> Parser<'t> {
    /// A whole constant expression.
    pub(super) fn constant(&mut self) -> Result<Constant, SyntaxError> {
        self.ternary(DEPTH)
    }

    /// A constant expression that is an integer, as 64 bits.
    pub(super) fn integer(&mut self) -> Result<u64, SyntaxError> {
        let value = self.constant()?;
        self.bits(value)
    }

    fn bits(&self, value: Constant) -> Result<u64, SyntaxError> {
        value.integer().ok_or_else(|| self.error("an integer is expected"))
    }

    fn ternary(&mut self, depth: u32) -> Result<Constant, SyntaxError> {
        let condition = self.binary(1, depth)?;
        if !self.eat("?") {
            return Ok(condition);
        }
        let depth = self.deeper(depth)?;
        let yes = self.ternary(depth)?;
        self.expect(":")?;
        let no = self.ternary(depth)?;
        self.bits(yes)?;
        self.bits(no)?;
        Ok(if self.bits(condition)? != 0 { yes } else { no })
    }

    fn deeper(&self, depth: u32) -> Result<u32, SyntaxError> {
        depth.checked_sub(1).ok_or_else(|| self.error("the constant expression is too deep"))
    }

    fn binary(&mut self, least: u32, depth: u32) -> Result<Constant, SyntaxError> {
        let mut left = self.unary(depth)?;
        while let Kind::Sym(operator) = self.peek() {
            let Some(strength) = strength(operator).filter(|s| *s >= least) else { break };
            self.advance();
            let right = self.binary(strength + 1, depth)?;
            left = self.combine(operator, left, right)?;
        }
        Ok(left)
    }

    fn unary(&mut self, depth: u32) -> Result<Constant, SyntaxError> {
        let depth = self.deeper(depth)?;
        match self.peek() {
            Kind::Int { bits, unsigned } => {
                self.advance();
                Ok(if unsigned { Unsigned(bits) } else { Signed(bits as i64) })
            }
            Kind::F32(bits) => {
                self.advance();
                Ok(Single(bits))
            }
            Kind::F64(bits) => {
                self.advance();
                Ok(Double(f64::from_bits(bits)))
            }
            Kind::Name("WARP_SZ") => {
                self.advance();
                Ok(Signed(32))
            }
            Kind::Sym(operator @ ("+" | "-" | "!" | "~")) => {
                self.advance();
                let value = self.unary(depth)?;
                match (operator, value) {
                    ("+" | "-", Single(_)) => Err(self.error("a `0f` constant takes no sign")),
                    ("+", _) => Ok(value),
                    ("-", Signed(v)) => Ok(Signed(v.wrapping_neg())),
                    ("-", Unsigned(v)) => Ok(Unsigned(v.wrapping_neg())),
                    ("-", Double(v)) => Ok(Double(-v)),
                    ("!", _) => Ok(Signed(i64::from(self.bits(value)? == 0))),
                    _ => Ok(Unsigned(!self.bits(value)?)),
                }
            }
            Kind::Sym("(") => {
                self.advance();
                if let Kind::Dot(name @ ("s64" | "u64")) = self.peek() {
                    self.advance();
                    self.expect(")")?;
                    let value = self.unary(depth)?;
                    let bits = self.bits(value)?;
                    return Ok(if name == "s64" { Signed(bits as i64) } else { Unsigned(bits) });
                }
                let value = self.ternary(depth)?;
                self.expect(")")?;
                Ok(value)
            }
            _ => Err(self.unexpected("a constant")),
        }
    }

    fn combine(&self, operator: &str, left: Constant, right: Constant) -> Result<Constant, SyntaxError> {
        let truth = |t: bool| Ok(Signed(i64::from(t)));
        let by_zero = || self.error("a division by zero");
        if let (Double(a), Double(b)) = (left, right) {
            return match operator {
                "+" => Ok(Double(a + b)),
                "-" => Ok(Double(a - b)),
                "*" => Ok(Double(a * b)),
                "/" if b == 0.0 => Err(by_zero()),
                "/" => Ok(Double(a / b)),
                "<" => truth(a < b),
                ">" => truth(a > b),
                "<=" => truth(a <= b),
                ">=" => truth(a >= b),
                "==" => truth(a == b),
                "!=" => truth(a != b),
                _ => Err(self.error(format!("`{operator}` wants integers"))),
            };
        }
        let (Some(a), Some(b)) = (left.integer(), right.integer()) else {
            return Err(self.error(format!("the operands of `{operator}` are of different types")));
        };
        // The usual conversion: signed only if both are.
        let signed = matches!((left, right), (Signed(_), Signed(_)));
        let converted = |bits: u64| Ok(if signed { Signed(bits as i64) } else { Unsigned(bits) });
        let less = if signed { (a as i64) < (b as i64) } else { a < b };
        // The count of a shift is unsigned and taken modulo 64.
        let count = b as u32;
        match operator {
            "+" => converted(a.wrapping_add(b)),
            "-" => converted(a.wrapping_sub(b)),
            "*" => converted(a.wrapping_mul(b)),
            "/" if b == 0 => Err(by_zero()),
            "/" if signed => Ok(Signed((a as i64).wrapping_div(b as i64))),
            "/" => Ok(Unsigned(a / b)),
            "%" => Ok(Unsigned(a.checked_rem(b).ok_or_else(by_zero)?)),
            "<<" | ">>" => Ok(match left {
                Signed(v) if operator == ">>" => Signed(v.wrapping_shr(count)),
                Signed(v) => Signed(v.wrapping_shl(count)),
                _ if operator == ">>" => Unsigned(a.wrapping_shr(count)),
                _ => Unsigned(a.wrapping_shl(count)),
            }),
            "<" => truth(less),
            ">=" => truth(!less),
            ">" => truth(!less && a != b),
            "<=" => truth(less || a == b),
            "==" => truth(a == b),
            "!=" => truth(a != b),
            "&" => converted(a & b),
            "|" => converted(a | b),
            "^" => converted(a ^ b),
            "&&" => truth(a != 0 && b != 0),
            "||" => truth(a != 0 || b != 0),
            _ => Err(self.error(format!("unknown operator `{operator}`"))),
        }
    }
}
