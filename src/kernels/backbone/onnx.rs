//! A writer of ONNX models: a hand-written encoder of the messages of `onnx.proto3` that a feed-forward network
//! needs.
//!
//! It is independent of any network. `graph.rs` builds the graph of a backbone with it, and an export can add
//! nodes. The same calls give the same bytes: fields are written in the order of their numbers, repeated fields
//! in the order of the calls, and no time or path is included.
//!
//! Sources: ONNX IR version 8 and operator set 17 (`onnx.proto3` of onnx 1.12); the protocol buffers wire
//! format (varint, length-delimited and 32-bit fields).

/// The ONNX IR version of operator set 17.
const IR_VERSION: u64 = 8;

/// The operator set. Chosen: the newest one that runtimes of the last years can read.
const OPERATOR_SET: u64 = 17;

/// `TensorProto.DataType.FLOAT`.
const ELEMENT_F32: u64 = 1;

/// `TensorProto.DataType.INT64`.
const ELEMENT_I64: u64 = 7;

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension<'a> {
    /// A constant size.
    Fixed(usize),
    /// A named dimension of any size.
    Named(&'a str),
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attribute<'a> {
    /// `INT`.
    Int(i64),
    /// `FLOAT`.
    Float(f32),
    /// `STRING`.
    Text(&'a str),
    /// `INTS`.
    Ints(&'a [i64]),
}

/// A node of a graph.
#[derive(Debug, Clone, Copy)]
pub struct OnnxNode<'a> {
    /// The operator, such as `Conv`.
    pub operator: &'a str,
    /// The name of the node.
    pub name: &'a str,
    /// Names of its inputs.
    pub inputs: &'a [&'a str],
    /// Names of its outputs.
    pub outputs: &'a [&'a str],
    /// Attributes by name.
    pub attributes: &'a [(&'a str, Attribute<'a>)],
}

/// A graph under construction. Nodes must be added in topological order.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: Message,
    initializers: Message,
    inputs: Message,
    outputs: Message,
}

impl Graph {
    /// Adds an f32 input.
    pub fn input(&mut self, name: &str, shape: &[Dimension<'_>]) {
        self.inputs.message(11, &value_info(name, shape));
    }

    /// Adds an f32 output. A node must produce a value with that name.
    pub fn output(&mut self, name: &str, shape: &[Dimension<'_>]) {
        self.outputs.message(12, &value_info(name, shape));
    }

    /// Adds a node.
    pub fn node(&mut self, node: &OnnxNode<'_>) {
        let mut message = Message::default();
        for input in node.inputs {
            message.text(1, input);
        }
        for output in node.outputs {
            message.text(2, output);
        }
        message.text(3, node.name);
        message.text(4, node.operator);
        for (name, value) in node.attributes {
            message.message(5, &attribute(name, *value));
        }
        self.nodes.message(1, &message);
    }

    /// Adds a constant f32 tensor, row-major.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "constant {name} of shape {shape:?}");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.raw_constant(name, shape, ELEMENT_F32, &bytes);
    }

    /// Adds a constant i64 tensor, row-major, such as axes or sizes.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape.
    pub fn constant_i64(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "constant {name} of shape {shape:?}");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.raw_constant(name, shape, ELEMENT_I64, &bytes);
    }

    /// Encodes the model. The result must stay below 2 GiB, the limit of protocol buffers; the largest network
    /// takes 0.33 GB.
    pub fn encode(self, name: &str) -> Vec<u8> {
        let mut operator_set = Message::default();
        operator_set.text(1, "");
        operator_set.integer(2, OPERATOR_SET);
        let mut graph = self.nodes;
        graph.text(2, name);
        graph.append(self.initializers);
        graph.append(self.inputs);
        graph.append(self.outputs);
        let mut model = Message::default();
        model.integer(1, IR_VERSION);
        model.text(2, "patchflow");
        model.message(7, &graph);
        drop(graph);
        model.message(8, &operator_set);
        model.bytes
    }

    fn raw_constant(&mut self, name: &str, shape: &[usize], element: u64, values: &[u8]) {
        let mut message = Message::default();
        for &extent in shape {
            message.integer(1, extent as u64);
        }
        message.integer(2, element);
        message.text(8, name);
        message.bytes(9, values);
        self.initializers.message(5, &message);
    }
}

fn value_info(name: &str, shape: &[Dimension<'_>]) -> Message {
    let mut extents = Message::default();
    for extent in shape {
        let mut dimension = Message::default();
        match extent {
            Dimension::Fixed(value) => dimension.integer(1, *value as u64),
            Dimension::Named(name) => dimension.text(2, name),
        }
        extents.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.integer(1, ELEMENT_F32);
    tensor.message(2, &extents);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut info = Message::default();
    info.text(1, name);
    info.message(2, &kind);
    info
}

fn attribute(name: &str, value: Attribute<'_>) -> Message {
    let mut message = Message::default();
    message.text(1, name);
    let kind = match value {
        Attribute::Float(number) => {
            message.float(2, number);
            1
        }
        Attribute::Int(number) => {
            message.integer(3, number.cast_unsigned());
            2
        }
        Attribute::Text(text) => {
            message.text(4, text);
            3
        }
        Attribute::Ints(numbers) => {
            for number in numbers {
                message.integer(8, number.cast_unsigned());
            }
            7
        }
    };
    message.integer(20, kind);
    message
}

/// A protocol buffers message under construction.
#[derive(Debug, Clone, Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.bytes(field, &value.bytes);
    }

    fn append(&mut self, mut other: Self) {
        self.bytes.append(&mut other.bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_little_endian_groups_of_seven_bits() {
        let encoded = |value| {
            let mut message = Message::default();
            message.varint(value);
            message.bytes
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [127]);
        assert_eq!(encoded(300), [0xac, 0x02]);
        assert_eq!(encoded(u64::MAX), [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }

    #[test]
    fn a_small_model_has_the_bytes_of_the_specification() {
        let mut graph = Graph::default();
        graph.input("x", &[Dimension::Named("n"), Dimension::Fixed(2)]);
        graph.node(&OnnxNode {
            operator: "Relu",
            name: "r",
            inputs: &["x"],
            outputs: &["y"],
            attributes: &[("a", Attribute::Int(-1))],
        });
        graph.output("y", &[Dimension::Fixed(3)]);
        let expected: &[u8] = &[
            0x08, 8, 0x12, 9, b'p', b'a', b't', b'c', b'h', b'f', b'l', b'o',
            b'w', // IR version, producer
            0x3a, 78, // graph
            0x0a, 34, 0x0a, 1, b'x', 0x12, 1, b'y', 0x1a, 1, b'r', 0x22, 4, b'R', b'e', b'l',
            b'u', // node
            0x2a, 17, 0x0a, 1, b'a', 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0xa0, 0x01,
            2, // attribute
            0x12, 1, b'g', // name
            0x5a, 20, 0x0a, 1, b'x', 0x12, 15, 0x0a, 13, 0x08, 1, 0x12, 9, 0x0a, 3, 0x12, 1, b'n', 0x0a, 2,
            0x08, 2, // input
            0x62, 15, 0x0a, 1, b'y', 0x12, 10, 0x0a, 8, 0x08, 1, 0x12, 4, 0x0a, 2, 0x08, 3, // output
            0x42, 4, 0x0a, 0, 0x10, 17, // operator set
        ];
        assert_eq!(graph.encode("g"), expected);
    }
}
