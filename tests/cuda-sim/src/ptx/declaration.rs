//! Types, variables with their initial values, and parameters (PTX ISA chapter 5).

use super::SyntaxError;
use super::ast::{Init, Parameter, Space, Type, Variable};
use super::constant::Constant;
use super::lexer::Kind;
use super::parser::Parser;

/// Extents of an array, its vector width included.
const EXTENTS: usize = 16;

/// A declaration's type, without the name and extents.
pub(super) struct Typed {
    pub ty: Type,
    /// 0 for a scalar.
    pub width: usize,
    align: Option<usize>,
}

impl Typed {
    fn align(&self) -> usize {
        self.align.unwrap_or(self.ty.bytes() * self.width.max(1))
    }
}

impl Parser<'_> {
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

    /// `.align 16`
    fn alignment(&mut self) -> Result<usize, SyntaxError> {
        self.advance();
        let bytes = self.small()?;
        if !bytes.is_power_of_two() {
            return Err(self.error(format!("an alignment of {bytes} is no power of two")));
        }
        Ok(bytes as usize)
    }

    /// `.align 16 .v4 .f32`, and `.ptr .global .align 4`, which tells what a parameter points to.
    pub(super) fn typed(&mut self, parameter: bool) -> Result<Typed, SyntaxError> {
        use Type::*;
        let (mut ty, mut width, mut align, mut pointer) = (None, 0, None, false);
        while let Kind::Dot(word) = self.peek() {
            match word {
                "align" => {
                    let bytes = self.alignment()?;
                    if !pointer {
                        align = Some(bytes);
                    }
                    continue;
                }
                "ptr" if parameter => pointer = true,
                "global" | "const" | "local" | "shared" if pointer => {}
                "v2" if width == 0 => width = 2,
                "v4" if width == 0 => width = 4,
                _ => match Type::named(word) {
                    Some(E4m3 | E5m2 | E4m3x2 | E5m2x2 | Tf32 | Bf16 | Bf16x2) | None => {
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

    /// `[2][3]`, the vector width last; 0 for a first extent that is left out.
    fn extents(&mut self, width: usize) -> Result<Vec<usize>, SyntaxError> {
        let mut extents = Vec::new();
        while self.eat("[") {
            if self.is("]") && extents.is_empty() {
                extents.push(0);
            } else {
                let extent = self.small()? as usize;
                if extent == 0 && !extents.is_empty() {
                    return Err(self.error("an extent of 0"));
                }
                extents.push(extent);
            }
            self.expect("]")?;
            if extents.len() > EXTENTS {
                return Err(self.error("too many extents"));
            }
        }
        if width > 0 {
            extents.push(width);
        }
        Ok(extents)
    }

    /// Elements of an array.
    fn elements(&self, ty: Type, extents: &[usize]) -> Result<usize, SyntaxError> {
        let count = extents.iter().try_fold(1_usize, |product, extent| product.checked_mul(*extent));
        count
            .filter(|count| count.checked_mul(ty.bytes()).is_some_and(|bytes| isize::try_from(bytes).is_ok()))
            .ok_or_else(|| self.error("the array is too large"))
    }

    /// `.global .align 4 .b8 a[24] = {...}, b;`, in any space but `.reg`.
    pub(super) fn variables(&mut self, external: bool) -> Result<Vec<Variable>, SyntaxError> {
        let early = if self.peek() == Kind::Dot("align") { Some(self.alignment()?) } else { None };
        let space = self.space()?;
        let mut typed = self.typed(false)?;
        typed.align = typed.align.or(early);
        let Typed { ty, width, .. } = typed;
        if ty == Type::Pred {
            return Err(self.unsupported("a `.pred` variable"));
        }
        let mut variables = Vec::new();
        loop {
            let line = self.line();
            let name = self.identifier()?.to_owned();
            let mut extents = self.extents(width)?;
            let mut count = self.elements(ty, &extents)?;
            let mut init = Vec::new();
            if self.eat("=") {
                if !matches!(space, Space::Global | Space::Const) || external {
                    return Err(self.error(format!("`{name}` cannot have an initial value")));
                }
                self.initialiser(ty, &extents, &mut init)?;
                if count == 0 {
                    // Rows are complete but for the last.
                    extents[0] = 1;
                    let row = self.elements(ty, &extents)?;
                    extents[0] = init.len().div_ceil(row);
                    count = self.elements(ty, &extents)?;
                }
            }
            if count == 0 && !external && space != Space::Param {
                return Err(self.error(format!("`{name}` has no extent")));
            }
            variables.push(Variable { name, space, ty, align: typed.align(), count, init, external, line });
            if !self.eat(",") {
                self.expect(";")?;
                return Ok(variables);
            }
        }
    }

    /// `5`, or for an array `{1, 2}` and `{{1, 2}, {3}}`: missing elements at the end of a row are 0. The depth of the
    /// recursion is that of `extents`.
    fn initialiser(&mut self, ty: Type, extents: &[usize], init: &mut Vec<Init>) -> Result<(), SyntaxError> {
        let Some((extent, inner)) = extents.split_first() else {
            init.push(self.initial(ty)?);
            return Ok(());
        };
        self.expect("{")?;
        if self.eat("}") {
            return Ok(());
        }
        let row = self.elements(ty, inner)?;
        let start = init.len();
        for index in 0.. {
            // The row before may have ended early.
            let zeros = index * row - (init.len() - start);
            self.spend(zeros)?;
            init.resize(init.len() + zeros, Init::Bits(0));
            if *extent > 0 && index >= *extent {
                return Err(self.error("too many initial values"));
            }
            self.initialiser(ty, inner, init)?;
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}")
    }

    fn initial(&mut self, ty: Type) -> Result<Init, SyntaxError> {
        match self.peek() {
            Kind::Name("generic") if self.ahead(1) == Kind::Sym("(") => {
                self.advance();
                self.advance();
                let symbol = self.name()?.to_owned();
                self.expect(")")?;
                return self.address(ty, symbol, true);
            }
            Kind::Name(symbol) if symbol != "WARP_SZ" => {
                self.advance();
                return self.address(ty, symbol.to_owned(), false);
            }
            _ => {}
        }
        let value = self.constant()?;
        if self.is("(") {
            return Err(self.unsupported("the mask operator `0xFF(symbol)`"));
        }
        let bits = match (ty, value) {
            (Type::F16 | Type::F16x2 | Type::B128, _) => {
                return Err(self.unsupported("an initial value of this type"));
            }
            (Type::F32 | Type::B32, Constant::Single(bits)) => u64::from(bits),
            (Type::F32 | Type::B32, Constant::Double(v)) => u64::from((v as f32).to_bits()),
            (Type::F64 | Type::B64, Constant::Double(v)) => v.to_bits(),
            (ty, value) => match value.integer() {
                Some(bits) if !ty.float() => bits & (u64::MAX >> (64 - ty.bits())),
                _ => return Err(self.error("the initial value is of another type")),
            },
        };
        Ok(Init::Bits(bits))
    }

    fn address(&mut self, ty: Type, symbol: String, generic: bool) -> Result<Init, SyntaxError> {
        if !matches!(ty, Type::U32 | Type::U64) {
            return Err(self.error("an address is expected in `.u32` and `.u64` only"));
        }
        Ok(Init::Address { symbol, offset: self.offset()?, generic })
    }

    /// `+4`, `+-4`, `+4*2-1`; 0 if there is none.
    pub(super) fn offset(&mut self) -> Result<i64, SyntaxError> {
        Ok(if self.eat("+") { self.integer()? as i64 } else { 0 })
    }

    /// `(.param .b32 a, .param .align 8 .b8 b[16])`
    pub(super) fn parameters(&mut self, entry: bool) -> Result<Vec<Parameter>, SyntaxError> {
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
            let extents = self.extents(typed.width)?;
            let count = self.elements(typed.ty, &extents)?;
            if space == Space::Reg && !extents.is_empty() {
                return Err(self.unsupported("an array or vector parameter in `.reg`"));
            }
            parameters.push(Parameter { name, space, ty: typed.ty, align: typed.align(), count });
            if !self.eat(",") {
                self.expect(")")?;
                return Ok(parameters);
            }
        }
    }
}
