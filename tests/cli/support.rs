//! A working directory with synthetic data, and the binary run in it.

use intervene::picture::{Channels, png};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_intervene");

/// Flags that make a study of the synthetic images small. The bundled networks were not trained on them, so the gate is
/// lowered.
pub const SMALL: [&str; 11] =
    ["--data", "d", "--any-data", "--masks", "1", "--resamples", "20", "--min-agreement", "0", "--quiet", "--seed=3"];

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn succeeds(self) -> Ran {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Ended with `code`, with every one of `words` in the message, and with no results.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(self.err.contains("error: "), "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "no \"{word}\" in: {}", self.err);
        }
        assert_eq!(self.out, "", "results of a run that failed");
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

/// An X-ray with one finding.
pub struct XRay {
    pub finding: &'static str,
    /// Its box as NIH's list has it, in 1024 parts of a side: `x,y,width,height`.
    pub place: Option<&'static str>,
    /// 28 x 28.
    pub pixels: Vec<u8>,
}

/// A directory in which the program runs; data are in `d`.
pub struct Lab {
    dir: tempfile::TempDir,
}

/// `count` images of 10 classes, told apart by where their bar lies, as an IDX file.
pub fn images(count: usize, side: usize) -> Vec<u8> {
    let mut bytes = [0x0803, count as u32, side as u32, side as u32].map(u32::to_be_bytes).concat();
    let mut state = 1u32;
    for image in 0..count {
        for y in 0..side {
            for x in 0..side {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let bar = y * 10 / side == image % 10 && x > 4;
                bytes.push((state >> 26) as u8 + if bar { 180 } else { 0 });
            }
        }
    }
    bytes
}

/// Their labels.
pub fn labels(count: usize) -> Vec<u8> {
    let mut bytes = [0x0801, count as u32].map(u32::to_be_bytes).concat();
    bytes.extend((0..count).map(|i| (i % 10) as u8));
    bytes
}

impl Lab {
    /// 120 images to train on, 40 to test on.
    pub fn new() -> Lab {
        Lab::with(120, 40)
    }

    pub fn with(train: usize, test: usize) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(lab.path("d")).unwrap();
        for (name, count) in [("train", train), ("t10k", test)] {
            lab.write(&format!("d/{name}-images-idx3-ubyte"), &images(count, 28));
            lab.write(&format!("d/{name}-labels-idx1-ubyte"), &labels(count));
        }
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// What lies in a directory, sorted.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(directory))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A program to run here, with no home: nothing outside is read or written, compiled kernels aside, which all share.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.current_dir(self.dir.path()).env("XDG_DATA_HOME", self.path("home")).env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(BINARY);
        command.args(arguments);
        finish(command)
    }

    /// Runs the program with some variables of its environment set, or removed.
    pub fn run_in(&self, environment: &[(&str, Option<&str>)], arguments: &[&str]) -> Ran {
        let mut command = self.command(BINARY);
        command.args(arguments);
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        finish(command)
    }

    /// A study of `limit` images into `out`, with further flags.
    pub fn ce(&self, limit: &str, out: &str, more: &[&str]) -> Ran {
        self.run(&[&["ce", "--limit", limit, "--out", out][..], &SMALL, more].concat())
    }

    /// Runs a shell script with the program as `$0` and `arguments` as `$@`.
    pub fn shell(&self, script: &str, arguments: &[&str]) -> Ran {
        let mut command = self.command("sh");
        command.arg("-c").arg(script).arg(BINARY).args(arguments);
        finish(command)
    }

    /// Starts the program, waits until `file` exists, and sends it `signal`.
    #[track_caller]
    pub fn signalled(&self, arguments: &[&str], file: &str, signal: &str) -> Ran {
        let mut command = self.command(BINARY);
        let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        await_file(&self.path(file), &mut child);
        let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// X-rays of 28 x 28 pixels in NIH's layout in `nih/`, a patient each, the last `test` of them to test on.
    pub fn x_rays(&self, all: &[XRay], test: usize) {
        std::fs::create_dir_all(self.path("nih/images")).unwrap();
        let mut table = String::from(
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
             OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n",
        );
        let mut boxes = String::from("Image Index,Finding Label,Bbox [x,y,w,h],,,\n");
        let mut lists = [String::new(), String::new()];
        for (i, XRay { finding, place, pixels }) in all.iter().enumerate() {
            let name = format!("{i:08}_000.png");
            self.write(&format!("nih/images/{name}"), &png(pixels, [28, 28], Channels::Grey).unwrap());
            table += &format!("{name},{finding},0,{i},50,M,PA,28,28,0.1,0.1\n");
            boxes += &place.map_or(String::new(), |place| format!("{name},{finding},{place}\n"));
            lists[usize::from(i + test >= all.len())] += &format!("{name}\n");
        }
        let [train, test] = lists;
        for (name, text) in [
            ("Data_Entry_2017.csv", table),
            ("BBox_List_2017.csv", boxes),
            ("train_val_list.txt", train),
            ("test_list.txt", test),
        ] {
            self.write(&format!("nih/{name}"), text.as_bytes());
        }
    }

    /// `effects.parquet` of a run, read with the crate's reader, its cells as `effects.csv` has them.
    pub fn effects(&self, run: &str) -> Table {
        let path = self.path(&format!("{run}/effects.parquet"));
        let file = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let fields = file.metadata().file_metadata().schema().get_fields();
        let head = fields.iter().map(|field| field.name().to_owned()).collect();
        let row = |row: Row| row.into_columns().into_iter().map(|(_, cell)| written(&cell)).collect();
        Table { head, rows: file.get_row_iter(None).unwrap().map(|found| row(found.unwrap())).collect() }
    }

    /// Every file below `directory` with its bytes; of manifests, what must repeat.
    pub fn contents(&self, directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let root = self.path(directory);
        let (mut found, mut stack) = (Vec::new(), vec![root.clone()]);
        while let Some(at) = stack.pop() {
            for entry in std::fs::read_dir(&at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    stack.push(path);
                    continue;
                }
                let mut bytes = std::fs::read(&path).unwrap();
                if path.file_name().unwrap() == "manifest.json" {
                    let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                    let map = manifest.as_object_mut().unwrap();
                    assert!(map.shift_remove("timing").is_some() && map.shift_remove("machine").is_some());
                    bytes = manifest.to_string().into_bytes();
                }
                found.push((path.strip_prefix(&root).unwrap().to_owned(), bytes));
            }
        }
        found.sort();
        found
    }

    /// Both directories hold the same files with the same bytes, manifests aside from `timing` and `machine`.
    #[track_caller]
    pub fn assert_same(&self, a: &str, b: &str) {
        let (a, b) = (self.contents(a), self.contents(b));
        let names = |c: &[(PathBuf, Vec<u8>)]| c.iter().map(|(p, _)| p.clone()).collect::<Vec<_>>();
        assert_eq!(names(&a), names(&b));
        for ((path, a), (_, b)) in a.iter().zip(&b) {
            let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(3000)]).into_owned();
            assert!(a == b, "{} differs:\n{}\n{}", path.display(), shown(a), shown(b));
        }
    }
}

/// A value of Parquet as a field of CSV.
fn written(cell: &Field) -> String {
    match cell {
        Field::Null => String::new(),
        Field::UInt(x) => x.to_string(),
        Field::ULong(x) => x.to_string(),
        Field::Float(x) => x.to_string(),
        Field::Double(x) => format!("{x:?}"),
        Field::Str(x) => x.clone(),
        other => panic!("no column is of that type: {other:?}"),
    }
}

fn finish(command: Command) -> Ran {
    let output = assert_cmd::Command::from_std(command).timeout(Duration::from_secs(120)).output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn await_file(path: &Path, child: &mut Child) {
    let started = Instant::now();
    while !path.exists() {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("ended with {status} before there was {}", path.display());
        }
        if started.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            panic!("no {} after 60 s", path.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A table by its columns' names.
#[derive(Debug, PartialEq)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn of(text: &str) -> Table {
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let head = lines.next().unwrap();
        let rows: Vec<Vec<String>> = lines.collect();
        assert!(rows.iter().all(|row| row.len() == head.len()));
        Table { head, rows }
    }

    pub fn column(&self, name: &str) -> Vec<&str> {
        let at = self.head.iter().position(|h| h == name).unwrap_or_else(|| panic!("no {name} in {:?}", self.head));
        self.rows.iter().map(|row| row[at].as_str()).collect()
    }
}
