//! The example of separate pools and of lanes. Its claims hold, and they would not hold with one plain pool for all.

use std::time::Duration;

use failfast::Settings;

use example::{Outcome, Tiers, Way, connections_of};

use crate::support::server::Server;

#[allow(clippy::duplicate_mod, dead_code, reason = "unused here: main and its throwaway server")]
#[path = "../../examples/tiers.rs"]
mod example;

/// The bound for a busy machine: more than the example allows, and less than the effect of one pool for all tiers.
const BOUND: Duration = Duration::from_secs(1);

fn of<'a>(outcomes: &'a [Outcome], name: &str) -> &'a Outcome {
    outcomes.iter().find(|outcome| outcome.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_tier_does_not_slow_the_others() {
    let server = Server::own(&[]).await;
    let tiers = Tiers::example().unwrap();
    assert!(tiers.budget(connections_of(&server.config()).await.unwrap()).is_ok());
    let outcomes = tiers.run(&server.config(), Way::Pools).await.unwrap();
    let suffering: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.suffers(BOUND)).collect();
    assert!(suffering.is_empty(), "{suffering:?}");
    let analytics = of(&outcomes, "analytics");
    assert_eq!(analytics.before.refused(), 0, "analytics had refusals before the flood");
    // Ten connections with 400 ms for each call, for 5 s and for the calls that still wait then.
    let during = &analytics.during;
    assert!((60..=150).contains(&during.served.len()), "{} of {} were served", during.served.len(), during.offered);
    assert!(during.percentile(99) < Duration::from_secs(3), "{:?}", during.percentile(99));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_lanes_in_one_pool_a_flood_slows_no_other_tier() {
    let server = Server::own(&[]).await;
    let outcomes = Tiers::example().unwrap().run(&server.config(), Way::Lanes).await.unwrap();
    let suffering: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.suffers(BOUND)).collect();
    assert!(suffering.is_empty(), "{suffering:?}");
    // Half of 63 connections with 400 ms for each call, three times as many as its own pool had.
    let analytics = of(&outcomes, "analytics");
    assert!(analytics.during.served.len() > 150, "{} were served", analytics.during.served.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_pool_for_all_a_flood_slows_every_tier() {
    let server = Server::own(&[]).await;
    let outcomes = Tiers::example().unwrap().run(&server.config(), Way::Together).await.unwrap();
    for name in ["web", "api", "admin"] {
        assert!(of(&outcomes, name).suffers(BOUND).is_some(), "{name} did not suffer");
    }
}

#[test]
fn the_example_has_the_documented_waits_and_budget() {
    let tiers = Tiers::example().unwrap();
    let waits = [&tiers.web, &tiers.api, &tiers.analytics, &tiers.admin].map(|tier| tier.acquire_timeout.unwrap());
    assert_eq!(waits, [5, 8, 30, 2].map(Duration::from_secs));
    let line = tiers.budget(65).unwrap();
    assert!(line.contains("63 connections in pools + 2 in reserve = 65 of the 65"), "{line}");
    let refusal = tiers.budget(64).unwrap_err().to_string();
    assert!(refusal.ends_with(" = 65: the server takes 64"), "{refusal}");
    let without = Tiers { web: Settings::default(), ..tiers };
    assert_eq!(without.budget(100).unwrap_err().to_string(), "each tier needs a max_size");
}
