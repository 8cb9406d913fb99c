//! Faults that need no protocol, tested with an echo server.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{QUIET, SOON};
use crate::support::{
    eventually,
    proxy::{Close, Cut, Proxy, Way},
};

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let proxy = Proxy::start(echo().await).await;
    let mut client = connect(&proxy).await;
    ask(&mut client, b"hello").await;
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    assert_eq!((proxy.bytes(Way::ToServer), proxy.bytes(Way::ToClient)), (5, 5));
}

#[tokio::test]
async fn bytes_pass_in_bulk_under_delay() {
    let proxy = Proxy::start(echo().await).await;
    proxy.delay(Way::ToServer, Duration::from_millis(20));
    let client = connect(&proxy).await;
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = client.into_split();
    let mut received = vec![0; sent.len()];
    let (written, read) = tokio::join!(to.write_all(&sent), timeout(SOON, from.read_exact(&mut received)));
    written.unwrap();
    read.unwrap().unwrap();
    assert!(sent == received, "bytes were lost or reordered");
}

#[tokio::test]
async fn a_half_close_is_passed_on() {
    let proxy = Proxy::start(echo().await).await;
    let mut client = connect(&proxy).await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, client.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"last words");
    eventually("the connection has ended", SOON, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn bytes_are_delayed_each_way() {
    let proxy = Proxy::start(echo().await).await;
    let mut client = connect(&proxy).await;
    proxy.delay(Way::ToServer, Duration::from_millis(30));
    proxy.delay(Way::ToClient, Duration::from_millis(50));
    let begin = Instant::now();
    ask(&mut client, b"hello").await;
    assert!(begin.elapsed() >= Duration::from_millis(80), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn open_and_new_connections_stall_and_resume() {
    let proxy = Proxy::start(echo().await).await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"hello").await;
    proxy.stall();
    let mut new = connect(&proxy).await;
    open.write_all(b"held").await.unwrap();
    new.write_all(b"back").await.unwrap();
    assert_quiet(&mut open).await;
    assert_quiet(&mut new).await;
    proxy.resume();
    expect(&mut open, b"held").await;
    expect(&mut new, b"back").await;
}

#[tokio::test]
async fn one_direction_can_stall_alone() {
    let proxy = Proxy::start(echo().await).await;
    let mut client = connect(&proxy).await;
    proxy.stall_way(Way::ToClient);
    client.write_all(b"heard").await.unwrap();
    eventually("the server receives the bytes", SOON, async || proxy.bytes(Way::ToServer) == 5).await;
    assert_quiet(&mut client).await;
    assert_eq!(proxy.bytes(Way::ToClient), 0);
    proxy.pass();
    expect(&mut client, b"heard").await;
}

#[tokio::test]
async fn open_connections_can_stall_alone() {
    let proxy = Proxy::start(echo().await).await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"hello").await;
    proxy.stall_existing();
    open.write_all(b"gone").await.unwrap();
    ask(&mut connect(&proxy).await, b"well").await;
    assert_quiet(&mut open).await;
}

#[tokio::test]
async fn new_connections_can_stall_alone() {
    let proxy = Proxy::start(echo().await).await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"hello").await;
    proxy.stall_new();
    let mut new = connect(&proxy).await;
    new.write_all(b"gone").await.unwrap();
    ask(&mut open, b"well").await;
    assert_quiet(&mut new).await;
}

#[tokio::test]
async fn a_stall_hides_that_the_client_left() {
    let proxy = Proxy::start(echo().await).await;
    let mut client = connect(&proxy).await;
    ask(&mut client, b"hello").await;
    proxy.stall();
    drop(client);
    tokio::time::sleep(QUIET).await;
    assert_eq!(proxy.open(), 1);
    proxy.resume();
    eventually("the connection has ended", SOON, async || proxy.open() == 0).await;
}

#[tokio::test]
async fn connections_are_cut_by_fin_and_by_reset() {
    let proxy = Proxy::start(echo().await).await;
    for close in [Close::Fin, Close::Reset] {
        let mut client = connect(&proxy).await;
        ask(&mut client, b"hello").await;
        proxy.cut(close);
        assert_closed(&mut client, close).await;
        assert_eq!(proxy.open(), 0);
        ask(&mut connect(&proxy).await, b"again").await;
    }
}

#[tokio::test]
async fn stalled_connections_can_be_cut() {
    let proxy = Proxy::start(echo().await).await;
    proxy.stall();
    let mut client = connect(&proxy).await;
    eventually("the connection is accepted", SOON, async || proxy.accepted() == 1).await;
    proxy.cut(Close::Fin);
    assert_closed(&mut client, Close::Fin).await;
}

#[tokio::test]
async fn connections_are_refused_and_accepted_again_on_the_same_port() {
    let proxy = Proxy::start(echo().await).await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"hello").await;
    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    ask(&mut open, b"still here").await;
    proxy.accept().await;
    ask(&mut connect(&proxy).await, b"hello").await;
}

#[tokio::test]
async fn new_connections_switch_to_another_server() {
    let proxy = Proxy::start(echo().await).await;
    let mut open = connect(&proxy).await;
    ask(&mut open, b"hello").await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.switch(other.local_addr().unwrap());
    let mut new = connect(&proxy).await;
    let (mut peer, _) = timeout(SOON, other.accept()).await.unwrap().unwrap();
    peer.write_all(b"the other").await.unwrap();
    expect(&mut new, b"the other").await;
    ask(&mut open, b"still the first").await;
}

#[tokio::test]
async fn a_proxy_without_a_server_resets_connections() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(gone).await;
    assert_closed(&mut connect(&proxy).await, Close::Reset).await;
}

#[tokio::test]
async fn connections_are_cut_after_a_number_of_bytes_each_way() {
    for way in [Way::ToServer, Way::ToClient] {
        let proxy = Proxy::start(echo().await).await;
        let mut client = connect(&proxy).await;
        ask(&mut client, b"before").await;
        proxy.arm(Cut::after_bytes(way, 3).by(Close::Fin));
        client.write_all(b"hello").await.unwrap();
        eventually("cut", SOON, async || proxy.fired() == 1).await;
        assert_eq!(proxy.bytes(way), 9);
        if way == Way::ToClient {
            expect(&mut client, b"hel").await;
        }
        eventually("closed", SOON, async || proxy.open() == 0).await;
        ask(&mut connect(&proxy).await, b"fired only once").await;
    }
}

#[tokio::test]
async fn a_cut_at_the_first_byte_fires_as_often_as_armed() {
    let proxy = Proxy::start(echo().await).await;
    proxy.arm(Cut::after_bytes(Way::ToClient, 0).times(2));
    for _ in 0..2 {
        let mut client = connect(&proxy).await;
        client.write_all(b"hello").await.unwrap();
        assert_closed(&mut client, Close::Reset).await;
    }
    ask(&mut connect(&proxy).await, b"hello").await;
    assert_eq!(proxy.fired(), 2);
}

#[tokio::test]
async fn connections_end_with_the_proxy() {
    let proxy = Proxy::start(echo().await).await;
    let addr = proxy.addr();
    let mut client = connect(&proxy).await;
    ask(&mut client, b"hello").await;
    drop(proxy);
    assert_closed(&mut client, Close::Reset).await;
    eventually("the port is closed", SOON, async || TcpStream::connect(addr).await.is_err()).await;
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = peer.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn connect(proxy: &Proxy) -> TcpStream {
    timeout(SOON, TcpStream::connect(proxy.addr())).await.unwrap().unwrap()
}

async fn ask(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).await.unwrap();
    expect(client, text).await;
}

async fn expect(client: &mut TcpStream, text: &[u8]) {
    let mut read = vec![0; text.len()];
    timeout(SOON, client.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, text);
}

async fn assert_quiet(client: &mut TcpStream) {
    assert!(timeout(QUIET, client.read_u8()).await.is_err());
}

async fn assert_closed(client: &mut TcpStream, close: Close) {
    let end = timeout(SOON, client.read(&mut [0])).await.unwrap();
    match close {
        Close::Fin => assert_eq!(end.unwrap(), 0),
        Close::Reset => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset),
    }
}
