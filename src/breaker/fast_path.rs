//! Lets most calls pass without the lock: the [`FreePass`] admits a call, the [`Tally`] counts its success.
//!
//! In a closed circuit every call passes, so the pass holds the generation, and reading it admits the call.
//!
//! While the failure rate is below the threshold, a success only lowers it, until the current bucket ends. Until then
//! each thread counts its successes in a shard. The thread that takes the lock *collects* them into the bucket first.
//! If there is something to judge then, or another bucket has begun, it *disarms* the shards, and may arm them again.
//!
//! Each arming has a number, which every shard holds beside its count. A compare-and-swap of both adds a success. So no
//! success gets into another generation: the swap fails, and the thread takes the lock.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::policy::Ticket;

/// If there are more threads than this, some of them share a shard.
const SHARDS: usize = 16;
/// The lower half of a shard's word is its count. The upper half is the number of the arming.
const COUNT: u64 = u32::MAX as u64;

/// One more than the generation in which every call passes, or 0. It has a cache line of its own, so recording does not
/// slow down asking.
///
/// Its loads and stores need no order, because no other data depends on it. A call that reads an old value gets a stale
/// ticket.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct FreePass(AtomicU64);

impl FreePass {
    pub(super) fn new(ticket: Option<Ticket>) -> Self {
        Self(AtomicU64::new(word(ticket)))
    }

    #[inline]
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Ticket::regular)
    }

    /// Stores the value only if it differs, because a store takes the cache line away from all other threads.
    pub(super) fn set(&self, ticket: Option<Ticket>) {
        let word = word(ticket);
        if self.0.load(Ordering::Relaxed) != word {
            self.0.store(word, Ordering::Relaxed);
        }
    }
}

fn word(ticket: Option<Ticket>) -> u64 {
    ticket.map_or(0, |ticket| ticket.generation() + 1)
}

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

/// The number of an arming, and the successes since then. It has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

#[derive(Debug)]
pub(super) struct Tally {
    origin: Instant,
    /// The number of the current arming; 0 while disarmed.
    armed: AtomicU32,
    generation: AtomicU64,
    /// When the arming ends, in nanoseconds since the origin.
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

    /// Counts a success, unless the breaker has to judge it. Returns whether it counted.
    ///
    /// Each load acquires what the stores of `arm` release. So a thread that sees any part of an arming also sees that
    /// the shards of the arming before are empty.
    pub(super) fn try_count(&self, now: Instant, generation: u64) -> bool {
        let armed = self.armed.load(Ordering::Acquire);
        let is_armed = armed > 0
            && self.generation.load(Ordering::Acquire) == generation
            && self.nanos(now) < self.until.load(Ordering::Acquire);
        is_armed && self.shards.get(own_shard()).is_some_and(|shard| shard.try_add(armed))
    }

    /// Takes the counted successes; counting goes on. The caller holds the lock.
    pub(super) fn collect(&self) -> u64 {
        if self.armed.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.shards.iter().map(|shard| shard.0.fetch_and(!COUNT, Ordering::Relaxed) & COUNT).sum()
    }

    /// Ends the arming, so that the breaker judges every result, and takes the counted successes. The caller holds the
    /// lock.
    pub(super) fn disarm(&self) -> u64 {
        if self.armed.swap(0, Ordering::Relaxed) == 0 {
            return 0;
        }
        self.shards.iter().map(|shard| shard.0.swap(0, Ordering::Relaxed) & COUNT).sum()
    }

    /// Counts the successes of `generation` from now until `until`, if there is an end. The caller holds the lock and
    /// has disarmed.
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
    /// Returns `false` if the shard no longer belongs to the arming, or is full.
    fn try_add(&self, armed: u32) -> bool {
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
