//! What a generator writes for each file of queries. It writes owned and borrowed structs for parameters and rows, and
//! a statement for each query. It also writes a query that is bound, mapped and run.

use std::future::Future;
use std::pin::Pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::client::{GenericClient, Params, Stmt};

#[derive(Debug)]
pub(super) struct InsertItemParams<T: AsRef<str> + ToSql + Sync> {
    pub(super) name: T,
    pub(super) stock: Option<i32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) id: i32,
    pub(super) name: String,
    pub(super) stock: Option<i32>,
}

#[derive(Debug)]
pub(super) struct ItemBorrowed<'a> {
    pub(super) id: i32,
    pub(super) name: &'a str,
    pub(super) stock: Option<i32>,
}

impl From<ItemBorrowed<'_>> for Item {
    fn from(ItemBorrowed { id, name, stock }: ItemBorrowed<'_>) -> Self {
        Self { id, name: name.into(), stock }
    }
}

pub(super) struct ItemQuery<'c, 'a, 's, C: GenericClient, T, const N: usize> {
    client: &'c C,
    params: [&'a (dyn ToSql + Sync); N],
    stmt: &'s mut Stmt,
    extractor: fn(&Row) -> ItemBorrowed<'_>,
    mapper: fn(ItemBorrowed<'_>) -> T,
}

impl<'c, 'a, 's, C, T: 'c, const N: usize> ItemQuery<'c, 'a, 's, C, T, N>
where
    C: GenericClient,
{
    pub(super) fn map<R>(self, mapper: fn(ItemBorrowed<'_>) -> R) -> ItemQuery<'c, 'a, 's, C, R, N> {
        ItemQuery { client: self.client, params: self.params, stmt: self.stmt, extractor: self.extractor, mapper }
    }

    pub(super) async fn one(self) -> Result<T, Error> {
        let stmt = self.stmt.prepare(self.client).await?;
        let row = self.client.query_one(stmt, &self.params).await?;
        Ok((self.mapper)((self.extractor)(&row)))
    }

    pub(super) async fn opt(self) -> Result<Option<T>, Error> {
        let stmt = self.stmt.prepare(self.client).await?;
        let row = self.client.query_opt(stmt, &self.params).await?;
        Ok(row.map(|row| (self.mapper)((self.extractor)(&row))))
    }

    pub(super) async fn all(self) -> Result<Vec<T>, Error> {
        self.iter().await?.try_collect().await
    }

    pub(super) async fn iter(self) -> Result<impl Stream<Item = Result<T, Error>> + 'c, Error> {
        let stmt = self.stmt.prepare(self.client).await?;
        let params = self.params.iter().map(|param| *param as &dyn ToSql);
        let rows = self.client.query_raw(stmt, params).await?;
        Ok(rows.map(move |row| row.map(|row| (self.mapper)((self.extractor)(&row)))))
    }
}

fn extract(row: &Row) -> ItemBorrowed<'_> {
    ItemBorrowed { id: row.get(0), name: row.get(1), stock: row.get(2) }
}

pub(super) fn insert_item() -> InsertItemStmt {
    InsertItemStmt(Stmt::new("INSERT INTO generated_items (name, stock) VALUES ($1, $2)"))
}

pub(super) struct InsertItemStmt(Stmt);

type Changing<'a> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'a>>;

impl InsertItemStmt {
    pub(super) async fn bind<'a, C: GenericClient, T: AsRef<str> + ToSql + Sync>(
        &'a mut self,
        client: &'a C,
        name: &'a T,
        stock: &'a Option<i32>,
    ) -> Result<u64, Error> {
        let stmt = self.0.prepare(client).await?;
        client.execute(stmt, &[name, stock]).await
    }
}

impl<'c, 'a, 's, C: GenericClient, T: AsRef<str> + ToSql + Sync>
    Params<'c, 'a, 's, InsertItemParams<T>, Changing<'a>, C> for InsertItemStmt
where
    'c: 'a,
    's: 'a,
{
    fn params(&'s mut self, client: &'c C, params: &'a InsertItemParams<T>) -> Changing<'a> {
        Box::pin(self.bind(client, &params.name, &params.stock))
    }
}

pub(super) fn items() -> ItemsStmt {
    ItemsStmt(Stmt::new("SELECT id, name, stock FROM generated_items ORDER BY id"))
}

pub(super) struct ItemsStmt(Stmt);

impl ItemsStmt {
    pub(super) fn bind<'c, 'a, 's, C: GenericClient>(&'s mut self, client: &'c C) -> ItemQuery<'c, 'a, 's, C, Item, 0> {
        ItemQuery { client, params: [], stmt: &mut self.0, extractor: extract, mapper: |item| Item::from(item) }
    }
}

pub(super) fn item_by_name() -> ItemByNameStmt {
    ItemByNameStmt(Stmt::new("SELECT id, name, stock FROM generated_items WHERE name = $1"))
}

pub(super) struct ItemByNameStmt(Stmt);

impl ItemByNameStmt {
    pub(super) fn bind<'c, 'a, 's, C: GenericClient, T: AsRef<str> + ToSql + Sync>(
        &'s mut self,
        client: &'c C,
        name: &'a T,
    ) -> ItemQuery<'c, 'a, 's, C, Item, 1> {
        ItemQuery { client, params: [name], stmt: &mut self.0, extractor: extract, mapper: |item| Item::from(item) }
    }
}
