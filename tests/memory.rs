//! What a whole network takes: VGG16's weights, mapped, are packed tensor by tensor and given back, so that loading never
//! holds them twice. A process of its own, with one test, for the largest resident set is the process's.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};

use intervene::backend::cpu::Cpu;
use intervene::backend::{Backend, Completed, ConvPath};
use intervene::graph::Graph;
use intervene::graph::plan::{Entry, EntryId, plan};
use intervene::model::Model;
use intervene::tensor::{TensorMut, TensorRef};
use intervene::weights::Weights;

/// A safetensors file of the network's parameters that has no blocks on disk: they are a hole, zeros.
fn sparse(dir: &Path, model: &Model) -> PathBuf {
    let mut at = 0;
    let mut tensors = serde_json::Map::new();
    for (key, shape) in model.parameters() {
        let end = at + 4 * shape.len();
        let tensor = serde_json::json!({ "dtype": "F32", "shape": shape.dims(), "data_offsets": [at, end] });
        tensors.insert(key, tensor);
        at = end;
    }
    let mut json = serde_json::to_string(&tensors).unwrap();
    json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
    let path = dir.join("vgg16.safetensors");
    std::fs::write(&path, [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((8 + json.len() + at) as u64).unwrap();
    path
}

/// A line of /proc/self/status, in bytes.
fn status(key: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    1024 * line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<usize>().unwrap()
}

#[test]
fn loading_vgg16_holds_its_weights_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::named("vgg16").unwrap();
    let path = sparse(dir.path(), &model);
    let mut graph = Graph::new();
    let x = graph.input("x", model.input);
    let normalised = model.normalise(&mut graph, x).unwrap();
    let logits = model.tail(&mut graph, normalised, 0).unwrap();
    let (given, want) = ([x], [logits]);
    let entry = Entry { name: "forward", given: &given, want: &want, updates: &[], capacity: 2 };
    let artifact = plan(&graph, &[entry]).unwrap();
    let parameters: usize = artifact.parameters().map(|id| artifact.graph().node(id).shape.len()).sum();
    let slots = 4 * (artifact.slot_elements() - parameters);
    let image = vec![0.5; model.input.iter().product()];
    let before = status("VmHWM");

    let weights = Weights::open(&path).unwrap();
    let size = 4 * weights.parameters();
    assert_eq!(size, 4 * 138_357_544);
    let constants = model.constants();
    // by Winograd's tiles 3x3 layers hold four times their weights, beside these: 1.44 times the whole was seen
    let cpu = Cpu::new().with_conv(ConvPath::Exact);
    let mut program = cpu.load(artifact, &Completed { weights: &weights, derived: &constants }).unwrap();
    program.write(x, TensorRef::F32(&image)).unwrap();
    program.run(EntryId(0), 1).unwrap();
    let mut answer = vec![f32::NAN; model.classes];
    program.read(logits, TensorMut::F32(&mut answer)).unwrap();
    assert!(answer.iter().all(|&v| v == 0.0));

    let peak = status("VmHWM") - before;
    println!("weights {size}, other slots {slots}, largest resident set {peak} bytes more");
    let share = (peak as f64 - slots as f64) / size as f64;
    // packed, all of them are there; the rest is for the parts of a tensor that are read at once
    assert!((0.9..1.15).contains(&share), "{share} of the weights");
}
