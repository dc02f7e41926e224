//! What every device keeps of a program beside its memory: which slot a node has now, how many rows of it are valid, the
//! row lists, and the checks that follow from them. A device asks before it moves or computes anything, and does then
//! what the ledger answered; so all devices refuse the same things in the same words.

use super::BackendError;
use crate::graph::op::{Element, Op};
use crate::graph::plan::{Artifact, EntryId, Handover, PlannedEntry};
use crate::graph::{Extent, Node, NodeId};
use crate::tensor::{TensorMut, TensorRef};

/// A place to move rows in or out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub slot: usize,
    pub rows: usize,
}

/// How an update moves data between two slots.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    /// The contents of the two slots change places.
    Swap(usize, usize),
    /// The first elements of `from` are copied to `to`.
    Copy { from: usize, to: usize, elements: usize },
}

/// The books of one program.
pub(super) struct Ledger {
    artifact: Artifact,
    /// Valid rows of each slot (1 when whole and written, 0 before).
    rows: Vec<usize>,
    /// The content of each slot of indices: a list must be checked before a device follows it.
    lists: Vec<Vec<u32>>,
}

impl Ledger {
    pub fn new(artifact: Artifact) -> Ledger {
        let slots = artifact.slots().len();
        Ledger { artifact, rows: vec![0; slots], lists: vec![Vec::new(); slots] }
    }

    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.artifact.graph().node(id)
    }

    /// Valid rows of a slot.
    pub fn rows(&self, slot: usize) -> usize {
        self.rows[slot]
    }

    /// The row list in a slot of indices.
    pub fn list(&self, slot: usize) -> &[u32] {
        &self.lists[slot]
    }

    /// The slot of a node that some entry uses.
    pub fn slot(&self, id: NodeId) -> Result<usize, BackendError> {
        self.artifact.slot_of(id).ok_or_else(|| transfer(self.node(id), "no entry of this program uses it".into()))
    }

    /// Where written data go.
    pub fn write(&mut self, id: NodeId, data: TensorRef<'_>) -> Result<Place, BackendError> {
        let (node, slot) = (self.node(id), self.slot(id)?);
        if !matches!(node.op, Op::Input(_) | Op::Parameter | Op::State) {
            return Err(transfer(node, format!("it is computed ({}), so it cannot be written", node.op.name())));
        }
        let row = node.shape.len();
        let rows = data.len().checked_div(row).unwrap_or(0);
        let limit = if node.extent == Extent::Rows { self.artifact.slots()[slot].elements / row.max(1) } else { 1 };
        if rows == 0 || rows * row != data.len() || rows > limit {
            let (n, shape) = (data.len(), &node.shape);
            return Err(transfer(node, format!("{n} elements written to at most {limit} rows of {shape}")));
        }
        match (node.element(), data) {
            (Element::Float, TensorRef::U32(_)) => return Err(transfer(node, "indices written to floats".into())),
            (Element::Index, TensorRef::F32(_) | TensorRef::F64(_)) => {
                return Err(transfer(node, "floats written to indices".into()));
            }
            (Element::Index, TensorRef::U32(list)) => {
                self.lists[slot].clear();
                self.lists[slot].extend_from_slice(list);
            }
            (Element::Float, TensorRef::F32(_) | TensorRef::F64(_)) => {}
        }
        self.rows[slot] = rows;
        Ok(Place { slot, rows })
    }

    /// Where data that are read come from.
    pub fn read(&self, id: NodeId, out: &TensorMut<'_>) -> Result<Place, BackendError> {
        let (node, slot) = (self.node(id), self.slot(id)?);
        if !self.artifact.slots()[slot].pinned {
            let reason = "no entry wants it, so its slot is shared; add it to an entry's `want`";
            return Err(transfer(node, reason.into()));
        }
        let row = node.shape.len();
        let rows = out.len().checked_div(row).unwrap_or(0);
        if rows * row != out.len() || rows > self.rows[slot] {
            let (n, held) = (out.len(), self.rows[slot]);
            return Err(transfer(node, format!("{n} elements asked for, {held} rows of {row} held")));
        }
        if node.element() == Element::Index {
            return Err(transfer(node, "row lists are written, not read".into()));
        }
        Ok(Place { slot, rows })
    }

    /// The entry, if it can run on so many rows.
    pub fn entry(&self, entry: EntryId, rows: usize) -> Result<&PlannedEntry, BackendError> {
        let Some(planned) = self.artifact.entries().get(entry.0) else {
            return Err(BackendError::Rows {
                entry: format!("number {}", entry.0),
                rows,
                limit: format!("the program has {} entries", self.artifact.entries().len()),
            });
        };
        let fail = |limit: String| BackendError::Rows { entry: planned.name.into(), rows, limit };
        if rows == 0 || rows > planned.capacity {
            return Err(fail(format!("it takes 1 to {}", planned.capacity)));
        }
        // a node that is only gathered from need not have the run's rows
        let by_row = |id: NodeId| {
            let readers = planned.steps.iter().map(|&s| self.node(s));
            let uses = readers.flat_map(|n| n.inputs.iter().enumerate().map(|(i, &input)| (input, n.op.gathers(i))));
            let gathered: Vec<bool> = uses.filter(|u| u.0 == id).map(|u| u.1).collect();
            gathered.is_empty() || gathered.contains(&false)
        };
        for &id in &planned.given {
            let node = self.node(id);
            let held = self.artifact.slot_of(id).map_or(0, |s| self.rows[s]);
            let needed = if node.extent == Extent::Rows && by_row(id) { rows } else { 1 };
            if held < needed {
                return Err(fail(format!("\"{}\" holds {held}", node.name)));
            }
        }
        Ok(planned)
    }

    /// Checks what a step reads and books what it writes: the place of its result.
    pub fn step(&mut self, id: NodeId, rows: usize) -> Result<Place, BackendError> {
        let node = self.node(id);
        let slot = self.artifact.slot_of(id).ok_or_else(|| inconsistent(node, "a step without a slot".into()))?;
        if self.artifact.slots()[slot].element != Element::Float {
            return Err(inconsistent(node, "a step writes an index slot".into()));
        }
        for (i, &input) in node.inputs.iter().enumerate() {
            let source = self.node(input);
            let from =
                self.artifact.slot_of(input).ok_or_else(|| inconsistent(node, "an input without a slot".into()))?;
            if from == slot && !self.artifact.lies_in_place(id, i) {
                return Err(inconsistent(node, "it reads the slot it writes".into()));
            }
            let valid = self.rows[from];
            if valid < if source.extent == Extent::Rows && !node.op.gathers(i) { rows } else { 1 } {
                return Err(inconsistent(node, format!("\"{}\" holds {valid} rows", source.name)));
            }
        }
        self.check_lists(node, rows)?;
        if matches!(node.op, Op::Slice { .. }) && self.artifact.is_done_in_place(id) {
            return Ok(Place { slot, rows });
        }
        let written = if node.extent == Extent::Rows { rows } else { 1 };
        self.rows[slot] = written;
        Ok(Place { slot, rows: written })
    }

    /// A row list must point into what it indexes.
    fn check_lists(&self, node: &Node, rows: usize) -> Result<(), BackendError> {
        let held = |i: usize| self.artifact.slot_of(node.inputs[i]).map_or(0, |s| self.rows[s]);
        let leading = |i: usize| self.node(node.inputs[i]).shape.dims().first().copied().unwrap_or(1);
        let check = |i: usize, count: usize| {
            let list = self.artifact.slot_of(node.inputs[i]).map_or(&[][..], |s| &self.lists[s][..]);
            match list.iter().take(rows).enumerate().find(|(_, index)| **index as usize >= count) {
                None => Ok(()),
                Some((row, &index)) => Err(BackendError::RowIndex { node: node.name.clone(), row, index, count }),
            }
        };
        match node.op {
            Op::CrossEntropy | Op::CrossEntropyGrad => check(1, leading(0)),
            Op::Intervene => check(1, held(0)).and_then(|()| check(2, leading(3))),
            Op::InterveneConv { .. } => check(3, held(0).min(held(1))).and_then(|()| check(4, leading(5))),
            Op::Effects(_) | Op::WeightedEffect(_) => check(2, held(1)),
            // no other op takes a row list
            _ => Ok(()),
        }
    }

    /// After a failed run: what is half done or left from the run before must not be read as this run's.
    pub fn forget(&mut self, steps: &[NodeId]) {
        // a slice in place has written nothing
        let wrote =
            |id: &NodeId| !matches!(self.node(*id).op, Op::Slice { .. }) || !self.artifact.is_done_in_place(*id);
        let slots: Vec<usize> = steps.iter().filter(|s| wrote(s)).filter_map(|s| self.artifact.slot_of(*s)).collect();
        for slot in slots {
            self.rows[slot] = 0;
        }
    }

    /// Books an update; the device moves the data as told.
    pub fn update(&mut self, to: NodeId, from: NodeId, how: Handover, rows: usize) -> Result<Move, BackendError> {
        let (Some(a), Some(b)) = (self.artifact.slot_of(to), self.artifact.slot_of(from)) else {
            return Err(inconsistent(self.node(to), "an update without slots".into()));
        };
        match how {
            Handover::Swap => {
                self.rows[a] = self.rows[b];
                // the destination's old content is not the value
                self.rows[b] = 0;
                self.lists.swap(a, b);
                Ok(Move::Swap(a, b))
            }
            Handover::Copy => {
                // a value that was given may hold more rows than this run has, and than the destination has room for
                let rows = self.rows[b].min(rows);
                self.rows[a] = rows;
                if self.node(to).element() == Element::Index {
                    self.lists[a] = self.lists[b][..rows].to_vec();
                }
                Ok(Move::Copy { from: b, to: a, elements: rows * self.node(from).shape.len() })
            }
        }
    }
}

fn transfer(node: &Node, reason: String) -> BackendError {
    BackendError::Transfer { node: node.name.clone(), reason }
}

/// A defect of the plan at `node`.
pub(super) fn inconsistent(node: &Node, reason: String) -> BackendError {
    BackendError::Inconsistent { node: node.name.clone(), reason }
}
