//! Python pickles, read and not executed. Called by [`super::torch`].
//!
//! A pickle is a program for a stack machine whose opcodes build values, look up names of Python ("globals") and call
//! them. This machine knows all opcodes of protocols 0 to 5 that build values; a name stays a name, and a call
//! becomes a [`Made`]: what was to be called, with which arguments, and what was put into the result. Who reads the
//! values decides what a `Made` means; nothing of it ever runs. Names that serve to run programs (`os.system`) are an error
//! even so: such a file was made to do harm.
//!
//! Format: CPython's `Lib/pickletools.py`. Values lie in a list and refer to each other by number, so that shared and
//! cyclic ones need no care; each opcode, at least a byte of the file, adds at most one value.

mod machine;

use std::borrow::Cow;
use std::ops::Range;

use machine::Machine;

/// Number of a value in its pickle.
pub(super) type Id = u32;

/// Most opcodes of a pickle. PyTorch's largest networks, saved whole with an optimizer, need 100,000.
const OPCODES_MAX: usize = 2_000_000;

/// A value of Python's, as far as weights need it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A float, or a whole number beyond i64: nothing that a tensor is made of.
    Number,
    /// A text.
    Text(Cow<'a, str>),
    /// Bytes: their place in what was parsed.
    Bytes(Range<usize>),
    /// A tuple or list.
    List(Vec<Id>),
    /// A set; its members.
    Set(Vec<Id>),
    /// A dict, in order.
    Dict(Vec<(Id, Id)>),
    /// A name of Python's: module and name.
    Global(Cow<'a, str>, Cow<'a, str>),
    /// What a call or a class would have made.
    Made(Box<Made>),
    /// A value that lies outside of the pickle, told by this description: for PyTorch, a storage.
    Outside(Id),
}

/// What calling `callee` with `arguments` would have made, and what was then put into it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    /// A [`Value::Global`], or something stranger.
    pub(super) callee: Id,
    /// Its arguments; a [`Value::List`] in well-made files.
    pub(super) arguments: Id,
    /// What was put in by key.
    pub(super) items: Vec<(Id, Id)>,
    /// What was appended.
    pub(super) members: Vec<Id>,
    /// What its attributes were set from, usually one dict.
    pub(super) state: Vec<Id>,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: Id,
    /// Behind its last opcode.
    pub(super) end: usize,
}

/// Why a pickle is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    #[error("the pickle ends at byte {0}, before it is complete")]
    Short(usize),
    #[error("byte {at} of the pickle makes no sense: {what}")]
    Damaged { at: usize, what: &'static str },
    #[error("the pickle has more than {OPCODES_MAX} opcodes")]
    Long,
    #[error("the pickle asks for {0}")]
    Harmful(String),
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that begins at `start` of `data`.
    pub(super) fn parse(data: &'a [u8], start: usize) -> Result<Pickle<'a>, PickleError> {
        Machine::new(data, start).run()
    }

    /// The value of that number; `None` for a number that is not there.
    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    /// The value as a text.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a number of things.
    pub(super) fn count(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The members of a tuple or list.
    pub(super) fn list(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::List(members) => Some(members),
            _ => None,
        }
    }

    /// Module and name of a global.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.get(id) {
            Value::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    /// `module.name` of what a [`Made`] calls, for messages.
    pub(super) fn callee(&self, made: &Made) -> String {
        self.global(made.callee).map_or_else(|| "something without a name".into(), |(m, n)| dotted(m, n))
    }
}

/// `module.name`, shortened where a hostile file made it long.
fn dotted(module: &str, name: &str) -> String {
    let mut text: String = module.chars().take(80).collect();
    text.push('.');
    text.extend(name.chars().take(80));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root<'a>(pickle: &'a Pickle<'a>) -> &'a Value<'a> {
        pickle.get(pickle.root)
    }

    #[test]
    fn numbers_of_all_protocols_are_read() {
        for (bytes, value) in [
            (&b"K\x07."[..], 7i64),
            (b"M\x00\x01.", 256),
            (b"J\xff\xff\xff\xff.", -1),
            (b"I12\n.", 12),
            (b"L-5L\n.", -5),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\xff.", -1),
            (b"\x8a\x02\xff\x00.", 255),
            (b"\x80\x04\x95\0\0\0\0\0\0\0\0K\x01.", 1),
        ] {
            let pickle = Pickle::parse(bytes, 0).unwrap();
            assert_eq!((root(&pickle), pickle.end), (&Value::Int(value), bytes.len()), "{bytes:?}");
        }
        assert_eq!(root(&Pickle::parse(b"\x8a\x09aaaaaaaaa.", 0).unwrap()), &Value::Number);
        assert_eq!(root(&Pickle::parse(b"G\0\0\0\0\0\0\0\0.", 0).unwrap()), &Value::Number);
    }

    #[test]
    fn calls_stay_descriptions_and_take_items_members_and_state() {
        let bytes = b"ccollections\nOrderedDict\n)RX\x01\x00\x00\x00kK\x01s}b.";
        let pickle = Pickle::parse(bytes, 0).unwrap();
        let Value::Made(made) = root(&pickle) else { panic!() };
        assert_eq!(pickle.callee(made), "collections.OrderedDict");
        assert_eq!((pickle.text(made.items[0].0), pickle.get(made.items[0].1)), (Some("k"), &Value::Int(1)));
        assert_eq!((made.members.len(), made.state.len()), (0, 1));
    }

    #[test]
    fn names_that_run_programs_are_refused_however_they_are_written() {
        for bytes in [
            &b"cos\nsystem\n."[..],
            b"cposix\nsystem\n(S'id'\ntR.",
            b"(S'id'\nios\nsystem\n.",
            b"\x8c\x02os\x8c\x06system\x93.",
            b"c__builtin__\neval\n.",
            b"cbuiltins\nexec\n.",
            b"csubprocess\nPopen\n.",
            b"ctorch.hub\nload\n.",
        ] {
            assert!(matches!(Pickle::parse(bytes, 0), Err(PickleError::Harmful(_))), "{bytes:?}");
        }
        assert!(Pickle::parse(b"cbuiltins\nset\n.", 0).is_ok());
    }

    #[test]
    fn a_stack_that_runs_empty_and_lengths_beyond_the_file_are_errors() {
        for bytes in [
            &b"."[..],
            b"0.",
            b"R.",
            b"t.",
            b"e.",
            b"(.",
            b"K\x01(0.",
            b"\x85.",
            b"(K\x01d.",
            b"h\x00.",
            b"o.",
            b"(o.",
            b"b.",
            b"s.",
            b"Q.",
            b"\x93.",
            b"B\xff\xff\xff\xff.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x82\x01.",
            b"\x97.",
            b"",
            b"\xff.",
            b"K\x01K\x02s.",
            b"K\x01K\x02b.",
            b"Ix\n.",
            b"X\x01\0\0\0\xff.",
            b"\x80\x09.",
            b"S'a\n.",
            b"pq\n.",
            b"K\x01K\x02(R.",
        ] {
            let result = Pickle::parse(bytes, 0);
            let mark_popped = bytes == b"K\x01(0.";
            assert_eq!(result.is_ok(), mark_popped, "{bytes:?}: {result:?}");
        }
    }

    #[test]
    fn a_pickle_without_end_is_stopped_by_the_number_of_its_opcodes() {
        let mut bytes = vec![b'N'; OPCODES_MAX + 1];
        bytes.push(b'.');
        assert_eq!(Pickle::parse(&bytes, 0).err(), Some(PickleError::Long));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_machine_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pickle::parse(&bytes, 0);
        }

        #[test]
        fn no_program_of_real_opcodes_makes_it_panic(
            opcodes in proptest::collection::vec(
                proptest::sample::select(b"(.012NK)]}tlda euspqrghjcRiobPQ\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94\x81".to_vec()), 0..200)
        ) {
            let _ = Pickle::parse(&opcodes, 0);
        }
    }
}
