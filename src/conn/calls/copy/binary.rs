//! Rows in the binary format of COPY, as [the server's documentation] describes it.
//!
//! The driver's writer and stream take only the driver's own copies. The writer here has a counterpart of its own. The
//! stream of rows is the driver's, within the limits of a tracked call.
//!
//! [the server's documentation]: https://www.postgresql.org/docs/current/sql-copy.html

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use tokio::task;
use tokio_postgres::CopyOutStream;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::{BorrowToSql, IsNull, ToSql, Type};

use super::confirmed::Confirmed;
use super::unconverted::EncodeError;
use super::{CopyIn, ended};
use crate::conn::Client;
use crate::conn::calls::in_flight::InFlightCall;
use crate::conn::calls::reading::Reader;
use crate::error::Error;
use crate::telemetry::Stamp;

/// The signature, no flags, and no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The end of the rows, in place of a number of values.
const END: i16 = -1;
/// More values than a table can have columns.
const TOO_MANY: i16 = i16::MAX;
/// The length of NULL.
const NULL: i32 = -1;
/// Rows are collected until they have this many bytes. A longer value is sent in pieces of this size.
const PIECE: usize = 32 * 1_024;

/// Writes rows in the binary format to a [`CopyIn`] of a `COPY ... FROM STDIN (FORMAT binary)`, as the driver's
/// `BinaryCopyInWriter` does. If the rows are at hand, [`Pool::copy_in_rows`](crate::Pool::copy_in_rows) is shorter.
///
/// Dropping it before it was [finished](Self::finish) aborts the copy. So does a value that does not fit its type.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// use failfast::BinaryCopyIn;
/// use failfast::tokio_postgres::types::Type;
///
/// let copy = pool.copy_in("COPY items (id, name) FROM STDIN (FORMAT binary)").await?;
/// let mut rows = BinaryCopyIn::new(copy, &[Type::INT8, Type::TEXT]);
/// rows.write(&[&1_i64, &"apple"]).await?;
/// rows.write(&[&2_i64, &None::<&str>]).await?;
/// println!("{} rows", rows.finish().await?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a copy that is not finished is aborted"]
pub struct BinaryCopyIn<'a> {
    copy: CopyIn<'a, Bytes>,
    types: Vec<Type>,
    /// Rows that were not sent. `None` after a row that could not be encoded: the copy has ended.
    unsent: Option<BytesMut>,
    /// How many rows were written.
    rows: u64,
}

impl<'a> BinaryCopyIn<'a> {
    /// Returns a writer of rows with a value of each of these types. They have to be the types of the columns that the
    /// statement names, in its order: the server does not convert binary values.
    pub fn new(copy: CopyIn<'a, Bytes>, types: &[Type]) -> Self {
        let unsent = Some(BytesMut::from(HEADER));
        Self { copy, types: types.to_vec(), unsent, rows: 0 }
    }

    /// Writes a row, with the limits of [`CopyIn::send`]. If the future is dropped, the copy is aborted.
    ///
    /// # Errors
    ///
    /// - [`Error::Postgres`] with its [`row`](Error::row) if a value does not fit its type, or the number of values is
    ///   not that of the types. The copy is aborted.
    /// - [`Error::Postgres`] if the server has refused an earlier row. That may be noticed some rows later.
    /// - As [`CopyIn::send`].
    pub async fn write(&mut self, values: &[&(dyn ToSql + Sync)]) -> Result<(), Error> {
        self.write_raw(values.iter().copied()).await
    }

    /// [`write`](Self::write) with values of one type, or from an iterator.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_raw<P, I>(&mut self, values: I) -> Result<(), Error>
    where
        P: BorrowToSql,
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        let Some(mut unsent) = self.unsent.take() else { return Err(ended()) };
        if let Err((column, cause)) = encode(values.into_iter(), &self.types, &mut unsent) {
            return Err(self.copy.unconverted(column, cause).await.at_row(self.rows));
        }
        self.rows += 1;
        while unsent.len() >= PIECE {
            self.send_piece(&mut unsent).await?;
        }
        self.unsent = Some(unsent);
        Ok(())
    }

    /// Ends the copy, with the limits of [`CopyIn::finish`]. Returns how many rows were copied.
    ///
    /// # Errors
    ///
    /// As [`CopyIn::finish`].
    pub async fn finish(&mut self) -> Result<u64, Error> {
        let Some(mut unsent) = self.unsent.take() else { return Err(ended()) };
        unsent.put_i16(END);
        while !unsent.is_empty() {
            self.send_piece(&mut unsent).await?;
        }
        self.copy.finish().await
    }

    /// Writes all rows and ends the copy.
    pub(crate) async fn write_all<I, R, P>(mut self, rows: I) -> Result<u64, Error>
    where
        I: IntoIterator<Item = R>,
        I::IntoIter: Send,
        R: IntoIterator<Item = P>,
        R::IntoIter: ExactSizeIterator,
        P: BorrowToSql,
    {
        // Boxed, because rustc cannot show that a future with an iterator of borrowed values is `Send` (issue 102211).
        let rows: Box<dyn Iterator<Item = R> + Send + '_> = Box::new(rows.into_iter());
        for row in rows {
            self.write_raw(row).await?;
        }
        self.finish().await
    }

    async fn send_piece(&mut self, unsent: &mut BytesMut) -> Result<(), Error> {
        let piece = unsent.split_to(unsent.len().min(PIECE));
        self.copy.send(piece.freeze()).await?;
        // Other tasks get their turn, even if the connection takes each piece at once.
        task::yield_now().await;
        if self.copy.is_refused() { Err(self.refusal().await) } else { Ok(()) }
    }

    /// Ends a copy that the server has refused, because the driver reports the error only at the end. What is sent as
    /// the last row is none, so that nothing is applied if the error was about something else.
    async fn refusal(&mut self) -> Error {
        let none = Bytes::copy_from_slice(&TOO_MANY.to_be_bytes());
        match self.copy.send(none).await {
            Ok(()) => self.copy.finish().await.map_or_else(|error| error, |_| ended()),
            Err(error) => error,
        }
    }
}

/// Adds a row. If that fails, returns the column and the cause.
fn encode<P>(
    values: impl ExactSizeIterator<Item = P>,
    types: &[Type],
    out: &mut BytesMut,
) -> Result<(), (usize, EncodeError)>
where
    P: BorrowToSql,
{
    if values.len() != types.len() {
        let (given, expected) = (values.len(), types.len());
        return Err((given.min(expected), format!("expected {expected} values but got {given}").into()));
    }
    out.put_i16(i16::try_from(types.len()).unwrap_or(TOO_MANY));
    for (column, (value, ty)) in values.zip(types).enumerate() {
        let start = out.len();
        out.put_i32(NULL);
        let encoded = value.borrow_to_sql().to_sql_checked(ty, out).map_err(|cause| (column, cause))?;
        if let IsNull::No = encoded {
            let length = i32::try_from(out.len() - start - size_of::<i32>());
            let length = length.map_err(|_| (column, EncodeError::from("the value is longer than 2 GiB")))?;
            out[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
        } else {
            out.truncate(start + size_of::<i32>());
        }
    }
    Ok(())
}

impl fmt::Debug for BinaryCopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinaryCopyIn").field("copy", &self.copy).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// A stream of the rows of a `COPY ... TO STDOUT (FORMAT binary)`, from
/// [`Client::copy_out_rows`](crate::Client::copy_out_rows). It has the limits of a [`RowStream`](crate::RowStream).
/// Dropping it before its end stops the statement. From [`Pool::copy_out_rows`](crate::Pool::copy_out_rows) it owns its
/// connection. It ends as a [`CopyOut`](crate::CopyOut) does: when the server has finished the statement.
///
/// ```no_run
/// # async fn example(pool: failfast::Pool) -> Result<(), failfast::Error> {
/// use failfast::tokio_postgres::types::Type;
/// use futures_util::TryStreamExt;
///
/// let sql = "COPY (SELECT id, name FROM items) TO STDOUT (FORMAT binary)";
/// let mut rows = pool.copy_out_rows(sql, &[Type::INT8, Type::TEXT]).await?;
/// while let Some(row) = rows.try_next().await? {
///     println!("{}: {:?}", row.get::<i64>(0), row.get::<Option<&str>>(1));
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "rows come only while the stream is polled"]
pub struct BinaryCopyOut<'a> {
    rows: Reader<Confirmed<BinaryCopyOutStream>>,
    client: PhantomData<&'a Client>,
}

impl BinaryCopyOut<'_> {
    pub(in crate::conn::calls) fn new(data: CopyOutStream, types: &[Type], call: InFlightCall) -> Self {
        let rows = Confirmed::of_rows(BinaryCopyOutStream::new(data, types));
        Self { rows: Reader::new(rows, call), client: PhantomData }
    }

    /// Returns a stream that no longer borrows its client. Call [`owning`](Self::owning) next, with that client.
    pub(crate) fn unbound(self) -> BinaryCopyOut<'static> {
        BinaryCopyOut { rows: self.rows, client: PhantomData }
    }

    /// Owns the connection that the rows come from, and gives it back at the end. The operation, which began at
    /// `begun`, ends then, too.
    pub(crate) fn owning(self, lease: Client, begun: Stamp) -> Self {
        self.rows.own(lease, begun);
        self
    }
}

impl Stream for BinaryCopyOut<'_> {
    type Item = Result<BinaryCopyOutRow, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.poll_next(cx, |_| ())
    }
}

impl fmt::Debug for BinaryCopyOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinaryCopyOut").field("is_over", &self.rows.is_over()).finish_non_exhaustive()
    }
}
