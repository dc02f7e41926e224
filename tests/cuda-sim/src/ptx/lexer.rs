//! Cuts PTX text into tokens (PTX ISA 4.1 to 4.5).

use super::SyntaxError;

/// What a token is. Text is borrowed from the source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind<'t> {
    /// An identifier, or `_`.
    Name(&'t str),
    /// `.global`, `.shared::cta`, `.128x256b`: what follows the dot.
    Dot(&'t str),
    /// An integer literal; unsigned by its suffix, or because it does not fit into `.s64`.
    Int { bits: u64, unsigned: bool },
    /// `0f3F800000`
    F32(u32),
    /// `0d3FF0000000000000`, `1.0e-3`
    F64(u64),
    /// `8.10` behind `.version`: major and minor.
    Version(u32, u32),
    /// `"text"`
    Text(&'t str),
    /// An operator or a bracket.
    Sym(&'t str),
    /// Behind the last token.
    End,
}

/// A token and the line it stands in, from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'t> {
    pub kind: Kind<'t>,
    pub line: u32,
}

/// Operators of two characters; all others have one.
const PAIRS: [&str; 8] = ["<<", ">>", "<=", ">=", "==", "!=", "&&", "||"];
const SINGLES: &[u8] = b"{}[]()<>,;:=+-*/%&|^~!?@";

/// The tokens of `text`, the last one `Kind::End`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0, line: 1, before: Kind::End };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let line = lexer.line;
        let kind = lexer.token()?;
        lexer.before = kind;
        tokens.push(Token { kind, line });
        if kind == Kind::End {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: u32,
    /// The token before.
    before: Kind<'t>,
}

/// What identifiers and dotted words go on with.
fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$'
}

impl<'t> Lexer<'t> {
    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line, what: what.into() }
    }

    /// Moves to `end`, which is at a character boundary, and counts the lines passed.
    fn skip_to(&mut self, end: usize) {
        let lines = self.text.as_bytes()[self.at..end].iter().filter(|&&b| b == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.at = end;
    }

    /// Blanks, comments, and the lines of the DWARF form of PTX ISA 1.x, `@@DWARF ...`.
    fn skip_blanks(&mut self) -> Result<(), SyntaxError> {
        loop {
            let rest = &self.text[self.at..];
            let blanks = rest.len() - rest.trim_ascii_start().len();
            self.skip_to(self.at + blanks);
            let rest = &self.text[self.at..];
            if rest.starts_with("//") || rest.starts_with("@@DWARF") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or_else(|| self.error("a comment does not end"))?;
                self.skip_to(self.at + end + 4);
            } else if rest.starts_with('\u{b}') {
                self.at += 1;
            } else {
                return Ok(());
            }
        }
    }

    /// The bytes from here on that `part` accepts.
    fn take(&mut self, part: impl Fn(u8) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|b| !part(b)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn token(&mut self) -> Result<Kind<'t>, SyntaxError> {
        let first = self.byte(0);
        if self.at >= self.text.len() {
            return Ok(Kind::End);
        }
        let start = self.at;
        match first {
            b'0'..=b'9' if self.before == Kind::Dot("version") => return self.version(),
            b'0'..=b'9' => return self.number(),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => return Ok(Kind::Name(self.take(word))),
            b'%' if word(self.byte(1)) => {
                self.at += 1;
                self.take(word);
                return Ok(Kind::Name(&self.text[start..self.at]));
            }
            // `.5` where an operand is due; `.1d` of an opcode follows a name or another modifier.
            b'.' if self.byte(1).is_ascii_digit() && matches!(self.before, Kind::Sym(_)) => return self.number(),
            b'.' => {
                self.at += 1;
                self.take(word);
                while self.byte(0) == b':' && self.byte(1) == b':' && word(self.byte(2)) {
                    self.at += 2;
                    self.take(word);
                }
                let name = &self.text[start + 1..self.at];
                return if name.is_empty() { Err(self.error("a dot without a name")) } else { Ok(Kind::Dot(name)) };
            }
            b'"' => {
                self.at += 1;
                let text = self.take(|b| b != b'"' && b != b'\n');
                if self.byte(0) != b'"' {
                    return Err(self.error("a string does not end"));
                }
                self.at += 1;
                return Ok(Kind::Text(text));
            }
            _ => {}
        }
        let rest = &self.text[self.at..];
        if let Some(pair) = PAIRS.iter().find(|p| rest.starts_with(**p)) {
            self.at += 2;
            return Ok(Kind::Sym(pair));
        }
        if SINGLES.contains(&first) {
            self.at += 1;
            return Ok(Kind::Sym(&rest[..1]));
        }
        Err(self.error(format!("unexpected character {:?}", rest.chars().next().unwrap_or('\0'))))
    }

    fn version(&mut self) -> Result<Kind<'t>, SyntaxError> {
        let text = self.take(|b| b.is_ascii_digit() || b == b'.');
        let parts = text.split_once('.').map(|(major, minor)| (major.parse(), minor.parse()));
        match parts {
            Some((Ok(major), Ok(minor))) => Ok(Kind::Version(major, minor)),
            _ => Err(self.error(format!("`{text}` is not a version"))),
        }
    }

    /// PTX ISA 4.5.1 and 4.5.2.
    fn number(&mut self) -> Result<Kind<'t>, SyntaxError> {
        let start = self.at;
        let wrong = |lexer: &Lexer<'t>, text: &str| lexer.error(format!("`{text}` is not a number"));
        match self.byte(1) {
            letter @ (b'f' | b'F' | b'd' | b'D') if self.byte(0) == b'0' => {
                let text = self.take(word);
                let bits = text.get(2..).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let single = letter.eq_ignore_ascii_case(&b'f');
                return match bits {
                    Some(digits) if single && digits.len() == 8 => u32::from_str_radix(digits, 16).map(Kind::F32).ok(),
                    Some(digits) if !single && digits.len() == 16 => {
                        u64::from_str_radix(digits, 16).map(Kind::F64).ok()
                    }
                    _ => None,
                }
                .ok_or_else(|| wrong(self, text));
            }
            _ => {}
        }
        let digits = self.take(|b| b.is_ascii_digit());
        let exponent = matches!(self.byte(0), b'e' | b'E')
            && (self.byte(1).is_ascii_digit()
                || (matches!(self.byte(1), b'+' | b'-') && self.byte(2).is_ascii_digit()));
        if self.byte(0) == b'.' || exponent {
            if self.byte(0) == b'.' {
                self.at += 1;
                self.take(|b| b.is_ascii_digit());
            }
            if matches!(self.byte(0), b'e' | b'E') {
                self.at += 1;
                if matches!(self.byte(0), b'+' | b'-') {
                    self.at += 1;
                }
                self.take(|b| b.is_ascii_digit());
            }
            let rest = self.take(word);
            let text = &self.text[start..self.at];
            return match text.parse::<f64>() {
                Ok(value) if rest.is_empty() => Ok(Kind::F64(value.to_bits())),
                _ => Err(wrong(self, text)),
            };
        }
        self.take(word);
        let text = &self.text[start..self.at];
        let (body, suffix) = match text.strip_suffix('U') {
            Some(body) => (body, true),
            None => (text, false),
        };
        let (radix, body) = match body.as_bytes() {
            [b'0', b'x' | b'X', ..] => (16, &body[2..]),
            [b'0', b'b' | b'B', ..] => (2, &body[2..]),
            [b'0', _, ..] => (8, &body[1..]),
            _ => (10, digits),
        };
        if radix == 10 && body.len() + usize::from(suffix) != text.len() {
            return Err(wrong(self, text));
        }
        let bits = u64::from_str_radix(body, radix).map_err(|_| wrong(self, text))?;
        Ok(Kind::Int { bits, unsigned: suffix || bits > i64::MAX as u64 })
    }
}
