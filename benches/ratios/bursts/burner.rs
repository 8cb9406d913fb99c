//! A second process that keeps every processor busy, so that the pools are measured beside a neighbour that competes
//! for the processors.
//!
//! It is this program, started with a hidden argument. Its main thread reads from a pipe whose other end only the
//! parent holds. However the parent ends, the kernel closes that end. Then the read returns, and the process ends with
//! all its threads.

use std::hint::spin_loop;
use std::io::{self, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::{env, thread};

const ARGUMENT: &str = "--burn-until-standard-input-ends";

/// Returns whether this process was started to burn.
pub(crate) fn is_asked_for() -> bool {
    env::args().any(|argument| argument == ARGUMENT)
}

/// Keeps every processor busy until standard input ends.
pub(crate) fn burn() -> ExitCode {
    for _ in 0..processors() {
        thread::spawn(|| {
            loop {
                spin_loop();
            }
        });
    }
    // The end of the input and an error mean the same: the parent has ended.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The second process. It ends when this value is dropped, or with the parent.
#[derive(Debug)]
pub(super) struct Burner(Child);

impl Burner {
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::null());
        let burner = Self(command.spawn()?);
        println!("# another process keeps {} processors busy", processors());
        Ok(burner)
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            eprintln!("the process that keeps the processors busy does not end: {error}");
        }
    }
}
