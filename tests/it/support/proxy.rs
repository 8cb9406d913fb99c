//! A TCP proxy between client and server that fails on command: it delays, swallows, refuses or cuts at an exact byte
//! or message.
//!
//! Faults apply to open and new connections, unless they say otherwise, and can change at any time.
//!
//! A connection counts from the moment at which the proxy accepted it ([`Proxy::accepted`]). This may be after the
//! client's connect returned, so a test without a PostgreSQL handshake must wait for it. Dropping the proxy resets all
//! connections.

mod cut;
mod framing;
mod link;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub(crate) use self::cut::Cut;
use self::{cut::Armed, link::Link};

/// The direction of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// How a connection is closed: properly, or as after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    Fin,
    Reset,
}

/// The proxy (see the module).
pub(crate) struct Proxy {
    addr: SocketAddr,
    control: Arc<Control>,
    cut: watch::Sender<Close>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// State that the proxy and its connections share.
struct Control {
    upstream: Mutex<SocketAddr>,
    flows: watch::Sender<[Flow; 2]>,
    armed: Mutex<Option<Arc<Armed>>>,
    accepted: AtomicU64,
    open: AtomicU64,
    fired: AtomicU64,
    bytes: [AtomicU64; 2],
}

/// The state of one direction.
#[derive(Clone, Default)]
struct Flow {
    delay: Duration,
    /// The numbers of the stalled connections.
    stalled: Range<u64>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface, and forwards all connections to `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Proxy {
        let control = Control {
            upstream: Mutex::new(upstream),
            flows: watch::Sender::default(),
            armed: Mutex::default(),
            accepted: AtomicU64::default(),
            open: AtomicU64::default(),
            fired: AtomicU64::default(),
            bytes: Default::default(),
        };
        let proxy = Proxy {
            addr: (Ipv4Addr::LOCALHOST, super::free_port()).into(),
            control: Arc::new(control),
            cut: watch::Sender::new(Close::Reset),
            accepting: Mutex::default(),
        };
        proxy.accept().await;
        proxy
    }

    /// Returns the address for clients.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends delays and stalls, and disarms a cut.
    pub(crate) fn pass(&self) {
        self.control.flows.send_replace(Default::default());
        self.disarm();
    }

    /// Delivers all bytes later by `delay`. The bandwidth stays the same.
    pub(crate) fn delay(&self, way: Way, delay: Duration) {
        self.control.flows.send_modify(|flows| flows[way as usize].delay = delay);
    }

    /// Causes a black hole: the proxy accepts connections, but no byte moves, and neither side learns that the other
    /// closed.
    pub(crate) fn stall(&self) {
        self.stall_way(Way::ToServer);
        self.stall_way(Way::ToClient);
    }

    /// Causes a black hole in one direction.
    pub(crate) fn stall_way(&self, way: Way) {
        self.stall_numbers(&[way], 0..u64::MAX);
    }

    /// Causes a black hole for the connections accepted so far, as if the peer had vanished.
    pub(crate) fn stall_existing(&self) {
        self.stall_numbers(&[Way::ToServer, Way::ToClient], 0..self.accepted());
    }

    /// Causes a black hole for the connections accepted from now on.
    pub(crate) fn stall_new(&self) {
        self.stall_numbers(&[Way::ToServer, Way::ToClient], self.accepted()..u64::MAX);
    }

    /// Ends every stall, and delivers the held bytes.
    pub(crate) fn resume(&self) {
        self.stall_numbers(&[Way::ToServer, Way::ToClient], 0..0);
    }

    /// Closes every open connection on both sides.
    pub(crate) fn cut(&self, close: Close) {
        self.cut.send_replace(close);
    }

    /// Cuts a connection at the moment that `cut` describes. Replaces an earlier cut.
    pub(crate) fn arm(&self, cut: Cut) {
        *lock(&self.control.armed) = Some(Arc::new(Armed::from(cut)));
    }

    /// Forgets the armed cut.
    pub(crate) fn disarm(&self) {
        *lock(&self.control.armed) = None;
    }

    /// Closes the listener. New connections are refused, and open ones stay.
    pub(crate) async fn refuse(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(task) = accepting {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens on the same port again.
    pub(crate) async fn accept(&self) {
        self.refuse().await;
        let listener = TcpListener::bind(self.addr).await.expect("the proxy's port is its own");
        let task = tokio::spawn(accept_all(listener, self.control.clone(), self.cut.subscribe()));
        *lock(&self.accepting) = Some(task);
    }

    /// Sends new connections to another server.
    pub(crate) fn switch(&self, upstream: SocketAddr) {
        *lock(&self.control.upstream) = upstream;
    }

    /// Returns how many connections the proxy has accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.control.accepted.load(SeqCst)
    }

    /// Returns how many connections are open.
    pub(crate) fn open(&self) -> u64 {
        self.control.open.load(SeqCst)
    }

    /// Returns how many connections the armed cuts have cut.
    pub(crate) fn fired(&self) -> u64 {
        self.control.fired.load(SeqCst)
    }

    /// Returns how many bytes were delivered, or are being delivered.
    pub(crate) fn bytes(&self, way: Way) -> u64 {
        self.control.bytes[way as usize].load(SeqCst)
    }

    fn stall_numbers(&self, ways: &[Way], numbers: Range<u64>) {
        self.control
            .flows
            .send_modify(|flows| ways.iter().for_each(|way| flows[*way as usize].stalled = numbers.clone()));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.accepting).take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("addr", &self.addr).field("open", &self.open()).finish_non_exhaustive()
    }
}

async fn accept_all(listener: TcpListener, control: Arc<Control>, cut: watch::Receiver<Close>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let mut cut = cut.clone();
        cut.mark_unchanged();
        control.open.fetch_add(1, SeqCst);
        let number = control.accepted.fetch_add(1, SeqCst);
        tokio::spawn(Link::new(number, control.clone()).serve(client, cut));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
