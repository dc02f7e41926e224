//! Peers that are programs in Rust: their sources come with this one, and the user's cargo builds them where it is kept.

use super::Peer;
use crate::atomic::write_atomic;
use crate::cli::bench::side::told;
use crate::cli::common::Context;
use crate::error::Error;
use crate::home;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A package, by the names that cargo wants.
const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("../../../../benches/peers/rust/manifest.toml")),
    ("Cargo.lock", include_str!("../../../../benches/peers/rust/manifest.lock")),
    ("src/lib.rs", include_str!("../../../../benches/peers/rust/src/lib.rs")),
    ("src/network.rs", include_str!("../../../../benches/peers/rust/src/network.rs")),
    ("src/weights.rs", include_str!("../../../../benches/peers/rust/src/weights.rs")),
    ("src/bin/candle.rs", include_str!("../../../../benches/peers/rust/src/bin/candle.rs")),
    ("src/bin/tract.rs", include_str!("../../../../benches/peers/rust/src/bin/tract.rs")),
];

/// Builds `peer` for this machine, or finds it built: the program's path.
///
/// # Errors
/// [`Error::Failed`] without cargo or a place, or with the end of what cargo said; [`Error::Stopped`].
pub fn build(peer: Peer, context: &Context) -> Result<PathBuf, Error> {
    let name = peer.name();
    let place = home::cache().ok_or_else(|| {
        let what =
            format!("neither XDG_CACHE_HOME nor HOME says where the peer {name} is to be built: set one of them");
        Error::Failed(what)
    })?;
    let place = place.join("peers");
    for (file, text) in FILES {
        written(&place.join(file), text)?;
    }
    let target = place.join("target");
    context.ui.log(format!("cargo builds the peer {name} in {}, the first time in minutes ...", place.display()));
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--features", name, "--bin", name, "--target-dir"])
        .arg(&target)
        .current_dir(&place)
        // an engine at its best, and found where it is looked for
        .env("RUSTFLAGS", "-C target-cpu=native")
        .env_remove("CARGO_BUILD_TARGET")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            let what =
                format!("cargo cannot be started: {e}; it builds the peer {name}: install Rust (https://rustup.rs)");
            Error::Failed(what)
        })?;
    if context.stopped() {
        return Err(Error::Stopped(format!("the peer {name} is not built whole; cargo goes on where it was")));
    }
    if !built.status.success() {
        let what = format!("cargo cannot build the peer {name} in {}: {}", place.display(), told(&built.stderr));
        return Err(Error::Failed(what));
    }
    Ok(target.join("release").join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// Writes a file unless it has that text: cargo builds again what was written after it.
fn written(path: &Path, text: &str) -> Result<(), Error> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::Failed(format!("{}: cannot be made: {e}", directory.display())))?;
    }
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()))?)
}
