//! Room for all instances, and connections to spare.

use failfast::Pool;
use failfast::preflight::{Check, Grade, Plan};
use futures_util::future::join_all;
use tokio_postgres::Client;

use super::{assert_grade, found, pool_of, role};
use crate::support::{eventually, server::Server};

/// Sessions of somebody else.
async fn sessions(server: &Server, count: usize) -> Vec<Client> {
    join_all((0..count).map(|_| server.admin())).await
}

#[tokio::test]
async fn instances_with_surge_must_fit_beside_the_sessions_of_others() {
    let server = Server::own(&[("max_connections", "30"), ("superuser_reserved_connections", "2")]).await;
    role(&server, "fits").await;
    let pool = pool_of(&server, "fits");
    let others = sessions(&server, 8).await;
    // 20 are left of 28.
    let plan = Plan::new().max_size(4);
    for (instances, surge, grade) in
        [(4, 0, Grade::Ok), (4, 1, Grade::Warning), (4, 2, Grade::Critical), (6, 0, Grade::Critical)]
    {
        let report = pool.preflight(&plan.clone().instances(instances).surge(surge)).await;
        assert_grade(&report, Check::FreeSlots, grade);
        assert!(found(&report, Check::FreeSlots).limit.contains("28 less 8 of others"), "{report}");
    }
    // The sessions of the fleet are replaced by the new ones.
    pool.warm_up(4, super::LONG).await.unwrap();
    let report = pool.preflight(&plan.clone().instances(4)).await;
    assert_grade(&report, Check::FreeSlots, Grade::Ok);
    let report = pool.preflight(&plan.fleet("another name").instances(4).surge(1)).await;
    assert_grade(&report, Check::FreeSlots, Grade::Critical);
    drop(others);
}

#[tokio::test]
async fn a_server_without_any_slot_is_critical() {
    let server = Server::own(&[("max_connections", "12"), ("superuser_reserved_connections", "3")]).await;
    role(&server, "full").await;
    let pool = pool_of(&server, "full");
    let _others = sessions(&server, 9).await;
    let report = pool.preflight(&Plan::new()).await;
    assert_grade(&report, Check::FreeSlots, Grade::Critical);
    assert_eq!(found(&report, Check::FreeSlots).value, "no free slot at all");
    assert_grade(&report, Check::Timeouts, Grade::NotKnown);
    assert_eq!(report.exit_code(), 1);
}

#[tokio::test]
async fn the_limits_of_role_and_database_count() {
    let server = Server::own(&[]).await;
    role(&server, "few").await;
    let pool = pool_of(&server, "few");
    let plan = Plan::new().instances(3);
    let report = pool.preflight(&plan).await;
    assert_eq!(found(&report, Check::RoleLimit).value, "no limit");
    assert_eq!(found(&report, Check::DatabaseLimit).value, "no limit");

    server.execute("ALTER ROLE few CONNECTION LIMIT 11").await;
    server.execute("ALTER DATABASE failfast CONNECTION LIMIT 15").await;
    let other = server.admin().await;
    let of_role = server.config().user("few").password("secret").application_name("psql").clone();
    let (mine, driving) = of_role.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(driving);
    // 10 are left for the role, 13 in the database, and 12 are wanted.
    let report = pool.preflight(&plan).await;
    assert_grade(&report, Check::RoleLimit, Grade::Critical);
    assert_grade(&report, Check::DatabaseLimit, Grade::Warning);
    let report = pool.preflight(&plan.surge(1)).await;
    assert_grade(&report, Check::DatabaseLimit, Grade::Critical);
    assert_grade(&report, Check::FreeSlots, Grade::Ok);
    drop((other, mine));
}

#[tokio::test]
async fn a_fleet_without_headroom_is_critical() {
    let server = Server::shared().await;
    role(server, "pre_busy").await;
    let pool = pool_of(server, "pre_busy");
    let plan = Plan::new();
    // This process has served nothing, and no other is there.
    let fresh = pool.preflight(&plan).await;
    assert_grade(&fresh, Check::DemandHeadroom, Grade::NotKnown);

    // Another instance. Its demand is seen on the server, in a pipeline that serves nothing itself.
    let instance: Pool = pool_of(server, "pre_busy");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(instance.get().await.unwrap().transaction().await.unwrap());
    }
    let report = pool.preflight(&plan).await;
    assert_grade(&report, Check::DemandHeadroom, Grade::Ok);
    assert!(found(&report, Check::DemandHeadroom).value.starts_with("25% free"), "{report}");
    held.push(instance.get().await.unwrap().transaction().await.unwrap());
    let report = pool.preflight(&plan).await;
    assert_grade(&report, Check::DemandHeadroom, Grade::Critical);
    let report = pool.preflight(&plan.clone().instances(2)).await;
    assert_grade(&report, Check::DemandHeadroom, Grade::Ok);
    drop(held);
    eventually("the sessions are idle", super::LONG, async || {
        found(&pool.preflight(&plan).await, Check::DemandHeadroom).value.starts_with("100% free")
    })
    .await;
}
