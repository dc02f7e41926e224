//! tract on a network of ONNX nodes, optimised for its shape.

use anyhow::{Context, Result};
use peers::network::{Step, network};
use peers::weights::Array;
use peers::{Flags, serve};
use std::sync::Arc;
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use tract_onnx::pb::{attribute_proto::AttributeType, tensor_proto::DataType};
use tract_onnx::prelude::*;

/// The newest that tract is tested with.
const OPSET: i64 = 18;

fn main() -> Result<()> {
    let flags = Flags::read()?;
    if flags.threads > 1 {
        set_default_executor(Executor::multithread(flags.threads));
    }
    serve(&flags, "tract-onnx", |at_once| {
        let images = flags.images(at_once)?;
        let shape = images[0].shape.clone();
        let tensor = |Array { shape, values }: Array| Ok(Arc::new(Tensor::from_shape(&shape, &values)?));
        let images = images.into_iter().map(tensor).collect::<Result<Vec<_>>>()?;
        let mut state = optimised(graph(&flags, &shape)?, &shape)?.into_runnable()?.spawn()?;
        Ok(move || {
            let mut logits = Vec::new();
            for x in &images {
                let out = state.run(tvec!(TValue::from_const(x.clone())))?;
                logits.extend(out[0].to_plain_array_view::<f32>()?.iter());
            }
            Ok(logits)
        })
    })
}

/// A graph as tract runs it, on inputs of `shape`.
fn optimised(graph: GraphProto, shape: &[usize]) -> Result<TypedModel> {
    let opset_import = vec![OperatorSetIdProto { version: OPSET, ..Default::default() }];
    let file = ModelProto { graph: Some(graph), opset_import, ..Default::default() };
    let model = onnx().parse(&file, None)?.model;
    // its copy of the weights need not wait for the end of what follows
    drop(file);
    model.with_input_fact(0, f32::fact(shape).into())?.into_optimized()
}

/// The network as an ONNX file has it.
fn graph(flags: &Flags, shape: &[usize]) -> Result<GraphProto> {
    let mut graph = Graph::default();
    let steps = network(&flags.model, &flags.weights()?, shape, |array| Ok(graph.initializer(array)))?;
    let (mut x, mut kept) = (String::from("x"), None);
    for step in steps {
        x = match step {
            Step::Affine { scale, shift } => {
                let scaled = graph.node("Mul", [x, scale], []);
                graph.node("Add", [scaled, shift], [])
            }
            Step::Convolution { weight, bias, stride, padding } => {
                let inputs = [x, weight].into_iter().chain(bias);
                graph.node("Conv", inputs, [("strides", ints(stride, 2)), ("pads", ints(padding, 4))])
            }
            Step::Relu => graph.node("Relu", [x], []),
            Step::MaxPool { side, stride, padding } => {
                let window =
                    [("kernel_shape", ints(side, 2)), ("strides", ints(stride, 2)), ("pads", ints(padding, 4))];
                graph.node("MaxPool", [x], window)
            }
            Step::AveragePool { side } => {
                graph.node("AveragePool", [x], [("kernel_shape", ints(side, 2)), ("strides", ints(side, 2))])
            }
            Step::Flatten => graph.node("Flatten", [x], []),
            Step::Linear { weight, bias } => graph.node("Gemm", [x, weight, bias], [("transB", int(1))]),
            Step::Keep => {
                kept = Some(x.clone());
                x
            }
            Step::Join => graph.node("Concat", [kept.take().context("nothing was kept")?, x], [("axis", int(1))]),
        };
    }
    graph.0.output.push(ValueInfoProto { name: x, ..Default::default() });
    Ok(graph.0)
}

#[derive(Default)]
struct Graph(GraphProto);

impl Graph {
    /// Its name.
    fn initializer(&mut self, Array { shape, values }: Array) -> String {
        let name = format!("weights{}", self.0.initializer.len());
        self.0.initializer.push(TensorProto {
            name: name.clone(),
            dims: shape.iter().map(|&n| n as i64).collect(),
            data_type: DataType::Float as i32,
            float_data: values,
            ..Default::default()
        });
        name
    }

    /// The name of its output.
    fn node<const N: usize>(
        &mut self,
        op_type: &str,
        input: impl IntoIterator<Item = String>,
        attributes: [(&str, AttributeProto); N],
    ) -> String {
        let name = format!("{}{}", op_type, self.0.node.len());
        self.0.node.push(NodeProto {
            name: name.clone(),
            op_type: op_type.into(),
            input: input.into_iter().collect(),
            output: vec![name.clone()],
            attribute: attributes.map(|(name, value)| AttributeProto { name: name.into(), ..value }).into(),
            ..Default::default()
        });
        name
    }
}

fn int(i: usize) -> AttributeProto {
    AttributeProto { r#type: AttributeType::Int as i32, i: i as i64, ..Default::default() }
}

/// The same number for each of `count` axes or ends of them.
fn ints(i: usize, count: usize) -> AttributeProto {
    AttributeProto { r#type: AttributeType::Ints as i32, ints: vec![i as i64; count], ..Default::default() }
}
