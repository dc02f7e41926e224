//! ImageNet's 1000 classes in three groups, for networks that have features of ImageNet and no published classifier.
//!
//! The classes are numbered in the order of their WordNet ids (ILSVRC 2012), so an id's place among a few ids says which
//! range of numbers it is in, and no list of a thousand is needed.

/// Names of the groups: dogs are classes 151 to 268, other animals the rest of 0 to 397, things 398 to 999.
pub const GROUPS: [&str; 3] = ["dog", "other animal", "thing"];

/// Chihuahua, class 151.
const FIRST_DOG: &str = "n02085620";
/// Mexican hairless, class 268.
const LAST_DOG: &str = "n02113978";
/// Puffer, class 397.
const LAST_ANIMAL: &str = "n02655020";

/// The group of each class, an index into [`GROUPS`]; `None` where a name is no WordNet id (`n02085620`).
pub fn groups(classes: &[String]) -> Option<Vec<u32>> {
    classes.iter().map(|name| group(name)).collect()
}

fn group(id: &str) -> Option<u32> {
    let digits = id.strip_prefix('n')?;
    let is_id = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit());
    is_id.then_some(match id {
        _ if (FIRST_DOG..=LAST_DOG).contains(&id) => 0,
        _ if id <= LAST_ANIMAL => 1,
        _ => 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_grouped_by_their_wordnet_ids() {
        // tench 0, both sides of the borders (150, 151, 268, 269, 397, 398), toilet tissue 999
        let ids =
            ["n01440764", "n02077923", "n02085620", "n02113978", "n02114367", "n02655020", "n02666196", "n15075141"];
        let of = |ids: &[&str]| groups(&ids.iter().map(|i| i.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&ids), Some(vec![1, 1, 0, 0, 1, 1, 2, 2]));
        assert_eq!(of(&["n02085620", "cat"]), None);
        assert_eq!(of(&["n0208562"]), None);
        assert_eq!(of(&[]), Some(vec![]));
    }
}
