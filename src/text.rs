//! The nearest of several names, for errors that say what was probably meant.

/// Number of single-character edits that turn `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The candidate with the fewest edits from `asked`, the first of equals; `None` without candidates.
pub fn nearest<'a>(asked: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates.into_iter().min_by_key(|c| distance(asked, c)).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_with_fewest_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("featuers.1", ["classifier.0", "features.1", "features.3"]), Some("features.1".into()));
        assert_eq!(nearest("x", []), None);
    }
}
