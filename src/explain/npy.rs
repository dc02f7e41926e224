//! Maps as `.npy` files (NumPy's format 1.0): float32, little-endian, row by row, which `numpy.load` reads. Read back is only
//! what is written here: a run that goes on takes up the maps that it made. Called by the verb `map`.

use super::{ExplainError, Map};

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The header ends at a multiple of this, so that the numbers are aligned.
const ALIGNMENT: usize = 64;
/// What stands in front of the rows and columns, and behind them.
const HEADER: [&str; 2] = ["{'descr': '<f4', 'fortran_order': False, 'shape': (", "), }"];

/// The bytes of the file that holds `map`.
pub fn write(map: &Map) -> Vec<u8> {
    let [before, behind] = HEADER;
    let text = format!("{before}{}, {}{behind}", map.height(), map.width());
    // its length in two bytes, and a newline at its end
    let taken = MAGIC.len() + 2 + text.len() + 1;
    let padding = taken.next_multiple_of(ALIGNMENT) - taken;
    let length = (text.len() + padding + 1) as u16;
    let mut file = MAGIC.to_vec();
    file.extend(length.to_le_bytes());
    file.extend(text.bytes());
    file.extend(std::iter::repeat_n(b' ', padding));
    file.push(b'\n');
    file.extend(map.values().iter().flat_map(|v| v.to_le_bytes()));
    file
}

/// The map in such a file.
///
/// # Errors
/// [`ExplainError::Npy`] for any other.
pub fn read(file: &[u8]) -> Result<Map, ExplainError> {
    let rest = file.strip_prefix(MAGIC).ok_or(ExplainError::Npy("it does not begin as one"))?;
    let short = ExplainError::Npy("it is cut short");
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(short.clone())?;
    let (header, numbers) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(short.clone())?;
    let [before, behind] = HEADER;
    let shape = std::str::from_utf8(header).ok().and_then(|text| {
        let inner = text.trim_end().strip_prefix(before)?.strip_suffix(behind)?;
        let (height, width) = inner.split_once(", ")?;
        Some((height.parse::<usize>().ok()?, width.parse::<usize>().ok()?))
    });
    let (height, width) = shape.ok_or(ExplainError::Npy("it holds no float32 map"))?;
    let (values, rest) = numbers.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(short);
    }
    Map::new(height, width, values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn files_are_numpys_to_the_byte_and_read_back() {
        let files = fixture::read().npy;
        assert!(files.len() >= 3);
        for file in files {
            let map = file.map.map();
            assert_eq!(write(&map), file.bytes);
            assert_eq!(read(&file.bytes).unwrap(), map);
        }
        let odd = Map::new(1, 3, vec![f32::NAN, f32::INFINITY, -0.0]).unwrap();
        let back = read(&write(&odd)).unwrap();
        let bits = |map: &Map| map.values().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&odd));
    }

    #[test]
    fn what_is_no_map_of_ours_is_refused_and_never_a_panic() {
        let good = write(&Map::new(2, 3, vec![1.0; 6]).unwrap());
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        let replaced = |from: &str, to: &str| {
            let text: Vec<char> = good.iter().map(|&b| char::from(b)).collect();
            let text: String = text.into_iter().collect::<String>().replace(from, to);
            text.chars().map(|c| c as u8).collect::<Vec<u8>>()
        };
        for (from, to) in [("<f4", "<f8"), ("False", "True "), ("2, 3", "3, 3"), ("2, 3", "6   "), ("NUMPY", "NUMPI")] {
            assert!(read(&replaced(from, to)).is_err(), "{to}");
        }
    }
}
