//! Reading, judging and writing weights: malformed files are typed errors, the same content gives the same bytes and
//! the same hash, and what does not fit a network is named with the nearest name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use intervene::tensor::{Shape, Tensor};
use intervene::weights::safetensors::{Elements, TensorFile, to_vec, write};
use intervene::weights::{Host, PrefixIs, Weights, WeightsError};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

type Named<'a> = (&'a str, &'a Shape, Elements<'a>);

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Two f32 tensors with metadata.
fn small() -> Vec<u8> {
    let (weight, bias): (Shape, Shape) = ([2, 3].into(), [2].into());
    let tensors: [Named; 2] = [
        ("features.0.weight", &weight, vec![1.0f32, -2.0, 3.5, 0.0, -0.0, 1e-40].into()),
        ("features.0.bias", &bias, vec![0.25f32, 7.0].into()),
    ];
    to_vec("small", &tensors, &metadata(&[("arch", "fashion"), ("tap", "2")])).unwrap()
}

/// A file from its JSON header and its data.
fn raw(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

fn parse(bytes: &[u8]) -> Result<TensorFile, WeightsError> {
    TensorFile::from_vec("some.safetensors", bytes.to_vec())
}

fn weights(bytes: &[u8]) -> Weights {
    parse(bytes).unwrap().weights("", PrefixIs::Kept).unwrap()
}

fn file(dir: &Path, bytes: &[u8]) -> PathBuf {
    let path = dir.join("w.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn expected(list: &[(&str, &[usize])]) -> Vec<(String, Shape)> {
    list.iter().map(|&(name, dims)| (name.to_owned(), Shape::from(dims))).collect()
}

#[test]
fn what_is_saved_is_read_back_to_the_bit_mapped_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let mapped = Weights::open(&file(dir.path(), &small())).unwrap();
    let owned = weights(&small());
    let static_ = TensorFile::from_static("s", Box::leak(small().into_boxed_slice())).unwrap();
    for w in [&mapped, &owned, &static_.weights("", PrefixIs::Kept).unwrap()] {
        assert_eq!((w.len(), w.parameters()), (2, 8));
        let weight = w.get("features.0.weight").unwrap();
        assert_eq!(weight.shape.dims(), [2, 3]);
        let bits: Vec<u32> = weight.data.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, [1.0f32, -2.0, 3.5, 0.0, -0.0, 1e-40].map(f32::to_bits));
        assert_eq!(w.get("features.0.bias").unwrap().data, [0.25, 7.0]);
        assert_eq!(w.metadata["arch"], "fashion");
        assert!(w.get("features").is_none());
    }
    let again = dir.path().join("again.safetensors");
    mapped.save(&again).unwrap();
    assert_eq!(std::fs::read(again).unwrap(), small());
}

#[test]
fn every_element_type_of_a_checkpoint_survives_and_lies_aligned() {
    let shape: Shape = [3].into();
    let empty: Shape = [0, 4].into();
    let scalar = Shape::default();
    let tensors: [Named; 7] = [
        ("a.u8", &shape, vec![1u8, 2, 255].into()),
        ("b.f32", &shape, vec![1.0f32, f32::NAN, -0.0].into()),
        ("c.u32", &shape, vec![0u32, 1, u32::MAX].into()),
        ("d.i64", &shape, vec![i64::MIN, 0, i64::MAX].into()),
        ("e.f64", &shape, vec![0.1f64, f64::INFINITY, 5e-324].into()),
        ("f.empty", &empty, Vec::<f32>::new().into()),
        ("g.scalar", &scalar, vec![42i64].into()),
    ];
    let bytes = to_vec("c", &tensors, &BTreeMap::new()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let read = TensorFile::open(&file(dir.path(), &bytes)).unwrap();
    for (name, shape, data) in &tensors {
        assert_eq!(read.shape(name), Some(*shape));
        let got = read.elements(name).unwrap().unwrap();
        assert_eq!(format!("{got:?}"), format!("{data:?}"), "NaN equals itself as text");
        let in_place = match &got {
            Elements::U8(d) => matches!(d, std::borrow::Cow::Borrowed(_)),
            Elements::U32(d) => matches!(d, std::borrow::Cow::Borrowed(_)),
            Elements::I64(d) => matches!(d, std::borrow::Cow::Borrowed(_)),
            Elements::F32(d) => matches!(d, std::borrow::Cow::Borrowed(_)),
            Elements::F64(d) => matches!(d, std::borrow::Cow::Borrowed(_)),
        };
        assert!(in_place, "{name}");
    }
    assert_eq!(read.elements("nothing").unwrap(), None);
    assert_eq!(read.names().count(), 7);
}

#[test]
fn a_misaligned_foreign_file_is_copied_and_reads_the_same() {
    for pad in 0..8 {
        let json = format!("{{\"x\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}}}{}", " ".repeat(pad));
        let bytes = raw(&json, &[1.5f32, -4.0].map(f32::to_le_bytes).concat());
        assert_eq!(weights(&bytes).get("x").unwrap().data, [1.5, -4.0]);
    }
}

#[test]
fn our_files_are_read_by_the_reference_implementation_and_its_files_by_us() {
    let bytes = small();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("features.0.bias").unwrap().shape(), [2]);
    let view = theirs.tensor("features.0.weight").unwrap();
    let back = safetensors::serialize([("w", &view)], None).unwrap();
    assert_eq!(weights(&back).get("w"), weights(&bytes).get("features.0.weight"));
}

#[test]
fn the_same_content_gives_the_same_bytes_in_whatever_order_it_comes() {
    let shape: Shape = [1].into();
    let mut tensors: Vec<Named> = vec![
        ("b", &shape, vec![1.0f32].into()),
        ("a", &shape, vec![2u8].into()),
        ("c", &shape, vec![3i64].into()),
        ("aa", &shape, vec![4.0f32].into()),
    ];
    let meta = metadata(&[("z", "1"), ("a", "\"quoted\"\n"), ("m", "ü")]);
    let first = to_vec("f", &tensors, &meta).unwrap();
    for _ in 0..4 {
        tensors.rotate_left(1);
        assert_eq!(to_vec("f", &tensors, &meta).unwrap(), first);
    }
    assert_eq!(parse(&first).unwrap().metadata(), &meta);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.safetensors");
    write(&path, &tensors, &meta).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), first);
}

#[test]
fn the_hash_sees_names_shapes_and_numbers_but_neither_file_order_nor_metadata() {
    let one = [1.0f32.to_le_bytes(), 2.0f32.to_le_bytes(), 3.0f32.to_le_bytes()].concat();
    let two = [3.0f32.to_le_bytes(), 1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat();
    let info =
        |a: usize, b: usize, n: usize| format!("{{\"dtype\":\"F32\",\"shape\":[{n}],\"data_offsets\":[{a},{b}]}}");
    let forward = raw(&format!("{{\"a\":{},\"b\":{}}}", info(0, 8, 2), info(8, 12, 1)), &one);
    let backward =
        raw(&format!("{{\"__metadata__\":{{\"k\":\"v\"}},\"b\":{},\"a\":{}}}", info(0, 4, 1), info(4, 12, 2)), &two);
    let hash = weights(&forward).hash();
    assert_eq!(hash, weights(&backward).hash());
    // by hand: name, dims as u64, elements
    let mut sha = Sha256::new();
    sha.update(b"a");
    sha.update(2u64.to_le_bytes());
    sha.update(&one[..8]);
    sha.update(b"b");
    sha.update(1u64.to_le_bytes());
    sha.update(&one[8..]);
    let by_hand: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, by_hand);
    assert_eq!(weights(&forward).hash8(), hash[..8]);

    let mut changed = weights(&forward);
    changed.insert("b", Tensor::new([1], vec![f32::from_bits(3.0f32.to_bits() + 1)]).unwrap());
    assert_ne!(changed.hash(), hash);
    changed.insert("b", Tensor::new([1], vec![3.0]).unwrap());
    assert_eq!(changed.hash(), hash);
    changed.insert("b", Tensor::new([1, 1], vec![3.0]).unwrap());
    assert_ne!(changed.hash(), hash);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_and_never_a_panic() {
    let whole = small();
    let dir = tempfile::tempdir().unwrap();
    for end in 0..whole.len() {
        let error = parse(&whole[..end]).unwrap_err();
        match &error {
            WeightsError::Header { .. } => assert!(end < 8, "{error}"),
            WeightsError::Truncated { want, got, .. } => assert!(end >= 8 && *got == end as u64 && want > got),
            other => panic!("cut at {end}: {other}"),
        }
        assert!(Weights::open(&file(dir.path(), &whole[..end])).is_err());
    }
    let long = [whole, vec![0]].concat();
    assert!(matches!(parse(&long).unwrap_err(), WeightsError::Header { .. }));
}

#[test]
fn a_file_of_another_kind_is_recognised() {
    for (bytes, hint) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"[..], "git lfs pull"),
        (b"PK\x03\x04aaaaaaaaaaaa", "intervene convert"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "intervene convert"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x89HDF\r\n\x1a\n        ", "Keras"),
        (b"", "fetch it again"),
    ] {
        let error = parse(bytes).unwrap_err();
        assert!(matches!(error, WeightsError::Header { .. }), "{error}");
        assert!(error.to_string().contains(hint) && error.to_string().contains("some.safetensors"), "{error}");
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    for json in [
        tensor("F32", "[2]", "[0,4]"),
        tensor("F32", "[1]", "[4,8]"),
        tensor("F32", "[1]", "[4,0]"),
        tensor("F32", "[-1]", "[0,4]"),
        tensor("F32", "[18446744073709551615,18446744073709551615]", "[0,4]"),
        tensor("F32", "[4611686018427387904]", "[0,18446744073709551615]"),
        tensor("F99", "[1]", "[0,4]"),
        "{\"x\":3}".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        "{\"__metadata__\":{\"a\":1}}".to_owned(),
        "[".repeat(10_000),
    ] {
        let error = parse(&raw(&json, &[0; 4])).unwrap_err();
        assert!(matches!(error, WeightsError::Header { .. }), "{json:.80}: {error}");
    }
    // offsets that only overflow once the header's own length is added
    let size = (1u64 << 61) - 1;
    let many: Vec<String> = (0..8)
        .map(|i| {
            let (from, to) = (i * size, (i + 1) * size);
            format!("\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{from},{to}]}}")
        })
        .collect();
    assert!(parse(&raw(&format!("{{{}}}", many.join(",")), &[])).is_err());
    let mut huge = small();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(parse(&huge).unwrap_err(), WeightsError::Header { .. }));
}

#[test]
fn half_precision_and_double_parameters_are_refused_by_name_with_a_hint() {
    for (dtype, size) in [("F16", 2), ("BF16", 2), ("F64", 8), ("I32", 4)] {
        let json = format!("{{\"ae.x\":{{\"dtype\":\"{dtype}\",\"shape\":[1],\"data_offsets\":[0,{size}]}}}}");
        let file = parse(&raw(&json, &vec![0; size])).unwrap();
        let error = file.weights("ae.", PrefixIs::Kept).unwrap_err();
        assert!(matches!(&error, WeightsError::Dtype { got, .. } if got == dtype), "{error}");
        assert!(error.to_string().contains("ae.x"), "{error}");
        // another consumer's business
        assert!(file.weights("host.", PrefixIs::Kept).unwrap().is_empty());
    }
}

#[test]
fn batch_norms_counters_are_left_out_whatever_their_type() {
    let json = "{\"norm0.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}";
    assert!(weights(&raw(json, &[0; 8])).is_empty());
}

#[test]
fn each_consumer_takes_its_own_prefix() {
    let shape: Shape = [1].into();
    let labels: Shape = [2].into();
    let tensors: [Named; 4] = [
        ("weights.features.0.bias", &shape, vec![1.0f32].into()),
        ("ae.enc1.bias", &shape, vec![2.0f32].into()),
        ("ae.code.bias", &shape, vec![3.0f32].into()),
        ("label", &labels, vec![4i64, 5].into()),
    ];
    let file = parse(&to_vec("r", &tensors, &BTreeMap::new()).unwrap()).unwrap();
    let host = file.weights("weights.", PrefixIs::Stripped).unwrap();
    assert_eq!(host.names().collect::<Vec<_>>(), ["features.0.bias"]);
    let mut both = file.weights("", PrefixIs::Kept).map(|_| ()).unwrap_err();
    assert!(matches!(&mut both, WeightsError::Dtype { tensor, .. } if tensor == "label"));

    let mut mixed = file.weights("ae.", PrefixIs::Kept).unwrap();
    mixed.insert("features.0.bias", Tensor::zeros([1]));
    let ae = mixed.take_prefix("ae.", PrefixIs::Kept);
    assert_eq!(ae.names().collect::<Vec<_>>(), ["ae.code.bias", "ae.enc1.bias"]);
    assert_eq!(mixed.names().collect::<Vec<_>>(), ["features.0.bias"]);
    let mut ae = ae;
    assert_eq!(ae.take_prefix("ae.", PrefixIs::Stripped).names().collect::<Vec<_>>(), ["code.bias", "enc1.bias"]);
    assert!(ae.is_empty());
}

#[test]
fn what_does_not_fit_is_named_with_shapes_and_the_nearest_name() {
    let w = weights(&small());
    w.check(&expected(&[("features.0.weight", &[2, 3]), ("features.0.bias", &[2])])).unwrap();

    let error = w.check(&expected(&[("features.0.weight", &[2, 4]), ("features.0.bias", &[2])])).unwrap_err();
    assert!(matches!(&error, WeightsError::Shape { tensor, .. } if tensor == "features.0.weight"));
    assert!(error.to_string().contains("2x3") && error.to_string().contains("2x4"), "{error}");

    let error = w.check(&expected(&[("features.0.weight", &[2, 3])])).unwrap_err();
    assert!(matches!(&error, WeightsError::Unexpected { tensor, .. } if tensor == "features.0.bias"), "{error}");

    let three = [("features.0.weight", &[2, 3][..]), ("features.0.bias", &[2]), ("features.2.bias", &[2])];
    let error = w.check(&expected(&three)).unwrap_err();
    let WeightsError::Missing { tensor, nearest, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), nearest.as_deref()), ("features.2.bias", Some("features.0.bias")));

    let error = w.check(&expected(&[("feature.0.weight", &[2, 3]), ("features.0.bias", &[9])])).unwrap_err();
    let WeightsError::Several { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 3);
    let text = error.to_string();
    for part in [
        "no tensor feature.0.weight; the nearest name is features.0.weight",
        "has shape 2, but 9",
        "belongs to no layer",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let error = w.require("features.0.wieght").unwrap_err();
    assert!(error.to_string().contains("the nearest name is features.0.weight"), "{error}");
}

#[test]
fn a_wholly_wrong_file_is_judged_in_a_moment_and_in_a_few_lines() {
    let mut w = Weights::new("densenet");
    let mut list = Vec::new();
    for i in 0..3000 {
        w.insert(format!("model.features.denseblock{}.denselayer{i}.norm1.weight", i % 4), Tensor::zeros([1]));
        list.push((format!("features.denseblock{}.denselayer{i}.norm2.bias", i % 4), Shape::from([1])));
    }
    let start = std::time::Instant::now();
    let error = w.check(&list).unwrap_err();
    assert!(matches!(&error, WeightsError::Several { problems, .. } if problems.len() == 6000));
    assert!(error.to_string().lines().count() <= 10);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn chexnets_keys_load_after_repairs_and_vggs_stay() {
    let mut w = Weights::new("chexnet");
    w.insert("module.densenet121.features.denseblock1.denselayer1.norm.1.weight", Tensor::zeros([4]));
    w.insert("module.densenet121.classifier.0.bias", Tensor::zeros([14]));
    let want = expected(&[("features.denseblock1.denselayer1.norm1.weight", &[4]), ("classifier.bias", &[14])]);
    assert!(w.check(&want).is_err());
    let repairs = w.repair(&want).unwrap();
    assert_eq!(repairs.len(), 2);
    assert_eq!(repairs[0].to_string(), "module.densenet121.classifier.0.bias is read as classifier.bias");
    w.check(&want).unwrap();
    assert!(w.repair(&want).unwrap().is_empty());

    let mut vgg = Weights::new("vgg");
    vgg.insert("classifier.0.bias", Tensor::zeros([3]));
    assert!(vgg.repair(&expected(&[("classifier.0.bias", &[3])])).unwrap().is_empty());
    assert!(vgg.get("classifier.0.bias").is_some());
}

#[test]
fn nan_and_infinite_weights_are_found_with_their_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut w = weights(&small());
        w.check_finite().unwrap();
        w.insert("features.0.bias", Tensor::new([2], vec![0.0, bad]).unwrap());
        let error = w.check_finite().unwrap_err();
        assert!(matches!(&error, WeightsError::NotFinite { tensor, index: 1, .. } if tensor == "features.0.bias"));
    }
}

#[test]
fn an_autoencoder_of_another_host_is_refused_with_both_hashes() {
    let mut ae = weights(&small());
    assert_eq!(ae.check_host("ab12").unwrap(), Host::NotRecorded);
    ae.metadata.insert("host_sha256".into(), "ab12".into());
    assert_eq!(ae.check_host("AB12").unwrap(), Host::Matches);
    let error = ae.check_host("cd34").unwrap_err();
    assert!(matches!(&error, WeightsError::HostMismatch { want, got, .. } if want == "ab12" && got == "cd34"));
}

#[test]
fn what_cannot_be_written_is_refused_before_the_old_file_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), b"old");
    let (one, two): (Shape, Shape) = ([1].into(), [2].into());
    let a: Named = ("a", &one, vec![1.0f32].into());
    let none = BTreeMap::new();
    let error = write(&path, &[a.clone(), a.clone()], &none).unwrap_err();
    assert!(matches!(error, WeightsError::Duplicate { .. }), "{error}");
    let error = write(&path, &[("a", &two, vec![1.0f32].into())], &none).unwrap_err();
    assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
    let error = write(&path, &[("__metadata__", &one, vec![1.0f32].into())], &none).unwrap_err();
    assert!(matches!(error, WeightsError::Name { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let error = write(&dir.path().join("no/dir/f"), &[a], &none).unwrap_err();
    assert!(matches!(error, WeightsError::Write(_)), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn weights_still_mapped_survive_their_file_being_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), &small());
    let w = Weights::open(&path).unwrap();
    let hash = w.hash();
    let one: Shape = [1].into();
    write(&path, &[("x", &one, vec![1.0f32].into())], &BTreeMap::new()).unwrap();
    assert_eq!(w.hash(), hash);
    assert_eq!(Weights::open(&path).unwrap().len(), 1);
    w.save(&path).unwrap();
    assert_eq!(Weights::open(&path).unwrap().hash(), hash);
}

#[test]
fn absent_files_directories_and_devices_are_errors_that_name_them() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("absent"), dir.path().to_owned(), "/dev/zero".into()] {
        let error = Weights::open(&path).unwrap_err();
        assert!(matches!(error, WeightsError::Io { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_make_the_reader_panic(edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..5)) {
        let mut bytes = small();
        for (at, value) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if let Ok(file) = parse(&bytes) {
            for name in file.names() {
                if let Ok(Some(data)) = file.elements(name) {
                    prop_assert_eq!(data.len(), file.shape(name).unwrap().len());
                }
            }
            if let Ok(weights) = file.weights("", PrefixIs::Kept) {
                let _ = (weights.hash(), weights.check_finite(), weights.check(&expected(&[("x", &[1])])));
            }
        }
    }

    #[test]
    fn what_is_written_is_read(names in proptest::collection::btree_set(".{0,12}", 0..6), seed in any::<u32>()) {
        let mut w = Weights::new("w");
        for (i, name) in names.iter().enumerate() {
            w.insert(name.clone(), Tensor::from_fn([i, 2], |k| f32::from_bits(seed.wrapping_mul(k as u32 + 1))));
        }
        let tensors: Vec<Named> = w.iter().map(|(n, t)| (n, t.shape, t.data.into())).collect();
        let read = weights(&to_vec("w", &tensors, &BTreeMap::new()).unwrap());
        prop_assert_eq!(read.hash(), w.hash());
        prop_assert_eq!(read.len(), w.len());
    }
}
