//! The nearest known name to one that is misspelt.

/// Names beyond this length have no near one: the time is quadratic in it.
const LONGEST: usize = 100;

/// The known name that is the fewest edits away from `name`, if they are few: at most a third of the letters after the
/// last `.`, and at most three. Case, `_`, `-` and `.` do not count.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let own = letters(name.rsplit('.').next().unwrap_or_default());
    let name = letters(name);
    if name.len() > LONGEST {
        return None;
    }
    let most = (own.len() / 3).min(3);
    let edits = |other: &&str| edits(&name, &letters(other));
    let nearest = known.into_iter().min_by_key(edits)?;
    (edits(&nearest) <= most).then_some(nearest)
}

fn letters(name: &str) -> Vec<char> {
    name.chars().filter(|c| !"_-.".contains(*c)).flat_map(char::to_lowercase).collect()
}

/// Levenshtein's distance: how many letters are inserted, left out or replaced.
fn edits(from: &[char], to: &[char]) -> usize {
    // After the first `row` letters of `from`: the distance to each beginning of `to`.
    let mut distances: Vec<usize> = (0..=to.len()).collect();
    for (row, from) in from.iter().enumerate() {
        let mut diagonal = distances[0];
        distances[0] = row + 1;
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = distances[column + 1];
            distances[column + 1] = replaced.min(diagonal + 1).min(distances[column] + 1);
        }
    }
    distances[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        let edits = |from: &str, to: &str| edits(&letters(from), &letters(to));
        assert_eq!(edits("", ""), 0);
        assert_eq!(edits("size", "size"), 0);
        assert_eq!(edits("", "size"), 4);
        assert_eq!(edits("size", ""), 4);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn only_what_is_near_is_offered() {
        let known = ["max_size", "max_lifetime", "retry.max_attempts", "url"];
        for (name, expected) in [
            ("MAXSIZE", Some("max_size")),
            ("max-sise", Some("max_size")),
            ("retry_max_atempts", Some("retry.max_attempts")),
            ("uri", Some("url")),
            ("retry.max", None),
            ("password", None),
            ("", None),
            ("u", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
