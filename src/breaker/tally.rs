//! Successes that need no judgement, counted beside the lock.
//!
//! In a closed circuit whose failure rate is below the threshold, a success only lowers it, until the current bucket ends. So until then threads count
//! successes in shards of their own. Whoever takes the lock *collects* them into that bucket and acts. If there is something to judge
//! then, or another bucket has begun, the shards are *disarmed*, and perhaps armed anew.
//!
//! Each arming has a number, which every shard carries beside its count. A success is added by a compare-and-swap of both, so none can slip
//! into another generation: then the swap fails, and the lock is taken.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// More threads than this share some.
const SHARDS: usize = 16;
/// The lower half of a shard's word; the number of the arming is the upper one.
const COUNT: u64 = u32::MAX as u64;

thread_local! {
    /// The shard of this thread, once it has one.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        let own = shard.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        shard.set(Some(own));
        own
    })
}

/// The number of an arming, and successes since. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

#[derive(Debug)]
pub(super) struct Tally {
    origin: Instant,
    /// Of the last arming; 0 while there is none.
    armed: AtomicU32,
    generation: AtomicU64,
    /// In nanoseconds since the origin.
    until: AtomicU64,
    shards: [Shard; SHARDS],
}

impl Tally {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            origin,
            armed: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            until: AtomicU64::new(0),
            shards: Default::default(),
        }
    }

    /// Counts a success, unless it has to be judged.
    ///
    /// Each load acquires what the stores of `arm` release: whoever sees anything of an arming also sees that the shards of the one before are empty.
    pub(super) fn count(&self, now: Instant, generation: u64) -> bool {
        let armed = self.armed.load(Ordering::Acquire);
        let is_due = armed > 0
            && self.generation.load(Ordering::Acquire) == generation
            && self.nanos(now) < self.until.load(Ordering::Acquire);
        is_due && self.shards.get(own_shard()).is_some_and(|shard| shard.add(armed))
    }

    /// Takes what has been counted; counting goes on. Under the lock.
    pub(super) fn collect(&self) -> u64 {
        if self.armed.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.shards.iter().map(|shard| shard.0.fetch_and(!COUNT, Ordering::Relaxed) & COUNT).sum()
    }

    /// Every result is to be judged. Takes what has been counted. Under the lock.
    pub(super) fn disarm(&self) -> u64 {
        if self.armed.swap(0, Ordering::Relaxed) == 0 {
            return 0;
        }
        self.shards.iter().map(|shard| shard.0.swap(0, Ordering::Relaxed) & COUNT).sum()
    }

    /// From now until `until`, if that ever comes, successes of `generation` need no judgement. Under the lock, while disarmed.
    pub(super) fn arm(&self, number: u32, generation: u64, until: Option<Instant>) {
        self.generation.store(generation, Ordering::Release);
        self.until.store(until.map_or(u64::MAX, |until| self.nanos(until)), Ordering::Release);
        self.shards.iter().for_each(|shard| shard.0.store(u64::from(number) << 32, Ordering::Relaxed));
        self.armed.store(number, Ordering::Release);
    }

    fn nanos(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Shard {
    /// `false` if the shard is no longer armed as it was, or full.
    fn add(&self, armed: u32) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word >> 32 == u64::from(armed) && word & COUNT < COUNT {
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(newer) => word = newer,
            }
        }
        false
    }
}
