//! A step of a pipeline before a deployment or a migration: prints what the checks found, and ends with the exit status
//! 0 if all is well, 1 if something is critical, and 2 if something is not known.
//!
//! `DATABASE_URL=postgres://app@db/orders cargo run --features preflight --example preflight -- --instances 6 --surge 2
//! --max-size 20 --table orders`. Connect with the role and the `application_name` of the service.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use failfast::Pool;
use failfast::preflight::{Plan, PoolerMode};

const USAGE: &str = "usage: preflight [--instances N] [--surge N] [--max-size N] [--replicas N] [--fleet NAME] \
     [--table NAME]... [--behind-pooler]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let plan = plan(env::args().skip(1))?;
    let url = env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL: postgres://app@db/orders")?;
    let pool = Pool::builder(url.parse()?).name("preflight").build()?;
    let report = pool.preflight(&plan).await;
    println!("{report}");
    Ok(ExitCode::from(report.exit_code()))
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, Box<dyn Error>> {
    let mut plan = Plan::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        plan = match argument.as_str() {
            "--instances" => plan.instances(value()?.parse()?),
            "--surge" => plan.surge(value()?.parse()?),
            "--max-size" => plan.max_size(value()?.parse()?),
            "--replicas" => plan.replicas(value()?.parse()?),
            "--fleet" => plan.fleet(value()?),
            "--table" => plan.touches([value()?]),
            "--behind-pooler" => plan.pooler(PoolerMode::Transaction),
            _ => return Err(USAGE.into()),
        };
    }
    Ok(plan)
}
