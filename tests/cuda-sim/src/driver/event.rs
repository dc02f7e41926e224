//! Events. The time between two is the host's: it says how long the simulation took and nothing about a device.

use std::ffi::c_uint;
use std::time::Instant;

use super::call::{api, put};
use super::error::{self, Answer};
use super::graph::Capturing;
use super::order::Clock;
use super::state::Driver;
use super::types::*;

const DISABLE_TIMING: c_uint = 2;
const INTERPROCESS: c_uint = 4;

/// An event.
pub(crate) struct Event {
    pub context: CUcontext,
    timing: bool,
    /// What it stands for since it was recorded last.
    pub recorded: Option<Recorded>,
}

/// What an event stands for.
pub(crate) enum Recorded {
    Work(Clock, Instant),
    /// Recorded on a stream that captures.
    Captured(Capturing),
}

impl Driver {
    pub fn record_event(&mut self, event: CUevent, stream: CUstream) -> Answer {
        let owner = self.streams.find(stream)?.context;
        if self.events.find(event)?.context != owner {
            return Err(error::INVALID_HANDLE);
        }
        let recorded = match self.capturing(stream)? {
            Some(capturing) => Recorded::Captured(capturing),
            None => {
                self.no_implicit_capture(stream)?;
                Recorded::Work(self.marker(stream)?, Instant::now())
            }
        };
        self.events.find_mut(event)?.recorded = Some(recorded);
        Ok(())
    }

    pub fn wait_event(&mut self, stream: CUstream, event: CUevent) -> Answer {
        let clock = match &self.events.find(event)?.recorded {
            None => Clock::default(),
            Some(Recorded::Work(clock, _)) => clock.clone(),
            Some(Recorded::Captured(capturing)) => {
                let capturing = capturing.clone();
                return self.join_capture(stream, &capturing);
            }
        };
        if self.is_capturing(stream)? {
            // A graph cannot depend on work outside of it.
            return Err(self.invalidate(stream, error::STREAM_CAPTURE_ISOLATION));
        }
        self.no_implicit_capture(stream)?;
        let timeline = self.begin(stream)?;
        self.order.join(timeline, &clock);
        Ok(())
    }

    /// The host waits for the event, or learns that it is done.
    fn wait_for_event(&mut self, event: CUevent) -> Answer {
        let clock = match &self.events.find(event)?.recorded {
            None => return Ok(()),
            Some(Recorded::Work(clock, _)) => clock.clone(),
            Some(Recorded::Captured(capturing)) => {
                let capturing = capturing.clone();
                return Err(self.spoil(&capturing, error::CAPTURED_EVENT));
            }
        };
        self.order.host_waits(&clock);
        Ok(())
    }

    fn elapsed(&self, start: CUevent, end: CUevent) -> Answer<f32> {
        let time = |event| {
            let event = self.events.find(event)?;
            match &event.recorded {
                Some(Recorded::Work(_, time)) if event.timing => Ok(*time),
                Some(Recorded::Captured(_)) => Err(error::CAPTURED_EVENT),
                _ => Err(error::INVALID_HANDLE),
            }
        };
        let (start, end) = (time(start)?, time(end)?);
        Ok(match end.checked_duration_since(start) {
            Some(forward) => forward.as_secs_f32() * 1e3,
            None => -(start.duration_since(end).as_secs_f32() * 1e3),
        })
    }
}

fn record(driver: &mut Driver, context: CUcontext, event: CUevent, stream: CUstream, flags: c_uint) -> Answer {
    if flags > 1 {
        return Err(error::INVALID_VALUE);
    }
    let stream = driver.stream(stream, context)?;
    driver.record_event(event, stream)
}

api! {
    [context] cuEventCreate(event: *mut CUevent, flags: c_uint) |driver, context| {
        if event.is_null() || flags > 7 {
            return Err(error::INVALID_VALUE);
        }
        if flags & INTERPROCESS != 0 {
            return Err(error::NOT_SUPPORTED);
        }
        put(event, driver.events.insert(Event { context, timing: flags & DISABLE_TIMING == 0, recorded: None }))
    }

    [driver] cuEventDestroy_v2(event: CUevent) |driver| { driver.events.remove(event).map(|_| ()) }

    [context] cuEventRecord(event: CUevent, stream: CUstream) as cuEventRecord_ptsz |driver, context| {
        record(driver, context, event, stream, 0)
    }

    [context] cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) as cuEventRecordWithFlags_ptsz
    |driver, context| {
        record(driver, context, event, stream, flags)
    }

    [context] cuEventQuery(event: CUevent) |driver, context| { driver.wait_for_event(event) }

    [context] cuEventSynchronize(event: CUevent) |driver, context| { driver.wait_for_event(event) }

    [context] cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) |driver, context| {
        put(milliseconds, driver.elapsed(start, end)?)
    }

    [context] cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent) |driver, context| {
        put(milliseconds, driver.elapsed(start, end)?)
    }
}
