//! The task that keeps a listener listening: it checks its connection, replaces it after a flush or at the end of its
//! lifetime, and dials again when it is lost.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::call::Shared;
use crate::clock::now;
use crate::conn::{Channels, Dialer, Inbox, Listening, Orders};
use crate::error::Error;
use crate::event::EventKind;
use crate::policy::{Lifetimes, Pauses, Trouble};
use crate::slots::{Dial as _, Slots};
use crate::telemetry::Telemetry;

/// A connection that is lost sooner than this counts as a failed dial, so that a pause follows.
const SHORT_LIFE: Duration = Duration::from_secs(1);

pub(crate) struct Listener {
    slots: Arc<Slots<Dialer>>,
    telemetry: Arc<Telemetry>,
    channels: Channels,
    inbox: Arc<Inbox>,
    orders: watch::Receiver<Orders>,
    /// How many flushes there were when the present connection was dialed.
    flushes: u64,
    lifetimes: Lifetimes,
    pauses: Pauses,
    check_after: Option<Duration>,
}

/// What ends the use of a connection.
enum End {
    Lost(String),
    Flushed,
    /// Without this, a listener would stay with a server from which the name has moved away.
    Expired,
}

impl Listener {
    pub(crate) fn new(shared: &Shared, channels: Channels, inbox: Arc<Inbox>) -> Self {
        let slots = Arc::clone(&shared.slots);
        Self {
            orders: slots.dialer().listen_control().orders(),
            slots,
            telemetry: Arc::clone(&shared.maintenance.reports.telemetry),
            channels,
            inbox,
            flushes: 0,
            lifetimes: Lifetimes::new(shared.max_lifetime, fastrand::f64()),
            pauses: Pauses::default(),
            check_after: shared.health_check_after,
        }
    }

    /// Makes the first connection.
    pub(crate) async fn begin(&mut self) -> Result<Listening, Error> {
        if !self.slots.counts().is_open {
            return Err(Error::Closed);
        }
        self.flushes = self.orders.borrow_and_update().flushes;
        let mut orders = self.orders.clone();
        let first = match select(pin!(self.listen()), pin!(closed(&mut orders))).await {
            Either::Left((first, _)) => first?,
            Either::Right(_) => return Err(Error::Closed),
        };
        first.deliver(&self.inbox);
        Ok(first)
    }

    /// Runs until the pool is closed.
    pub(crate) async fn run(&mut self, first: Listening) {
        let mut orders = self.orders.clone();
        select(pin!(self.keep(first)), pin!(closed(&mut orders))).await;
    }

    /// Takes over from a listener on another host, and runs until the pool is closed. Notifications may be missing.
    #[cfg(feature = "cluster")]
    pub(crate) async fn take_over(&mut self, reason: String) {
        let mut orders = self.orders.clone();
        let taken_over = async {
            let first = self.resume(reason).await;
            self.keep(first).await;
        };
        select(pin!(taken_over), pin!(closed(&mut orders))).await;
    }

    async fn keep(&mut self, mut connection: Listening) {
        loop {
            let end = self.watch(&connection).await;
            if connection.age() < SHORT_LIFE && !matches!(end, End::Expired) {
                self.pauses.failed(now(), Trouble::Passing, fastrand::f64());
            } else {
                self.pauses.succeeded();
            }
            connection = match end {
                End::Lost(reason) => self.replace_lost(connection, reason).await,
                End::Flushed | End::Expired => self.replace(connection).await,
            };
        }
    }

    /// Waits until the connection is of no use any more.
    async fn watch(&mut self, connection: &Listening) -> End {
        let (lost, lifetime) = (self.look_after(connection), self.lifetimes.next());
        let expired = async {
            match lifetime {
                Some(lifetime) => time::sleep(lifetime.saturating_sub(connection.age())).await,
                None => pending().await,
            }
        };
        let flushed = flushed(&mut self.orders, self.flushes);
        match select(pin!(lost), select(pin!(flushed), pin!(expired))).await {
            Either::Left((reason, _)) => End::Lost(reason),
            Either::Right((Either::Left(_), _)) => End::Flushed,
            Either::Right((Either::Right(_), _)) => End::Expired,
        }
    }

    /// Checks the connection until it is lost. Returns the reason.
    fn look_after<'a>(&self, connection: &'a Listening) -> impl Future<Output = String> + Send + use<'a> {
        let (slots, inbox, check_after) = (Arc::clone(&self.slots), Arc::clone(&self.inbox), self.check_after);
        let checks = async move {
            loop {
                match check_after {
                    Some(pause) => time::sleep(pause).await,
                    None => pending().await,
                }
                let limit = slots.dialer().answer_limit();
                if let Err(reason) = connection.check(limit, &inbox).await {
                    return reason;
                }
            }
        };
        async move {
            match select(pin!(connection.ended()), pin!(checks)).await {
                Either::Left((Some(lost), _)) => lost.to_string(),
                Either::Left((None, _)) => "the connection was closed".to_owned(),
                Either::Right((reason, _)) => reason,
            }
        }
    }

    async fn replace_lost(&mut self, lost: Listening, reason: String) -> Listening {
        drop(lost);
        self.resume(reason).await
    }

    /// Listens again, after notifications may have been missed.
    async fn resume(&mut self, reason: String) -> Listening {
        let begun = Instant::now();
        self.telemetry.emit(EventKind::ListenInterrupted { reason });
        let new = self.connect().await;
        new.deliver(&self.inbox);
        self.inbox.put_gap();
        self.telemetry.emit(EventKind::ListenResumed { lasted: begun.elapsed() });
        new
    }

    /// Replaces a connection that still listens, and delivers its notifications meanwhile.
    async fn replace(&mut self, old: Listening) -> Listening {
        let connected = {
            let lost = self.look_after(&old);
            match select(pin!(self.connect()), pin!(lost)).await {
                Either::Left((new, _)) => Ok(new),
                Either::Right((reason, _)) => Err(reason),
            }
        };
        match connected {
            Ok(new) => {
                let within = self.slots.dialer().answer_limit();
                if !old.hand_over(&new, within, &self.inbox).await {
                    new.deliver(&self.inbox);
                    self.inbox.put_gap();
                }
                new
            }
            Err(reason) => self.replace_lost(old, reason).await,
        }
    }

    /// Dials until a connection listens.
    async fn connect(&mut self) -> Listening {
        loop {
            self.pause().await;
            self.flushes = self.orders.borrow_and_update().flushes;
            match self.listen().await {
                Ok(connection) => return connection,
                Err(error) => {
                    let trouble = self.slots.dialer().trouble_of(&error);
                    self.pauses.failed(now(), trouble, fastrand::f64());
                }
            }
        }
    }

    /// Waits for the end of the pause. A flush ends it: the cause may be gone.
    async fn pause(&mut self) {
        let Some(left) = self.pauses.left(now()) else { return };
        let flushed = flushed(&mut self.orders, self.flushes);
        if let Either::Right(_) = select(pin!(time::sleep(left)), pin!(flushed)).await {
            self.pauses.try_at_once();
        }
    }

    async fn listen(&self) -> Result<Listening, Error> {
        self.slots.dialer().listen(&self.channels, &self.inbox).await
    }
}

/// Waits for a flush after the first `flushes`.
async fn flushed(orders: &mut watch::Receiver<Orders>, flushes: u64) {
    let _ = orders.wait_for(|orders| orders.flushes != flushes).await;
}

/// Waits until the pool is closed.
async fn closed(orders: &mut watch::Receiver<Orders>) {
    let _ = orders.wait_for(|orders| orders.is_closed).await;
}
