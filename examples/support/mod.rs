//! Code that examples, benchmarks and tests share. Examples use `mod support;`, the others a `#[path]` to this file.

#[allow(dead_code, reason = "only some hurt their server")]
mod faults;
#[allow(dead_code, reason = "only benchmarks of clusters need one")]
mod standby;
#[allow(dead_code, reason = "only the lab has other programs than servers")]
pub(crate) mod supervisor;
mod throwaway;

pub(crate) use throwaway::Throwaway;
