//! Decisions, and nothing else: no clock, no lock, no runtime, no randomness, no I/O. Time is an argument.

mod deadline;

pub(crate) use deadline::Deadline;
