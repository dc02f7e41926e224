//! The nearest of several names, for errors that say what was probably meant: tensors, taps, nodes, commands. And text as HTML.

/// Names longer than this are not compared: a hostile file's could be megabytes long.
const COMPARED_LEN_MAX: usize = 256;

/// Levenshtein distance between `a` and `b` in characters, or `None` where it exceeds `most`.
///
/// Stops as soon as a row is above `most`, so many far names cost little.
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        let mut smallest = row[0];
        for (j, cb) in b.iter().enumerate() {
            let value = (diagonal + usize::from(ca != cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = value;
            smallest = smallest.min(value);
        }
        if smallest > most {
            return None;
        }
    }
    row.last().copied().filter(|&d| d <= most)
}

/// The candidate most like `name`, the first in order of the alphabet among equals. `None` when even the best differs
/// in more than half of `name`: such a hint would mislead.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > COMPARED_LEN_MAX {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let most = best.map_or(name.chars().count().div_ceil(2), |(d, _)| d);
        if candidate.len() > COMPARED_LEN_MAX {
            continue;
        }
        if let Some(d) = distance(name, candidate, most)
            && best.is_none_or(|b| (d, candidate) < b)
        {
            best = Some((d, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// The candidate at the least edit distance, case ignored, the first of several; `""` without candidates. For short
/// closed lists, where any hint helps.
pub fn closest<'a>(name: &str, candidates: &[&'a str]) -> &'a str {
    let name: String = name.chars().take(64).collect::<String>().to_lowercase();
    let far = |candidate: &&str| distance(&name, &candidate.to_lowercase(), usize::MAX);
    candidates.iter().copied().min_by_key(far).unwrap_or("")
}

/// Text as a piece of HTML: what would be markup is none.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, d) in [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0), ("ab", "ba", 2), ("é", "e", 1)]
        {
            assert_eq!(distance(a, b, 10), Some(d), "{a} {b}");
            assert_eq!(distance(b, a, d), Some(d), "{a} {b}");
            if d > 0 {
                assert_eq!(distance(a, b, d - 1), None, "{a} {b}");
            }
        }
    }

    #[test]
    fn the_nearest_name_is_close_and_independent_of_order() {
        let names = ["features.0.weight", "features.2.weight", "classifier.0.weight", "features.0.bias"];
        assert_eq!(nearest("feature.0.weight", names), Some("features.0.weight"));
        assert_eq!(nearest("features.1.weight", names), Some("features.0.weight"));
        let mut reversed = names;
        reversed.reverse();
        assert_eq!(nearest("features.1.weight", reversed), Some("features.0.weight"));
        assert_eq!(nearest("xyz", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
        assert_eq!(nearest("a", []), None);
    }

    #[test]
    fn escaped_text_is_no_markup() {
        assert_eq!(escaped("<b a=\"1\">&'é"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;é");
    }

    #[test]
    fn the_closest_of_a_short_list_is_always_some_member() {
        assert_eq!(closest("FGMS", &["pwm", "fgsm"]), "fgsm");
        assert_eq!(closest("x", &["features.1"]), "features.1");
    }
}
