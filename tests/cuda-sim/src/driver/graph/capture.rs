//! Stream capture: what a stream is asked becomes nodes of a graph, in the order of streams and events.

use super::*;

pub(super) const MODE_GLOBAL: c_uint = 0;
pub(super) const MODE_THREAD_LOCAL: c_uint = 1;
pub(super) const MODE_RELAXED: c_uint = 2;

/// A capture, and the nodes that the next one of its stream will depend on.
#[derive(Debug, Clone)]
pub(crate) struct Capturing {
    pub(super) id: u64,
    pub(super) last: Vec<CUgraphNode>,
}

/// A capture that has begun.
pub(super) struct Capture {
    pub(super) graph: CUgraph,
    origin: CUstream,
    mode: c_uint,
    thread: u64,
    invalid: bool,
}

/// The captures of the process.
#[derive(Default)]
pub(crate) struct Captures {
    next: u64,
    pub(super) active: BTreeMap<u64, Capture>,
}

impl Driver {
    pub(super) fn active(&self, capturing: &Capturing) -> Option<&Capture> {
        self.captures.active.get(&capturing.id)
    }

    /// What the stream captures into; an error if that has been invalidated.
    pub fn capturing(&self, stream: CUstream) -> Answer<Option<Capturing>> {
        let Some(capturing) = &self.streams.find(stream)?.capturing else { return Ok(None) };
        match self.active(capturing) {
            Some(capture) if !capture.invalid => Ok(Some(capturing.clone())),
            _ => Err(error::STREAM_CAPTURE_INVALIDATED),
        }
    }

    pub fn is_capturing(&self, stream: CUstream) -> Answer<bool> {
        Ok(self.capturing(stream)?.is_some())
    }

    /// The capture is of no use any more. Returns the error that says why.
    pub fn spoil(&mut self, capturing: &Capturing, code: CUresult) -> CUresult {
        if let Some(capture) = self.captures.active.get_mut(&capturing.id) {
            capture.invalid = true;
        }
        code
    }

    /// The same by a stream.
    pub fn invalidate(&mut self, stream: CUstream, code: CUresult) -> CUresult {
        match self.streams.get(stream).and_then(|stream| stream.capturing.clone()) {
            Some(capturing) => self.spoil(&capturing, code),
            None => code,
        }
    }

    /// Adds a node after what the stream has captured so far.
    pub fn capture(&mut self, stream: CUstream, work: Work) -> Answer {
        let capturing = self.capturing(stream)?.ok_or(error::ILLEGAL_STATE)?;
        let graph = self.active(&capturing).ok_or(error::ILLEGAL_STATE)?.graph;
        let node = self.add_node(graph, capturing.last, Does::Work(work))?;
        self.set_last(stream, vec![node])
    }

    pub(super) fn set_last(&mut self, stream: CUstream, last: Vec<CUgraphNode>) -> Answer {
        let capturing = &mut self.streams.find_mut(stream)?.capturing;
        capturing.as_mut().ok_or(error::ILLEGAL_STATE)?.last = last;
        Ok(())
    }

    /// The stream waits for an event that was captured: it is part of the capture from here on.
    pub fn join_capture(&mut self, stream: CUstream, event: &Capturing) -> Answer {
        match self.active(event) {
            None => return Err(error::STREAM_CAPTURE_ISOLATION),
            Some(capture) if capture.invalid => return Err(error::STREAM_CAPTURE_INVALIDATED),
            Some(_) => {}
        }
        match self.capturing(stream)? {
            Some(own) if own.id != event.id => {
                self.spoil(&own, error::STREAM_CAPTURE_MERGE);
                Err(self.spoil(event, error::STREAM_CAPTURE_MERGE))
            }
            Some(own) => {
                let both: BTreeSet<_> = own.last.into_iter().chain(event.last.iter().copied()).collect();
                self.set_last(stream, both.into_iter().collect())
            }
            None if self.streams.find(stream)?.legacy => Err(self.spoil(event, error::STREAM_CAPTURE_IMPLICIT)),
            None => {
                self.streams.find_mut(stream)?.capturing = Some(event.clone());
                Ok(())
            }
        }
    }

    /// A call that needs a stream's work to be done: not while it captures.
    pub fn no_capture_on(&mut self, stream: CUstream) -> Answer {
        if self.is_capturing(stream)? {
            return Err(self.invalidate(stream, error::STREAM_CAPTURE_UNSUPPORTED));
        }
        self.no_implicit_capture(stream)
    }

    /// A call that needs the work of a whole context to be done.
    pub fn no_capture_in(&mut self, context: CUcontext) -> Answer {
        let capturing = self.streams.which(|stream| stream.context == context && stream.capturing.is_some());
        for &stream in &capturing {
            self.invalidate(stream, error::STREAM_CAPTURE_UNSUPPORTED);
        }
        if capturing.is_empty() { Ok(()) } else { Err(error::STREAM_CAPTURE_UNSUPPORTED) }
    }

    /// An operation on the legacy default stream would depend on what blocking streams capture.
    pub fn no_implicit_capture(&mut self, stream: CUstream) -> Answer {
        let found = self.streams.find(stream)?;
        if !found.legacy {
            return Ok(());
        }
        let context = found.context;
        let others = self
            .streams
            .which(|other| other.context == context && other.blocking && !other.legacy && other.capturing.is_some());
        for &other in &others {
            self.invalidate(other, error::STREAM_CAPTURE_IMPLICIT);
        }
        if others.is_empty() { Ok(()) } else { Err(error::STREAM_CAPTURE_IMPLICIT) }
    }

    /// A call that may do something on a device behind a capture's back, by the modes of capture and thread.
    pub fn no_unsafe_call_in_capture(&mut self, _context: CUcontext) -> Answer {
        let (mode, thread) = (call::capture_mode(), call::thread_id());
        let mut hit = false;
        for capture in self.captures.active.values_mut() {
            let forbids = match mode {
                MODE_GLOBAL if capture.thread != thread => capture.mode == MODE_GLOBAL,
                MODE_GLOBAL | MODE_THREAD_LOCAL => capture.thread == thread && capture.mode != MODE_RELAXED,
                _ => false,
            };
            capture.invalid |= forbids;
            hit |= forbids;
        }
        if hit { Err(error::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    pub(super) fn begin_capture(&mut self, stream: CUstream, mode: c_uint) -> Answer {
        let found = self.streams.find(stream)?;
        if mode > MODE_RELAXED {
            return Err(error::INVALID_VALUE);
        }
        if found.legacy {
            return Err(error::STREAM_CAPTURE_UNSUPPORTED);
        }
        if found.capturing.is_some() {
            return Err(error::ILLEGAL_STATE);
        }
        self.captures.next += 1;
        let id = self.captures.next;
        let graph = self.graphs.insert(Graph::default());
        let capture = Capture { graph, origin: stream, mode, thread: call::thread_id(), invalid: false };
        self.captures.active.insert(id, capture);
        self.streams.find_mut(stream)?.capturing = Some(Capturing { id, last: Vec::new() });
        Ok(())
    }

    pub(super) fn end_capture(&mut self, stream: CUstream) -> Answer<CUgraph> {
        let capturing = self.streams.find(stream)?.capturing.clone().ok_or(error::ILLEGAL_STATE)?;
        let Some(capture) = self.active(&capturing) else {
            self.streams.find_mut(stream)?.capturing = None;
            return Err(error::STREAM_CAPTURE_INVALIDATED);
        };
        if capture.origin != stream {
            return Err(self.spoil(&capturing, error::STREAM_CAPTURE_UNMATCHED));
        }
        if capture.mode != MODE_RELAXED && capture.thread != call::thread_id() {
            return Err(error::STREAM_CAPTURE_WRONG_THREAD);
        }
        let (graph, invalid) = (capture.graph, capture.invalid);
        let joined = self.ancestors(graph, &capturing.last)?.len() == self.graphs.find(graph)?.nodes.len();
        self.forget_capture(capturing.id);
        if joined && !invalid {
            return Ok(graph);
        }
        self.destroy_graph(graph)?;
        Err(if invalid { error::STREAM_CAPTURE_INVALIDATED } else { error::STREAM_CAPTURE_UNJOINED })
    }

    pub(super) fn forget_capture(&mut self, id: u64) {
        self.captures.active.remove(&id);
        for (_, stream) in self.streams.iter_mut() {
            if stream.capturing.as_ref().is_some_and(|capturing| capturing.id == id) {
                stream.capturing = None;
            }
        }
    }

    /// The stream goes: its capture cannot be ended any more.
    pub fn abandon_capture(&mut self, stream: CUstream) {
        let Some(capturing) = self.streams.get(stream).and_then(|stream| stream.capturing.clone()) else { return };
        match self.active(&capturing) {
            Some(capture) if capture.origin == stream => {
                let graph = capture.graph;
                self.forget_capture(capturing.id);
                // Its graph was never anybody's.
                let _ = self.destroy_graph(graph);
            }
            _ => {
                self.spoil(&capturing, error::STREAM_CAPTURE_INVALIDATED);
            }
        }
    }
}

/// Where `cuStreamGetCaptureInfo` writes.
pub(super) struct CaptureInfo {
    pub(super) status: *mut c_uint,
    pub(super) id: *mut u64,
    pub(super) graph: *mut CUgraph,
    pub(super) last: *mut *const CUgraphNode,
    pub(super) count: *mut usize,
}

impl Driver {
    pub(super) unsafe fn capture_info(&mut self, context: CUcontext, stream: CUstream, out: CaptureInfo) -> Answer {
        let stream = self.stream(stream, context)?;
        self.no_implicit_capture(stream)?;
        let none = Capturing { id: 0, last: Vec::new() };
        let (status, graph) = match &self.streams.find(stream)?.capturing {
            None => (0, 0),
            Some(capturing) => match self.active(capturing) {
                Some(capture) if !capture.invalid => (1, capture.graph),
                _ => (2, 0),
            },
        };
        let capturing = self.streams.find(stream)?.capturing.as_ref().unwrap_or(&none);
        unsafe {
            put(out.status, status)?;
            if status == 1 {
                put_if(out.id, capturing.id);
                put_if(out.graph, graph);
                // Valid until the stream's next call, as documented.
                put_if(out.last, capturing.last.as_ptr());
                put_if(out.count, capturing.last.len());
            }
        }
        Ok(())
    }

    pub(super) unsafe fn update_dependencies(
        &mut self,
        context: CUcontext,
        stream: CUstream,
        nodes: *const CUgraphNode,
        count: usize,
        flags: c_uint,
    ) -> Answer {
        let stream = self.stream(stream, context)?;
        let capturing = self.capturing(stream)?.ok_or(error::ILLEGAL_STATE)?;
        let graph = self.active(&capturing).ok_or(error::ILLEGAL_STATE)?.graph;
        let mut last: BTreeSet<CUgraphNode> = unsafe { get_many(nodes, count) }?.into_iter().collect();
        let known = &self.graphs.find(graph)?.nodes;
        if flags > 1 || last.iter().any(|node| !known.contains_key(node)) {
            return Err(error::INVALID_VALUE);
        }
        if flags == 0 {
            last.extend(capturing.last);
        }
        self.set_last(stream, last.into_iter().collect())
    }
}
