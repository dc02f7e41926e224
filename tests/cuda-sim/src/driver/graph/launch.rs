//! A launch of a graph: its steps in order, or, on a stream that captures, as nodes of what is captured.

use super::*;

/// What a launch of a graph needs to run without the lock in between.
struct Plan {
    steps: Vec<Step>,
    timelines: Vec<Timeline>,
    context: CUcontext,
    stream: CUstream,
    name: String,
    start: Clock,
}

/// Launches a graph: its host functions run without the lock.
pub(super) fn launch(name: &'static str, exec: CUgraphExec, stream: CUstream) -> Answer {
    let plan = call::with_context(name, |driver, context| {
        driver.execs.find(exec).map_err(|_| error::INVALID_VALUE)?;
        let stream = driver.stream(stream, context)?;
        if driver.is_capturing(stream)? {
            capture_steps(driver, exec, stream)?;
            return Ok(None);
        }
        driver.no_implicit_capture(stream)?;
        let context = driver.streams.find(stream)?.context;
        driver.count_operation("graph", context)?;
        let mut start = driver.marker(stream)?;
        let name = driver.stream_name(stream);
        let chains = driver.execs.find(exec)?.steps.iter().map(|step| step.chain + 1).max().unwrap_or(0);
        let existing = driver.execs.find(exec)?.timelines.len();
        for chain in existing..chains {
            let timeline = driver.order.create(format!("branch {chain} of graph {exec:#x}"));
            driver.execs.find_mut(exec)?.timelines.push(timeline);
        }
        let found = driver.execs.find(exec)?;
        start.join(&found.done);
        let (steps, timelines) = (found.steps.clone(), found.timelines.clone());
        Ok(Some(Plan { steps, timelines, context, stream, name, start }))
    })?;
    let Some(plan) = plan else { return Ok(()) };
    let mut ends: Vec<Clock> = Vec::new();
    let mut failed = Ok(());
    for step in &plan.steps {
        let host_call = call::locked(name, |driver| {
            let timeline = plan.timelines[step.chain];
            driver.order.join(timeline, &plan.start);
            for &earlier in &step.after {
                driver.order.join(timeline, &ends[earlier]);
            }
            driver.order.advance(timeline);
            let host_call = if step.enabled && failed.is_ok() { run(driver, &plan, step, timeline) } else { Ok(None) };
            ends.push(driver.order.clock(timeline));
            Ok(host_call)
        })?;
        match host_call {
            Ok(Some(host_call)) => host_call.run(),
            Ok(None) => {}
            Err(code) => failed = failed.and(Err(code)),
        }
    }
    call::locked(name, |driver| {
        let mut done = plan.start.clone();
        for end in &ends {
            done.join(end);
        }
        if let Ok(stream) = driver.streams.find(plan.stream) {
            let timeline = stream.timeline;
            driver.order.join(timeline, &done);
        }
        if let Ok(exec) = driver.execs.find_mut(exec) {
            exec.done = done;
        }
        Ok(())
    })?;
    failed
}

fn run(driver: &mut Driver, plan: &Plan, step: &Step, timeline: Timeline) -> Answer<Option<HostCall>> {
    // After a fault nothing more runs, and the fault is what later calls return.
    if driver.healthy(plan.context).is_err() {
        return Ok(None);
    }
    *driver.record.operations.entry(step.work.name()).or_default() += 1;
    match step.work {
        Work::Host(function, data) => {
            let clock = driver.order.clock(timeline);
            driver.order.host_waits(&clock);
            return Ok(Some(HostCall::Function(function, data)));
        }
        Work::Record(event) => {
            let clock = driver.order.clock(timeline);
            driver.events.find_mut(event)?.recorded = Some(Recorded::Work(clock, Instant::now()));
        }
        Work::Wait(event) => {
            if let Some(Recorded::Work(clock, _)) = &driver.events.find(event)?.recorded {
                let clock = clock.clone();
                driver.order.join(timeline, &clock);
            }
        }
        _ => driver.perform(&step.work, plan.context, timeline, &plan.name, Form::Asynchronous)?,
    }
    Ok(None)
}

/// A launch on a stream that captures: the nodes become part of what is captured.
fn capture_steps(driver: &mut Driver, exec: CUgraphExec, stream: CUstream) -> Answer {
    let steps = driver.execs.find(exec)?.steps.clone();
    let capturing = driver.capturing(stream)?.ok_or(error::ILLEGAL_STATE)?;
    let graph = driver.active(&capturing).ok_or(error::ILLEGAL_STATE)?.graph;
    let mut nodes: Vec<CUgraphNode> = Vec::new();
    let mut ends: BTreeSet<CUgraphNode> = BTreeSet::new();
    for step in steps {
        let after: Vec<CUgraphNode> =
            if step.after.is_empty() { capturing.last.clone() } else { step.after.iter().map(|&i| nodes[i]).collect() };
        let work = if step.enabled { step.work } else { Work::Empty };
        for earlier in &after {
            ends.remove(earlier);
        }
        let node = driver.add_node(graph, after, Does::Work(work))?;
        ends.insert(node);
        nodes.push(node);
    }
    if nodes.is_empty() { Ok(()) } else { driver.set_last(stream, ends.into_iter().collect()) }
}
