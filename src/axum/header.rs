//! How long a client waits, as headers say it.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

/// gRPC's header: `100m`.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The header of other clients: `0.25`, `2s`, `250ms`.
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// The most digits of a `grpc-timeout`.
const MOST_DIGITS: usize = 8;

/// A header whose value is not a timeout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidTimeout {
    #[error("grpc-timeout must be 1 to 8 digits, not all of them 0, and one of the units H, M, S, m, u, n: 250m")]
    Grpc,
    #[error("x-request-timeout must be seconds, or a number with the unit s or ms, and more than 0: 0.25, 2s, 250ms")]
    Request,
}

/// Returns the shortest timeout that the headers name, or `None` if they name none.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, InvalidTimeout> {
    let mut shortest = None;
    for (name, parse, invalid) in [
        (GRPC_TIMEOUT, grpc_timeout as fn(&str) -> Option<Duration>, InvalidTimeout::Grpc),
        (REQUEST_TIMEOUT, request_timeout, InvalidTimeout::Request),
    ] {
        for value in headers.get_all(name) {
            let parsed = value.to_str().ok().and_then(parse).ok_or_else(|| invalid.clone())?;
            shortest = Some(shortest.map_or(parsed, |shortest: Duration| shortest.min(parsed)));
        }
    }
    Ok(shortest)
}

/// By gRPC's grammar: `TimeoutValue TimeoutUnit`, of which the first is a positive integer of at most 8 digits.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back().filter(char::is_ascii)?;
    let digits = &text[..text.len() - 1];
    let value = integer(digits).filter(|value| digits.len() <= MOST_DIGITS && *value > 0)?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3_600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

fn integer(digits: &str) -> Option<u64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Seconds as a decimal number, or with the unit `s` or `ms`.
fn request_timeout(text: &str) -> Option<Duration> {
    let (number, per_second) = match text.strip_suffix("ms") {
        Some(number) => (number, 1_000.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    // Rust also parses signs, exponents, "inf" and "nan".
    let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| is_decimal)?;
    // A time that is longer than a duration can be is a long time.
    let timeout = Duration::try_from_secs_f64(number / per_second).unwrap_or(Duration::MAX);
    Some(timeout).filter(|timeout| !timeout.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of gRPC's documentation and of the tests of grpc-go and tonic.
    #[test]
    fn grpc_timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("1S", Duration::from_secs(1)),
            ("100m", Duration::from_millis(100)),
            ("1234567m", Duration::from_millis(1_234_567)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("3H", Duration::from_secs(3 * 60 * 60)),
            ("1M", Duration::from_secs(60)),
            ("42S", Duration::from_secs(42)),
            ("13m", Duration::from_millis(13)),
            ("2u", Duration::from_micros(2)),
            ("82n", Duration::from_nanos(82)),
            ("00000001S", Duration::from_secs(1)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(grpc_timeout(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "12",
            "1s",
            "1h",
            "82f",
            "123456789H",
            "oneH",
            "1.5S",
            "-1S",
            "+1S",
            " 1S",
            "1S ",
            "0S",
            "00000000n",
            "1SS",
            "S1",
            "1ö",
            "١S",
            "1e3m",
        ] {
            assert_eq!(grpc_timeout(text), None, "{text:?}");
        }
    }

    #[test]
    fn request_timeouts_are_seconds_or_have_a_unit() {
        for (text, expected) in [
            ("2", Duration::from_secs(2)),
            ("0.25", Duration::from_millis(250)),
            ("2s", Duration::from_secs(2)),
            ("250ms", Duration::from_millis(250)),
            ("1.5ms", Duration::from_micros(1_500)),
            ("99999999999999999999999", Duration::MAX),
        ] {
            assert_eq!(request_timeout(text), Some(expected), "{text}");
        }
        for text in ["", "0", "0ms", "-1", "+1", "1e3", "inf", "NaN", "1m", "1 s", "s", "ms", "1.2.3", ".", "soon"] {
            assert_eq!(request_timeout(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_shortest_timeout_counts_and_a_bad_one_is_named() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            timeout(&headers)
        };
        assert_eq!(headers(&[]), Ok(None));
        let both = [("grpc-timeout", "3S"), ("x-request-timeout", "2"), ("x-request-timeout", "5")];
        assert_eq!(headers(&both), Ok(Some(Duration::from_secs(2))));
        assert_eq!(headers(&[("x-request-timeout", "2"), ("grpc-timeout", "2")]), Err(InvalidTimeout::Grpc));
        assert_eq!(headers(&[("x-request-timeout", "soon")]), Err(InvalidTimeout::Request));
    }
}
