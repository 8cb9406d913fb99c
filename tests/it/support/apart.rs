//! A program of this machine in a container of its own, whose network can be cut: the program runs on, and no packet of
//! it arrives any more.

use std::path::Path;
use std::process::{Command, Stdio};

use testcontainers::Image;

use super::docker::{image, label_arguments};

/// The container. Dropping it removes the container.
pub(crate) struct Apart {
    name: String,
}

impl Apart {
    /// Returns the command that runs the program in a container with this environment.
    pub(crate) async fn command(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (Command, Self) {
        let name = format!("failfast-apart-{:016x}", fastrand::u64(..));
        let image = image().await;
        let mut command = Command::new("docker");
        command.args(["run", "--interactive", "--rm", "--name", &name, "--entrypoint", "/program"]);
        command.args(label_arguments()).arg("--volume").arg(format!("{}:/program:ro", program.display()));
        for (key, value) in environment {
            command.arg("--env").arg(format!("{key}={value}"));
        }
        command.arg(format!("{}:{}", image.name(), image.tag())).args(arguments);
        (command, Self { name })
    }

    /// Takes the container out of the network. No connection is closed.
    pub(crate) fn cut(&self) {
        let cut = docker(&["network", "disconnect", "--force", "bridge", &self.name]);
        assert!(cut, "{} was not cut off", self.name);
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

fn docker(arguments: &[&str]) -> bool {
    let ended = Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}
