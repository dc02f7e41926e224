//! One problem of the benchmarks on a device: operands of the right sizes, and the launches that it stands for.

use super::Cuda;
use super::counts::{Counts, counted};
use super::device::device_error;
use super::launch::conv::{self, Layout, Order, Packed, PackedMut, Pixels, Prologue};
use super::launch::intervene::{self, Lists};
use super::launch::mask::{self, Masks};
use super::launch::optimizer::{self, AdamTensor};
use super::launch::{Floats, FloatsMut, Indices, Queue};
use super::launch::{attack, ceiling, effect, layout, loss, norm, pointwise, pool, rows, winograd};
use super::precision::Precision;
use super::program::allocate;
use crate::answer::Head;
use crate::backend::BackendError;
use crate::backend::layout::{ConvShape, len};
use crate::backend::problems::{Map, NODES, Pass, Problem, Work, images};
use crate::backend::winograd::Winograd;
use crate::graph::op::{Activation, Averaging, Binary};
use crate::random::Stream;
use cudarc::driver::CudaSlice;
use std::collections::BTreeMap;
use std::time::Instant;

/// A weight as a pass reads it. Interventions and prologues are in fp32, whatever the precision.
fn layout_of(s: &ConvShape, pass: Pass, precision: Precision) -> Layout {
    match (pass, Winograd::of(s)) {
        (Pass::Winograd | Pass::PackWinograd, Some(tiles)) => Layout::winograd(tiles),
        (Pass::GradInput | Pass::PackGradInput, _) => Layout::new(s, Order::GradInput, precision),
        (Pass::Prologue, _) => EXACT,
        _ => Layout::new(s, Order::Forward, precision),
    }
}

const EXACT: Layout = Layout::exact(Order::Forward);

/// A problem with its operands in device memory.
pub struct Trial {
    queue: Queue,
    problem: Problem,
    inputs: Vec<CudaSlice<f32>>,
    lists: Vec<CudaSlice<u32>>,
    outputs: Vec<CudaSlice<f32>>,
    workspace: CudaSlice<f32>,
}

/// What a problem's launches take and give, in floats.
#[derive(Default)]
struct Operands {
    inputs: Vec<usize>,
    lists: Vec<Vec<u32>>,
    outputs: Vec<usize>,
    workspace: usize,
}

impl Operands {
    fn of(problem: &Problem, precision: Precision) -> Operands {
        let rows = problem.rows;
        let plain = |inputs: &[usize], output: usize| Operands {
            inputs: inputs.to_vec(),
            outputs: vec![output],
            ..Operands::default()
        };
        match problem.work {
            Work::Conv(pass, s) => {
                let (x, y) = (rows * s.x_len(), rows * s.y_len());
                let packed = conv::packed_len(&s, layout_of(&s, pass, precision));
                match pass {
                    Pass::Forward => plain(&[x, packed, s.o], y),
                    Pass::Winograd => {
                        let workspace = Winograd::of(&s).map_or(0, |tiles| tiles.workspace(&s, rows));
                        Operands { workspace, ..plain(&[x, packed, s.o], y) }
                    }
                    Pass::Prologue => plain(&[x, packed, s.o, s.c, s.c], y),
                    Pass::GradInput => plain(&[y, packed], x),
                    Pass::GradWeight => {
                        Operands { workspace: conv::grad_weight_workspace(&s, rows), ..plain(&[x, y], s.w_len()) }
                    }
                    Pass::PackForward | Pass::PackGradInput | Pass::PackWinograd => plain(&[s.w_len()], packed),
                }
            }
            Work::MaxPool(s) => plain(&[rows * s.c * s.h * s.w], rows * s.c * s.oh() * s.ow()),
            Work::MaxPoolGrad(s) => {
                let x = rows * s.c * s.h * s.w;
                plain(&[x, rows * s.c * s.oh() * s.ow()], x)
            }
            Work::InterveneConv(s) => {
                let (read, sets) = (images(rows), NODES.min(rows));
                let inputs = [read * s.y_len(), read * s.x_len(), conv::packed_len(&s, EXACT), sets * s.c];
                Operands { lists: sweep_lists(rows), ..plain(&inputs, rows * s.y_len()) }
            }
            Work::Fma(_) => plain(&[], 256 * rows),
            Work::Map(map, [c, h, w]) => Operands::of_map(map, rows, [c, h * w]),
        }
    }

    fn of_map(map: Map, rows: usize, [c, positions]: [usize; 2]) -> Operands {
        let (e, plane) = (rows * c * positions, c * positions);
        let plain = |inputs: &[usize], output: usize| Operands {
            inputs: inputs.to_vec(),
            outputs: vec![output],
            ..Operands::default()
        };
        let labels = || (0..rows).map(|r| (r % c) as u32).collect();
        match map {
            Map::Relu | Map::Scale | Map::SquareRoot | Map::Transpose | Map::Copy => plain(&[e], e),
            Map::ReluGrad | Map::Add | Map::AdamMean | Map::AdamSquare => plain(&[e, e], e),
            Map::Affine => plain(&[e, c, c], e),
            Map::SignStep => plain(&[e, e, e, 2], e),
            Map::AdamStep => plain(&[e, e, e, 3], e),
            Map::AdamFused => Operands { outputs: vec![e; 3], ..plain(&[e, e, e, e, 3], e) },
            Map::SumToChannels => {
                let workspace = rows::sum_to_channels_workspace(rows * positions, c);
                Operands { workspace, ..plain(&[e], c) }
            }
            Map::SumRows => Operands { workspace: rows::sum_rows_workspace(rows, plane), ..plain(&[e], plane) },
            Map::BroadcastRows => plain(&[plane], e),
            Map::GlobalAverage | Map::ChannelMax => plain(&[e], rows * c),
            Map::GlobalAverageGrad => plain(&[rows * c], e),
            Map::MeanAbs | Map::MeanSquare | Map::TotalVariation => plain(&[e], rows),
            Map::MeanAbsGrad | Map::MeanSquareGrad | Map::TotalVariationGrad => plain(&[e, rows], e),
            Map::CrossEntropy => Operands { lists: vec![labels()], ..plain(&[e], rows) },
            Map::CrossEntropyGrad => Operands { lists: vec![labels()], ..plain(&[e, rows], e) },
            Map::SoftmaxKl | Map::SigmoidKl | Map::BinaryCrossEntropy => plain(&[e, e], rows),
            Map::SoftmaxKlGrad | Map::SigmoidKlGrad | Map::BinaryCrossEntropyGrad => plain(&[e, e, rows], e),
            Map::AddViews => plain(&[e, e / 2], e / 2),
            Map::Average => plain(&[e], e / 4),
            Map::AverageGrad => plain(&[e / 4], e),
            Map::ChannelSum => plain(&[e, rows * c], rows * positions),
            Map::BatchMoments => {
                Operands { workspace: norm::moments_workspace(rows * positions, c), ..plain(&[e], 2 * c) }
            }
            Map::Normalise => plain(&[e, 2 * c, c, c], e),
            Map::NormaliseGradWeight => {
                Operands { workspace: norm::grad_weight_workspace(rows * positions, c), ..plain(&[e, 2 * c, e], c) }
            }
            Map::NormaliseGradInput => plain(&[e, 2 * c, c, e, c, c], e),
            Map::RunningMean => plain(&[plane, plane], plane),
            Map::Intervene => {
                let inputs = [images(rows) * plane, NODES.min(rows) * c];
                Operands { lists: sweep_lists(rows), ..plain(&inputs, e) }
            }
            Map::Effects => Operands { lists: sweep_lists(rows), ..plain(&[e, images(rows) * c], e) },
            Map::WeightedEffect => Operands { lists: sweep_lists(rows), ..plain(&[e, images(rows) * c], rows) },
            Map::GridMask | Map::RandomSigns => {
                let words = (0..rows as u32).flat_map(|image| [image, 0]).collect();
                Operands { lists: vec![words], ..plain(&[e], e) }
            }
        }
    }
}

/// Row r of a sweep is image r / NODES with set r % NODES: images and sets.
fn sweep_lists(rows: usize) -> Vec<Vec<u32>> {
    let numbers = 0..rows as u32;
    vec![numbers.clone().map(|r| r / NODES as u32).collect(), numbers.map(|r| r % NODES as u32).collect()]
}

/// The kernel that does a problem's work, the main one of several; `None` where there is none for such a shape or precision.
pub fn kernel_of(problem: &Problem, precision: Precision) -> Option<&'static str> {
    Some(match problem.work {
        Work::Conv(pass, s) => return conv::kernel_of(&s, pass, precision),
        Work::MaxPool(_) => "max_pool",
        Work::MaxPoolGrad(s) if s.is_halving() => "max_pool_halving_grad",
        Work::MaxPoolGrad(_) => "max_pool_grad",
        Work::InterveneConv(s) if s.kw.is_multiple_of(3) => "intervene_conv_3",
        Work::InterveneConv(_) => "intervene_conv",
        Work::Fma(_) => "ceiling_fma",
        Work::Map(map, [c, h, w]) => match map {
            Map::Relu => "relu_forward",
            Map::ReluGrad => "relu_grad",
            Map::Scale => "scale",
            Map::SquareRoot => "square_root",
            Map::Add => "binary",
            Map::Affine => "affine",
            Map::SignStep => "sign_step",
            Map::AdamMean => "adam_mean",
            Map::AdamSquare => "adam_square",
            Map::AdamStep => "adam_step",
            Map::AdamFused => "adam_fused",
            Map::Transpose => "transpose",
            Map::SumToChannels if rows::sum_to_channels_workspace(problem.rows * h * w, c) > 0 => "column_chunks",
            Map::SumRows if rows::sum_rows_workspace(problem.rows, c * h * w) > 0 => "column_chunks",
            Map::SumToChannels | Map::SumRows => "column_sums",
            Map::BroadcastRows => "broadcast_rows",
            Map::GlobalAverage => "global_average",
            Map::GlobalAverageGrad => "global_average_grad",
            Map::ChannelMax => "channel_max",
            Map::MeanAbs => "mean_abs",
            Map::MeanAbsGrad => "mean_abs_grad",
            Map::MeanSquare => "mean_square",
            Map::MeanSquareGrad => "mean_square_grad",
            Map::TotalVariation => "total_variation",
            Map::TotalVariationGrad => "total_variation_grad",
            Map::CrossEntropy => "cross_entropy",
            Map::CrossEntropyGrad => "cross_entropy_grad",
            Map::SoftmaxKl => "softmax_kl",
            Map::SoftmaxKlGrad => "softmax_kl_grad",
            Map::BinaryCrossEntropy => "binary_cross_entropy",
            Map::BinaryCrossEntropyGrad => "binary_cross_entropy_grad",
            Map::SigmoidKl => "sigmoid_kl",
            Map::SigmoidKlGrad => "sigmoid_kl_grad",
            Map::AddViews => "views",
            Map::Average => "average_cells",
            Map::AverageGrad => "average_cells_grad",
            Map::ChannelSum => "channel_sum",
            Map::BatchMoments => "moment_chunks",
            Map::Normalise => "normalise",
            Map::NormaliseGradWeight => "normalise_weight_chunks",
            Map::NormaliseGradInput => "normalise_grad_input",
            Map::RunningMean => "running_statistic",
            Map::Intervene => "intervene",
            Map::Effects => "effects",
            Map::WeightedEffect => "weighted_effect",
            Map::GridMask => "grid_mask",
            Map::RandomSigns => "random_signs",
            Map::Copy => "ceiling_copy",
        },
    })
}

/// Whether a kernel multiplies on tensor cores, or packs for those that do.
pub fn on_tensor_cores(kernel: &str) -> bool {
    ["_tf32", "_f16", "_bf16"].iter().any(|precision| kernel.contains(precision))
}

fn unserved(problem: &Problem) -> BackendError {
    let what = format!("a trial of \"{}\"", problem.name);
    BackendError::Device { what, reason: "no kernel serves such a shape in this precision".into() }
}

impl Cuda {
    /// Allocates and fills the operands of a problem.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], [`BackendError::Device`], also where [`kernel_of`] knows no kernel.
    pub fn trial(&self, problem: &Problem) -> Result<Trial, BackendError> {
        if kernel_of(problem, self.device.precision()).is_none() {
            return Err(unserved(problem));
        }
        let fail = |e| device_error("preparing a benchmark", e);
        let stream = self.device.context.new_stream().map_err(fail)?;
        let queue = Queue { device: self.device.clone(), stream };
        let operands = Operands::of(problem, self.device.precision());
        let what = &problem.name;
        // random, for multiplying constants takes less power; between 0.5 and 1.5: nothing overflows, no sum vanishes
        let random = Stream::new(0, "bench");
        let largest = operands.inputs.iter().copied().max().unwrap_or(0).min(1 << 20);
        let block: Vec<f32> = (0..largest as u32).map(|i| 0.5 + random.uniform(0, i)).collect();
        let mut inputs = Vec::new();
        for &n in &operands.inputs {
            let mut data = allocate(&queue, what, n)?;
            for first in (0..n).step_by(block.len().max(1)) {
                let end = n.min(first + block.len());
                queue.stream.memcpy_htod(&block[..end - first], &mut data.slice_mut(first..end)).map_err(fail)?;
            }
            inputs.push(data);
        }
        // one channel of each row of a sweep is cleared
        if let Work::InterveneConv(ConvShape { c, .. }) | Work::Map(Map::Intervene, [c, _, _]) = problem.work {
            let sets = NODES.min(problem.rows);
            let keep: Vec<f32> = (0..sets * c).map(|i| f32::from(i % c != i / c % c)).collect();
            if let Some(last) = inputs.last_mut() {
                queue.stream.memcpy_htod(&keep, last).map_err(fail)?;
            }
        }
        let lists = operands.lists.iter().map(|list| queue.stream.clone_htod(list)).collect::<Result<_, _>>();
        let outputs = operands.outputs.iter().map(|&n| allocate(&queue, what, n)).collect::<Result<_, _>>()?;
        let workspace = allocate(&queue, what, operands.workspace.max(1))?;
        queue.stream.synchronize().map_err(fail)?;
        Ok(Trial { queue, problem: problem.clone(), inputs, lists: lists.map_err(fail)?, outputs, workspace })
    }
}

impl Trial {
    /// Puts the problem's launches into the stream.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    pub fn launch(&mut self) -> Result<(), BackendError> {
        let Trial { queue: q, problem, inputs, lists, outputs, workspace } = self;
        let (rows, precision) = (problem.rows, q.device.precision());
        let x: Vec<Floats<'_>> = inputs.iter().map(|data| q.floats(data)).collect();
        let list: Vec<Indices<'_>> = lists.iter().map(|data| q.indices(data)).collect();
        let mut y: Vec<FloatsMut<'_>> = outputs.iter_mut().map(|data| q.floats_mut(data)).collect();
        let workspace = q.floats_mut(workspace);
        if let (Work::Map(Map::AdamFused, _), [next_p, next_m, next_v]) = (problem.work, &mut y[..]) {
            let [next_p, next_m, next_v] = [next_p.reborrow(), next_m.reborrow(), next_v.reborrow()];
            let tensor = AdamTensor { p: x[0], m: x[1], v: x[2], g: x[3], next_p, next_m, next_v };
            return optimizer::adam_fused(q, &[tensor], 0.9, 0.999, 1e-8, x[4]);
        }
        let y = y.swap_remove(0);
        match problem.work {
            Work::Conv(pass, s) => {
                let layout = layout_of(&s, pass, precision);
                let weight = |i: usize| Packed { floats: x[i], layout };
                let (from, to) = (|floats| Pixels { floats, pixel: s.c }, |floats| Pixels { floats, pixel: s.o });
                let relu = Activation::Relu;
                match pass {
                    Pass::Winograd => {
                        let Some(tiles) = layout.winograd else { return Err(unserved(problem)) };
                        let (image, bias) = (from(x[0]), Some(x[2]));
                        winograd::forward(q, tiles, &s, rows, image, weight(1), bias, relu, workspace, to(y))
                    }
                    Pass::Forward => conv::forward(q, &s, rows, x[0], weight(1), Some(x[2]), relu, y),
                    Pass::Prologue => {
                        let prologue = Some(Prologue { scale: x[3], shift: x[4] });
                        let (image, bias) = (from(x[0]), Some(x[2]));
                        conv::forward_with_prologue(q, &s, rows, image, prologue, weight(1), bias, relu, to(y))
                    }
                    Pass::GradInput => conv::grad_input(q, &s, rows, x[0], weight(1), y),
                    Pass::GradWeight => conv::grad_weight(q, precision, &s, rows, x[0], x[1], workspace, y),
                    Pass::PackForward | Pass::PackGradInput | Pass::PackWinograd => {
                        conv::pack(q, &s, x[0], PackedMut { floats: y, layout })
                    }
                }
            }
            Work::MaxPool(s) => pool::max_pool(q, &s, rows, x[0], Pixels { floats: y, pixel: s.c }),
            Work::MaxPoolGrad(s) => pool::max_pool_grad(q, &s, rows, x[0], x[1], y),
            Work::InterveneConv(s) => {
                let lists = Lists { images: list[0], sets: list[1], keep: x[3] };
                intervene::intervene_conv(q, &s, rows, x[0], x[1], x[2], lists, Activation::Relu, y)
            }
            Work::Fma(rounds) => ceiling::fma(q, rounds, y),
            Work::Map(map, shape) => launch_map(q, map, rows, shape, &x, &list, workspace, y),
        }
    }

    /// Waits for everything that was launched.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    pub fn wait(&self) -> Result<(), BackendError> {
        self.queue.stream.synchronize().map_err(|e| device_error("waiting for a benchmark", e))
    }

    /// Seconds of one launch: the least of five series, each as long as 20 ms, by the host's clock.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    pub fn seconds(&mut self) -> Result<f64, BackendError> {
        const SERIES: f64 = 0.02;
        let mut series = |launches: usize| -> Result<f64, BackendError> {
            let start = Instant::now();
            for _ in 0..launches {
                self.launch()?;
            }
            self.wait()?;
            Ok(start.elapsed().as_secs_f64())
        };
        series(1)?;
        let mut launches = 1;
        // the clock rises under load: what is measured begins when a series is long enough
        while series(launches)? < SERIES {
            launches *= 2;
        }
        let mut least = f64::INFINITY;
        for _ in 0..5 {
            least = least.min(series(launches)?);
        }
        Ok(least / launches as f64)
    }

    /// What each kernel of one launch does, on a simulated device; nothing on others.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    pub fn counts(&mut self) -> Result<BTreeMap<String, Counts>, BackendError> {
        counted(|| {
            self.launch()?;
            self.wait()
        })
    }
}

#[allow(clippy::too_many_arguments, reason = "a launch's operands")]
fn launch_map(
    q: &Queue,
    map: Map,
    rows: usize,
    [c, h, w]: [usize; 3],
    x: &[Floats<'_>],
    list: &[Indices<'_>],
    workspace: FloatsMut<'_>,
    y: FloatsMut<'_>,
) -> Result<(), BackendError> {
    let (positions, row) = (h * w, len(&[c, h, w]));
    let dense = |floats| Pixels { floats, pixel: c };
    let by = |moments, weight| norm::Norm { moments, weight, epsilon: 1e-5 };
    match map {
        Map::Relu => pointwise::relu(q, x[0], y),
        Map::ReluGrad => pointwise::relu_grad(q, x[0], x[1], y),
        Map::Scale => pointwise::scale(q, 0.5, x[0], y),
        Map::SquareRoot => pointwise::sqrt(q, 1e-5, x[0], y),
        Map::Add => pointwise::binary(q, Binary::Add, x[0], x[1], y),
        Map::Affine => pointwise::affine(q, c, dense(x[0]), x[1], Some(x[2]), Activation::None, y),
        Map::AddViews => {
            let (half, pixels) = (c / 2, rows * positions);
            let wide = Pixels { floats: x[0].first(conv::window_len(pixels, half, c)), pixel: c };
            let dense = Pixels { floats: x[1], pixel: half };
            pointwise::views(q, [pixels, half], wide, Some(dense), Pixels { floats: y, pixel: half })
        }
        Map::Average | Map::AverageGrad => {
            let Some(spans) = (Averaging::Windows { size: 2, stride: 2 }).spans(h, w) else { return Ok(()) };
            match map {
                Map::Average => pool::average(q, spans, c, rows, x[0], Pixels { floats: y, pixel: c }),
                _ => pool::average_grad(q, spans, c, rows, x[0], y),
            }
        }
        Map::BatchMoments => norm::moments(q, [rows * positions, c], dense(x[0]), workspace, y),
        Map::Normalise => norm::normalise(q, by(x[1], x[2]), dense(x[0]), x[3], Activation::None, y),
        Map::NormaliseGradWeight => norm::grad_weight(q, c, dense(x[0]), [x[1], x[2]], 1e-5, workspace, y),
        Map::NormaliseGradInput => norm::grad_input(q, by(x[1], x[2]), dense(x[0]), x[3], [x[4], x[5]], y),
        Map::RunningMean => norm::running(q, [0.1, 1.0], x[0], x[1], y),
        Map::ChannelSum => pool::channel_sum(q, [rows, positions, c], x[0], x[1], y),
        Map::SignStep => attack::sign_step(q, x[0], x[1], x[2], x[3], y),
        Map::AdamMean => optimizer::adam_mean(q, 0.9, x[0], x[1], y),
        Map::AdamSquare => optimizer::adam_square(q, 0.999, x[0], x[1], y),
        Map::AdamStep => optimizer::adam_step(q, 1e-8, x[0], x[1], x[2], x[3], y),
        // it has three results, see `launch`
        Map::AdamFused => Ok(()),
        Map::Transpose => layout::to_channels_last(q, rows, [c, positions], x[0], y),
        Map::Copy => ceiling::copy(q, x[0], y),
        Map::SumToChannels => rows::sum_to_channels(q, rows * positions, c, x[0], workspace, y),
        Map::SumRows => rows::sum_rows(q, rows, [c, positions], 1.0, x[0], workspace, y),
        Map::BroadcastRows => rows::broadcast_rows(q, rows, [c, positions], 1.0, x[0], y),
        Map::GlobalAverage => pool::global_average(q, rows, positions, c, x[0], y),
        Map::GlobalAverageGrad => pool::global_average_grad(q, rows, positions, c, x[0], y),
        Map::ChannelMax => pool::channel_max(q, rows, positions, c, x[0], y),
        Map::MeanAbs => loss::mean_abs(q, row, x[0], y),
        Map::MeanAbsGrad => loss::mean_abs_grad(q, row, x[0], x[1], y),
        Map::MeanSquare => loss::mean_square(q, row, x[0], y),
        Map::MeanSquareGrad => loss::mean_square_grad(q, row, x[0], x[1], y),
        Map::TotalVariation => loss::total_variation(q, [c, h, w], x[0], y),
        Map::TotalVariationGrad => loss::total_variation_grad(q, [c, h, w], x[0], x[1], y),
        Map::CrossEntropy => loss::cross_entropy(q, c, x[0], list[0], y),
        Map::CrossEntropyGrad => loss::cross_entropy_grad(q, c, x[0], list[0], x[1], y),
        Map::SoftmaxKl => loss::kl(q, Head::Softmax, c, x[0], x[1], y),
        Map::SoftmaxKlGrad => loss::kl_grad(q, Head::Softmax, c, [x[0], x[1], x[2]], y),
        Map::BinaryCrossEntropy => loss::binary_cross_entropy(q, c, x[0], x[1], None, y),
        Map::BinaryCrossEntropyGrad => loss::binary_cross_entropy_grad(q, c, [x[0], x[1], x[2]], None, y),
        Map::SigmoidKl => loss::kl(q, Head::Sigmoid, c, x[0], x[1], y),
        Map::SigmoidKlGrad => loss::kl_grad(q, Head::Sigmoid, c, [x[0], x[1], x[2]], y),
        Map::Intervene => {
            let lists = Lists { images: list[0], sets: list[1], keep: x[1] };
            intervene::intervene(q, rows, positions, c, x[0], lists, y)
        }
        Map::Effects => effect::effects(q, Head::Softmax, c, x[0], x[1], list[0], y),
        Map::WeightedEffect => effect::weighted_effect(q, Head::Softmax, c, x[0], x[1], list[0], y),
        Map::GridMask => mask::grid_mask(q, Masks { seed: 0, number: 0, fill: 0.0 }, list[0], [c, h, w], x[0], y),
        Map::RandomSigns => mask::random_signs(q, 0, 0.3, list[0], [c, h, w], x[0], y),
    }
}
