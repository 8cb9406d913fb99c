//! Together with the budget of a fleet: the smallest number counts, and a member asks for no more than it would use.

use failfast::{Adaptive, FleetConfig, FleetState};

use super::{STEPS, pool, status};
use crate::support::eventually;
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_fleet_asks_for_no_more_than_its_limit() {
    let server = Server::own(&[("max_connections", "50")]).await;
    let (builder, _seen) = pool(server.config(), "adaptive-fleet", Adaptive::Act);
    let pool = builder.max_size(40).adaptive_start(4).fleet(FleetConfig::new("shop").minimum(2)).build().unwrap();
    assert_eq!(pool.status().max_size, 2, "a newcomer lives on its minimum");
    let fleet = || pool.status().fleet.expect("the pool is a member");
    let mut held = Vec::new();
    eventually("it may use its limit", STEPS, async || {
        held.extend(pool.try_get().ok());
        held.len() == 4
    })
    .await;
    eventually("it shares", STEPS, async || fleet().state == FleetState::Sharing).await;
    assert!(fleet().wanted <= 4 && pool.status().max_size == 4 && status(&pool).limit == 4, "{}", pool.status());
    pool.resize(3).unwrap();
    assert_eq!((pool.status().max_size, fleet().max_size, status(&pool).max_size), (3, 3, 3));
    pool.resize(40).unwrap();
    assert!(pool.status().max_size <= 3, "the limit has followed: {}", pool.status());
    held.clear();
}
