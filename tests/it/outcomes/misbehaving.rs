//! The pool trusts no message of a server. A bad message costs a call its time at most. It never costs unbounded
//! memory, and it never causes a panic, a hang or a forged line.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use failfast::{Error, Event, Pool, RetryConfig};
use futures_util::{StreamExt, stream};
use log::{LevelFilter, Log, Metadata, Record};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::pool::LONG;
use crate::support::actor::{Actor, Part, Session};
use crate::support::eventually;

const CHILD: &str = "FAILFAST_MISBEHAVING";
const SECOND: Duration = Duration::from_secs(1);
const MEGABYTE: usize = 1 << 20;
/// The limit of memory for a process that meets every case, four at a time.
const MOST_MEMORY: usize = 350 * MEGABYTE;
/// The length limit of each error or event line, in characters.
const LONGEST_LINE: usize = 1_000;
/// Text that tries to forge a line, and to rewrite what a terminal shows.
const EVIL: &str = "x\r\nERROR forged line\x1b[2J\x1b]0;owned\x07\u{9b}31m\u{202e}";

type Doing = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

fn failure(message: &str) -> Vec<u8> {
    let fields = ["SERROR", "VERROR", "C42P01", &format!("M{message}"), &format!("D{message}"), &format!("t{message}")];
    [fields.join("\0").as_bytes(), b"\0\0"].concat()
}

/// An error or notice that has this text in every field.
fn evil(severity: &str) -> Vec<u8> {
    let severity = format!("S{EVIL}\0V{severity}");
    let fields = [&severity, &format!("C{EVIL}"), &format!("M{EVIL}"), &format!("W{EVIL}"), &format!("R{EVIL}")];
    [fields.map(String::as_str).join("\0").as_bytes(), b"\0\0"].concat()
}

fn parameter(number: usize) -> Vec<u8> {
    format!("p{number}\0{}\0", "x".repeat(20_000)).into_bytes()
}

fn notice(_: usize) -> Vec<u8> {
    failure(&"x".repeat(20_000))
}

/// For these cases at start-up, the error says that the server sent too much.
const TOO_MUCH_AT_START: [&str; 4] =
    ["parameters without end", "notices without end", "a challenge without end", "a long message"];

/// At start-up. No caller gets a connection.
const AT_START: &[(&str, Part)] = &[
    ("says nothing", |mut s| -> Doing { Box::pin(async move { s.rest().await }) }),
    ("parameters without end", |mut s| -> Doing {
        Box::pin(async move {
            s.say(b'R', &[0; 4]).await?;
            s.say_for_ever(b'S', parameter).await
        })
    }),
    ("notices without end", |mut s| -> Doing {
        Box::pin(async move {
            s.say(b'R', &[0; 4]).await?;
            s.say_for_ever(b'N', notice).await
        })
    }),
    ("authentication without end", |mut s| -> Doing {
        Box::pin(async move { s.say_for_ever(b'R', |_| vec![0; 4]).await })
    }),
    ("a challenge without end", |mut s| -> Doing {
        Box::pin(async move {
            s.say(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0").await?;
            s.hear().await?;
            s.announce(b'R', 1 << 30).await?;
            s.pour().await
        })
    }),
    ("a long message", |mut s| -> Doing {
        Box::pin(async move {
            s.announce(b'E', 1 << 30).await?;
            s.pour().await
        })
    }),
    ("an error of 10 MB", |mut s| -> Doing {
        Box::pin(async move {
            s.say(b'E', &failure(&"x".repeat(10 * MEGABYTE))).await?;
            s.rest().await
        })
    }),
    ("an error without fields", |mut s| -> Doing { Box::pin(async move { s.say(b'E', b"\0").await }) }),
    ("an error that is empty", |mut s| -> Doing { Box::pin(async move { s.say(b'E', b"").await }) }),
    ("an evil error", |mut s| -> Doing { Box::pin(async move { s.say(b'E', &evil("FATAL")).await }) }),
    ("a key of odd length", |mut s| -> Doing {
        Box::pin(async move {
            s.say(b'R', &[0; 4]).await?;
            s.say(b'K', &[0; 7]).await?;
            s.rest().await
        })
    }),
    ("something else", |mut s| -> Doing {
        Box::pin(async move {
            s.raw(b"HTTP/1.1 400 Bad Request\r\nX: \x1b[2J\r\n\r\n").await?;
            s.rest().await
        })
    }),
];

/// During a call. The call fails.
const IN_CALL: &[(&str, Part)] = &[
    ("silence", |s| asked(s, |mut s| Box::pin(async move { s.rest().await }))),
    ("a row that trickles", |s| {
        asked(s, |mut s| {
            Box::pin(async move {
                s.row().await?;
                s.announce(b'D', (1 << 30) - 4).await?;
                loop {
                    s.raw(&[b'x'; 1024]).await?;
                    sleep(Duration::from_millis(10)).await;
                }
            })
        })
    }),
    ("notices without end", |s| asked(s, |mut s| Box::pin(async move { s.say_for_ever(b'N', notice).await }))),
    ("parameters without end", |s| asked(s, |mut s| Box::pin(async move { s.say_for_ever(b'S', parameter).await }))),
    ("one parameter without end", |s| {
        asked(s, |mut s| Box::pin(async move { s.say_for_ever(b'S', |_| parameter(0)).await }))
    }),
    ("notifications without end", |s| {
        asked(s, |mut s| Box::pin(async move { s.say_for_ever(b'A', |_| b"\0\0\0\x01a\0b\0".to_vec()).await }))
    }),
    ("a long parameter", |s| pours(s, b'S')),
    ("a long notification", |s| pours(s, b'A')),
    ("a long tag", |s| pours(s, b'C')),
    ("a long error", |s| pours(s, b'E')),
    ("a long message of no type", |s| pours(s, b'!')),
    ("an error without fields", |s| says(s, b'E', b"\0")),
    ("an empty error", |s| says(s, b'E', b"")),
    ("a notice without fields", |s| says(s, b'N', b"")),
    ("a parameter without a value", |s| says(s, b'S', b"a")),
    ("an unknown type", |s| says(s, b'!', b"abc")),
    ("a ReadyForQuery without a status", |s| says(s, b'Z', b"")),
    ("a row of a negative length", |s| asked(s, |mut s| Box::pin(async move { s.raw(b"D\xff\xff\xff\xff").await }))),
    ("a row of length 0", |s| asked(s, |mut s| Box::pin(async move { s.raw(b"D\0\0\0\0").await }))),
    ("a row of length 3", |s| asked(s, |mut s| Box::pin(async move { s.raw(b"D\0\0\0\x03").await }))),
    ("a row that ends in the middle", |s| says(s, b'D', b"\0\x02\0\0\0\x09a")),
    ("an evil end", |s| asked(s, |mut s| Box::pin(async move { s.say(b'E', &evil("FATAL")).await }))),
];

/// During a call. The call fails, and the connection stays usable.
const ANSWERED: &[(&str, Part)] = &[
    ("a row of other columns than announced", |s| {
        asked(s, |mut s| {
            Box::pin(async move {
                s.row().await?;
                s.say(b'D', b"\0\x03\0\0\0\x011\0\0\0\x011\0\0\0\x011").await?;
                s.done().await?;
                s.rest().await
            })
        })
    }),
    ("an evil error", |s| {
        asked(s, |mut s| {
            Box::pin(async move {
                s.say(b'E', &evil("ERROR")).await?;
                s.say(b'Z', b"I").await?;
                s.rest().await
            })
        })
    }),
    ("an error of 10 MB", |s| {
        asked(s, |mut s| {
            Box::pin(async move {
                s.say(b'E', &failure(&"x".repeat(10 * MEGABYTE))).await?;
                s.say(b'Z', b"I").await?;
                s.rest().await
            })
        })
    }),
];

/// During a call. The call succeeds, because the extra message is not its answer.
const HARMLESS: &[(&str, Part)] = &[
    ("an unknown status", |s| {
        asked(s, |mut s| {
            Box::pin(async move {
                s.row().await?;
                s.say(b'C', b"SELECT 1\0").await?;
                s.say(b'Z', b"?").await?;
                loop {
                    s.asked().await?;
                    s.say(b'C', b"ROLLBACK\0").await?;
                    s.say(b'Z', b"?").await?;
                }
            })
        })
    }),
    ("an evil notice", |s| says_and_answers(s, b'N', &evil("WARNING"))),
    ("an evil parameter", |s| says_and_answers(s, b'S', format!("TimeZone\0{EVIL}\0").as_bytes())),
    ("a notice of 10 MB", |s| says_and_answers(s, b'N', &failure(&"x".repeat(10 * MEGABYTE)))),
];

/// After the answer, while the connection is idle. The pool closes the connection.
const AT_REST: &[(&str, Part)] = &[
    ("an unrequested row", |s| {
        answered(s, |mut s| {
            Box::pin(async move {
                s.announce(b'D', (1 << 30) - 4).await?;
                s.pour().await
            })
        })
    }),
    ("an unrequested answer", |s| {
        answered(s, |mut s| {
            Box::pin(async move {
                s.row().await?;
                s.done().await?;
                s.rest().await
            })
        })
    }),
    ("parameters without end", |s| answered(s, |mut s| Box::pin(async move { s.say_for_ever(b'S', parameter).await }))),
    ("a long error", |s| {
        answered(s, |mut s| {
            Box::pin(async move {
                s.announce(b'E', 1 << 30).await?;
                s.pour().await
            })
        })
    }),
];

fn asked(mut s: Session, then: Part) -> Doing {
    Box::pin(async move {
        s.welcome().await?;
        s.asked().await?;
        then(s).await
    })
}

fn answered(mut s: Session, then: Part) -> Doing {
    Box::pin(async move {
        s.welcome().await?;
        s.answer().await?;
        then(s).await
    })
}

fn says(mut s: Session, kind: u8, body: &'static [u8]) -> Doing {
    Box::pin(async move {
        s.welcome().await?;
        s.asked().await?;
        s.say(kind, body).await?;
        s.rest().await
    })
}

fn pours(mut s: Session, kind: u8) -> Doing {
    Box::pin(async move {
        s.welcome().await?;
        s.asked().await?;
        s.announce(kind, 1 << 30).await?;
        s.pour().await
    })
}

fn says_and_answers(mut s: Session, kind: u8, body: &[u8]) -> Doing {
    let body = body.to_vec();
    Box::pin(async move {
        s.welcome().await?;
        s.asked().await?;
        s.say(kind, &body).await?;
        s.row().await?;
        s.done().await?;
        s.rest().await
    })
}

/// Runs itself again in a process of its own, whose memory no other test uses.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misbehaves_costs_a_call_its_time_and_nothing_else() {
    if std::env::var_os(CHILD).is_some() {
        return meet_all().await;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let name = "outcomes::misbehaving::a_server_that_misbehaves_costs_a_call_its_time_and_nothing_else";
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(6 * LONG, child.output()).await.unwrap().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    println!("{}", said.lines().find(|line| line.contains("misbehaved")).unwrap());
}

async fn meet_all() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Info);
    let begun = Instant::now();
    let meetings = [
        (AT_START, false, true),
        (IN_CALL, false, true),
        (ANSWERED, false, false),
        (HARMLESS, true, false),
        (AT_REST, true, true),
    ];
    let cases =
        meetings.into_iter().flat_map(|(cases, serves, ends)| cases.iter().map(move |case| (*case, serves, ends)));
    let met = stream::iter(cases).map(|((name, part), serves, ends)| meet(name, part, serves, ends));
    let count = met.buffer_unordered(4).count().await;
    let used = most_memory();
    for line in LINES.0.lock().unwrap().iter() {
        assert_is_one_line("the log", line);
    }
    println!("{count} servers misbehaved: {} MB at most, {:?}", used / MEGABYTE, begun.elapsed());
    assert!(used < MOST_MEMORY, "{} MB", used / MEGABYTE);
}

/// `serves`: whether the call succeeds. `ends`: whether the pool closes the connection by itself.
async fn meet(name: &'static str, part: Part, serves: bool, ends: bool) {
    let actor = Actor::start(part).await;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let builder = Pool::builder(actor.url().parse().unwrap()).max_size(1).retry(RetryConfig::off());
    // A call that succeeds may take its time: the machine may be busy.
    let query_timeout = if serves { LONG } else { SECOND / 2 };
    let builder = builder.connect_timeout(SECOND).acquire_timeout(SECOND).query_timeout(query_timeout);
    let pool = builder.observer(move |event: &Event| heard.lock().unwrap().push(event.to_string())).build().unwrap();

    let begun = Instant::now();
    let result = timeout(LONG, pool.simple_query("SELECT 1")).await.unwrap_or_else(|_| panic!("hangs: {name}"));
    let took = begun.elapsed();
    assert!(serves || took < 4 * SECOND, "{name}: {took:?}");
    assert_eq!(result.is_ok(), serves, "{name}: {result:?}");
    if let Err(error) = &result {
        println!("{name}: {error}");
        lines.lock().unwrap().extend([error.to_string(), format!("{error:?}")]);
        if let Error::Connect { source, .. } = error {
            lines.lock().unwrap().push(source.to_string());
            let says_so = source.to_string().contains("the server sent more than");
            assert!(says_so || !TOO_MUCH_AT_START.contains(&name), "{name}: {source}");
        }
    }
    if ends {
        eventually(&format!("the connection is closed: {name}"), LONG, async || actor.open() == 0).await;
    }
    let ready = pool.ready().err().map(|not_ready| not_ready.to_string());
    let status = pool.status().to_string();
    drop(pool);
    eventually(&format!("nothing is left: {name}"), LONG, async || actor.open() == 0).await;
    // The tasks of the pool may still report how the connection ends.
    eventually(&format!("nothing more is reported: {name}"), LONG, async || Arc::strong_count(&lines) == 1).await;
    let said = std::mem::take(&mut *lines.lock().unwrap());
    for line in said.into_iter().chain(ready).chain([status]) {
        assert_is_one_line(name, &line);
    }
}

fn assert_is_one_line(what: &str, line: &str) {
    let is_evil = |char: char| char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!line.chars().any(is_evil), "{what}: {line:?}");
    assert!(line.len() < 10 * LONGEST_LINE, "{what}: {} bytes", line.len());
}

/// The highest that the memory of this process has been, in bytes.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Collects everything that this process logs.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        let mut lines = self.0.lock().unwrap();
        // Of an endless series of notices, a part is enough.
        if lines.len() < 10_000 {
            lines.push(line);
        }
    }

    fn flush(&self) {}
}
