//! Running a planned graph over a folder's images, in as many batches as fit: rows are put one after the other, means over a
//! batch are weighed by its images. Used by the parent module alone.

use crate::backend::{Backend, Parameters, Program, load_fitting};
use crate::graph::plan::{Artifact, Entry, EntryId, Footprint, plan};
use crate::graph::{Extent, Graph, GraphError, NodeId};
use crate::tensor::{TensorMut, TensorRef};
use crate::validate::ValidateError;

/// An entry without its capacity: what is given and what is wanted.
pub struct Job {
    /// For errors.
    pub name: &'static str,
    /// Nodes that are written.
    pub given: Vec<NodeId>,
    /// Nodes that are read.
    pub want: Vec<NodeId>,
}

impl Job {
    fn entry(&self, capacity: usize) -> Entry<'_> {
        Entry { name: self.name, given: &self.given, want: &self.want, updates: &[], capacity }
    }
}

/// What a node is given, for all images.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    /// So many floats an image as its row has.
    Floats(&'a [f64]),
    /// One number an image.
    Indices(&'a [u32]),
}

/// A program and the rows of its batches.
pub struct Runner {
    program: Box<dyn Program>,
    rows: usize,
}

impl Runner {
    /// Loads the jobs for batches of at most `images` rows, as many as the device likes and has memory for. A job's number
    /// is its entry's.
    pub fn load(
        graph: &Graph,
        jobs: &[Job],
        weights: &dyn Parameters,
        backend: &dyn Backend,
        images: usize,
    ) -> Result<Runner, ValidateError> {
        let planned = |rows: usize| -> Result<Artifact, GraphError> {
            plan(graph, &jobs.iter().map(|job| job.entry(rows)).collect::<Vec<_>>())
        };
        let rows = backend.batch_rows(Footprint::of(planned)?).min(images.max(1));
        let (program, rows) = load_fitting::<ValidateError>(backend, weights, rows, planned)?;
        Ok(Runner { program, rows })
    }

    /// The program, to write what is the same for all images.
    pub fn program(&mut self) -> &mut dyn Program {
        &mut *self.program
    }

    /// Runs `entry` over all images and reads `want`.
    pub fn run<const N: usize>(
        &mut self,
        entry: EntryId,
        images: usize,
        given: &[(NodeId, Given<'_>)],
        want: [NodeId; N],
    ) -> Result<[Vec<f64>; N], ValidateError> {
        let mut values = self.run_all(entry, images, given, &want)?.into_iter();
        Ok(want.map(|_| values.next().unwrap_or_default()))
    }

    /// The same for a list.
    pub fn run_all(
        &mut self,
        entry: EntryId,
        images: usize,
        given: &[(NodeId, Given<'_>)],
        want: &[NodeId],
    ) -> Result<Vec<Vec<f64>>, ValidateError> {
        let mut all: Vec<Vec<f64>> = vec![Vec::new(); want.len()];
        let mut first = 0;
        while first < images {
            let rows = self.rows.min(images - first);
            for &(node, given) in given {
                match given {
                    Given::Floats(values) => {
                        let row = self.program.artifact().graph().node(node).shape.len();
                        self.program.write(node, TensorRef::F64(&values[first * row..(first + rows) * row]))?;
                    }
                    Given::Indices(values) => {
                        self.program.write(node, TensorRef::U32(&values[first..first + rows]))?;
                    }
                }
            }
            self.program.run(entry, rows)?;
            for (&node, all) in want.iter().zip(&mut all) {
                let (extent, len) = {
                    let node = self.program.artifact().graph().node(node);
                    (node.extent, node.shape.len())
                };
                match extent {
                    Extent::Rows => {
                        let mut values = vec![0.0; len * rows];
                        self.program.read(node, TensorMut::F64(&mut values))?;
                        all.extend(values);
                    }
                    Extent::Whole => {
                        let mut values = vec![0.0; len];
                        self.program.read(node, TensorMut::F64(&mut values))?;
                        all.resize(len, 0.0);
                        let share = rows as f64 / images as f64;
                        all.iter_mut().zip(values).for_each(|(sum, v)| *sum += share * v);
                    }
                }
            }
            first += rows;
        }
        Ok(all)
    }
}
