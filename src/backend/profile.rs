//! Where a program's time goes: the steps and moves that it made, with the work that each takes at least.
//!
//! A device that was given a [`Profile`] adds to it with every step; one without does nothing, not even ask the clock.

use super::layout::ConvShape;
use super::problems::Cost;
use super::threads;
use crate::graph::op::{Op, Prologue, Window};
use crate::graph::{Extent, Node};
use crate::tensor::Shape;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was done, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// The op, or the move: `write`, `read`, `update`.
    pub op: &'static str,
    /// By which of several ways.
    pub way: Option<&'static str>,
    /// The layer's shape.
    pub shape: String,
    /// Rows of a run; 0 for what has none.
    pub rows: usize,
    /// The node.
    pub node: String,
}

impl Task {
    /// A step: `node` of `inputs` on `rows` rows.
    pub(super) fn step(node: &Node, inputs: &[&Node], rows: usize, way: Option<&'static str>) -> Task {
        Task { op: node.op.name(), way, shape: described(node, inputs), rows, node: node.name.clone() }
    }

    /// A move of `elements` elements of `node`, each read and written, and what it takes.
    pub(super) fn moved(op: &'static str, node: &Node, elements: usize) -> (Task, Cost) {
        let rows = if node.extent == Extent::Rows { elements / node.shape.len().max(1) } else { 0 };
        let task = Task { op, way: None, shape: node.shape.to_string(), rows, node: node.name.clone() };
        (task, Cost { flops: 0, bytes: 8 * elements as u64 })
    }
}

/// A convolution as `64->128 56x56 3x3 stride 1 pad 1`, a linear layer as `4096->1000`, the rest by what goes in and comes out.
fn described(node: &Node, inputs: &[&Node]) -> String {
    let conv = |x: &Shape, weight: &Shape, window: Window| ConvShape::new(x, weight, window).to_string();
    let linear = |x: &Shape, y: &Shape| format!("{}->{}", x.len(), y.len());
    match (&node.op, inputs) {
        (Op::Conv2d { window, prologue, .. }, [x, w, ..]) => {
            let after = if *prologue == Prologue::AffineRelu { " of affine relu" } else { "" };
            conv(&x.shape, &w.shape, *window) + after
        }
        (Op::Conv2dGradInput { window, .. }, [_, w, ..]) => conv(&node.shape, &w.shape, *window),
        (Op::Conv2dGradWeight { window, .. }, [x, ..]) => conv(&x.shape, &node.shape, *window),
        (Op::InterveneConv { pad, .. }, [_, z, w, ..]) => conv(&z.shape, &w.shape, Window { stride: 1, pad: *pad }),
        (Op::Linear { .. }, [x, ..]) => linear(&x.shape, &node.shape),
        (Op::LinearGradInput, [gy, ..]) => linear(&node.shape, &gy.shape),
        (Op::LinearGradWeight, [x, gy, ..]) => linear(&x.shape, &gy.shape),
        (op, [x, ..]) if x.shape != node.shape => format!("{} to {}{}", x.shape, node.shape, op.attributes()),
        (op, _) => format!("{}{}", node.shape, op.attributes()),
    }
}

/// What a task came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How often.
    pub calls: u64,
    /// How long.
    pub time: Duration,
    /// What all of it takes at least.
    pub cost: Cost,
}

impl Sum {
    /// With another's.
    pub fn add(&mut self, other: Sum) {
        self.calls += other.calls;
        self.time += other.time;
        self.cost = self.cost.and(other.cost);
    }
}

/// The time of a device's programs, from one moment to another.
#[derive(Debug)]
pub struct Profile {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    start: Instant,
    /// None while it counts.
    wall: Option<Duration>,
    tasks: HashMap<Task, Sum>,
}

impl State {
    fn begin() -> State {
        State { start: Instant::now(), wall: None, tasks: HashMap::new() }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Profile { state: Mutex::new(State::begin()) }
    }
}

impl Profile {
    /// Forgets what was, and counts from now on.
    pub fn restart(&self) {
        *self.lock() = State::begin();
    }

    /// Counts no longer.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.wall = Some(state.start.elapsed());
    }

    /// The time from the start to the stop, or until now, and what was done in it, in the order of its names.
    pub fn taken(&self) -> (Duration, Vec<(Task, Sum)>) {
        let state = self.lock();
        let wall = state.wall.unwrap_or_else(|| state.start.elapsed());
        let mut all: Vec<(Task, Sum)> = state.tasks.iter().map(|(task, sum)| (task.clone(), *sum)).collect();
        drop(state);
        all.sort_by(|a, b| a.0.cmp(&b.0));
        (wall, all)
    }

    /// What it holds is whole whenever the lock is free, also after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program's end of a profile, or of none.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder(pub Option<Arc<Profile>>);

impl Recorder {
    /// The time, where it is wanted.
    pub fn start(&self) -> Option<Instant> {
        self.0.as_ref().map(|_| Instant::now())
    }

    /// Adds what was done since `start`. Where threads are at steps of their own, a step takes its share of the time.
    pub fn add(&self, start: Option<Instant>, what: impl FnOnce() -> (Task, Cost)) {
        let (Some(profile), Some(start)) = (&self.0, start) else { return };
        let time = start.elapsed() / threads::at_once() as u32;
        let (task, cost) = what();
        let mut state = profile.lock();
        if state.wall.is_none() {
            state.tasks.entry(task).or_default().add(Sum { calls: 1, time, cost });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::graph::op::Activation;

    fn convolution() -> (Graph, [crate::graph::NodeId; 3]) {
        let mut graph = Graph::new();
        let x = graph.input("x", [4, 8, 8]);
        let w = graph.parameter("w", [16, 4, 3, 3]).unwrap();
        let op =
            Op::Conv2d { window: Window { stride: 1, pad: 1 }, prologue: Prologue::None, activation: Activation::Relu };
        let y = graph.push("layer", op, &[x, w]).unwrap();
        (graph, [x, w, y])
    }

    #[test]
    fn a_step_is_named_by_its_layers_shape() {
        let (graph, [x, w, y]) = convolution();
        let inputs = [graph.node(x), graph.node(w)];
        let task = Task::step(graph.node(y), &inputs, 2, Some("direct"));
        assert_eq!((task.op, task.way), ("conv2d", Some("direct")));
        assert_eq!((task.op, task.node.as_str(), task.rows), ("conv2d", "layer", 2));
        assert_eq!(task.shape, "4->16 8x8 3x3 stride 1 pad 1");
        assert_eq!(Cost::of(graph.node(y), &inputs, 2).flops, 2 * 2 * 8 * 8 * 16 * 9 * 4);
    }

    #[test]
    fn a_recorder_adds_up_what_it_is_told_and_restarts() {
        let (graph, [x, ..]) = convolution();
        let profile = Arc::new(Profile::default());
        let recorder = Recorder(Some(profile.clone()));
        for _ in 0..3 {
            recorder.add(recorder.start(), || Task::moved("write", graph.node(x), 512));
        }
        let (wall, tasks) = profile.taken();
        let [(task, sum)] = &tasks[..] else { panic!("{tasks:?}") };
        assert_eq!((task.op, task.shape.as_str(), task.rows), ("write", "4x8x8", 2));
        assert_eq!((sum.calls, sum.cost), (3, Cost { flops: 0, bytes: 3 * 8 * 512 }));
        assert!(sum.time <= wall);
        // what comes after the end is not counted
        profile.stop();
        recorder.add(recorder.start(), || Task::moved("read", graph.node(x), 512));
        assert_eq!(profile.taken().1, tasks);
        profile.restart();
        assert!(profile.taken().1.is_empty());
        // without a profile nothing is asked for
        let none = Recorder::default();
        assert!(none.start().is_none());
        none.add(None, || panic!("no profile, no description"));
    }
}
