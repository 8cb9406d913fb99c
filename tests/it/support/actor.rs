//! A server that speaks PostgreSQL's start-up and then does what a test wants. It is for messages that a real server
//! never sends.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const SSL_REQUEST: u32 = 80_877_103;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The part that a session of the server plays. Its end, or an error, closes the connection.
pub(crate) type Part = fn(Session) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// The server. It ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Actor {
    addr: SocketAddr,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// One connection. The client's first message was already read.
pub(crate) struct Session {
    stream: TcpStream,
    open: Arc<AtomicUsize>,
}

impl Actor {
    pub(crate) async fn start(part: Part) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, open) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&open);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let session = Session { stream, open: Arc::clone(&counted) };
                tokio::spawn(session.begin(part));
            }
        });
        Self { addr, open, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://user:secret@{}/db", self.addr)
    }

    /// Returns how many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Session {
    async fn begin(mut self, part: Part) -> io::Result<()> {
        loop {
            let length = self.stream.read_u32().await?;
            let code = self.stream.read_u32().await?;
            let mut rest = vec![0; (length as usize).saturating_sub(8).min(10_000)];
            self.stream.read_exact(&mut rest).await?;
            match code {
                SSL_REQUEST => self.stream.write_all(b"N").await?,
                CANCEL_REQUEST => return Ok(()),
                _ => return part(self).await,
            }
        }
    }

    /// Logs the client in, as PostgreSQL does.
    pub(crate) async fn welcome(&mut self) -> io::Result<()> {
        self.say(b'R', &[0; 4]).await?;
        self.say(b'S', b"server_version\x0017.2\0").await?;
        self.say(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]).await?;
        self.say(b'Z', b"I").await
    }

    /// Returns the type of the client's next message.
    pub(crate) async fn hear(&mut self) -> io::Result<u8> {
        let kind = self.stream.read_u8().await?;
        let length = self.stream.read_u32().await?;
        let mut body = vec![0; (length as usize).saturating_sub(4)];
        self.stream.read_exact(&mut body).await?;
        Ok(kind)
    }

    /// Waits for a Query.
    pub(crate) async fn asked(&mut self) -> io::Result<()> {
        while self.hear().await? != b'Q' {}
        Ok(())
    }

    /// Waits for a Query, and answers it with one row.
    pub(crate) async fn answer(&mut self) -> io::Result<()> {
        self.asked().await?;
        self.row().await?;
        self.done().await
    }

    /// Sends a row of one column, with its description.
    pub(crate) async fn row(&mut self) -> io::Result<()> {
        let column = b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
        self.say(b'T', column).await?;
        self.say(b'D', b"\0\x01\0\0\0\x011").await
    }

    /// Sends the end of an answer.
    pub(crate) async fn done(&mut self) -> io::Result<()> {
        self.say(b'C', b"SELECT 1\0").await?;
        self.say(b'Z', b"I").await
    }

    pub(crate) async fn say(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.announce(kind, body.len()).await?;
        self.raw(body).await
    }

    /// Sends the header of a message.
    pub(crate) async fn announce(&mut self, kind: u8, length: usize) -> io::Result<()> {
        let length = u32::try_from(length + 4).unwrap();
        self.raw(&[&[kind][..], &length.to_be_bytes()].concat()).await
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends messages for ever, each with a different body.
    pub(crate) async fn say_for_ever(&mut self, kind: u8, body: impl Fn(usize) -> Vec<u8>) -> io::Result<()> {
        for number in 0.. {
            self.say(kind, &body(number)).await?;
        }
        Ok(())
    }

    /// Sends bytes for ever.
    pub(crate) async fn pour(&mut self) -> io::Result<()> {
        loop {
            self.raw(&[b'x'; 64 * 1024]).await?;
        }
    }

    /// Sends nothing more, and waits until the client closes the connection.
    pub(crate) async fn rest(&mut self) -> io::Result<()> {
        while self.stream.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}
