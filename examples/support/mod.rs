//! What examples and benchmarks share. Examples say `mod support;`, benchmarks and tests point `#[path]` here.

#[allow(dead_code, reason = "only some hurt their server")]
mod faults;
mod supervisor;
mod throwaway;

pub(crate) use throwaway::Throwaway;
