//! Weight and bias of a layer while equalization changes them.

use super::weighted::Layout;
use crate::graph::{Graph, Node, TensorData};
use crate::{Error, Result};

/// A layer's weight and bias, in double precision.
pub(super) struct LayerValues {
    /// Its index in the graph.
    pub index: usize,
    /// How the weight is laid out.
    pub layout: Layout,
    /// The weight, row by row.
    pub weight: Vec<f64>,
    /// One value a channel. One that is put here becomes an input of the layer.
    pub bias: Option<Vec<f64>>,
}

impl LayerValues {
    /// Those of a node that has a [`Layout`].
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn read(graph: &Graph, index: usize) -> Result<Self> {
        let node = &graph.nodes[index];
        let layout =
            Layout::of(graph, node)?.ok_or_else(|| Error::bug("a layer without weight"))?;
        let values = |name: &str| -> Result<Vec<f64>> {
            let values = graph.initializers[name].to_f32()?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(Error::user(format!(
                    "element {index} of \"{name}\" is {}",
                    values[index]
                )));
            }
            Ok(values.into_iter().map(f64::from).collect())
        };
        let at = |error: Error| error.at(node.place());
        let weight = values(&node.inputs[1]).map_err(at)?;
        let bias = constant_bias(graph, node, &layout);
        let bias = bias.map(|name| values(name).map_err(at)).transpose()?;
        Ok(Self { index, layout, weight, bias })
    }

    /// Writes them back.
    pub fn write(self, graph: &mut Graph) {
        let node = &graph.nodes[self.index];
        let (weight, bias) = (node.inputs[1].clone(), node.input(2).map(str::to_owned));
        let single =
            |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
        let mut store = |name: &str, values: &[f64]| {
            if let Some(data) = graph.initializers.get_mut(name) {
                *data = TensorData::f32(&data.shape.clone(), &single(values));
            }
        };
        store(&weight, &self.weight);
        match (bias, &self.bias) {
            (Some(name), Some(values)) => store(&name, values),
            (None, Some(values)) => {
                let name = graph.fresh_name(&format!("{}.bias", graph.nodes[self.index].label()));
                let data = TensorData::f32(&[values.len() as i64], &single(values));
                graph.initializers.insert(name.clone(), data);
                let inputs = &mut graph.nodes[self.index].inputs;
                inputs.truncate(2);
                inputs.push(name);
            }
            _ => {}
        }
    }
}

/// The constant bias of a layer, one value a channel.
pub(super) fn constant_bias<'a>(graph: &Graph, node: &'a Node, layout: &Layout) -> Option<&'a str> {
    let name = node.input(2).filter(|_| node.op_type != "MatMul")?;
    graph.initializers.get(name).filter(|data| data.len() == layout.outputs)?;
    Some(name)
}
