//! What a session began with comes back after a reset: the role, and behind a pooler the parameters of the pool.

use failfast::{Config, Pool, Reset};

use super::LONG;
use crate::support::{eventually, pgbouncer::PgBouncer, server::Server};

const ROLE: &str = "SELECT current_user::text";

async fn text(pool: &Pool, sql: &str) -> String {
    let client = pool.get_timeout(LONG).await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Leaves this in a session, and waits for the clean-up.
async fn leave(pool: &Pool, sql: &str) {
    let client = pool.get_timeout(LONG).await.unwrap();
    client.batch_execute(sql).await.unwrap();
    drop(client);
    eventually("the session is clean", LONG, async || pool.status().settling == 0).await;
}

async fn keeps_its_role(config: Config, way: &str, role: &str) {
    for reset in [Reset::WhenSeen, Reset::Always, Reset::Never] {
        let name = format!("start_{way}_{reset:?}");
        let pool = Pool::builder(config.clone()).name(name).max_size(1).reset(reset).build().unwrap();
        let pid = text(&pool, "SELECT pg_backend_pid()::text").await;
        let without_reset = ["SELECT 1", "SET work_mem = '77kB'"];
        let changes = ["RESET ALL", "SET ROLE NONE", "SET ROLE pg_monitor", "SET SESSION AUTHORIZATION DEFAULT"];
        let changes = if reset == Reset::Never { &[][..] } else { &changes[..] };
        for sql in without_reset.iter().chain(changes) {
            leave(&pool, sql).await;
            assert_eq!(text(&pool, ROLE).await, role, "{way}, {reset:?}: {sql}");
        }
        assert_eq!(text(&pool, "SELECT pg_backend_pid()::text").await, pid, "the pool closed the connection");
    }
}

#[tokio::test]
async fn the_role_of_the_start_comes_back() {
    let server = Server::shared().await;
    let roles = "CREATE ROLE start_owner; CREATE ROLE start_login LOGIN PASSWORD 'secret';
        GRANT start_owner, pg_monitor TO start_login; ALTER ROLE start_login SET role = start_owner";
    server.execute(roles).await;
    let mut config = server.config();
    config.options("-c role=start_owner");
    keeps_its_role(config, "options", "start_owner").await;
    let mut config = server.config();
    config.user("start_login").password("secret");
    keeps_its_role(config, "login", "start_owner").await;
}

/// The names and the values of what the pool has asked for.
const ASKED_FOR: &str = "SELECT concat_ws('|', current_setting('application_name'), current_setting('client_encoding'),
    current_setting('TimeZone'), current_setting('DateStyle'), 'grün')";

/// The connections of PgBouncer begin with the settings of the database, to which `RESET ALL` takes them back.
#[tokio::test]
async fn a_reset_through_pgbouncer_leaves_the_parameters_of_the_pool() {
    let server = Server::shared().await;
    let ignored = "ignore_startup_parameters = options";
    let Some(bouncer) = PgBouncer::start(server, &[ignored]).await else { return };
    server.execute("CREATE DATABASE start_latin").await;
    for setting in ["client_encoding = 'LATIN1'", "TimeZone = 'Europe/Paris'", "application_name = 'database'"] {
        server.execute(&format!("ALTER DATABASE start_latin SET {setting}")).await;
    }
    let mut config = server.config_at(bouncer.addr());
    config.dbname("start_latin").options("-c TimeZone=Asia/Tokyo");
    for reset in [Reset::WhenSeen, Reset::Always] {
        let name = format!("o'start \\{reset:?}");
        let builder = Pool::builder(config.clone()).name(&*name).max_size(1).reset(reset).statement_cache(0);
        let pool = builder
            .after_connect(|client| Box::pin(client.batch_execute("SET DateStyle = 'German, DMY'")))
            .build()
            .unwrap();
        let expected = format!("{name}|UTF8|Asia/Tokyo|German, DMY|grün");
        assert_eq!(text(&pool, ASKED_FOR).await, expected, "{reset:?}, at the start");
        let changes = ["SET work_mem = '4MB'", "SET application_name = 'mine'", "RESET ALL", "SET TIME ZONE 'UTC'"];
        for sql in changes.into_iter().chain(["SET client_encoding = 'LATIN1'", "DISCARD ALL"]) {
            leave(&pool, sql).await;
            assert_eq!(text(&pool, ASKED_FOR).await, expected, "{reset:?}: {sql}");
        }
    }
}
