//! The sizes of the futures of calls. Each queued caller holds one, and each spawn copies one.

use std::mem::size_of_val;

use failfast::{Error, Pool};
use tokio_postgres::types::Type;

/// The limits in bytes.
const ONE_SHOT: usize = 2_048;
const TRANSACTION: usize = 2_560;

#[tokio::test]
async fn futures_of_calls_stay_small() {
    let pool = Pool::builder("host=localhost user=app".parse().unwrap()).build().unwrap();
    let typed = [(&1_i32 as _, Type::INT4)];
    let nothing = async |_: failfast::Transaction| Ok::<_, Error>(());
    let sizes = [
        ("get", size_of_val(&pool.get()), ONE_SHOT),
        ("query", size_of_val(&pool.query("", &[])), ONE_SHOT),
        ("query_one", size_of_val(&pool.query_one("", &[])), ONE_SHOT),
        ("query_opt", size_of_val(&pool.query_opt("", &[])), ONE_SHOT),
        ("execute", size_of_val(&pool.execute("", &[])), ONE_SHOT),
        ("query_raw", size_of_val(&pool.query_raw("", Vec::<i32>::new())), ONE_SHOT),
        ("query_stream", size_of_val(&pool.query_stream("", &[])), ONE_SHOT),
        ("copy_in", size_of_val(&pool.copy_in::<&[u8]>("")), ONE_SHOT),
        ("copy_out", size_of_val(&pool.copy_out("")), ONE_SHOT),
        ("copy_in_rows", size_of_val(&pool.copy_in_rows("", &[], Vec::<[i32; 0]>::new())), ONE_SHOT),
        ("copy_out_rows", size_of_val(&pool.copy_out_rows("", &[])), ONE_SHOT),
        ("execute_many", size_of_val(&pool.execute_many("", Vec::<[i32; 0]>::new())), ONE_SHOT),
        ("batch_execute", size_of_val(&pool.batch_execute("")), ONE_SHOT),
        ("call().get", size_of_val(&pool.call().get()), ONE_SHOT),
        ("call().query_typed", size_of_val(&pool.call().query_typed("", &typed)), ONE_SHOT),
        ("call().simple_query", size_of_val(&pool.call().simple_query("")), ONE_SHOT),
        ("call().run", size_of_val(&pool.call().run(async |_| Ok::<_, Error>(()))), ONE_SHOT),
        ("transaction", size_of_val(&pool.transaction(nothing)), TRANSACTION),
        ("transaction_once", size_of_val(&pool.transaction_once(nothing)), TRANSACTION),
        ("warm_up", size_of_val(&pool.warm_up(1, std::time::Duration::ZERO)), ONE_SHOT),
        ("drain", size_of_val(&pool.drain(std::time::Duration::ZERO)), ONE_SHOT),
        ("ready", size_of_val(&pool.ready()), ONE_SHOT),
    ];
    for (name, size, limit) in sizes {
        println!("{name}: {size} bytes, limit {limit}");
    }
    for (name, size, limit) in sizes {
        assert!(size <= limit, "{name}: {size} bytes, more than {limit}");
    }
}
