//! Where a user's files lie, as the XDG base directory specification has it. Knows nothing of what they are.

use std::path::PathBuf;

/// For what was fetched: `$XDG_DATA_HOME/intervene`, or `~/.local/share/intervene`; `None` without either.
pub fn data() -> Option<PathBuf> {
    directory("XDG_DATA_HOME", ".local/share")
}

/// For what can be made again: `$XDG_CACHE_HOME/intervene`, or `~/.cache/intervene`; `None` without either.
pub fn cache() -> Option<PathBuf> {
    directory("XDG_CACHE_HOME", ".cache")
}

/// A relative path in a variable is ignored, as the specification asks.
fn directory(variable: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(in_home)))?;
    Some(base.join("intervene"))
}
