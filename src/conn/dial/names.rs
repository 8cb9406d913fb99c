//! Looks up host names, each on a thread of its own.
//!
//! A look-up cannot be interrupted, and takes half a minute if the name service is silent. On a thread of the runtime,
//! it would keep the runtime and the process from ending.
//!
//! All dials to one host share a look-up. Once it has taken longer than a dial may, a dial begins another beside it,
//! because a look-up that was begun during an outage of the name service may never return. Where every look-up takes
//! longer than a dial may, the older ones return first. So the first one that finds addresses answers all dials that
//! wait.
//!
//! [`MOST`] bounds the threads, and so what a name service that never answers can take from the process.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time;

use crate::clock::now;

/// The most look-ups of one host that one pool has under way, and so the most threads that may hang.
const MOST: usize = 8;

type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;
type Answer = watch::Receiver<Option<Found>>;
type Host = (String, u16);
type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;
type ByHost = Arc<Mutex<HashMap<Host, LookUps>>>;

pub(super) struct Names {
    resolve: Resolve,
    /// The hosts that are being looked up.
    by_host: ByHost,
}

/// The look-ups of one host that are under way.
#[derive(Default)]
struct LookUps {
    /// The number of each, and when it was begun. Oldest first.
    begun: Vec<(u64, Instant)>,
    /// The number of the next one.
    next: u64,
    /// The answer for the dials that wait now.
    answer: watch::Sender<Option<Found>>,
}

/// A look-up under way. It has ended when the value is dropped, also if its thread panicked or could not begin.
struct LookUp {
    by_host: ByHost,
    host: Host,
    number: u64,
    /// `None` if its thread did not begin.
    found: Option<Found>,
}

impl Default for Names {
    fn default() -> Self {
        Self::with(resolve)
    }
}

/// A name that has two addresses in tests, whatever the machine's name service says.
#[cfg(test)]
pub(super) const TWO_ADDRESSES: &str = "two.test";

/// A name of the loopback address in tests. The first look-up of it never returns.
#[cfg(test)]
pub(super) const HANGS_FIRST: &str = "hangs-first.test";

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(test)]
    if let Some(found) = tests::resolve(host, port) {
        return Ok(found);
    }
    (host, port).to_socket_addrs().map(Iterator::collect)
}

impl Names {
    pub(super) fn with(resolve: Resolve) -> Self {
        Self { resolve, by_host: Arc::default() }
    }

    /// Returns the present addresses of `host`. The wait is not bounded: the caller has to bound it. `usual` is how
    /// long a look-up may take before another is begun beside it.
    pub(super) async fn look_up(&self, host: &str, port: u16, usual: Duration) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let host = (host.to_owned(), port);
        let found = loop {
            let (mut answer, overdue) = self.ask(&host, now(), usual)?;
            let found = async { answer.wait_for(Option::is_some).await.map(|found| found.clone()) };
            let Some(overdue) = overdue else { break found.await };
            if let Ok(found) = time::timeout_at(overdue.into(), found).await {
                break found;
            }
        };
        match found {
            Ok(Some(Ok(found))) => Ok(found),
            Ok(Some(Err(error))) => Err(io::Error::new(error.kind(), error)),
            Ok(None) | Err(_) => Err(unfinished()),
        }
    }

    /// Joins the look-ups of this host. Begins one if there is none, or if the newest is overdue. Returns also when the
    /// newest is overdue. `None`: there will be no other.
    fn ask(&self, host: &Host, now: Instant, usual: Duration) -> io::Result<(Answer, Option<Instant>)> {
        let mut by_host = self.by_host.lock();
        let look_ups = by_host.entry(host.clone()).or_default();
        let answer = look_ups.answer.subscribe();
        let begun = look_ups.begin(now, usual);
        let overdue = look_ups.overdue(usual);
        drop(by_host);
        if let Some(number) = begun {
            let (resolve, by_host) = (self.resolve, Arc::clone(&self.by_host));
            let mut look_up = LookUp { by_host, host: host.clone(), number, found: None };
            let thread = thread::Builder::new().name("failfast-look-up".to_owned());
            if let Err(error) = thread.spawn(move || look_up.run(resolve)) {
                // An older look-up may still answer.
                return if self.by_host.lock().contains_key(host) { Ok((answer, None)) } else { Err(error) };
            }
        }
        Ok((answer, overdue))
    }
}

impl LookUps {
    /// When the newest look-up is so late that another may begin beside it. `None` if there is none, or if none may.
    ///
    /// The more hang, the longer it takes. So the end of a short outage is found soon, and a long outage does not use
    /// up all threads soon.
    fn overdue(&self, usual: Duration) -> Option<Instant> {
        let (_, newest) = self.begun.last().filter(|_| self.begun.len() < MOST)?;
        newest.checked_add(usual.saturating_mul(1 << (self.begun.len() - 1)))
    }

    /// Returns the number of the look-up to begin. `None` if those under way suffice.
    fn begin(&mut self, now: Instant, usual: Duration) -> Option<u64> {
        let suffice = !self.begun.is_empty() && self.overdue(usual).is_none_or(|overdue| now < overdue);
        (!suffice).then(|| {
            let number = self.next;
            self.next += 1;
            self.begun.push((number, now));
            number
        })
    }

    /// A look-up has ended. Returns whether this is the answer for the dials that wait. After a failure they wait for
    /// the look-ups that were begun later. If the thread did not begin, they wait for any other.
    fn end(&mut self, number: u64, found: Option<&Found>) -> bool {
        self.begun.retain(|(other, _)| *other != number);
        match found {
            Some(Ok(_)) => true,
            Some(Err(_)) => self.begun.last().is_none_or(|(newest, _)| *newest < number),
            None => self.begun.is_empty(),
        }
    }
}

impl LookUp {
    fn run(&mut self, resolve: Resolve) {
        self.found = Some(Err(Arc::new(unfinished()))); // if it panics
        self.found = Some(resolve(&self.host.0, self.host.1).map_err(Arc::new));
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        let mut by_host = self.by_host.lock();
        let Some(look_ups) = by_host.get_mut(&self.host) else { return };
        let found = self.found.take();
        let answer = look_ups.end(self.number, found.as_ref()).then(|| mem::take(&mut look_ups.answer));
        if look_ups.begun.is_empty() {
            by_host.remove(&self.host);
        }
        drop(by_host);
        if let Some(answer) = answer {
            answer.send_replace(Some(found.unwrap_or_else(|| Err(Arc::new(unfinished())))));
        }
    }
}

fn unfinished() -> io::Error {
    io::Error::other("the thread of the look-up ended without an answer")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use tokio::runtime::Runtime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn never(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        loop {
            thread::park();
        }
    }

    fn loopback(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], port))
    }

    /// Answers for the names that only tests have.
    pub(super) fn resolve(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
        match host {
            TWO_ADDRESSES => Some([2, 1].map(|last| loopback(last, port)).to_vec()),
            HANGS_FIRST if LOOKED_UP.fetch_add(1, SeqCst) == 0 => never(host, port).ok(),
            HANGS_FIRST => Some(vec![loopback(1, port)]),
            _ => None,
        }
    }

    fn db() -> Host {
        ("db".to_owned(), 1)
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        while !is_so() {
            thread::yield_now();
        }
    }

    async fn answered(mut answer: Answer) -> Found {
        answer.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    impl Names {
        fn under_way(&self) -> usize {
            self.by_host.lock().get(&db()).map_or(0, |look_ups| look_ups.begun.len())
        }
    }

    #[test]
    fn a_hanging_look_up_does_not_keep_the_runtime_from_ending() {
        let names = Arc::new(Names::with(never));
        let runtime = Runtime::new().unwrap();
        let asking = Arc::clone(&names);
        runtime.spawn(async move { asking.look_up("db", 1, SECOND).await });
        wait_until(|| names.under_way() > 0);
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
            Ok(vec![loopback(1, port)])
        });
        let look_up = || names.look_up("db", 1, Duration::from_secs(20));
        let shut = GATE.lock();
        let mut both = Box::pin(futures_util::future::join(look_up(), look_up()));
        assert!(futures_util::FutureExt::now_or_never(&mut both).is_none());
        drop(shut);
        let (one, other) = both.await;
        assert_eq!(one.unwrap(), other.unwrap());
        look_up().await.unwrap();
        assert_eq!(ASKED.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_look_up_that_hangs_is_begun_anew_and_the_dials_that_wait_get_the_answer() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::with(|host, port| match ASKED.fetch_add(1, SeqCst) {
            0 => never(host, port),
            _ => Ok(vec![loopback(1, port)]),
        });
        let begun = Instant::now();
        let (first, overdue) = names.ask(&db(), begun, SECOND).unwrap();
        assert_eq!(overdue, Some(begun + SECOND));
        wait_until(|| ASKED.load(SeqCst) == 1);
        let (second, _) = names.ask(&db(), begun + SECOND - Duration::from_nanos(1), SECOND).unwrap();
        assert_eq!(names.under_way(), 1, "it is not overdue");
        let (third, _) = names.ask(&db(), begun + SECOND, SECOND).unwrap();
        for answer in [first, second, third] {
            assert_eq!(answered(answer).await.unwrap(), [loopback(1, 1)]);
        }
        assert_eq!(names.under_way(), 1, "the first one still hangs");
        let (later, _) = names.ask(&db(), begun + 2 * SECOND, SECOND).unwrap();
        assert_eq!(answered(later).await.unwrap(), [loopback(1, 1)]);
    }

    /// A dial that has joined an old look-up does not wait for it until its own end.
    #[tokio::test]
    async fn a_dial_begins_a_look_up_anew_while_it_waits() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::with(|host, port| match ASKED.fetch_add(1, SeqCst) {
            0 => never(host, port),
            _ => Ok(vec![loopback(1, port)]),
        });
        let waiting = names.look_up("db", 1, Duration::from_millis(50));
        let found = time::timeout(Duration::from_secs(20), waiting).await.expect("the second look-up answers");
        assert_eq!(found.unwrap(), [loopback(1, 1)]);
    }

    #[test]
    fn however_long_the_name_service_is_silent_eight_threads_of_a_host_hang() {
        let names = Names::with(never);
        let mut now = Instant::now();
        for hanging in 1..=MOST {
            let (_, overdue) = names.ask(&db(), now, SECOND).unwrap();
            assert_eq!(names.under_way(), hanging);
            let doubled = SECOND * (1 << (hanging - 1));
            assert_eq!(overdue, (hanging < MOST).then(|| now + doubled));
            now += doubled;
        }
        assert!(names.ask(&db(), now + 1_000_000 * SECOND, SECOND).unwrap().1.is_none());
        assert_eq!(names.under_way(), MOST);
    }

    /// Where every look-up takes longer than a dial may, the first ones answer the dials that came later.
    #[test]
    fn the_first_success_and_the_last_failure_are_the_answer() {
        let (now, fails) = (Instant::now(), || Err(Arc::new(io::Error::other("no answer"))));
        let three = || {
            let mut look_ups = LookUps::default();
            let begun = [0, 1, 3].map(|after| look_ups.begin(now + after * SECOND, SECOND).unwrap());
            assert_eq!((begun, look_ups.begin(now + 4 * SECOND, SECOND)), ([0, 1, 2], None));
            look_ups
        };
        assert!(three().end(0, Some(&Ok(Vec::new()))));
        let mut look_ups = three();
        assert!(!look_ups.end(0, Some(&fails())), "two were begun later");
        assert!(look_ups.end(2, Some(&fails())), "the other was begun before");
        assert_eq!(look_ups.begin(now + 4 * SECOND, SECOND), Some(3));
        assert!(!look_ups.end(1, Some(&fails())));
        assert!(look_ups.end(3, Some(&fails())));
        let mut look_ups = three();
        assert!(
            !look_ups.end(2, None) && !look_ups.end(0, None),
            "its thread did not begin, and another one may answer"
        );
        assert!(look_ups.end(1, None));
    }

    #[tokio::test]
    async fn a_look_up_that_panics_is_an_error_and_the_next_dial_begins_another() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::with(|_, port| match ASKED.fetch_add(1, SeqCst) {
            0 => panic!("a resolver that panics"),
            _ => Ok(vec![loopback(1, port)]),
        });
        let look_up = || time::timeout(Duration::from_secs(20), names.look_up("db", 1, Duration::from_secs(60)));
        let error = look_up().await.expect("it has ended").unwrap_err();
        assert_eq!(error.to_string(), unfinished().to_string());
        assert_eq!(names.under_way(), 0);
        assert_eq!(look_up().await.expect("it has ended").unwrap(), [loopback(1, 1)]);
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up_and_an_unknown_name_is_an_error() {
        let address = Names::with(never).look_up("::1", 7, SECOND).await;
        assert_eq!(address.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(Names::default().look_up("nowhere.invalid", 7, Duration::from_secs(60)).await.is_err());
    }
}
