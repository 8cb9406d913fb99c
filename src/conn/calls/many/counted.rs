//! Counts the bytes of rows while the driver encodes them.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::BytesMut;
use tokio_postgres::types::{BorrowToSql, Format, IsNull, ToSql, Type};

/// The bytes that were encoded since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Encoded(AtomicUsize);

impl Encoded {
    pub(super) fn take(&self) -> usize {
        self.0.swap(0, Relaxed)
    }

    /// The values of a row, which count their bytes.
    pub(super) fn count<I>(&self, values: I) -> Values<'_, I> {
        Values { values, encoded: self }
    }
}

pub(super) struct Values<'a, I> {
    values: I,
    encoded: &'a Encoded,
}

impl<'a, I: Iterator> Iterator for Values<'a, I> {
    type Item = Value<'a, I::Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.values.next().map(|value| Value { value, encoded: self.encoded })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.values.size_hint()
    }
}

impl<I: ExactSizeIterator> ExactSizeIterator for Values<'_, I> {}

pub(super) struct Value<'a, P> {
    value: P,
    encoded: &'a Encoded,
}

impl<P: BorrowToSql> ToSql for Value<'_, P> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql_checked(ty, out)
    }

    /// The value itself checks its type.
    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let before = out.len();
        let encoded = self.value.borrow_to_sql().to_sql_checked(ty, out);
        self.encoded.0.fetch_add(out.len().saturating_sub(before), Relaxed);
        encoded
    }

    fn encode_format(&self, ty: &Type) -> Format {
        self.value.borrow_to_sql().encode_format(ty)
    }
}

/// As the value itself: the driver logs it.
impl<P: BorrowToSql> fmt::Debug for Value<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.borrow_to_sql().fmt(f)
    }
}
