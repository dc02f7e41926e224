//! `--device cuda` on the simulated device: what a machine without a driver, without NVRTC, with little memory or with a
//! device that dies hears, and that nothing is lost.

use crate::support::{Lab, Ran, SMALL};

/// Two nodes on clean and on masked images.
const STUDY: [&str; 6] = ["ce", "--nodes", "3,15", "--attack", "none", "--no-control"];

fn study<'a>(device: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&STUDY[..], &SMALL, &["--device", device, "--out", out], more].concat()
}

/// Where the environment has the driver and NVRTC; both from `. tests/cuda-sim/env.sh`.
fn library_path() -> String {
    std::env::var("LD_LIBRARY_PATH").expect("first do `. tests/cuda-sim/env.sh` in this shell")
}

/// The library path without the directories that hold `library` under any version. Cargo's own, which it puts before, may hold
/// the simulated driver too.
fn without(library: &str) -> String {
    let path = library_path();
    let holds = |dir: &&str| {
        std::fs::read_dir(dir).is_ok_and(|mut names| {
            names.any(|name| name.is_ok_and(|name| name.file_name().to_string_lossy().starts_with(library)))
        })
    };
    path.split(':').filter(|dir| !holds(dir)).collect::<Vec<_>>().join(":")
}

/// The library path without NVRTC; [`NOWHERE`] keeps it from being found elsewhere.
fn without_nvrtc() -> String {
    without("libnvrtc.so")
}

const NOWHERE: (&str, Option<&str>) = ("INTERVENE_NVRTC", Some("/nowhere/libnvrtc.so.13"));

fn with_simulated(lab: &Lab, more: &[(&str, Option<&str>)], arguments: &[&str]) -> Ran {
    let mut environment = vec![("CUDA_SIM_DEVICES", Some("2"))];
    environment.extend(more);
    lab.run_in(&environment, arguments)
}

#[test]
fn a_machine_without_a_driver_is_told_what_is_missing_and_what_to_do() {
    let lab = Lab::with(20, 4);
    let path = without("libcuda.so");
    let no_driver = [("LD_LIBRARY_PATH", Some(path.as_str()))];
    for device in ["cuda", "cuda:1", "cuda:all"] {
        let ran = lab.run_in(&no_driver, &study(device, "run", &[]));
        ran.fails(5, &["device cuda is not available: there is no CUDA driver", "help: install NVIDIA's driver"]);
    }
    assert!(!lab.path("run").exists() && !lab.path("run.partial").exists());
    let ran = lab.run_in(&no_driver, &["devices"]).succeeds();
    assert!(ran.out.contains("cuda: not available: there is no CUDA driver"), "{}", ran.out);
    // auto goes on without one
    let ran = lab.run_in(&no_driver, &study("auto", "run", &["--limit", "2"])).succeeds();
    assert_eq!(ran.err.matches("cuda").count(), 0, "{}", ran.err);
}

#[test]
fn a_machine_without_nvrtc_is_told_what_is_missing_and_what_to_do() {
    let lab = Lab::with(20, 4);
    let path = without_nvrtc();
    let environment = [("LD_LIBRARY_PATH", Some(path.as_str())), NOWHERE];
    let ran = lab.run_in(&environment, &study("cuda", "run", &[]));
    ran.fails(5, &["there is no NVRTC", "help: pip install nvidia-cuda-nvrtc"]);
}

#[test]
fn a_device_that_does_not_exist_is_named_with_those_that_do() {
    let lab = Lab::with(20, 4);
    with_simulated(&lab, &[], &study("cuda:2", "run", &[])).fails(5, &["there is no device 2", "numbered from 0"]);
    with_simulated(&lab, &[], &study("cuda:0,0", "run", &[])).fails(2, &["names device 0 twice"]);
    with_simulated(&lab, &[], &study("cuda:x", "run", &[])).fails(2, &["--device cuda:x", "cuda:all"]);
}

#[test]
fn auto_never_takes_a_simulated_device_and_a_run_on_one_says_so() {
    let lab = Lab::with(20, 4);
    let ran = with_simulated(&lab, &[], &["ce", "--data", "d", "--any-data", "--limit", "2", "--dry-run"]).succeeds();
    assert!(ran.err.contains("device cpu"), "{}", ran.err);
    let ran = with_simulated(&lab, &[], &["devices", "--json"]).succeeds().json();
    assert_eq!(ran["cuda"]["devices"].as_array().unwrap().len(), 2);
    assert_eq!(ran["cuda"]["devices"][1]["simulated"], true);

    let ran = with_simulated(&lab, &[], &study("cuda", "run", &["--limit", "2"])).succeeds();
    assert!(ran.out.contains("run on a simulated device"), "{}", ran.out);
    let manifest: serde_json::Value = serde_json::from_str(&lab.read("run/manifest.json")).unwrap();
    assert_eq!(manifest["simulated"], true);
    assert!(manifest["device"].as_str().unwrap().contains("simulated"), "{}", manifest["device"]);
    let image = manifest["machine"]["kernel_image"].as_str().unwrap();
    assert!(["cubin", "ptx"].contains(&image), "{image}");
    assert_eq!(manifest["hashes"]["kernels"].as_str().unwrap().len(), 64);
}

/// That two devices share shards of 256 images is in tests/full.sh: so many take minutes on the simulated device.
#[test]
fn two_devices_give_the_bytes_of_one() {
    let lab = Lab::with(20, 4);
    with_simulated(&lab, &[], &study("cuda:0", "one", &[])).succeeds();
    with_simulated(&lab, &[], &study("cuda:0,1", "two", &["--batch", "3"])).succeeds();
    with_simulated(&lab, &[], &study("cuda:1", "other", &[])).succeeds();
    lab.assert_same("one", "two");
    lab.assert_same("one", "other");
}

#[test]
fn a_device_lost_in_mid_run_keeps_what_was_done_and_the_run_goes_on() {
    let lab = Lab::with(20, 4);
    with_simulated(&lab, &[], &study("cuda", "whole", &[])).succeeds();
    // behind the gate, before the last image: the run begins at about 150 operations and ends before 450
    let lost = [("CUDA_SIM_FAIL", Some("lost:300"))];
    let ran = with_simulated(&lab, &lost, &study("cuda", "run", &[]));
    ran.fails(5, &["the device failed at", "--resume goes on"]);
    assert!(lab.path("run.partial/manifest.json").exists(), "the test's count is off");
    with_simulated(&lab, &[], &["ce", "--resume", "run", "--device", "cuda", "--quiet"]).succeeds();
    lab.assert_same("whole", "run");
}

#[test]
fn a_failing_launch_is_an_error_of_the_device() {
    let lab = Lab::with(20, 4);
    let failing = [("CUDA_SIM_FAIL", Some("launch:9"))];
    with_simulated(&lab, &failing, &study("cuda", "run", &[])).fails(5, &["the device failed at kernel"]);
}

#[test]
fn too_little_memory_makes_smaller_batches_and_at_last_an_error() {
    let lab = Lab::with(20, 4);
    let large = study("cuda", "run", &["--batch", "4096", "--limit", "3"]);
    let ran = with_simulated(&lab, &[("CUDA_SIM_MEMORY", Some("256M"))], &large).succeeds();
    assert!(ran.err.contains("warning: memory for"), "{}", ran.err);
    with_simulated(&lab, &[], &study("cuda", "whole", &["--limit", "3"])).succeeds();
    lab.assert_same("whole", "run");
    let tiny = [("CUDA_SIM_MEMORY", Some("1M"))];
    with_simulated(&lab, &tiny, &study("cuda", "tiny", &[])).fails(5, &["out of memory", "bytes for"]);
    let train = ["train", "--data", "d", "--any-data", "--batch", "10", "--quiet", "--device", "cuda", "--out", "t"];
    with_simulated(&lab, &tiny, &train).fails(5, &["out of memory", "smaller --batch"]);
}

#[test]
fn a_kernel_that_does_not_compile_is_named_with_the_compilers_words() {
    let lab = Lab::with(20, 4);
    let kernels = lab.path("kernels");
    std::fs::create_dir(&kernels).unwrap();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, kernels.join(path.file_name().unwrap())).unwrap();
    }
    let kernels = [("INTERVENE_KERNELS", kernels.to_str())];
    with_simulated(&lab, &kernels, &study("cuda", "run", &["--limit", "1"])).succeeds();
    let whole = lab.read("kernels/layout.cu");
    lab.write("kernels/layout.cu", whole.replace("__syncthreads();", "__syncthreads()").as_bytes());
    let line = whole.lines().position(|l| l.contains("__syncthreads();")).unwrap() + 2;
    let place = format!("kernels/layout.cu({line})");
    let ran = with_simulated(&lab, &kernels, &study("cuda", "bad", &[]));
    ran.fails(5, &["kernels/layout.cu does not compile for sm_80", "expected a \";\"", &place]);
    std::fs::remove_file(lab.path("kernels/layout.cu")).unwrap();
    with_simulated(&lab, &kernels, &study("cuda", "bad", &[])).fails(5, &["layout.cu", "INTERVENE_KERNELS"]);
}

#[test]
fn a_precision_is_recorded_and_is_a_run_of_its_own() {
    let lab = Lab::with(20, 4);
    with_simulated(&lab, &[], &study("cuda", "exact", &["--limit", "2"])).succeeds();
    let manifest =
        |run: &str| -> serde_json::Value { serde_json::from_str(&lab.read(&format!("{run}/manifest.json"))).unwrap() };
    assert_eq!(manifest("exact")["machine"]["precision"], "fp32");
    for precision in ["tf32", "fp16", "bf16"] {
        let more = ["--limit", "2", "--precision", precision];
        with_simulated(&lab, &[], &study("cuda", precision, &more)).succeeds();
        let manifest_here = manifest(precision);
        let device = manifest_here["device"].as_str().unwrap();
        assert!(device.contains(&format!("sm_80, {precision}, simulated")), "{device}");
        assert_eq!(manifest_here["machine"]["precision"], precision);
        assert_ne!(manifest_here["run_id"], manifest("exact")["run_id"]);
        let floor = |m: &serde_json::Value| m["results"]["numerical_floor"].as_f64().unwrap();
        assert!(floor(&manifest_here) > floor(&manifest("exact")), "{precision} rounds nothing");
        assert_ne!(lab.effects(precision).column("ece_node"), lab.effects("exact").column("ece_node"));
    }
}

#[test]
fn a_precision_without_its_device_is_refused() {
    let lab = Lab::with(20, 4);
    let cpu = study("cpu", "run", &["--precision", "tf32"]);
    with_simulated(&lab, &[], &cpu).fails(2, &["--precision tf32 is for --device cuda", "the CPU computes in fp32"]);
    // a simulated device is none that auto takes
    let auto = study("auto", "run", &["--precision", "bf16"]);
    with_simulated(&lab, &[], &auto).fails(2, &["--precision bf16 is for --device cuda", "auto found no GPU"]);
    let old = [("CUDA_SIM_SM", Some("75"))];
    let turing = study("cuda", "run", &["--precision", "tf32"]);
    with_simulated(&lab, &old, &turing)
        .fails(5, &["sm_75", "tf32 needs the tensor cores", "help: use --precision fp32"]);
    with_simulated(&lab, &[], &study("cuda", "run", &["--precision", "fp8"])).fails(2, &["fp8", "tf32"]);
    assert!(!lab.path("run").exists() && !lab.path("run.partial").exists());
}

#[test]
fn a_convolution_path_is_recorded_and_is_a_run_of_its_own() {
    let lab = Lab::with(20, 4);
    let manifest =
        |run: &str| -> serde_json::Value { serde_json::from_str(&lab.read(&format!("{run}/manifest.json"))).unwrap() };
    with_simulated(&lab, &[], &study("cuda", "exact", &["--limit", "2", "--conv", "exact"])).succeeds();
    let more = ["--limit", "2", "--conv", "winograd", "--precision", "fp32"];
    with_simulated(&lab, &[], &study("cuda", "tiles", &more)).succeeds();
    assert_eq!(manifest("exact")["conv"], "exact");
    let tiles = manifest("tiles");
    assert_eq!(tiles["conv"], "winograd");
    let device = tiles["device"].as_str().unwrap();
    assert!(device.contains("sm_80, winograd, simulated"), "{device}");
    assert_eq!(tiles["machine"]["precision"], "fp32");
    assert_ne!(tiles["run_id"], manifest("exact")["run_id"]);
    // the second convolution of the Fashion net is served
    assert_ne!(lab.effects("tiles").column("ece_node"), lab.effects("exact").column("ece_node"));
    // a dry run says it, too
    let dry =
        ["ce", "--data", "d", "--any-data", "--limit", "2", "--dry-run", "--device", "cuda", "--conv", "winograd"];
    let ran = with_simulated(&lab, &[], &dry).succeeds();
    assert!(ran.err.contains("winograd, simulated"), "{}", ran.err);
    let devices = with_simulated(&lab, &[], &["devices", "--json"]).succeeds().json();
    assert_eq!(devices["cuda"]["devices"][0]["conv"], "exact");
    let devices = with_simulated(&lab, &[], &["devices"]).succeeds();
    assert_eq!(devices.out.matches(", conv exact\n").count(), 2, "{}", devices.out);
}

/// Node 0 of the bundled autoencoder is 0 on every image, node 15 is not.
#[test]
fn an_idle_effect_is_exactly_0_by_winograds_tiles() {
    let lab = Lab::with(20, 4);
    let ce = ["ce", "--nodes", "0,15", "--attack", "none", "--no-control", "--limit", "2", "--out", "run"];
    let tiles = ["--device", "cuda", "--conv", "winograd"];
    with_simulated(&lab, &[], &[&ce[..], &SMALL, &tiles].concat()).succeeds();
    let table = lab.effects("run");
    let [node, effect, flag] = ["node", "ece_node", "flag"].map(|name| table.column(name));
    let of = |name: &str| (0..node.len()).filter(|&i| node[i].ends_with(name)).map(|i| (effect[i], flag[i])).collect();
    let (dead, alive): (Vec<_>, Vec<_>) = (of("/ch0"), of("/ch15"));
    assert_eq!(dead, [("0.0", "dead"); 4], "two images, clean and masked");
    assert!(alive.len() == 4 && alive.iter().all(|(effect, flag)| *effect != "0.0" && flag.is_empty()), "{alive:?}");
}

#[test]
fn a_run_goes_on_by_the_path_that_it_was_started_with() {
    let lab = Lab::with(20, 4);
    let tiles = ["--conv", "winograd"];
    with_simulated(&lab, &[], &study("cuda", "whole", &tiles)).succeeds();
    // behind the gate, before the last image, as above
    let lost = [("CUDA_SIM_FAIL", Some("lost:300"))];
    with_simulated(&lab, &lost, &study("cuda", "run", &tiles)).fails(5, &["the device failed at", "--resume goes on"]);
    let resume = ["ce", "--resume", "run", "--device", "cuda", "--quiet"];
    with_simulated(&lab, &[], &resume).fails(3, &["are not those the run was started with"]);
    with_simulated(&lab, &[], &[&resume[..], &tiles].concat()).succeeds();
    lab.assert_same("whole", "run");
}

#[test]
fn a_convolution_path_beside_a_precision_is_refused() {
    let lab = Lab::with(20, 4);
    for precision in ["tf32", "fp16", "bf16"] {
        let both = study("cuda", "run", &["--conv", "winograd", "--precision", precision]);
        let words = ["--conv winograd multiplies in fp32", &format!("--precision {precision}"), "choose one"];
        with_simulated(&lab, &[], &both).fails(2, &words);
    }
    with_simulated(&lab, &[], &study("cuda", "run", &["--conv", "fft"])).fails(2, &["fft", "auto, exact, winograd"]);
    assert!(!lab.path("run").exists() && !lab.path("run.partial").exists());
}

#[test]
fn the_cpu_convolves_by_tiles_unless_told_otherwise_and_a_run_goes_on_as_it_began() {
    let lab = Lab::with(20, 4);
    let manifest =
        |run: &str| -> serde_json::Value { serde_json::from_str(&lab.read(&format!("{run}/manifest.json"))).unwrap() };
    for (run, more) in [("auto", &[][..]), ("tiles", &["--conv", "winograd"]), ("exact", &["--conv", "exact"])] {
        lab.run(&[&study("cpu", run, &["--limit", "2"])[..], more].concat()).succeeds();
    }
    let [auto, tiles, exact] = ["auto", "tiles", "exact"].map(manifest);
    assert_eq!([&auto["conv"], &tiles["conv"], &exact["conv"]], ["winograd", "winograd", "exact"]);
    assert_eq!((&auto["run_id"], &auto["device"]), (&tiles["run_id"], &tiles["device"]));
    assert_ne!(auto["run_id"], exact["run_id"]);
    assert_eq!(auto["device"].as_str(), Some(exact["device"].as_str().unwrap().replace(')', ", winograd)").as_str()));
    lab.assert_same("auto", "tiles");
    // as if it had not ended
    let before = lab.contents("exact");
    std::fs::rename(lab.path("exact"), lab.path("exact.partial")).unwrap();
    let resume = ["ce", "--resume", "exact", "--device", "cpu", "--quiet"];
    lab.run(&resume).fails(3, &["are not those the run was started with", "device is cpu (", ", winograd) here"]);
    lab.run(&[&resume[..], &["--conv", "exact"]].concat()).succeeds();
    assert!(before == lab.contents("exact"));
}

#[test]
fn bench_kernels_tells_what_is_known_without_a_clock() {
    let lab = Lab::with(20, 4);
    // on the simulated device, with counters
    let arguments = ["bench", "kernels", "--filter", "fashion linear 256->10 forward", "--json", "--quiet"];
    let out = with_simulated(&lab, &[], &arguments).succeeds().json();
    assert_eq!((&out["measured"], &out["simulated"], &out["sm"]), (&false.into(), &true.into(), &80.into()));
    let [row] = &out["problems"].as_array().unwrap()[..] else { panic!("{out}") };
    assert_eq!(row["kernel"], "conv_deep");
    assert_eq!(row["flops"], 2 * 1024 * 256 * 10);
    assert_eq!(row["spill_bytes"], 0);
    assert!(row["counts"]["fma"].as_u64() > Some(0), "{row}");
    assert!(row["estimates"].as_array().unwrap().iter().all(|e| e["seconds"].as_f64() > Some(0.0)), "{row}");
    // by tiles and as a sum, with an estimate for each
    let arguments = ["bench", "kernels", "--filter", "fashion 32->64 13 forward", "--json", "--quiet"];
    let out = with_simulated(&lab, &[], &arguments).succeeds().json();
    let [sum, tiles] = &out["problems"].as_array().unwrap()[..] else { panic!("{out}") };
    assert_eq!([&sum["kernel"], &tiles["kernel"]], ["conv_wide", "winograd_product_wide"]);
    assert_eq!(tiles["flops"], 2 * 1024 * 36 * 9 * 32 * 64);
    let a100 = |row: &serde_json::Value| row["estimates"][0]["seconds"].as_f64().unwrap();
    assert!(a100(tiles) < a100(sum) && tiles["counts"]["fma"].as_u64() > Some(0), "{out}");
    // for a chip that is not here, without a driver, as a table
    let path = without("libcuda.so");
    let environment = [("LD_LIBRARY_PATH", Some(path.as_str()))];
    let ran = lab.run_in(&environment, &["bench", "kernels", "--filter", "sign_step", "--sm", "90"]).succeeds();
    assert!(ran.out.contains("sm_90") && ran.out.contains("estimates from published peaks"), "{}", ran.out);
    assert_eq!(ran.out.matches("  sign_step  ").count(), 2, "{}", ran.out);
    lab.run_in(&environment, &["bench", "kernels", "--sm", "12"]).fails(5, &["sm_12"]);
    lab.run_in(&environment, &["bench", "kernels", "--device", "cuda"]).fails(5, &["there is no CUDA driver"]);
    let tensor = ["bench", "kernels", "--filter", "512->512 14 forward", "--precision", "tf32", "--sm"];
    let out = lab.run_in(&environment, &[&tensor[..], &["80", "--json"]].concat()).succeeds().json();
    assert_eq!((&out["precision"], &out["problems"][0]["kernel"]), (&"tf32".into(), &"conv_mma_tf32_large".into()));
    lab.run_in(&environment, &[&tensor[..], &["75"]].concat()).fails(5, &["sm_75", "tf32 needs the tensor cores"]);
    lab.run(&["bench", "kernels", "--conv", "winograd"]).fails(2, &["lists both paths", "--conv does not apply"]);
    lab.run(&["bench", "kernels", "--filter", "no such thing"]).fails(2, &["no problem and no kernel"]);
    lab.run(&["bench", "kernels", "--device", "cpu"]).fails(2, &["takes auto, cuda and cuda:N"]);
    lab.run(&["bench", "forward", "--sm", "90"]).fails(2, &["are for `bench kernels`"]);
    let profile = ["bench", "forward", "--images", "1", "--profile", "--device", "cuda"];
    with_simulated(&lab, &[], &profile).fails(2, &["--profile times the steps of the CPU", "`bench kernels`"]);
}

#[test]
fn bench_kernels_without_nvrtc_is_an_error_of_the_device() {
    let lab = Lab::with(20, 4);
    let path = without_nvrtc();
    let environment = [("LD_LIBRARY_PATH", Some(path.as_str())), NOWHERE];
    lab.run_in(&environment, &["bench", "kernels"]).fails(5, &["there is no NVRTC"]);
}
