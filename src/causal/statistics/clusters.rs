//! Which images belong together: those of one patient are no independent observations, their patients are.

use super::super::CausalError;
use std::collections::HashMap;
use std::hash::Hash;

/// Images in clusters. Where every image is its own, whatever takes clusters gives what it gives for images, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    /// The cluster of every image.
    of: Vec<u32>,
    /// Images of every cluster, at least one.
    sizes: Vec<u32>,
}

impl Clusters {
    /// Images with equal labels are one cluster: one label an image, such as a patient's number or name. Clusters are
    /// numbered in the order in which their first images come.
    ///
    /// # Errors
    /// [`CausalError::Range`] without images, or with more than 2^32 - 1.
    pub fn new<L: Eq + Hash>(labels: &[L]) -> Result<Self, CausalError> {
        checked_images(labels.len())?;
        let mut numbers: HashMap<&L, u32> = HashMap::new();
        let (mut of, mut sizes) = (Vec::with_capacity(labels.len()), Vec::new());
        for label in labels {
            let next = sizes.len() as u32;
            let number = *numbers.entry(label).or_insert(next);
            if number == next {
                sizes.push(0);
            }
            sizes[number as usize] += 1;
            of.push(number);
        }
        Ok(Clusters { of, sizes })
    }

    /// Every image is its own cluster.
    ///
    /// # Errors
    /// [`CausalError::Range`] without images, or with more than 2^32 - 1.
    pub fn single(images: usize) -> Result<Self, CausalError> {
        checked_images(images)?;
        Ok(Clusters { of: (0..images as u32).collect(), sizes: vec![1; images] })
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.of.len()
    }

    /// Number of clusters.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }

    /// The cluster of every image.
    pub fn of(&self) -> &[u32] {
        &self.of
    }

    /// The number of images of every cluster.
    pub fn sizes(&self) -> &[u32] {
        &self.sizes
    }

    /// The sum of every cluster's values, added in image order. One value an image.
    pub(super) fn sums(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0.0; self.count()];
        self.of.iter().zip(values).for_each(|(&cluster, x)| sums[cluster as usize] += x);
        sums
    }
}

/// A number of images that clusters and resamples can count.
fn checked_images(n: usize) -> Result<(), CausalError> {
    if n == 0 || n as u64 > u64::from(u32::MAX) {
        return Err(CausalError::Range { what: "the number of images", value: n as f64, range: "1 to 2^32 - 1" });
    }
    Ok(())
}

/// Images and repetitions of a resampling plan, checked.
pub(super) fn checked_plan(n: usize, repeats: usize) -> Result<(), CausalError> {
    checked_images(n)?;
    if repeats == 0 || n.checked_mul(repeats).is_none_or(|all| all > isize::MAX as usize) {
        let range = "at least 1, and few enough to address images x resamples";
        return Err(CausalError::Range { what: "the number of resamples", value: repeats as f64, range });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_numbered_by_their_first_image() {
        let clusters = Clusters::new(&["p7", "p2", "p7", "p9", "p2", "p7"]).unwrap();
        assert_eq!((clusters.of(), clusters.sizes()), (&[0, 1, 0, 2, 1, 0][..], &[3, 2, 1][..]));
        assert_eq!((clusters.images(), clusters.count()), (6, 3));
        assert_eq!(clusters.sums([1.0, 2.0, 4.0, 8.0, 16.0, 32.0].into_iter()), [37.0, 18.0, 8.0]);
        assert_eq!(Clusters::new(&[5, 3, 8]), Clusters::single(3));
        assert!(Clusters::new::<u32>(&[]).is_err() && Clusters::single(0).is_err());
    }
}
