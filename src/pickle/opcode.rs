//! The instructions of pickles, protocols 0 to 5, by Python's names.
//!
//! Source: the Python standard library's documentation of `pickle` and `pickletools`.

macro_rules! opcodes {
    ($($name:ident = $byte:literal),* $(,)?) => {
        $(pub(super) const $name: u8 = $byte;)*

        /// The name of an instruction of this list.
        pub(super) fn listed(opcode: u8) -> Option<&'static str> {
            match opcode {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

/// Python's name of an instruction; `None` where no such instruction exists.
pub(super) fn name(opcode: u8) -> Option<&'static str> {
    listed(opcode).or_else(|| refused::listed(opcode))
}

opcodes! {
    // The frame around the program.
    PROTO = 0x80, FRAME = 0x95, STOP = b'.',
    // Constants and numbers.
    NONE = b'N', NEWTRUE = 0x88, NEWFALSE = 0x89, INT = b'I', BININT = b'J', BININT1 = b'K', BININT2 = b'M',
    LONG = b'L', LONG1 = 0x8a, LONG4 = 0x8b, FLOAT = b'F', BINFLOAT = b'G',
    // Byte strings of Python 2 and 3, and text.
    STRING = b'S', BINSTRING = b'T', SHORT_BINSTRING = b'U', BINBYTES = b'B', SHORT_BINBYTES = b'C', BINBYTES8 = 0x8e,
    UNICODE = b'V', BINUNICODE = b'X', SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d,
    // Containers.
    MARK = b'(', EMPTY_LIST = b']', LIST = b'l', APPEND = b'a', APPENDS = b'e', EMPTY_TUPLE = b')', TUPLE = b't',
    TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, EMPTY_DICT = b'}', DICT = b'd', SETITEM = b's', SETITEMS = b'u',
    EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
    // The memo.
    PUT = b'p', BINPUT = b'q', LONG_BINPUT = b'r', MEMOIZE = 0x94, GET = b'g', BINGET = b'h', LONG_BINGET = b'j',
    // What names, calls or stands for something: refused unless names are listed.
    GLOBAL = b'c', STACK_GLOBAL = 0x93, REDUCE = b'R', BUILD = b'b', BINPERSID = b'Q',
}

/// Instructions that are refused: they import, call or build, or no pickler writes them for plain data.
mod refused {
    opcodes! {
        INST = b'i', OBJ = b'o', NEWOBJ = 0x81,
        NEWOBJ_EX = 0x92, EXT1 = 0x82, EXT2 = 0x83, EXT4 = 0x84, PERSID = b'P',
        POP = b'0', POP_MARK = b'1', DUP = b'2', BYTEARRAY8 = 0x96, NEXT_BUFFER = 0x97, READONLY_BUFFER = 0x98,
    }
}
