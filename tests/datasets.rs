//! Data sets of files: every layout is recognised and read as its users know it, with its traps; files decode ahead of need
//! to the same pixels in any order; bad files stop a run or are left out, as asked. Over real sets too, where
//! INTERVENE_PHOTOS names their directories.

use std::io::Write;
use std::path::{Path, PathBuf};

use intervene::data::augment::Augment;
use intervene::data::findings::FINDINGS;
use intervene::data::image::Channels;
use intervene::data::transform::{Geometry, IMAGENET, Transform};
use intervene::data::{
    DataError, Labels, Layout, NO_LABEL, OnBadFile, Opened, Part, Policy, Split, check_leaks, open, recognise,
};
use intervene::random::fnv1a_64;
use proptest::prelude::*;
use tempfile::TempDir;

/// A grey PNG whose pixels are `value`, `value + 1`, ...
fn png(width: u32, height: u32, value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..width * height).map(|i| value.wrapping_add(i as u8)).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    dir
}

const SMALL: Transform = Transform { channels: Channels::Grey, geometry: Geometry::ShortSide { short: 3, crop: 2 } };
const AS_IS: Transform = Transform { channels: Channels::Grey, geometry: Geometry::As([3, 4]) };

fn opened(path: &Path) -> Opened {
    open(path, SMALL, Policy::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// What opening says when it fails.
fn refusal(path: &Path) -> String {
    open(path, SMALL, Policy::default()).map_or_else(|e| e.to_string(), |o| panic!("{} images", o.data.len()))
}

fn paths(o: &Opened) -> Vec<&str> {
    (0..o.data.len()).map(|i| o.data.path(i).unwrap()).collect()
}

#[test]
fn class_directories_are_sorted_and_their_images_found_at_any_depth_as_in_torchvision() {
    let image = png(4, 3, 0);
    let dir = directory(&[
        ("zebra/1.png", &image),
        ("ant/b.PNG", &image),
        ("ant/a/9.jpeg", &image),
        ("ant/a-b/0.png", &image),
        ("ant/notes.txt", b"x"),
        ("loose.png", &image),
        ("classes.csv", b"x"),
        (".cache/x.png", &image),
    ]);
    let o = opened(dir.path());
    assert_eq!((o.layout, o.data.classes()), (Layout::ImageFolder, &["ant".to_owned(), "zebra".to_owned()][..]));
    // os.walk's directories in order of their paths: ant, ant/a, ant/a-b
    assert_eq!(paths(&o), ["ant/b.PNG", "ant/a/9.jpeg", "ant/a-b/0.png", "zebra/1.png"]);
    assert_eq!(o.data.labels(), [0, 0, 0, 1]);
    assert_eq!(o.data.ids()[3], fnv1a_64("zebra/1.png"));
    let notes = o.notes.join("\n");
    assert!(notes.contains("1 images beside") && notes.contains("1 files in the class"), "{notes}");
    assert!(notes.contains("ant/a/9.jpeg is PNG"), "{notes}");

    let empty = directory(&[("a/1.png", &image), ("b/readme.md", b"x")]);
    let text = refusal(empty.path());
    assert!(text.contains("1 of its 2") && text.contains("(b)") && text.contains(".jpg"), "{text}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_a_link_to_a_directory_above_ends() {
    let dir = directory(&[("a/1.png", &png(4, 3, 0)), ("b/2.png", &png(4, 3, 1))]);
    std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("a/again")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("b/a")).unwrap();
    assert_eq!(paths(&opened(dir.path())), ["a/1.png", "b/2.png", "b/a/1.png"]);
}

#[test]
fn images_side_by_side_are_a_set_without_labels() {
    let dir = directory(&[("b.png", &png(4, 3, 7)), ("a.png", &png(4, 3, 0)), ("readme", b"x")]);
    let o = open(dir.path(), AS_IS, Policy::default()).unwrap();
    assert_eq!((o.layout, paths(&o)), (Layout::Flat, vec!["a.png", "b.png"]));
    assert_eq!((o.data.label(0), o.data.labels()), (None, &[NO_LABEL; 2][..]));
    assert_eq!(*o.data.image(1).unwrap(), [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
    let error = o.data.labels_of(&[1], "training").unwrap_err().to_string();
    assert!(error.contains("b.png") && error.contains("training"), "{error}");
    let want: Vec<f32> = (0..12).map(|v| v as f32 / 255.0).collect();
    assert_eq!(o.data.pixels(&[0]).unwrap(), want);
}

#[test]
fn a_table_names_paths_labels_patients_and_parts_in_any_order_of_columns() {
    let image = png(4, 3, 0);
    let table = "\u{feff}split,label,path,note,patient\n\
                 train,zebra,x/2.png,\"a, b\",p1\nval,ant,1.png,,p2\ntest,,3.png,,\n";
    let dir =
        directory(&[("x/2.png", &image), ("1.png", &image), ("3.png", &image), ("manifest.csv", table.as_bytes())]);
    for path in [dir.path().to_owned(), dir.path().join("manifest.csv")] {
        let o = opened(&path);
        assert_eq!((o.layout, paths(&o)), (Layout::Manifest, vec!["1.png", "3.png", "x/2.png"]));
        assert_eq!(o.data.labels(), [0, NO_LABEL, 1]);
        assert_eq!(o.data.classes(), ["ant", "zebra"]);
        assert_eq!((o.data.patient(0), o.data.patient(1)), (Some("p2"), None));
        assert_eq!(o.data.of_part(Part::Train), [2]);
        assert_eq!((o.data.part(0), o.data.part(1)), (Some(Part::Validation), Some(Part::Test)));
        let notes = o.notes.join("\n");
        assert!(notes.contains("not used: note") && notes.contains("1 of 3 images have no label"), "{notes}");
    }
}

#[test]
fn labels_that_are_numbers_are_the_classes_own_and_findings_are_many() {
    let image = png(4, 3, 0);
    let files: [(&str, &[u8]); 2] = [("1.png", &image), ("2.png", &image)];
    let write = |text: &str| {
        let dir = directory(&files);
        std::fs::write(dir.path().join("t.csv"), text).unwrap();
        dir
    };
    let dir = write("path,label\n1.png,10\n2.png,2\n");
    let o = opened(&dir.path().join("t.csv"));
    assert_eq!((o.data.labels(), o.data.classes().len()), (&[10, 2][..], 11));
    let dir = write("path,findings\n1.png,No Finding\n2.png,Hernia|Mass\n");
    let o = opened(&dir.path().join("t.csv"));
    assert_eq!((o.data.label(0), o.data.label(1)), (None, Some(4)));
    match o.data.targets() {
        Labels::Findings(findings) => {
            assert_eq!(findings.iter().map(|f| f.bits()).collect::<Vec<_>>(), [0, 1 << 4 | 1 << 13])
        }
        Labels::Classes(_) => panic!("classes"),
    }
    for (text, parts) in [
        ("path,label\n1.png,a\n1.png,b\n", &["t.csv, line 3", "1.png is there twice"][..]),
        ("path,label\n1.png,a,b\n", &["line 2", "3 fields", "header 2"]),
        ("path,class\n1.png,a\n", &["line 1", "`label`", "path, class"]),
        ("file,label\n1.png,a\n", &["`path`"]),
        ("path,label,split\n1.png,a,trian\n", &["line 2", "`trian`"]),
        ("path,findings\n1.png,Mas\n", &["line 2", "did you mean `Mass`?"]),
        ("path,label,findings\n1.png,a,Mass\n", &["keep one"]),
        ("path,label\n1.png,4000000\n", &["line 2", "4000000"]),
        ("path,label\n3.png,a\n2.png,a\n", &["1 of 2 images are not there", "3.png", "--on-bad-file skip"]),
        ("path,label\n", &["names no image"]),
        ("", &["is empty"]),
        (
            "path,label,patient,split\n1.png,a,p,train\n2.png,a,p,test\n",
            &["patient p", "1.png", "2.png", "train", "test"],
        ),
    ] {
        let dir = write(text);
        let got = refusal(&dir.path().join("t.csv"));
        assert!(parts.iter().all(|part| got.contains(part)), "{text:?}: {got}");
    }
}

const NIH_HEADER: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
                          OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";

/// A directory in NIH's layout: five images of three patients, one of them without a row, and a row without image.
fn nih(more: &[(&str, &str)]) -> TempDir {
    let image = png(8, 8, 0);
    let table = format!(
        "{NIH_HEADER},\n\
         00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2682,2749,0.143,0.143,\n\
         00000001_001.png,No Finding,1,1,58,M,PA,2894,2729,0.143,0.143,\n\
         00000002_000.png,Infiltration,0,2,81,M,PA,2500,2048,0.171,0.171,\n\
         00000003_000.png,Hernia,0,3,81,F,PA,2582,2991,0.143,0.143,\n\
         00000004_000.png,Mass,0,4,82,M,AP,2500,2048,0.168,0.168,\n"
    );
    let boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n\
                 00000002_000.png,Infiltrate,512,256,128.0,64.5\n00000009_000.png,Mass,1,1,2,2,,,\n";
    let dir = directory(&[
        ("images_001/images/00000001_000.png", &image),
        ("images_001/images/00000001_001.png", &image),
        ("images_002/images/00000002_000.png", &image),
        ("images/00000003_000.png", &image),
        ("images/00000007_000.png", &image),
        ("Data_Entry_2017.csv", table.as_bytes()),
        ("BBox_List_2017.csv", boxes.as_bytes()),
    ]);
    for (name, text) in more {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const LISTS: [(&str, &str); 2] = [
    ("train_val_list.txt", "00000001_000.png\r\n00000001_001.png\r\n00000003_000.png"),
    ("test_list.txt", "00000002_000.png\n00000004_000.png\n"),
];

#[test]
fn nihs_layout_is_read_with_all_its_traps() {
    let dir = nih(&LISTS);
    let whole = Transform { channels: Channels::Grey, geometry: Geometry::As([8, 8]) };
    let o = open(dir.path(), whole, Policy::default()).unwrap();
    assert_eq!((o.layout, o.data.classes().len()), (Layout::Nih, 14));
    let names = [
        "images/00000003_000",
        "images_001/images/00000001_000",
        "images_001/images/00000001_001",
        "images_002/images/00000002_000",
    ];
    assert_eq!(paths(&o), names.map(|n| format!("{n}.png")));
    assert_eq!((0..4).map(|i| o.data.label(i)).collect::<Vec<_>>(), [Some(13), Some(1), None, Some(3)]);
    assert_eq!((0..4).filter_map(|i| o.data.patient(i)).collect::<Vec<_>>(), ["3", "1", "1", "2"]);
    assert_eq!(o.data.of_part(Part::Train), [0, 1, 2]);
    let placed = o.data.placed(3).unwrap();
    assert_eq!((placed.len(), FINDINGS[placed[0].finding]), (1, "Infiltration"));
    let place = placed[0].place;
    assert_eq!([place.x, place.y, place.width, place.height], [4.0, 2.0, 1.0, 64.5 / 128.0]);
    assert!(o.data.placed(0).unwrap().is_empty());
    // who is marked tests, as long as that is not everybody
    let split = |train: &[u32], validation: &[u32]| Split { train: train.into(), validation: validation.into() };
    assert_eq!(split(&[0, 1, 2, 3], &[]).with_marked(&o.data), split(&[0, 1, 2], &[3]));
    assert_eq!(split(&[1, 2, 3], &[0]).with_marked(&o.data), split(&[1, 2, 3], &[0]));
    let notes = o.notes.join("\n");
    for part in ["1 of 5 rows name an image that is not there", "1 images have no row", "1 boxes of", "1 listed images"]
    {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    // the 2020 file: no closing comma
    std::fs::remove_file(dir.path().join("Data_Entry_2017.csv")).unwrap();
    let text = format!("{NIH_HEADER}\n00000003_000.png,Hernia,0,3,81,F,PA,2582,2991,0.143,0.143\n");
    std::fs::write(dir.path().join("Data_Entry_2017_v2020.csv"), text).unwrap();
    assert_eq!(opened(dir.path()).data.len(), 1);
}

#[test]
fn nihs_tables_and_lists_name_the_line_that_is_wrong() {
    let row = |text: &str| ("Data_Entry_2017.csv", format!("{NIH_HEADER}\n{text}\n"));
    let list = |name, text: &str| (name, text.to_owned());
    let zeros = " 0".repeat(14);
    for ((name, text), parts) in [
        (row("a.png,Mas,0,1,1,M,PA,1,1,1,1"), &["Data_Entry_2017.csv, line 2", "`Mas`", "`Mass`"][..]),
        (row("a.png,Mass,0,1,1,M,PA,1,1,1"), &["line 2", "10 fields", "11"]),
        (row("a.png,Mass,0,,1,M,PA,1,1,1,1"), &["line 2", "patient"]),
        (row("a.png,Mass,0,1,1,M,PA,1,1,1,1\na.png,Mass,0,1,1,M,PA,1,1,1,1"), &["line 3", "twice"]),
        (list("Data_Entry_2017.csv", "Image,Finding Labels,Patient ID\n"), &["`Image Index`"]),
        (
            list("BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h]\na.png,Mass,1,2,x,4\n"),
            &["line 2", "`x`"],
        ),
        (list("BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h]\na.png,Mass,1,2,3,4000\n"), &["1024"]),
        (list("test_list.txt", "00000001_000.png\n00000001_001.png\n"), &["test_list.txt, line 1", "listed twice"]),
        (list("test_list.txt", "00000001_001.png\n"), &["patient 1", "train", "test"]),
        (list("test_list.txt", "a.png 0 1\n"), &["line 1", "3 columns"]),
        (list("test_list.txt", &format!("b.png\na.png{zeros}\n")), &["line 2", "15 columns"]),
        (list("test_list.txt", &format!("a.png{} 2\n", &zeros[2..])), &["Hernia", "`2`"]),
        (list("test_list.txt", ""), &["empty"]),
    ] {
        let dir = nih(&[("train_val_list.txt", "00000001_000.png\n"), (name, &text)]);
        let got = refusal(dir.path());
        assert!(parts.iter().all(|part| got.contains(part)), "{name} {text:?}: {got}");
    }
}

#[test]
fn the_fifteen_column_lists_split_and_stand_in_for_the_table() {
    let line = |name: &str, finding: usize| {
        let flags: Vec<&str> = (0..14).map(|i| if i == finding { "1" } else { "0" }).collect();
        format!("{name} {}\n", flags.join(" "))
    };
    let train = line("images_001/00000001_000.png", 1) + &line("images_001/00000001_001.png", 99);
    let (val, test) = (line("00000002_000.png", 3), line("00000003_000.png", 13));
    for [a, b, c] in [["train_list.txt", "val_list.txt", "test_list.txt"], ["train_1.txt", "val_1.txt", "test_1.txt"]] {
        let dir = nih(&[(a, &train), (b, &val), (c, &test)]);
        let o = opened(dir.path());
        assert_eq!(o.data.of_part(Part::Validation), [3]);
        // the table says Cardiomegaly and Emphysema
        assert!(o.notes.iter().any(|n| n.contains("1 images have other findings")), "{:?}", o.notes);
        std::fs::remove_file(dir.path().join("Data_Entry_2017.csv")).unwrap();
        let o = opened(dir.path());
        assert_eq!((o.layout, o.data.len(), o.data.label(1), o.data.patient(1)), (Layout::Nih, 4, Some(1), Some("1")));
    }
}

#[test]
fn a_split_by_patient_leaks_nothing_and_is_the_same_every_time() {
    let rows: String = (0..60).map(|i| format!("{i}.png,a,{}\n", i % 17)).collect();
    let dir = tempfile::tempdir().unwrap();
    (0..60).for_each(|i| std::fs::write(dir.path().join(format!("{i}.png")), png(4, 3, i)).unwrap());
    std::fs::write(dir.path().join("t.csv"), format!("path,label,patient\n{rows}")).unwrap();
    let data = opened(&dir.path().join("t.csv")).data;
    let split = Split::by_patient(&data, "patients", 12);
    assert_eq!(split, Split::by_patient(&data, "patients", 12));
    assert_ne!(split, Split::by_patient(&data, "others", 12));
    assert_eq!(split.train.len() + split.validation.len(), 60);
    assert!((12..16).contains(&split.validation.len()), "{split:?}");
    let sides = [(&split.train, Part::Train), (&split.validation, Part::Validation)];
    let records = sides.iter().flat_map(|(images, part)| {
        images.iter().map(|&i| {
            let mut record = data.record(i as usize).unwrap().clone();
            record.part = Some(*part);
            record
        })
    });
    check_leaks(&records.collect::<Vec<_>>()).unwrap();
}

/// 40 images of three sizes in two classes.
fn forty() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..40u8 {
        let class = dir.path().join(["a", "b"][usize::from(i % 2)]);
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join(format!("{i}.png")), png(4 + u32::from(i % 3), 5, 3 * i)).unwrap();
    }
    dir
}

#[test]
fn pixels_do_not_depend_on_order_threads_announcements_or_the_cache() {
    let dir = forty();
    let all: Vec<u32> = (0..40).collect();
    let want = opened(dir.path()).data.pixels(&all).unwrap();
    let augment = Augment { seed: 1, epoch: 2 };
    let seen = opened(dir.path()).data.augmented(&all, augment).unwrap();
    assert_ne!(want, seen);
    for (threads, ahead_bytes, cache_bytes) in [(1, 0, 0), (4, 40, 0), (3, 1 << 20, 1 << 20)] {
        let policy = Policy { threads, ahead_bytes, cache_bytes, ..Policy::default() };
        let data = open(dir.path(), SMALL, policy).unwrap().data;
        let order: Vec<u32> = (0..40).map(|i| i * 7 % 40).collect();
        for round in 0..3 {
            match round {
                0 => {}
                1 => data.announce(&order),
                _ => data.announce(&all),
            }
            for batch in order.chunks(6) {
                let got = data.pixels(batch).unwrap();
                let rows = batch.iter().flat_map(|&i| want[i as usize * 4..][..4].to_vec());
                assert_eq!(got, rows.collect::<Vec<_>>());
            }
        }
        data.announce_augmented(&order, augment);
        assert_eq!(data.augmented(&all, augment).unwrap(), seen);
        let some = data.subset(&[5, 3]).unwrap();
        assert_eq!(some.pixels(&[1]).unwrap(), want[12..16]);
        assert_eq!((some.ids()[0], some.labels()), (data.ids()[5], &[0, 0][..]));
        assert!(matches!(data.pixels(&[40]), Err(DataError::Index { index: 40, len: 40 })));
    }
}

#[test]
fn a_bad_file_stops_with_its_path_or_is_left_out_by_name_and_then_every_time() {
    let dir = forty();
    std::fs::write(dir.path().join("a/0.png"), b"").unwrap();
    std::fs::write(dir.path().join("b/7.png"), &png(9, 9, 0)[..40]).unwrap();
    let data = opened(dir.path()).data;
    let all: Vec<u32> = (0..40).collect();
    for (ask, part) in [(&all[..], "a/0.png"), (&[27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 22], "b/7.png")] {
        let error = data.pixels(ask).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(data.pixels(&[1, 2]).is_ok());
    let policy = Policy { on_bad_file: OnBadFile::Skip, ..Policy::default() };
    let runs: Vec<Opened> = (0..2).map(|_| open(dir.path(), SMALL, policy).unwrap()).collect();
    for o in &runs {
        let skipped: Vec<&str> = o.skipped.iter().map(|s| s.path.as_str()).collect();
        assert_eq!((o.data.len(), skipped), (38, vec!["a/0.png", "b/7.png"]));
        assert!(
            o.skipped[0].reason.contains("0 bytes") && o.skipped[1].reason.contains("cut short"),
            "{:?}",
            o.skipped
        );
        assert!(o.notes.iter().any(|n| n.contains("2 of 40")), "{:?}", o.notes);
        assert!(o.data.pixels(&(0..38).collect::<Vec<_>>()).is_ok());
        assert_eq!(o.data.hash().unwrap(), runs[0].data.hash().unwrap());
    }
    let only = directory(&[("x.png", b"no")]);
    let text = open(only.path(), SMALL, policy).map_or_else(|e| e.to_string(), |_| String::new());
    assert!(text.contains("none of its 1 files") && text.contains("x.png"), "{text}");
}

#[test]
fn the_hash_of_files_sees_paths_bytes_labels_and_transform_and_no_order() {
    let dir = forty();
    let hash = |transform| open(dir.path(), transform, Policy::default()).unwrap().data.hash().unwrap();
    let first = hash(SMALL);
    assert_eq!(hash(SMALL), first);
    let data = opened(dir.path()).data;
    let reversed: Vec<u32> = (0..40).rev().collect();
    assert_eq!(data.subset(&reversed).unwrap().hash().unwrap(), first);
    let mut seen = vec![first, data.subset(&reversed[1..]).unwrap().hash().unwrap(), hash(AS_IS)];
    std::fs::rename(dir.path().join("a/0.png"), dir.path().join("a/00.png")).unwrap();
    seen.push(hash(SMALL));
    std::fs::write(dir.path().join("a/00.png"), png(4, 5, 99)).unwrap();
    seen.push(hash(SMALL));
    std::fs::rename(dir.path().join("a"), dir.path().join("c")).unwrap();
    seen.push(hash(SMALL));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6);
}

#[test]
fn an_image_of_another_size_than_asked_for_says_both() {
    let dir = directory(&[("a.png", &png(7, 2, 0))]);
    let data = open(dir.path(), AS_IS, Policy::default()).unwrap().data;
    let text = data.pixels(&[0]).unwrap_err().to_string();
    assert!(text.contains("a.png") && text.contains("7x2") && text.contains("4x3"), "{text}");
}

#[test]
fn what_is_no_data_set_says_what_was_looked_for() {
    let dir = directory(&[("readme.md", b"x"), ("sub/file.txt", b"x")]);
    let text = refusal(dir.path());
    for part in ["manifest.csv", "Data_Entry_2017.csv", "train-images-idx3-ubyte", ".png", "1 directories and 1 files"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(refusal(&dir.path().join("nowhere")).contains("nowhere"));
    assert!(refusal(&dir.path().join("readme.md")).contains("path and label"));
    let idx = directory(&[("t10k-images-idx3-ubyte.gz", b"x")]);
    assert_eq!(recognise(idx.path()).unwrap(), Layout::Idx);
    assert!(refusal(idx.path()).contains("IDX"));
}

#[test]
fn real_sets_open_and_every_image_decodes() {
    let directories: Vec<PathBuf> =
        std::env::var_os("INTERVENE_PHOTOS").map(|v| std::env::split_paths(&v).collect()).unwrap_or_default();
    if directories.is_empty() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED real_sets_open_and_every_image_decodes: INTERVENE_PHOTOS names no directory"
        );
    }
    let transform = Transform { channels: Channels::Rgb, geometry: IMAGENET };
    for directory in directories {
        let o = open(&directory, transform, Policy::default()).unwrap();
        let all: Vec<u32> = (0..o.data.len() as u32).collect();
        o.data.announce(&all);
        for batch in all.chunks(32) {
            let pixels = o.data.pixels(batch).unwrap();
            assert!(pixels.iter().all(|p| (0.0..=1.0).contains(p)));
        }
        assert_eq!(o.data.hash().unwrap().len(), 64);
        let placed: usize = (0..o.data.len()).map(|i| o.data.placed(i).unwrap().len()).sum();
        let (n, layout, notes) = (o.data.len(), o.layout.name(), o.notes.join("; "));
        println!(
            "{}: {layout}, {n} images, {} classes, {placed} boxes; {notes}",
            directory.display(),
            o.data.classes().len()
        );
    }
}

/// Text that looks like a table now and then.
fn tables() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("path".to_owned()),
        Just("label".to_owned()),
        Just("findings".to_owned()),
        Just("Image Index".to_owned()),
        Just("Finding Labels".to_owned()),
        Just("Patient ID".to_owned()),
        Just("Finding Label".to_owned()),
        Just("Bbox [x".to_owned()),
        Just("Mass|Hernia".to_owned()),
        Just("No Finding".to_owned()),
        Just("a.png".to_owned()),
        Just("1".to_owned()),
        Just("0".to_owned()),
        Just("\"".to_owned()),
        Just(String::new()),
        "\\PC{0,6}",
    ];
    let line = proptest::collection::vec(word, 0..17)
        .prop_flat_map(|words| prop_oneof![Just(words.join(",")), Just(words.join(" "))]);
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_a_reader_of_tables_and_lists_panic(text in tables(), bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let dir = directory(&[("images/a.png", &png(2, 2, 0))]);
        for content in [text.as_bytes(), &bytes] {
            for name in ["t.csv", "Data_Entry_2017.csv", "BBox_List_2017.csv", "test_list.txt", "train_list.txt"] {
                std::fs::write(dir.path().join(name), content).unwrap();
            }
            let _ = open(&dir.path().join("t.csv"), SMALL, Policy::default());
            let _ = open(dir.path(), SMALL, Policy::default());
            let _ = intervene::data::nih::read_list(&dir.path().join("test_list.txt"));
            let table = format!("{NIH_HEADER}\na.png,Mass,0,1,1,M,PA,1,1,1,1\n");
            std::fs::write(dir.path().join("Data_Entry_2017.csv"), table).unwrap();
            let _ = open(dir.path(), SMALL, Policy::default());
        }
    }
}
