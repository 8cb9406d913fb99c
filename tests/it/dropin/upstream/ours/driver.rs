use failfast::Pool;
use std::env;

#[tokio::main]
async fn main() {
    let mut pg_config = tokio_postgres::Config::new();
    pg_config.host(env::var("PGHOST").unwrap().as_str());
    pg_config.port(env::var("PGPORT").unwrap().parse().unwrap());
    pg_config.user(env::var("USER").unwrap().as_str());
    pg_config.password(env::var("PGPASSWORD").unwrap());
    pg_config.dbname("deadpool");
    let pool = Pool::builder(pg_config).max_size(16).build().unwrap();
    for i in 1..10i32 {
        let client = pool.get().await.unwrap();
        let stmt = client.prepare_cached("SELECT 1 + $1").await.unwrap();
        let rows = client.query(&stmt, &[&i]).await.unwrap();
        let value: i32 = rows[0].get(0);
        assert_eq!(value, i + 1);
    }
}
