//! The driver's error for a value that could not be converted.
//!
//! The driver has no public constructor for its errors. It makes this one when it encodes the parameters of a
//! statement, before it sends anything. So it is given a parameter that fails.

use std::error::Error;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::{IsNull, ToSql, Type};

/// Why a value could not be converted.
pub(super) type EncodeError = Box<dyn Error + Sync + Send>;

/// A parameter that fails with this cause. Without one, it is NULL.
#[derive(Debug)]
struct Unconverted(Mutex<Option<EncodeError>>);

impl ToSql for Unconverted {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, EncodeError> {
        self.0.lock().take().map_or(Ok(IsNull::Yes), Err)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, EncodeError> {
        self.to_sql(ty, out)
    }
}

/// Returns the error for the value in this column. `None` never happens.
pub(super) async fn error(driver: &Client, column: usize, cause: EncodeError) -> Option<tokio_postgres::Error> {
    let causes = (0..column).map(|_| None).chain([Some(cause)]);
    let parameters = causes.map(|cause| (Unconverted(Mutex::new(cause)), Type::UNKNOWN));
    driver.query_typed_raw("", parameters).await.err()
}
