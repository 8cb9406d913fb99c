//! The examples of deadpool-postgres, each as `ours/` has it: the argument says which. They are written and formatted as theirs are.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "that is how the originals are written")]

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
