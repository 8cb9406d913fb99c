//! The settings that a breaker refuses, and the messages.

use super::*;

// R
#[test]
fn conformance_45_a_bad_setting_is_refused_by_name() {
    let day = 24 * 3600 * SECOND;
    let bad = [
        (config().error_threshold_percentage(0), "error_threshold_percentage = 0: must be 1 to 100"),
        (config().error_threshold_percentage(101), "error_threshold_percentage = 101: must be 1 to 100"),
        (config().name(""), "name = \"\": must be 1 to 63 printable ASCII characters"),
        (config().name("a\nb"), "name = \"a\\nb\": must be 1 to 63 printable ASCII characters"),
        (config().count_window(0), "count_window = 0: must be 1 to 10000"),
        (config().count_window(10_001), "count_window = 10001: must be 1 to 10000"),
        (
            config().volume_threshold(6).count_window(5),
            "count_window = 5: must be at least volume_threshold, or nothing would open the circuit",
        ),
        (
            BreakerConfig::opossum().count_window(5),
            "count_window = 5: is not for BreakerConfig::opossum, which judges by the calls that asked within a time",
        ),
        (config().rolling_window(Duration::ZERO), "rolling_window = 0ns: must be more than 0 and at most 24 hours"),
        (config().rolling_window(2 * day), "rolling_window = 172800s: must be more than 0 and at most 24 hours"),
        (
            config().rolling_window(SECOND / 200),
            "rolling_window = 5ms: must be at least 1 ms for each of rolling_buckets",
        ),
        (config().rolling_buckets(0), "rolling_buckets = 0: must be 1 to 1000"),
        (config().rolling_buckets(1_001), "rolling_buckets = 1001: must be 1 to 1000"),
        (config().reset_timeout(Duration::ZERO), "reset_timeout = 0ns: must be more than 0 and at most 24 hours"),
        (config().reset_timeout_jitter(101), "reset_timeout_jitter = 101: must be 0 to 100"),
        (config().reset_timeout_growth(0.5, day), "reset_timeout_growth.factor = 0.5: must be 1 to 100"),
        (config().reset_timeout_growth(f64::NAN, day), "reset_timeout_growth.factor = NaN: must be 1 to 100"),
        (
            config().reset_timeout_growth(2.0, SECOND),
            "reset_timeout_growth.cap = 1s: must be from reset_timeout to 24 hours",
        ),
        (config().permitted_probes(0), "permitted_probes = 0: must be 1 to 1000"),
        (config().probe_timeout(Duration::ZERO), "probe_timeout = 0ns: must be more than 0 and at most 24 hours"),
        (
            config().slow_call(Duration::ZERO, 50),
            "slow_call.longer_than = 0ns: must be more than 0 and at most 24 hours",
        ),
        (config().slow_call(SECOND, 0), "slow_call.percentage = 0: must be 1 to 100"),
        (config().slow_call(SECOND, 101), "slow_call.percentage = 101: must be 1 to 100"),
    ];
    for (config, expected) in bad {
        assert_eq!(CircuitBreaker::new(config).unwrap_err().to_string(), expected);
    }
    let bounds = config().error_threshold_percentage(100).rolling_window(day).volume_threshold(0);
    assert!(CircuitBreaker::new(bounds.reset_timeout_growth(1.0, day).slow_call(day, 100)).is_ok());
    assert!(CircuitBreaker::new(BreakerConfig::default()).is_ok());
}
