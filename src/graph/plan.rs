//! From a graph and its entries to an [`Artifact`]: which steps an entry runs, and which slot each value lives in.
//!
//! An entry is a cut of the graph: `given` nodes are written or left over from another entry's run, `want` nodes are
//! computed from them, `updates` make a value the next content of an input, parameter or state. All entries of an artifact
//! share weights and slots. A slot holds `capacity` rows of its node, the largest of the entries that use it; nodes that
//! the outside reads or writes, and nodes that carry a value from one entry to another, are pinned to a slot of their own;
//! the others share slots wherever they are never alive at the same time in any entry.

use super::op::{Element, Op};
use super::{Extent, Graph, GraphError, NodeId, fold};

/// What to run, as the caller says it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// For errors, dumps and timings.
    pub name: &'static str,
    /// Nodes whose value stands before the run: inputs, or results of another entry.
    pub given: &'a [NodeId],
    /// Nodes to compute and keep readable.
    pub want: &'a [NodeId],
    /// (destination, value): after the steps, `destination` (an input, parameter or state) holds `value`. All happen at
    /// once: a value that is itself a destination is taken as it was. A value that nothing else reads later is handed
    /// over without a copy, and is then no longer readable itself.
    pub updates: &'a [(NodeId, NodeId)],
    /// Most rows of a run.
    pub capacity: usize,
}

/// An entry of an artifact, by its number in the list given to [`plan`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryId(pub usize);

/// How an update is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handover {
    /// The two slots change places.
    Swap,
    /// The value is copied, for it stays readable.
    Copy,
}

/// An entry with its steps in order.
#[derive(Clone, Debug)]
pub struct PlannedEntry {
    /// Its name.
    pub name: &'static str,
    /// Nodes whose value must stand before the run.
    pub given: Vec<NodeId>,
    /// Nodes readable after the run.
    pub want: Vec<NodeId>,
    /// Updates after the steps: (destination, value, how).
    pub updates: Vec<(NodeId, NodeId, Handover)>,
    /// Most rows of a run.
    pub capacity: usize,
    /// Nodes to compute, in topological order.
    pub steps: Vec<NodeId>,
}

/// Memory for one value, or for several that are never alive together.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Elements: capacity rows of the largest value.
    pub elements: usize,
    /// Rows that it is planned for; 1 for values without rows.
    pub capacity: usize,
    /// Held by one node for good.
    pub pinned: bool,
    /// Floats or indices.
    pub element: Element,
}

/// A planned graph: what a backend loads.
#[derive(Clone, Debug)]
pub struct Artifact {
    graph: Graph,
    entries: Vec<PlannedEntry>,
    slots: Vec<Slot>,
    slot_of: Vec<Option<usize>>,
}

impl Artifact {
    /// The graph with its epilogues fused.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// The entries, in the order of their ids.
    pub fn entries(&self) -> &[PlannedEntry] {
        &self.entries
    }
    /// The slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
    /// The slot of a node; `None` for nodes that no entry uses.
    pub fn slot_of(&self, node: NodeId) -> Option<usize> {
        self.slot_of.get(node.index()).copied().flatten()
    }
    /// Float elements of all slots together: what a run needs beside packed weights.
    pub fn slot_elements(&self) -> usize {
        self.slots.iter().map(|s| s.elements).sum()
    }
    /// Parameters that some entry uses, in graph order.
    pub fn parameters(&self) -> impl Iterator<Item = NodeId> {
        self.graph.iter().filter(|(id, n)| n.op == Op::Parameter && self.slot_of(*id).is_some()).map(|(id, _)| id)
    }
}

/// Plans `entries` on `graph`.
///
/// # Errors
/// [`GraphError::Entry`] when an entry wants something that its given nodes do not determine, updates a computed node,
/// or has no room for a row.
pub fn plan(graph: &Graph, entries: &[Entry<'_>]) -> Result<Artifact, GraphError> {
    let mut outside: Vec<NodeId> = Vec::new();
    for e in entries {
        outside.extend(e.given.iter().chain(e.want));
        outside.extend(e.updates.iter().flat_map(|&(to, from)| [to, from]));
    }
    let graph = fold::epilogues(graph, &outside);
    let mut planned = Vec::with_capacity(entries.len());
    for e in entries {
        planned.push(steps(&graph, e)?);
    }
    let slot_of = vec![None; graph.nodes().len()];
    let mut artifact = Artifact { graph, entries: planned, slots: Vec::new(), slot_of };
    settle_updates(&mut artifact)?;
    assign_slots(&mut artifact, &outside);
    Ok(artifact)
}

/// True for nodes whose value is written from outside or kept between runs, never computed.
fn is_source(op: &Op) -> bool {
    matches!(op, Op::Input(_) | Op::Parameter | Op::State)
}

/// Walks back from what the entry wants to what it is given.
fn steps(graph: &Graph, entry: &Entry<'_>) -> Result<PlannedEntry, GraphError> {
    let fail = |reason: String| GraphError::Entry { entry: entry.name.into(), reason };
    if entry.capacity == 0 {
        return Err(fail("its capacity is 0 rows; give it at least one".into()));
    }
    let mut needed = vec![false; graph.nodes().len()];
    let mut stack: Vec<NodeId> = entry.want.to_vec();
    stack.extend(entry.updates.iter().map(|&(_, value)| value));
    for &(to, value) in entry.updates {
        let (t, v) = (graph.node(to), graph.node(value));
        if !is_source(&t.op) {
            return Err(fail(format!("\"{}\" is computed, so it cannot be updated", t.name)));
        }
        if t.shape != v.shape || t.extent != v.extent || t.element() != v.element() {
            return Err(fail(format!(
                "\"{}\" ({} {}) cannot take \"{}\" ({} {})",
                t.name,
                t.extent.name(),
                t.shape,
                v.name,
                v.extent.name(),
                v.shape
            )));
        }
    }
    while let Some(id) = stack.pop() {
        if std::mem::replace(&mut needed[id.index()], true) || entry.given.contains(&id) {
            continue;
        }
        let node = graph.node(id);
        if matches!(node.op, Op::Input(_)) {
            return Err(fail(format!("it needs the input \"{}\", which is not among its given nodes", node.name)));
        }
        stack.extend(&node.inputs);
    }
    let steps = graph
        .iter()
        .filter(|(id, node)| needed[id.index()] && !is_source(&node.op) && !entry.given.contains(id))
        .map(|(id, _)| id)
        .collect();
    let updates = entry.updates.iter().map(|&(to, from)| (to, from, Handover::Copy)).collect();
    Ok(PlannedEntry {
        name: entry.name,
        given: entry.given.to_vec(),
        want: entry.want.to_vec(),
        updates,
        capacity: entry.capacity,
        steps,
    })
}

/// An update may swap when nobody reads the value afterwards.
fn settle_updates(artifact: &mut Artifact) -> Result<(), GraphError> {
    let read_later: Vec<NodeId> =
        artifact.entries.iter().flat_map(|e| e.given.iter().chain(&e.want)).copied().collect();
    for entry in &mut artifact.entries {
        let values: Vec<NodeId> = entry.updates.iter().map(|u| u.1).collect();
        for (_, value, how) in &mut entry.updates {
            let source = is_source(&artifact.graph.node(*value).op);
            let once = values.iter().filter(|v| *v == value).count() == 1;
            *how = if once && !source && !read_later.contains(value) { Handover::Swap } else { Handover::Copy };
        }
        let mut destinations: Vec<NodeId> = entry.updates.iter().map(|u| u.0).collect();
        destinations.sort_unstable();
        if let Some(pair) = destinations.windows(2).find(|p| p[0] == p[1]) {
            let reason = format!("\"{}\" is updated twice", artifact.graph.node(pair[0]).name);
            return Err(GraphError::Entry { entry: entry.name.into(), reason });
        }
        order_updates(&artifact.graph, entry)?;
    }
    Ok(())
}

/// Puts each update behind those that take its destination's value, so that one after the other is all at once.
fn order_updates(graph: &Graph, entry: &mut PlannedEntry) -> Result<(), GraphError> {
    let mut waiting = std::mem::take(&mut entry.updates);
    while !waiting.is_empty() {
        let free = |&(to, from, _): &(NodeId, NodeId, Handover)| {
            waiting.iter().all(|&(other, value, _)| value != to || (other, value) == (to, from))
        };
        let Some(next) = waiting.iter().position(free) else {
            let names: Vec<&str> = waiting.iter().map(|u| graph.node(u.0).name.as_str()).collect();
            let reason =
                format!("its updates of {} go in a circle; pass one through a computed node", names.join(", "));
            return Err(GraphError::Entry { entry: entry.name.into(), reason });
        };
        entry.updates.push(waiting.remove(next));
    }
    Ok(())
}

fn assign_slots(artifact: &mut Artifact, outside: &[NodeId]) {
    let n = artifact.graph.nodes().len();
    let mut capacity = vec![0usize; n];
    // life of a node in an entry: (entry, first step, last step)
    let mut lives: Vec<Vec<(usize, usize, usize)>> = vec![Vec::new(); n];
    // what an entry reads through row lists alone has the rows of the entry that made it
    let mut gathered = vec![0usize; n];
    for (e, entry) in artifact.entries.iter().enumerate() {
        let mut by_row = vec![false; n];
        let mut by_list = vec![false; n];
        for (at, &step) in entry.steps.iter().enumerate() {
            lives[step.index()].push((e, at, at));
            let node = artifact.graph.node(step);
            for (i, &input) in node.inputs.iter().enumerate() {
                let reads = if node.op.gathers(i) { &mut by_list } else { &mut by_row };
                reads[input.index()] = true;
                if let Some(life) = lives[input.index()].last_mut().filter(|l| l.0 == e) {
                    life.2 = at;
                }
            }
        }
        let named = entry.given.iter().chain(&entry.want).chain(entry.updates.iter().flat_map(|u| [&u.0, &u.1]));
        let inputs = entry.steps.iter().flat_map(|&s| &artifact.graph.node(s).inputs);
        for &id in entry.steps.iter().chain(named).chain(inputs) {
            let made_elsewhere = entry.given.contains(&id) && !is_source(&artifact.graph.node(id).op);
            let only_listed = made_elsewhere && by_list[id.index()] && !by_row[id.index()];
            let rows = if only_listed { &mut gathered } else { &mut capacity };
            rows[id.index()] = rows[id.index()].max(entry.capacity);
        }
    }
    // swapped slots must be of one size, also those that swap through a third; capacities only grow, so this ends
    let swaps = || artifact.entries.iter().flat_map(|e| &e.updates).filter(|u| u.2 == Handover::Swap);
    while let Some(&(to, from, _)) = swaps().find(|u| capacity[u.0.index()] != capacity[u.1.index()]) {
        let both = capacity[to.index()].max(capacity[from.index()]);
        capacity[to.index()] = both;
        capacity[from.index()] = both;
    }
    // no entry makes it: its reader will say so
    capacity.iter_mut().zip(gathered).for_each(|(rows, listed)| *rows = if *rows == 0 { listed } else { *rows });
    let mut order: Vec<NodeId> =
        artifact.graph.iter().map(|(id, _)| id).filter(|id| capacity[id.index()] > 0).collect();
    let elements = |graph: &Graph, id: NodeId| {
        let node = graph.node(id);
        node.shape.len().saturating_mul(if node.extent == Extent::Rows { capacity[id.index()] } else { 1 })
    };
    // largest first, so that small values move into large slots and not the other way round; ties by id
    order.sort_by_key(|&id| (std::cmp::Reverse(elements(&artifact.graph, id)), id));
    let mut tenants: Vec<Vec<NodeId>> = Vec::new();
    for id in order {
        let node = artifact.graph.node(id);
        let pinned = is_source(&node.op) || outside.contains(&id);
        let rows = if node.extent == Extent::Rows { capacity[id.index()] } else { 1 };
        let free = |slot: usize| {
            !artifact.slots[slot].pinned
                && tenants[slot].iter().all(|t| !overlap(&lives[t.index()], &lives[id.index()]))
        };
        let found = if pinned { None } else { (0..tenants.len()).find(|&s| free(s)) };
        let slot = found.unwrap_or_else(|| {
            tenants.push(Vec::new());
            artifact.slots.push(Slot {
                elements: elements(&artifact.graph, id),
                capacity: rows,
                pinned,
                element: node.element(),
            });
            tenants.len() - 1
        });
        artifact.slots[slot].capacity = artifact.slots[slot].capacity.max(rows);
        tenants[slot].push(id);
        artifact.slot_of[id.index()] = Some(slot);
    }
}

/// Two values are alive together when they are in some entry; a value that is read at a step is still alive there, so
/// no step writes the slot it reads.
fn overlap(a: &[(usize, usize, usize)], b: &[(usize, usize, usize)]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.0 == y.0 && x.1 <= y.2 && y.1 <= x.2))
}
