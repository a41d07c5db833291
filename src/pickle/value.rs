//! What a pickle holds, and the typed way to it.

use std::borrow::Cow;

use super::machine::Machine;
use super::{Limits, PickleError};

/// Keys of a dictionary that is looked into by name; more are no record of a data set.
const MAX_FIELDS: usize = 64;

/// Index of a value in its pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueId(pub(super) u32);

/// One value; containers hold the indices of what is in them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
    /// A list, or a set in the order in which it was written.
    List(Vec<ValueId>),
    Tuple(Vec<ValueId>),
    /// Pairs in the order in which they were written; of equal keys the last counts.
    Dict(Vec<(ValueId, ValueId)>),
    /// One of the names that are listed.
    Name(&'static str),
    /// What calling that name with a tuple would have made.
    Call {
        name: &'static str,
        arguments: ValueId,
    },
    /// What is kept outside the pickle, by what it is known as there.
    Persistent(ValueId),
}

/// The values of one pickle, of `'a`, its bytes.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: ValueId,
}

impl<'a> Pickle<'a> {
    /// Reads the first pickle of `input`; what follows it is not looked at, as Python does.
    ///
    /// # Errors
    /// Every [`PickleError`].
    pub(crate) fn read(input: &'a [u8], limits: Limits) -> Result<Self, PickleError> {
        Machine::new(input, limits).run()
    }

    /// The value that Python would return.
    pub(crate) fn root(&self) -> ValueId {
        self.root
    }

    /// How many values there are, each counted once however often it is referred to.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The items of a list or tuple.
    pub(crate) fn items(&self, id: ValueId) -> Option<&[ValueId]> {
        match self.value(id) {
            Value::List(items) | Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// A dictionary of at most 64 keys, to be looked into by name.
    pub(crate) fn fields(&self, id: ValueId) -> Option<Fields<'_, 'a>> {
        match self.value(id) {
            Value::Dict(pairs) if pairs.len() <= MAX_FIELDS => Some(Fields { pickle: self, pairs }),
            _ => None,
        }
    }

    /// All pairs of a dictionary, as they were written.
    pub(crate) fn pairs(&self, id: ValueId) -> Option<&[(ValueId, ValueId)]> {
        match self.value(id) {
            Value::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// A listed name.
    pub(crate) fn name(&self, id: ValueId) -> Option<&'static str> {
        match self.value(id) {
            Value::Name(name) => Some(name),
            _ => None,
        }
    }

    /// A noted call: the listed name and its arguments.
    pub(crate) fn call(&self, id: ValueId) -> Option<(&'static str, &[ValueId])> {
        match self.value(id) {
            Value::Call { name, arguments } => Some((name, self.items(*arguments)?)),
            _ => None,
        }
    }

    /// What a persistent id is known as outside.
    pub(crate) fn persistent(&self, id: ValueId) -> Option<&[ValueId]> {
        match self.value(id) {
            Value::Persistent(what) => self.items(*what),
            _ => None,
        }
    }

    /// An integer; a boolean is none.
    pub(crate) fn int(&self, id: ValueId) -> Option<i64> {
        match self.value(id) {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// Text, or a byte string of Python 2: UTF-8 where it is, else Latin-1, which every byte string is.
    pub(crate) fn text(&self, id: ValueId) -> Option<Cow<'_, str>> {
        match self.value(id) {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Bytes(bytes) => Some(match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => bytes.iter().copied().map(char::from).collect(),
            }),
            _ => None,
        }
    }

    pub(super) fn value(&self, id: ValueId) -> &Value<'a> {
        &self.values[id.0 as usize]
    }
}

/// A dictionary whose keys are names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'p, 'a> {
    pickle: &'p Pickle<'a>,
    pairs: &'p [(ValueId, ValueId)],
}

impl Fields<'_, '_> {
    /// The value of a key.
    pub(crate) fn get(&self, name: &str) -> Option<ValueId> {
        let named = |key: ValueId| self.pickle.text(key).is_some_and(|text| text == name);
        self.pairs.iter().rev().find(|(key, _)| named(*key)).map(|(_, value)| *value)
    }
}
