//! Graphs; `capture` is how streams make them, `launch` how they run.
//!
//! A graph's nodes run one at a time in an order that respects its edges; `order` sees the edges only, so two nodes that
//! touch the same bytes and have no path between them are a race. Memory nodes, conditional nodes and batches of memory
//! operations are not supported.

mod capture;
mod launch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_uint, c_ulonglong, c_void};
use std::time::Instant;

use self::capture::*;
pub(crate) use self::capture::{Captures, Capturing};
use self::launch::launch;
use super::call::{self, api, get, get_many, put, put_if};
use super::error::{self, Answer};
use super::event::Recorded;
use super::launch::{Arguments, Asked};
use super::memory::copy_3d;
use super::order::{Clock, Timeline};
use super::state::Driver;
use super::stream::HostCall;
use super::types::*;
use super::work::{FillWork, Form, Work};

/// Graphs within graphs, at most.
const MAX_DEPTH: u32 = 32;

/// A graph.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: BTreeMap<CUgraphNode, Node>,
    /// Graphs nested within.
    depth: u32,
    /// A child belongs to its node.
    child: bool,
}

/// A node.
#[derive(Clone)]
struct Node {
    does: Does,
    after: BTreeSet<CUgraphNode>,
}

/// What a node does.
#[derive(Clone)]
enum Does {
    Work(Work),
    Child(CUgraph),
}

impl Does {
    /// `CUgraphNodeType`
    fn kind(&self) -> c_uint {
        match self {
            Does::Work(Work::Kernel(_)) => 0,
            Does::Work(Work::Copy(_)) => 1,
            Does::Work(Work::Fill(_)) => 2,
            Does::Work(Work::Host(..)) => 3,
            Does::Child(_) => 4,
            Does::Work(Work::Empty) => 5,
            Does::Work(Work::Wait(_)) => 6,
            Does::Work(Work::Record(_)) => 7,
        }
    }
}

/// A graph that can be launched.
pub(crate) struct Exec {
    steps: Vec<Step>,
    flags: c_ulonglong,
    /// One for each chain of nodes, made at the first launch.
    timelines: Vec<Timeline>,
    /// What the launches so far have done: the next comes after them.
    done: Clock,
}

/// A node of it; the steps stand in an order in which they can run.
#[derive(Clone)]
struct Step {
    node: CUgraphNode,
    work: Work,
    after: Vec<usize>,
    enabled: bool,
    /// Steps of a chain follow one another.
    chain: usize,
}

impl Driver {
    fn add_node(&mut self, graph: CUgraph, after: Vec<CUgraphNode>, does: Does) -> Answer<CUgraphNode> {
        let known = &self.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?.nodes;
        let dependencies: BTreeSet<_> = after.iter().copied().collect();
        if dependencies.len() != after.len() || dependencies.iter().any(|node| !known.contains_key(node)) {
            return Err(error::INVALID_VALUE);
        }
        let node = self.nodes.insert(graph);
        self.graphs.find_mut(graph)?.nodes.insert(node, Node { does, after: dependencies });
        Ok(node)
    }

    fn node(&self, node: CUgraphNode) -> Answer<&Node> {
        let graph = *self.nodes.find(node).map_err(|_| error::INVALID_VALUE)?;
        self.graphs.find(graph)?.nodes.get(&node).ok_or(error::INVALID_VALUE)
    }

    fn node_mut(&mut self, node: CUgraphNode) -> Answer<&mut Node> {
        let graph = *self.nodes.find(node).map_err(|_| error::INVALID_VALUE)?;
        self.graphs.find_mut(graph)?.nodes.get_mut(&node).ok_or(error::INVALID_VALUE)
    }

    /// The nodes and all that come before them.
    fn ancestors(&self, graph: CUgraph, nodes: &[CUgraphNode]) -> Answer<BTreeSet<CUgraphNode>> {
        let all = &self.graphs.find(graph)?.nodes;
        let mut seen: BTreeSet<CUgraphNode> = BTreeSet::new();
        let mut open: Vec<CUgraphNode> = nodes.to_vec();
        while let Some(node) = open.pop() {
            if seen.insert(node)
                && let Some(node) = all.get(&node)
            {
                open.extend(&node.after);
            }
        }
        seen.retain(|node| all.contains_key(node));
        Ok(seen)
    }

    fn destroy_graph(&mut self, graph: CUgraph) -> Answer {
        let gone = self.graphs.remove(graph)?;
        for (handle, node) in gone.nodes {
            self.nodes.remove(handle)?;
            if let Does::Child(child) = node.does {
                self.destroy_graph(child)?;
            }
        }
        Ok(())
    }

    /// A copy of a graph, with new nodes in the same order.
    fn clone_graph(&mut self, graph: CUgraph, child: bool) -> Answer<CUgraph> {
        let original = self.graphs.find(graph)?;
        let (nodes, depth) = (original.nodes.clone(), original.depth);
        let copy = self.graphs.insert(Graph { nodes: BTreeMap::new(), depth, child });
        let handles: BTreeMap<CUgraphNode, CUgraphNode> =
            nodes.keys().map(|&node| (node, self.nodes.insert(copy))).collect();
        for (handle, node) in nodes {
            let does = match node.does {
                Does::Child(inner) => Does::Child(self.clone_graph(inner, true)?),
                does => does,
            };
            let after = node.after.iter().filter_map(|old| handles.get(old).copied()).collect();
            self.graphs.find_mut(copy)?.nodes.insert(handles[&handle], Node { does, after });
        }
        Ok(copy)
    }

    /// The nodes in an order in which they can run, children in place of their node. `before` is what the graph as a whole
    /// comes after. Returns the steps that nothing in the graph comes after.
    fn flatten(&self, graph: CUgraph, before: &[usize], steps: &mut Vec<Step>) -> Answer<Vec<usize>> {
        let nodes = &self.graphs.find(graph)?.nodes;
        let mut waiting: BTreeMap<CUgraphNode, usize> = nodes.iter().map(|(h, node)| (*h, node.after.len())).collect();
        let mut followers: BTreeMap<CUgraphNode, Vec<CUgraphNode>> = BTreeMap::new();
        for (&handle, node) in nodes {
            for &earlier in &node.after {
                followers.entry(earlier).or_default().push(handle);
            }
        }
        let mut ready: BTreeSet<CUgraphNode> = waiting.iter().filter(|(_, n)| **n == 0).map(|(h, _)| *h).collect();
        let mut step_of: BTreeMap<CUgraphNode, usize> = BTreeMap::new();
        while let Some(handle) = ready.pop_first() {
            let node = &nodes[&handle];
            let mut after: Vec<usize> = node.after.iter().map(|earlier| step_of[earlier]).collect();
            if after.is_empty() {
                after = before.to_vec();
            }
            let work = match &node.does {
                Does::Work(work) => work.clone(),
                Does::Child(child) => {
                    let ends = self.flatten(*child, &after, steps)?;
                    if !ends.is_empty() {
                        after = ends;
                    }
                    Work::Empty
                }
            };
            step_of.insert(handle, steps.len());
            steps.push(Step { node: handle, work, after, enabled: true, chain: 0 });
            for &follower in followers.get(&handle).into_iter().flatten() {
                let left = waiting.get_mut(&follower).ok_or(error::INVALID_VALUE)?;
                *left -= 1;
                if *left == 0 {
                    ready.insert(follower);
                }
            }
        }
        if step_of.len() != nodes.len() {
            return Err(error::INVALID_VALUE); // a cycle
        }
        Ok(step_of.iter().filter(|(handle, _)| !followers.contains_key(handle)).map(|(_, step)| *step).collect())
    }

    fn steps(&self, graph: CUgraph) -> Answer<Vec<Step>> {
        let mut steps = Vec::new();
        self.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?;
        self.flatten(graph, &[], &mut steps)?;
        // A step goes on with the chain of a step before it if it is the first to do so.
        let mut continued = vec![false; steps.len()];
        let mut chains = 0;
        for i in 0..steps.len() {
            let predecessor = steps[i].after.iter().copied().find(|&earlier| !continued[earlier]);
            steps[i].chain = match predecessor {
                Some(earlier) => {
                    continued[earlier] = true;
                    steps[earlier].chain
                }
                None => {
                    chains += 1;
                    chains - 1
                }
            };
        }
        Ok(steps)
    }

    fn instantiate(&mut self, graph: CUgraph, flags: c_ulonglong) -> Answer<CUgraphExec> {
        const AUTO_FREE: c_ulonglong = 1;
        const DEVICE_LAUNCH: c_ulonglong = 4;
        if flags > 15 || (flags & DEVICE_LAUNCH != 0 && flags & AUTO_FREE != 0) {
            return Err(error::INVALID_VALUE);
        }
        if flags & DEVICE_LAUNCH != 0 {
            return Err(error::NOT_SUPPORTED);
        }
        let steps = self.steps(graph)?;
        Ok(self.execs.insert(Exec { steps, flags, timelines: Vec::new(), done: Clock::default() }))
    }

    /// A node that does work.
    unsafe fn add_work(
        &mut self,
        out: *mut CUgraphNode,
        graph: CUgraph,
        after: *const CUgraphNode,
        count: usize,
        work: Work,
    ) -> Answer {
        if out.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let after = unsafe { get_many(after, count) }?;
        let node = self.add_node(graph, after, Does::Work(work))?;
        unsafe { put(out, node) }
    }

    unsafe fn kernel_node(
        &mut self,
        context: CUcontext,
        params: *const CUDA_KERNEL_NODE_PARAMS,
        kernel: CUkernel,
    ) -> Answer<Work> {
        let p = unsafe { get(params) }?;
        let asked = Asked {
            function: if p.func == 0 { kernel } else { p.func },
            grid: [p.gridDimX, p.gridDimY, p.gridDimZ],
            block: [p.blockDimX, p.blockDimY, p.blockDimZ],
            dynamic_shared: p.sharedMemBytes,
            cooperative: false,
        };
        let arguments = Arguments { params: p.kernelParams, extra: p.extra };
        Ok(Work::Kernel(Box::new(unsafe { self.kernel_work(context, asked, arguments) }?)))
    }

    unsafe fn kernel_node_v2(&mut self, context: CUcontext, params: *const CUDA_KERNEL_NODE_PARAMS_v2) -> Answer<Work> {
        let p = unsafe { get(params) }?;
        let context = if p.ctx == 0 { context } else { p.ctx };
        self.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        unsafe { self.kernel_node(context, &p.v1, p.kern) }
    }

    unsafe fn fill_node(&mut self, params: *const CUDA_MEMSET_NODE_PARAMS) -> Answer<Work> {
        let p = unsafe { get(params) }?;
        let element = p.elementSize as usize;
        let fits = match element {
            1 => p.value <= 0xff,
            2 => p.value <= 0xffff,
            4 => true,
            _ => false,
        };
        if !fits {
            return Err(error::INVALID_VALUE);
        }
        let fill = FillWork { address: p.dst, pitch: p.pitch, value: p.value, element, count: p.width, rows: p.height };
        self.check_fill(&fill)?;
        Ok(Work::Fill(fill))
    }

    unsafe fn copy_node(&mut self, params: *const CUDA_MEMCPY3D) -> Answer<Work> {
        let copy = unsafe { copy_3d(params) }?;
        self.check_copy(&copy)?;
        Ok(Work::Copy(Box::new(copy)))
    }

    unsafe fn host_node(&self, params: *const CUDA_HOST_NODE_PARAMS) -> Answer<Work> {
        let p = unsafe { get(params) }?;
        Ok(Work::Host(p.function.ok_or(error::INVALID_VALUE)?, p.userData as usize))
    }

    /// Gives a node other parameters of the same kind.
    fn set_node(&mut self, node: CUgraphNode, work: Work) -> Answer {
        let does = Does::Work(work);
        let node = self.node_mut(node)?;
        if node.does.kind() != does.kind() {
            return Err(error::INVALID_VALUE);
        }
        node.does = does;
        Ok(())
    }

    fn step_mut(&mut self, exec: CUgraphExec, node: CUgraphNode) -> Answer<&mut Step> {
        let exec = self.execs.find_mut(exec).map_err(|_| error::INVALID_VALUE)?;
        exec.steps.iter_mut().find(|step| step.node == node).ok_or(error::INVALID_VALUE)
    }

    fn set_step(&mut self, exec: CUgraphExec, node: CUgraphNode, work: Work) -> Answer {
        let step = self.step_mut(exec, node)?;
        if std::mem::discriminant(&step.work) != std::mem::discriminant(&work) {
            return Err(error::INVALID_VALUE);
        }
        step.work = work;
        Ok(())
    }

    /// `CUgraphExecUpdateResult` and the node that does not fit.
    fn update(&mut self, exec: CUgraphExec, graph: CUgraph) -> Answer<(c_uint, CUgraphNode)> {
        let fresh = self.steps(graph)?;
        let exec = self.execs.find_mut(exec).map_err(|_| error::INVALID_VALUE)?;
        if fresh.len() != exec.steps.len() {
            return Ok((2, 0)); // TOPOLOGY_CHANGED
        }
        for (old, new) in exec.steps.iter().zip(&fresh) {
            if std::mem::discriminant(&old.work) != std::mem::discriminant(&new.work) {
                return Ok((3, new.node)); // NODE_TYPE_CHANGED
            }
            if old.after != new.after {
                return Ok((2, new.node));
            }
        }
        // Nodes are named by those that the graph was instantiated from.
        for (old, new) in exec.steps.iter_mut().zip(fresh) {
            old.work = new.work;
        }
        Ok((0, 0))
    }

    /// Writes up to `count` handles, and how many there are; the rest of the caller's array is set to null.
    unsafe fn list(found: Vec<usize>, out: *mut usize, count: *mut usize) -> Answer {
        let room = unsafe { get(count.cast_const()) }?;
        if out.is_null() {
            return unsafe { put(count, found.len()) };
        }
        let written = room.min(found.len());
        for (i, handle) in found.iter().take(written).enumerate() {
            unsafe { out.add(i).write_unaligned(*handle) };
        }
        if room > found.len() {
            for i in written..room {
                unsafe { out.add(i).write_unaligned(0) };
            }
        }
        unsafe { put(count, written) }
    }

    fn edges(&self, graph: CUgraph) -> Answer<(Vec<usize>, Vec<usize>)> {
        let nodes = &self.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?.nodes;
        Ok(nodes.iter().flat_map(|(&to, node)| node.after.iter().map(move |&from| (from, to))).unzip())
    }

    fn followers(&self, node: CUgraphNode) -> Answer<Vec<usize>> {
        let graph = *self.nodes.find(node).map_err(|_| error::INVALID_VALUE)?;
        let nodes = &self.graphs.find(graph)?.nodes;
        Ok(nodes.iter().filter(|(_, other)| other.after.contains(&node)).map(|(handle, _)| *handle).collect())
    }

    unsafe fn change_edges(
        &mut self,
        graph: CUgraph,
        from: *const CUgraphNode,
        to: *const CUgraphNode,
        count: usize,
        add: bool,
    ) -> Answer {
        let (from, to) = unsafe { (get_many(from, count)?, get_many(to, count)?) };
        let nodes = &mut self.graphs.find_mut(graph).map_err(|_| error::INVALID_VALUE)?.nodes;
        for (from, to) in from.into_iter().zip(to) {
            if from == to || !nodes.contains_key(&from) {
                return Err(error::INVALID_VALUE);
            }
            let after = &mut nodes.get_mut(&to).ok_or(error::INVALID_VALUE)?.after;
            let changed = if add { after.insert(from) } else { after.remove(&from) };
            if !changed {
                return Err(error::INVALID_VALUE);
            }
        }
        Ok(())
    }
}

api! {
    [context] cuStreamBeginCapture_v2(stream: CUstream, mode: c_uint) as cuStreamBeginCapture_v2_ptsz |driver, context| {
        let stream = driver.stream(stream, context)?;
        driver.begin_capture(stream, mode)
    }

    [context] cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) as cuStreamEndCapture_ptsz |driver, context| {
        if graph.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let stream = driver.stream(stream, context)?;
        put(graph, 0)?;
        put(graph, driver.end_capture(stream)?)
    }

    [context] cuStreamIsCapturing(stream: CUstream, status: *mut c_uint) as cuStreamIsCapturing_ptsz |driver, context| {
        let none: *mut c_void = std::ptr::null_mut();
        let out = CaptureInfo { status, id: none.cast(), graph: none.cast(), last: none.cast(), count: none.cast() };
        driver.capture_info(context, stream, out)
    }

    [context] cuStreamGetCaptureInfo(stream: CUstream, status: *mut c_uint, id: *mut u64) as cuStreamGetCaptureInfo_ptsz
    |driver, context| {
        let none: *mut c_void = std::ptr::null_mut();
        let out = CaptureInfo { status, id, graph: none.cast(), last: none.cast(), count: none.cast() };
        driver.capture_info(context, stream, out)
    }

    [context] cuStreamGetCaptureInfo_v2(
        stream: CUstream, status: *mut c_uint, id: *mut u64, graph: *mut CUgraph, last: *mut *const CUgraphNode,
        count: *mut usize
    ) as cuStreamGetCaptureInfo_v2_ptsz |driver, context| {
        driver.capture_info(context, stream, CaptureInfo { status, id, graph, last, count })
    }

    [context] cuStreamGetCaptureInfo_v3(
        stream: CUstream, status: *mut c_uint, id: *mut u64, graph: *mut CUgraph, last: *mut *const CUgraphNode,
        edges: *mut *const c_void, count: *mut usize
    ) as cuStreamGetCaptureInfo_v3_ptsz |driver, context| {
        put_if(edges, std::ptr::null());
        driver.capture_info(context, stream, CaptureInfo { status, id, graph, last, count })
    }

    [context] cuStreamUpdateCaptureDependencies(
        stream: CUstream, nodes: *mut CUgraphNode, count: usize, flags: c_uint
    ) as cuStreamUpdateCaptureDependencies_ptsz |driver, context| {
        driver.update_dependencies(context, stream, nodes, count, flags)
    }

    [context] cuStreamUpdateCaptureDependencies_v2(
        stream: CUstream, nodes: *mut CUgraphNode, edges: *const c_void, count: usize, flags: c_uint
    ) as cuStreamUpdateCaptureDependencies_v2_ptsz |driver, context| {
        if !edges.is_null() {
            return Err(error::NOT_SUPPORTED);
        }
        driver.update_dependencies(context, stream, nodes, count, flags)
    }

    [driver] cuThreadExchangeStreamCaptureMode(mode: *mut c_uint) |driver| {
        let wanted = get(mode.cast_const())?;
        if wanted > MODE_RELAXED {
            return Err(error::INVALID_VALUE);
        }
        put(mode, call::capture_mode())?;
        call::set_capture_mode(wanted);
        Ok(())
    }

    // Building

    [driver] cuGraphCreate(graph: *mut CUgraph, flags: c_uint) |driver| {
        if graph.is_null() || flags != 0 {
            return Err(error::INVALID_VALUE);
        }
        put(graph, driver.graphs.insert(Graph::default()))
    }

    [driver] cuGraphDestroy(graph: CUgraph) |driver| {
        // A child goes with its node; what is being captured is not yet the caller's.
        let busy = driver.captures.active.values().any(|capture| capture.graph == graph);
        if busy || driver.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?.child {
            return Err(error::INVALID_VALUE);
        }
        driver.destroy_graph(graph)
    }

    [driver] cuGraphClone(clone: *mut CUgraph, graph: CUgraph) |driver| {
        driver.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?;
        if clone.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put(clone, driver.clone_graph(graph, false)?)
    }

    [driver] cuGraphDestroyNode(node: CUgraphNode) |driver| {
        let graph = *driver.nodes.find(node).map_err(|_| error::INVALID_VALUE)?;
        let nodes = &mut driver.graphs.find_mut(graph)?.nodes;
        let gone = nodes.remove(&node).ok_or(error::INVALID_VALUE)?;
        for other in nodes.values_mut() {
            other.after.remove(&node);
        }
        driver.nodes.remove(node)?;
        match gone.does {
            Does::Child(child) => driver.destroy_graph(child),
            Does::Work(_) => Ok(()),
        }
    }

    [context] cuGraphAddKernelNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize,
        params: *const CUDA_KERNEL_NODE_PARAMS
    ) |driver, context| {
        let work = driver.kernel_node(context, params, 0)?;
        driver.add_work(node, graph, after, count, work)
    }

    [context] cuGraphAddKernelNode_v2(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize,
        params: *const CUDA_KERNEL_NODE_PARAMS_v2
    ) |driver, context| {
        let work = driver.kernel_node_v2(context, params)?;
        driver.add_work(node, graph, after, count, work)
    }

    [driver] cuGraphAddMemcpyNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, params: *const CUDA_MEMCPY3D,
        context: CUcontext
    ) |driver| {
        driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        let work = driver.copy_node(params)?;
        driver.add_work(node, graph, after, count, work)
    }

    [driver] cuGraphAddMemsetNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize,
        params: *const CUDA_MEMSET_NODE_PARAMS, context: CUcontext
    ) |driver| {
        driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        let work = driver.fill_node(params)?;
        driver.add_work(node, graph, after, count, work)
    }

    [driver] cuGraphAddHostNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize,
        params: *const CUDA_HOST_NODE_PARAMS
    ) |driver| {
        let work = driver.host_node(params)?;
        driver.add_work(node, graph, after, count, work)
    }

    [driver] cuGraphAddEmptyNode(node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize)
    |driver| {
        driver.add_work(node, graph, after, count, Work::Empty)
    }

    [driver] cuGraphAddEventRecordNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, event: CUevent
    ) |driver| {
        driver.events.find(event)?;
        driver.add_work(node, graph, after, count, Work::Record(event))
    }

    [driver] cuGraphAddEventWaitNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, event: CUevent
    ) |driver| {
        driver.events.find(event)?;
        driver.add_work(node, graph, after, count, Work::Wait(event))
    }

    [driver] cuGraphAddChildGraphNode(
        node: *mut CUgraphNode, graph: CUgraph, after: *const CUgraphNode, count: usize, child: CUgraph
    ) |driver| {
        if node.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let after = get_many(after, count)?;
        driver.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?;
        let depth = driver.graphs.find(child).map_err(|_| error::INVALID_VALUE)?.depth + 1;
        if depth > MAX_DEPTH {
            return Err(error::NOT_SUPPORTED);
        }
        let copy = driver.clone_graph(child, true)?;
        let added = match driver.add_node(graph, after, Does::Child(copy)) {
            Ok(added) => added,
            Err(code) => {
                driver.destroy_graph(copy)?;
                return Err(code);
            }
        };
        let own = driver.graphs.find_mut(graph)?;
        own.depth = own.depth.max(depth);
        put(node, added)
    }

    [driver] cuGraphChildGraphNodeGetGraph(node: CUgraphNode, graph: *mut CUgraph) |driver| {
        match driver.node(node)?.does {
            Does::Child(child) => put(graph, child),
            Does::Work(_) => Err(error::INVALID_VALUE),
        }
    }

    [driver] cuGraphAddDependencies(graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize)
    |driver| {
        driver.change_edges(graph, from, to, count, true)
    }

    [driver] cuGraphAddDependencies_v2(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edges: *const c_void, count: usize
    ) |driver| {
        if !edges.is_null() {
            return Err(error::NOT_SUPPORTED);
        }
        driver.change_edges(graph, from, to, count, true)
    }

    [driver] cuGraphRemoveDependencies(graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize)
    |driver| {
        driver.change_edges(graph, from, to, count, false)
    }

    [driver] cuGraphRemoveDependencies_v2(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edges: *const c_void, count: usize
    ) |driver| {
        if !edges.is_null() {
            return Err(error::NOT_SUPPORTED);
        }
        driver.change_edges(graph, from, to, count, false)
    }

    // Looking

    [driver] cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) |driver| {
        let all = driver.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?.nodes.keys().copied().collect();
        Driver::list(all, nodes, count)
    }

    [driver] cuGraphGetRootNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) |driver| {
        let all = &driver.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?.nodes;
        let roots = all.iter().filter(|(_, node)| node.after.is_empty()).map(|(handle, _)| *handle).collect();
        Driver::list(roots, nodes, count)
    }

    [driver] cuGraphGetEdges(graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, count: *mut usize) |driver| {
        let edges = driver.edges(graph)?;
        let mut same = get(count.cast_const())?;
        Driver::list(edges.0, from, &mut same)?;
        Driver::list(edges.1, to, count)
    }

    [driver] cuGraphGetEdges_v2(
        graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, data: *mut u64, count: *mut usize
    ) |driver| {
        let edges = driver.edges(graph)?;
        let room = get(count.cast_const())?;
        let (mut same, mut zeros) = (room, room);
        if !data.is_null() {
            Driver::list(vec![0; edges.0.len()], data.cast(), &mut zeros)?;
        }
        Driver::list(edges.0, from, &mut same)?;
        Driver::list(edges.1, to, count)
    }

    [driver] cuGraphNodeGetType(node: CUgraphNode, kind: *mut c_uint) |driver| {
        put(kind, driver.node(node)?.does.kind())
    }

    [driver] cuGraphNodeGetDependencies(node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize) |driver| {
        Driver::list(driver.node(node)?.after.iter().copied().collect(), nodes, count)
    }

    [driver] cuGraphNodeGetDependencies_v2(
        node: CUgraphNode, nodes: *mut CUgraphNode, data: *mut u64, count: *mut usize
    ) |driver| {
        let after: Vec<usize> = driver.node(node)?.after.iter().copied().collect();
        let mut zeros = get(count.cast_const())?;
        if !data.is_null() {
            Driver::list(vec![0; after.len()], data.cast(), &mut zeros)?;
        }
        Driver::list(after, nodes, count)
    }

    [driver] cuGraphNodeGetDependentNodes(node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize) |driver| {
        Driver::list(driver.followers(node)?, nodes, count)
    }

    [driver] cuGraphNodeGetDependentNodes_v2(
        node: CUgraphNode, nodes: *mut CUgraphNode, data: *mut u64, count: *mut usize
    ) |driver| {
        let followers = driver.followers(node)?;
        let mut zeros = get(count.cast_const())?;
        if !data.is_null() {
            Driver::list(vec![0; followers.len()], data.cast(), &mut zeros)?;
        }
        Driver::list(followers, nodes, count)
    }

    // Parameters

    [context] cuGraphKernelNodeSetParams(node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS) |driver, context| {
        let work = driver.kernel_node(context, params, 0)?;
        driver.set_node(node, work)
    }

    [context] cuGraphKernelNodeSetParams_v2(node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v2)
    |driver, context| {
        let work = driver.kernel_node_v2(context, params)?;
        driver.set_node(node, work)
    }

    [driver] cuGraphMemcpyNodeSetParams(node: CUgraphNode, params: *const CUDA_MEMCPY3D) |driver| {
        let work = driver.copy_node(params)?;
        driver.set_node(node, work)
    }

    [driver] cuGraphMemsetNodeGetParams(node: CUgraphNode, params: *mut CUDA_MEMSET_NODE_PARAMS) |driver| {
        let Does::Work(Work::Fill(fill)) = driver.node(node)?.does else { return Err(error::INVALID_VALUE) };
        put(params, CUDA_MEMSET_NODE_PARAMS {
            dst: fill.address,
            pitch: fill.pitch,
            value: fill.value,
            elementSize: fill.element as c_uint,
            width: fill.count,
            height: fill.rows,
        })
    }

    [driver] cuGraphMemsetNodeSetParams(node: CUgraphNode, params: *const CUDA_MEMSET_NODE_PARAMS) |driver| {
        let work = driver.fill_node(params)?;
        driver.set_node(node, work)
    }

    [driver] cuGraphHostNodeGetParams(node: CUgraphNode, params: *mut CUDA_HOST_NODE_PARAMS) |driver| {
        let Does::Work(Work::Host(function, data)) = driver.node(node)?.does else { return Err(error::INVALID_VALUE) };
        put(params, CUDA_HOST_NODE_PARAMS { function: Some(function), userData: data as *mut c_void })
    }

    [driver] cuGraphHostNodeSetParams(node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS) |driver| {
        let work = driver.host_node(params)?;
        driver.set_node(node, work)
    }

    [driver] cuGraphEventRecordNodeGetEvent(node: CUgraphNode, event: *mut CUevent) |driver| {
        let Does::Work(Work::Record(found)) = driver.node(node)?.does else { return Err(error::INVALID_VALUE) };
        put(event, found)
    }

    [driver] cuGraphEventWaitNodeGetEvent(node: CUgraphNode, event: *mut CUevent) |driver| {
        let Does::Work(Work::Wait(found)) = driver.node(node)?.does else { return Err(error::INVALID_VALUE) };
        put(event, found)
    }

    // Running

    [context] cuGraphInstantiate_v2(
        exec: *mut CUgraphExec, graph: CUgraph, node: *mut CUgraphNode, log: *mut c_char, size: usize
    ) |driver, context| {
        put_if(node, 0);
        if !log.is_null() && size > 0 {
            log.write(0);
        }
        if exec.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put(exec, driver.instantiate(graph, 0)?)
    }

    [context] cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: c_ulonglong) |driver, context| {
        if exec.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put(exec, driver.instantiate(graph, flags)?)
    }

    [context] cuGraphInstantiateWithParams(
        exec: *mut CUgraphExec, graph: CUgraph, params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS
    ) as cuGraphInstantiateWithParams_ptsz |driver, context| {
        let mut read = get(params.cast_const())?;
        if exec.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let made = driver.instantiate(graph, read.flags);
        read.hErrNode_out = 0;
        read.result_out = c_uint::from(made.is_err());
        put(params, read)?;
        put(exec, made?)
    }

    [context] cuGraphUpload(exec: CUgraphExec, stream: CUstream) as cuGraphUpload_ptsz |driver, context| {
        driver.execs.find(exec).map_err(|_| error::INVALID_VALUE)?;
        let stream = driver.stream(stream, context)?;
        driver.no_capture_on(stream)?;
        driver.begin(stream).map(|_| ())
    }

    [unlocked] cuGraphLaunch(exec: CUgraphExec, stream: CUstream) as cuGraphLaunch_ptsz |name| {
        launch(name, exec, stream)
    }

    [driver] cuGraphExecDestroy(exec: CUgraphExec) |driver| {
        let gone = driver.execs.remove(exec).map_err(|_| error::INVALID_VALUE)?;
        for timeline in gone.timelines {
            driver.order.retire(timeline);
        }
        Ok(())
    }

    [driver] cuGraphExecGetFlags(exec: CUgraphExec, flags: *mut u64) |driver| {
        put(flags, driver.execs.find(exec).map_err(|_| error::INVALID_VALUE)?.flags)
    }

    [driver] cuGraphExecUpdate(exec: CUgraphExec, graph: CUgraph, node: *mut CUgraphNode, result: *mut c_uint) |driver| {
        let (code, at) = driver.update(exec, graph)?;
        put_if(node, at);
        put_if(result, code);
        if code == 0 { Ok(()) } else { Err(error::GRAPH_EXEC_UPDATE_FAILURE) }
    }

    [driver] cuGraphExecUpdate_v2(exec: CUgraphExec, graph: CUgraph, info: *mut CUgraphExecUpdateResultInfo) |driver| {
        let (code, at) = driver.update(exec, graph)?;
        put(info, CUgraphExecUpdateResultInfo { result: code, errorNode: at, errorFromNode: 0 })?;
        if code == 0 { Ok(()) } else { Err(error::GRAPH_EXEC_UPDATE_FAILURE) }
    }

    [context] cuGraphExecKernelNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS
    ) |driver, context| {
        let work = driver.kernel_node(context, params, 0)?;
        driver.set_step(exec, node, work)
    }

    [context] cuGraphExecKernelNodeSetParams_v2(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v2
    ) |driver, context| {
        let work = driver.kernel_node_v2(context, params)?;
        driver.set_step(exec, node, work)
    }

    [driver] cuGraphExecMemcpyNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_MEMCPY3D, context: CUcontext
    ) |driver| {
        driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        let work = driver.copy_node(params)?;
        driver.set_step(exec, node, work)
    }

    [driver] cuGraphExecMemsetNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_MEMSET_NODE_PARAMS, context: CUcontext
    ) |driver| {
        driver.contexts.get(context).ok_or(error::INVALID_CONTEXT)?;
        let work = driver.fill_node(params)?;
        driver.set_step(exec, node, work)
    }

    [driver] cuGraphExecHostNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS
    ) |driver| {
        let work = driver.host_node(params)?;
        driver.set_step(exec, node, work)
    }

    [driver] cuGraphNodeSetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: c_uint) |driver| {
        let step = driver.step_mut(exec, node)?;
        if enabled > 1 || !matches!(step.work, Work::Kernel(_) | Work::Copy(_) | Work::Fill(_)) {
            return Err(error::INVALID_VALUE);
        }
        step.enabled = enabled == 1;
        Ok(())
    }

    [driver] cuGraphNodeGetEnabled(exec: CUgraphExec, node: CUgraphNode, enabled: *mut c_uint) |driver| {
        let step = driver.step_mut(exec, node)?;
        put(enabled, c_uint::from(step.enabled))
    }

    [driver] cuGraphDebugDotPrint(graph: CUgraph, path: *const c_char, flags: c_uint) |driver| {
        let path = call::string(path)?;
        let nodes = &driver.graphs.find(graph).map_err(|_| error::INVALID_VALUE)?.nodes;
        const KINDS: [&str; 8] = ["KERNEL", "MEMCPY", "MEMSET", "HOST", "GRAPH", "EMPTY", "WAIT_EVENT", "EVENT_RECORD"];
        let mut text = String::from("digraph dot {\n");
        for (handle, node) in nodes {
            text.push_str(&format!("\"{handle:#x}\" [label=\"{}\"];\n", KINDS[node.does.kind() as usize]));
            for earlier in &node.after {
                text.push_str(&format!("\"{earlier:#x}\" -> \"{handle:#x}\";\n"));
            }
        }
        text.push_str("}\n");
        std::fs::write(path, text).map_err(|_| error::OPERATING_SYSTEM)
    }
}
