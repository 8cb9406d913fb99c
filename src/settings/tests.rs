mod documented;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use super::keys::keys as keys_near;
use super::*;
use crate::event::Event;
use crate::policy::{Lane, LaneLimits};
use crate::pool::Pool;

fn keys() -> Vec<String> {
    keys_near("")
}

/// Each key with a value that is neither its default nor the value of another key, unless it is a word.
fn others() -> Vec<(String, String)> {
    let value = |(index, key): (usize, String)| {
        let words = ["postgres://u:hunter2@localhost/d", "true", "queue_only", "always", "background", "act"];
        let number = match key.as_str() {
            // Between `min_idle` and `max_size`.
            "adaptive.start" => "197".to_owned(),
            key if key.starts_with("lane_limits.") => format!("0.1{index}1"),
            _ => format!("{}", 200 - index),
        };
        let values = [number, format!("{}s", 200 - index)].into_iter().chain(words.map(str::to_owned));
        let fits = |value: &String| Settings::default().set(&key, value).is_ok();
        let fitting = values.into_iter().find(fits).unwrap_or_else(|| panic!("no value of {key}'s kind"));
        (key, fitting)
    };
    keys().into_iter().enumerate().map(value).collect()
}

fn config() -> Config {
    "host=localhost user=u".parse().unwrap()
}

fn all() -> Settings {
    let mut settings = Settings::default();
    for (key, value) in others().into_iter().filter(|(key, _)| !lacks_feature(key)) {
        settings.set(&key, &value).unwrap();
    }
    settings
}

fn read(text: &str) -> Result<Settings, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    read(text).expect_err(text)
}

fn from_vars(vars: &[(&str, &str)]) -> Result<Settings, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::from_vars("DB", vars).map_err(|error| error.to_string())
}

/// All that the builder has, as its `Debug` shows it.
fn effect(settings: &Settings) -> String {
    #[cfg(feature = "cluster")]
    if settings.cluster != ClusterSettings::default() {
        return format!("{:?}", settings.cluster_builder(config()).unwrap());
    }
    format!("{:?}", settings.builder(config()).unwrap())
}

/// [`effect`] of no settings, on the builder that has this key.
fn untouched(key: &str) -> String {
    #[cfg(feature = "cluster")]
    if key.starts_with("cluster.") {
        return format!("{:?}", crate::Cluster::builder(config()));
    }
    let _ = key;
    format!("{:?}", Pool::builder(config()))
}

/// Returns whether the key is refused without a feature that this build lacks.
fn lacks_feature(key: &str) -> bool {
    (cfg!(not(feature = "fleet")) && (key.starts_with("fleet.") || key.starts_with("adaptive.")))
        || (cfg!(not(feature = "cluster")) && key.starts_with("cluster."))
}

#[test]
fn every_key_reaches_the_builder() {
    assert_eq!(effect(&Settings::default()), untouched("name"));
    let others = others();
    for (key, value) in others.iter().filter(|(key, _)| key != "url" && !lacks_feature(key)) {
        let mut settings = Settings::default();
        // One of two values that belong together has no effect.
        let (table, _) = key.rsplit_once('.').unwrap_or_default();
        let is_pair = ["long_running", "breaker.slow_call", "breaker.reset_timeout_growth", "fleet"].contains(&table);
        for (other, value) in others.iter().filter(|(other, _)| is_pair && other.starts_with(&format!("{table}."))) {
            settings.set(other, value).unwrap();
        }
        settings.set(key, value).unwrap();
        let with = effect(&settings);
        assert_ne!(with, untouched(key), "{key} has no effect");
        if is_pair {
            settings.set(key, "98s").or_else(|_| settings.set(key, "98")).unwrap();
            assert_ne!(effect(&settings), with, "{key} has no effect");
        }
    }
}

/// Setters without a key: they take a closure or a type of another crate, or are no setting.
const NOT_DATA: [(&str, &str); 20] = [
    ("ClusterBuilder.pool", "a closure"),
    ("ClusterBuilder.observer", "code"),
    ("ClusterBuilder.build", "no setting"),
    ("ClusterBuilder.build_tls", "no setting"),
    ("PoolBuilder.breaker_with", "another crate's machine"),
    ("PoolBuilder.is_failure", "a closure"),
    ("PoolBuilder.observer", "code"),
    ("PoolBuilder.recorder", "code"),
    ("PoolBuilder.credentials", "a closure"),
    ("PoolBuilder.after_connect", "a closure"),
    ("PoolBuilder.runtime", "another crate's handle"),
    ("PoolBuilder.build", "no setting"),
    ("PoolBuilder.build_tls", "no setting"),
    ("BreakerConfig.automatic_transitions", "changes nothing in a pool"),
    ("BreakerConfig.latency", "a pool has metrics"),
    ("BreakerConfig.name", "a pool has one"),
    ("BreakerConfig.on_call", "a closure"),
    ("BreakerConfig.on_transition", "a closure"),
    ("RetryConfig.backoff_with", "a closure"),
    ("RetryConfig.off", "max_attempts = 1"),
];

/// The public setters of the builders, and their constructors except `new`, as the source has them.
fn setters(text: &str) -> Vec<String> {
    let mut setters = Vec::new();
    for owner in ["PoolBuilder", "ClusterBuilder", "BreakerConfig", "RetryConfig", "ServerTimeouts"] {
        for block in text.split(&format!("\nimpl {owner} {{")).skip(1) {
            let block = block.split("\n}\n").next().unwrap_or_default();
            for function in block.split("\n    pub fn ").skip(1) {
                let name: String = function.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let head = function.split('{').next().unwrap_or_default();
                if head.contains("(mut self") || head.contains("(self") || head.contains("-> Self") && name != "new" {
                    setters.push(format!("{owner}.{name}"));
                }
            }
        }
    }
    setters
}

fn setters_in(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(setters_in(&path));
        } else {
            found.extend(setters(&fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn every_setter_has_a_key_and_every_key_a_setter() {
    let found: BTreeSet<_> = setters_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).into_iter().collect();
    assert!(found.len() > 45, "the setters were not found: {found:?}");
    let mut unused: BTreeSet<String> = keys().into_iter().collect();
    for setter in found.iter().filter(|setter| NOT_DATA.iter().all(|(name, _)| name != setter)) {
        let key = setter
            .replace("PoolBuilder.", "")
            .replace("adaptive_start", "adaptive.start")
            .replace("ClusterBuilder", "cluster")
            .replace("BreakerConfig", "breaker")
            .replace("RetryConfig", "retry")
            .replace("ServerTimeouts", "server_timeouts");
        let of_it: Vec<_> = keys().into_iter().filter(|name| name.strip_prefix(&*key).is_some_and(is_end)).collect();
        assert!(!of_it.is_empty(), "{setter} has no key in Settings, and is not in NOT_DATA");
        let is_whole = ["breaker", "retry", "server_timeouts"].contains(&key.as_str());
        unused.retain(|name| is_whole || !of_it.contains(name));
    }
    // `url` is an argument of Pool::builder, and `enabled` switches its table on.
    assert_eq!(unused, BTreeSet::from(["server_timeouts.enabled".to_owned(), "url".to_owned()]));
}

fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('.')
}

#[test]
fn settings_are_written_as_they_are_read() {
    let mut expected = all();
    expected.url = None;
    let text = toml::to_string(&all()).unwrap();
    assert_eq!(read(&text).unwrap(), expected, "{text}");
    assert!(text.contains("max_lifetime = \"3m 13s\"\n") && text.contains("[breaker.slow_call]\n"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(toml::to_string(&Settings::default()).unwrap(), "");
    let hardened = toml::to_string(&Settings::hardened()).unwrap();
    assert_eq!(read(&hardened).unwrap(), Settings::hardened());
}

#[test]
fn a_file_is_read() {
    let settings = read(
        r#"
        url = "postgres://app@db.example/orders"
        max_size = 20
        acquire_timeout = "500ms"
        max_lifetime = "30 min"
        idle_timeout = "never"
        long_running = { statements = 3, than = "2s" }
        leak_backtraces = true
        [breaker]
        error_threshold_percentage = 40
        reset_timeout_growth = { factor = 2, cap = "5 min" }
        [retry]
        backoff_multiplier = 1.5
        [server_timeouts]
        "#,
    )
    .unwrap();
    let seconds = Duration::from_secs;
    let growth = GrowthSettings { factor: Some(2.0), cap: Some(seconds(300)) };
    let expected = Settings {
        url: Some("postgres://app@db.example/orders".parse().unwrap()),
        max_size: Some(20),
        acquire_timeout: Some(Duration::from_millis(500)),
        max_lifetime: Some(seconds(1_800).into()),
        idle_timeout: Some(Expiry::Never),
        long_running: LongRunningSettings { statements: Some(3), than: Some(seconds(2)) },
        leak_backtraces: Some(true),
        breaker: BreakerSettings {
            error_threshold_percentage: Some(40),
            reset_timeout_growth: growth,
            ..BreakerSettings::default()
        },
        retry: RetrySettings { backoff_multiplier: Some(1.5), ..RetrySettings::default() },
        server_timeouts: ServerTimeoutSettings { enabled: Some(true), ..ServerTimeoutSettings::default() },
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    assert!(settings.builder_by_url().unwrap().build().is_ok());
}

#[test]
fn settings_may_be_a_table_of_a_larger_file() {
    #[derive(Deserialize)]
    struct Service {
        port: u16,
        database: Settings,
    }
    let service: Service = toml::from_str("port = 80\n[database]\nmax_size = 3\nretry.max_attempts = 1").unwrap();
    assert_eq!((service.port, service.database.max_size), (80, Some(3)));
    assert_eq!(service.database.retry.max_attempts, Some(1));

    #[derive(Deserialize)]
    struct Flat {
        #[serde(flatten)]
        database: Settings,
    }
    let flat: Flat = toml::from_str("query_timeout = \"3s\"").unwrap();
    assert_eq!(flat.database.query_timeout, Some(Duration::from_secs(3)));
}

#[test]
fn an_unknown_key_is_refused_by_its_whole_name_and_line() {
    for (text, message) in [
        ("max_size = 5\nmax_sise = 20", "max_sise: there is no such setting; did you mean `max_size`?"),
        ("[retry]\nmax_atempts = 3", "retry.max_atempts: there is no such setting; did you mean `retry.max_attempts`?"),
        ("breaker.slow_call.percent = 3", "breaker.slow_call.percent: there is no such setting"),
        ("retri.budget = 3", "retri: there is no such setting; did you mean `retry`?"),
        ("max_atempts = 3", "max_atempts: there is no such setting"),
        ("password = \"hunter2\"", "password: there is no such setting"),
        ("\"retry.budget\" = 3", "retry.budget: there is no such setting"),
        ("[max_size]\nx = 3", "max_size: is a single value, not a table"),
        ("retry = 3", "retry: is a table"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(message), "{refusal}");
        let line = text.lines().count();
        assert!(refusal.contains(&format!("line {line},")) || text.starts_with("[max_size"), "{refusal}");
    }
    assert!(refusal("max_size = [1]").contains("expected a value for max_size"));
    let twice = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(
        [("max_size", 1_u64), ("max_size", 2)].into_iter(),
    );
    assert_eq!(Settings::deserialize(twice).unwrap_err().to_string(), "max_size: is there twice");
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_key() {
    for (text, message) in [
        ("acquire_timeout = 5", "acquire_timeout = \"5\": must be a duration with its unit"),
        ("query_timeout = \"5 parsecs\"", "query_timeout = \"5 parsecs\": must be a duration with its unit"),
        ("[breaker]\nreset_timeout = \"\"", "breaker.reset_timeout = \"\": must be a duration"),
        ("idle_timeout = \"nevr\"", "idle_timeout = \"nevr\": must be \"never\", or a duration"),
        ("max_size = -1", "max_size = \"-1\": must be a whole number"),
        ("max_size = \"many\"", "max_size = \"many\": must be a whole number"),
        ("[breaker]\nerror_threshold_percentage = 256", "\"256\": must be a whole number, 0 to 255"),
        ("leak_backtraces = 1", "leak_backtraces = \"1\": must be true or false"),
        ("shedding = \"Off\"", "shedding = \"Off\": must be \"predictive\", \"queue_only\" or \"off\""),
        ("reset = \"x\"", "reset = \"x\": must be \"never\", \"when_seen\" or \"always\""),
        ("[retry]\nbackoff_multiplier = \"x\"", "retry.backoff_multiplier = \"x\": must be a number"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(message), "{refusal}");
        assert!(refusal.contains(&format!("line {},", text.lines().count())), "{refusal}");
    }
    let refusal = Settings::default().set("max_size", &"9".repeat(1_000)).unwrap_err().to_string();
    assert!(refusal.len() < 200 && refusal.contains("\"..."), "{refusal}");
}

#[test]
fn neither_debug_nor_an_error_shows_a_password() {
    let settings = all();
    assert!(!format!("{settings:?} {settings:#?}").contains("hunter2"));
    let bad = "postgres://u:hunter2@local host:port/d?nonsense=hunter2";
    let refusal = Settings::default().set("url", bad).unwrap_err();
    assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{refusal:?}");
    assert_eq!(refusal.setting(), "url");
    // TOML quotes the line of an error.
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "it cannot be read")]
    struct Service {
        database: Settings,
    }
    let refusal = self::refusal(&format!("url = {bad:?}\nmax_size = 3"));
    assert!(refusal.contains("url: port: must be") && !refusal.contains("hunter2"), "{refusal}");
    let refusal = toml::from_str::<Service>(&format!("[database]\nurl = {bad:?}")).unwrap_err().to_string();
    assert!(refusal.contains("url: port: must be") && !refusal.contains("hunter2"), "{refusal}");
    let refusal = from_vars(&[("DB_PASSWORD", "hunter2")]).unwrap_err();
    assert_eq!(refusal, "DB_PASSWORD: there is no such setting");
}

#[test]
fn an_empty_prefix_is_refused() {
    for prefix in ["", "_"] {
        let refusal = Settings::from_vars(prefix, [("PATH".to_owned(), "/bin".to_owned())]).unwrap_err().to_string();
        assert!(refusal.contains("prefix") && refusal.contains("must not be empty"), "{refusal}");
    }
}

#[test]
fn each_key_can_be_a_variable() {
    let names = others().into_iter();
    let names = names.map(|(key, value)| (format!("DB_{}", key.to_uppercase().replace('.', "__")), value));
    let names: Vec<_> = names.collect();
    let others = [("DBMS".to_owned(), "x".to_owned()), ("PATH".to_owned(), "/bin".to_owned())];
    let vars = || names.iter().cloned().chain(others.clone());
    assert_eq!(Settings::from_vars("DB", vars()).unwrap(), all());
    assert_eq!(Settings::from_vars("DB_", vars()).unwrap(), all(), "the underscore is understood");
    assert_eq!(Settings::from_vars("NONE", vars()).unwrap(), Settings::default());
}

#[test]
fn an_unknown_or_bad_variable_is_refused_by_its_name() {
    for (name, value, message) in [
        ("DB_MAX_SISE", "5", "DB_MAX_SISE: there is no such setting; did you mean `DB_MAX_SIZE`?"),
        (
            "DB_RETRY__MAX_ATEMPTS",
            "5",
            "DB_RETRY__MAX_ATEMPTS: there is no such setting; did you mean `DB_RETRY__MAX_ATTEMPTS`?",
        ),
        (
            "DB_RETRY_MAX_ATTEMPTS",
            "5",
            "DB_RETRY_MAX_ATTEMPTS: there is no such setting; did you mean `DB_RETRY__MAX_ATTEMPTS`?",
        ),
        ("DB_max_size", "5", "DB_max_size: there is no such setting"),
        ("DB_MAXSIZE", "5", "DB_MAXSIZE: there is no such setting; did you mean `DB_MAX_SIZE`?"),
        ("DB_RETRI", "5", "DB_RETRI: there is no such setting"),
        ("DB_", "5", "DB_: there is no such setting"),
        ("DB_RETRY", "5", "DB_RETRY: there is no such setting"),
        ("DB_MAX_SIZE", "", "DB_MAX_SIZE = \"\": must be a whole number"),
        ("DB_BREAKER__RESET_TIMEOUT", "30", "DB_BREAKER__RESET_TIMEOUT = \"30\": must be a duration with its unit"),
    ] {
        let refusal = from_vars(&[("PATH", "/bin"), (name, value)]).unwrap_err();
        assert!(refusal.starts_with(message), "{refusal}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused_by_its_name() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![0xff]);
    let elsewhere = [(bad(), bad()), ("PATH".into(), bad())];
    assert_eq!(env::read("DB", elsewhere).unwrap(), Settings::default());
    let refusal = env::read("DB", [("DB_NAME".into(), bad())]).unwrap_err();
    assert_eq!(refusal.to_string(), "DB_NAME: must be UTF-8");
}

#[test]
fn later_layers_override_earlier_ones() {
    let file = read("max_size = 20\n[breaker]\nslow_call.percentage = 70").unwrap();
    let env = from_vars(&[("DB_MAX_SIZE", "30"), ("DB_BREAKER__RESET_TIMEOUT", "7s")]).unwrap();
    let settings = Settings::hardened().overridden_by(file).overridden_by(env);
    let mut expected = Settings::hardened();
    expected.max_size = Some(30);
    expected.breaker.slow_call.percentage = Some(70);
    expected.breaker.reset_timeout = Some(Duration::from_secs(7));
    assert_eq!(settings, expected);
    assert_eq!(Settings::hardened().overridden_by(all()), all());
    assert_eq!(all().overridden_by(Settings::default()), all());
}

#[test]
fn the_builder_refuses_values_out_of_range() {
    let refusal = |text: &str| {
        let built = read(text).unwrap().builder(config()).and_then(PoolBuilder::build);
        built.unwrap_err().to_string()
    };
    assert_eq!(refusal("max_size = 0"), "max_size = 0: must be 1 to 262143");
    assert_eq!(
        refusal("query_timeout = \"2 days\""),
        "query_timeout = 172800s: must be more than 0 and at most 24 hours"
    );
    assert_eq!(refusal("retry.max_attempts = 0"), "retry.max_attempts = 0: must be 1 to 100");
    assert_eq!(refusal("breaker.rolling_buckets = 0"), "breaker.rolling_buckets = 0: must be 1 to 1000");
    assert_eq!(
        refusal("server_timeouts.lock = \"0s\""),
        "server_timeouts.lock = 0ns: must be more than 0 and at most 24 hours"
    );
    let half = "must be given with the other value of its table";
    assert_eq!(refusal("long_running.statements = 5"), format!("long_running.than = (none): {half}"));
    assert_eq!(refusal("breaker.slow_call.percentage = 5"), format!("breaker.slow_call.longer_than = (none): {half}"));
    assert_eq!(
        refusal("breaker.reset_timeout_growth.cap = \"5m\""),
        format!("breaker.reset_timeout_growth.factor = (none): {half}")
    );
    assert_eq!(refusal("cluster.spill = 0.5"), "cluster: is of a Cluster: use Settings::cluster_builder");
    let no_url = Settings::default().builder_by_url().unwrap_err();
    assert_eq!(no_url.to_string(), "url = (none): must be given");
}

#[test]
fn a_lane_and_an_operation_have_rates() {
    let settings = read(
        r#"
        rate.background = { connection_seconds = 2.5, burst = "500ms" }
        [rate_of.load_dashboard]
        concurrency = 3
        [rate_of.report]
        calls = 0.5
        "#,
    );
    let settings = settings.unwrap();
    let seconds = Rate::new().connection_seconds(2.5).burst(Duration::from_millis(500));
    let by_hand = Pool::builder(config())
        .rate(Lane::Background, seconds)
        .rate_of("load_dashboard", Rate::new().concurrency(3))
        .rate_of("report", Rate::new().calls(0.5));
    assert_eq!(effect(&settings), format!("{by_hand:?}"));
    assert_eq!(read(&toml::to_string(&settings).unwrap()).unwrap(), settings);
    let env = from_vars(&[("DB_RATE_OF__REPORT__CALLS", "2"), ("DB_RATE_OF__LOAD_DASHBOARD__BURST", "3s")]).unwrap();
    let both = settings.overridden_by(env);
    assert_eq!((both.rate_of["report"].calls, both.rate_of["load_dashboard"].concurrency), (Some(2.0), Some(3)));
    assert_eq!(both.rate_of["load_dashboard"].burst, Some(Duration::from_secs(3)));
    assert_eq!(effect(&read("[rate_of.report]").unwrap()), effect(&Settings::default()));
}

#[test]
fn a_bad_rate_is_refused_by_its_name() {
    for (text, message) in [
        (
            "rate.background.cals = 3",
            "rate.background.cals: there is no such setting; did you mean `rate.background.calls`?",
        ),
        ("rate.urgent.calls = 3", "rate.urgent: there is no such setting"),
        (
            "rate_of.report.cals = 3",
            "rate_of.report.cals: there is no such setting; did you mean `rate_of.report.calls`?",
        ),
        ("rate_of.report = 3", "rate_of.report: is a table"),
        ("rate_of = 3", "rate_of: is a table"),
        ("rate_of.report.calls = \"many\"", "rate_of.report.calls = \"many\": must be a number"),
        ("rate_of.\"a.b\".calls = 3", "rate_of.a.b: there is no such setting"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(message), "{refusal}");
    }
    for (name, message) in [
        (
            "DB_RATE_OF__REPORT__CALS",
            "DB_RATE_OF__REPORT__CALS: there is no such setting; did you mean `DB_RATE_OF__REPORT__CALLS`?",
        ),
        ("DB_RATE_OF__REPORT", "DB_RATE_OF__REPORT: there is no such setting"),
        ("DB_RATE_OF", "DB_RATE_OF: there is no such setting"),
    ] {
        let refusal = from_vars(&[(name, "3")]).unwrap_err();
        assert!(refusal.starts_with(message), "{refusal}");
    }
    let mut settings = Settings::default();
    settings.set("rate_of.report.calls", "many").unwrap_err();
    settings.set("rate_of.report.cals", "3").unwrap_err();
    assert_eq!(settings, Settings::default(), "an error leaves nothing behind");
    let built = |text: &str| read(text).unwrap().builder(config()).unwrap().build().unwrap_err().to_string();
    for (text, message) in [
        ("rate_of.report.calls = 0", "rate_of.report.calls = 0: must be more than 0 and at most 1000000"),
        (
            "rate.normal.connection_seconds = -1",
            "rate.normal.connection_seconds = -1: must be more than 0 and at most 262143",
        ),
        ("rate.normal.connection_seconds = nan", "rate.normal.connection_seconds = NaN: must be"),
        ("rate_of.report.calls = inf", "rate_of.report.calls = inf: must be"),
        ("rate.critical.concurrency = 0", "rate.critical.concurrency = 0: must be 1 to 262143"),
        (
            "rate_of.report.burst = \"1s\"",
            "rate_of.report = (no limit): needs connection_seconds, calls or concurrency",
        ),
    ] {
        let refusal = built(text);
        assert!(refusal.starts_with(message), "{refusal}");
    }
}

#[test]
fn server_timeouts_are_on_if_a_key_of_their_table_is_given() {
    let are_on = |text: &str| !effect(&read(text).unwrap()).contains("server_timeouts: None");
    assert!(!are_on(""));
    assert!(are_on("[server_timeouts]") && are_on("server_timeouts.lock = \"5s\""));
    assert!(are_on("server_timeouts.enabled = true"));
    assert!(!are_on("server_timeouts.lock = \"5s\"\nserver_timeouts.enabled = false"));
}

#[test]
fn hardened_has_the_documented_values() {
    let line = effect(&Settings::hardened());
    for part in [
        "max_size: 40",
        "min_idle: 5",
        "idle_timeout: Some(30s)",
        "health_check_after: Some(30s)",
        "acquire_timeout: 5s",
        "query_timeout: 15s",
        "connect_timeout: 5s",
        "error_threshold: 50",
        "reset_timeout: 30s",
        "slow_call: Some(SlowCall { longer_than: 10s, threshold: 50 })",
        "max_attempts: 3, schedule: Schedule { initial: 100ms, multiplier: 2.0, max: 5s }",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(Settings::hardened().builder(config()).unwrap().build().is_ok());
}

#[test]
fn the_event_started_shows_each_setting_of_the_pool() {
    let line = Arc::new(Mutex::new(String::new()));
    let observed = Arc::clone(&line);
    let of_a_pool = Settings { cluster: ClusterSettings::default(), ..all() };
    let builder = of_a_pool.builder(config()).unwrap().breaker(BreakerConfig::default()).retry(RetryConfig::default());
    builder.observer(move |event: &Event| *observed.lock() = event.to_string()).build().unwrap();
    let line = line.lock();
    for (key, value) in others() {
        let name = if key == "long_running.statements" { "long_running" } else { key.as_str() };
        let is_elsewhere = ["url", "name", "long_running.than", "server_timeouts.enabled"].contains(&name);
        let is_word = ["shedding", "reset"].contains(&name);
        let value = if is_word { "" } else { value.as_str() };
        let is_in_a_table = ["breaker.", "retry.", "cluster."].iter().any(|table| name.starts_with(table));
        if !is_elsewhere && !is_in_a_table {
            assert!(line.contains(&format!("{name} {value}")), "{name} {value} is not in {line}");
        }
    }
}

#[test]
fn lanes_have_limits_and_operations_have_lanes() {
    let text = "lane_of.report = \"background\"\nlane_limits.critical.guaranteed = 0.3";
    let settings = read(text).unwrap();
    let limits = LaneLimits::of(Lane::Critical).guaranteed(0.3);
    let expected = Pool::builder(config()).lane_limits(Lane::Critical, limits).lane_of("report", Lane::Background);
    assert_eq!(effect(&settings), format!("{expected:?}"));
    let env = [("DB_LANE_OF__REPORT", "normal"), ("DB_LANE_OF__EXPORT", "background")];
    let both = settings.overridden_by(from_vars(&env).unwrap());
    assert_eq!((both.lane_of["report"], both.lane_of["export"]), (Some(Lane::Normal), Some(Lane::Background)));

    let bad = "lane_of.report = \"urgent\": must be critical, normal or background";
    assert!(refusal("lane_of.report = \"urgent\"").contains(bad));
    assert!(refusal("lane_limits.urgent.at_most = 1").contains("lane_limits.urgent: there is no such setting"));
    let build =
        |text: &str| read(text).unwrap().builder(config()).and_then(PoolBuilder::build).unwrap_err().to_string();
    for (text, error) in [
        ("lane_limits.normal.at_most = 1.1", "lane_limits.normal.at_most = 1.1: must be 0 to 1"),
        ("lane_limits.normal.at_most = 0", "lane_limits.normal.at_most = 0: must be more than 0"),
        ("lane_limits.normal.guaranteed = nan", "lane_limits.normal.guaranteed = NaN: must be 0 to 1"),
        (
            "lane_limits.background.guaranteed = 0.6",
            "lane_limits.background.guaranteed = 0.6: must be at most 0.5, which is at_most",
        ),
        (
            "lane_limits.normal.guaranteed = 0.9",
            "lane_limits = 1.1: the guarantees of all lanes must be at most 1 in sum",
        ),
    ] {
        assert_eq!(build(text), error);
    }
}
