//! Happens-before over streams, events and the host.
//!
//! Operations run in the order in which they are issued, but a real device may run those of different streams in any order
//! that streams, events and synchronisation leave open. So every stream is a timeline with a vector clock: an operation
//! comes after an earlier one of another timeline only if its clock has seen it. Two operations on the same bytes, at least
//! one of them a write, of which neither comes after the other, are a race, whatever the values were this time; and since
//! the clocks depend on the calls alone, it is found every time.
//!
//! All host threads share one clock: how threads of a program wait for each other cannot be seen, so what one of them
//! knows, all of them are taken to know. That misses races between threads and never invents one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::finding::{Finding, Kind};

/// A stream, as the order knows it.
pub type Timeline = u32;

/// How far each timeline has been seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock(BTreeMap<Timeline, u64>);

impl Clock {
    /// Sees what the other has seen.
    pub fn join(&mut self, other: &Clock) {
        for (&timeline, &time) in &other.0 {
            let seen = self.0.entry(timeline).or_default();
            *seen = time.max(*seen);
        }
    }

    fn at(&self, timeline: Timeline) -> u64 {
        self.0.get(&timeline).copied().unwrap_or(0)
    }
}

/// One operation's access to a range of bytes.
#[derive(Debug, Clone)]
struct Access {
    timeline: Timeline,
    time: u64,
    write: bool,
    what: Arc<str>,
}

impl Access {
    fn before(&self, clock: &Clock) -> bool {
        clock.at(self.timeline) >= self.time
    }
}

struct Segment {
    end: u64,
    accesses: Vec<Access>,
}

struct State {
    name: String,
    clock: Clock,
    retired: bool,
}

/// All timelines, and the accesses that some future operation may still race with.
#[derive(Default)]
pub struct Order {
    host: Clock,
    timelines: BTreeMap<Timeline, State>,
    next: Timeline,
    /// Disjoint ranges by start.
    history: BTreeMap<u64, Segment>,
}

impl Order {
    /// Begins a timeline.
    pub fn create(&mut self, name: String) -> Timeline {
        self.next += 1;
        self.timelines.insert(self.next, State { name, clock: Clock::default(), retired: false });
        self.next
    }

    /// No operation will be added to the timeline; those that are there may still be running.
    pub fn retire(&mut self, timeline: Timeline) {
        if let Some(state) = self.timelines.get_mut(&timeline) {
            state.retired = true;
        }
        self.forget_retired();
    }

    /// What the timeline's last operation has seen, itself included.
    pub fn clock(&self, timeline: Timeline) -> Clock {
        self.timelines.get(&timeline).map(|state| state.clock.clone()).unwrap_or_default()
    }

    /// The timeline's next operation comes after all that the clock has seen.
    pub fn join(&mut self, timeline: Timeline, clock: &Clock) {
        if let Some(state) = self.timelines.get_mut(&timeline) {
            state.clock.join(clock);
        }
    }

    /// Begins the timeline's next operation, which the host issues now.
    pub fn advance(&mut self, timeline: Timeline) {
        if let Some(state) = self.timelines.get_mut(&timeline) {
            state.clock.join(&self.host);
            *state.clock.0.entry(timeline).or_default() += 1;
        }
    }

    /// The host has waited for what the clock has seen.
    pub fn host_waits(&mut self, clock: &Clock) {
        self.host.join(clock);
        let host = &self.host;
        self.history.retain(|_, segment| {
            segment.accesses.retain(|access| !access.before(host));
            !segment.accesses.is_empty()
        });
        self.forget_retired();
    }

    /// Drops retired timelines that the host has waited for: no access of theirs is left to compare with.
    fn forget_retired(&mut self) {
        let host = &self.host;
        let gone: Vec<Timeline> = self
            .timelines
            .iter()
            .filter(|(timeline, state)| state.retired && state.clock.at(**timeline) <= host.at(**timeline))
            .map(|(timeline, _)| *timeline)
            .collect();
        for timeline in gone {
            self.timelines.remove(&timeline);
            self.host.0.remove(&timeline);
            for state in self.timelines.values_mut() {
                state.clock.0.remove(&timeline);
            }
        }
    }

    /// The timeline's present operation reads and writes these ranges `[start, end)`. The first race, if there is one.
    pub fn touch(
        &mut self,
        timeline: Timeline,
        what: &str,
        reads: &[(u64, u64)],
        writes: &[(u64, u64)],
    ) -> Option<Finding> {
        let clock = self.timelines.get(&timeline)?.clock.clone();
        let access = Access { timeline, time: clock.at(timeline), write: false, what: what.into() };
        let mut finding = None;
        let ranges = reads.iter().map(|range| (*range, false)).chain(writes.iter().map(|range| (*range, true)));
        for ((start, end), write) in ranges {
            let access = Access { write, ..access.clone() };
            if let Some((other, from, to)) = self.conflict(&clock, start, end, write) {
                finding = finding.or_else(|| Some(self.race(&access, &other, from, to)));
            }
            self.record(&clock, access, start, end);
        }
        finding
    }

    /// The host itself touches bytes now, as it does when it frees them.
    pub fn host_touches(&self, what: &str, start: u64, end: u64) -> Option<Finding> {
        let (other, from, to) = self.conflict(&self.host, start, end, true)?;
        let access = Access { timeline: 0, time: 0, write: true, what: what.into() };
        Some(self.race(&access, &other, from, to))
    }

    /// The bytes are no more.
    pub fn forget(&mut self, start: u64, end: u64) {
        self.split(start);
        self.split(end);
        let gone: Vec<u64> = self.history.range(start..end.max(start)).map(|(key, _)| *key).collect();
        for key in gone {
            self.history.remove(&key);
        }
    }

    /// Ranges that are remembered.
    pub fn remembered(&self) -> usize {
        self.history.len()
    }

    fn conflict(&self, clock: &Clock, start: u64, end: u64, write: bool) -> Option<(Access, u64, u64)> {
        self.overlapping(start, end).find_map(|(from, segment)| {
            let other = segment.accesses.iter().find(|other| (write || other.write) && !other.before(clock))?;
            Some((other.clone(), from.max(start), segment.end.min(end)))
        })
    }

    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Segment)> {
        let first = self.history.range(..=start).next_back().map_or(start, |(key, _)| *key);
        self.history
            .range(first..end.max(first))
            .filter(move |(_, segment)| segment.end > start)
            .map(|(key, segment)| (*key, segment))
    }

    /// Makes `at` a border between segments.
    fn split(&mut self, at: u64) {
        if let Some((&start, segment)) = self.history.range_mut(..at).next_back()
            && start < at
            && at < segment.end
        {
            let upper = Segment { end: segment.end, accesses: segment.accesses.clone() };
            segment.end = at;
            self.history.insert(at, upper);
        }
    }

    /// Remembers an access in place of those that it makes redundant: earlier ones that it comes after, unless a write
    /// would give way to a read. Whatever races with such a one also races with this one, or comes after both.
    fn record(&mut self, clock: &Clock, access: Access, start: u64, end: u64) {
        if start >= end {
            return;
        }
        self.split(start);
        self.split(end);
        let mut gaps = Vec::new();
        let mut at = start;
        for (&from, segment) in self.history.range_mut(start..end) {
            if at < from {
                gaps.push((at, from));
            }
            at = segment.end;
            segment.accesses.retain(|old| !(old.before(clock) && (access.write || !old.write)));
            segment.accesses.push(access.clone());
        }
        if at < end {
            gaps.push((at, end));
        }
        for (from, to) in gaps {
            self.history.insert(from, Segment { end: to, accesses: vec![access.clone()] });
        }
    }

    fn place(&self, timeline: Timeline) -> &str {
        self.timelines.get(&timeline).map_or("the host", |state| state.name.as_str())
    }

    fn race(&self, now: &Access, other: &Access, from: u64, to: u64) -> Finding {
        let verb = |access: &Access| if access.write { "writes" } else { "reads" };
        let message = format!(
            "Race between streams: {} on {} {} {} bytes at {from:#x} and {} on {} {} them, in no order",
            now.what,
            self.place(now.timeline),
            verb(now),
            to - from,
            other.what,
            self.place(other.timeline),
            verb(other),
        );
        let mut finding = Finding::new(Kind::StreamRace, message);
        finding.notes.push(format!("bytes [{from:#x}, {to:#x}); {} was issued first", other.what));
        finding.notes.push("cuEventRecord with cuStreamWaitEvent, or a synchronising call, orders them".into());
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams and the calls that a driver makes for an operation.
    struct Device(Order, [Timeline; 3]);

    impl Device {
        fn new() -> Device {
            let mut order = Order::default();
            let streams = [1, 2, 3].map(|i| order.create(format!("stream {i}")));
            Device(order, streams)
        }

        fn read(&mut self, stream: usize, start: u64, end: u64) -> bool {
            self.0.advance(self.1[stream]);
            self.0.touch(self.1[stream], "read", &[(start, end)], &[]).is_some()
        }

        fn write(&mut self, stream: usize, start: u64, end: u64) -> bool {
            self.0.advance(self.1[stream]);
            self.0.touch(self.1[stream], "write", &[], &[(start, end)]).is_some()
        }

        fn wait(&mut self, stream: usize, for_stream: usize) {
            let clock = self.0.clock(self.1[for_stream]);
            self.0.join(self.1[stream], &clock);
        }

        fn synchronise(&mut self, stream: usize) {
            let clock = self.0.clock(self.1[stream]);
            self.0.host_waits(&clock);
        }
    }

    #[test]
    fn one_stream_is_in_order() {
        let mut d = Device::new();
        assert!(!d.write(0, 0, 100));
        assert!(!d.read(0, 0, 100));
        assert!(!d.write(0, 50, 150));
    }

    #[test]
    fn unordered_conflicts_are_races_and_reads_are_not() {
        let mut d = Device::new();
        assert!(!d.write(0, 0, 100));
        assert!(d.read(1, 99, 200));
        let mut d = Device::new();
        assert!(!d.read(0, 0, 100));
        assert!(!d.read(1, 0, 100));
        assert!(d.write(2, 0, 1));
        let mut d = Device::new();
        assert!(!d.write(0, 0, 100));
        assert!(d.write(1, 0, 100));
        let mut d = Device::new();
        assert!(!d.write(0, 0, 100));
        assert!(!d.write(1, 100, 200), "ranges that touch do not overlap");
    }

    #[test]
    fn an_event_orders_and_only_what_came_before_it() {
        let mut d = Device::new();
        d.write(0, 0, 100);
        let event = d.0.clock(d.1[0]);
        d.write(0, 100, 200);
        d.0.join(d.1[1], &event);
        assert!(!d.read(1, 0, 100));
        assert!(d.read(1, 100, 200), "written after the event");
    }

    #[test]
    fn order_is_transitive() {
        let mut d = Device::new();
        d.write(0, 0, 8);
        d.wait(1, 0);
        d.write(1, 8, 16);
        d.wait(2, 1);
        assert!(!d.write(2, 0, 16));
    }

    #[test]
    fn a_host_wait_orders_everything_issued_later() {
        let mut d = Device::new();
        d.write(0, 0, 100);
        assert!(d.0.host_touches("cuMemFreeHost", 0, 100).is_some());
        d.synchronise(0);
        assert!(d.0.host_touches("cuMemFreeHost", 0, 100).is_none());
        assert!(!d.write(1, 0, 100));
        assert_eq!(d.0.remembered(), 1, "what everything comes after is forgotten");
    }

    #[test]
    fn a_later_read_does_not_hide_an_earlier_write() {
        let mut d = Device::new();
        d.write(0, 0, 100);
        d.read(0, 0, 100);
        assert!(d.read(1, 0, 100));
    }

    #[test]
    fn history_is_bounded_by_ranges_and_streams() {
        let mut d = Device::new();
        for _ in 0..1000 {
            assert!(!d.write(0, 0, 100));
            assert!(!d.read(0, 20, 50));
            d.wait(1, 0);
            assert!(!d.write(1, 0, 100));
            d.wait(0, 1);
        }
        assert!(d.0.remembered() <= 3);
        assert!(d.0.history.values().all(|segment| segment.accesses.len() <= 3));
    }

    #[test]
    fn forgetting_keeps_the_neighbours() {
        let mut d = Device::new();
        d.write(0, 0, 300);
        d.0.forget(100, 200);
        assert!(!d.write(1, 100, 200));
        assert!(d.read(1, 99, 100));
        assert!(d.read(2, 200, 201));
    }

    #[test]
    fn a_retired_timeline_is_remembered_until_the_host_has_waited_for_it() {
        let mut d = Device::new();
        d.write(0, 0, 100);
        let clock = d.0.clock(d.1[0]);
        d.0.retire(d.1[0]);
        assert!(d.read(1, 0, 100));
        d.0.host_waits(&clock);
        assert!(!d.0.timelines.contains_key(&d.1[0]));
        assert!(!d.read(2, 0, 100));
    }

    #[test]
    fn the_report_names_both_sides_and_the_bytes() {
        let mut d = Device::new();
        d.0.advance(d.1[0]);
        d.0.touch(d.1[0], "kernel fill", &[], &[(0x100, 0x200)]);
        d.0.advance(d.1[1]);
        let finding = d.0.touch(d.1[1], "cuMemcpyDtoHAsync_v2", &[(0x180, 0x300)], &[]).unwrap();
        assert_eq!(finding.kind, Kind::StreamRace);
        for part in ["kernel fill", "stream 1", "cuMemcpyDtoHAsync_v2", "stream 2", "128 bytes", "0x180"] {
            assert!(finding.message.contains(part), "{part} in {}", finding.message);
        }
    }

    /// The definition itself: all accesses are kept, and two are ordered if a path of edges leads from one to the other.
    #[test]
    fn agrees_with_the_definition_on_random_programs() {
        use proptest::prelude::*;
        proptest!(ProptestConfig::with_cases(300), |(program in prop::collection::vec((0usize..4, 0usize..3, 0usize..3, 0u64..6, 1u64..4), 1..40))| {
            let mut d = Device::new();
            // For every operation: stream, range, write, and the set of operations before it.
            let mut all: Vec<(usize, u64, u64, bool, Vec<bool>)> = Vec::new();
            let mut seen: Vec<Vec<usize>> = vec![Vec::new(); 3];
            let mut host: Vec<usize> = Vec::new();
            for (kind, a, b, start, length) in program {
                match kind {
                    0 | 1 => {
                        let write = kind == 1;
                        let end = start + length;
                        let mut before = vec![false; all.len()];
                        for &i in seen[a].iter().chain(&host) {
                            before[i] = true;
                        }
                        let expected = all.iter().enumerate().any(|(i, (_, s, e, w, _))| {
                            !before[i] && *s < end && start < *e && (write || *w)
                        });
                        let found = if write { d.write(a, start, end) } else { d.read(a, start, end) };
                        prop_assert_eq!(found, expected);
                        let known: Vec<usize> = (0..all.len()).filter(|&i| before[i]).collect();
                        let me = all.len();
                        all.push((a, start, end, write, before));
                        seen[a].extend(known);
                        seen[a].push(me);
                        if found {
                            // After a race the checker owes nothing more about these bytes.
                            return Ok(());
                        }
                    }
                    2 => {
                        d.wait(a, b);
                        let more = seen[b].clone();
                        seen[a].extend(more);
                    }
                    _ => {
                        d.synchronise(a);
                        let more = seen[a].clone();
                        host.extend(more);
                    }
                }
            }
        });
    }
}
