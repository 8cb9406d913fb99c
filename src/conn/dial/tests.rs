//! A name with two addresses, of which one is dead.

use std::net::TcpListener;

use super::*;
use crate::breaker::BreakerConfig;
use crate::conn::tests::{dialer, shared_server};

/// The dialer, the port of the server, and what is told of addresses.
async fn scene(connect_timeout: Duration, names: Names) -> (Dialer, u16, Arc<Mutex<Vec<String>>>) {
    let own = shared_server().await.config();
    let port = own.get_ports()[0];
    let mut config = Config::new();
    config.host("db").port(port).user(own.get_user().unwrap()).dbname(own.get_dbname().unwrap());
    config.password(own.get_password().unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let tell = move |news| match news {
        News::AddressAvoided { address, reason } => teller.lock().push(format!("{address} avoided: {reason}")),
        News::AddressRestored { address, .. } => teller.lock().push(format!("{address} restored")),
        _ => {}
    };
    let mut dialer = dialer(config, connect_timeout, BreakerConfig::default(), Arc::new(tell));
    dialer.names = names;
    (dialer, port, told)
}

/// Ends in so much.
fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

#[tokio::test]
async fn an_address_that_refuses_is_tried_last_for_a_while_and_told_once() {
    let (dialer, port, told) =
        scene(Duration::from_secs(20), Names::by(|_, port| Ok(vec![address(3, port), address(1, port)]))).await;
    let alive = format!("127.0.0.1:{port}");
    for _ in 0..2 {
        assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, alive);
    }
    let avoided = format!("127.0.0.3:{port} avoided: db:{port}: connection refused");
    assert_eq!(told.lock().as_slice(), std::slice::from_ref(&avoided));
    // The one that works was avoided, too, and is found to work.
    dialer.avoid(alive.clone(), &"a test");
    assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, alive);
    assert_eq!(*told.lock(), [avoided, format!("{alive} avoided: a test"), format!("{alive} restored")]);
}

/// It takes connections and says nothing: what `connect_timeout` has ended is not tried first again.
#[tokio::test]
async fn an_address_that_is_mute_costs_one_dial() {
    let (dialer, port, told) =
        scene(Duration::from_secs(1), Names::by(|_, port| Ok(vec![address(2, port), address(1, port)]))).await;
    let _mute = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let error = dialer.dial(|| {}).await.map(drop).unwrap_err();
    assert_eq!(error.to_string(), format!("db:{port}: not ready within 1 s: the server did not answer"));
    assert_eq!(*told.lock(), [format!("127.0.0.2:{port} avoided: {error}")]);
    assert_eq!(&*dialer.dial(|| {}).await.unwrap().address, format!("127.0.0.1:{port}"));
}
