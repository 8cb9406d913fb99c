//! Looks up host names, each on a thread of its own.
//!
//! A look-up cannot be interrupted, and takes half a minute if the name service is silent. On a thread of the runtime,
//! it would keep the runtime and the process from ending. All dials to one host share one thread, so there are never
//! more threads than hosts.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::watch;

type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;
type Host = (String, u16);
type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

pub(super) struct Names {
    resolve: Resolve,
    under_way: Arc<Mutex<HashMap<Host, watch::Receiver<Option<Found>>>>>,
}

impl Default for Names {
    fn default() -> Self {
        Self::with(resolve)
    }
}

/// A name that has two addresses in tests, whatever the machine's name service says.
#[cfg(test)]
pub(super) const TWO_ADDRESSES: &str = "two.test";

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(test)]
    if host == TWO_ADDRESSES {
        return Ok([2, 1].map(|last| SocketAddr::from(([127, 0, 0, last], port))).to_vec());
    }
    (host, port).to_socket_addrs().map(Iterator::collect)
}

impl Names {
    pub(super) fn with(resolve: Resolve) -> Self {
        Self { resolve, under_way: Arc::default() }
    }

    /// Returns the present addresses of `host`. The wait is not bounded: the caller has to bound it.
    pub(super) async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let mut answer = self.ask((host.to_owned(), port))?;
        let found = answer.wait_for(Option::is_some).await.map(|found| found.clone());
        match found {
            Ok(Some(Ok(found))) => Ok(found),
            Ok(Some(Err(error))) => Err(io::Error::new(error.kind(), error)),
            Ok(None) | Err(_) => Err(io::Error::other("the thread of the look-up panicked")),
        }
    }

    fn ask(&self, host: Host) -> io::Result<watch::Receiver<Option<Found>>> {
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(&host) {
            return Ok(answer.clone());
        }
        let (resolve, others) = (self.resolve, Arc::clone(&self.under_way));
        let (sender, answer) = watch::channel(None);
        let key = host.clone();
        thread::Builder::new().name("failfast-look-up".to_owned()).spawn(move || {
            let found = resolve(&host.0, host.1).map_err(Arc::new);
            others.lock().remove(&host);
            sender.send_replace(Some(found));
        })?;
        under_way.insert(key, answer.clone());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::runtime::Runtime;

    use super::*;

    fn never(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_hanging_look_up_does_not_keep_the_runtime_from_ending() {
        let names = Arc::new(Names::with(never));
        let runtime = Runtime::new().unwrap();
        let asking = Arc::clone(&names);
        runtime.spawn(async move { asking.look_up("db", 5432).await });
        while names.under_way.lock().is_empty() {
            thread::yield_now();
        }
        let (on_end, ended) = mpsc::channel();
        thread::spawn(move || {
            drop(runtime);
            on_end.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(20)).expect("the runtime ends");
    }

    #[tokio::test]
    async fn dials_to_one_host_share_a_look_up_and_a_later_dial_begins_a_new_one() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static GATE: Mutex<()> = Mutex::new(());
        let names = Names::with(|_, port| {
            ASKED.fetch_add(1, SeqCst);
            let _open = GATE.lock();
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        });
        let shut = GATE.lock();
        let mut both = Box::pin(futures_util::future::join(names.look_up("db", 1), names.look_up("db", 1)));
        assert!(futures_util::FutureExt::now_or_never(&mut both).is_none());
        drop(shut);
        let (one, other) = both.await;
        assert_eq!(one.unwrap(), other.unwrap());
        names.look_up("db", 1).await.unwrap();
        assert_eq!(ASKED.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up_and_an_unknown_name_is_an_error() {
        assert_eq!(Names::with(never).look_up("::1", 7).await.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(Names::default().look_up("nowhere.invalid", 7).await.is_err());
    }
}
