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
    /// A storage class of `torch`, such as `torch.FloatStorage`.
    Storage(StorageClass),
}

/// The number format of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorageClass {
    /// `None` for integers, whose tensors are skipped.
    pub(super) element: Option<Element>,
    /// Size of one number.
    pub(super) size_bytes: usize,
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
}

impl Global {
    /// Returns the global `module.name`; `None` if it is unknown.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        let floating = |element: Element| {
            Self::Storage(StorageClass { element: Some(element), size_bytes: element.size_bytes() })
        };
        let integers = |size_bytes| Self::Storage(StorageClass { element: None, size_bytes });
        let global = match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => floating(Element::F32),
            ("torch", "DoubleStorage") => floating(Element::F64),
            ("torch", "HalfStorage") => floating(Element::F16),
            ("torch", "BFloat16Storage") => floating(Element::Bf16),
            ("torch", "LongStorage") => integers(8),
            ("torch", "IntStorage") => integers(4),
            ("torch", "ShortStorage") => integers(2),
            ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => integers(1),
            _ => return None,
        };
        Some(global)
    }
}
