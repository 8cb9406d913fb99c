//! Who holds the connections? The same report as on the admin page, live in a terminal.
//!
//! `cargo run --release --manifest-path examples/top/Cargo.toml` shows a pool with a load of its own. Uses
//! `DATABASE_URL`, or starts a throwaway server.
//!
//! `... -- --url http://localhost:3000/admin/pool` shows the pool of a running service, which answers there with
//! `failfast::admin::handler`. `--header 'Authorization: Bearer abc'` adds a header, and may be given several times.
//!
//! `q` quits.

mod support;

use std::error::Error;
use std::time::Duration;

use failfast::Pool;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Table};
use serde_json::Value;
use support::Throwaway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const PACE: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_secs(2);
const LONGEST_ANSWER: u64 = 4 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    match Service::of_arguments(std::env::args().skip(1))? {
        Some(service) => show(async || service.report().await).await,
        None => {
            let server = Throwaway::start().await?;
            let pool = Pool::builder(server.config())
                .name("demo")
                .max_size(10)
                .acquire_timeout(Duration::from_millis(500))
                .build()?;
            load(&pool);
            show(async || Ok(serde_json::to_value(pool.report())?)).await
        }
    }
}

/// The admin page of a running service.
#[derive(Debug, PartialEq)]
struct Service {
    /// `host:port`
    address: String,
    path: String,
    headers: Vec<String>,
}

impl Service {
    /// Returns `None` if no URL is given.
    fn of_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let (mut service, mut headers) = (None, Vec::new());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--url" => service = Some(Self::of_url(&value()?)?),
                "--header" => headers.push(value()?),
                _ => return Err(format!("{argument} is not known; there are --url and --header").into()),
            }
        }
        Ok(service.map(|service| Self { headers, ..service }))
    }

    fn of_url(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} does not begin with http://"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Self { address, path: format!("/{path}"), headers: Vec::new() })
    }

    async fn report(&self) -> Result<Value> {
        timeout(ANSWER, self.get()).await.map_err(|_| format!("no answer from {} within 2 s", self.address))?
    }

    /// HTTP/1.0, so that the answer ends with the connection.
    async fn get(&self) -> Result<Value> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let headers: String = self.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("GET {} HTTP/1.0\r\nHost: {}\r\n{headers}\r\n", self.path, self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        body_of(&answer)
    }
}

fn body_of(answer: &[u8]) -> Result<Value> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("the answer is not HTTP")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the service answers {status}").into());
    }
    Ok(serde_json::from_slice(body)?)
}

/// Draws the latest report until somebody quits.
async fn show(report: impl AsyncFn() -> Result<Value>) -> Result<()> {
    // Before the screen is taken, so that the shell shows the error.
    let mut latest = report().await?;
    let mut terminal = ratatui::init();
    let mut quits = keys();
    let mut turns = interval(PACE);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = None;
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| draw(frame, &latest, trouble.as_deref())) {
            break Err(error.into());
        }
        tokio::select! {
            _ = quits.recv() => break Ok(()),
            _ = turns.tick() => match report().await {
                Ok(report) => (latest, trouble) = (report, None),
                Err(error) => trouble = Some(error.to_string()),
            },
        }
    };
    ratatui::restore();
    ended
}

/// Reads keys on a thread of its own, because a read blocks. The channel closes when somebody quits.
fn keys() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Event::Key(key) = event else { continue };
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if key.code == KeyCode::Char('q') || is_interrupt {
                break;
            }
        }
        drop(sender);
    });
    receiver
}

fn draw(frame: &mut Frame, report: &Value, trouble: Option<&str>) {
    let [top, middle, bottom, last] =
        Layout::vertical([Constraint::Length(5), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)])
            .areas(frame.area());
    draw_status(frame, top, report);
    frame.render_widget(holders(report), middle);
    let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(bottom);
    frame.render_widget(baselines(report), left);
    frame.render_widget(Paragraph::new(refusals(report)).block(Block::bordered().title(" refused ")), right);
    let line = match trouble {
        Some(trouble) => Line::from(format!(" not up to date: {trouble}")).red(),
        None => Line::from(" q quits").dim(),
    };
    frame.render_widget(line, last);
}

fn draw_status(frame: &mut Frame, area: Rect, report: &Value) {
    let (status, queue, breaker) = (&report["status"], &report["queue"], &report["breaker"]);
    let block = Block::bordered().title(format!(" pool {} ", text(&report["pool"])));
    let [gauge, first, second] = Layout::vertical([Constraint::Length(1); 3]).areas(block.inner(area));
    frame.render_widget(block, area);
    let (in_use, most) = (number(&status["in_use"]), number(&status["max_size"]));
    let share = if most > 0.0 { (in_use / most).clamp(0.0, 1.0) } else { 0.0 };
    let color = if share >= 0.95 {
        Color::Red
    } else if share >= 0.8 {
        Color::Yellow
    } else {
        Color::Green
    };
    let label = format!("{in_use} of {most} in use");
    frame.render_widget(Gauge::default().ratio(share).label(label).gauge_style(Style::new().fg(color)), gauge);
    let counts = format!(
        "{} idle, {} settling, {} dialing, {} closing; {} waiting of at most {}, predicted wait {}; demand {}",
        status["idle"],
        status["settling"],
        status["dialing"],
        status["closing"],
        queue["waiting"],
        queue["max_waiting"],
        millis(&queue["predicted_wait_ms"]),
        status["demand"].as_f64().map_or("unknown".to_owned(), |demand| format!("{demand:.1} connections")),
    );
    frame.render_widget(Line::from(counts), first);
    let circuit = format!(
        "circuit {} for {}: {} of {} calls failed, {} rejected; last answer {} ago{}",
        text(&breaker["state"]),
        millis(&breaker["age_ms"]),
        breaker["failures"],
        breaker["completed"],
        breaker["rejected"],
        millis(&status["last_success_age_ms"]),
        status["last_connect_error"].as_str().map_or(String::new(), |error| format!("; last dial failed: {error}")),
    );
    let circuit = Line::from(circuit);
    frame.render_widget(if breaker["state"] == "closed" { circuit } else { circuit.red() }, second);
}

fn holders(report: &Value) -> Table<'_> {
    let rows = list(&report["holders"]).map(|holder| {
        let state = match (holder["state"].as_str(), holder["in_transaction"].as_bool()) {
            (Some("caller"), Some(true)) => "waits for the caller, in a transaction",
            (Some("caller"), _) => "waits for the caller",
            (Some("server"), _) => "waits for the server",
            (Some("settling"), _) => "settles",
            _ => "?",
        };
        let row = Row::new([
            millis(&holder["age_ms"]),
            text(&holder["operation"]).to_owned(),
            state.to_owned(),
            millis(&holder["running_ms"]),
            holder["process_id"].to_string(),
            text(&holder["taken"]).to_owned(),
        ]);
        if number(&holder["age_ms"]) >= 1_000.0 { row.yellow() } else { row }
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Length(39),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Fill(2),
    ];
    let header = Row::new(["age", "operation", "state", "running", "process", "taken at"]).bold();
    Table::new(rows, widths).header(header).block(Block::bordered().title(" who holds a connection "))
}

fn baselines(report: &Value) -> Table<'_> {
    let rows = list(&report["baselines"]).map(|baseline| {
        let row = Row::new([
            text(&baseline["operation"]).to_owned(),
            micros(&baseline["mean_us"]),
            micros(&baseline["slow_after_us"]),
            micros(&baseline["inflated_to_us"]),
        ]);
        if baseline["inflated_to_us"].is_null() { row } else { row.red() }
    });
    let widths = [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(10), Constraint::Length(10)];
    let header = Row::new(["operation", "usually", "slow after", "now"]).bold();
    Table::new(rows, widths).header(header).block(Block::bordered().title(" how long leases last "))
}

fn refusals(report: &Value) -> Vec<Line<'static>> {
    let counts = report["refusals"].as_object().into_iter().flatten();
    let line = |(reason, count): (&String, &Value)| {
        let line = Line::from(format!("{:>10} {}", number(count), reason.replace('_', " ")));
        if number(count) > 0.0 { line.yellow() } else { line.dim() }
    };
    counts.map(line).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn millis(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |millis| duration(millis / 1e3))
}

fn micros(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |micros| duration(micros / 1e6))
}

fn duration(seconds: f64) -> String {
    match seconds {
        0.0005..0.01 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..120.0 => format!("{seconds:.1} s"),
        ..7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// A service with short calls, and now and then a report that keeps a connection while it asks another service.
fn load(pool: &Pool) {
    for (name, statement, pause) in [
        ("login", "SELECT pg_sleep(0.004)", 10),
        ("search", "SELECT pg_sleep(0.02)", 15),
        ("load_dashboard", "SELECT pg_sleep(0.15)", 60),
        ("purge", "SELECT pg_sleep(2)", 5_000),
    ] {
        let pool = pool.clone();
        tokio::spawn(async move {
            loop {
                let pool = pool.clone();
                tokio::spawn(async move { pool.call().name(name).query(statement, &[]).await });
                sleep(Duration::from_millis(pause)).await;
            }
        });
    }
    let pool = pool.clone();
    tokio::spawn(async move {
        loop {
            let pool = pool.clone();
            tokio::spawn(async move {
                let report = pool.call().name("report").transaction_once(async |tx| {
                    tx.query("SELECT 1", &[]).await?;
                    sleep(Duration::from_secs(6)).await;
                    Ok::<_, failfast::Error>(())
                });
                report.await
            });
            sleep(Duration::from_millis(900)).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_has_an_address_and_a_path() {
        let service = |url| Service::of_url(url).map(|service| (service.address, service.path));
        let pair = |address: &str, path: &str| (address.to_owned(), path.to_owned());
        assert_eq!(service("http://db:3000/admin/pool?x=1").unwrap(), pair("db:3000", "/admin/pool?x=1"));
        assert_eq!(service("http://localhost").unwrap(), pair("localhost:80", "/"));
        assert_eq!(service("http://[::1]:80/a").unwrap(), pair("[::1]:80", "/a"));
        assert_eq!(service("http://[::1]/a").unwrap(), pair("[::1]:80", "/a"));
        assert!(service("https://localhost").is_err());
    }

    #[test]
    fn arguments_are_checked() {
        let parse = |words: &[&str]| Service::of_arguments(words.iter().map(|word| (*word).to_owned()));
        assert!(parse(&[]).unwrap().is_none());
        assert!(parse(&["--url"]).is_err() && parse(&["--uri", "x"]).is_err());
        let service = parse(&["--header", "A: b", "--url", "http://x/"]).unwrap().unwrap();
        assert_eq!(service.headers, ["A: b"]);
    }

    #[test]
    fn an_answer_is_its_body() {
        let body = body_of(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!(body, json!({}));
        let refused = body_of(b"HTTP/1.0 401 Unauthorized\r\n\r\n").unwrap_err();
        assert_eq!(refused.to_string(), "the service answers HTTP/1.0 401 Unauthorized");
        assert!(body_of(b"SSH-2.0").is_err());
    }

    #[tokio::test]
    async fn a_service_is_asked_with_the_headers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/admin/pool", listener.local_addr().unwrap());
        let headers = vec!["Authorization: Bearer abc".to_owned()];
        let service = Service { headers, ..Service::of_url(&url).unwrap() };
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_000];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n{\"pool\":\"orders\"}").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        let (report, request) = tokio::join!(service.report(), answers);
        assert_eq!(report.unwrap(), json!({ "pool": "orders" }));
        assert!(request.starts_with("GET /admin/pool HTTP/1.0\r\n"), "{request}");
        assert!(request.ends_with("\r\nAuthorization: Bearer abc\r\n\r\n"), "{request}");
    }

    #[test]
    fn a_report_is_drawn_and_one_without_anything_too() {
        let report = json!({
            "pool": "orders",
            "status": { "max_size": 10, "in_use": 10, "idle": 0 },
            "holders": [{
                "operation": "report", "taken": "src/report.rs:41", "age_ms": 12300, "state": "caller",
                "in_transaction": true, "running_ms": null, "process_id": 4711
            }],
            "baselines": [{ "operation": "login", "mean_us": 4100, "slow_after_us": null, "inflated_to_us": null }],
            "refusals": { "too_late": 7 }
        });
        let mut terminal = Terminal::new(TestBackend::new(140, 30)).unwrap();
        terminal.draw(|frame| draw(frame, &report, None)).unwrap();
        let screen = terminal.backend().to_string();
        for part in ["pool orders", "10 of 10 in use", "12.3 s", "waits for the caller, in a transaction", "4711"] {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        assert!(screen.contains("4.1 ms") && screen.contains("7 too late"), "{screen}");
        terminal.draw(|frame| draw(frame, &Value::Null, Some("refused"))).unwrap();
        assert!(terminal.backend().to_string().contains("not up to date: refused"));
    }
}
