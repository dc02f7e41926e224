//! The `intervene` binary.

fn main() {}
