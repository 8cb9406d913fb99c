//! Runs the example of `ours/` that the argument names. The code has the style and the format of the originals.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "the originals are written like this")]

mod driver {
    include!("ours/driver.rs");

    pub(super) fn run() {
        main();
    }
}

mod readme {
    include!("ours/readme.rs");

    pub(super) fn run() {
        main();
    }
}

mod settings {
    include!("ours/settings.rs");

    pub(super) fn run() {
        main();
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("driver") => driver::run(),
        Some("readme") => readme::run(),
        Some("settings") => settings::run(),
        other => panic!("no such example: {other:?}"),
    }
}
