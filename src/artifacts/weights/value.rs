//! What a pickle of a state dict is made of, once interpreted.

use std::rc::Rc;

use super::storage::Element;

/// What the interpreter knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2` and `_rebuild_tensor`: (storage, offset, size, stride, …).
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: (tensor, …), the tensor itself.
    RebuildParameter,
    /// A storage class of `torch`.
    Storage(StorageClass),
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorageClass {
    /// None for the integer types, whose tensors are left out.
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
    /// An index into the arena.
    PickleObject(usize),
}

/// A value that has parts.
#[derive(Debug, Clone)]
pub(super) enum PickleObject {
    Tuple(Vec<PickleValue>),
    List(Vec<PickleValue>),
    Dictionary(Vec<(PickleValue, PickleValue)>),
    Storage(StorageReference),
    Tensor(TensorReference),
}

/// A storage that a persistent identifier names.
#[derive(Debug, Clone)]
pub(super) struct StorageReference {
    pub(super) class: StorageClass,
    pub(super) key: Rc<str>,
    /// First number of the storage that is meant (a view of the old stream format).
    pub(super) start: usize,
}

/// A tensor: numbers of a storage under a shape and strides, both counted in numbers.
#[derive(Debug, Clone)]
pub(super) struct TensorReference {
    pub(super) storage: StorageReference,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// What a pickle came to.
#[derive(Debug)]
pub(super) struct LoadedPickle {
    pub(super) value: PickleValue,
    pub(super) objects: Vec<PickleObject>,
}

impl Global {
    /// Finds the global `module.name`; every other is unknown.
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
