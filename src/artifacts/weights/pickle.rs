//! An interpreter of the pickles that `torch.save` writes for a state dict. It executes no Python code.
//!
//! A pickle is a program for a stack machine, which can name and call any Python function. This interpreter knows the
//! opcodes for dictionaries, lists, tuples, numbers and text, and the functions and classes in [`Global`]; calling
//! one of these creates plain data. Any other opcode or global is an error that names it.
//!
//! Objects are stored in an arena and refer to each other by index, so shared objects and cycles are safe. Each opcode
//! creates at most one object and moves values instead of copying them, so memory is bounded by the length of the
//! pickle.
//!
//! Sources: `Lib/pickletools.py` of Python, protocols 2 to 4; `torch/serialization.py`, `torch/_utils.py`.

use std::rc::Rc;

use super::error::WeightsFault;
use super::value::{Global, LoadedPickle, PickleObject, PickleValue, StorageReference, TensorReference};

/// Largest number of dimensions of a tensor, as in PyTorch.
const MAXIMUM_AXES: usize = 64;

const DAMAGED: WeightsFault = WeightsFault::Damaged { part: "pickle" };

/// Interprets the pickle at the start of `bytes` and advances `bytes` past it.
pub(super) fn load(bytes: &mut &[u8]) -> Result<LoadedPickle, WeightsFault> {
    let mut machine =
        Machine { bytes, stack: vec![], marks: vec![], memo: vec![], objects: vec![], unread: vec![] };
    while machine.step()? {}
    let value = machine.pop()?;
    Ok(LoadedPickle { value, objects: machine.objects, unread: machine.unread })
}

struct Machine<'a, 'b> {
    bytes: &'a mut &'b [u8],
    stack: Vec<PickleValue>,
    marks: Vec<usize>,
    memo: Vec<Option<PickleValue>>,
    objects: Vec<PickleObject>,
    unread: Vec<Rc<str>>,
}

impl Machine<'_, '_> {
    /// Interprets one opcode. Returns `false` at the end of the program.
    fn step(&mut self) -> Result<bool, WeightsFault> {
        match self.byte()? {
            b'.' => return Ok(false),                            // STOP
            0x80 => _ = self.byte()?,                            // PROTO
            0x95 => _ = self.take(8)?,                           // FRAME
            b'(' => self.marks.push(self.stack.len()),           // MARK
            b'0' => _ = self.pop()?,                             // POP
            b'N' => self.stack.push(PickleValue::None),          // NONE
            0x88 | 0x89 => self.stack.push(PickleValue::Bool),   // NEWTRUE, NEWFALSE
            b'K' => self.integer::<1>()?,                        // BININT1
            b'M' => self.integer::<2>()?,                        // BININT2
            b'J' => self.signed_integer::<4>()?,                 // BININT
            0x8a => self.long()?,                                // LONG1
            b'G' => self.float()?,                               // BINFLOAT
            b'X' | b'T' => self.text::<4>()?,                    // BINUNICODE, BINSTRING
            0x8c | b'U' => self.text::<1>()?,                    // SHORT_BINUNICODE, SHORT_BINSTRING
            b'}' => self.make(PickleObject::Dictionary(vec![])), // EMPTY_DICT
            b']' => self.make(PickleObject::List(vec![])),       // EMPTY_LIST
            b')' => self.make(PickleObject::Tuple(vec![])),      // EMPTY_TUPLE
            b't' => self.marked_tuple()?,                        // TUPLE
            0x85 => self.tuple(1)?,                              // TUPLE1
            0x86 => self.tuple(2)?,                              // TUPLE2
            0x87 => self.tuple(3)?,                              // TUPLE3
            b'a' => self.append()?,                              // APPEND
            b'e' => self.append_marked()?,                       // APPENDS
            b's' => self.set_item()?,                            // SETITEM
            b'u' => self.set_marked_items()?,                    // SETITEMS
            b'q' => self.memoize::<1>()?,                        // BINPUT
            b'r' => self.memoize::<4>()?,                        // LONG_BINPUT
            0x94 => self.memoize_at(self.memo.len())?,           // MEMOIZE
            b'h' => self.recall::<1>()?,                         // BINGET
            b'j' => self.recall::<4>()?,                         // LONG_BINGET
            b'c' => self.named_global()?,                        // GLOBAL
            0x93 => self.stacked_global()?,                      // STACK_GLOBAL
            b'R' => self.reduce()?,                              // REDUCE
            b'b' => self.build()?,                               // BUILD
            b'Q' => self.persistent_storage()?,                  // BINPERSID
            other => return Err(refused(format!("pickle opcode 0x{other:02x}"))),
        }
        Ok(true)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], WeightsFault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(DAMAGED)?;
        *self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, WeightsFault> {
        Ok(self.take(1)?[0])
    }

    /// Reads an unsigned little-endian number of at most four bytes.
    fn number<const SIZE: usize>(&mut self) -> Result<usize, WeightsFault> {
        Ok(self.take(SIZE)?.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    fn pop(&mut self) -> Result<PickleValue, WeightsFault> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err(DAMAGED);
        }
        self.stack.pop().ok_or(DAMAGED)
    }

    fn pop_marked(&mut self) -> Result<Vec<PickleValue>, WeightsFault> {
        let mark = self.marks.pop().ok_or(DAMAGED)?;
        Ok(self.stack.split_off(mark))
    }

    fn make(&mut self, object: PickleObject) {
        self.stack.push(PickleValue::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn integer<const SIZE: usize>(&mut self) -> Result<(), WeightsFault> {
        let number = self.number::<SIZE>()?;
        self.stack.push(PickleValue::Integer(number as i64));
        Ok(())
    }

    fn signed_integer<const SIZE: usize>(&mut self) -> Result<(), WeightsFault> {
        let number = sign_extended(self.take(SIZE)?);
        self.stack.push(PickleValue::Integer(number));
        Ok(())
    }

    fn long(&mut self) -> Result<(), WeightsFault> {
        let size = usize::from(self.byte()?);
        if size > 8 {
            return Err(refused(format!("an integer of {size} bytes")));
        }
        let number = sign_extended(self.take(size)?);
        self.stack.push(PickleValue::Integer(number));
        Ok(())
    }

    fn float(&mut self) -> Result<(), WeightsFault> {
        self.take(8)?;
        self.stack.push(PickleValue::Float);
        Ok(())
    }

    fn text<const SIZE: usize>(&mut self) -> Result<(), WeightsFault> {
        let size = self.number::<SIZE>()?;
        let text = std::str::from_utf8(self.take(size)?).map_err(|_| DAMAGED)?.into();
        self.stack.push(PickleValue::Text(text));
        Ok(())
    }

    fn marked_tuple(&mut self) -> Result<(), WeightsFault> {
        let items = self.pop_marked()?;
        self.make(PickleObject::Tuple(items));
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), WeightsFault> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.make(PickleObject::Tuple(items));
        Ok(())
    }

    fn append(&mut self) -> Result<(), WeightsFault> {
        let item = self.pop()?;
        self.list()?.push(item);
        Ok(())
    }

    fn append_marked(&mut self) -> Result<(), WeightsFault> {
        let items = self.pop_marked()?;
        self.list()?.extend(items);
        Ok(())
    }

    fn set_item(&mut self) -> Result<(), WeightsFault> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.dictionary()?.push((key, value));
        Ok(())
    }

    fn set_marked_items(&mut self) -> Result<(), WeightsFault> {
        let items = self.pop_marked()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(DAMAGED);
        }
        let pairs = pairs.iter().map(|[key, value]| (key.clone(), value.clone()));
        self.dictionary()?.extend(pairs);
        Ok(())
    }

    fn list(&mut self) -> Result<&mut Vec<PickleValue>, WeightsFault> {
        match self.top_object() {
            Some(PickleObject::List(items)) => Ok(items),
            _ => Err(DAMAGED),
        }
    }

    fn dictionary(&mut self) -> Result<&mut Vec<(PickleValue, PickleValue)>, WeightsFault> {
        match self.top_object() {
            Some(PickleObject::Dictionary(items)) => Ok(items),
            _ => Err(DAMAGED),
        }
    }

    fn top_object(&mut self) -> Option<&mut PickleObject> {
        match self.stack.last() {
            Some(&PickleValue::Object(index)) => self.objects.get_mut(index),
            _ => None,
        }
    }

    fn memoize<const SIZE: usize>(&mut self) -> Result<(), WeightsFault> {
        let index = self.number::<SIZE>()?;
        self.memoize_at(index)
    }

    /// Stores the top of the stack in the memo. Refuses an index far beyond the last one, which would only waste
    /// memory: `torch.save` numbers the memo from 0 without large gaps.
    fn memoize_at(&mut self, index: usize) -> Result<(), WeightsFault> {
        let value = self.stack.last().ok_or(DAMAGED)?.clone();
        if index > self.memo.len() + 1024 {
            return Err(DAMAGED);
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(value);
        Ok(())
    }

    fn recall<const SIZE: usize>(&mut self) -> Result<(), WeightsFault> {
        let index = self.number::<SIZE>()?;
        let value = self.memo.get(index).cloned().flatten().ok_or(DAMAGED)?;
        self.stack.push(value);
        Ok(())
    }

    fn line(&mut self) -> Result<String, WeightsFault> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n').ok_or(DAMAGED)?;
        let line = String::from_utf8(self.take(end)?.to_vec()).map_err(|_| DAMAGED)?;
        self.byte()?;
        Ok(line)
    }

    fn named_global(&mut self) -> Result<(), WeightsFault> {
        let (module, name) = (self.line()?, self.line()?);
        self.push_global(&module, &name)
    }

    fn stacked_global(&mut self) -> Result<(), WeightsFault> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (PickleValue::Text(name), PickleValue::Text(module)) = (name, module) else {
            return Err(DAMAGED);
        };
        self.push_global(&module, &name)
    }

    /// Pushes a function or class. One of `torch` that is not read becomes a mark with its name; any other is refused.
    fn push_global(&mut self, module: &str, name: &str) -> Result<(), WeightsFault> {
        let global = match Global::find(module, name) {
            Some(global) => global,
            None if module == "torch" || module.starts_with("torch.") => {
                let full: Rc<str> = format!("{module}.{name}").into();
                let known = self.unread.iter().position(|unread| *unread == full);
                Global::Unread(known.unwrap_or_else(|| {
                    self.unread.push(full);
                    self.unread.len() - 1
                }))
            }
            None => return Err(refused(format!("`{module}.{name}`"))),
        };
        self.stack.push(PickleValue::Global(global));
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), WeightsFault> {
        let arguments = self.pop()?;
        let PickleValue::Global(callee) = self.pop()? else {
            return Err(refused("a call of something that is no known function".to_owned()));
        };
        // Only the first four arguments are used; copying a long tuple at each call would take quadratic time.
        let arguments = self.tuple_items(&arguments)?;
        let arguments = arguments[..arguments.len().min(4)].to_vec();
        match (callee, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.make(PickleObject::Dictionary(vec![])),
            (Global::RebuildTensor, [storage, offset, shape, strides]) => {
                let tensor = self.tensor(storage, offset, shape, strides)?;
                self.make(tensor);
            }
            (Global::RebuildParameter | Global::RebuildParameterWithState, [tensor, ..]) => {
                self.stack.push(tensor.clone());
            }
            (Global::RebuildFromType, [function @ PickleValue::Global(inner), _, arguments, ..])
                if *inner != Global::RebuildFromType =>
            {
                self.stack.extend([function.clone(), arguments.clone()]);
                return self.reduce();
            }
            (Global::Unread(kind), _) => self.make(PickleObject::Unread(kind)),
            _ => return Err(refused(format!("a call of {callee:?} with {} arguments", arguments.len()))),
        }
        Ok(())
    }

    /// Sets the state of an object, which is ignored: torch only sets `_metadata` of an ordered dictionary, which says
    /// nothing about its tensors, and the state of objects that are not read.
    fn build(&mut self) -> Result<(), WeightsFault> {
        self.pop()?;
        match self.top_object() {
            Some(PickleObject::Dictionary(_) | PickleObject::Unread(_)) => Ok(()),
            _ => Err(refused("the state of something that is no dictionary".to_owned())),
        }
    }

    fn tensor(
        &self,
        storage: &PickleValue,
        offset: &PickleValue,
        shape: &PickleValue,
        strides: &PickleValue,
    ) -> Result<PickleObject, WeightsFault> {
        let storage = match self.object(storage) {
            Some(PickleObject::Storage(storage)) => storage.clone(),
            Some(&PickleObject::Unread(kind)) => return Ok(PickleObject::Unread(kind)),
            _ => return Err(DAMAGED),
        };
        Ok(PickleObject::Tensor(TensorReference {
            storage,
            offset: count(offset)?,
            shape: self.counts(shape)?,
            strides: self.counts(strides)?,
        }))
    }

    /// Creates the storage of a persistent identifier `('storage', class, key, location, length)`. The old stream format
    /// has a sixth item: `None` or `(key of the view, offset, length)`.
    fn persistent_storage(&mut self) -> Result<(), WeightsFault> {
        let identifier = self.pop()?;
        let (storage, view) = match self.tuple_items(&identifier)? {
            [PickleValue::Text(kind), class, key, _, _, view @ ..]
                if &**kind == "storage" && view.len() < 2 =>
            {
                if let &PickleValue::Global(Global::Unread(kind)) = class {
                    self.make(PickleObject::Unread(kind));
                    return Ok(());
                }
                let (PickleValue::Global(Global::Storage(class)), PickleValue::Text(key)) = (class, key)
                else {
                    return Err(DAMAGED);
                };
                let storage = StorageReference { class: *class, key: Rc::clone(key), start: 0 };
                (storage, view.first().cloned())
            }
            _ => return Err(refused("an unknown persistent identifier".to_owned())),
        };
        let start = match view {
            None | Some(PickleValue::None) => 0,
            Some(view) => count(self.tuple_items(&view)?.get(1).ok_or(DAMAGED)?)?,
        };
        self.make(PickleObject::Storage(StorageReference { start, ..storage }));
        Ok(())
    }

    fn object(&self, value: &PickleValue) -> Option<&PickleObject> {
        match value {
            PickleValue::Object(index) => self.objects.get(*index),
            _ => None,
        }
    }

    fn tuple_items(&self, value: &PickleValue) -> Result<&[PickleValue], WeightsFault> {
        match self.object(value) {
            Some(PickleObject::Tuple(items)) => Ok(items),
            _ => Err(DAMAGED),
        }
    }

    fn counts(&self, value: &PickleValue) -> Result<Vec<usize>, WeightsFault> {
        let items = self.tuple_items(value)?;
        if items.len() > MAXIMUM_AXES {
            return Err(DAMAGED);
        }
        items.iter().map(count).collect()
    }
}

fn count(value: &PickleValue) -> Result<usize, WeightsFault> {
    match value {
        PickleValue::Integer(number) => usize::try_from(*number).map_err(|_| DAMAGED),
        _ => Err(DAMAGED),
    }
}

/// Reads a little-endian two's complement number of at most eight bytes. No bytes mean 0.
fn sign_extended(bytes: &[u8]) -> i64 {
    let Some(last) = bytes.last() else { return 0 };
    let sign = if *last >= 0x80 { -1 } else { 0 };
    bytes.iter().rev().fold(sign, |number, &byte| number << 8 | i64::from(byte))
}

fn refused(what: String) -> WeightsFault {
    WeightsFault::Refused { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pickle: &[u8]) -> String {
        load(&mut &*pickle).unwrap_err().to_string()
    }

    #[test]
    fn unknown_opcodes_and_globals_are_named() {
        assert!(refusal(b"\x80\x02cos\nsystem\n.").starts_with("it asks for `os.system`"));
        assert!(refusal(b"\x80\x02ios\nsystem\n.").starts_with("it asks for pickle opcode 0x69"));
        assert!(refusal(b"ccollections\nOrderedDict\n(K\x01tR.").contains("OrderedDict with 1 arguments"));
        assert!(refusal(b"K\x01)R.").contains("no known function"));
    }

    #[test]
    fn programs_that_misuse_the_stack_are_damaged() {
        for pickle in
            [&b""[..], b".", b"(.", b"K\x01(0.", b"K\x01s.", b"]K\x01u.", b"}(K\x01u.", b"h\x00.", b"t."]
        {
            assert!(
                matches!(load(&mut &*pickle), Err(WeightsFault::Damaged { part: "pickle" })),
                "{pickle:?}"
            );
        }
        assert!(load(&mut &b"K\x01r\xff\xff\xff\xff."[..]).is_err(), "a memo far beyond the rest");
    }

    #[test]
    fn integers_keep_their_sign() {
        for (pickle, expected) in [
            (&b"K\xff."[..], 255),
            (b"M\x00\xff.", 0xff00),
            (b"J\xfe\xff\xff\xff.", -2),
            (b"\x8a\x02\x00\x80.", -32768),
            (b"\x8a\x00.", 0),
        ] {
            assert_eq!(load(&mut &*pickle).unwrap().value, PickleValue::Integer(expected));
        }
    }

    #[test]
    fn a_pickle_ends_at_its_stop() {
        let mut bytes = &b"N.rest"[..];
        assert_eq!(load(&mut bytes).unwrap().value, PickleValue::None);
        assert_eq!(bytes, b"rest");
    }

    #[test]
    fn a_dictionary_may_hold_itself() {
        let loaded = load(&mut &b"}q\x00X\x01\x00\x00\x00ah\x00s."[..]).unwrap();
        assert_eq!(loaded.objects.len(), 1);
    }
}
