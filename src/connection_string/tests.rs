use tokio_postgres::config::Host;

use super::*;

fn parsed(text: &str) -> ConnectionString {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    text.parse::<ConnectionString>().expect_err(text).to_string()
}

#[test]
fn a_url_and_pairs_mean_the_same() {
    let url = parsed("postgresql://a%40b:p%2F%3a%27%5c@h1:1,h2/d%20b?application_name=x%26y&connect_timeout=3");
    let pairs =
        parsed(r"user=a@b password = 'p/:\'\\' host=h1,h2 port=1, dbname='d b' application_name=x&y connect_timeout=3");
    assert_eq!(url, pairs);
    assert_eq!(url.driver.get_password(), Some(br"p/:'\".as_slice()));
    assert_eq!(url.driver.get_ports(), [1, 5432]);
}

#[test]
fn special_characters_in_a_password_are_read_as_in_libpq() {
    for (text, password) in [
        ("postgres://u:p?w@h/d", "p?w"),
        ("postgres://u:p#w@h/d", "p#w"),
        ("postgres://u:p[w]@h/d", "p[w]"),
        ("postgres://u:p:w@h/d", "p:w"),
        ("postgres://u:p%40w@h/d", "p@w"),
        ("postgres://u:p%25w@h/d", "p%w"),
        ("postgres://u@h/d?password=p%40w", "p@w"),
        ("host=h user=u password=p@w/?#[%", "p@w/?#[%"),
        (r"host=h user=u password=p\ w", "p w"),
        ("host=h user=u password='p w'", "p w"),
        ("host=h user=u password=one password=two", "two"),
    ] {
        assert_eq!(parsed(text).driver.get_password(), Some(password.as_bytes()), "{text}");
    }
}

/// Each text has `zanzi`, as a part of a password, where an error might quote it.
#[test]
fn a_possible_part_of_a_password_is_not_quoted() {
    for text in [
        "postgres://u:p@zanzi@h/d",
        "postgres://u:p/zanzi@h/d",
        "postgres://u:5432/zanzi@h/d",
        "postgres://u:zanzi/p@h/d",
        "postgres://u:p@a/zanzi@h/d",
        "postgres://u:p@a?zanzi@h/d",
        "postgres://u:p@a?zanzi=x@h/d",
        "postgres://u:p%zanzi@h/d",
        "postgres://u:p@zanzi%zz/d",
        "postgres://u:p@[zanzi/d",
        "postgres://u:p@h#zanzi/d",
        "postgres://u:p@h:zanzi/d",
        "host=h password=p zanzi",
        "host=h password=p zanzi=x",
        "host=h password='p zanzi",
        "host=u:p@zanzi",
        "host=h?zanzi",
        "host=h%zanzi",
        "host='a zanzi'",
    ] {
        let error = text.parse::<ConnectionString>().expect_err(text);
        assert!(!format!("{error} {error:?}").contains("zanzi"), "{text}: {error}");
    }
    assert!(refusal("postgres://u:p@zanzi@h/d").contains("more than one @"), "{}", refusal("postgres://u:p@zanzi@h/d"));
    assert!(refusal("postgres://u:p/zanzi@h/d").contains("%2F"));
}

#[test]
fn hosts() {
    let hosts = |text: &str| parsed(text).driver.get_hosts().to_vec();
    assert_eq!(hosts("postgres://[::1]:7/d"), [Host::Tcp("::1".to_owned())]);
    assert_eq!(hosts("host=fe80::1%eth0"), [Host::Tcp("fe80::1%eth0".to_owned())]);
    assert_eq!(hosts("host=my_db.example-1.org."), [Host::Tcp("my_db.example-1.org.".to_owned())]);
    #[cfg(unix)]
    for text in ["postgres://%2Frun%2Fpg/d", "postgres:///d?host=/run/pg", "host=/run/pg"] {
        assert_eq!(hosts(text), [Host::Unix("/run/pg".into())], "{text}");
    }
}

#[test]
fn an_option_is_refused_by_name_with_the_values_that_work() {
    for (text, expected) in [
        ("host=h sslmode=allow", "sslmode = allow: must be disable, prefer, require, verify-ca or verify-full"),
        (
            "postgres://h/?sslmode=verify",
            "sslmode = verify: must be disable, prefer, require, verify-ca or verify-full",
        ),
        ("host=h target_session_attrs=standby", "target_session_attrs = standby: must be any, read-write or read-only"),
        ("host=h connect_timeout=3s", "connect_timeout = 3s: must be a whole number of seconds"),
        ("host=h port=0x1", "port: must be 1 to 65535, or such a number for each host"),
        ("host=h sslcrl=a.crl", "sslcrl: revocation lists are not read"),
        ("host=h gssencmode=require", "gssencmode = require: must be disable or prefer"),
        ("host=h sslrootcert=system sslmode=require", "sslrootcert = system: goes with sslmode=verify-full only"),
        ("host=h sslcert=a.crt", "sslkey = (none): must be given with sslcert"),
        ("host=h sslkey=a.key", "sslcert = (none): must be given with sslkey"),
        ("host=h ssl_mode=require", "ssl_mode: there is no such setting; did you mean `sslmode`?"),
        ("postgres://h/?pgbouncer=true", "pgbouncer: there is no such setting"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn every_option_is_in_the_table_once_and_the_driver_takes_its_own() {
    parsed(
        "host=h user=u password=p dbname=d options=-cjit=off application_name=a port=1 hostaddr=::1 sslmode=disable \
         sslnegotiation=postgres connect_timeout=1 keepalives=1 keepalives_idle=1 keepalives_interval=1 keepalives_count=1 \
         keepalives_retries=1 tcp_user_timeout=1 target_session_attrs=any channel_binding=prefer load_balance_hosts=random \
         gssencmode=disable sslcompression=0 sslsni=1 client_encoding=UTF8",
    );
    let mut names = options::names();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), options::names().len());
}

#[cfg(any(feature = "native-tls", feature = "rustls"))]
#[test]
fn tls_options_mean_what_libpq_means() {
    use tokio_postgres::config::SslMode;

    for (text, mode, verifies_name) in [
        ("host=h", SslMode::Prefer, true),
        ("host=h sslmode=require", SslMode::Require, true),
        ("host=h sslmode=require sslrootcert=f", SslMode::Require, false),
        ("host=h sslrootcert=f", SslMode::Prefer, false),
        ("host=h sslmode=verify-ca sslrootcert=f", SslMode::Require, false),
        ("host=h sslmode=verify-full sslrootcert=f", SslMode::Require, true),
        ("host=h sslrootcert=system", SslMode::Require, true),
        ("postgres://h/?ssl=true", SslMode::Require, true),
    ] {
        let parsed = parsed(text);
        assert_eq!((parsed.driver.get_ssl_mode(), parsed.tls.verifies_name()), (mode, verifies_name), "{text}");
    }
}

#[test]
fn debug_shows_neither_a_password_nor_a_suspicious_host() {
    let good = format!("{:?}", parsed("postgres://u:hunter2@h/d"));
    assert!(good.contains("\"h\"") && !good.contains("hunter2"), "{good}");
    for url in ["postgres://u:p@zanzi@h/d", "postgres://u:p@a/zanzi@h/d"] {
        let config: Config = url.parse().unwrap();
        assert!(!format!("{:?}", ConnectionString::from(config)).contains("zanzi"), "{url}");
    }
}

proptest::proptest! {
    /// No text makes the parser panic, and no error shows the text after the colon before a password.
    #[test]
    fn no_text_panics_or_shows_a_password(url in "[a-z@/?#%:=&, '\\\\\\[\\]\u{e4}0-9]{0,30}", pairs in "[a-z@=' \\\\0-9]{0,30}") {
        for text in [format!("postgres://u:zanzi{url}"), format!("host=h password=zanzi{pairs}"), url, pairs] {
            if let Err(error) = text.parse::<ConnectionString>() {
                proptest::prop_assert!(!error.to_string().contains("zanzi"), "{}: {}", text, error);
            }
        }
    }
}
