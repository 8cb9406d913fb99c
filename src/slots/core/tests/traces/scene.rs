//! What traces are made of: a pool, leases, and callers that arrive in one way or another.

use std::f64::consts::PI;

use fastrand::Rng;

use super::{Bounds, Caller, Trace, Window, World};

/// Leases, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leases {
    Fixed(f64),
    Exponential(f64),
    /// The short one, the long one, and the share of the long.
    Bimodal(f64, f64, f64),
    /// Mean, and the standard deviation of the logarithm.
    Lognormal(f64, f64),
    /// Mean, and the exponent of the tail.
    Pareto(f64, f64),
}

impl Leases {
    pub(super) fn mean(self) -> f64 {
        match self {
            Self::Fixed(mean) | Self::Exponential(mean) | Self::Lognormal(mean, _) | Self::Pareto(mean, _) => mean,
            Self::Bimodal(short, long, share) => short * (1.0 - share) + long * share,
        }
    }

    pub(super) fn next(self, rng: &mut Rng) -> f64 {
        match self {
            Self::Fixed(mean) => mean,
            Self::Exponential(mean) => mean * exponential(rng),
            Self::Bimodal(short, long, share) => {
                if rng.f64() < share {
                    long
                } else {
                    short
                }
            }
            Self::Lognormal(mean, sigma) => mean * (sigma * normal(rng) - sigma * sigma / 2.0).exp(),
            Self::Pareto(mean, alpha) => mean * (alpha - 1.0) / alpha * pareto(rng, alpha),
        }
    }
}

/// With the mean 1.
pub(super) fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

pub(super) fn normal(rng: &mut Rng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (2.0 * PI * rng.f64()).cos()
}

/// At least 1.
pub(super) fn pareto(rng: &mut Rng, alpha: f64) -> f64 {
    (1.0 - rng.f64()).powf(-1.0 / alpha)
}

pub(super) fn log_uniform(rng: &mut Rng, from: f64, until: f64) -> f64 {
    from * (until / from).powf(rng.f64())
}

pub(super) fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}

/// A pool, its leases, and what is asked of it.
pub(super) struct Scene {
    pub(super) rng: Rng,
    pub(super) world: World,
    pub(super) leases: Leases,
    /// The callers' budget.
    pub(super) budget: f64,
    pub(super) callers: Vec<Caller>,
}

impl Scene {
    pub(super) fn new(family: &str, number: usize) -> Self {
        let seed = family.bytes().fold(number as u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut rng = Rng::with_seed(seed);
        let (connections, lease) =
            one(&mut rng, &[(1, 0.002), (1, 0.020), (5, 0.020), (5, 0.005), (20, 0.020), (20, 0.002), (100, 0.020)]);
        let leases = if rng.bool() { Leases::Fixed(lease) } else { Leases::Exponential(lease) };
        Self::of(rng, connections, leases, 0.250)
    }

    pub(super) fn of(rng: Rng, connections: usize, leases: Leases, budget: f64) -> Self {
        Self { rng, world: World::new(connections, leases.mean(), budget), leases, budget, callers: Vec::new() }
    }

    /// Calls a second.
    pub(super) fn capacity(&self) -> f64 {
        self.world.connections as f64 / self.leases.mean()
    }

    pub(super) fn arrive(&mut self, at: f64) {
        let lease = self.leases.next(&mut self.rng);
        self.callers.push(Caller::new(at, lease, self.budget));
    }

    /// Calls as a Poisson process whose rate changes, in capacities; `most` is the highest.
    pub(super) fn poisson(&mut self, from: f64, until: f64, most: f64, times: impl Fn(f64) -> f64) {
        let mut at = from;
        loop {
            at += exponential(&mut self.rng) / (most * self.capacity());
            if at >= until {
                return;
            }
            if self.rng.f64() * most < times(at) {
                self.arrive(at);
            }
        }
    }

    pub(super) fn steady(&mut self, from: f64, until: f64, times: f64) {
        self.poisson(from, until, times, |_| times);
    }

    /// Calls that come together, each `period` on average.
    pub(super) fn bursts(&mut self, from: f64, until: f64, times: f64, period: f64, is_fixed: bool) {
        let mut at = from;
        while at < until {
            let gap = if is_fixed { period } else { period * exponential(&mut self.rng) };
            let mean = times * self.capacity() * period;
            // As many as a Poisson process brings: nearly normal.
            let calls = (mean + mean.sqrt() * normal(&mut self.rng)).round().max(0.0) as usize;
            (0..calls).for_each(|_| self.arrive(at));
            at += gap;
        }
    }

    /// One of three sources, each on for a third of the time and for `on` seconds on average.
    pub(super) fn source(&mut self, from: f64, until: f64, times: f64, on: f64) {
        let mut at = from + 3.0 * on * self.rng.f64();
        while at < until {
            let ends = at + on * exponential(&mut self.rng);
            self.steady(at, ends.min(until), times);
            at = ends + 2.0 * on * exponential(&mut self.rng);
        }
    }

    pub(super) fn end(
        mut self,
        family: &'static str,
        name: String,
        counted: Window,
        calm: Option<Window>,
        bounds: Bounds,
    ) -> Trace {
        self.callers.sort_by_key(|caller| caller.arrives);
        let name = format!("{} x {:?}, {name}", self.world.connections, self.leases);
        let refused = if self.world.connections < 3 { bounds.refused.max(FEW_CONNECTIONS) } else { bounds.refused };
        let bounds = Bounds { refused, ..bounds };
        Trace { family, name, world: self.world, callers: self.callers, counted, calm, bounds }
    }

    /// An overload of 24 budgets, then 0.6 for as long; `arrive` makes the calls from one moment to another at so many
    /// times the capacity.
    pub(super) fn overload(
        mut self,
        family: &'static str,
        name: String,
        times: f64,
        mut arrive: impl FnMut(&mut Self, f64, f64, f64),
    ) -> Trace {
        let ends = 24.0 * self.budget;
        // Enough callers that half a percent of them is a share.
        let last = ends + (16.0 * self.budget).max(2_000.0 / self.capacity());
        arrive(&mut self, 0.0, ends, times);
        arrive(&mut self, ends, last, 0.6);
        let counted = Window { from: 4.0 * self.budget, until: ends };
        let calm = Window { from: ends + self.budget, until: last };
        self.end(family, format!("{times}x, {name}"), counted, Some(calm), ANY)
    }

    /// Below the capacity throughout.
    pub(super) fn calm(self, family: &'static str, name: String, lasts: f64) -> Trace {
        let whole = Window { from: 0.0, until: lasts };
        let goodput = if self.world.connections == 1 { 0.94 } else { ANY.goodput };
        self.end(family, name, whole, Some(whole), Bounds { goodput, ..ANY })
    }
}

/// What is promised of most traces.
pub(super) const ANY: Bounds = Bounds { goodput: 0.97, refused: 0.005, median: f64::INFINITY, slower: 1.02 };
/// Where the load changes faster than the pool learns, each change costs at most the work of one wait budget; these
/// traces are 24 to 100 budgets long.
pub(super) const LEARNING: Bounds = Bounds { goodput: 0.89, ..ANY };
/// Bursts as long as the wait budget: whether the last callers of a burst are served in time is decided by less than
/// one lease.
pub(super) const EDGE: f64 = 0.04;
/// One or two connections whose leases differ: the wait of a dozen leases cannot be known any better, and a trace has a
/// few hundred callers.
pub(super) const FEW_CONNECTIONS: f64 = 0.07;
