//! What others report of CheXNet, to stand beside one's own figures. All of it on another test set than NIH's own list of 25,596
//! images: a random fifth, [`TEST_IMAGES`]. So a difference is not the network's alone.

use crate::data::findings::FINDINGS;

/// Images of the test list that arnoweng published, and that others took over.
pub const TEST_IMAGES: usize = 22_433;

/// Who reports: the paper (Rajpurkar et al., arXiv 1711.05225), and three reproductions with weights, by the names of their authors
/// on GitHub: arnoweng/CheXNet and zoogzog/chexnet (means over ten crops), jrzech/reproduce-chexnet (2022, one crop).
pub const SOURCES: [&str; 4] = ["chexnet", "arnoweng", "zoogzog", "jrzech"];

/// AUROC of each finding, in the order of [`SOURCES`], from their READMEs; the paper's as the first of them cites it.
const AUROC: [(&str, [f64; 4]); FINDINGS.len()] = [
    ("Atelectasis", [0.8094, 0.8294, 0.8321, 0.8180]),
    ("Cardiomegaly", [0.9248, 0.9165, 0.9107, 0.9090]),
    ("Effusion", [0.8638, 0.8870, 0.8860, 0.8827]),
    ("Infiltration", [0.7345, 0.7143, 0.7145, 0.7156]),
    ("Mass", [0.8676, 0.8597, 0.8653, 0.8377]),
    ("Nodule", [0.7802, 0.7873, 0.8037, 0.7756]),
    ("Pneumonia", [0.7680, 0.7745, 0.7655, 0.7617]),
    ("Pneumothorax", [0.8887, 0.8726, 0.8857, 0.8776]),
    ("Consolidation", [0.7901, 0.8142, 0.8157, 0.8002]),
    ("Edema", [0.8878, 0.8932, 0.9017, 0.8945]),
    ("Emphysema", [0.9371, 0.9254, 0.9422, 0.9316]),
    ("Fibrosis", [0.8047, 0.8304, 0.8523, 0.8251]),
    ("Pleural_Thickening", [0.8062, 0.7831, 0.7948, 0.7889]),
    ("Hernia", [0.9164, 0.9104, 0.9416, 0.9175]),
];

/// What [`SOURCES`] report of the finding of that name.
pub fn auroc(finding: &str) -> Option<[f64; SOURCES.len()]> {
    AUROC.iter().find(|(name, _)| *name == finding).map(|(_, areas)| *areas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_its_figures_and_their_means_are_those_published() {
        let all: Vec<[f64; 4]> = FINDINGS.iter().filter_map(|name| auroc(name)).collect();
        assert_eq!((all.len(), auroc("Cough")), (FINDINGS.len(), None));
        let mean = |k: usize| all.iter().map(|areas| areas[k]).sum::<f64>() / all.len() as f64;
        // arnoweng's README gives the paper's mean as 0.841, zoogzog's its own as 0.8508
        assert!((mean(0) - 0.841).abs() < 5e-4 && (mean(2) - 0.8508).abs() < 5e-5, "{} {}", mean(0), mean(2));
    }
}
