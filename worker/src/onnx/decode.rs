//! Messages to the [`Model`] of [`crate::graph`].

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message;

use super::external::External;
use super::inline::{Kind, inline};
use super::proto::{
    OperatorSetIdProto, StringStringEntryProto, attribute as in_attribute, graph as in_graph,
    model as in_model, node as in_node, sparse, tensor as in_tensor,
};
use super::tensor::{self, Content};
use super::wire::{Field, fields};
use super::{attribute, order, value_info};
use crate::graph::{Graph, Model, Node, OpaqueTensor, OperatorSet, ValueInfo};
use crate::{Error, Result};

/// The oldest format in which operator sets are versioned.
const OLDEST_IR_VERSION: i64 = 3;

/// More nodes, attributes, values and constants than any model has. Without a bound each of the billions that
/// a hostile file holds in two bytes would be some hundred in memory.
const MOST_PARTS: usize = 1 << 22;

/// The model encoded in `bytes`.
pub fn model(bytes: &Bytes, external: &mut External) -> Result<Model> {
    let mut model = Model {
        ir_version: 0,
        opsets: Vec::new(),
        producer_name: String::new(),
        producer_version: String::new(),
        domain: String::new(),
        model_version: 0,
        doc: String::new(),
        metadata: IndexMap::new(),
        external_data: false,
        graph: Graph::default(),
        opaque: Vec::new(),
    };
    let mut decoder = Decoder { external, parts: 0 };
    let mut graph = None;
    for field in fields(bytes) {
        let done = field.and_then(|field| decoder.model_field(&field, &mut model, &mut graph));
        done.map_err(|error| error.at("the model"))?;
    }
    let graph = graph.ok_or_else(|| {
        Error::user("there is no graph in it").help("the file is not an ONNX model")
    })?;
    if model.ir_version < OLDEST_IR_VERSION {
        return Err(Error::user(format!(
            "IR version {}; versions from {OLDEST_IR_VERSION} are supported",
            model.ir_version
        ))
        .help("export the model again, or convert it with onnx.version_converter"));
    }
    model.graph = decoder.graph(&graph)?;
    order::sort(&mut model.graph);
    model.external_data = decoder.external.used();
    Ok(model)
}

/// The graph that an attribute holds, whose external data was put in when its file was read; `None`: it holds none.
///
/// # Errors
/// What cannot be read.
pub fn branch(encoded: &[u8]) -> Result<Option<Graph>> {
    let mut external = External::beside(None);
    let mut decoder = Decoder { external: &mut external, parts: 0 };
    let mut graph = None;
    for field in fields(&Bytes::copy_from_slice(encoded)) {
        let field = field?;
        if field.number == in_attribute::G {
            graph = Some(decoder.graph(&field.bytes()?)?);
        }
    }
    Ok(graph)
}

/// Keeps what is not understood, and a field that holds nothing: who looks whether it is there finds it again.
/// Kept fields are written before the others, which so win.
fn keep(field: &Field, opaque: &mut Vec<u8>) {
    opaque.extend_from_slice(&field.raw);
}

fn text(field: &Field, opaque: &mut Vec<u8>) -> Result<String> {
    if field.is_default() {
        keep(field, opaque);
    }
    field.text()
}

fn message<M: Message + Default>(field: &Field, what: &str) -> Result<M> {
    M::decode(field.bytes()?)
        .map_err(|error| Error::user(format!("{what} is not valid protobuf: {error}")))
}

struct Decoder<'e> {
    external: &'e mut External,
    parts: usize,
}

impl Decoder<'_> {
    fn count(&mut self) -> Result<()> {
        self.parts += 1;
        if self.parts <= MOST_PARTS {
            return Ok(());
        }
        Err(Error::user(format!("it has more than {MOST_PARTS} nodes, attributes and values"))
            .help("no model has as many: the file is damaged, or made to fill the memory"))
    }

    fn model_field(
        &mut self,
        field: &Field,
        model: &mut Model,
        graph: &mut Option<Bytes>,
    ) -> Result<()> {
        let opaque = &mut model.opaque;
        match field.number {
            in_model::IR_VERSION => model.ir_version = field.int()?,
            in_model::PRODUCER_NAME => model.producer_name = text(field, opaque)?,
            in_model::PRODUCER_VERSION => model.producer_version = text(field, opaque)?,
            in_model::DOMAIN => model.domain = text(field, opaque)?,
            in_model::DOC_STRING => model.doc = text(field, opaque)?,
            in_model::MODEL_VERSION => {
                if field.is_default() {
                    keep(field, opaque);
                }
                model.model_version = field.int()?;
            }
            in_model::GRAPH if graph.is_some() => {
                return Err(Error::user("there are two graphs in it"));
            }
            in_model::GRAPH => *graph = Some(field.bytes()?),
            in_model::OPSET_IMPORT => {
                self.count()?;
                let set: OperatorSetIdProto = message(field, "an operator set")?;
                let version = set.version.unwrap_or(1);
                model.opsets.push(OperatorSet { domain: set.domain, version });
            }
            in_model::METADATA_PROPS => {
                self.count()?;
                let entry: StringStringEntryProto = message(field, "an entry of the metadata")?;
                model.metadata.insert(entry.key, entry.value);
            }
            number => match Kind::of_model(number) {
                Some(kind) => {
                    let kept = inline(kind, &field.bytes()?, self.external)?;
                    super::wire::put_bytes(opaque, number, &kept);
                }
                None => keep(field, opaque),
            },
        }
        Ok(())
    }

    fn graph(&mut self, bytes: &Bytes) -> Result<Graph> {
        let mut graph = Graph::default();
        let mut inputs = Vec::new();
        for field in fields(bytes) {
            let field = field.map_err(|error| error.at("the graph"))?;
            match field.number {
                in_graph::NODE => {
                    let node = self.node(graph.nodes.len(), &field)?;
                    graph.nodes.push(node);
                }
                in_graph::NAME => graph.name = text(&field, &mut graph.opaque)?,
                in_graph::DOC_STRING => graph.doc = text(&field, &mut graph.opaque)?,
                in_graph::INITIALIZER => self.initializer(&field.bytes()?, &mut graph)?,
                in_graph::SPARSE_INITIALIZER => self.sparse(&field.bytes()?, &mut graph)?,
                in_graph::INPUT => inputs.push(self.value(&field)?),
                in_graph::OUTPUT => graph.outputs.push(self.value(&field)?),
                in_graph::VALUE_INFO => graph.value_infos.push(self.value(&field)?),
                _ => keep(&field, &mut graph.opaque),
            }
        }
        for (place, input) in inputs.into_iter().enumerate() {
            if graph.is_initializer(&input.name) {
                graph.defaults.push((place, input));
            } else {
                graph.inputs.push(input);
            }
        }
        Ok(graph)
    }

    fn value(&mut self, field: &Field) -> Result<ValueInfo> {
        self.count()?;
        value_info::decode(&field.bytes()?).map_err(|error| error.at("the graph"))
    }

    fn initializer(&mut self, message: &Bytes, graph: &mut Graph) -> Result<()> {
        self.count()?;
        let tensor::Tensor { name, notes, content, .. } =
            tensor::decode(message, self.external).map_err(|error| error.at("an initializer"))?;
        if graph.is_initializer(&name) {
            return Err(Error::user(format!("two initializers are named `{name}`")));
        }
        match content {
            Content::Known(data) => {
                if !notes.is_empty() {
                    graph.initializer_notes.insert(name.clone(), notes);
                }
                graph.initializers.insert(name, data);
            }
            Content::Opaque(tensor) => {
                graph.opaque_initializers.insert(name, tensor);
            }
        }
        Ok(())
    }

    /// A sparse initializer, named as its values are. Its dense form, which may be of any size, is never made.
    fn sparse(&mut self, message: &Bytes, graph: &mut Graph) -> Result<()> {
        self.count()?;
        let mut name = String::new();
        let at = |error: Error| error.at("a sparse initializer");
        for field in fields(message) {
            let field = field.map_err(at)?;
            if field.number == sparse::VALUES {
                for field in fields(&field.bytes().map_err(at)?) {
                    let field = field.map_err(at)?;
                    if field.number == in_tensor::NAME {
                        name = field.text().map_err(at)?;
                    }
                }
            }
        }
        if graph.is_initializer(&name) {
            return Err(Error::user(format!("two initializers are named `{name}`")));
        }
        let message = inline(Kind::Sparse, message, self.external).map_err(at)?.to_vec();
        graph.opaque_initializers.insert(name, OpaqueTensor { sparse: true, message, data: None });
        Ok(())
    }

    fn node(&mut self, index: usize, field: &Field) -> Result<Node> {
        self.count()?;
        let mut node = Node::default();
        let mut attributes = Vec::new();
        let at = |error: Error| error.at(format!("node {index}"));
        for field in fields(&field.bytes().map_err(at)?) {
            let field = field.map_err(at)?;
            let opaque = &mut node.opaque;
            match field.number {
                in_node::INPUT => node.inputs.push(field.text().map_err(at)?),
                in_node::OUTPUT => node.outputs.push(field.text().map_err(at)?),
                in_node::NAME => node.name = text(&field, opaque).map_err(at)?,
                in_node::OP_TYPE => node.op_type = field.text().map_err(at)?,
                in_node::DOC_STRING => node.doc = text(&field, opaque).map_err(at)?,
                in_node::DOMAIN => node.domain = text(&field, opaque).map_err(at)?,
                // Looked into last, so that errors name the node.
                in_node::ATTRIBUTE => {
                    self.count()?;
                    attributes.push(field.bytes().map_err(at)?);
                }
                _ => keep(&field, opaque),
            }
        }
        if node.op_type.is_empty() {
            return Err(at(Error::user("names no operator")));
        }
        if node.domain == "ai.onnx" {
            node.domain.clear();
        }
        for encoded in attributes {
            self.attribute(&encoded, &mut node).map_err(|error| error.at(node.place()))?;
        }
        Ok(node)
    }

    fn attribute(&mut self, encoded: &Bytes, node: &mut Node) -> Result<()> {
        let attribute::Read { name, value, note } = attribute::decode(encoded, self.external)?;
        if let Some(note) = note {
            node.attribute_notes.insert(name.clone(), note);
        }
        match node.attributes.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => Err(Error::user(format!("two attributes `{name}`"))),
        }
    }
}
