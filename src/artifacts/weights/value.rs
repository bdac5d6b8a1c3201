//! Values and objects of an interpreted pickle.

use std::rc::Rc;

use super::storage::Element;

/// The Python functions and classes that the interpreter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2` and `_rebuild_tensor`: (storage, offset, size, stride, …).
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: (tensor, …), returns the tensor.
    RebuildParameter,
    /// `torch._utils._rebuild_parameter_with_state`: (tensor, …), returns the tensor without its attributes.
    RebuildParameterWithState,
    /// `torch._tensor._rebuild_from_type_v2`: (function, type, arguments, state), which `torch.save` writes for an
    /// `nn.Buffer`, a subclass, or a tensor with attributes. Returns what the function returns for the arguments.
    RebuildFromType,
    /// A storage class of `torch`, such as `torch.FloatStorage`.
    Storage(StorageClass),
    /// Anything else of `torch`: its position in [`LoadedPickle::unread`]. Neither a class nor a value of it is read, but
    /// it may lie beside the tensors that are needed.
    Unread(usize),
}

/// The number format of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorageClass {
    /// `None` for numbers whose tensors are not read, such as integers.
    pub(super) element: Option<Element>,
    /// Size of one number.
    pub(super) size_bytes: usize,
    /// Its name in `torch`.
    pub(super) name: &'static str,
}

/// A value on the stack.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PickleValue {
    None,
    Bool,
    Integer(i64),
    Float,
    Text(Rc<str>),
    Global(Global),
    /// An index into [`LoadedPickle::objects`].
    Object(usize),
}

/// An object in the arena.
#[derive(Debug, Clone)]
pub(super) enum PickleObject {
    Tuple(Vec<PickleValue>),
    List(Vec<PickleValue>),
    Dictionary(Vec<(PickleValue, PickleValue)>),
    Storage(StorageReference),
    Tensor(TensorReference),
    /// A tensor or another value of a kind that is not read: the position of the kind in [`LoadedPickle::unread`].
    Unread(usize),
}

/// A storage that a persistent identifier refers to.
#[derive(Debug, Clone)]
pub(super) struct StorageReference {
    pub(super) class: StorageClass,
    pub(super) key: Rc<str>,
    /// Index of the first number: not 0 for a view in the old stream format.
    pub(super) start: usize,
}

/// A tensor as a view of a storage. Offset and strides count numbers, not bytes.
#[derive(Debug, Clone)]
pub(super) struct TensorReference {
    pub(super) storage: StorageReference,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// The result of interpreting a pickle: its value and the arena of objects.
#[derive(Debug)]
pub(super) struct LoadedPickle {
    pub(super) value: PickleValue,
    pub(super) objects: Vec<PickleObject>,
    /// Names of the functions and classes of `torch` that are not read.
    pub(super) unread: Vec<Rc<str>>,
}

impl Global {
    /// Returns the global `module.name`; `None` if it is unknown.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        let floating = |element: Element, name| {
            Self::Storage(StorageClass { element: Some(element), size_bytes: element.size_bytes(), name })
        };
        let others = |size_bytes, name| Self::Storage(StorageClass { element: None, size_bytes, name });
        let global = match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch._utils", "_rebuild_parameter_with_state") => Self::RebuildParameterWithState,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "FloatStorage") => floating(Element::F32, "float32"),
            ("torch", "DoubleStorage") => floating(Element::F64, "float64"),
            ("torch", "HalfStorage") => floating(Element::F16, "float16"),
            ("torch", "BFloat16Storage") => floating(Element::Bf16, "bfloat16"),
            ("torch", "LongStorage") => others(8, "int64"),
            ("torch", "IntStorage") => others(4, "int32"),
            ("torch", "ShortStorage") => others(2, "int16"),
            ("torch", "CharStorage") => others(1, "int8"),
            ("torch", "ByteStorage") => others(1, "uint8"),
            ("torch", "BoolStorage") => others(1, "bool"),
            ("torch", "ComplexFloatStorage") => others(8, "complex64"),
            ("torch", "ComplexDoubleStorage") => others(16, "complex128"),
            ("torch", "QInt8Storage") => others(1, "qint8"),
            ("torch", "QUInt8Storage") => others(1, "quint8"),
            ("torch", "QInt32Storage") => others(4, "qint32"),
            _ => return None,
        };
        Some(global)
    }
}
