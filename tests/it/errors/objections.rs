//! What services tell apart in the server's answers: each objection, on each way to the server, and in each language.

use bytes::Bytes;
use failfast::{Client, Error, IsolationLevel, Pool, TransactionOptions};
use tokio::try_join;

use crate::support::server::Server;

const TABLES: &str = "
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE bookings (
        id int CONSTRAINT \"Bookings id\" PRIMARY KEY,
        parent int CONSTRAINT bookings_parent REFERENCES parents,
        seats int NOT NULL CONSTRAINT bookings_seats CHECK (seats > 0),
        code varchar(3),
        small int2,
        nights int4range,
        late int CONSTRAINT bookings_late UNIQUE DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT bookings_nights EXCLUDE USING gist (nights WITH &&)
    );
    INSERT INTO parents VALUES (1);
    INSERT INTO bookings VALUES (1, 1, 2, 'abc', 1, '[1,3)', 1)";

/// Pools whose sessions have these languages: English, and German if the server has it.
async fn pools(name: &str) -> Vec<Pool> {
    let server = Server::shared().await;
    let german = "locale -a | grep -qix 'de_DE\\.utf-\\?8' && test -e /usr/share/locale/de/LC_MESSAGES/postgres-17.mo";
    let has_german = server.exec(&format!("if {german}; then echo yes; fi")).await.trim() == "yes";
    let mut pools = Vec::new();
    for language in ["C", "de_DE.UTF-8"].into_iter().take(if has_german { 2 } else { 1 }) {
        let schema = format!("{name}_{}", &language[..1]);
        server.execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {TABLES}")).await;
        let mut config = server.config();
        config.options(format!("-c lc_messages={language} -c search_path={schema}"));
        let pool = Pool::builder(config).name(&schema).max_size(3).build().unwrap();
        let error = pool.execute("SELECT 1/0", &[]).await.unwrap_err();
        assert_eq!(error.to_string().contains("Division durch Null"), language.starts_with("de"), "{error}");
        pools.push(pool);
    }
    pools
}

/// The names of all methods that return `true`, and the constraint.
fn objection(error: &Error) -> (String, Option<&str>) {
    let names = [
        ("unique", error.is_unique_violation()),
        ("foreign_key", error.is_foreign_key_violation()),
        ("check", error.is_check_violation()),
        ("not_null", error.is_not_null_violation()),
        ("exclusion", error.is_exclusion_violation()),
        ("too_long", error.is_value_too_long()),
        ("out_of_range", error.is_value_out_of_range()),
        ("invalid_text", error.is_invalid_text()),
        ("privilege", error.is_insufficient_privilege()),
        ("lock", error.is_lock_not_available()),
        ("serialization", error.is_serialization_failure()),
        ("deadlock", error.is_deadlock()),
    ];
    let names: Vec<_> = names.into_iter().filter_map(|(name, is_it)| is_it.then_some(name)).collect();
    (names.join(","), error.constraint())
}

fn assert_is(error: &Error, name: &str, constraint: Option<&str>) {
    assert_eq!(objection(error), (name.to_owned(), constraint), "{error}");
    assert!(error.is_worth_logging(), "{error}");
}

/// Statements that the server refuses, with what it objects to and the constraint that it names.
const REFUSED: &[(&str, &str, Option<&str>)] = &[
    ("INSERT INTO bookings (id, seats) VALUES (1, 1)", "unique", Some("Bookings id")),
    ("INSERT INTO bookings (id, seats, parent) VALUES (2, 1, 9)", "foreign_key", Some("bookings_parent")),
    ("DELETE FROM parents", "foreign_key", Some("bookings_parent")),
    ("INSERT INTO bookings (id, seats) VALUES (2, 0)", "check", Some("bookings_seats")),
    ("INSERT INTO bookings (id) VALUES (2)", "not_null", None),
    ("INSERT INTO bookings (id, seats, nights) VALUES (2, 1, '[2,4)')", "exclusion", Some("bookings_nights")),
    ("INSERT INTO bookings (id, seats, code) VALUES (2, 1, 'abcd')", "too_long", None),
    ("INSERT INTO bookings (id, seats, small) VALUES (2, 1, 70000)", "out_of_range", None),
    ("SELECT 2147483647 + 1", "out_of_range", None),
    ("SELECT timestamp '2026-01-01' + interval '999999 years'", "out_of_range", None),
    ("SELECT 'x'::text::int", "invalid_text", None),
    ("SELECT 'x'::text::uuid", "invalid_text", None),
    ("SELECT '31 February'::text::date", "invalid_text", None),
    ("SELECT '{\"a\": \"\\u0000\"}'::text::jsonb ->> 'a'", "invalid_text", None),
    ("SELECT 1/0", "", None),
    ("SELECT nothing", "", None),
    ("DO $$ BEGIN RAISE EXCEPTION 'duplicate key value violates unique constraint'; END $$", "", None),
    ("DO $$ BEGIN INSERT INTO bookings (id, seats) VALUES (1, 1); END $$", "unique", Some("Bookings id")),
];

#[tokio::test]
async fn each_objection_is_recognized_on_each_way_to_the_server() {
    for pool in pools("objections").await {
        for (sql, name, constraint) in REFUSED {
            assert_is(&pool.execute(sql, &[]).await.unwrap_err(), name, *constraint);
            assert_is(&pool.batch_execute(sql).await.unwrap_err(), name, *constraint);
            let client = pool.get().await.unwrap();
            assert_is(&client.query(*sql, &[]).await.unwrap_err(), name, *constraint);
            let through_the_deref = (**client).simple_query(sql).await.unwrap_err();
            assert_is(&Error::from(through_the_deref), name, *constraint);
        }
    }
}

#[tokio::test]
async fn a_text_with_a_nul_character_is_invalid() {
    for pool in pools("nul").await {
        let error = pool.query("SELECT $1::text", &[&"a\0b"]).await.unwrap_err();
        assert_is(&error, "invalid_text", None);
    }
}

#[tokio::test]
async fn the_table_and_the_column_are_named() {
    for pool in pools("names").await {
        let error = pool.execute("INSERT INTO bookings (id) VALUES (2)", &[]).await.unwrap_err();
        assert_eq!((error.table(), error.column()), (Some("bookings"), Some("seats")));
        let error = pool.execute("INSERT INTO bookings (id, seats) VALUES (1, 1)", &[]).await.unwrap_err();
        assert_eq!((error.table(), error.column()), (Some("bookings"), None));
        let error = pool.execute("SELECT 1/0", &[]).await.unwrap_err();
        assert_eq!((error.table(), error.column()), (None, None));
    }
}

/// The server checks a deferred constraint when it commits.
#[tokio::test]
async fn a_deferred_constraint_is_recognized_at_the_commit() {
    const LATE: &str = "INSERT INTO bookings (id, seats, late) VALUES (2, 1, 1)";
    let constraint = Some("bookings_late");
    for pool in pools("deferred").await {
        let work = async |tx: failfast::Transaction| tx.execute(LATE, &[]).await;
        let error = pool.transaction(work).await.unwrap_err();
        assert_is(&error, "unique", constraint);

        let tx = pool.get().await.unwrap().transaction().await.unwrap();
        tx.execute(LATE, &[]).await.unwrap();
        assert_is(&tx.commit().await.unwrap_err(), "unique", constraint);

        let batch = format!("BEGIN; {LATE}; COMMIT");
        assert_is(&pool.batch_execute(&batch).await.unwrap_err(), "unique", constraint);

        let mut client = pool.get().await.unwrap();
        let tx = (**client).transaction().await.unwrap();
        tx.execute(LATE, &[]).await.unwrap();
        assert_is(&Error::from(tx.commit().await.unwrap_err()), "unique", constraint);

        // Outside a transaction, the statement commits itself.
        assert_is(&pool.execute(LATE, &[]).await.unwrap_err(), "unique", constraint);
    }
}

async fn copy(client: &Client, rows: &'static str) -> Result<u64, Error> {
    let mut copy = client.copy_in("COPY bookings (id, seats, code) FROM STDIN (FORMAT csv)").await?;
    copy.send(Bytes::from_static(rows.as_bytes())).await?;
    copy.finish().await
}

#[tokio::test]
async fn a_violated_constraint_is_recognized_in_a_copy() {
    for pool in pools("copy").await {
        let client = pool.get().await.unwrap();
        for (rows, name, constraint) in [
            ("1,1,abc\n", "unique", Some("Bookings id")),
            ("2,0,abc\n", "check", Some("bookings_seats")),
            ("2,,abc\n", "not_null", None),
            ("2,1,abcd\n", "too_long", None),
            ("2,x,abc\n", "invalid_text", None),
            ("2,9999999999,abc\n", "out_of_range", None),
        ] {
            assert_is(&copy(&client, rows).await.unwrap_err(), name, constraint);
        }
    }
}

#[tokio::test]
async fn data_that_do_not_fit_are_a_data_exception() {
    for pool in pools("data").await {
        for (sql, name, _) in REFUSED {
            let error = pool.execute(sql, &[]).await.unwrap_err();
            let is_data = ["too_long", "out_of_range", "invalid_text"].contains(name) || *sql == "SELECT 1/0";
            assert_eq!(error.is_data_exception(), is_data, "{error}");
        }
        let client = pool.get().await.unwrap();
        for (rows, is_data) in [("2,x,abc\n", true), ("2,1\n", true), ("2,1,abc,4\n", true), ("2,,abc\n", false)] {
            let error = copy(&client, rows).await.unwrap_err();
            assert_eq!(error.is_data_exception(), is_data, "{rows}: {error}");
        }
    }
    let nowhere = Pool::builder("host=127.0.0.1 port=1 user=nobody".parse().unwrap()).build().unwrap();
    assert!(!nowhere.query("SELECT 1", &[]).await.unwrap_err().is_data_exception());
}

#[tokio::test]
async fn what_other_transactions_cause_is_recognized() {
    for pool in pools("others").await {
        let begin = async |options| pool.get().await.unwrap().transaction_with(options).await.unwrap();
        let snapshot = TransactionOptions::new().isolation(IsolationLevel::RepeatableRead);
        let reader = begin(snapshot).await;
        reader.query("SELECT * FROM bookings", &[]).await.unwrap();
        pool.execute("UPDATE bookings SET seats = 3", &[]).await.unwrap();
        let error = reader.execute("UPDATE bookings SET seats = 4", &[]).await.unwrap_err();
        assert_is(&error, "serialization", None);
        reader.rollback().await;

        let (one, two) = (begin(TransactionOptions::new()).await, begin(TransactionOptions::new()).await);
        one.execute("UPDATE parents SET id = id", &[]).await.unwrap();
        let error = two.query("SELECT * FROM parents FOR UPDATE NOWAIT", &[]).await.unwrap_err();
        assert_is(&error, "lock", None);
        two.rollback().await;

        let two = begin(TransactionOptions::new()).await;
        two.batch_execute("SET LOCAL deadlock_timeout = 10; UPDATE bookings SET seats = 5").await.unwrap();
        let crossed =
            try_join!(one.execute("UPDATE bookings SET seats = 6", &[]), two.execute("DELETE FROM parents", &[]));
        assert_is(&crossed.unwrap_err(), "deadlock", None);
    }
}

#[tokio::test]
async fn a_missing_privilege_is_recognized() {
    for pool in pools("privilege").await {
        let work = async |tx: failfast::Transaction| {
            tx.batch_execute("SET LOCAL ROLE pg_monitor").await?;
            tx.execute("DELETE FROM pg_authid", &[]).await
        };
        assert_is(&pool.transaction(work).await.unwrap_err(), "privilege", None);
    }
}
