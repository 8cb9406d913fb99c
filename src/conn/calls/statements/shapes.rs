//! Whether a value still has the shape of its type.
//!
//! The driver learns each composite type once for a connection. When an attribute is added, is dropped or gets another
//! type, the server does not report that: the type keeps its number, and only the values differ. A composite value
//! contains the number of its attributes, and the type of each.

use std::error::Error;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, Type};

/// Returns whether a value in the row shows that its type has changed. A NULL shows nothing.
pub(super) fn have_changed(row: &Row) -> bool {
    row.columns().iter().enumerate().any(|(at, column)| {
        has_attributes(column.type_())
            && row.try_get(at).is_ok_and(|value: Option<Raw<'_>>| value.is_some_and(|raw| !raw.fits(column.type_())))
    })
}

fn has_attributes(ty: &Type) -> bool {
    match ty.kind() {
        Kind::Composite(_) => true,
        Kind::Array(inner) | Kind::Domain(inner) => has_attributes(inner),
        _ => false,
    }
}

/// A value as the server sends it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl<'a> Raw<'a> {
    fn fits(mut self, ty: &Type) -> bool {
        self.read(ty).is_some()
    }

    /// Reads as much of a value as shows its shape. Returns `None` if that is not the shape of the type.
    fn read(&mut self, ty: &Type) -> Option<()> {
        match ty.kind() {
            Kind::Composite(attributes) => {
                self.expect(u32::try_from(attributes.len()).ok()?)?;
                attributes.iter().try_for_each(|attribute| {
                    self.expect(attribute.type_().oid())?;
                    self.value()?.map_or(Some(()), |mut value| value.read(attribute.type_()))
                })
            }
            Kind::Array(element) => {
                let dimensions = self.number()?;
                let _has_nulls = self.number()?;
                self.expect(element.oid())?;
                if dimensions == 0 {
                    return Some(());
                }
                // Each dimension has a size and a lower bound. The first element shows the shape of all.
                self.take(usize::try_from(dimensions).ok()?.checked_mul(8)?)?;
                self.value()?.map_or(Some(()), |mut value| value.read(element))
            }
            Kind::Domain(inner) => self.read(inner),
            _ => Some(()),
        }
    }

    /// Reads a length and as many bytes. Returns `Some(None)` for NULL.
    fn value(&mut self) -> Option<Option<Raw<'a>>> {
        match self.number()? {
            u32::MAX => Some(None),
            length => Some(Some(Raw(self.take(usize::try_from(length).ok()?)?))),
        }
    }

    fn expect(&mut self, expected: u32) -> Option<()> {
        (self.number()? == expected).then_some(())
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
