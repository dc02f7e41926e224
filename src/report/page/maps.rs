//! Maps on the page: a few images with their maps by every method, clean beside attacked, and how far attacks move maps.

use super::chart;
use super::files::{Run, json, table};
use super::shown::{bracketed, ends, input_name, short};
use crate::error::Error;
use crate::report::run::Manifest;
use crate::text::escaped;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

/// Where a reproduction keeps its run of maps, and a run of maps its maps.
pub const MAPS: &str = "maps";
/// Images whose maps are on the page: each is a picture a method.
const SHOWN: usize = 4;

/// A row of `stability.csv`, of what a page shows.
#[derive(Clone, Debug, Deserialize)]
struct Change {
    method: String,
    input: String,
    eps: Option<f64>,
    measure: String,
    change: Option<f64>,
    ci_lo: Option<f64>,
    ci_hi: Option<f64>,
    n: usize,
}

/// A row of `maps.csv`, of what a page shows.
#[derive(Clone, Debug, Deserialize)]
struct Made {
    arch: String,
    image_id: u64,
    method: String,
    input: String,
    eps: Option<f64>,
    class: usize,
    predicted: Option<usize>,
    file: String,
}

/// A run of maps.
pub struct Maps {
    directory: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    changes: Vec<Change>,
    made: Vec<Made>,
}

impl Maps {
    /// Reads the run of maps in `directory`; nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Input`] for a file of it that is missing or is not what it should be.
    pub fn read(directory: &Path) -> Result<Option<Maps>, Error> {
        let manifest: Option<Manifest> = json(&directory.join("manifest.json"))?;
        let Some(manifest) = manifest.filter(|manifest| manifest.verb == "map") else { return Ok(None) };
        Ok(Some(Maps {
            changes: table(&directory.join("stability.csv"))?,
            made: table(&directory.join("maps.csv"))?,
            directory: directory.into(),
            manifest,
        }))
    }

    /// The network.
    pub fn arch(&self) -> &str {
        self.made.first().map_or("", |row| &row.arch)
    }

    /// Methods in the order of the table.
    fn methods(&self) -> Vec<&str> {
        let mut methods: Vec<&str> = Vec::new();
        for row in &self.made {
            if !methods.contains(&row.method.as_str()) {
                methods.push(&row.method);
            }
        }
        methods
    }

    /// What was run, in a sentence.
    pub fn told(&self) -> String {
        let images = self.manifest.results.get("images").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let class = self.manifest.configuration["class"].as_str().unwrap_or_default();
        let class = match class {
            "predicted" => "the class that the network names on the clean image".into(),
            "label" => "the image's labelled class".into(),
            "all" => "every class".into(),
            number => format!("class {}", escaped(number)),
        };
        format!(
            "A map says which places of an image an answer comes from. Maps of {images} images were made by {}, of {class}, clean and \
             under every other input.",
            escaped(&self.methods().join(", "))
        )
    }

    /// Clean maps of images that are drawn, one an image and class: the first of each class before the others.
    fn drawn(&self) -> Vec<&Made> {
        let Some(method) = self.methods().first().copied() else { return Vec::new() };
        let clean = self.made.iter().filter(|row| row.method == method && row.input == "none");
        let drawn = clean.filter(|row| self.picture(row).is_some_and(|path| path.exists()));
        let (mut first, mut others): (Vec<&Made>, Vec<&Made>) = (Vec::new(), Vec::new());
        for row in drawn {
            let known = first.iter().any(|other| other.class == row.class);
            if known {
                others.push(row)
            } else {
                first.push(row)
            }
            if first.len() == SHOWN {
                break;
            }
        }
        first.into_iter().chain(others).take(SHOWN).collect()
    }

    /// The picture of a clean map; none where its name leads out of the run.
    fn picture(&self, row: &Made) -> Option<PathBuf> {
        let file = row.file.strip_suffix("-none.npy")?;
        let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.directory.join(format!("{file}.png")))
    }

    /// A figure of one image and class: a picture a method, below each other, so that inputs stand in columns.
    fn figure(&self, row: &Made) -> String {
        let same = |other: &&Made| other.image_id == row.image_id && other.class == row.class;
        let mut pictures = String::new();
        for other in self.made.iter().filter(same).filter(|other| other.input == "none") {
            let Some(Ok(png)) = self.picture(other).map(std::fs::read) else { continue };
            let _ = writeln!(
                pictures,
                "<img alt=\"Maps of image {} by {}, clean and under every input\" src=\"data:image/png;base64,{}\">",
                row.image_id,
                escaped(&other.method),
                STANDARD.encode(png)
            );
        }
        let answers = self.made.iter().filter(same).filter(|other| other.method == row.method).map(|other| {
            let input = input_name((&other.input, other.eps));
            format!("{} {}", escaped(&input), other.predicted.map_or("nothing".into(), |class| class.to_string()))
        });
        format!(
            "<figure class=\"maps\"><figcaption><b>Image {}</b>, maps of class {}. The network answers: {}.</figcaption>\n{pictures}</figure>\n",
            row.image_id,
            row.class,
            answers.collect::<Vec<_>>().join(", ")
        )
    }

    /// How far inputs move maps: a row an input and method, a column a measure.
    fn stability(&self) -> String {
        if self.changes.is_empty() {
            return String::new();
        }
        let measures = [
            ("spearman", "1 &minus; Spearman"),
            ("ssim", "1 &minus; SSIM"),
            ("top10", "1 &minus; overlap of the top 10 %"),
        ];
        let edge = self.changes.iter().filter_map(|row| row.ci_hi.or(row.change)).fold(1e-12f64, f64::max);
        let heads: String = measures.iter().map(|(_, head)| format!("<th colspan=\"2\">{head}</th>")).collect();
        let mut body = String::new();
        for row in self.changes.iter().filter(|row| row.measure == measures[0].0) {
            let _ = write!(
                body,
                "<tr><td>{}</td><td>{}</td>",
                escaped(&input_name((&row.input, row.eps))),
                escaped(&row.method)
            );
            for (measure, _) in measures {
                let same = |other: &&Change| {
                    other.measure == measure
                        && other.method == row.method
                        && other.input == row.input
                        && other.eps == row.eps
                };
                let Some(cell) = self.changes.iter().find(same) else {
                    body.push_str("<td></td><td></td>");
                    continue;
                };
                let ends = ends(cell.ci_lo, cell.ci_hi);
                let _ = write!(
                    body,
                    "<td>{} <small>{}</small></td><td>{}</td>",
                    cell.change.map_or("-".into(), short),
                    bracketed(ends),
                    chart::interval(cell.change, ends, (0.0, edge), 0.0)
                );
            }
            let _ = writeln!(body, "<td>{}</td></tr>", row.n);
        }
        format!(
            "<h3>How far they move</h3>\n<p>The change of a map between the clean image and the changed one, of the same class, mean over \
             images: 0 is not at all. Bars go from 0 to {}. NOISE, random signs of the attack's size, has no adversary: what moves as far \
             under it is not moved by an attack.</p>\n<div class=\"scroll\"><table><thead><tr><th>input</th><th>method</th>{heads}\
             <th>images</th></tr></thead><tbody>{body}</tbody></table></div>\n",
            short(edge)
        )
    }
}

/// The section of a run's maps; empty where it has none.
pub fn maps(run: &Run) -> String {
    let Some(maps) = &run.maps else { return String::new() };
    let figures: String = maps.drawn().into_iter().map(|row| maps.figure(row)).collect();
    // its own run says its warnings at the top
    let told = if run.manifest.verb == maps.manifest.verb { &[][..] } else { &maps.manifest.warnings };
    let warnings: String = told.iter().map(|told| format!("<li>{}</li>", escaped(told))).collect();
    let warnings = if warnings.is_empty() { warnings } else { format!("<ul>{warnings}</ul>\n") };
    format!(
        "<section id=\"maps\">\n<h2>Where answers come from, and whether attacks move that</h2>\n<p>{} In each picture: the image under \
         every input, below it the map over the image, red where it speaks for the class and blue where against, on one scale.</p>\n\
         {warnings}{figures}{}</section>\n",
        maps.told(),
        maps.stability()
    )
}
