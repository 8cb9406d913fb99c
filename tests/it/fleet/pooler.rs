//! Behind a pooler there is no fleet, and the pool says so.

use std::sync::{Arc, Mutex};

use failfast::{Event, FleetState};

use super::{fleet, member};
use crate::pool::LONG;
use crate::support::eventually;
use crate::support::pgbouncer::PgBouncer;
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_the_budget_is_off_and_said() {
    let server = Server::own(&[]).await;
    let Some(pooler) = PgBouncer::start(&server, &[]).await else {
        return eprintln!("no image has PgBouncer: skipped");
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let observer = move |event: &Event| saw.lock().unwrap().push((event.kind.as_str(), event.to_string()));
    let pool = member(server.config_at(pooler.addr())).statement_cache(0).observer(observer).build().unwrap();
    // The first dial has startup options, which PgBouncer refuses. The pool does without.
    pool.query("SELECT 1", &[]).await.unwrap();
    eventually("the pooler is noticed", LONG, async || fleet(&pool).state == FleetState::Off).await;
    assert_eq!((pool.status().max_size, fleet(&pool).granted), (40, 40), "the owner's limit");
    eventually("it is said", LONG, async || seen.lock().unwrap().iter().any(|(kind, _)| *kind == "fleet_off")).await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ff1 %'";
    assert_eq!(server.scalar(count).await, "0", "no beacon is left on a connection of others");
}
