//! What a reset of a session runs: the statements of deadpool's `RecyclingMethod::Clean`, and what these miss.
//!
//! They miss the role with which the session began, statements that SQL prepared, and behind a pooler the parameters
//! that the pool itself has asked for. The first two cost no round trip of their own.

use deadpool_postgres::RecyclingMethod;
use tokio_postgres::SimpleQueryMessage;

use super::connection::Conn;
use super::handling::Reset;

/// `RESET ALL` leaves the role alone. Before the minor releases of November 2024, `SET SESSION AUTHORIZATION DEFAULT`
/// set it to none, whatever the connection string or `ALTER ROLE ... SET role` said.
const ROLE: &str = "RESET ROLE;";

/// Returns commands that drop the statements which were prepared by SQL. The driver's own stay.
const PREPARED: &str = "SELECT format('DEALLOCATE %I', name) FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// Resets the session. Takes one more round trip if SQL has prepared a statement, or if a parameter of the pool's own
/// is not back to its value. Returns whether that succeeded.
pub(super) async fn reset(conn: &Conn) -> bool {
    let may_have_prepared = conn.handling.reset == Reset::Always || conn.link.wire.may_have_prepared();
    let Some(sql) = statements(may_have_prepared) else { return false };
    let Ok(answers) = conn.object.simple_query(&sql).await else { return false };
    conn.link.statement_timeout.on_reset();
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let drops = rows.filter(|sql| sql.starts_with("DEALLOCATE ")).map(str::to_owned);
    let more: Vec<_> = drops.chain(restorations(conn)).collect();
    more.is_empty() || conn.object.batch_execute(&more.join("; ")).await.is_ok()
}

fn statements(may_have_prepared: bool) -> Option<String> {
    let clean = RecyclingMethod::Clean;
    let prepared = if may_have_prepared { PREPARED } else { "" };
    Some(format!("{} {ROLE} {prepared}", clean.query()?))
}

/// Returns statements for the parameters that the pool asked for when the session began and that have another value
/// now.
///
/// Behind PgBouncer, `RESET ALL` restores what the pooler's own connection began with, and the pooler then takes that
/// for the wish of this client.
fn restorations(conn: &Conn) -> impl Iterator<Item = String> {
    let changed = conn.link.wire.changed_since_start().into_iter();
    let own = changed.filter(|(name, _)| conn.asked_for.has(name));
    own.map(|(name, value)| format!("SELECT pg_catalog.set_config({}, {}, false)", literal(&name), literal(&value)))
}

/// Returns a literal that means the same whether `standard_conforming_strings` is on or off.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::NoTls;

    use super::*;
    use crate::conn::tests::shared_server;

    /// The server of this test may be newer than that, so the test does by hand what an older one did.
    #[tokio::test]
    async fn the_role_of_the_start_comes_back_on_servers_before_november_2024() {
        let mut config = shared_server().await.config();
        config.options("-c role=pg_monitor");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let sql = statements(true).unwrap();
        let older = sql.replace("AUTHORIZATION DEFAULT;", "AUTHORIZATION DEFAULT; SET ROLE NONE;");
        assert_ne!(sql, older);
        client.batch_execute(&older).await.unwrap();
        let role = client.query_one("SELECT current_user::text", &[]).await.unwrap();
        assert_eq!(role.get::<_, &str>(0), "pg_monitor");
    }

    #[test]
    fn a_literal_needs_no_setting() {
        assert_eq!(literal(r"o'clock \ x"), r"E'o''clock \\ x'");
    }
}
