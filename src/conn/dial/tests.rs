//! A name with two addresses, one of them dead, and dials that are slow because of the server or another cause.

mod outage;

use std::net::{TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use futures_util::FutureExt;
use futures_util::future::join_all;
use socket2::{Domain, Type};
use tokio::io::copy_bidirectional;
use tokio::sync::oneshot;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::credentials::Credentials;
use super::*;
use crate::breaker::BreakerConfig;
use crate::conn::tests::{dialer, shared_server};

/// A dial this long is late, if the dials before it took no time.
const SLOW: Duration = Duration::from_millis(1_200);

/// The settings to log in to the server under this name.
async fn config_at(host: &str, port: u16) -> Config {
    let own = shared_server().await.config();
    let mut config = Config::new();
    config.host(host).port(port).user(own.get_user().unwrap()).dbname(own.get_dbname().unwrap());
    config.password(own.get_password().unwrap());
    config
}

/// The dialer, the port of the server, and the events about addresses.
async fn scene(connect_timeout: Duration, names: Names) -> (Dialer, u16, Arc<Mutex<Vec<String>>>) {
    let port = shared_server().await.config().get_ports()[0];
    let config = config_at("db", port).await;
    let reported = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reported);
    let report = move |event| match event {
        ConnectionEvent::AddressAvoided { address, reason } => sink.lock().push(format!("{address} avoided: {reason}")),
        ConnectionEvent::AddressRestored { address, .. } => sink.lock().push(format!("{address} restored")),
        _ => {}
    };
    let mut dialer = dialer(config, connect_timeout, BreakerConfig::default(), Arc::new(report));
    dialer.names = names;
    (dialer, port, reported)
}

/// The loopback address that ends in this number.
fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

#[tokio::test]
async fn an_address_that_refuses_is_tried_last_for_a_while_and_reported_once() {
    let (dialer, port, reported) =
        scene(Duration::from_secs(20), Names::with(|_, port| Ok(vec![address(3, port), address(1, port)]))).await;
    let alive = format!("127.0.0.1:{port}");
    for _ in 0..2 {
        assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, alive);
    }
    let avoided = format!("127.0.0.3:{port} avoided: db:{port}: connection refused");
    assert_eq!(reported.lock().as_slice(), std::slice::from_ref(&avoided));
    // The address that works was avoided as well, and the next dial finds that it works.
    dialer.avoid(alive.clone(), &"a test");
    assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, alive);
    assert_eq!(*reported.lock(), [avoided, format!("{alive} avoided: a test"), format!("{alive} restored")]);
}

/// The address takes connections and does not answer. A later dial does not try it first again.
#[tokio::test]
async fn an_address_that_is_mute_costs_one_dial() {
    let (dialer, port, reported) =
        scene(Duration::from_secs(1), Names::with(|_, port| Ok(vec![address(2, port), address(1, port)]))).await;
    let _mute = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let error = dialer.dial(|| {}).await.map(drop).unwrap_err();
    assert_eq!(error.to_string(), format!("db:{port}: not ready within 1 s: the server did not answer"));
    assert_eq!(*reported.lock(), [format!("127.0.0.2:{port} avoided: {error}")]);
    assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, format!("127.0.0.1:{port}"));
}

/// A socket that neither accepts nor refuses a connection, because its backlog is full.
struct Dead {
    _listener: socket2::Socket,
    _first: TcpStream,
}

impl Dead {
    fn at(address: SocketAddr) -> Self {
        let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let first = TcpStream::connect(address).unwrap();
        Self { _listener: listener, _first: first }
    }
}

#[tokio::test]
async fn an_address_that_is_silent_while_another_takes_the_connection_is_tried_last() {
    let (dialer, port, reported) =
        scene(Duration::from_secs(20), Names::with(|_, port| Ok(vec![address(5, port), address(1, port)]))).await;
    let _dead = Dead::at(address(5, port));
    let took = async || {
        let begun = Instant::now();
        assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, format!("127.0.0.1:{port}"));
        begun.elapsed()
    };
    assert!(took().await >= race::HEAD_START);
    let avoided = format!("127.0.0.5:{port} avoided: no answer, while 127.0.0.1:{port} took the connection");
    assert_eq!(*reported.lock(), [avoided]);
    let quickest = [took().await, took().await, took().await].into_iter().min();
    assert!(quickest < Some(race::HEAD_START), "{quickest:?}");
}

/// A server that is about to be ready hangs up.
#[tokio::test]
async fn an_address_that_hangs_up_is_tried_again_while_the_other_is_silent() {
    let (mut dialer, server, _) =
        scene(Duration::from_secs(10), Names::with(|_, port| Ok(vec![address(1, port), address(6, port)]))).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _dead = Dead::at(address(6, port));
    dialer.config = config_at("db", port).await;
    let serves = async {
        drop(listener.accept().await.unwrap());
        let (mut client, _) = listener.accept().await.unwrap();
        let mut stream = tokio::net::TcpStream::connect(address(1, server)).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut stream).await;
    };
    tokio::select! {
        dialed = dialer.dial(|| {}) => assert_eq!(&*dialed.unwrap().address, format!("127.0.0.1:{port}")),
        () = serves => panic!("it serves until the dial is done"),
    }
}

/// They have somewhat more than the time of recent dials, or `connect_timeout` if there is no recent dial.
#[tokio::test]
async fn looks_at_the_server_have_the_time_of_a_dial() {
    let (dialer, ..) = scene(Duration::from_secs(5), Names::default()).await;
    assert_eq!(dialer.answer_limit(), Duration::from_secs(5));
    for (slowest, millis) in [(10, 1_000), (1_200, 3_600), (3_000, 5_000)] {
        dialer.times.lock().succeeded(Duration::from_millis(slowest));
        assert_eq!(dialer.answer_limit(), Duration::from_millis(millis));
    }
}

/// A TLS connector that encrypts nothing and is slow.
#[derive(Clone)]
struct Sluggish;

impl MakeTlsConnect<Socket> for Sluggish {
    type Stream = Socket;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<Self> {
        Ok(Self)
    }
}

impl TlsConnect<Socket> for Sluggish {
    type Stream = Socket;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            time::sleep(SLOW).await;
            Ok(socket)
        })
    }
}

/// The dial is not quiet meanwhile, and later dials are not expected to take as long.
#[tokio::test]
async fn time_that_is_not_the_servers_makes_no_dial_late() {
    let quick = || scene(Duration::from_secs(20), Names::with(|_, port| Ok(vec![address(1, port)])));
    let (mut look_up, ..) = quick().await;
    look_up.names = Names::with(|_, port| {
        thread::sleep(SLOW);
        Ok(vec![address(1, port)])
    });
    let (mut credentials, ..) = quick().await;
    let password = credentials.config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
    credentials.handling.hooks.set_credentials(move || {
        let password = password.clone().unwrap();
        async move {
            time::sleep(SLOW).await;
            Ok(Credentials::password(password))
        }
    });
    let (mut handshake, ..) = quick().await;
    handshake.connector = Connector::new(Sluggish);
    handshake.config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let (mut hook, ..) = quick().await;
    hook.handling.hooks.set_after_connect(|client| Box::pin(client.batch_execute("SELECT pg_sleep(1.2)")));
    let all = [("look-up", look_up), ("credentials", credentials), ("handshake", handshake), ("hook", hook)];
    join_all(all.map(async |(what, dialer)| {
        dialer.times.lock().succeeded(Duration::from_millis(10));
        let (quiet, begun, usual) = (AtomicUsize::new(0), Instant::now(), dialer.late_after());
        let dialed = dialer.dial(|| _ = quiet.fetch_add(1, SeqCst)).await;
        dialed.map(drop).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(begun.elapsed() >= SLOW, "{what} took its time");
        assert_eq!((quiet.load(SeqCst), dialer.late_after()), (0, usual), "{what}");
    }))
    .await;
}

/// A late dial that still has time is no failure.
#[tokio::test]
async fn a_server_that_takes_far_longer_than_usual_makes_a_dial_quiet_and_no_failure() {
    let (dialer, port, _) = scene(SLOW * 2, Names::with(|_, port| Ok(vec![address(4, port)]))).await;
    let _mute = TcpListener::bind(("127.0.0.4", port)).unwrap();
    dialer.times.lock().succeeded(Duration::from_millis(10));
    let (on_late, is_late) = oneshot::channel();
    let mut dial = pin!(dialer.dial(|| on_late.send(()).unwrap()));
    tokio::select! {
        _ = &mut dial => panic!("the server does not answer"),
        is_late = is_late => is_late.unwrap(),
    }
    let failures = || dialer.handling.recorder.breaker().own().snapshot().counts.failures;
    assert!((&mut dial).now_or_never().is_none());
    assert_eq!(failures(), 0, "the dial has not ended");
    dial.await.map(drop).unwrap_err();
    assert_eq!(failures(), 1, "connect_timeout has ended it");
}
