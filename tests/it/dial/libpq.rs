//! Compares the pool with libpq: gives the same connection strings to psql and to the pool, without a connector and
//! with each ready one.
//!
//! Both connect, or both refuse and the pool's error names the option. A row in which they differ has the reason, and
//! the guide has the same list. psql runs in the server's container, where files, socket and address have other names.
//! So the rows have placeholders in braces for them.

mod rows;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use failfast::{ConfigError, Pool, PoolBuilder};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

use self::rows::{Certificate, ROWS, Row, Verdict};
use super::LONG;
use crate::support::{eventually, server::Server};

/// Authorities, certificates of the server and of clients, each with its key.
const CERTIFICATES: &str = r#"
mkdir /certificates && cd /certificates
new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "$@" 2>&1; }
leaf='-addext basicConstraints=critical,CA:FALSE'
new -keyout ca.key -out ca.crt -subj '/CN=test authority' -addext keyUsage=critical,keyCertSign &&
new -keyout other.key -out other.crt -subj '/CN=other authority' -addext keyUsage=critical,keyCertSign &&
new -CA ca.crt -CAkey ca.key -keyout named.key -out named.crt -subj /CN=localhost $leaf \
    -addext subjectAltName=DNS:localhost,DNS:failfast.test &&
new -CA ca.crt -CAkey ca.key -keyout common.key -out common.crt -subj /CN=localhost $leaf &&
new -CA ca.crt -CAkey ca.key -keyout client.key -out client.crt -subj /CN=certified $leaf &&
new -CA other.crt -CAkey other.key -keyout stranger.key -out stranger.crt -subj /CN=certified $leaf &&
openssl req -new -x509 -days 365 -nodes -out manual.crt -keyout manual.key -subj /CN=localhost 2>&1 &&
cp client.key loose.key && chmod 600 *.key && chmod 644 loose.key &&
chown postgres named.key common.key manual.key
"#;

/// The files that a client may need.
const FILES: [&str; 9] = [
    "ca.crt",
    "other.crt",
    "manual.crt",
    "client.crt",
    "client.key",
    "stranger.crt",
    "stranger.key",
    "loose.key",
    "named.crt",
];

/// Every user needs a password or a certificate.
const ACCESS: &str = r#"
printf '%s\n' 'local all all scram-sha-256' 'hostssl all certified all cert' 'host all all all scram-sha-256' \
    >"$PGDATA/pg_hba.conf"
"#;

const ROLES: [&str; 4] = [
    "CREATE ROLE odd LOGIN PASSWORD 'p@ss/w?r#d [1]:%'",
    "CREATE ROLE raw LOGIN PASSWORD 'p?w#[x]:'",
    r"CREATE ROLE spaced LOGIN PASSWORD 'a b''c\d'",
    "CREATE ROLE certified LOGIN",
];

/// The values of the placeholders for one client.
struct Place {
    files: String,
    sockets: String,
    ip: String,
    port: u16,
}

impl Place {
    fn fill(&self, text: &str) -> String {
        text.replace("{url}", "postgres://failfast:secret@{at}/failfast")
            .replace("{certified}", "postgres://certified@{at}/failfast?sslmode=verify-ca&sslrootcert={files}/ca.crt")
            .replace("{login}", "port={port} user=failfast password=secret dbname=failfast")
            .replace("{files}", &self.files)
            .replace("{sockets%}", &self.sockets.replace('/', "%2F"))
            .replace("{sockets}", &self.sockets)
            .replace("{at}", &format!("{}:{}", self.ip, self.port))
            .replace("{ip}", &self.ip)
            .replace("{port}", &self.port.to_string())
    }
}

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("failfast-{:016x}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn start() -> Server {
    let server = Server::own(&[]).await;
    server.exec(CERTIFICATES).await;
    for role in ROLES {
        server.execute(role).await;
    }
    server.exec(ACCESS).await;
    server.execute("ALTER SYSTEM SET ssl_ca_file = '/certificates/ca.crt'").await;
    server
}

/// Lets the server use this certificate from now on.
async fn show(server: &Server, certificate: Certificate) {
    let file = format!("/certificates/{}", certificate.name());
    for (name, value) in
        [("ssl_cert_file", format!("{file}.crt")), ("ssl_key_file", format!("{file}.key")), ("ssl", "on".to_owned())]
    {
        server.execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    }
    server.execute("SELECT pg_reload_conf()").await;
    eventually("the certificate is in use", LONG, async || {
        server.scalar("SHOW ssl_cert_file").await == format!("{file}.crt")
    })
    .await;
}

async fn copy_files(server: &Server, folder: &Path) {
    for name in FILES {
        let path = folder.join(name);
        fs::write(&path, server.exec(&format!("cat /certificates/{name}")).await).unwrap();
        let mode = if name.ends_with(".key") && name != "loose.key" { 0o600 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Opens a Unix socket that leads to the server, because the server's own is in its container.
fn relay(server: &Server, folder: &Path) {
    let addr = server.addr();
    let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{}", addr.port()))).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(addr).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
}

/// The output of psql. `None` if it connects.
async fn psql(server: &Server, text: &str) -> Option<String> {
    let quoted = text.replace('\'', r"'\''");
    let command = format!("PGCONNECT_TIMEOUT=10 psql -X -w -tAc 'SELECT 1' '{quoted}' 2>&1 || echo refused");
    let printed = server.exec(&command).await;
    (printed.trim() != "1").then_some(printed)
}

type Build = fn(PoolBuilder) -> Result<Pool, ConfigError>;

const BUILDS: [(&str, Build); 3] = [
    ("none", |builder| builder.build()),
    ("rustls", |builder| builder.build_tls(failfast::tls::rustls()?)),
    ("native-tls", |builder| builder.build_tls(failfast::tls::native_tls()?)),
];

/// The error of the pool. `None` if it connects.
async fn pool(text: &str, build: Build) -> Option<String> {
    let pool = match Pool::builder_by_url(text).map(|builder| builder.connect_timeout(LONG)).and_then(build) {
        Ok(pool) => pool,
        Err(error) => return Some(error.to_string()),
    };
    pool.get_timeout(LONG).await.err().map(|error| error.to_string())
}

impl Row {
    /// Tries the row, and returns everything that differs from it.
    async fn check(&self, server: &Server, inside: &Place, outside: &Place) -> Vec<String> {
        let mut wrong = Vec::new();
        let theirs = psql(server, &inside.fill(self.text)).await;
        let mut compare = |who: &str, expected: Verdict, found: &Option<String>| match (expected, found) {
            (Verdict::Connects, None) => {}
            (Verdict::Says(words), Some(said)) if said.contains(words) => {}
            _ => wrong.push(format!("{}\n  {who}: expected {expected:?}, found {found:?}", self.text)),
        };
        compare("psql", self.psql, &theirs);
        let mut differs = false;
        for (connector, build) in BUILDS {
            let expected = if connector == "none" { self.none } else { self.ready };
            let ours = pool(&outside.fill(self.text), build).await;
            compare(connector, expected, &ours);
            let lacks_tls = ours.as_ref().is_some_and(|said| said.contains("needs a TLS connector"));
            differs |= ours.is_none() != theirs.is_none() && !lacks_tls;
            for secret in ["p@ss", "ss/w", "w?r#d", "secret"] {
                assert!(!ours.as_ref().is_some_and(|said| said.contains(secret)), "{}: {ours:?}", self.text);
            }
        }
        if differs != self.differs_because.is_some() {
            wrong.push(format!("{}\n  differs: {differs}, reason: {:?}", self.text, self.differs_because));
        }
        wrong
    }
}

#[tokio::test]
async fn the_same_strings_given_to_psql() {
    let server = start().await;
    let folder = Folder::new();
    copy_files(&server, &folder.0).await;
    relay(&server, &folder.0);
    let here = folder.0.display().to_string();
    let addr = server.addr();
    let outside = Place { files: here.clone(), sockets: here, ip: addr.ip().to_string(), port: addr.port() };
    let inside = Place {
        files: "/certificates".to_owned(),
        sockets: "/var/run/postgresql".to_owned(),
        ip: "127.0.0.1".to_owned(),
        port: 5432,
    };
    assert!(ROWS.len() >= 30);
    let mut wrong = Vec::new();
    for certificate in Certificate::ALL {
        show(&server, certificate).await;
        for row in ROWS.iter().filter(|row| row.certificate == certificate) {
            wrong.extend(row.check(&server, &inside, &outside).await);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The guide has the reason of each difference.
#[test]
fn the_guide_lists_each_difference() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide.md");
    let guide = fs::read_to_string(guide).unwrap();
    for row in &ROWS {
        if let Some(reason) = row.differs_because {
            assert!(guide.contains(reason), "docs/guide.md does not have: {reason}");
        }
    }
}

/// A certificate may be renewed while the pool runs: the next dial uses the new one. A bad one does not open the
/// circuit.
#[tokio::test]
async fn files_are_read_at_each_dial() {
    let server = start().await;
    show(&server, Certificate::Named).await;
    let folder = Folder::new();
    copy_files(&server, &folder.0).await;
    let (addr, files) = (server.addr(), folder.0.display());
    let url = format!(
        "host=localhost hostaddr={} port={} user=certified dbname=failfast sslmode=verify-full sslrootcert={files}/ca.crt \
         sslcert={files}/client.crt sslkey={files}/client.key",
        addr.ip(),
        addr.port(),
    );
    for (connector, build) in &BUILDS[1..] {
        let breaker = failfast::BreakerConfig::default().volume_threshold(1);
        let builder = Pool::builder_by_url(&url).unwrap().max_size(1).breaker(breaker);
        let pool = build(builder.connect_timeout(LONG).acquire_timeout(LONG)).unwrap();
        pool.get().await.unwrap().discard();
        fs::rename(folder.0.join("client.crt"), folder.0.join("away.crt")).unwrap();
        for _ in 0..2 {
            let error = pool.get().await.unwrap_err().to_string();
            assert!(error.contains("no TLS: sslcert = ") && error.contains("cannot be read"), "{connector}: {error}");
        }
        assert_eq!(pool.breaker().state(), failfast::breaker::State::Closed, "{connector}");
        fs::rename(folder.0.join("away.crt"), folder.0.join("client.crt")).unwrap();
        pool.flush();
        eventually("the pool is back", LONG, async || pool.get_timeout(Duration::from_secs(1)).await.is_ok()).await;
    }
}
