//! The order of a function's blocks, and which registers are alive where.
//!
//! Blocks are laid out in a weak topological order (Bourdoncle, "Efficient chaotic iteration strategies with widenings",
//! 1993): loops are contiguous, and outside of a loop's back edges all jumps go forward. Then running the lanes with the
//! lowest position first brings diverged lanes together again at the earliest point that all of them pass.

/// Loops nested deeper than this keep the order of the text: correct all the same, and no hostile text exhausts the stack.
const DEPTH: usize = 64;

/// The blocks in weak topological order, entry (block 0) first; unreachable ones last.
pub(crate) fn layout(successors: &[Vec<u32>]) -> Vec<u32> {
    let count = successors.len();
    let mut reachable = vec![false; count];
    let mut stack = vec![0u32];
    while let Some(block) = stack.pop() {
        if !std::mem::replace(&mut reachable[block as usize], true) {
            stack.extend(&successors[block as usize]);
        }
    }
    let nodes: Vec<u32> = (0..count as u32).filter(|&b| reachable[b as usize]).collect();
    let mut order = Vec::with_capacity(count);
    let mut member = vec![0u32; count];
    let mut next = 1;
    order_into(&nodes, 0, successors, &mut member, &mut next, DEPTH, &mut order);
    order.extend((0..count as u32).filter(|&b| !reachable[b as usize]));
    order
}

/// Orders `nodes`, whose edges into `head` do not count. `member` tells for each block the call that it belongs to.
fn order_into(
    nodes: &[u32],
    head: u32,
    successors: &[Vec<u32>],
    member: &mut [u32],
    next: &mut u32,
    depth: usize,
    order: &mut Vec<u32>,
) {
    if depth == 0 {
        order.extend(nodes);
        return;
    }
    let me = *next;
    *next += 1;
    for &n in nodes {
        member[n as usize] = me;
    }
    let inside = |n: u32, member: &[u32]| member[n as usize] == me && n != head;
    let (component, components) =
        components(nodes, |n| successors[n as usize].iter().copied().filter(|&s| inside(s, member)).collect());
    // Kahn's algorithm over the components; among those that are ready, the first in the text goes first.
    let mut waiting = vec![0u32; components.len()];
    let position = |n: u32| nodes.binary_search(&n).ok();
    let edges = |c: usize| {
        let mut to: Vec<usize> = components[c]
            .iter()
            .flat_map(|&n| &successors[n as usize])
            .filter(|&&s| inside(s, member))
            .filter_map(|&s| position(s).map(|p| component[p]))
            .filter(|&d| d != c)
            .collect();
        to.sort_unstable();
        to.dedup();
        to
    };
    let targets: Vec<Vec<usize>> = (0..components.len()).map(edges).collect();
    targets.iter().flatten().for_each(|&t| waiting[t] += 1);
    let mut ready: std::collections::BinaryHeap<std::cmp::Reverse<(u32, usize)>> =
        (0..components.len()).filter(|&c| waiting[c] == 0).map(|c| std::cmp::Reverse((components[c][0], c))).collect();
    let mut loops = Vec::new();
    let mut sequence = Vec::with_capacity(components.len());
    while let Some(std::cmp::Reverse((_, c))) = ready.pop() {
        sequence.push(c);
        for &t in &targets[c] {
            waiting[t] -= 1;
            if waiting[t] == 0 {
                ready.push(std::cmp::Reverse((components[t][0], t)));
            }
        }
        if components[c].len() > 1 {
            loops.push(c);
        }
    }
    // Where each loop is entered: the first of its blocks, in the text, that one from outside jumps to.
    let mut heads = vec![u32::MAX; components.len()];
    for &n in nodes {
        for &s in successors[n as usize].iter().filter(|&&s| inside(s, member)) {
            if let (Some(from), Some(to)) = (position(n), position(s))
                && component[from] != component[to]
            {
                let c = component[to];
                heads[c] = heads[c].min(s);
            }
        }
    }
    for c in sequence {
        if components[c].len() == 1 {
            order.push(components[c][0]);
            continue;
        }
        let head = if heads[c] == u32::MAX { components[c][0] } else { heads[c] };
        let start = order.len();
        order_into(&components[c], head, successors, member, next, depth - 1, order);
        // the head has no edge into it inside of its loop, so it is ready first; the text's order may still differ
        if let Some(at) = order[start..].iter().position(|&n| n == head) {
            order[start..=start + at].rotate_right(1);
        }
    }
}

/// Strongly connected components (Tarjan, iterative): the component of each of `nodes` (sorted), and the members of each,
/// sorted.
fn components(nodes: &[u32], successors: impl Fn(u32) -> Vec<u32>) -> (Vec<usize>, Vec<Vec<u32>>) {
    const NEW: u32 = u32::MAX;
    let count = nodes.len();
    let index_of = |n: u32| nodes.binary_search(&n).ok();
    let (mut index, mut low) = (vec![NEW; count], vec![0u32; count]);
    let (mut on_stack, mut stack, mut clock) = (vec![false; count], Vec::new(), 0u32);
    let (mut component, mut members) = (vec![usize::MAX; count], Vec::<Vec<u32>>::new());
    for root in 0..count {
        if index[root] != NEW {
            continue;
        }
        let mut calls: Vec<(usize, Vec<usize>, usize)> = Vec::new();
        let mut enter = Some(root);
        loop {
            if let Some(n) = enter.take() {
                (index[n], low[n]) = (clock, clock);
                clock += 1;
                stack.push(n);
                on_stack[n] = true;
                let next = successors(nodes[n]).into_iter().filter_map(index_of).collect();
                calls.push((n, next, 0));
            }
            let Some((n, next, at)) = calls.last_mut() else { break };
            let n = *n;
            if let Some(&s) = next.get(*at) {
                *at += 1;
                if index[s] == NEW {
                    enter = Some(s);
                } else if on_stack[s] {
                    low[n] = low[n].min(index[s]);
                }
                continue;
            }
            calls.pop();
            if let Some((parent, ..)) = calls.last() {
                low[*parent] = low[*parent].min(low[n]);
            }
            if low[n] == index[n] {
                let mut group = Vec::new();
                while let Some(m) = stack.pop() {
                    on_stack[m] = false;
                    component[m] = members.len();
                    group.push(nodes[m]);
                    if m == n {
                        break;
                    }
                }
                group.sort_unstable();
                members.push(group);
            }
        }
    }
    (component, members)
}

/// A set of small numbers.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(count: usize) -> Bits {
        Bits(vec![0; count.div_ceil(64)])
    }
    pub(crate) fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }
    pub(crate) fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }
    pub(crate) fn contains(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 != 0
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(w, &bits)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros() as usize;
                    left &= left - 1;
                    w * 64 + bit
                })
            })
        })
    }
}

/// What a block does to registers, and where it goes.
pub(crate) struct Effect {
    /// Read before written.
    pub(crate) uses: Bits,
    /// Written for certain.
    pub(crate) kills: Bits,
    pub(crate) successors: Vec<u32>,
}

/// The registers alive at the end of each block.
pub(crate) fn live_out(blocks: &[Effect]) -> Vec<Bits> {
    let words = blocks.first().map_or(0, |b| b.uses.0.len());
    let mut inn: Vec<Bits> = blocks.iter().map(|b| b.uses.clone()).collect();
    let mut out = vec![Bits(vec![0; words]); blocks.len()];
    let mut before = vec![Vec::new(); blocks.len()];
    for (b, block) in blocks.iter().enumerate() {
        block.successors.iter().for_each(|&s| before[s as usize].push(b as u32));
    }
    let mut queued = vec![true; blocks.len()];
    let mut work: Vec<u32> = (0..blocks.len() as u32).collect();
    while let Some(b) = work.pop() {
        let b = b as usize;
        queued[b] = false;
        for &s in &blocks[b].successors {
            for w in 0..words {
                let more = inn[s as usize].0[w];
                out[b].0[w] |= more;
            }
        }
        let mut changed = false;
        for w in 0..words {
            let new = blocks[b].uses.0[w] | out[b].0[w] & !blocks[b].kills.0[w];
            changed |= new != inn[b].0[w];
            inn[b].0[w] = new;
        }
        if changed {
            for &p in &before[b] {
                if !std::mem::replace(&mut queued[p as usize], true) {
                    work.push(p);
                }
            }
        }
    }
    out
}

/// A register's first and last position, both included, and its size.
#[derive(Clone, Copy)]
pub(crate) struct Interval {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) units: u16,
}

/// Linear scan (Poletto and Sarkar, 1999) without spilling: gives every register a place such that no two alive at once
/// overlap. Returns the places, from `base` on, and the
/// first place that is not used.
pub(crate) fn allocate(intervals: &[Option<Interval>], base: u32) -> (Vec<u32>, u32) {
    let mut order: Vec<usize> = (0..intervals.len()).filter(|&i| intervals[i].is_some()).collect();
    order.sort_by_key(|&i| intervals[i].map(|v| v.first));
    let mut place = vec![base; intervals.len()];
    let mut free: Vec<Vec<u32>> = vec![Vec::new(); 5];
    let mut ending: std::collections::BinaryHeap<std::cmp::Reverse<(u32, usize)>> = Default::default();
    let mut top = base;
    for i in order {
        let Some(interval) = intervals[i] else { continue };
        while let Some(&std::cmp::Reverse((last, j))) = ending.peek() {
            if last >= interval.first {
                break;
            }
            ending.pop();
            if let Some(v) = intervals[j] {
                free[v.units as usize].push(place[j]);
            }
        }
        let units = interval.units as usize;
        place[i] = match free[units].pop() {
            Some(at) => at,
            // half of a free pair before growing
            None if units == 1 && !free[2].is_empty() => {
                let at = free[2].pop().unwrap_or(top);
                free[1].push(at + 1);
                at
            }
            None => {
                top += units as u32;
                top - units as u32
            }
        };
        ending.push(std::cmp::Reverse((interval.last, i)));
    }
    (place, top)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(successors: &[&[u32]]) -> Vec<u32> {
        layout(&successors.iter().map(|s| s.to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn a_join_comes_after_both_arms_and_a_loop_is_in_one_piece() {
        // an arm placed behind the join in the text
        assert_eq!(order(&[&[1, 3], &[2], &[], &[2]]), [0, 1, 3, 2]);
        // a loop 1-3 whose exit 2 stands in the middle of it
        assert_eq!(order(&[&[1], &[2, 3], &[], &[1]]), [0, 1, 3, 2]);
        // nested loops: 1 (2 3) 4
        assert_eq!(order(&[&[1], &[2], &[3], &[2, 4], &[1, 5], &[]]), [0, 1, 2, 3, 4, 5]);
        // a loop entered in its middle: the head goes first
        assert_eq!(order(&[&[2], &[2], &[1, 3], &[]]), [0, 2, 1, 3]);
        // unreachable blocks are kept
        assert_eq!(order(&[&[2], &[2], &[]]), [0, 2, 1]);
        // a block that loops to itself and to the entry
        assert_eq!(order(&[&[1], &[1, 0]]), [0, 1]);
    }

    #[test]
    fn deep_nests_and_long_chains_end() {
        let n = 3000u32;
        // every block may go back to every earlier tenth
        let deep: Vec<Vec<u32>> = (0..n).map(|b| if b + 1 < n { vec![b + 1, b / 2] } else { vec![0] }).collect();
        let order = layout(&deep);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        assert_eq!(order[0], 0);
    }

    #[test]
    fn a_register_that_crosses_a_back_edge_is_alive_around_the_loop() {
        let mut blocks: Vec<Effect> = [vec![1], vec![1, 2], vec![]]
            .into_iter()
            .map(|successors| Effect { uses: Bits::new(2), kills: Bits::new(2), successors })
            .collect();
        blocks[0].kills.insert(0);
        blocks[1].uses.insert(0);
        blocks[1].kills.insert(1);
        blocks[2].uses.insert(1);
        let out: Vec<Vec<usize>> = live_out(&blocks).iter().map(|b| b.iter().collect()).collect();
        assert_eq!(out, [vec![0], vec![0, 1], vec![]]);
    }

    #[test]
    fn what_is_alive_at_once_has_different_places() {
        let v = |first, last, units| Some(Interval { first, last, units });
        let intervals = [v(0, 4, 1), v(1, 2, 2), v(2, 3, 1), None, v(3, 3, 2), v(5, 6, 2), v(4, 9, 1)];
        let (place, top) = allocate(&intervals, 10);
        for (i, a) in intervals.iter().enumerate() {
            for (j, b) in intervals.iter().enumerate().skip(i + 1) {
                let (Some(a), Some(b)) = (a, b) else { continue };
                let together = a.first <= b.last && b.first <= a.last;
                let overlap = place[i] < place[j] + b.units as u32 && place[j] < place[i] + a.units as u32;
                assert!(!(together && overlap), "{i} {j} {place:?}");
            }
        }
        assert!(place.iter().all(|&p| p >= 10) && top <= 16, "{place:?} {top}");
    }
}
