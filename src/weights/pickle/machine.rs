//! The stack machine that reads pickles: one opcode after the other, each bounded by what the file holds. Called by
//! [`super::Pickle::parse`].

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Id, Made, OPCODES_MAX, Pickle, PickleError, Value, dotted};

/// True for names that serve to run programs or code, or to load it.
fn is_harmful(module: &str, name: &str) -> bool {
    /// With all that lies in them.
    const MODULES: [&str; 23] = [
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "pty",
        "runpy",
        "importlib",
        "ctypes",
        "cffi",
        "socket",
        "shutil",
        "webbrowser",
        "codeop",
        "marshal",
        "pickle",
        "_pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "pip",
        "urllib",
        "asyncio",
    ];
    /// Themselves only: people have folders of these names.
    const ALONE: [&str; 10] =
        ["code", "commands", "popen2", "imp", "timeit", "pdb", "bdb", "profile", "cProfile", "trace"];
    const BUILTINS: [&str; 17] = [
        "eval",
        "exec",
        "execfile",
        "compile",
        "open",
        "file",
        "__import__",
        "input",
        "breakpoint",
        "globals",
        "locals",
        "vars",
        "apply",
        "exit",
        "quit",
        "delattr",
        "setattr",
    ];
    let top = module.split('.').next().unwrap_or_default();
    match top {
        "builtins" | "__builtin__" => BUILTINS.contains(&name.split('.').next().unwrap_or_default()),
        "types" => matches!(name, "FunctionType" | "LambdaType" | "CodeType"),
        "torch" => module == "torch.hub" || module.starts_with("torch.utils.cpp_extension") || name == "load",
        _ => MODULES.contains(&top) || ALONE.contains(&module),
    }
}

/// The machine, before or amid a pickle.
pub(super) struct Machine<'a> {
    data: &'a [u8],
    at: usize,
    opcode_at: usize,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    values: Vec<Value<'a>>,
}

impl<'a> Machine<'a> {
    /// To read the pickle that begins at `start` of `data`.
    pub(super) fn new(data: &'a [u8], start: usize) -> Machine<'a> {
        Machine {
            data,
            at: start,
            opcode_at: start,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            values: Vec::new(),
        }
    }

    /// Runs to the opcode that ends the pickle.
    pub(super) fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        for _ in 0..OPCODES_MAX {
            self.opcode_at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { values: self.values, root, end: self.at });
            }
            self.step(opcode)?;
        }
        Err(PickleError::Long)
    }

    /// One opcode.
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // the frame of protocol 4 says how much to read ahead
            0x95 => self.take(8).map(drop),
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                _ => Err(self.damaged("a protocol after 5")),
            },
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => {
                // CPython pops a mark where it lies on top
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(drop)
            }
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' | b'M' | b'J' | b'I' | b'L' | 0x8a | 0x8b | b'F' | b'G' => {
                let number = self.number(opcode)?;
                self.push(number)
            }
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8c | 0x8d => {
                let text = self.text(opcode)?;
                self.push(text)
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let size = if opcode == b'C' {
                    1
                } else if opcode == b'B' {
                    4
                } else {
                    8
                };
                let length = self.length(size)?;
                let start = self.at;
                self.take(length)?;
                self.push(Value::Bytes(start..start + length))
            }
            b')' | b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Set(Vec::new())),
            b't' | b'l' => {
                let members = self.pop_mark()?;
                self.push(Value::List(members))
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).filter(|&s| s >= self.floor());
                let members = self.stack.split_off(start.ok_or_else(|| self.damaged("too few values for a tuple"))?);
                self.push(Value::List(members))
            }
            b'd' => {
                let pairs = self.pop_pairs()?;
                self.push(Value::Dict(pairs))
            }
            0x91 => {
                let members = self.pop_mark()?;
                self.push(Value::Set(members))
            }
            b'a' | b'e' | 0x90 => {
                let members = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
                self.append(members)
            }
            b's' | b'u' => {
                let pairs = if opcode == b'u' {
                    self.pop_pairs()?
                } else {
                    let (value, key) = (self.pop()?, self.pop()?);
                    vec![(key, value)]
                };
                self.put_in(pairs)
            }
            b'p' | b'q' | b'r' | 0x94 => self.remember(opcode),
            b'g' | b'h' | b'j' => self.recall(opcode),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = self.named(module.into(), name.into())?;
                self.push(global)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match self.values.get(id as usize) {
                    Some(Value::Text(text)) => Ok(text.clone()),
                    _ => Err(self.damaged("a global without a name")),
                };
                let global = self.named(text(module)?, text(name)?)?;
                self.push(global)
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.make(callee, arguments)
            }
            // keyword arguments are not looked at
            0x92 => {
                let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.make(callee, arguments)
            }
            b'o' => {
                let mut members = self.pop_mark()?;
                if members.is_empty() {
                    return Err(self.damaged("an object without a class"));
                }
                let callee = members.remove(0);
                let arguments = self.add(Value::List(members))?;
                self.make(callee, arguments)
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let members = self.pop_mark()?;
                let global = self.named(module.into(), name.into())?;
                let (callee, arguments) = (self.add(global)?, self.add(Value::List(members))?);
                self.make(callee, arguments)
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.top()?);
                match self.values.get_mut(object as usize) {
                    Some(Value::Made(made)) => made.state.push(state),
                    _ => return Err(self.damaged("attributes of something that has none")),
                }
                Ok(())
            }
            b'P' => {
                let name = self.line()?;
                let id = self.add(Value::Text(name.into()))?;
                self.push(Value::Outside(id))
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Outside(id))
            }
            0x82..=0x84 => Err(self.damaged("an extension code, which names something in another program's registry")),
            0x97 | 0x98 => Err(self.damaged("a buffer outside of the file")),
            _ => Err(self.damaged("no such opcode")),
        }
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged { at: self.opcode_at, what }
    }

    fn named(&self, module: Cow<'a, str>, name: Cow<'a, str>) -> Result<Value<'a>, PickleError> {
        if is_harmful(&module, &name) {
            return Err(PickleError::Harmful(dotted(&module, &name)));
        }
        Ok(Value::Global(module, name))
    }

    // reading

    fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let bytes = self.data.get(self.at..).and_then(|rest| rest.get(..length));
        let bytes = bytes.ok_or(PickleError::Short(self.data.len()))?;
        self.at += length;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of `size` bytes, at most 8, that has to be a length.
    fn length(&mut self, size: usize) -> Result<usize, PickleError> {
        let bytes = self.take(size)?;
        let number = bytes.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        // what no file holds is too short in any case
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// Up to the next newline, which is skipped.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&b| b == b'\n').ok_or(PickleError::Short(self.data.len()))?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| self.damaged("a line that is no text"))
    }

    fn number(&mut self, opcode: u8) -> Result<Value<'a>, PickleError> {
        Ok(match opcode {
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(self.length(2)? as i64),
            b'J' => Value::Int((self.length(4)? as u32 as i32).into()),
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                digits => Value::Int(digits.trim().parse().map_err(|_| self.damaged("no number"))?),
            },
            b'L' => {
                let digits = self.line()?;
                let digits = digits.trim_end_matches('L');
                let digits_only = digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit());
                match digits.parse() {
                    Ok(n) => Value::Int(n),
                    Err(_) if digits_only => Value::Number,
                    Err(_) => return Err(self.damaged("no number")),
                }
            }
            0x8a | 0x8b => {
                let length = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                whole(self.take(length)?)
            }
            b'F' => {
                self.line()?;
                Value::Number
            }
            _ => {
                self.take(8)?;
                Value::Number
            }
        })
    }

    fn text(&mut self, opcode: u8) -> Result<Value<'a>, PickleError> {
        let no_text = "a text that is no UTF-8";
        match opcode {
            // Python's own escapes, of which names of tensors have none
            b'S' => {
                let line = self.line()?.trim();
                let bare = ['\'', '"'].iter().find_map(|&q| line.strip_prefix(q)?.strip_suffix(q));
                let bare = bare.ok_or_else(|| self.damaged("a text without quotes"))?;
                Ok(Value::Text(bare.into()))
            }
            b'V' => Ok(Value::Text(self.line()?.into())),
            _ => {
                let size = match opcode {
                    b'U' | 0x8c => 1,
                    0x8d => 8,
                    _ => 4,
                };
                let length = self.length(size)?;
                let start = self.at;
                let bytes = self.take(length)?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Value::Text(text.into())),
                    // Python 2's strings are bytes
                    Err(_) if matches!(opcode, b'T' | b'U') => Ok(Value::Bytes(start..start + length)),
                    Err(_) => Err(self.damaged(no_text)),
                }
            }
        }
    }

    // the stack

    fn add(&mut self, value: Value<'a>) -> Result<Id, PickleError> {
        let id = Id::try_from(self.values.len()).map_err(|_| PickleError::Long)?;
        self.values.push(value);
        Ok(id)
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), PickleError> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn make(&mut self, callee: Id, arguments: Id) -> Result<(), PickleError> {
        let (items, members, state) = (Vec::new(), Vec::new(), Vec::new());
        self.push(Value::Made(Box::new(Made { callee, arguments, items, members, state })))
    }

    /// Where the values above the last mark begin.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        if self.stack.len() <= self.floor() {
            return Err(self.damaged("nothing is on the stack"));
        }
        self.stack.pop().ok_or_else(|| self.damaged("nothing is on the stack"))
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or_else(|| self.damaged("nothing is on the stack"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().filter(|&m| m <= self.stack.len()).ok_or_else(|| self.damaged("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_pairs(&mut self) -> Result<Vec<(Id, Id)>, PickleError> {
        let members = self.pop_mark()?;
        if members.len() % 2 != 0 {
            return Err(self.damaged("a key without a value"));
        }
        Ok(members.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    /// Appends to the list, set or object on top.
    fn append(&mut self, members: Vec<Id>) -> Result<(), PickleError> {
        let top = self.top()?;
        match self.values.get_mut(top as usize) {
            Some(Value::List(list) | Value::Set(list)) => list.extend(members),
            Some(Value::Made(made)) => made.members.extend(members),
            _ => return Err(self.damaged("members of something that has none")),
        }
        Ok(())
    }

    /// Puts pairs into the dict or object on top.
    fn put_in(&mut self, pairs: Vec<(Id, Id)>) -> Result<(), PickleError> {
        let top = self.top()?;
        match self.values.get_mut(top as usize) {
            Some(Value::Dict(items)) => items.extend(pairs),
            Some(Value::Made(made)) => made.items.extend(pairs),
            _ => return Err(self.damaged("items of something that has none")),
        }
        Ok(())
    }

    fn memo_key(&mut self, opcode: u8) -> Result<u32, PickleError> {
        match opcode {
            b'p' | b'g' => self.line()?.trim().parse().map_err(|_| self.damaged("no memo number")),
            b'q' | b'h' => Ok(self.byte()?.into()),
            _ => Ok(self.length(4)? as u32),
        }
    }

    fn remember(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            0x94 => u32::try_from(self.memo.len()).map_err(|_| PickleError::Long)?,
            _ => self.memo_key(opcode)?,
        };
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = self.memo_key(opcode)?;
        let id = *self.memo.get(&key).ok_or_else(|| self.damaged("nothing has that memo number"))?;
        self.stack.push(id);
        Ok(())
    }
}

/// A little-endian two's complement number of any length.
fn whole<'a>(bytes: &[u8]) -> Value<'a> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    if bytes.len() > 8 {
        return Value::Number;
    }
    let mut eight = if negative { [0xff; 8] } else { [0; 8] };
    eight[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(eight))
}
