//! What is counted in a launch, without a clock: it repeats to the digit.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::lanes::Class;

/// The counts of one launch.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Counters {
    /// Warp instructions and lane instructions (those of active lanes) by class.
    pub instructions: BTreeMap<Class, Count>,
    /// Fused multiply-adds of lanes, in any precision but tensor cores.
    pub fma: u64,
    /// Multiply-accumulates of `mma` and `wmma`.
    pub tensor_macs: u64,
    /// Warp-wide requests to global memory, and the 32-byte sectors that they touch.
    pub global_load: Traffic,
    /// As for loads; atomics and reductions count as stores.
    pub global_store: Traffic,
    /// Warp-wide requests to shared memory, and the wavefronts (passes over the banks) that they need.
    pub shared_load: Banks,
    /// As for loads.
    pub shared_store: Banks,
    /// Barriers that whole blocks passed.
    pub barriers: u64,
    /// Branches that a warp's lanes took different ways.
    pub divergent_branches: u64,
    /// All branches, by warps.
    pub branches: u64,
}

/// Instructions of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Count {
    pub warps: u64,
    pub lanes: u64,
}

/// Global traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// 32-byte sectors.
    pub sectors: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
}

/// Shared traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Banks {
    /// Warp instructions.
    pub requests: u64,
    /// Passes over the 32 banks; `wavefronts - ideal` is what conflicts cost.
    pub wavefronts: u64,
    /// Wavefronts that the same bytes need at best.
    pub ideal: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
}

impl Counters {
    /// Adds the counts of another part of the launch, or of another launch.
    pub fn merge(&mut self, other: &Counters) {
        for (&class, count) in &other.instructions {
            let mine = self.instructions.entry(class).or_default();
            mine.warps += count.warps;
            mine.lanes += count.lanes;
        }
        self.fma += other.fma;
        self.tensor_macs += other.tensor_macs;
        self.global_load += other.global_load;
        self.global_store += other.global_store;
        self.shared_load += other.shared_load;
        self.shared_store += other.shared_store;
        self.barriers += other.barriers;
        self.divergent_branches += other.divergent_branches;
        self.branches += other.branches;
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.bytes += other.bytes;
    }
}

impl AddAssign for Banks {
    fn add_assign(&mut self, other: Banks) {
        self.requests += other.requests;
        self.wavefronts += other.wavefronts;
        self.ideal += other.ideal;
        self.bytes += other.bytes;
    }
}

/// What an instruction's last request looked like. In a loop it looks the same again and again, but for where it starts, and
/// then costs the same.
#[derive(Clone)]
pub(crate) struct Pattern {
    /// 0: nothing is known.
    mask: u32,
    /// Where the first lane is, within the banks.
    phase: u32,
    /// Where the others are, from there.
    relative: [u64; 32],
    cost: (u32, u32),
}

impl Pattern {
    pub(crate) const NONE: Pattern = Pattern { mask: 0, phase: 0, relative: [0; 32], cost: (0, 0) };

    /// `cost` of the request, from memory where it can be.
    #[inline]
    fn cost(
        &mut self,
        mask: u32,
        addresses: &[u64; 32],
        bytes: u32,
        cost: fn(u32, &[u64; 32], u32) -> (u32, u32),
    ) -> (u32, u32) {
        let first = addresses[0];
        let phase = (first % 128) as u32;
        if self.mask != mask || self.phase != phase || !super::vector::repeats(addresses, &self.relative) {
            let relative = std::array::from_fn(|l| addresses[l].wrapping_sub(first));
            *self = Pattern { mask, phase, relative, cost: cost(mask, addresses, bytes) };
        }
        self.cost
    }
}

impl Traffic {
    /// Counts one request.
    pub(crate) fn count(&mut self, pattern: &mut Pattern, mask: u32, addresses: &[u64; 32], bytes: u32) {
        let (sectors, _) = pattern.cost(mask, addresses, bytes, |m, a, b| (sectors(m, a, b), 0));
        self.requests += 1;
        self.sectors += u64::from(sectors);
        self.bytes += u64::from(mask.count_ones()) * u64::from(bytes);
    }
}

impl Banks {
    /// Counts one matrix of `ldmatrix`.
    pub(crate) fn count_rows(&mut self, rows: &[u64]) {
        self.requests += 1;
        self.wavefronts += u64::from(row_passes(rows));
        self.ideal += 1;
        self.bytes += 128;
    }

    /// Counts one request.
    pub(crate) fn count(&mut self, pattern: &mut Pattern, mask: u32, addresses: &[u64; 32], bytes: u32) {
        let (actual, ideal) = pattern.cost(mask, addresses, bytes, wavefronts);
        self.requests += 1;
        self.wavefronts += u64::from(actual);
        self.ideal += u64::from(ideal);
        self.bytes += u64::from(mask.count_ones()) * u64::from(bytes);
    }
}

/// Whether all 32 lanes are there, each behind the one before.
#[inline]
fn contiguous(mask: u32, addresses: &[u64; 32], bytes: u32) -> bool {
    let first = addresses[0];
    mask == u32::MAX
        && addresses.iter().zip(0..).fold(0, |d, (a, i)| d | (a.wrapping_sub(first) ^ (i * u64::from(bytes)))) == 0
}

/// Whether the lanes of the mask have one address.
#[inline]
fn uniform(mask: u32, addresses: &[u64; 32]) -> bool {
    let first = addresses[mask.trailing_zeros() as usize % 32];
    addresses.iter().enumerate().fold(0, |d, (i, a)| d | if mask >> i & 1 != 0 { a ^ first } else { 0 }) == 0
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |&l| mask >> l & 1 != 0)
}

/// How many 32-byte sectors of global memory the lanes of a request touch.
pub fn sectors(mask: u32, addresses: &[u64; 32], bytes: u32) -> u32 {
    if mask == 0 || bytes == 0 {
        return 0;
    }
    let range = |first: u64, bytes: u64| (first >> 5, first.saturating_add(bytes - 1) >> 5);
    let count = |(first, last): (u64, u64)| u32::try_from(last - first + 1).unwrap_or(u32::MAX);
    if contiguous(mask, addresses, bytes) {
        return count(range(addresses[0], 32 * u64::from(bytes)));
    }
    if uniform(mask, addresses) {
        return count(range(addresses[mask.trailing_zeros() as usize], u64::from(bytes)));
    }
    let mut ranges = [(0, 0); 32];
    let mut n = 0;
    for lane in lanes(mask) {
        ranges[n] = range(addresses[lane], u64::from(bytes));
        n += 1;
    }
    let ranges = &mut ranges[..n];
    if !ranges.is_sorted() {
        ranges.sort_unstable();
    }
    let mut total = 0u32;
    let mut next = 0;
    for &(first, last) in ranges.iter() {
        let first = first.max(next);
        if first <= last {
            total = total.saturating_add(count((first, last)));
            next = last + 1;
        }
    }
    total
}

/// How many passes over the banks of shared memory a request takes, and how many it would without conflicts.
///
/// There are 32 banks of 4 bytes, and a pass reads or writes one word of each, for however many lanes want that word. Lanes
/// of up to 4 bytes go together; of 8 bytes by half warps, of 16 bytes by quarter warps, unless all lanes want the same. A
/// group takes as many passes as the bank with the most different words has words.
pub fn wavefronts(mask: u32, addresses: &[u64; 32], bytes: u32) -> (u32, u32) {
    if mask == 0 || bytes == 0 {
        return (0, 0);
    }
    let lanes_a_group = match bytes {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    };
    if contiguous(mask, addresses, bytes) && addresses[0].is_multiple_of(4) && matches!(bytes, 1 | 2 | 4 | 8 | 16) {
        return (32 / lanes_a_group, 32 / lanes_a_group);
    }
    if bytes <= 16 && uniform(mask, addresses) {
        return (1, 1);
    }
    let (mut actual, mut ideal) = (0, 0);
    for group in 0..32 / lanes_a_group {
        let members = mask & (u32::MAX >> (32 - lanes_a_group)) << (group * lanes_a_group);
        if members != 0 {
            actual += passes(members, addresses, bytes);
            ideal += 1;
        }
    }
    (actual, ideal)
}

/// The most different words that lanes want of one bank.
fn passes(members: u32, addresses: &[u64; 32], bytes: u32) -> u32 {
    // The first word that a bank is asked for; what else it is asked for.
    let mut word = [0u64; 32];
    let mut asked = [0u32; 32];
    let mut more: Vec<u64> = Vec::new();
    let mut most = 0;
    for lane in lanes(members) {
        let first = addresses[lane] / 4;
        let last = addresses[lane].saturating_add(u64::from(bytes) - 1) / 4;
        for w in first..=last {
            let bank = (w % 32) as usize;
            if asked[bank] == 0 {
                word[bank] = w;
            } else if word[bank] == w || more.contains(&w) {
                continue;
            } else {
                more.push(w);
            }
            asked[bank] += 1;
            most = most.max(asked[bank]);
        }
    }
    most
}

/// The passes that 8 rows of 16 bytes take, as one matrix of `ldmatrix`: rows that begin in the same 4 banks wait for each
/// other, unless they are the same.
pub(crate) fn row_passes(rows: &[u64]) -> u32 {
    if rows.iter().fold(0u8, |banks, a| banks | 1 << (a / 16 % 8)) == 0xff {
        return 1;
    }
    let mut most = 1;
    for (i, a) in rows.iter().enumerate() {
        let clashes = |b: &&u64| **b != *a && (**b / 16) % 8 == (a / 16) % 8;
        // each different row counts once: where it stands first
        if !rows[..i].contains(a) {
            most = most.max(
                1 + rows[..i].iter().enumerate().filter(|(j, b)| clashes(b) && !rows[..*j].contains(b)).count() as u32,
            );
        }
    }
    most
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `a / b`, or `-` for nothing.
fn ratio(a: u64, b: u64) -> String {
    if b == 0 { "-".into() } else { format!("{:.2}", a as f64 / b as f64) }
}

/// Rows of a table: the first column to the left, the others to the right, as wide as they must be.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> =
            cells.map(|(i, (cell, &w))| if i == 0 { format!("{cell:w$}") } else { format!("{cell:>w$}") }).collect();
        writeln!(f, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

/// Tables for people; every count of zero that would be a row of its own is left out.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |name: &str, cells: &[String]| -> Vec<String> {
            std::iter::once(name.to_string()).chain(cells.iter().cloned()).collect()
        };
        let titles = |name: &str, cells: &[&str]| row(name, &cells.iter().map(|c| c.to_string()).collect::<Vec<_>>());
        let name = |class: &Class| match serde_json::to_value(class) {
            Ok(serde_json::Value::String(name)) => name.replace('_', " "),
            _ => format!("{class:?}"),
        };
        let mut rows = vec![titles("instructions", &["warps", "lanes", "lanes/warp"])];
        let mut all = Count::default();
        for (class, count) in &self.instructions {
            all.warps += count.warps;
            all.lanes += count.lanes;
            let cells = [grouped(count.warps), grouped(count.lanes), ratio(count.lanes, count.warps)];
            rows.push(row(&format!("  {}", name(class)), &cells));
        }
        rows.push(row("  all", &[grouped(all.warps), grouped(all.lanes), ratio(all.lanes, all.warps)]));
        table(f, &rows)?;

        let mut rows = vec![titles("global memory", &["requests", "sectors", "bytes", "sectors/request"])];
        for (name, t) in [("  load", self.global_load), ("  store", self.global_store)] {
            if t.requests > 0 {
                let cells = [grouped(t.requests), grouped(t.sectors), grouped(t.bytes), ratio(t.sectors, t.requests)];
                rows.push(row(name, &cells));
            }
        }
        if rows.len() > 1 {
            writeln!(f)?;
            table(f, &rows)?;
        }

        let mut rows = vec![titles("shared memory", &["requests", "wavefronts", "conflicts", "bytes"])];
        for (name, b) in [("  load", self.shared_load), ("  store", self.shared_store)] {
            if b.requests > 0 {
                let conflicts = b.wavefronts.saturating_sub(b.ideal);
                let cells = [grouped(b.requests), grouped(b.wavefronts), grouped(conflicts), grouped(b.bytes)];
                rows.push(row(name, &cells));
            }
        }
        if rows.len() > 1 {
            writeln!(f)?;
            table(f, &rows)?;
        }

        let rest = [
            ("fused multiply-adds", self.fma),
            ("tensor multiply-accumulates", self.tensor_macs),
            ("block barriers", self.barriers),
            ("branches", self.branches),
            ("divergent branches", self.divergent_branches),
        ];
        let rows: Vec<Vec<String>> =
            rest.iter().filter(|r| r.1 > 0).map(|&(name, n)| row(name, &[grouped(n)])).collect();
        if !rows.is_empty() {
            writeln!(f)?;
            table(f, &rows)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u32 = u32::MAX;

    fn at(f: impl Fn(u64) -> u64) -> [u64; 32] {
        std::array::from_fn(|i| f(i as u64))
    }

    #[test]
    fn known_sectors() {
        let base = 1 << 52;
        // Coalesced: 4, 8 and 16 bytes a lane are 4, 8 and 16 sectors; misaligned, one more.
        for (bytes, expected) in [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16)] {
            assert_eq!(sectors(ALL, &at(|i| base + bytes * i), bytes as u32), expected);
        }
        assert_eq!(sectors(ALL, &at(|i| base + 16 + 4 * i), 4), 5);
        assert_eq!(sectors(ALL, &at(|i| base + 4 * (31 - i)), 4), 4);
        assert_eq!(sectors(0xffff, &at(|i| base + 4 * i), 4), 2);
        // One each: a stride of 32 bytes or more. A stride of two words: twice as many.
        assert_eq!(sectors(ALL, &at(|i| base + 32 * i), 4), 32);
        assert_eq!(sectors(ALL, &at(|i| base + 4096 * (i * 7 % 32)), 4), 32);
        assert_eq!(sectors(ALL, &at(|i| base + 8 * i), 4), 8);
        assert_eq!(sectors(ALL, &at(|_| base + 100), 4), 1);
        assert_eq!(sectors(1, &at(|_| base), 16), 1);
        assert_eq!((sectors(0, &at(|_| base), 4), sectors(1, &at(|_| u64::MAX), 16)), (0, 1));
    }

    #[test]
    fn sectors_agree_with_a_set() {
        let mut state = 1u64;
        for _ in 0..2000 {
            let mut random = |n: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % n
            };
            let (bytes, span, mask) = (1 << random(6), 1 << random(12), random(1 << 32) as u32);
            let addresses = std::array::from_fn(|_| random(span));
            let set: std::collections::BTreeSet<u64> =
                lanes(mask).flat_map(|l| addresses[l]..addresses[l] + bytes).map(|a| a / 32).collect();
            assert_eq!(sectors(mask, &addresses, bytes as u32) as usize, set.len());
        }
    }

    #[test]
    fn known_bank_conflicts() {
        let of = |bytes: u32, f: &dyn Fn(u64) -> u64| wavefronts(ALL, &at(f), bytes);
        // A stride of n words is an n-way conflict for powers of two, none for odd ones.
        for stride in 1..=33u64 {
            let ways = 1 << u64::trailing_zeros(stride);
            assert_eq!(of(4, &|i| 4 * stride * i), (ways, 1), "{stride}");
        }
        // A column of a 32x32 tile, and of one padded to 33.
        assert_eq!(of(4, &|i| 128 * i), (32, 1));
        assert_eq!(of(4, &|i| 132 * i), (1, 1));
        // One word for all, one for each half.
        assert_eq!(of(4, &|_| 12), (1, 1));
        assert_eq!(of(4, &|i| 128 * (i / 16)), (2, 1));
        assert_eq!(of(4, &|i| 4 * (i / 16)), (1, 1));
        // Bytes and halves of one word are one word.
        assert_eq!(
            (of(1, &|i| i), of(2, &|i| 2 * i), of(2, &|i| 128 * (i / 2) + 2 * (i % 2))),
            ((1, 1), (1, 1), (16, 1))
        );
        // Wide ones.
        assert_eq!((of(8, &|i| 8 * i), of(16, &|i| 16 * i)), ((2, 2), (4, 4)));
        assert_eq!((of(8, &|_| 64), of(16, &|_| 64)), ((1, 1), (1, 1)));
        assert_eq!(of(8, &|i| 16 * i), (4, 2));
        assert_eq!(of(16, &|i| 128 * i), (32, 4));
        assert_eq!(of(16, &|i| 144 * i), (4, 4));
        assert_eq!(wavefronts(1 << 9, &at(|_| 4), 4), (1, 1));
        assert_eq!(wavefronts(0xff, &at(|i| 16 * i), 16), (1, 1));
        assert_eq!(wavefronts(0, &at(|i| i), 4), (0, 0));
    }

    #[test]
    fn rows_of_a_matrix_conflict_as_their_words_do() {
        let mut seed = 1u64;
        for _ in 0..2000 {
            let rows: Vec<u64> = (0..8)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 40) % 40 * 16
                })
                .collect();
            let words: [u64; 32] = std::array::from_fn(|l| rows[l / 4] + 4 * (l as u64 % 4));
            assert_eq!(row_passes(&rows), wavefronts(ALL, &words, 4).0, "{rows:?}");
        }
    }

    fn some() -> Counters {
        let mut c = Counters { fma: 2048, barriers: 3, branches: 10, divergent_branches: 1, ..Counters::default() };
        c.instructions.insert(Class::Fma32, Count { warps: 64, lanes: 2048 });
        c.instructions.insert(Class::LoadShared, Count { warps: 1, lanes: 16 });
        c.global_load.count(&mut Pattern::NONE.clone(), ALL, &at(|i| 4 * i), 4);
        c.global_store.count(&mut Pattern::NONE.clone(), 0xff, &at(|i| 64 * i), 16);
        c.shared_load.count(&mut Pattern::NONE.clone(), ALL, &at(|i| 8 * i), 4);
        c
    }

    #[test]
    fn merging_adds_everything() {
        let mut twice = some();
        twice.merge(&some());
        twice.merge(&Counters::default());
        let (one, two) = (some().json(), twice.json());
        // Every number of the JSON is twice what it was.
        fn check(one: &serde_json::Value, two: &serde_json::Value) -> usize {
            match (one, two) {
                (serde_json::Value::Object(a), serde_json::Value::Object(b)) => {
                    assert_eq!(a.len(), b.len());
                    a.iter().map(|(k, v)| check(v, &b[k])).sum()
                }
                (a, b) => {
                    assert_eq!(a.as_u64().map(|a| 2 * a), b.as_u64());
                    1
                }
            }
        }
        assert_eq!(check(&one, &two), 2 * 2 + 5 + 2 * 3 + 2 * 4);
        assert_eq!(one["global_store"], serde_json::json!({ "requests": 1, "sectors": 8, "bytes": 128 }));
        assert_eq!(one["shared_load"], serde_json::json!({ "requests": 1, "wavefronts": 2, "ideal": 1, "bytes": 128 }));
        assert_eq!(one["instructions"]["fma32"]["lanes"], 2048);
        assert_eq!(some().json().to_string(), one.to_string());
    }

    #[test]
    fn people_read_a_table() {
        let expected = "\
instructions   warps  lanes  lanes/warp
  fma32           64  2,048       32.00
  load shared      1     16       16.00
  all             65  2,064       31.75

global memory  requests  sectors  bytes  sectors/request
  load                1        4    128             4.00
  store               1        8    128             8.00

shared memory  requests  wavefronts  conflicts  bytes
  load                1           2          1    128

fused multiply-adds  2,048
block barriers           3
branches                10
divergent branches       1
";
        assert_eq!(some().to_string(), expected);
        assert_eq!(grouped(1_234_567_890), "1,234,567,890");
        assert_eq!(
            Counters::default().to_string(),
            "instructions  warps  lanes  lanes/warp\n  all             0      0           -\n"
        );
    }
}
