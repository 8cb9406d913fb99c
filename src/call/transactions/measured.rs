//! A transaction that its owner begins and ends, and that metrics and spans show as one operation. Feature `axum`.
//!
//! `call/transactions.rs` runs a closure, so it sees the whole operation. Here BEGIN and COMMIT are far apart, with the
//! owner's statements between them. The transaction keeps the time of its begin, and its end records the operation. Its
//! span has BEGIN and the end in it; the statements between them are in the owner's span.

use crate::call::Call;
use crate::call::attempts::located;
use crate::conn::Transaction;
use crate::error::Error;
use crate::telemetry::{Fault, Meter, Span, Stamp};

/// An open transaction, and what has to be recorded at its end. If it is dropped, nothing is recorded, as for a call
/// whose future is dropped.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredTransaction {
    transaction: Transaction,
    meter: Meter,
    operation: Option<&'static str>,
    begun: Stamp,
    span: Span,
}

impl Call<'_> {
    /// Takes a connection and begins a transaction on it. If that fails, the operation has failed.
    pub(crate) async fn begin_measured(self) -> Result<MeasuredTransaction, Error> {
        let (meter, operation) = (self.shared.meter().clone(), self.operation);
        let (begun, span) = (meter.start(), self.span("transaction"));
        match span.scope((Self { is_part: true, ..self }).begin(&span)).await {
            Ok(transaction) => {
                span.set_attempts(1);
                Ok(MeasuredTransaction { transaction, meter, operation, begun, span })
            }
            Err(error) => {
                meter.operated_since(begun, operation, Some(Fault::from(&error)));
                Err(span.with(error))
            }
        }
    }

    async fn begin(self, span: &Span) -> Result<Transaction, Error> {
        located(self.get().await?, span).transaction_with(self.options).await
    }
}

impl MeasuredTransaction {
    pub(crate) fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Commits, as [`Transaction::commit`] does.
    pub(crate) async fn commit(self) -> Result<(), Error> {
        let committed = self.span.scope(self.transaction.commit()).await;
        self.meter.operated_since(self.begun, self.operation, committed.as_ref().err().map(Fault::from));
        committed.map_err(|error| self.span.with(error))
    }

    /// Rolls back, as [`Transaction::rollback`] does. The operation has failed with the last error of a statement. If
    /// no statement failed, the reason is the owner's own.
    pub(crate) async fn rollback(self) {
        let fault = self.transaction.fault();
        self.span.scope(self.transaction.rollback()).await;
        self.span.failed(fault);
        self.meter.operated_since(self.begun, self.operation, Some(fault));
    }
}
