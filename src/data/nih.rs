//! NIH ChestX-ray14 as it is published: `Data_Entry_2017.csv` (or `_v2020`), images in `images/` or `images_001/images/` to
//! `images_012/images/`, `BBox_List_2017.csv`, and a split by `train_val_list.txt` and `test_list.txt` or by the 15-column
//! lists of arnoweng (`train_list.txt`, ...) and zoogzog (`train_1.txt`, ...). Called by [`super::open()`].
//!
//! Its traps: bracketed column names hold commas without quotes, so the header has more fields than names; the 2017 file
//! ends its rows in a comma; the boxes' list writes `Infiltrate`, and gives boxes in the space of 1024 x 1024 pixels,
//! whatever size the images now have.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::files::{Marked, Part, Record};
use super::findings::{FINDINGS, Findings, number};
use super::folder::{Scanned, entries, is_image};
use super::table::{self, column, csv_rows};
use super::transform::Rectangle;
use super::{DataError, check_leaks};

/// Names of the table, the first there is.
pub const TABLES: [&str; 2] = ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"];
/// Name of the list of boxes.
const BOXES: &str = "BBox_List_2017.csv";
/// Side of the space that boxes are given in.
const BOX_SPACE: f64 = 1024.0;

/// Names of lists, the directories they lie in, and the part that each is.
const OFFICIAL: [(&str, Part); 2] = [("train_val_list.txt", Part::Train), ("test_list.txt", Part::Test)];
const ARNOWENG: [(&str, Part); 3] =
    [("train_list.txt", Part::Train), ("val_list.txt", Part::Validation), ("test_list.txt", Part::Test)];
const ZOOGZOG: [(&str, Part); 3] =
    [("train_1.txt", Part::Train), ("val_1.txt", Part::Validation), ("test_1.txt", Part::Test)];

/// What a list says of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its line, from 1.
    pub line: u64,
    /// File name of the image, without directories.
    pub name: String,
    /// Its findings, where the list has them.
    pub findings: Option<Findings>,
}

/// A row of the table.
struct Entry {
    findings: Findings,
    patient: String,
    sex: Option<String>,
    view: Option<String>,
}

/// The table directly in `root`, if there is one.
pub fn table_in(root: &Path) -> Option<PathBuf> {
    TABLES.iter().map(|name| root.join(name)).find(|path| path.is_file())
}

/// Fields that a header's names stand for: a bracketed name with commas is as many as it has parts, also where quoted.
fn fields_meant(header: &[String]) -> usize {
    header.iter().map(|name| 1 + name.matches(',').count()).sum()
}

/// Without the empty fields that closing commas make.
fn trimmed(fields: &[String]) -> &[String] {
    let len = fields.iter().rposition(|f| !f.is_empty()).map_or(0, |last| last + 1);
    &fields[..len]
}

/// The table by image name.
fn read_table(file: &Path) -> Result<BTreeMap<String, Entry>, DataError> {
    let rows = csv_rows(file)?;
    let header = &rows[0];
    let name_at = column(file, header, "Image Index")?;
    let findings_at = column(file, header, "Finding Labels")?;
    let patient_at = column(file, header, "Patient ID")?;
    // nothing rests on these two, and copies of the table may lack them
    let [sex_at, view_at] =
        ["Patient Gender", "View Position"].map(|name| header.1.iter().position(|h| h.trim() == name));
    let want = fields_meant(trimmed(&header.1));
    let mut table = BTreeMap::new();
    for (line, fields) in &rows[1..] {
        let wrong = |reason: String| DataError::Row { file: file.to_owned(), line: *line, reason };
        // a value may be missing at the end of a row; a comma too many may stand there
        if fields.len() != want && fields.len() != want + 1 {
            return Err(wrong(format!("it has {} fields, the header stands for {want}", fields.len())));
        }
        let name = fields[name_at].clone();
        let patient = fields[patient_at].clone();
        if name.is_empty() || patient.is_empty() {
            return Err(wrong("the image's name or the patient is empty".into()));
        }
        let findings = Findings::parse(&fields[findings_at]).map_err(wrong)?;
        let said = |at: Option<usize>| at.and_then(|at| fields.get(at)).filter(|text| !text.is_empty()).cloned();
        let entry = Entry { findings, patient, sex: said(sex_at), view: said(view_at) };
        if table.insert(name.clone(), entry).is_some() {
            return Err(wrong(format!("{name} is there twice")));
        }
    }
    Ok(table)
}

/// A list: one image a line, alone or with fourteen zeros and ones in CheXNet's order, blanks or commas between.
///
/// # Errors
/// [`DataError::Row`] with the line.
pub fn read_list(file: &Path) -> Result<Vec<Listed>, DataError> {
    let text = table::text(file)?;
    let mut listed = Vec::new();
    let mut columns = None;
    for (line, text) in (1u64..).zip(text.lines()) {
        let wrong = |reason: String| DataError::Row { file: file.to_owned(), line, reason };
        let mut fields = text.split([' ', '\t', ',']).filter(|f| !f.is_empty());
        let Some(path) = fields.next() else { continue };
        let flags: Vec<&str> = fields.collect();
        let findings = match flags.len() {
            0 => None,
            14 => {
                let mut bits = 0;
                for (i, flag) in flags.iter().enumerate() {
                    match *flag {
                        "0" => {}
                        "1" => bits |= 1 << i,
                        other => {
                            return Err(wrong(format!("`{}` stands where {} is 0 or 1", shown(other), FINDINGS[i])));
                        }
                    }
                }
                Some(Findings::from_bits(bits))
            }
            n => {
                let reason =
                    format!("it has {} columns; lists have 1 (a name) or 15 (a name and fourteen 0 or 1)", n + 1);
                return Err(wrong(reason));
            }
        };
        if *columns.get_or_insert(findings.is_some()) != findings.is_some() {
            return Err(wrong("it has 15 columns where the lines before have 1, or the other way round".into()));
        }
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned();
        listed.push(Listed { line, name, findings });
    }
    if listed.is_empty() {
        return Err(DataError::Row { file: file.to_owned(), line: 1, reason: "it is empty".into() });
    }
    Ok(listed)
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The boxes by image name.
fn read_boxes(file: &Path) -> Result<HashMap<String, Vec<Marked>>, DataError> {
    let rows = csv_rows(file)?;
    let header = &rows[0];
    let (name_at, finding_at) = (column(file, header, "Image Index")?, column(file, header, "Finding Label")?);
    // `Bbox [x,y,w,h]`, its commas quoted or not
    let Some(box_at) = header.1.iter().position(|h| h.starts_with("Bbox")) else {
        let reason = "there is no column `Bbox [x,y,w,h]`".to_owned();
        return Err(DataError::Row { file: file.to_owned(), line: header.0, reason });
    };
    let mut boxes: HashMap<String, Vec<Marked>> = HashMap::new();
    for (line, fields) in &rows[1..] {
        let wrong = |reason: String| DataError::Row { file: file.to_owned(), line: *line, reason };
        let field = |at: usize| fields.get(at).map_or("", String::as_str);
        let mut sides = [0.0; 4];
        for (i, side) in sides.iter_mut().enumerate() {
            let text = field(box_at + i);
            let value = text.parse::<f64>().ok().filter(|v| v.is_finite());
            *side = value.ok_or_else(|| wrong(format!("`{}` is no number of a box", shown(text))))?;
        }
        let [x, y, width, height] = sides;
        if x < 0.0
            || y < 0.0
            || width <= 0.0
            || height <= 0.0
            || x + width > BOX_SPACE + 1.0
            || y + height > BOX_SPACE + 1.0
        {
            return Err(wrong(format!("the box {x}, {y}, {width}, {height} is not within 1024 x 1024")));
        }
        let finding = number(field(finding_at)).map_err(wrong)?;
        let place =
            Rectangle { x: x / BOX_SPACE, y: y / BOX_SPACE, width: width / BOX_SPACE, height: height / BOX_SPACE };
        boxes.entry(field(name_at).to_owned()).or_default().push(Marked { finding, place });
    }
    Ok(boxes)
}

/// Image files by name, with their paths below `root`.
fn find_images(root: &Path) -> Result<BTreeMap<String, String>, DataError> {
    let top = entries(root)?;
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for shard in top.directories.iter().filter(|d| *d == "images" || d.starts_with("images_")) {
        let inner = entries(&root.join(shard))?;
        let mut places = vec![(shard.clone(), inner.files)];
        if inner.directories.iter().any(|d| d == "images") {
            let place = format!("{shard}/images");
            let files = entries(&root.join(&place))?.files;
            places.push((place, files));
        }
        for (place, files) in places {
            for name in files.into_iter().filter(|name| is_image(name)) {
                let path = format!("{place}/{name}");
                if let Some(other) = found.insert(name, path.clone()) {
                    let reason = format!("the image is also at {other}: keep one of them");
                    return Err(DataError::Image { file: root.join(path), reason });
                }
            }
        }
    }
    if found.is_empty() {
        let reason = "no images; looked in images/ and images_001/images/ to images_012/images/".to_owned();
        return Err(DataError::Layout { path: root.to_owned(), reason });
    }
    Ok(found)
}

/// The lists of a family that are there, in `root` or `root/labels`.
fn lists_in(root: &Path, family: &[(&str, Part)]) -> Vec<(PathBuf, Part)> {
    [root.to_owned(), root.join("labels")]
        .iter()
        .map(|dir| family.iter().map(|&(name, part)| (dir.join(name), part)).filter(|(p, _)| p.is_file()).collect())
        .find(|lists: &Vec<_>| !lists.is_empty())
        .unwrap_or_default()
}

/// The lists that split `root`: the official ones before others.
fn lists(root: &Path) -> Vec<(PathBuf, Part)> {
    let official = lists_in(root, &OFFICIAL);
    if official.iter().any(|(_, part)| *part == Part::Train) {
        return official;
    }
    let arnoweng = lists_in(root, &ARNOWENG);
    if arnoweng.is_empty() { lists_in(root, &ZOOGZOG) } else { arnoweng }
}

/// Whether `root` is laid out so.
pub fn is_here(root: &Path) -> bool {
    table_in(root).is_some() || (!lists(root).is_empty() && find_images(root).is_ok())
}

/// Patient of an image by its name, `00000100_000.png` to `100`: for lists without the table.
fn patient_of(name: &str) -> Option<String> {
    let digits = name.split_once('_')?.0;
    let number = digits.trim_start_matches('0');
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| if number.is_empty() { "0".into() } else { number.into() })
}

/// Reads the set in `root`, in order of the images' paths.
///
/// # Errors
/// [`DataError::Row`] with file and line, [`DataError::Leak`], [`DataError::Layout`] without images.
pub fn read(root: &Path) -> Result<Scanned, DataError> {
    let images = find_images(root)?;
    let mut notes = Vec::new();
    let mut parts: HashMap<String, (Part, Option<Findings>)> = HashMap::new();
    let lists = lists(root);
    for (file, part) in &lists {
        for Listed { line, name, findings } in read_list(file)? {
            if let Some((other, _)) = parts.insert(name.clone(), (*part, findings)) {
                let reason = format!("{name} is listed twice, in {} and in {}", other.name(), part.name());
                return Err(DataError::Row { file: file.clone(), line, reason });
            }
        }
    }
    let table = table_in(root);
    let mut entries = match &table {
        Some(file) => read_table(file)?,
        None => {
            let from_list = |(name, (_, findings)): (&String, &(Part, Option<Findings>))| {
                let (Some(findings), Some(patient)) = (*findings, patient_of(name)) else { return None };
                Some((name.clone(), Entry { findings, patient, sex: None, view: None }))
            };
            parts.iter().filter_map(from_list).collect()
        }
    };
    if entries.is_empty() {
        let names = lists.iter().map(|(f, _)| f.display().to_string()).collect::<Vec<_>>().join(", ");
        let reason = format!("{names}: lists of names without findings need {} beside them", TABLES[0]);
        return Err(DataError::Layout { path: root.to_owned(), reason });
    }
    let rows = entries.len();
    let mut boxes = match root.join(BOXES) {
        file if file.is_file() => read_boxes(&file)?,
        _ => HashMap::new(),
    };
    let (mut records, mut without_row, mut unlisted, mut disagree) = (Vec::new(), 0usize, 0usize, 0usize);
    for (name, path) in images {
        let Some(Entry { findings, patient, sex, view }) = entries.remove(&name) else {
            without_row += 1;
            continue;
        };
        let listed = parts.remove(&name);
        unlisted += usize::from(listed.is_none());
        disagree += usize::from(listed.and_then(|(_, f)| f).is_some_and(|f| f != findings));
        let marked = boxes.remove(&name).unwrap_or_default();
        let part = listed.map(|(part, _)| part);
        let (findings, patient) = (Some(findings), Some(patient));
        records.push(Record { path, class: None, findings, patient, part, marked, sex, view });
    }
    let mut note = |count: usize, text: &str| {
        if count > 0 {
            notes.push(format!("{count} {text}"));
        }
    };
    note(entries.len(), &format!("of {rows} rows name an image that is not there"));
    note(without_row, "images have no row and are left out");
    note(boxes.values().map(Vec::len).sum(), &format!("boxes of {BOXES} are on images that are not there"));
    if !lists.is_empty() {
        note(unlisted, "images are in no list, so in no part");
        note(parts.len(), "listed images are not there or have no row");
        note(disagree, &format!("images have other findings in the lists than in {}, which counts", TABLES[0]));
    }
    if records.is_empty() {
        let reason = format!("none of its images has a row in {}", table.unwrap_or_default().display());
        return Err(DataError::Layout { path: root.to_owned(), reason });
    }
    check_leaks(&records)?;
    records.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Scanned { records, classes: FINDINGS.map(str::to_owned).to_vec(), notes })
}
