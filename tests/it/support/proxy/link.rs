//! One connection through the proxy. It reads both directions, delays or holds the bytes, and delivers them, until a
//! side closes or a cut is due.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
    try_join,
};

use super::{Close, Control, Way, cut::Armed, framing::Framer, lock};

/// The limit of the wait for an answer that is to be lost, or for the other side's last bytes.
const LIMIT: Duration = Duration::from_secs(5);

/// The size of one read, and the number of chunks that may be under way.
const CHUNK: usize = 16 * 1024;
const UNDER_WAY: usize = 64;

/// Bytes, and when to deliver them.
type Chunk = (Instant, Vec<u8>);

/// One connection.
pub(super) struct Link {
    number: u64,
    control: Arc<Control>,
    /// How to close once the server has answered. If set, its answers are lost.
    losing: watch::Sender<Option<Close>>,
}

/// The end of one direction, and what it has delivered.
struct Outlet<'a> {
    way: Way,
    to: WriteHalf<'a>,
    delivered: u64,
    /// The armed cut last seen, and what had been delivered at that time.
    since: Option<(Arc<Armed>, u64)>,
}

impl Link {
    pub(super) fn new(number: u64, control: Arc<Control>) -> Link {
        Link { number, control, losing: watch::Sender::default() }
    }

    /// Carries the connection until its end.
    pub(super) async fn serve(self, mut client: TcpStream, mut cut: watch::Receiver<Close>) {
        let dialed = tokio::select! {
            dialed = self.dial() => dialed,
            close = ordered(&mut cut) => Err(close),
        };
        let mut server = match dialed {
            Ok(server) => server,
            Err(close) => {
                self.control.open.fetch_sub(1, SeqCst);
                return finish(client, close).await;
            }
        };
        let end = tokio::select! {
            end = self.carry(&mut client, &mut server) => end,
            close = ordered(&mut cut) => Err(close),
            close = self.answer_overdue() => Err(close),
        };
        self.control.open.fetch_sub(1, SeqCst);
        if let Err(close) = end {
            let to_server = self.losing.borrow().map_or(close, |_| Close::Fin);
            tokio::join!(finish(client, close), finish(server, to_server));
        }
    }

    async fn dial(&self) -> Result<TcpStream, Close> {
        self.flowing(Way::ToServer).await;
        let upstream = *lock(&self.control.upstream);
        let dialed = timeout(LIMIT, TcpStream::connect(upstream)).await;
        dialed.ok().and_then(Result::ok).ok_or(Close::Reset)
    }

    async fn carry(&self, client: &mut TcpStream, server: &mut TcpStream) -> Result<(), Close> {
        for stream in [&*client, &*server] {
            stream.set_nodelay(true).map_err(|_| Close::Reset)?;
        }
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (requests, requested) = mpsc::channel(UNDER_WAY);
        let (answers, answered) = mpsc::channel(UNDER_WAY);
        try_join!(
            self.read(Way::ToServer, from_client, requests),
            self.deliver_requests(requested, Outlet::new(Way::ToServer, to_server)),
            self.read(Way::ToClient, from_server, answers),
            self.deliver_answers(answered, Outlet::new(Way::ToClient, to_client)),
        )?;
        Ok(())
    }

    /// Reads the stream to its end, and hands over each chunk with the time at which it is due.
    async fn read(&self, way: Way, mut from: ReadHalf<'_>, queue: mpsc::Sender<Chunk>) -> Result<(), Close> {
        loop {
            self.flowing(way).await;
            let mut bytes = vec![0; CHUNK];
            let read = from.read(&mut bytes).await;
            let delay = self.control.flows.borrow()[way as usize].delay;
            match read {
                Ok(0) => return Ok(()),
                Ok(count) => bytes.truncate(count),
                Err(_) => {
                    self.flowing(way).await;
                    return Err(Close::Reset);
                }
            }
            if queue.send((Instant::now() + delay, bytes)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Returns the next chunk, when it is due and nothing holds it up.
    async fn next(&self, way: Way, queue: &mut mpsc::Receiver<Chunk>) -> Option<Vec<u8>> {
        let chunk = queue.recv().await;
        if let Some((due, _)) = chunk {
            if due > Instant::now() {
                sleep_until(due).await;
            }
        }
        self.flowing(way).await;
        chunk.map(|(_, bytes)| bytes)
    }

    async fn deliver_requests(&self, mut queue: mpsc::Receiver<Chunk>, mut outlet: Outlet<'_>) -> Result<(), Close> {
        let mut framer = Framer::default();
        while let Some(bytes) = self.next(outlet.way, &mut queue).await {
            framer.push(&bytes);
            while let Some(frame) = framer.next() {
                let armed = lock(&self.control.armed).clone().filter(|armed| armed.at(&frame));
                if let Some(armed) = armed {
                    self.control.fired.fetch_add(1, SeqCst);
                    if !armed.cut.answer_lost {
                        return Err(armed.cut.close);
                    }
                    self.losing.send_replace(Some(armed.cut.close));
                }
                outlet.put(&self.control, &frame.bytes).await?;
            }
        }
        outlet.put(&self.control, &framer.rest()).await?;
        outlet.end().await
    }

    async fn deliver_answers(&self, mut queue: mpsc::Receiver<Chunk>, mut outlet: Outlet<'_>) -> Result<(), Close> {
        let mut lost = Vec::new();
        while let Some(bytes) = self.next(outlet.way, &mut queue).await {
            let losing = *self.losing.borrow();
            match losing {
                None => outlet.put(&self.control, &bytes).await?,
                Some(close) => {
                    lost.extend(bytes);
                    if ends_with_ready(&lost) {
                        return Err(close);
                    }
                }
            }
        }
        let losing = *self.losing.borrow();
        match losing {
            None => outlet.end().await,
            Some(close) => Err(close),
        }
    }

    /// Returns when the server has not sent the answer that is to be lost in time.
    async fn answer_overdue(&self) -> Close {
        let mut losing = self.losing.subscribe();
        let close = losing.wait_for(Option::is_some).await.ok().and_then(|close| *close);
        sleep(LIMIT).await;
        close.unwrap_or(Close::Reset)
    }

    /// Returns when bytes may move in this direction.
    async fn flowing(&self, way: Way) {
        let mut flows = self.control.flows.subscribe();
        let _ = flows.wait_for(|flows| !flows[way as usize].stalled.contains(&self.number)).await;
    }
}

impl<'a> Outlet<'a> {
    fn new(way: Way, to: WriteHalf<'a>) -> Outlet<'a> {
        Outlet { way, to, delivered: 0, since: None }
    }

    /// Delivers bytes up to the armed limit.
    async fn put(&mut self, control: &Control, bytes: &[u8]) -> Result<(), Close> {
        let mut allowed = bytes;
        let mut end = Ok(());
        if let Some((armed, left)) = self.limit(control) {
            if !bytes.is_empty() && bytes.len() as u64 >= left && armed.fire() {
                control.fired.fetch_add(1, SeqCst);
                allowed = &bytes[..left as usize];
                end = Err(armed.cut.close);
            }
        }
        // Before the other side can act on them.
        control.bytes[self.way as usize].fetch_add(allowed.len() as u64, SeqCst);
        self.to.write_all(allowed).await.map_err(|_| Close::Reset)?;
        self.delivered += allowed.len() as u64;
        end
    }

    /// Returns the armed cut that limits this direction, and how many bytes it still lets pass.
    fn limit(&mut self, control: &Control) -> Option<(Arc<Armed>, u64)> {
        let armed = lock(&control.armed).clone()?;
        let count = armed.limit(self.way)?;
        let before = match &self.since {
            Some((seen, before)) if Arc::ptr_eq(seen, &armed) => *before,
            _ => self.delivered,
        };
        self.since = Some((armed.clone(), before));
        Some((armed, count.saturating_sub(self.delivered - before)))
    }

    async fn end(mut self) -> Result<(), Close> {
        self.to.shutdown().await.map_err(|_| Close::Reset)
    }
}

/// Returns whether the server's bytes end with ReadyForQuery, the last message before it waits.
fn ends_with_ready(bytes: &[u8]) -> bool {
    bytes.len() >= 6 && bytes[bytes.len() - 6..].starts_with(&[b'Z', 0, 0, 0, 5])
}

/// Returns when the test cuts all connections or drops the proxy.
async fn ordered(cut: &mut watch::Receiver<Close>) -> Close {
    match cut.changed().await {
        Ok(()) => *cut.borrow(),
        Err(_) => Close::Reset,
    }
}

/// Closes in the given way. Before a FIN it reads until the other side closes, because closing with unread bytes sends
/// a reset.
async fn finish(mut stream: TcpStream, close: Close) {
    match close {
        Close::Reset => {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        Close::Fin => {
            let _ = stream.shutdown().await;
            let _ = timeout(LIMIT, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
        }
    }
}
