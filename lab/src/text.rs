//! Numbers as short text.

use std::time::Duration;

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// With about two digits. Infinite is "not yet".
pub(crate) fn seconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    match ms {
        ..0.095 => format!("{:.0}us", ms * 1e3),
        ..0.995 => format!("{ms:.2}ms"),
        ..999.5 => format!("{ms:.0}ms"),
        f64::INFINITY => "not yet".to_owned(),
        _ => format!("{:.1}s", ms / 1e3),
    }
}

pub(crate) fn short(time: Duration) -> String {
    seconds(time.as_secs_f64())
}

/// For how long something goes on, in whole seconds: "45 s", "2 min 5 s".
pub(crate) fn minutes(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

/// A number of things: "1 seed", "5 seeds".
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0.004, 0.9949, 0.9951, 61.4, 999.4, 999.6, 12_345.0].map(|ms| seconds(ms / 1e3));
        assert_eq!(shown, ["4us", "0.99ms", "1ms", "61ms", "999ms", "1.0s", "12.3s"]);
        assert_eq!(seconds(f64::INFINITY), "not yet");
    }

    #[test]
    fn minutes_are_whole_seconds() {
        let shown = [0.4, 59.4, 59.6, 125.0].map(|seconds| minutes(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "2 min 5 s"]);
    }
}
