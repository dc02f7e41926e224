//! From a graph and its entries to an [`Artifact`]: which steps an entry runs, and which slot each value lives in.
//!
//! An entry is a cut of the graph: `given` nodes are written or left over from another entry's run, `want` nodes are
//! computed from them, `updates` make a value the next content of an input, parameter or state. All entries of an artifact
//! share weights and slots. A slot holds `capacity` rows of its node, the largest of the entries that use it; nodes that
//! the outside reads or writes, and nodes that carry a value from one entry to another, are pinned to a slot of their own;
//! the others share slots wherever they are never alive at the same time in any entry.
//!
//! The inputs of a concat live in windows of its slot, and a slice is a window of its input's, wherever everybody who
//! writes and reads them can step over the other channels: then nothing is copied ([`Artifact::view_of`]).

use super::op::{Binary, Element, Op};
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

/// Which channels of a slot's wider pixels a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Its first channel.
    pub first: usize,
    /// Channels of a pixel of the slot.
    pub pixel: usize,
}

/// A planned graph: what a backend loads.
#[derive(Clone, Debug)]
pub struct Artifact {
    graph: Graph,
    entries: Vec<PlannedEntry>,
    slots: Vec<Slot>,
    slot_of: Vec<Option<usize>>,
    views: Vec<Option<View>>,
    /// Nodes that some entry reads, writes or wants.
    outside: Vec<NodeId>,
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
    /// Which channels of its slot a node is; `None` for one that has its slot's pixels to itself.
    pub fn view_of(&self, node: NodeId) -> Option<View> {
        self.views.get(node.index()).copied().flatten()
    }
    /// Whether input number `input` of `node` lies in the node's own slot already.
    pub fn lies_in_place(&self, node: NodeId, input: usize) -> bool {
        let slot = self.slot_of(node);
        let shared = |i: &NodeId| slot.is_some() && self.slot_of(*i) == slot;
        matches!(self.graph.node(node).op, Op::Concat | Op::Slice { .. })
            && self.graph.node(node).inputs.get(input).is_some_and(shared)
    }
    /// Whether nothing is left to do for a step: all its inputs lie where its result does.
    pub fn is_done_in_place(&self, node: NodeId) -> bool {
        let inputs = self.graph.node(node).inputs.len();
        inputs > 0 && (0..inputs).all(|i| self.lies_in_place(node, i))
    }
    /// The same plan without views: every value has its slot's pixels to itself, and concats copy. For a device that knows
    /// no views.
    pub fn dense(mut self) -> Artifact {
        let nodes = self.graph.nodes().len();
        (self.views, self.slot_of) = (vec![None; nodes], vec![None; nodes]);
        self.slots.clear();
        assign_slots(&mut self, &vec![None; nodes]);
        self
    }
    /// Float elements of all slots together: what a run needs beside packed weights.
    pub fn slot_elements(&self) -> usize {
        self.slots.iter().map(|s| s.elements).sum()
    }
    /// Bytes of all parameters that some entry uses.
    pub fn weight_bytes(&self) -> usize {
        4 * self.parameters().map(|id| self.graph.node(id).shape.len()).sum::<usize>()
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
    let graph = fold::fuse(graph, &outside);
    let mut planned = Vec::with_capacity(entries.len());
    for e in entries {
        planned.push(steps(&graph, e)?);
    }
    let (slot_of, no_views) = (vec![None; graph.nodes().len()], vec![None; graph.nodes().len()]);
    let mut artifact = Artifact { graph, entries: planned, slots: Vec::new(), slot_of, views: no_views, outside };
    settle_updates(&mut artifact)?;
    let owners = views(&artifact);
    artifact.views = owners.iter().map(|o| o.map(|o| o.view)).collect();
    assign_slots(&mut artifact, &owners);
    Ok(artifact)
}

/// Bytes that a run goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// What one more row adds to the slots, whatever lies in them once.
    pub row: usize,
    /// All parameters, which rows share.
    pub weights: usize,
}

impl Footprint {
    /// Of what `plan` plans for so many rows.
    ///
    /// # Errors
    /// What `plan` says.
    pub fn of(plan: impl Fn(usize) -> Result<Artifact, GraphError>) -> Result<Footprint, GraphError> {
        let (one, two) = (plan(1)?, plan(2)?);
        Ok(Footprint { row: 4 * two.slot_elements().saturating_sub(one.slot_elements()), weights: one.weight_bytes() })
    }
}

/// Whose slot a value lives in, and where in it.
#[derive(Clone, Copy)]
struct Owned {
    owner: NodeId,
    view: View,
}

/// Which values live in another's slot. An input of a concat does when its step can write pixels with a stride, all its
/// readers can read them, nobody outside needs it by itself, and no entry makes it without the concat (it would
/// overwrite a concat that is kept). A slice does when all its readers can read pixels with a stride. No step reads the
/// slot that it writes, not even other channels of it.
fn views(artifact: &Artifact) -> Vec<Option<Owned>> {
    let graph = &artifact.graph;
    let mut owned: Vec<Option<Owned>> = vec![None; graph.nodes().len()];
    let mut readers: Vec<Vec<(NodeId, usize)>> = vec![Vec::new(); graph.nodes().len()];
    let mut steps: Vec<Vec<bool>> = Vec::with_capacity(artifact.entries.len());
    let mut used = vec![false; graph.nodes().len()];
    for entry in &artifact.entries {
        let mut of_entry = vec![false; graph.nodes().len()];
        for &step in &entry.steps {
            of_entry[step.index()] = true;
            used[step.index()] = true;
        }
        steps.push(of_entry);
    }
    for (id, node) in graph.iter().filter(|(id, _)| used[id.index()]) {
        for (i, input) in node.inputs.iter().enumerate() {
            readers[input.index()].push((id, i));
        }
    }
    let all_step_over = |id: NodeId| readers[id.index()].iter().all(|&(r, i)| reads_views(graph, r, i));
    let kept = |id: NodeId| is_source(&graph.node(id).op) || artifact.outside.contains(&id);
    // from the outermost concat inwards: an owner is settled before those that live in it
    for (id, node) in graph.iter().collect::<Vec<_>>().into_iter().rev().filter(|(id, _)| used[id.index()]) {
        if node.op != Op::Concat {
            continue;
        }
        let channels = node.shape.dims()[0];
        let at = owned[id.index()].unwrap_or(Owned { owner: id, view: View { first: 0, pixel: channels } });
        let mut first = at.view.first;
        for &input in &node.inputs {
            let always_together = steps.iter().all(|s| !s[input.index()] || s[id.index()]);
            let source = graph.node(input);
            let concats = readers[input.index()].iter().filter(|(r, _)| graph.node(*r).op == Op::Concat).count();
            if concats == 1 && !kept(input) && always_together && writes_views(&source.op) && all_step_over(input) {
                owned[input.index()] = Some(Owned { owner: at.owner, view: View { first, ..at.view } });
            }
            first += source.shape.dims()[0];
        }
    }
    let slot = |owned: &[Option<Owned>], id: NodeId| owned[id.index()].map_or(id, |o| o.owner);
    for (id, node) in graph.iter().filter(|(_, n)| n.op != Op::Concat) {
        if let Some(Owned { owner, .. }) = owned[id.index()]
            && node.inputs.iter().any(|&input| slot(&owned, input) == owner)
        {
            owned[id.index()] = None;
        }
    }
    for (id, node) in graph.iter().filter(|(id, _)| used[id.index()]) {
        let Op::Slice { first, .. } = node.op else { continue };
        let input = node.inputs[0];
        let pixel = graph.node(input).shape.dims()[0];
        let at = owned[input.index()].unwrap_or(Owned { owner: input, view: View { first: 0, pixel } });
        let writes_there = |&(r, _): &(NodeId, usize)| graph.node(r).op == Op::Concat || slot(&owned, r) == at.owner;
        if kept(id) || !all_step_over(id) || readers[id.index()].iter().any(writes_there) {
            continue;
        }
        owned[id.index()] = Some(Owned { owner: at.owner, view: View { first: at.view.first + first, ..at.view } });
    }
    owned
}

/// Ops whose result may be a window of wider pixels.
fn writes_views(op: &Op) -> bool {
    matches!(op, Op::Conv2d { .. } | Op::MaxPool { .. } | Op::AvgPool(_) | Op::Concat)
}

/// Whether input number `input` of `reader` may be a window of wider pixels. A wider convolution gathers its input into
/// panels by rows of pixels, so only one of single pixels does.
fn reads_views(graph: &Graph, reader: NodeId, input: usize) -> bool {
    let node = graph.node(reader);
    match node.op {
        Op::Conv2d { window, .. } => input == 0 && fold::is_linear(graph, node, window),
        Op::Affine { .. } | Op::Slice { .. } => input == 0,
        // with or without positions: a row of features is one pixel
        Op::BatchMoments | Op::Normalise { .. } | Op::NormaliseGradWeight { .. } | Op::NormaliseGradInput { .. } => {
            input == 0
        }
        Op::Binary(Binary::Add) | Op::Concat => node.extent == Extent::Rows && node.shape.rank() == 3,
        _ => false,
    }
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

fn assign_slots(artifact: &mut Artifact, owners: &[Option<Owned>]) {
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
    // an owner lives as long as any that lives in it
    for (i, owned) in owners.iter().enumerate() {
        let Some(Owned { owner, .. }) = owned else { continue };
        capacity[owner.index()] = capacity[owner.index()].max(capacity[i]);
        for (entry, from, to) in std::mem::take(&mut lives[i]) {
            let of_owner = &mut lives[owner.index()];
            match of_owner.iter_mut().find(|life| life.0 == entry) {
                Some(life) => *life = (entry, life.1.min(from), life.2.max(to)),
                None => of_owner.push((entry, from, to)),
            }
        }
    }
    let mut order: Vec<NodeId> = artifact.graph.iter().map(|(id, _)| id).collect();
    order.retain(|id| capacity[id.index()] > 0 && owners[id.index()].is_none());
    let elements = |graph: &Graph, id: NodeId| {
        let node = graph.node(id);
        node.shape.len().saturating_mul(if node.extent == Extent::Rows { capacity[id.index()] } else { 1 })
    };
    // largest first, so that small values move into large slots and not the other way round; ties by id
    order.sort_by_key(|&id| (std::cmp::Reverse(elements(&artifact.graph, id)), id));
    let mut tenants: Vec<Vec<NodeId>> = Vec::new();
    for id in order {
        let node = artifact.graph.node(id);
        let pinned = is_source(&node.op) || artifact.outside.contains(&id);
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
    for (i, owned) in owners.iter().enumerate() {
        if let Some(Owned { owner, .. }) = owned {
            artifact.slot_of[i] = artifact.slot_of[owner.index()];
        }
    }
}

/// Two values are alive together when they are in some entry; a value that is read at a step is still alive there, so
/// no step writes the slot it reads.
fn overlap(a: &[(usize, usize, usize)], b: &[(usize, usize, usize)]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.0 == y.0 && x.1 <= y.2 && y.1 <= x.2))
}
