//! `printf` and `assert` of device code.

// An access is told by where it stands, who does it, and to what: more than seven things.
#![allow(clippy::too_many_arguments)]

use super::block::Block;
use super::run::{At, Machine, Result, read_lanes};
use super::warp::{LOCAL_WINDOW, Warp};
use crate::finding::Kind;
use crate::isa::logic::SHARED_WINDOW;
use crate::lanes::Unit;
use crate::program::code::*;

/// A text longer than this is cut: what is printed is for people.
const LONGEST: usize = 1 << 16;
/// What a block may print: a loop that prints must not take all memory. The hardware's buffer is far smaller.
const FIFO: usize = 16 << 20;

impl Machine<'_> {
    /// `vprintf(format, arguments)` and `__assertfail(message, file, line, function, size)`.
    pub(super) fn external(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        file: *mut Unit,
        frame: u32,
        call: &Call,
        pool: &[u16],
        lanes: u32,
        at: At,
    ) -> Result<()> {
        let operands = call.operands.of(pool);
        let memory = warp.frames[frame as usize].memory as u64;
        for lane in (0..32).filter(|l| lanes >> l & 1 != 0) {
            let argument = |warp: &Warp, i: usize| match call.arguments.get(i) {
                Some(Place::Memory { offset, bytes }) => {
                    let from = LOCAL_WINDOW + memory + *offset as u64;
                    self.word(block, warp, lane, from, (*bytes).min(8) as usize).unwrap_or(0)
                }
                Some(Place::Register { operand, units }) => {
                    let slot = operands[*operand as usize];
                    // SAFETY: the place lies in the frame, with that many units.
                    unsafe { read_lanes(file, slot, (*units).min(2) as u8)[lane] }
                }
                None => 0,
            };
            match call.target {
                Target::Assert => {
                    let text =
                        |i| String::from_utf8_lossy(&self.text(block, warp, lane, argument(warp, i))).into_owned();
                    let message = format!(
                        "assertion `{}` failed at {}:{} in {}",
                        text(0),
                        text(1),
                        argument(warp, 2) as u32,
                        text(3)
                    );
                    return Err(self.finding(Kind::Assert, message, block, warp, at, 1 << lane));
                }
                _ => {
                    let format = self.text(block, warp, lane, argument(warp, 0));
                    let (line, count) = self.format(block, warp, lane, &format, argument(warp, 1));
                    let room = FIFO.saturating_sub(block.printed.len());
                    block.printed.extend(line.iter().take(room));
                    match call.returns.first() {
                        Some(Place::Register { operand, units }) => {
                            let slot = operands[*operand as usize];
                            let units = (*units).min(2) as u8;
                            // SAFETY: as above.
                            unsafe { super::run::write_lanes(file, slot, units, 1 << lane, |_| count as u64) };
                        }
                        Some(Place::Memory { offset, bytes }) => {
                            let from = memory as usize + *offset as usize;
                            let bytes = (*bytes).min(4) as usize;
                            super::access::write_local(&mut warp.local, from, lane, bytes, count as u64);
                        }
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// A value of up to 8 bytes at a generic address, as a lane sees it.
    fn word(&self, block: &Block, warp: &Warp, lane: usize, address: u64, bytes: usize) -> Option<u64> {
        let mut value = [0u8; 8];
        for (i, byte) in value[..bytes].iter_mut().enumerate() {
            *byte = self.byte(block, warp, lane, address.checked_add(i as u64)?)?;
        }
        Some(u64::from_le_bytes(value))
    }

    fn byte(&self, block: &Block, warp: &Warp, lane: usize, address: u64) -> Option<u8> {
        match address >> 32 {
            1 => block.shared.get((address - SHARED_WINDOW) as usize).copied(),
            2 => {
                let offset = (address - LOCAL_WINDOW) as usize;
                let inside = offset < warp.local.len() / 32;
                inside.then(|| super::access::read_local(&warp.local, offset, lane, 1) as u8)
            }
            _ => {
                let mut byte = [0];
                self.launch.memory.read(address, &mut byte).ok().map(|_| byte[0])
            }
        }
    }

    /// A text that ends with a zero.
    fn text(&self, block: &Block, warp: &Warp, lane: usize, address: u64) -> Vec<u8> {
        let bytes = (0..LONGEST as u64).map_while(|i| self.byte(block, warp, lane, address.checked_add(i)?));
        bytes.take_while(|&b| b != 0).collect()
    }

    /// The text, and how many arguments it took. The arguments lie one behind the other, each aligned to its size.
    fn format(&self, block: &Block, warp: &Warp, lane: usize, format: &[u8], arguments: u64) -> (Vec<u8>, u32) {
        let mut out = Vec::new();
        let (mut offset, mut count) = (0u64, 0);
        let mut next = |bytes: u64| {
            offset = offset.next_multiple_of(bytes);
            count += 1;
            let address = arguments.wrapping_add(offset);
            offset += bytes;
            self.word(block, warp, lane, address, bytes as usize).unwrap_or(0)
        };
        let mut rest = format.iter().copied().peekable();
        while let Some(b) = rest.next() {
            if out.len() >= LONGEST {
                break;
            }
            if b != b'%' {
                out.push(b);
                continue;
            }
            let mut spec = Spec::default();
            while let Some(&flag @ (b'-' | b'+' | b' ' | b'#' | b'0')) = rest.peek() {
                spec.flag(flag);
                rest.next();
            }
            let number = |rest: &mut std::iter::Peekable<_>, next: &mut dyn FnMut(u64) -> u64| {
                let mut n: Option<i64> = None;
                if rest.peek() == Some(&b'*') {
                    rest.next();
                    return Some(next(4) as i32 as i64);
                }
                while let Some(d @ b'0'..=b'9') = rest.peek().copied() {
                    n = Some((n.unwrap_or(0) * 10 + (d - b'0') as i64).min(LONGEST as i64));
                    rest.next();
                }
                n
            };
            if let Some(width) = number(&mut rest, &mut next) {
                spec.left |= width < 0;
                spec.width = (width.unsigned_abs() as usize).min(LONGEST);
            }
            if rest.peek() == Some(&b'.') {
                rest.next();
                let precision = number(&mut rest, &mut next).unwrap_or(0);
                spec.precision = usize::try_from(precision).ok().map(|p| p.min(LONGEST));
            }
            let mut long = 0;
            while let Some(&m @ (b'h' | b'l' | b'j' | b'z' | b't' | b'L')) = rest.peek() {
                long += matches!(m, b'l') as u32 + 2 * matches!(m, b'j' | b'z' | b't') as u32;
                rest.next();
            }
            let bytes = if long > 0 { 8 } else { 4 };
            match rest.next() {
                Some(b'%') => out.push(b'%'),
                Some(b'd' | b'i') => {
                    let v = next(bytes);
                    let v = if bytes == 8 { v as i64 } else { v as i32 as i64 };
                    out.extend(spec.integer(v.unsigned_abs().to_string(), v < 0, ""));
                }
                Some(b'u') => out.extend(spec.integer(next(bytes).to_string(), false, "")),
                Some(b'o') => {
                    out.extend(spec.integer(format!("{:o}", next(bytes)), false, if spec.alternate { "0" } else { "" }))
                }
                Some(b'x') => out.extend(spec.integer(
                    format!("{:x}", next(bytes)),
                    false,
                    if spec.alternate { "0x" } else { "" },
                )),
                Some(b'X') => out.extend(spec.integer(
                    format!("{:X}", next(bytes)),
                    false,
                    if spec.alternate { "0X" } else { "" },
                )),
                Some(b'p') => out.extend(spec.pad(format!("0x{:x}", next(8)).into_bytes(), false)),
                Some(b'c') => out.extend(spec.pad(vec![next(4) as u8], false)),
                Some(b's') => {
                    let mut text = self.text(block, warp, lane, next(8));
                    text.truncate(spec.precision.unwrap_or(LONGEST));
                    out.extend(spec.pad(text, false));
                }
                Some(kind @ (b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A')) => {
                    out.extend(spec.float(f64::from_bits(next(8)), kind));
                }
                // not a conversion: it stands for itself
                Some(other) => out.extend([b'%', other]),
                None => out.push(b'%'),
            }
        }
        (out, count)
    }
}

/// A conversion of `printf`.
#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn flag(&mut self, flag: u8) {
        match flag {
            b'-' => self.left = true,
            b'+' => self.plus = true,
            b' ' => self.space = true,
            b'#' => self.alternate = true,
            _ => self.zero = true,
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (.., true) => " ",
            _ => "",
        }
    }

    /// Pads a text that begins with a sign of one byte, if `signed`.
    fn pad(&self, text: Vec<u8>, zeros: bool) -> Vec<u8> {
        let missing = self.width.saturating_sub(text.len());
        if self.left {
            return [text, vec![b' '; missing]].concat();
        }
        if zeros && self.zero {
            let signs = text.iter().take_while(|b| matches!(b, b'-' | b'+' | b' ')).count();
            return [&text[..signs], &vec![b'0'; missing], &text[signs..]].concat();
        }
        [vec![b' '; missing], text].concat()
    }

    fn integer(&self, digits: String, negative: bool, prefix: &str) -> Vec<u8> {
        let precision = self.precision.unwrap_or(1);
        let zeros = "0".repeat(precision.saturating_sub(digits.len()));
        let text = format!("{}{prefix}{zeros}{digits}", self.sign(negative));
        self.pad(text.into_bytes(), self.precision.is_none())
    }

    fn float(&self, v: f64, kind: u8) -> Vec<u8> {
        let sign = self.sign(v.is_sign_negative() && !v.is_nan());
        let a = v.abs();
        let precision = self.precision.unwrap_or(6);
        let body = if v.is_nan() {
            "nan".to_string()
        } else if v.is_infinite() {
            "inf".to_string()
        } else {
            match kind.to_ascii_lowercase() {
                b'e' => exponent(a, precision),
                b'g' => general(a, precision.max(1), self.alternate),
                b'a' => hexadecimal(a),
                _ => format!("{a:.precision$}"),
            }
        };
        let body = if kind.is_ascii_uppercase() { body.to_ascii_uppercase() } else { body };
        self.pad(format!("{sign}{body}").into_bytes(), v.is_finite())
    }
}

/// `%e`: at least two digits of exponent.
fn exponent(a: f64, precision: usize) -> String {
    let text = format!("{a:.precision$e}");
    let (mantissa, e) = text.split_once('e').unwrap_or((&text, "0"));
    let e: i32 = e.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
}

/// `%g`: the shorter of the two, without zeros at the end.
fn general(a: f64, precision: usize, keep: bool) -> String {
    let scientific = exponent(a, precision - 1);
    let e: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let strip = |t: &str| match t.contains('.') && !keep {
        true => t.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => t.to_string(),
    };
    if e < -4 || e >= precision as i32 {
        let (mantissa, rest) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        return format!("{}e{rest}", strip(mantissa));
    }
    let decimals = (precision as i32 - 1 - e).max(0) as usize;
    strip(&format!("{a:.decimals$}"))
}

/// `%a`
fn hexadecimal(a: f64) -> String {
    let bits = a.to_bits();
    let (e, mantissa) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    let (lead, e) = match e {
        0 if mantissa == 0 => (0, 0),
        0 => (0, -1022),
        _ => (1, e - 1023),
    };
    let digits = format!("{mantissa:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("0x{lead}{point}{digits}p{e:+}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_c() {
        let spec = |flags: &str, width, precision| {
            let mut s = Spec { width, precision, ..Spec::default() };
            flags.bytes().for_each(|f| s.flag(f));
            s
        };
        let float =
            |flags, width, precision, v, kind| String::from_utf8(spec(flags, width, precision).float(v, kind)).unwrap();
        assert_eq!(float("", 0, None, 1.5, b'f'), "1.500000");
        assert_eq!(float("0", 9, Some(2), -1.5, b'f'), "-00001.50");
        assert_eq!(float("-", 7, Some(1), 2.0, b'f'), "2.0    ");
        assert_eq!(float("", 0, None, 12345.678, b'e'), "1.234568e+04");
        assert_eq!(float("", 0, None, 1e-5, b'g'), "1e-05");
        assert_eq!(float("", 0, None, 100000.0, b'g'), "100000");
        assert_eq!(float("", 0, None, 1e6, b'g'), "1e+06");
        assert_eq!(float("", 0, None, 0.1, b'g'), "0.1");
        assert_eq!(float("+", 0, None, f64::INFINITY, b'f'), "+inf");
        assert_eq!(float("", 0, None, 1.0, b'a'), "0x1p+0");
        assert_eq!(float("", 0, None, 0.15625, b'a'), "0x1.4p-3");
        assert_eq!(spec("", 5, None).integer("42".into(), true, ""), b"  -42");
        assert_eq!(spec("0", 5, None).integer("42".into(), true, ""), b"-0042");
        assert_eq!(spec("", 6, Some(4)).integer("42".into(), false, ""), b"  0042");
    }
}
