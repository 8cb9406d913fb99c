//! What examples and benchmarks share. Examples say `mod support;`, benchmarks and tests point `#[path]` here.

mod keeper;
mod throwaway;

pub(crate) use throwaway::Throwaway;
