//! Faults of a throwaway server: stop and start it, pause and resume it. A server at `DATABASE_URL` is left alone.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::throwaway::{NotStarted, Throwaway, await_ready};

/// The limit of one order. A server writes everything to its disk before it ends.
const LIMIT: Duration = Duration::from_secs(20);
const LOOK_AFTER: Duration = Duration::from_millis(5);

impl Throwaway {
    /// Whether this process started the server. Only then can the methods below be used.
    pub(crate) fn is_ours(&self) -> bool {
        self.supervisor.is_some()
    }

    /// Stops the server with a fast shutdown, which ends all sessions first.
    pub(crate) async fn stop(&mut self) -> Result<(), NotStarted> {
        self.order("stop").await
    }

    /// Starts the server after [`stop`](Self::stop), and waits until it answers.
    pub(crate) async fn start_again(&mut self) -> Result<(), NotStarted> {
        self.order("start").await?;
        self.answers().await
    }

    /// Freezes the server and all its sessions. They keep their sockets open and send nothing.
    pub(crate) async fn pause(&mut self) -> Result<(), NotStarted> {
        self.order("pause").await
    }

    /// Ends [`pause`](Self::pause), and waits until the server answers.
    pub(crate) async fn resume(&mut self) -> Result<(), NotStarted> {
        self.order("resume").await?;
        self.answers().await
    }

    async fn order(&mut self, order: &str) -> Result<(), NotStarted> {
        let Some(supervisor) = &mut self.supervisor else {
            return Err(NotStarted(format!("cannot {order} a server that was not started here (DATABASE_URL)")));
        };
        supervisor.order(order)?;
        let obeyed = timeout(LIMIT, async {
            while !supervisor.is_obeyed() && !supervisor.has_ended()? {
                sleep(LOOK_AFTER).await;
            }
            Ok::<_, NotStarted>(supervisor.is_obeyed())
        });
        if let Ok(is_obeyed) = obeyed.await {
            if is_obeyed? {
                return Ok(());
            }
        }
        Err(NotStarted(format!("cannot {order} PostgreSQL; its log ends:\n{}", supervisor.log_tail()?)))
    }

    async fn answers(&mut self) -> Result<(), NotStarted> {
        let config = self.config();
        match &mut self.supervisor {
            Some(supervisor) => await_ready(&config, supervisor).await,
            None => Ok(()),
        }
    }
}
