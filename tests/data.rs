//! Reading and fetching data: every kind of damage to an IDX file is a typed error, every source of Fashion-MNIST is
//! tried in order (with scripts in place of the network), and the real files load.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use flate2::{Compression, write::GzEncoder};
use intervene::data::DataError;
use intervene::data::fetch::{Attempt, Check, FASHION_CLASSES, Outcome, Sources, find_fashion, load_fashion};
use intervene::data::idx::{self, Kind, load_pair};
use proptest::prelude::*;
use tempfile::TempDir;

const NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

fn images(count: u32, rows: u32, columns: u32, pixels: &[u8]) -> Vec<u8> {
    let header = [0x0803, count, rows, columns].map(u32::to_be_bytes).concat();
    [&header, pixels].concat()
}

fn labels(count: u32, labels: &[u8]) -> Vec<u8> {
    [&[0x0801, count].map(u32::to_be_bytes).concat(), labels].concat()
}

fn small_images() -> Vec<u8> {
    images(3, 2, 2, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255])
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Reads `bytes` as a file of images.
fn read(bytes: &[u8]) -> Result<idx::Idx, DataError> {
    let dir = tempfile::tempdir().unwrap();
    idx::read(&file(dir.path(), "some-images", bytes), Kind::Images)
}

#[test]
fn plain_and_gzip_files_give_the_same_images_whatever_their_names() {
    let plain = read(&small_images()).unwrap();
    assert_eq!(plain.shape().dims(), [3, 2, 2]);
    assert_eq!(plain.data(), &small_images()[16..]);
    assert_eq!(read(&gz(&small_images())).unwrap(), plain);
    // two gzip members one after the other are one file to gzip
    let whole = small_images();
    let (a, b) = whole.split_at(20);
    assert_eq!(read(&[gz(a), gz(b)].concat()).unwrap(), plain);
}

#[test]
fn a_wrong_magic_names_both_numbers_and_what_the_file_seems_to_be() {
    for (start, hint) in [
        (labels(3, &[0, 1, 2]), "swapped"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git-LFS"),
        (b"<!DOCTYPE html>".to_vec(), "web page"),
        (b"PK\x03\x04".to_vec(), "zip"),
        (vec![9; 40], "not an IDX file"),
    ] {
        for bytes in [start.clone(), gz(&start)] {
            let error = read(&bytes).unwrap_err();
            assert!(matches!(error, DataError::Magic { want: 0x0803, .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("some-images") && text.contains("0x00000803") && text.contains(hint), "{text}");
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_and_never_a_panic() {
    let whole = small_images();
    for end in 0..whole.len() {
        let error = read(&whole[..end]).unwrap_err();
        match error {
            DataError::Header { got, want: 16, .. } => assert!(end < 16 && got == end as u64),
            DataError::Length { want: 12, got, .. } => assert!(end >= 16 && got == end as u64 - 16),
            other => panic!("cut at {end}: {other}"),
        }
        assert!(read(&gz(&whole[..end])).is_err());
    }
    let packed = gz(&whole);
    for end in 0..packed.len() {
        let error = read(&packed[..end]).unwrap_err();
        assert!(
            matches!(error, DataError::Gzip { .. } | DataError::Header { .. } | DataError::Magic { .. }),
            "{error}"
        );
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    let mut long = small_images();
    long.push(0);
    for bytes in [long.clone(), gz(&long)] {
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, DataError::Trailing { want: 12, .. }), "{error}");
    }
    let behind = [gz(&small_images()), b"junk".to_vec()].concat();
    assert!(matches!(read(&behind).unwrap_err(), DataError::Gzip { .. }));
}

#[test]
fn every_flipped_bit_of_a_gzip_file_is_found_or_harmless() {
    let packed = gz(&small_images());
    let good = read(&packed).unwrap();
    for i in 0..packed.len() * 8 {
        let mut bytes = packed.clone();
        bytes[i / 8] ^= 1 << (i % 8);
        // header fields such as the time stamp carry no content
        if let Ok(read) = read(&bytes) {
            assert_eq!(read, good, "bit {i}");
        }
    }
    let mut crc = packed.clone();
    let at = crc.len() - 8;
    crc[at] ^= 1;
    let error = read(&crc).unwrap_err();
    assert!(matches!(error, DataError::Gzip { .. }), "{error}");
    assert!(error.to_string().contains("fetch it again"), "{error}");
}

#[test]
fn a_header_that_promises_terabytes_allocates_nothing() {
    for dims in [[u32::MAX; 3], [u32::MAX, u32::MAX, 1], [1 << 30, 1 << 5, 1 << 5], [0, 28, 28], [3, 0, 2]] {
        let bytes = images(dims[0], dims[1], dims[2], &[1, 2, 3]);
        for bytes in [bytes.clone(), gz(&bytes)] {
            let error = read(&bytes).unwrap_err();
            assert!(matches!(error, DataError::Dimensions { .. } | DataError::Length { .. }), "{error}");
        }
    }
}

#[test]
fn a_directory_or_pipe_or_absent_file_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [dir.path().to_owned(), pipe, dir.path().join("absent"), "/dev/zero".into()] {
        let error = idx::read(&path, Kind::Images).unwrap_err();
        assert!(matches!(error, DataError::Io { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn images_and_labels_must_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let image_file = file(dir, "images", &small_images());
    let good = file(dir, "labels", &gz(&labels(3, &[9, 0, 1])));
    let set = load_pair(&image_file, &good, &FASHION_CLASSES).unwrap();
    assert_eq!((set.len(), set.shape().dims(), set.labels()), (3, &[1, 2, 2][..], &[9, 0, 1][..]));

    let error = load_pair(&image_file, &file(dir, "two", &labels(2, &[0, 1])), &FASHION_CLASSES).unwrap_err();
    assert!(matches!(error, DataError::Counts { images: 3, labels: 2, .. }), "{error}");
    assert!(error.to_string().contains("two") && error.to_string().contains("images"), "{error}");

    let error = load_pair(&image_file, &file(dir, "ten", &labels(3, &[0, 10, 1])), &FASHION_CLASSES).unwrap_err();
    assert!(matches!(error, DataError::Label { index: 1, got: 10, classes: 10, .. }), "{error}");
    let error = load_pair(&good, &image_file, &FASHION_CLASSES).unwrap_err();
    assert!(error.to_string().contains("swapped"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_make_the_reader_panic(
        edits in proptest::collection::vec((0usize..40, any::<u8>()), 0..6), cut in 0usize..60, zipped in any::<bool>(),
    ) {
        let mut bytes = small_images();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let mut bytes = if zipped { gz(&bytes) } else { bytes };
        bytes.truncate(bytes.len().max(cut) - cut / 2);
        if let Ok(idx) = read(&bytes) {
            prop_assert_eq!(idx.shape().len(), idx.data().len());
        }
    }
}

// Fetching, with scripts in place of the network.

/// A freshly written script cannot be run while another thread's child, forked meanwhile, still holds it open for
/// writing; so one such test at a time.
static SCRIPTS: Mutex<()> = Mutex::new(());

/// A world with four small files, no network and scripts for programs.
struct World {
    dir: TempDir,
    sources: Sources,
    log: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> World {
        let alone = SCRIPTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("origin")).unwrap();
        let contents = [small_images(), labels(3, &[0, 9, 3]), images(1, 2, 2, &[4, 3, 2, 1]), labels(1, &[7])];
        let mut md5 = [const { String::new() }; 4];
        for (i, content) in contents.iter().enumerate() {
            let path = file(&at("origin"), &format!("{}.gz", NAMES[i]), &gz(content));
            md5[i] = idx::read(&path, [Kind::Images, Kind::Labels][i % 2]).unwrap().md5();
        }
        let sources = Sources {
            user_dir: Some(at("home/intervene/fashion-mnist")),
            system_dir: at("system"),
            base_url: "http://fashion.invalid/".into(),
            curl: at("no-curl").into(),
            apt_get: at("no-apt-get").into(),
            dpkg_deb: at("no-dpkg-deb").into(),
            child_seconds_max: 20,
            md5,
        };
        World { dir, sources, log: Vec::new(), _alone: alone }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn user_dir(&self) -> PathBuf {
        self.sources.user_dir.clone().unwrap()
    }

    fn script(&self, name: &str, body: &str) -> std::ffi::OsString {
        use std::os::unix::fs::PermissionsExt;
        let body = format!("#!/bin/sh\nORIGIN='{}'\n{body}\n", self.at("origin").display());
        let path = file(self.dir.path(), name, body.as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.into()
    }

    /// A curl that copies from `origin`.
    fn with_curl(mut self) -> World {
        let find = "while [ $# -gt 1 ]; do [ \"$1\" = -o ] && out=$2; shift; done";
        self.sources.curl = self.script("curl", &format!("{find}\ncp \"$ORIGIN/${{1##*/}}\" \"$out\""));
        self
    }

    /// An apt-get and a dpkg-deb that give a package with the files of `origin`; `update` is what apt-get update does.
    fn with_apt(mut self, update: &str) -> World {
        self.sources.apt_get = self.script(
            "apt-get",
            &format!("case \"$*\" in *update) {update};; *) echo x > dataset-fashion-mnist_0_all.deb;; esac"),
        );
        self.sources.dpkg_deb = self.script(
            "dpkg-deb",
            "d=$3/usr/share/datasets/fashion-mnist; mkdir -p $d && [ -f $2 ] && cp \"$ORIGIN\"/* $d",
        );
        self
    }

    /// Copies the files of `origin` to `to`.
    fn fill(&self, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for name in NAMES.map(|n| format!("{n}.gz")) {
            std::fs::copy(self.at("origin").join(&name), to.join(&name)).unwrap();
        }
    }

    fn load(&mut self, data: Option<&Path>) -> Result<intervene::data::fetch::Fashion, DataError> {
        self.load_checked(data, Check::Md5)
    }

    fn load_checked(
        &mut self,
        data: Option<&Path>,
        check: Check,
    ) -> Result<intervene::data::fetch::Fashion, DataError> {
        let log = &mut self.log;
        load_fashion(data, check, &self.sources, &mut |attempt: &Attempt| log.push(attempt.to_string()))
    }
}

fn outcomes(tried: &[Attempt]) -> Vec<&'static str> {
    tried
        .iter()
        .map(|attempt| match attempt.outcome {
            Outcome::Trying => "trying",
            Outcome::Used => "used",
            Outcome::Absent(_) => "absent",
            Outcome::Failed(_) => "failed",
        })
        .collect()
}

#[test]
fn the_directory_the_user_named_is_the_only_place_looked_in() {
    let mut world = World::new().with_curl();
    let dir = world.at("mine");
    world.fill(&dir);
    // the user's directory and the download would both serve, and are not touched
    let fashion = world.load(Some(&dir)).unwrap();
    assert_eq!((fashion.train.len(), fashion.test.len()), (3, 1));
    assert_eq!(fashion.test.labels(), [7]);
    assert_eq!(outcomes(&fashion.files.tried), ["used"]);
    assert_eq!(fashion.files.train_images, dir.join("train-images-idx3-ubyte.gz"));

    std::fs::remove_file(dir.join("t10k-labels-idx1-ubyte.gz")).unwrap();
    let error = world.load(Some(&dir)).unwrap_err();
    assert!(matches!(&error, DataError::Missing { missing, .. } if missing == &["t10k-labels-idx1-ubyte"]), "{error}");
    assert!(NAMES.iter().all(|name| error.to_string().contains(name)), "{error}");
    assert!(!world.user_dir().exists());
}

#[test]
fn a_wrong_md5_names_file_and_both_sums_and_the_check_can_be_left_out() {
    let mut world = World::new().with_curl();
    let dir = world.at("mine");
    world.fill(&dir);
    std::fs::remove_file(dir.join("t10k-labels-idx1-ubyte.gz")).unwrap();
    file(&dir, "t10k-labels-idx1-ubyte", &labels(1, &[8]));
    let error = world.load(Some(&dir)).unwrap_err();
    let want = world.sources.md5[3].clone();
    assert!(matches!(&error, DataError::Digest { want: w, got, .. } if *w == want && *got != want), "{error}");
    assert!(error.to_string().contains("t10k-labels-idx1-ubyte") && error.to_string().contains(&want), "{error}");
    assert_eq!(world.load_checked(Some(&dir), Check::None).unwrap().test.labels(), [8]);

    // in the user's own data directory too: it is named, not replaced behind the user's back
    world.fill(&world.user_dir());
    file(&world.user_dir(), "t10k-labels-idx1-ubyte.gz", &gz(&labels(1, &[8])));
    assert!(matches!(world.load(None).unwrap_err(), DataError::Digest { .. }));
}

#[test]
fn the_users_directory_comes_first_then_the_systems() {
    let mut world = World::new();
    let system = world.sources.system_dir.clone();
    world.fill(&system);
    let fashion = world.load(None).unwrap();
    assert_eq!(outcomes(&fashion.files.tried), ["absent", "used"]);
    assert!(fashion.files.test_labels.starts_with(&system));
    assert!(!world.user_dir().exists(), "the system's files are used in place");

    world.fill(&world.user_dir());
    let fashion = world.load(None).unwrap();
    assert_eq!(outcomes(&fashion.files.tried), ["used"]);
    assert!(fashion.files.test_labels.starts_with(world.user_dir()));
}

#[test]
fn a_download_is_checked_kept_and_found_the_next_time() {
    let mut world = World::new().with_curl();
    let fashion = world.load(None).unwrap();
    assert_eq!(outcomes(&fashion.files.tried), ["absent", "absent", "used"]);
    assert!(world.log.iter().any(|line| line.contains("fashion.invalid") && line.ends_with("trying")));
    let mut kept: Vec<_> =
        std::fs::read_dir(world.user_dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort();
    let mut want = NAMES.map(|n| format!("{n}.gz")).to_vec();
    want.sort();
    assert_eq!(kept, want);
    world.sources.curl = "/no/curl".into();
    assert_eq!(outcomes(&world.load(None).unwrap().files.tried), ["used"]);
}

#[test]
fn a_directory_left_incomplete_is_completed() {
    let mut world = World::new().with_curl();
    world.fill(&world.user_dir());
    std::fs::remove_file(world.user_dir().join("train-labels-idx1-ubyte.gz")).unwrap();
    let fashion = world.load(None).unwrap();
    assert!(fashion.files.tried[0].to_string().contains("lacks train-labels-idx1-ubyte"));
    assert_eq!(outcomes(&fashion.files.tried), ["absent", "absent", "used"]);
}

#[test]
fn debians_package_serves_where_the_official_site_fails_even_after_a_failed_update() {
    for update in ["true", "echo 'E: some other repository is broken'; exit 100"] {
        let mut world = World::new().with_apt(update);
        world.sources.curl = world.script("curl", "echo 'curl: (6) Could not resolve host' >&2; exit 6");
        let fashion = world.load(None).unwrap();
        assert_eq!(outcomes(&fashion.files.tried), ["absent", "absent", "failed", "used"]);
        assert!(fashion.files.tried[2].to_string().contains("Could not resolve host"));
        assert_eq!(fashion.train.len(), 3);
    }
}

#[test]
fn a_damaged_download_is_not_kept_and_the_next_source_is_tried() {
    let mut world = World::new().with_apt("true");
    world.sources.curl = world
        .script("curl", "while [ $# -gt 1 ]; do [ \"$1\" = -o ] && out=$2; shift; done; echo '<!DOCTYPE html>' > $out");
    let fashion = world.load(None).unwrap();
    assert_eq!(outcomes(&fashion.files.tried), ["absent", "absent", "failed", "used"]);
    assert!(fashion.files.tried[2].to_string().contains("web page"));
}

#[test]
fn when_every_source_fails_the_error_lists_them_in_order() {
    let mut world = World::new();
    let error = world.load(None).unwrap_err();
    let text = error.to_string();
    let order = ["home/intervene", "system", "fashion.invalid", "apt-get"].map(|part| text.find(part).expect(part));
    assert!(order.is_sorted(), "{text}");
    assert!(text.contains("there is no program") && text.contains("--data"), "{text}");

    world.sources.user_dir = None;
    let error = world.load(None).unwrap_err();
    assert!(error.to_string().contains("XDG_DATA_HOME"), "{error}");
}

#[test]
fn a_program_that_hangs_is_ended() {
    let mut world = World::new();
    world.sources.child_seconds_max = 1;
    world.sources.curl = world.script("curl", "exec sleep 600");
    let start = std::time::Instant::now();
    let error = world.load(None).unwrap_err();
    assert!(error.to_string().contains("ended after 1 s"), "{error}");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn control_c_during_a_download_stops_instead_of_trying_the_next_source() {
    let mut world = World::new().with_apt("true");
    world.sources.curl = world.script("curl", "kill -INT $$");
    assert!(matches!(world.load(None).unwrap_err(), DataError::Interrupted { .. }));
}

#[test]
fn an_unwritable_user_directory_is_named() {
    let mut world = World::new().with_curl();
    file(world.dir.path(), "home", b"a file where a directory should be");
    let error = world.load(None).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
    assert!(error.to_string().contains("home/intervene/fashion-mnist"), "{error}");
}

/// With the real files: from this machine if it has them, else fetched once into the build directory.
#[test]
fn the_real_fashion_mnist_loads_and_is_balanced() {
    let mut sources = Sources::default();
    let here = sources.user_dir.as_deref().is_some_and(|d| d.join("train-images-idx3-ubyte.gz").is_file());
    if !here {
        sources.user_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("intervene/fashion-mnist"));
    }
    let _alone = SCRIPTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()); // it starts programs
    let fashion = match load_fashion(None, Check::Md5, &sources, &mut |_| ()) {
        Ok(fashion) => fashion,
        Err(error @ DataError::Unavailable { .. }) => {
            // past the capture of test output, so that it is seen
            let _ = writeln!(std::io::stderr(), "SKIPPED the_real_fashion_mnist_loads_and_is_balanced: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for (set, per_class) in [(&fashion.train, 6000), (&fashion.test, 1000)] {
        assert_eq!(set.len(), 10 * per_class);
        assert_eq!(set.shape().dims(), [1, 28, 28]);
        for class in 0..10 {
            assert_eq!(set.labels().iter().filter(|&&l| l == class).count(), per_class);
        }
    }
    assert_eq!(fashion.train.labels()[..5], [9, 0, 0, 3, 0]);
    assert_eq!(fashion.test.labels()[..5], [9, 2, 1, 1, 6]);
    // the normalisation constants that everyone uses for this data set
    let pixels: Vec<f64> =
        (0..60_000).flat_map(|i| fashion.train.image(i).unwrap().to_vec()).map(|p| f64::from(p) / 255.0).collect();
    let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
    let variance = pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
    assert!((mean - 0.2860).abs() < 1e-4 && (variance.sqrt() - 0.3530).abs() < 1e-4, "{mean} {}", variance.sqrt());
    let again = find_fashion(None, Check::Md5, &sources, &mut |_| ()).unwrap();
    assert_eq!(again.tried.last().unwrap().outcome, Outcome::Used);
}
