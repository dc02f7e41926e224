//! Protocol buffers on the wire: the fields of a message, in order, in place. Called by [`super::onnx`].
//!
//! Ours, as an ONNX file needs four of its messages and none of the code that a generator makes of all; nothing is
//! allocated here and every length is compared with the file. Format: <https://protobuf.dev/programming-guides/encoding>.

use std::ops::Range;

/// A field's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// A variable-length number.
    Number(u64),
    /// Eight bytes, as a little-endian number.
    Eight(u64),
    /// Four bytes, as a little-endian number.
    Four(u32),
    /// Bytes, a text, a message or a packed list: their place in the file.
    Bytes(Range<usize>),
}

/// Where the encoding makes no sense, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of its protocol buffers makes no sense: {what}")]
pub(super) struct WireError {
    at: usize,
    what: &'static str,
}

/// The fields of the message that lies in a range of the file.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Of the message in `range` of `bytes`.
    pub(super) fn new(bytes: &'a [u8], range: Range<usize>) -> Fields<'a> {
        let end = range.end.min(bytes.len());
        Fields { bytes: &bytes[..end], at: range.start.min(end) }
    }

    fn error(&self, what: &'static str) -> WireError {
        WireError { at: self.at, what }
    }

    /// The next variable-length number.
    pub(super) fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.error("it ends inside of a number"))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number has more than ten bytes"))
    }

    fn take(&mut self, length: u64) -> Result<Range<usize>, WireError> {
        let end = usize::try_from(length).ok().and_then(|n| self.at.checked_add(n)).filter(|&e| e <= self.bytes.len());
        let end = end.ok_or_else(|| self.error("a field reaches beyond its message"))?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    /// True behind the last byte.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn field(&mut self) -> Result<(u64, Wire), WireError> {
        let tag = self.number()?;
        if tag >> 3 == 0 || tag >> 3 > 0x1fff_ffff {
            return Err(self.error("a field has no number"));
        }
        let wire = match tag & 7 {
            0 => Wire::Number(self.number()?),
            1 => Wire::Eight(bytemuck::pod_read_unaligned(&self.bytes[self.take(8)?])),
            2 => {
                let length = self.number()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Four(bytemuck::pod_read_unaligned(&self.bytes[self.take(4)?])),
            _ => return Err(self.error("a field is of a kind that ONNX has not")),
        };
        Ok((tag >> 3, wire))
    }
}

/// Number and content of each field; ends after the first error.
impl Iterator for Fields<'_> {
    type Item = Result<(u64, Wire), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Wire)>, WireError> {
        Fields::new(bytes, 0..bytes.len()).collect()
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        assert_eq!(all(&[0x08, 0x96, 0x01]), Ok(vec![(1, Wire::Number(150))]));
        assert_eq!(all(b"\x12\x07testing"), Ok(vec![(2, Wire::Bytes(2..9))]));
        let fixed = [&[0x0d][..], &7u32.to_le_bytes(), &[0x11], &9u64.to_le_bytes()].concat();
        assert_eq!(all(&fixed), Ok(vec![(1, Wire::Four(7)), (2, Wire::Eight(9))]));
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_an_error() {
        for bytes in
            [&[0x08][..], &[0x12, 0x05, 1], &[0x0d, 1, 2, 3], &[0x13, 0], &[0x00, 1], &[0x08, 0xff], &[0xff; 20]]
        {
            assert!(all(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Fields::new(&bytes, 0..bytes.len()).count() <= bytes.len());
        }
    }
}
