//! `intervene` answers, for a trained vision network: *which concept inside it causes which answer, by how much, how
//! surely, and does that survive masking and attack?*
//!
//! It inserts an autoencoder at a tap of the network, sets its code channels (nodes) by do-calculus, compares the answers,
//! and reports expected causal effects with intervals, after Yang et al., "When Causal Intervention Meets Adversarial
//! Examples and Image Masking for Deep Neural Networks", ICIP 2019 (called "the paper" below).
//!
//! # Architecture
//! ```text
//! data ──> model (graph + weights) ──> plan (artifact) ──> backend (program) ──> attack · causal · explain · detect ──> report
//! ```
//! Data flows one way, and imports do too (`tests/tidy.rs` reads them):
//! - [`tensor`], [`random`], [`text`], [`digest`], [`atomic`], [`home`], [`zip`], [`interval`], [`picture`],
//!   [`answer`] (logits to probabilities and their changes): know nothing of anything.
//! - [`graph`]: a closed set of operations, a builder that checks shapes, reverse mode as graph to graph, fusion, and
//!   [`graph::plan`], which turns a graph and its entries into an artifact: steps, slots, hand-overs.
//! - [`data`], [`weights`]: files in and out; bounded, checked, atomic.
//! - [`model`]: networks as lists of layers, taps, the autoencoder that is spliced in at one. Batch norms in inference are
//!   folded as a device loads them ([`weights::derived`]); a dense block's maps lie in one slot, in windows.
//! - [`backend`]: devices. A backend is given a whole planned graph and returns a program; layout, packing, memory and
//!   threads are its own business. `cpu` is hand-written SIMD, whose threads take images of their own through stretches of
//!   steps; `cuda` hand-written kernels (`kernels/`) compiled by NVRTC as the program runs; `reference` naive f64 loops that
//!   judge both. What a device may refuse is in one `ledger` for all.
//! - [`train`]: Adam on a planned graph, of a whole network or the head behind a frozen trunk; schedules, checkpoints; and
//!   [`train::evaluation`], what a network is worth on images that it has not seen.
//! - [`attack`]: what an adversary does to the pixels of a network.
//! - [`causal`]: interventions, the sweep, effects, statistics, verdicts. Knows programs, never a device.
//! - [`explain`]: maps of where an answer comes from, and what they are worth. [`validate`]: another framework's numbers replayed.
//! - [`detect`]: whether effects tell attacked images from clean ones, what has to be beaten, what must not be flagged,
//!   and what is left where the adversary knows it.
//! - [`conditions`]: the paper's conditions II (a known symptom masked) and III (two tasks, one cause), beside which I is what
//!   every table is about. Above [`detect`], whose regression a second head is.
//! - [`report`]: run directories, tables. [`cli`]: one file a verb. [`error`]: their union, with exit codes.
//!
//! # Invariants, each a test that carries its name
//! 1. An idle intervention has effect exactly 0.0; zeroing an already zero channel too.
//! 2. The tail from the cached prefix equals the whole run bit for bit, per device.
//! 3. An image's result does not depend on batch size, batch neighbours, thread count, order or shard: bit for bit, per
//!    device. So an algorithm, tile or split is chosen by layer shape and device, never by rows or threads. A batch norm
//!    under training is excepted, for its statistics are the batch's; masks and views of a training image are not.
//! 4. No step reads the slot it writes; in debug builds, tests among them, slots start as NaN and carry canaries.
//! 5. `cpu` and `cuda` agree with the reference within the op's named tolerance, NaN-proof.
//! 6. fp32 is the default. `cpu` convolves by Winograd's tiles where they serve, forward and towards the input, or exactly by
//!    choice; `cuda` convolves exactly, and by choice by tiles, forward alone, or in a reduced precision, one of the two.
//!    Every manifest records both. A gradient that is truly zero is 0 by any path: its sign is the attack. Fast math does
//!    not exist.
//! 7. Frozen weights are bit-unchanged after training something else.
//! 8. The same seed gives the same bytes.

#![warn(missing_docs)]
// nothing panics on any input: what cannot be is an error that says so; tests may
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod answer;
pub mod atomic;
pub mod attack;
pub mod backend;
pub mod causal;
pub mod cli;
pub mod conditions;
pub mod data;
pub mod detect;
pub mod digest;
pub mod error;
pub mod explain;
pub mod graph;
pub mod home;
pub mod interval;
pub mod model;
pub mod picture;
pub mod random;
pub mod report;
pub mod tensor;
pub mod text;
pub mod train;
pub mod validate;
pub mod weights;
pub mod zip;
