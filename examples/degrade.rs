//! A fallback: every page shows an exchange rate, and an old rate is better than none. While the database cannot
//! answer, the service shows the last known rate and says that it is old.
//!
//! `cargo run --example degrade`. Uses `DATABASE_URL`, or starts a throwaway server.

mod support;

use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use failfast::Pool;
use support::Throwaway;

/// The last known rate, and its time.
type Cache = Mutex<Option<(f64, Instant)>>;

async fn rate(pool: &Pool, cache: &Cache) -> Result<f64, failfast::Error> {
    let cached = |error: &failfast::Error| {
        let (rate, seen) = (*cache.lock().ok()?)?;
        println!("  {rate}, as of {:.1?} ago: {error}", seen.elapsed());
        Some(rate)
    };
    let fresh = pool.call().name("exchange_rate").deadline(Duration::from_millis(250)).idempotent().fallback(cached);
    let rate = fresh.run(async |client| Ok(client.query_one("SELECT 1.08::float8", &[]).await?.get(0))).await?;
    if let Ok(mut cache) = cache.lock() {
        *cache = Some((rate, Instant::now()));
    }
    Ok(rate)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Throwaway::start().await?;
    let pool = Pool::builder(server.config()).name("degrade").build()?;
    let cache = Cache::default();

    println!("all is well: {}", rate(&pool, &cache).await?);
    pool.breaker().force_open("the database is being moved");
    println!("the database cannot be asked:");
    rate(&pool, &cache).await?;
    pool.breaker().reset("it is back");
    println!("all is well again: {}", rate(&pool, &cache).await?);
    println!("{}", pool.breaker().snapshot());
    Ok(())
}
