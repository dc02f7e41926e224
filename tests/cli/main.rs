//! The binary as its users meet it: exit codes, messages that name what, where and what to do, and nothing half-written.
//! Data are small synthetic IDX files; the weights are the bundled ones.
#![cfg(unix)]

mod attack;
mod attacks;
mod bench;
mod conditions;
mod convert;
mod cuda;
mod detect;
mod figure;
mod findings;
mod images;
mod input;
mod inspect;
mod interrupt;
mod maps;
mod outputs;
mod parts;
mod reproduce;
mod seeds;
mod study;
mod support;
mod usage;
mod validate;
