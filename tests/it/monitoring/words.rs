//! Finds the words of a text that may be names of metrics, labels or alerts.

/// Returns the words of the text, without the full stop at the end of a sentence. A word has the characters of metric
/// names.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
    text.split(move |c| !is_part(c)).map(|word| word.trim_end_matches(['.', ':'])).filter(|word| !word.is_empty())
}

/// Returns whether the word is a metric or label of a pool: `failfast_shed_total`, `db.client.connection.max`.
pub(super) fn is_ours(word: &str) -> bool {
    const BEGINNINGS: [&str; 6] = ["db.client.", "db.system.", "failfast.", "db_client_", "db_system_", "failfast_"];
    BEGINNINGS.iter().any(|beginning| word.len() > beginning.len() && word.starts_with(beginning))
}

/// Returns whether the word is a recorded series: `failfast:operations:rate5m`. A Rust path has two colons.
pub(super) fn is_recorded(word: &str) -> bool {
    word.starts_with("failfast:") && !word.contains("::")
}

/// Returns whether the word is an alert: `FailfastUtilization`.
pub(super) fn is_alert(word: &str) -> bool {
    word.strip_prefix("Failfast").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Returns each selected metric with the labels of its selector: `failfast_shed_total{reason!="none_idle"}`.
pub(super) fn selectors(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for (open, _) in text.match_indices('{') {
        let name = text[..open].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let Some(matchers) = text[open + 1..].split('}').next().filter(|_| is_ours(name)) else { continue };
        // Every second part is in quotes.
        let outside = matchers.split('"').step_by(2).flat_map(|part| part.split(','));
        let labels =
            outside.map(|part| part.trim().trim_end_matches(['=', '!', '~'])).filter(|label| !label.is_empty());
        found.push((name, labels.collect()));
    }
    found
}

#[test]
fn words_and_selectors_are_found() {
    let text = r#"See `failfast.shed`. rate(failfast_shed_total{reason!~"a,b", job="x"}[1m]) > failfast:a:b, failfast::Pool {}"#;
    assert_eq!(words(text).filter(|word| is_ours(word)).collect::<Vec<_>>(), ["failfast.shed", "failfast_shed_total"]);
    assert_eq!(words(text).filter(|word| is_recorded(word)).collect::<Vec<_>>(), ["failfast:a:b"]);
    assert_eq!(selectors(text), [("failfast_shed_total", vec!["reason", "job"])]);
    assert!(is_alert("FailfastLeak") && !is_alert("Failfast") && !is_alert("Failfaster"));
}
