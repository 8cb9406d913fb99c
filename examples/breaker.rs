//! The circuit breaker by itself: a service asks a shop for its stock. The shop is down for a while and says when it
//! will be back. Meanwhile callers get the last known figure at once.
//!
//! `cargo run --example breaker`. Needs no database: the other service is simulated.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use failfast::breaker::{BreakerConfig, CallError, CircuitBreaker, Verdict};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// A response of the shop.
struct Response {
    status: u16,
    /// In seconds.
    retry_after: Option<u64>,
    stock: u32,
}

/// The simulated shop, in place of an HTTP client.
struct Shop {
    begun: Instant,
}

impl Shop {
    async fn stock(&self) -> Result<Response, std::io::Error> {
        sleep(SECOND / 50).await;
        match self.begun.elapsed() {
            up if up < SECOND => Ok(Response { status: 200, retry_after: None, stock: 17 }),
            slow if slow < 2 * SECOND => {
                sleep(5 * SECOND).await;
                Err(std::io::Error::other("too late for everybody"))
            }
            down if down < 3 * SECOND => Ok(Response { status: 503, retry_after: Some(1), stock: 0 }),
            _ => Ok(Response { status: 200, retry_after: None, stock: 16 }),
        }
    }
}

/// The present stock of the shop, or the last known one.
async fn stock(breaker: &CircuitBreaker, shop: &Shop, last: &AtomicU32) -> u32 {
    // For an HTTP client a 503 is `Ok`. For the breaker it is a failure of the shop.
    let judge = |result: Result<&Response, &CallError<std::io::Error>>| match result {
        Ok(response) if response.status >= 500 => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    };
    match breaker.call_judged(judge, shop.stock()).await {
        Ok(response) if response.status == 200 => {
            last.store(response.stock, Ordering::Relaxed);
            response.stock
        }
        Ok(response) => {
            if let Some(seconds) = response.retry_after {
                breaker.open_for(Duration::from_secs(seconds), format!("Retry-After: {seconds}"));
            }
            last.load(Ordering::Relaxed)
        }
        Err(error) => {
            println!("  {error}");
            last.load(Ordering::Relaxed)
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let config = BreakerConfig::default()
        .name("stock")
        .volume_threshold(2)
        .reset_timeout(SECOND / 2)
        .automatic_transitions(true)
        .on_transition(move |change| println!("{:.1?} {change}", begun.elapsed()));
    let breaker = CircuitBreaker::new(config)?.with_timeout(SECOND / 5).with_capacity(10);
    let (shop, last) = (Shop { begun }, AtomicU32::new(0));
    while begun.elapsed() < 5 * SECOND {
        let asked = Instant::now();
        let stock = stock(&breaker, &shop, &last).await;
        println!("{:.1?} {stock} in stock, known after {:.0?}", begun.elapsed(), asked.elapsed());
        sleep(SECOND / 4).await;
    }
    println!("{}", breaker.snapshot());
    Ok(())
}
