//! What only a simulated device has: its version and its counters.

use std::ffi::{c_char, c_int};

use super::call::{api, get, put};
use super::error;

/// The simulator's version: 1000000 * major + 1000 * minor + patch.
pub const VERSION: c_int = 1000;

api! {
    [always] cuSimVersion(version: *mut c_int) |_now| { put(version, VERSION) }

    [driver] cuSimCounters(buffer: *mut c_char, length: *mut usize) |driver| {
        let room = get(length.cast_const())?;
        let text = serde_json::to_string(&driver.record).map_err(|_| error::UNKNOWN)?;
        put(length, text.len() + 1)?;
        if buffer.is_null() {
            return Ok(());
        }
        if room < text.len() + 1 {
            return Err(error::INVALID_VALUE);
        }
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
        Ok(())
    }

    [driver] cuSimReset() |driver| {
        driver.record = Default::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_crates() {
        let parts: Vec<i32> = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(super::VERSION, parts[0] * 1_000_000 + parts[1] * 1000 + parts[2]);
    }
}
