//! How long the random tests run.

/// Cases of a random test: `PROPTEST_CASES`, or as many as fit into an ordinary run.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}
