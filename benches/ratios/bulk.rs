//! Times bulk inserts through the pool beside the plain driver doing the same: rows in the binary format of COPY,
//! pipelined statements, and a loop of statements. Each is one transaction.

use std::pin::pin;
use std::time::{Duration, Instant};

use failfast::{Pool, Transaction};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use super::Report;
use super::support::Throwaway;
use super::turns::{self, Plan, Ratio, Side};

const PLAN: Plan = Plan { sets: 1, rounds: 6 };
const TYPES: [Type; 3] = [Type::INT8, Type::TEXT, Type::FLOAT8];
const TABLE: &str = "CREATE UNLOGGED TABLE IF NOT EXISTS bulk (id bigint, name text, value float8)";
const COPY: &str = "COPY bulk FROM STDIN (FORMAT binary)";
const INSERT: &str = "INSERT INTO bulk VALUES ($1, $2, $3)";
/// As many statements as the pool sends ahead.
const AHEAD: usize = 256;

struct Row {
    id: i64,
    name: String,
    value: f64,
}

impl Row {
    fn values(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.id, &self.name, &self.value]
    }
}

/// How the rows are inserted, and how many of them in one turn.
#[derive(Clone, Copy)]
enum Way {
    Copy,
    Many,
    Loop,
}

impl Way {
    const ALL: [Self; 3] = [Self::Copy, Self::Many, Self::Loop];

    fn name(self) -> &'static str {
        match self {
            Self::Copy => "bulk-copy",
            Self::Many => "bulk-many",
            Self::Loop => "bulk-loop",
        }
    }

    fn rows(self) -> i64 {
        match self {
            Self::Copy => 1_000_000,
            Self::Many => 100_000,
            Self::Loop => 20_000,
        }
    }
}

pub(super) async fn measure(server: &Throwaway, report: &mut Report) {
    for way in Way::ALL {
        if report.wants(way.name()) {
            in_turns(server, way).await.at_most(report, way.name(), 1.05);
        }
    }
}

async fn in_turns(server: &Throwaway, way: Way) -> Ratio {
    let rows: Vec<_> =
        (0..way.rows()).map(|id| Row { id, name: format!("customer number {id}"), value: id as f64 / 7.0 }).collect();
    let prepare = async || {
        let builder = Pool::builder(server.config()).max_size(1).acquire_timeout(Duration::from_secs(60));
        let (client, connection) = server.config().connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client.batch_execute(TABLE).await.expect("a table");
        (builder.build().expect("good settings"), tokio::sync::Mutex::new(client))
    };
    let rows = &rows;
    let what = format!("{}, {} rows", way.name(), rows.len());
    turns::measure(&what, PLAN, prepare, async |(pool, client), side| {
        let mut client = client.lock().await;
        client.batch_execute("TRUNCATE bulk").await.expect("an empty table");
        let begun = Instant::now();
        let inserted = match side {
            Side::Ours => ours(pool, way, rows).await.expect("rows"),
            Side::Theirs => theirs(&mut client, way, rows).await.expect("rows"),
        };
        let took = begun.elapsed();
        assert_eq!(inserted, rows.len() as u64);
        took
    })
    .await
}

async fn ours(pool: &Pool, way: Way, rows: &[Row]) -> Result<u64, failfast::Error> {
    match way {
        Way::Copy => pool.copy_in_rows(COPY, &TYPES, rows.iter().map(Row::values)).await,
        Way::Many => pool.execute_many(INSERT, rows.iter().map(Row::values)).await,
        Way::Loop => {
            let all = async |tx: Transaction| {
                let mut inserted = 0;
                for row in rows {
                    inserted += tx.execute(INSERT, &row.values()).await?;
                }
                Ok(inserted)
            };
            pool.transaction_once(all).await
        }
    }
}

async fn theirs(client: &mut Client, way: Way, rows: &[Row]) -> Result<u64, tokio_postgres::Error> {
    if let Way::Copy = way {
        let sink = client.copy_in(COPY).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
        for row in rows {
            writer.as_mut().write(&row.values()).await?;
        }
        return writer.finish().await;
    }
    let tx = client.transaction().await?;
    let statement = tx.prepare(INSERT).await?;
    let inserted = if let Way::Many = way {
        let statements = rows.iter().map(|row| tx.execute_raw(&statement, row.values()));
        stream::iter(statements).buffered(AHEAD).try_fold(0, async |sum, rows| Ok(sum + rows)).await?
    } else {
        let mut inserted = 0;
        for row in rows {
            inserted += tx.execute(&statement, &row.values()).await?;
        }
        inserted
    };
    tx.commit().await?;
    Ok(inserted)
}
