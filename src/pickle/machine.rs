//! The stack machine, without any instruction that does something.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::error::{PickleError, PickleErrorKind};
use super::opcode as op;
use super::value::{Pickle, Value, ValueId};
use super::{Limits, scalar};

/// Newest protocol there is.
const PROTOCOL: u8 = 5;

pub(super) struct Machine<'a> {
    cursor: Cursor<'a>,
    limits: Limits,
    pushed: usize,
    values: Vec<Value<'a>>,
    stack: Vec<ValueId>,
    /// Heights of the stack at the containers that are open.
    marks: Vec<usize>,
    memo: HashMap<u32, ValueId>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(input: &'a [u8], limits: Limits) -> Self {
        let (values, stack, marks) = (Vec::new(), Vec::new(), Vec::new());
        Self { cursor: Cursor::new(input), limits, pushed: 0, values, stack, marks, memo: HashMap::new() }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        loop {
            match self.cursor.opcode()? {
                op::STOP => break,
                op::PROTO => {
                    if self.cursor.array::<1>()?[0] > PROTOCOL {
                        return Err(self.error(PickleErrorKind::Protocol));
                    }
                }
                // Frames only say how much to read at once.
                op::FRAME => drop(self.cursor.array::<8>()?),
                opcode => self.step(opcode)?,
            }
        }
        let root = self.pop()?;
        Ok(Pickle { values: self.values, root })
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            op::NONE
            | op::NEWTRUE
            | op::NEWFALSE
            | op::INT
            | op::BININT
            | op::BININT1
            | op::BININT2
            | op::LONG
            | op::LONG1
            | op::LONG4
            | op::FLOAT
            | op::BINFLOAT => {
                let value = scalar::number(&mut self.cursor, opcode)?;
                self.push_new(value)
            }
            op::STRING
            | op::BINSTRING
            | op::SHORT_BINSTRING
            | op::BINBYTES
            | op::SHORT_BINBYTES
            | op::BINBYTES8
            | op::UNICODE
            | op::BINUNICODE
            | op::SHORT_BINUNICODE
            | op::BINUNICODE8 => {
                let value = scalar::string(&mut self.cursor, opcode)?;
                self.push_new(value)
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE | op::GET | op::BINGET | op::LONG_BINGET => {
                self.remember(opcode)
            }
            op::MARK => self.mark(),
            op::APPEND | op::APPENDS | op::ADDITEMS | op::SETITEM | op::SETITEMS => self.extend(opcode),
            op::EMPTY_LIST
            | op::LIST
            | op::EMPTY_TUPLE
            | op::TUPLE
            | op::TUPLE1
            | op::TUPLE2
            | op::TUPLE3
            | op::EMPTY_DICT
            | op::DICT
            | op::EMPTY_SET
            | op::FROZENSET => self.container(opcode),
            op::GLOBAL | op::STACK_GLOBAL | op::REDUCE | op::BUILD | op::BINPERSID if !self.limits.names.is_empty() => {
                self.note(opcode)
            }
            // What has a name but no arm above imports, calls or builds.
            _ => Err(self.error(match op::name(opcode) {
                Some(_) => PickleErrorKind::Refused,
                None => PickleErrorKind::Unknown,
            })),
        }
    }

    /// Notes a name, a call or a persistent id; what is not listed is refused.
    fn note(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            op::GLOBAL => {
                let (module, name) = (self.cursor.line()?, self.cursor.line()?);
                self.name([module, name].map(|part| String::from_utf8_lossy(part).into_owned()))
            }
            op::STACK_GLOBAL => {
                let parts = self.pop_many(2)?;
                let text = |id: &ValueId| match &self.values[id.0 as usize] {
                    Value::Text(text) => Ok(text.clone().into_owned()),
                    _ => Err(self.error(PickleErrorKind::Stack)),
                };
                let (module, name) = (text(&parts[0])?, text(&parts[1])?);
                self.name([module, name])
            }
            op::REDUCE => {
                let parts = self.pop_many(2)?;
                match (&self.values[parts[0].0 as usize], &self.values[parts[1].0 as usize]) {
                    // The one class that is plain data itself.
                    (Value::Name("collections.OrderedDict"), Value::Tuple(none)) if none.is_empty() => {
                        self.push_new(Value::Dict(Vec::new()))
                    }
                    (Value::Name(name), Value::Tuple(_)) => self.push_new(Value::Call { name, arguments: parts[1] }),
                    _ => Err(self.error(PickleErrorKind::Refused)),
                }
            }
            // Attributes of a dictionary, such as the versions of a state dict's modules: nobody asks for them.
            op::BUILD => {
                let object = self.pop_many(2)?[0];
                match self.values[object.0 as usize] {
                    Value::Dict(_) => self.push(object),
                    _ => Err(self.error(PickleErrorKind::Refused)),
                }
            }
            _ => {
                let what = self.pop()?;
                self.push_new(Value::Persistent(what))
            }
        }
    }

    fn name(&mut self, [module, name]: [String; 2]) -> Result<(), PickleError> {
        let full = format!("{module}.{name}");
        match self.limits.names.iter().find(|known| **known == full) {
            Some(known) => self.push_new(Value::Name(known)),
            None => Err(self.error(PickleErrorKind::Refused).naming(full)),
        }
    }

    /// Makes a container, of what the stack holds for it.
    fn container(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            op::EMPTY_LIST | op::EMPTY_SET => Value::List(Vec::new()),
            op::EMPTY_TUPLE => Value::Tuple(Vec::new()),
            op::EMPTY_DICT => Value::Dict(Vec::new()),
            op::LIST => Value::List(self.since_mark()?),
            op::TUPLE | op::FROZENSET => Value::Tuple(self.since_mark()?),
            op::TUPLE1 => Value::Tuple(self.pop_many(1)?),
            op::TUPLE2 => Value::Tuple(self.pop_many(2)?),
            op::TUPLE3 => Value::Tuple(self.pop_many(3)?),
            _ => {
                let items = self.since_mark()?;
                Value::Dict(self.pairs(&items)?)
            }
        };
        self.push_new(value)
    }

    /// Puts what the stack holds into the container below it.
    fn extend(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            op::APPEND => self.pop_many(1)?,
            op::SETITEM => self.pop_many(2)?,
            _ => self.since_mark()?,
        };
        let pairs = match opcode {
            op::SETITEM | op::SETITEMS => Some(self.pairs(&items)?),
            _ => None,
        };
        let container = self.top()?;
        match (&mut self.values[container.0 as usize], pairs) {
            (Value::List(list), None) => list.extend(items),
            (Value::Dict(dict), Some(pairs)) => dict.extend(pairs),
            _ => return Err(self.error(PickleErrorKind::Stack)),
        }
        Ok(())
    }

    /// Remembers the top of the stack, or recalls something.
    fn remember(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            op::PUT | op::GET => self.cursor.decimal()?,
            op::BINPUT | op::BINGET => u8::from_le_bytes(self.cursor.array()?).into(),
            op::MEMOIZE => self.memo.len() as u32,
            _ => u32::from_le_bytes(self.cursor.array()?),
        };
        if matches!(opcode, op::GET | op::BINGET | op::LONG_BINGET) {
            let value = self.memo.get(&key).copied();
            return self.push(value.ok_or_else(|| self.error(PickleErrorKind::Stack))?);
        }
        let top = self.top()?;
        self.memo.insert(key, top);
        // A pickler remembers each value once; without this a few bytes of input each could grow the memo.
        if self.memo.len() > self.values.len() {
            return Err(self.error(PickleErrorKind::Limit));
        }
        Ok(())
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        if self.marks.len() >= self.limits.depth {
            return Err(self.error(PickleErrorKind::Limit));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn push_new(&mut self, value: Value<'a>) -> Result<(), PickleError> {
        let id = u32::try_from(self.values.len()).map_err(|_| self.error(PickleErrorKind::Limit))?;
        self.push(ValueId(id))?;
        self.values.push(value);
        Ok(())
    }

    fn push(&mut self, id: ValueId) -> Result<(), PickleError> {
        if self.pushed >= self.limits.values {
            return Err(self.error(PickleErrorKind::Limit));
        }
        self.pushed += 1;
        self.stack.push(id);
        Ok(())
    }

    /// The `n` values on top, the lowest first; never past an open container's mark.
    fn pop_many(&mut self, n: usize) -> Result<Vec<ValueId>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(n).filter(|start| *start >= floor) {
            Some(start) => Ok(self.stack.drain(start..).collect()),
            None => Err(self.error(PickleErrorKind::Stack)),
        }
    }

    fn pop(&mut self) -> Result<ValueId, PickleError> {
        self.top()?;
        self.stack.pop().ok_or_else(|| self.error(PickleErrorKind::Stack))
    }

    fn top(&self) -> Result<ValueId, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.error(PickleErrorKind::Stack))
    }

    /// The values above the last mark, which is closed.
    fn since_mark(&mut self) -> Result<Vec<ValueId>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.error(PickleErrorKind::Stack))?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn pairs(&self, items: &[ValueId]) -> Result<Vec<(ValueId, ValueId)>, PickleError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.error(PickleErrorKind::Stack));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn error(&self, kind: PickleErrorKind) -> PickleError {
        self.cursor.error(kind)
    }
}
