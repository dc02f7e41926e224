//! A graph or an artifact as text, a line a node: what a developer reads when two runs part.

use super::plan::Artifact;
use super::{Extent, Graph};
use std::fmt::Write;

/// One line a node: `%12 features.3 = conv2d stride 1 pad 0 relu (%9, %10, %11) : rows 64x11x11`.
pub fn graph(graph: &Graph) -> String {
    let mut text = String::new();
    for (id, _) in graph.iter() {
        line(&mut text, graph, id.index());
    }
    text
}

fn line(text: &mut String, graph: &Graph, index: usize) {
    let node = &graph.nodes()[index];
    let inputs: Vec<String> = node.inputs.iter().map(|i| format!("%{}", i.index())).collect();
    let rows = if node.extent == Extent::Rows { "rows " } else { "" };
    // writing to a String cannot fail
    let _ = writeln!(
        text,
        "%{index} {} = {}{} ({}) : {rows}{}",
        node.name,
        node.op.name(),
        node.op.attributes(),
        inputs.join(", "),
        node.shape
    );
}

/// Every entry with its steps and the slot that each step writes (`[3+64/256]`: from channel 64 on in slot 3, whose pixels
/// have 256 channels), then the slots.
pub fn artifact(artifact: &Artifact) -> String {
    let mut text = String::new();
    for entry in artifact.entries() {
        let _ = writeln!(text, "entry {} (capacity {} rows)", entry.name, entry.capacity);
        for &step in &entry.steps {
            if let Some(slot) = artifact.slot_of(step) {
                let _ = match artifact.view_of(step) {
                    Some(v) => write!(text, "  [{slot}+{}/{}] ", v.first, v.pixel),
                    None => write!(text, "  [{slot}] "),
                };
            }
            line(&mut text, artifact.graph(), step.index());
        }
    }
    for (i, slot) in artifact.slots().iter().enumerate() {
        let _ = writeln!(text, "slot {i}: {} elements{}", slot.elements, if slot.pinned { ", pinned" } else { "" });
    }
    text
}
