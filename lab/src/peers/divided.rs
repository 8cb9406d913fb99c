//! Two pools of one library: one for the usual work and one for other work. This is how a service keeps one kind of
//! work away from another if its pool cannot do that.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Answer, Pool};
use crate::callers::Caller;
use crate::terms::Result;

pub(super) struct Divided {
    pub(super) usual: Arc<dyn Pool>,
    pub(super) others: Arc<dyn Pool>,
}

impl Pool for Divided {
    fn ask<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Answer> {
        if caller.work.is_usual() { self.usual.ask(caller) } else { self.others.ask(caller) }
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<()>> {
        async {
            self.usual.warm_up().await?;
            self.others.warm_up().await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.usual.close().await;
            self.others.close().await;
        }
        .boxed()
    }
}
