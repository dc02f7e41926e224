//! Constant expressions (PTX ISA 4.5): 64-bit integers, signed or unsigned, and doubles, with the operators of C.

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
    /// A `0f` literal alone (or its negative): its bits are kept as they are.
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

    /// The value as a double: integers are rounded to nearest.
    pub fn double(self) -> f64 {
        match self {
            Signed(v) => v as f64,
            Unsigned(v) => v as f64,
            Single(bits) => f64::from(f32::from_bits(bits)),
            Double(v) => v,
        }
    }

    fn truth(self) -> bool {
        match self {
            Signed(v) => v != 0,
            Unsigned(v) => v != 0,
            Single(_) | Double(_) => self.double() != 0.0,
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

/// The strength of a product, for terms behind a symbol: `symbol+4*2`.
pub(super) const PRODUCT: u32 = 10;

impl<'t> Parser<'t> {
    /// A whole constant expression.
    pub(super) fn constant(&mut self) -> Result<Constant, SyntaxError> {
        self.ternary(DEPTH)
    }

    /// A constant expression that is an integer, as 64 bits.
    pub(super) fn integer(&mut self) -> Result<u64, SyntaxError> {
        self.constant()?.integer().ok_or_else(|| self.error("an integer is expected"))
    }

    /// Operators of at least `least` strength only.
    pub(super) fn term(&mut self, least: u32) -> Result<Constant, SyntaxError> {
        self.binary(least, DEPTH)
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
        let chosen = if condition.truth() { yes } else { no };
        Ok(match (yes, no) {
            (Signed(_), Signed(_)) => chosen,
            _ => match chosen.integer() {
                Some(v) if yes.integer().is_some() && no.integer().is_some() => Unsigned(v),
                _ => Double(chosen.double()),
            },
        })
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
            Kind::Sym("+") => {
                self.advance();
                self.unary(depth)
            }
            Kind::Sym("-") => {
                self.advance();
                Ok(match self.unary(depth)? {
                    Signed(v) => Signed(v.wrapping_neg()),
                    Unsigned(v) => Unsigned(v.wrapping_neg()),
                    Single(bits) => Single(bits ^ (1 << 31)),
                    Double(v) => Double(-v),
                })
            }
            Kind::Sym("!") => {
                self.advance();
                Ok(Signed(i64::from(!self.unary(depth)?.truth())))
            }
            Kind::Sym("~") => {
                self.advance();
                let value = self.unary(depth)?;
                Ok(Unsigned(!value.integer().ok_or_else(|| self.error("`~` wants an integer"))?))
            }
            Kind::Sym("(") => {
                self.advance();
                if let Kind::Dot(name @ ("s64" | "u64")) = self.peek() {
                    self.advance();
                    self.expect(")")?;
                    let value = self.unary(depth)?;
                    let bits = value.integer().ok_or_else(|| self.error("a cast wants an integer"))?;
                    return Ok(if name == "s64" { Signed(bits as i64) } else { Unsigned(bits) });
                }
                let value = self.ternary(depth)?;
                self.expect(")")?;
                Ok(value)
            }
            _ => Err(self.unexpected("a constant")),
        }
    }

    /// PTX ISA 4.5.6 and the table of 4.5.7.
    fn combine(&self, operator: &str, left: Constant, right: Constant) -> Result<Constant, SyntaxError> {
        let truth = |t: bool| Ok(Signed(i64::from(t)));
        match operator {
            "&&" => return truth(left.truth() && right.truth()),
            "||" => return truth(left.truth() || right.truth()),
            _ => {}
        }
        let (Some(a), Some(b)) = (left.integer(), right.integer()) else {
            let (a, b) = (left.double(), right.double());
            return match operator {
                "+" => Ok(Double(a + b)),
                "-" => Ok(Double(a - b)),
                "*" => Ok(Double(a * b)),
                "/" => Ok(Double(a / b)),
                "<" => truth(a < b),
                ">" => truth(a > b),
                "<=" => truth(a <= b),
                ">=" => truth(a >= b),
                "==" => truth(a == b),
                "!=" => truth(a != b),
                _ => Err(self.error(format!("`{operator}` wants integers"))),
            };
        };
        // The usual conversion: signed only if both are.
        let signed = matches!((left, right), (Signed(_), Signed(_)));
        let converted = |bits: u64| Ok(if signed { Signed(bits as i64) } else { Unsigned(bits) });
        let by_zero = || self.error("a division by zero");
        let less = if signed { (a as i64) < (b as i64) } else { a < b };
        match operator {
            "+" => converted(a.wrapping_add(b)),
            "-" => converted(a.wrapping_sub(b)),
            "*" => converted(a.wrapping_mul(b)),
            "/" if b == 0 => Err(by_zero()),
            "/" if signed => Ok(Signed((a as i64).wrapping_div(b as i64))),
            "/" => Ok(Unsigned(a / b)),
            "%" => Ok(Signed(a.checked_rem(b).ok_or_else(by_zero)? as i64)),
            // Which of the two right shifts is the first operand's type; the count is unsigned.
            "<<" | ">>" => Ok(match left {
                Signed(v) if operator == ">>" => Signed(v >> b.min(63)),
                Signed(v) => Signed(if b < 64 { v << b } else { 0 }),
                _ if operator == ">>" => Unsigned(if b < 64 { a >> b } else { 0 }),
                _ => Unsigned(if b < 64 { a << b } else { 0 }),
            }),
            "<" => truth(less),
            ">=" => truth(!less),
            ">" => truth(!less && a != b),
            "<=" => truth(less || a == b),
            "==" => truth(a == b),
            "!=" => truth(a != b),
            "&" => Ok(Unsigned(a & b)),
            "|" => Ok(Unsigned(a | b)),
            "^" => Ok(Unsigned(a ^ b)),
            _ => Err(self.error(format!("unknown operator `{operator}`"))),
        }
    }
}
