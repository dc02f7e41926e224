//! What a node is: the images and places that excite it most, its mean map, its share of live images. Without it "which concept
//! causes which answer" stays unanswered, for a node is only a number.
//!
//! Codes come block by block from [`super::sweep::Sweep::codes`]; of them nothing but these figures is kept.

use serde::{Deserialize, Serialize};

/// Where an image excites a node most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Position of the image in the data.
    pub image: usize,
    /// Row and column of the code, from 0.
    pub at: [usize; 2],
    /// The code there.
    pub value: f32,
}

/// A node's figures over some images.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplars {
    /// Images on which it is not 0 everywhere.
    pub live: usize,
    /// Images on which a code is no number: they are in none of the other figures.
    pub nan: usize,
    /// Largest codes, one an image, the largest first; of equals the earlier image.
    pub strongest: Vec<Place>,
    /// Sum of its maps over images, rows of the code's width.
    sum: Vec<f64>,
}

/// Figures of all nodes, while images come in.
#[derive(Clone, Debug)]
pub struct Gallery {
    /// Height and width of the code.
    pub size: [usize; 2],
    /// Images so far.
    pub images: usize,
    /// A node each.
    pub nodes: Vec<Exemplars>,
    keep: usize,
}

impl Gallery {
    /// Of `nodes` nodes with codes of `size`, keeping the `keep` strongest images of each.
    pub fn new(nodes: usize, size: [usize; 2], keep: usize) -> Gallery {
        let empty = Exemplars { live: 0, nan: 0, strongest: Vec::new(), sum: vec![0.0; size[0] * size[1]] };
        Gallery { size, images: 0, nodes: vec![empty; nodes], keep }
    }

    /// Takes in the codes of the next images: images x nodes x height x width.
    pub fn add(&mut self, codes: &[f32]) {
        let (area, [_, width]) = ((self.size[0] * self.size[1]).max(1), self.size);
        for image in codes.chunks_exact(self.nodes.len().max(1) * area) {
            for (node, map) in self.nodes.iter_mut().zip(image.chunks_exact(area)) {
                if map.iter().any(|z| !z.is_finite()) {
                    node.nan += 1;
                    continue;
                }
                node.sum.iter_mut().zip(map).for_each(|(sum, &z)| *sum += f64::from(z));
                // the first of equals
                let best = map.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
                let Some((at, &value)) = best else { continue };
                if value == 0.0 {
                    continue;
                }
                node.live += 1;
                let place = Place { image: self.images, at: [at / width.max(1), at % width.max(1)], value };
                let before = node.strongest.partition_point(|kept| kept.value >= value);
                node.strongest.insert(before, place);
                node.strongest.truncate(self.keep);
            }
            self.images += 1;
        }
    }

    /// A node's mean map over the images.
    pub fn mean(&self, node: usize) -> Vec<f32> {
        let images = self.images.saturating_sub(self.nodes[node].nan).max(1) as f64;
        self.nodes[node].sum.iter().map(|sum| (sum / images) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gallery_keeps_the_strongest_places_whatever_the_blocks() {
        // two nodes of 2 x 2; the second is dead on the first image
        let codes: Vec<f32> = vec![
            0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, // image 0
            5.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 2.0, // image 1
            0.0, 0.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0, // image 2
            0.0, 0.0, 0.0, 4.0, 0.0, 2.0, 0.0, 0.0, // image 3
        ];
        let of = |block: usize| {
            let mut gallery = Gallery::new(2, [2, 2], 3);
            codes.chunks(8 * block).for_each(|codes| gallery.add(codes));
            gallery
        };
        let gallery = of(4);
        let place = |image, at, value| Place { image, at, value };
        assert_eq!(gallery.images, 4);
        assert_eq!(gallery.nodes[0].strongest, [place(1, [0, 0], 5.0), place(3, [1, 1], 4.0), place(0, [0, 1], 3.0)]);
        assert_eq!(gallery.nodes[1].strongest, [place(1, [1, 1], 2.0), place(3, [0, 1], 2.0), place(2, [0, 0], 1.0)]);
        assert_eq!((gallery.nodes[0].live, gallery.nodes[1].live), (4, 3));
        assert_eq!(gallery.mean(0), [1.25, 0.75, 2.25, 1.0]);
        for block in [1, 2, 3] {
            assert_eq!(of(block).nodes, gallery.nodes);
        }
    }

    #[test]
    fn what_is_no_number_is_counted_and_left_out() {
        let mut gallery = Gallery::new(1, [1, 2], 9);
        gallery.add(&[f32::NAN, 1.0, 2.0, 4.0, f32::INFINITY, 0.0]);
        let node = &gallery.nodes[0];
        assert_eq!((node.nan, node.live, node.strongest.len(), gallery.mean(0)), (2, 1, 1, vec![2.0, 4.0]));
    }

    #[test]
    fn no_images_leave_an_empty_gallery() {
        let gallery = Gallery::new(1, [2, 3], 9);
        assert_eq!((gallery.nodes[0].live, gallery.mean(0)), (0, vec![0.0; 6]));
    }
}
