//! The actions of a caller in one turn. Some use the pool properly, and some carelessly.

use failfast::{Error, Transaction};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Caller, polled};

impl Caller {
    pub(super) async fn turn(&mut self) -> Result<(), Error> {
        match self.rng.u8(..14) {
            0 => self.one_shot().await,
            1 => self.late_one_shot().await,
            2 => self.lease_with_a_timeout().await,
            3 => self.dropped_on_a_lease().await,
            4 => self.two_at_once().await,
            5 => self.directly().await,
            6 => self.half_a_stream().await,
            7 => self.transaction_left_open().await,
            8 => self.session_left_changed().await,
            9 => self.copy_in().await,
            10 => self.copy_out().await,
            11 => self.transaction_by_hand().await,
            _ => self.transaction().await,
        }
    }

    fn short(&mut self) -> f64 {
        self.rng.f64() * 0.015
    }

    async fn one_shot(&mut self) -> Result<(), Error> {
        if self.rng.bool() {
            let answer = self.pool.simple_query(&self.what_is_left()).await?;
            self.check_nothing_is_left(&answer);
        } else {
            let row = self.pool.query_one("SELECT $1::text", &[&self.token()]).await?;
            assert_eq!(row.get::<_, String>(0), self.token(), "the answer to another query");
        }
        Ok(())
    }

    async fn late_one_shot(&mut self) -> Result<(), Error> {
        let (token, pool) = (self.token(), self.pool.clone());
        let sleep = if self.rng.bool() { 60.0 } else { self.short() };
        let sql = "WITH slept AS (SELECT pg_sleep($2)) INSERT INTO soak_applied SELECT $1::text FROM slept";
        let told = if self.rng.bool() {
            self.has_given_up = true;
            Some(pool.call().timeout(self.moment()).execute(sql, &[&token, &sleep]).await)
        } else {
            self.perhaps(pool.execute(sql, &[&token, &sleep])).await
        };
        self.seen.record.note(token, told.as_ref());
        told.transpose().map(drop)
    }

    /// Uses the connection further after a statement was late.
    async fn lease_with_a_timeout(&mut self) -> Result<(), Error> {
        self.has_given_up = true;
        let (pool, moment) = (self.pool.clone(), self.moment());
        let client = pool.call().timeout(moment).get().await?;
        for _ in 0..self.rng.u8(1..5) {
            let sleep = self.short();
            if let Err(error) = self.echo(&client, sleep).await {
                self.check(&error);
            }
        }
        Ok(())
    }

    /// Uses the connection further after a future was dropped.
    async fn dropped_on_a_lease(&mut self) -> Result<(), Error> {
        let client = self.fresh().await?;
        for _ in 0..self.rng.u8(1..4) {
            let echo = async { client.query_one("SELECT pg_sleep(60)", &[]).await.map(drop) };
            self.perhaps(echo).await.transpose()?;
            if self.rng.bool() {
                self.echo(&client, 0.0).await?;
            }
        }
        if self.rng.u8(..8) == 0 {
            client.discard()
        } else {
            drop(client)
        }
        Ok(())
    }

    /// Drops one of two concurrent statements on the connection. The other must not be cancelled.
    async fn two_at_once(&mut self) -> Result<(), Error> {
        let client = self.fresh().await?;
        let (one, other) = (self.short(), self.short());
        let (moment, polls) = (self.moment(), self.rng.u32(..6));
        let given_up = timeout(moment, polled(self.echo(&client, one), polls));
        let (given_up, kept) = tokio::join!(given_up, self.echo(&client, other));
        given_up.ok().flatten().transpose()?;
        kept
    }

    /// Uses the driver directly and carelessly, as code written for deadpool may.
    async fn directly(&mut self) -> Result<(), Error> {
        let mut client = self.fresh().await?;
        self.is_direct = true;
        let token = self.token();
        match self.rng.u8(..5) {
            0 => {
                let sleep = async { (*client).batch_execute("SELECT pg_sleep(60)").await };
                self.perhaps(sleep).await.transpose()?;
            }
            1 => (*client).batch_execute(&format!("BEGIN; INSERT INTO soak_open VALUES ('{token}')")).await?,
            2 => {
                let transaction = (*client).transaction().await?;
                transaction.execute("INSERT INTO soak_open VALUES ($1)", &[&token]).await?;
                // The transaction is dropped.
            }
            3 => {
                (*client).batch_execute(&format!("SET soak.token = '{token}'; SET work_mem = '5MB'")).await?;
                (*client).execute("SELECT pg_advisory_lock(hashtext($1))", &[&token]).await?;
            }
            _ => {
                let statement = (*client).prepare_cached("SELECT $1::text, pg_sleep($2)").await?;
                let sleep = self.short();
                let asked = async { (*client).query_one(&statement, &[&token, &sleep]).await };
                if let Some(row) = self.perhaps(asked).await.transpose()? {
                    assert_eq!(row.get::<_, String>(0), token, "the answer to another query");
                }
            }
        }
        // After `detach`, statements on the connection are the caller's own affair.
        if !self.has_given_up && self.rng.u8(..8) == 0 {
            drop(client.detach());
        }
        Ok(())
    }

    async fn half_a_stream(&mut self) -> Result<(), Error> {
        let token = self.token();
        let sql = "SELECT $1::text FROM generate_series(1, 20000)";
        let rows_wanted = self.rng.usize(..300);
        if self.rng.bool() {
            let mut rows = self.pool.query_raw(sql, [&token]).await?;
            self.read(&mut rows, rows_wanted).await?;
            return Ok(());
        }
        let client = self.fresh().await?;
        let mut rows = client.query_raw(sql, [&token]).await?;
        self.read(&mut rows, rows_wanted).await?;
        drop(rows);
        self.has_given_up = true;
        if self.rng.bool() { self.echo(&client, 0.0).await } else { Ok(()) }
    }

    async fn read(&self, rows: &mut failfast::RowStream<'_>, wanted: usize) -> Result<(), Error> {
        for _ in 0..wanted {
            let row = rows.next().await.expect("more rows")?;
            assert_eq!(row.get::<_, String>(0), self.token(), "the answer to another query");
        }
        Ok(())
    }

    async fn transaction_left_open(&mut self) -> Result<(), Error> {
        let (client, token) = (self.fresh().await?, self.token());
        let insert = format!("INSERT INTO soak_open VALUES ('{token}')");
        let begin = async { client.batch_execute(&format!("BEGIN; SAVEPOINT a; {insert}")).await };
        self.perhaps(begin).await.transpose()?;
        Ok(())
    }

    async fn session_left_changed(&mut self) -> Result<(), Error> {
        let (client, token) = (self.fresh().await?, self.token());
        let change = match self.rng.u8(..5) {
            0 => &format!("SET soak.token = '{token}'"),
            1 => "SET work_mem = '6MB'",
            2 => "LISTEN soak_channel",
            3 => "BEGIN; DECLARE soak_cursor CURSOR WITH HOLD FOR SELECT 1; COMMIT",
            _ => "CREATE TEMPORARY TABLE soak_temporary (id int)",
        };
        let change = async { client.batch_execute(change).await };
        self.perhaps(change).await.transpose().map(drop)
    }

    async fn copy_in(&mut self) -> Result<(), Error> {
        let (client, token) = (self.fresh().await?, self.token());
        let mut sink = client.copy_in("COPY soak_copied FROM STDIN").await?;
        let (rows, wanted) = (self.rng.u64(..200), self.rng.u8(..3));
        let work = async {
            for row in 0..rows {
                sink.send(bytes(format!("{token}\t{row}\n"))).await?;
            }
            if wanted > 0 { sink.finish().await.map(Some) } else { Ok(None) }
        };
        if let Some(copied) = self.perhaps(work).await.transpose()?.flatten() {
            assert_eq!(copied, rows);
        }
        self.has_given_up = true;
        drop(sink);
        if self.rng.bool() { self.echo(&client, 0.0).await } else { Ok(()) }
    }

    async fn copy_out(&mut self) -> Result<(), Error> {
        let client = self.fresh().await?;
        let mut data = client.copy_out("COPY (SELECT generate_series(1, 5000)) TO STDOUT").await?;
        for _ in 0..self.rng.u16(..6000) {
            let Some(piece) = data.next().await else { break };
            piece?;
        }
        drop(data);
        self.has_given_up = true;
        if self.rng.bool() { self.echo(&client, 0.0).await } else { Ok(()) }
    }

    async fn transaction_by_hand(&mut self) -> Result<(), Error> {
        let (client, token) = (self.fresh().await?, self.token());
        let is_kept = self.rng.bool();
        let work = async {
            let tx = client.transaction().await?;
            write(&tx, &token).await?;
            if is_kept { tx.commit().await.map(|()| true) } else { Ok(false) }
        };
        let told = self.perhaps(work).await;
        match &told {
            Some(Ok(false)) => {} // rolled back, so the record must not contain it
            told => self.seen.record.note(token, told.as_ref()),
        }
        told.transpose().map(drop)
    }

    async fn transaction(&mut self) -> Result<(), Error> {
        let (pool, token) = (self.pool.clone(), self.token());
        let (is_kept, is_nested, sleep) = (self.rng.bool(), self.rng.bool(), self.short());
        let work = pool.transaction(|tx| {
            let token = token.clone();
            async move {
                write(&tx, &token).await?;
                if is_nested {
                    let undone: Result<(), Error> = tx
                        .savepoint(|tx| async move {
                            write(&tx, "undone").await?;
                            Err(Error::Closed)
                        })
                        .await;
                    assert!(undone.is_err());
                }
                tx.query("SELECT pg_sleep($1)", &[&sleep]).await?;
                let own = tx.query_one("SELECT current_setting('soak.token', true)", &[]).await?;
                assert_eq!(own.get::<_, String>(0), token, "the transaction belongs to another caller");
                if is_kept { Ok(()) } else { Err(Error::Closed) }
            }
        });
        let told = if self.rng.bool() { Some(work.await) } else { self.perhaps(work).await };
        self.seen.record.note(token, told.as_ref());
        match told {
            Some(Err(Error::Closed)) => Ok(()), // the closure's own error
            told => told.transpose().map(drop),
        }
    }
}

/// Asserts that the transaction has just begun, and inserts into it.
async fn write(tx: &Transaction, token: &str) -> Result<(), Error> {
    let is_nested = token == "undone";
    let row = tx
        .query_one(
            "SELECT pg_current_xact_id_if_assigned() IS NULL, coalesce(current_setting('soak.token', true), '')",
            &[],
        )
        .await?;
    let begun: (bool, String) = (row.get(0), row.get(1));
    assert!(is_nested || begun == (true, String::new()), "{token}: inside another transaction: {begun:?}");
    tx.execute("SELECT set_config('soak.token', $1, true)", &[&token]).await?;
    tx.execute("INSERT INTO soak_applied VALUES ($1)", &[&token]).await?;
    Ok(())
}

fn bytes(text: String) -> std::io::Cursor<Vec<u8>> {
    std::io::Cursor::new(text.into_bytes())
}
