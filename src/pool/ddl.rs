//! Changes of the schema, as methods of the pool.

use super::Pool;
use crate::call::ddl::Ddl;

impl Pool {
    /// Makes a change of the schema that gives way to those that queue behind it: `pool.ddl().batch_execute("ALTER
    /// TABLE ...")`. As [`call`](Self::call) and [`Call::ddl`](crate::Call::ddl). See [`Ddl`].
    #[track_caller]
    pub fn ddl(&self) -> Ddl<'_> {
        self.call().ddl()
    }
}
