use proptest::prelude::*;

use super::*;

fn read(input: &[u8]) -> Result<Pickle<'_>, PickleError> {
    Pickle::read(input, Limits { values: 1 << 16, depth: 64, names: &[] })
}

/// A value as Python prints it, to compare whole pickles by.
fn show(pickle: &Pickle<'_>, id: ValueId) -> String {
    use super::value::Value::*;
    let list = |items: &[ValueId]| items.iter().map(|i| show(pickle, *i)).collect::<Vec<_>>().join(", ");
    match pickle.value(id) {
        None => "None".to_owned(),
        Bool(b) => format!("{b}"),
        Int(n) => n.to_string(),
        Float(f) => format!("{f:?}"),
        Bytes(_) => format!("b{:?}", pickle.text(id).expect("bytes are text")),
        Text(t) => format!("{t:?}"),
        List(items) => format!("[{}]", list(items)),
        Tuple(items) => format!("({})", list(items)),
        Name(name) => format!("<{name}>"),
        Call { name, arguments } => format!("{name}{}", show(pickle, *arguments)),
        Persistent(what) => format!("@{}", show(pickle, *what)),
        Dict(pairs) => {
            let pair = |(k, v): &(ValueId, ValueId)| format!("{}: {}", show(pickle, *k), show(pickle, *v));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// `tests/dataset/make_fixtures.py` writes one value in every protocol of Python 3.
#[test]
fn every_protocol_gives_the_same_value() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dataset/pickles");
    let expected = std::fs::read_to_string(folder.join("expected.txt")).expect("the fixture is there");
    let mut seen = 0;
    for name in ["protocol0", "protocol1", "protocol2", "protocol3", "protocol4", "protocol5"] {
        let bytes = std::fs::read(folder.join(name).with_extension("p")).expect("the fixture is there");
        let pickle = read(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(show(&pickle, pickle.root()), expected.trim_end(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn byte_strings_of_python_2_are_text() {
    let cases: [(&[u8], &str); 6] = [
        (b"S'left man'\np0\n.", "left man"),
        (b"S\"it's \\\"x\\\"\\n\"\n.", "it's \"x\"\n"),
        (b"S'caf\\xc3\\xa9'\n.", "caf\u{e9}"),
        (b"U\x04caf\xe9.", "caf\u{e9}"),
        (b"Vsnow \\u2603 \\ud83d\\ude00 \xe9\n.", "snow \u{2603} \u{1f600} \u{e9}"),
        (b"V\\U0001f600\n.", "\u{1f600}"),
    ];
    for (input, expected) in cases {
        let pickle = read(input).expect("well formed");
        assert_eq!(pickle.text(pickle.root()).as_deref(), Some(expected));
    }
}

#[test]
fn whatever_would_do_something_is_refused_by_name_and_place() {
    let cases: [(&[u8], &str, usize); 8] = [
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL", 0),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL", 14),
        (b"S'os'\n)R.", "REDUCE", 7),
        (b"(]}b.", "BUILD", 3),
        (b"(ios\nsystem\n.", "INST", 1),
        (b"\x80\x02))\x81.", "NEWOBJ", 4),
        (b"Pid\n.", "PERSID", 0),
        (b"N\x82\x01.", "EXT1", 1),
    ];
    for (input, name, at) in cases {
        let error = read(input).expect_err(name);
        assert_eq!((error.kind(), error.opcode_name(), error.at()), (PickleErrorKind::Refused, name, at));
        assert!(error.to_string().contains(&format!("{name} (0x")), "{error}");
    }
}

#[test]
fn names_that_are_listed_are_noted_and_never_called() {
    const NAMES: &[&str] = &["torch._utils._rebuild_tensor_v2", "collections.OrderedDict", "torch.FloatStorage"];
    let read = |input| Pickle::read(input, Limits { values: 1 << 16, depth: 64, names: NAMES });
    let cases: [(&[u8], &str); 4] = [
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", "torch._utils._rebuild_tensor_v2(1)"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R.", "{}"),
        (b"ccollections\nOrderedDict\n)R}b.", "{}"),
        (b"U\x01sctorch\nFloatStorage\n\x86Q.", "@(b\"s\", <torch.FloatStorage>)"),
    ];
    for (input, expected) in cases {
        let pickle = read(input).expect("listed");
        assert_eq!(show(&pickle, pickle.root()), expected);
    }
    let refused: [(&[u8], &str); 5] = [
        (b"cos\nsystem\n(S'true'\ntR.", "`os.system`"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "`os.system`"),
        (b"S'torch.FloatStorage'\n)R.", "REDUCE"),
        (b"(icollections\nOrderedDict\n.", "INST"),
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
    ];
    for (input, what) in refused {
        let error = read(input).expect_err(what);
        assert_eq!(error.kind(), PickleErrorKind::Refused, "{what}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn damage_is_named() {
    use PickleErrorKind::*;
    let cases: [(&[u8], PickleErrorKind, usize); 17] = [
        (b"", Truncated, 0),
        (b"N", Truncated, 1),
        (b"T\xff\xff\xff\xffab", Truncated, 0),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab", Truncated, 0),
        (b"S'ab", Truncated, 0),
        (b"S'ab\"\n.", Text, 0),
        (b"S'\\q'\n.", Text, 0),
        (b"V\\ud83d\n.", Text, 0),
        (b"X\x01\x00\x00\x00\xff.", Text, 0),
        (b"I12x\n.", Number, 0),
        (b"L99999999999999999999L\n.", Number, 0),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00.", Number, 0),
        (b".", Stack, 0),
        (b"](a.", Stack, 2),
        (b"}(Nu.", Stack, 3),
        (b"h\x07.", Stack, 0),
        (b"\x80\x09.", Protocol, 0),
    ];
    for (input, kind, at) in cases {
        let error = read(input).expect_err("damaged");
        assert_eq!((error.kind(), error.at()), (kind, at), "{input:?}: {error}");
    }
    assert_eq!(read(b"\xff").expect_err("unknown").kind(), Unknown);
}

#[test]
fn long_integers_keep_their_sign() {
    for (input, expected) in [
        (&b"\x8a\x00."[..], 0),
        (b"\x8a\x01\xff.", -1),
        (b"\x8a\x02\xff\x00.", 255),
        (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff.", -1),
        (b"\x8b\x01\x00\x00\x00\x80.", -128),
        (b"L-42L\n.", -42),
    ] {
        let pickle = read(input).expect("well formed");
        assert_eq!(pickle.int(pickle.root()), Some(expected));
    }
}

/// Each would take memory or stack without bound in a reader that copies or recurses.
#[test]
fn bombs_are_small_or_refused() {
    // A list of two references to the list before it, thirty times: 2^30 items if copied.
    let mut doubling = b"]q\x00".to_vec();
    for i in 0..30u8 {
        doubling.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']);
    }
    doubling.push(b'.');
    assert_eq!(read(&doubling).expect("small").len(), 31);
    // A list that holds itself.
    let cycle = read(b"]q\x00h\x00a.").expect("a cycle is data");
    assert_eq!(cycle.items(cycle.root()), Some(&[cycle.root()][..]));
    // A hundred thousand lists, each in the next.
    let mut nested = b"N".to_vec();
    nested.extend(std::iter::repeat_n(0x85, 60_000));
    nested.push(b'.');
    drop(read(&nested).expect("depth costs nothing"));
    let kind = |input: &[u8]| read(input).expect_err("a limit").kind();
    assert_eq!(kind(&[b'('; 100]), PickleErrorKind::Limit);
    assert_eq!(kind(&[b'N'; 1 << 17]), PickleErrorKind::Limit);
    assert_eq!(kind(&[&b"N"[..], &[0x94; 9]].concat()), PickleErrorKind::Limit);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&input);
    }

    /// Bytes drawn from the instructions themselves get further than random ones.
    #[test]
    fn arbitrary_programs_never_panic(ops in prop::collection::vec(prop::sample::select(PROGRAMS), 0..120)) {
        let mut input = ops.concat();
        input.push(b'.');
        if let Ok(pickle) = read(&input) {
            let root = pickle.root();
            let _ = (pickle.items(root).map(<[_]>::len), pickle.text(root), pickle.int(root));
            let _ = pickle.fields(root).and_then(|f| f.get("a"));
            prop_assert!(pickle.len() <= input.len());
        }
    }
}

const PROGRAMS: &[&[u8]] = &[
    b"N",
    b"K\x01",
    b"I01\n",
    b"U\x01a",
    b"S'a'\n",
    b"Vb\n",
    b"]",
    b"}",
    b")",
    b"(",
    b"l",
    b"d",
    b"t",
    b"a",
    b"e",
    b"s",
    b"u",
    b"q\x00",
    b"h\x00",
    b"q\x01",
    b"h\x01",
    b"\x94",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x88",
    b"G\x3f\xf0\x00\x00\x00\x00\x00\x00",
    b"\x8a\x01\x7f",
    b"C\x02\xff\x00",
    b"\x95\x00\x00\x00\x00\x00\x00\x00\x00",
];
