use failfast::Pool;

#[tokio::main]
async fn main() {
    let config = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    let pool = Pool::builder(config).build().unwrap();
    for i in 1..10i32 {
        let client = pool.get().await.unwrap();
        let stmt = client.prepare_cached("SELECT 1 + $1").await.unwrap();
        let rows = client.query(&stmt, &[&i]).await.unwrap();
        let value: i32 = rows[0].get(0);
        assert_eq!(value, i + 1);
    }
}
