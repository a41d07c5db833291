use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// An entry's name and bytes.
type Part<'a> = (&'a str, &'a [u8]);

/// A zip of stored entries, with local headers and a directory.
fn zip(parts: &[Part<'_>]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in parts {
        let at = file.len() as u32;
        let length = (bytes.len() as u32).to_le_bytes();
        let name_length = (name.len() as u16).to_le_bytes();
        // Version, flags, method, time, date, CRC (which nobody checks: weights are hashed as files).
        let common = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 4], &length, &length, &name_length, &[0; 2]].concat();
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
        let place = [&[0; 10][..], &at.to_le_bytes()].concat();
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &place, name.as_bytes()].concat());
    }
    let (start, bytes) = ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    let count = (parts.len() as u16).to_le_bytes();
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &bytes, &start, &[0; 2]].concat()
}

/// The pickle of `{name: tensor}`, as protocol 2 writes it.
fn pickle(name: &str, class: &str, count: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |items: &[u8]| {
        let items: Vec<u8> = items.iter().flat_map(|n| [b'K', *n]).collect();
        [b"(", &items[..], b"t"].concat()
    };
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    [
        &b"\x80\x02}"[..],
        &text(name),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        format!("ctorch\n{class}\n").as_bytes(),
        &text("0"),
        &text("cpu"),
        &[b'K', count, b't', b'Q', b'K', offset],
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

fn read(bytes: &[u8]) -> Result<HashMap<String, Located>, ImportError> {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("model.pt");
    fs::write(&path, bytes).expect("written");
    tensors_of(&path, 0)
}

/// Why it is refused, with what and where.
fn refused(bytes: &[u8]) -> String {
    let error = read(bytes).expect_err("refused");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    format!("{error}: {}", std::error::Error::source(&error).expect("a reason"))
}

#[test]
fn tensors_are_places_in_the_file() {
    let data: Vec<u8> = (0..24u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    let bytes = zip(&[
        ("m/data.pkl", &pickle("w", "FloatStorage", 24, 6, &[2, 3], &[3, 1])),
        ("m/data/0", &data),
        ("m/byteorder", b"little"),
    ]);
    let found = &read(&bytes).expect("well formed")["w"];
    assert_eq!((found.dtype, &found.shape[..], found.bytes), (Dtype::F32, &[2, 3][..], 24));
    assert!(found.lies_in_order());
    assert_eq!(bytes[found.offset as usize..][..24], data[24..48]);
}

#[test]
fn views_out_of_order_are_gathered() {
    let values: Vec<f32> = (0..6u8).map(f32::from).collect();
    assert_eq!(in_order(&values, &[3, 2], &[1, 3]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let data = [0; 24];
    let bytes = zip(&[("m/data.pkl", &pickle("w", "FloatStorage", 6, 0, &[3, 2], &[1, 3])), ("m/data/0", &data)]);
    assert_eq!(read(&bytes).expect("a view")["w"].strides, Some(vec![1, 3]));
}

#[test]
fn what_is_hostile_or_damaged_is_refused_with_its_place() {
    let data = [0u8; 24];
    let of = |pickle: &[u8]| zip(&[("m/data.pkl", pickle), ("m/data/0", &data)]);
    let float =
        |count, offset, shape: &[u8], strides: &[u8]| of(&pickle("w", "FloatStorage", count, offset, shape, strides));
    let system = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (of(system), "`posix.system`"),
        (of(&pickle("w", "CudaStorage", 6, 0, &[6], &[1])), "`torch.CudaStorage`"),
        (float(6, 1, &[6], &[1]), "at `w`: reaches beyond its storage"),
        (float(6, 0, &[2, 3], &[9, 1]), "at `w`: reaches beyond its storage"),
        (float(6, 0, &[255, 255], &[0, 0]), "at `w`: repeats elements"),
        (float(7, 0, &[6], &[1]), "at `w`: its storage `m/data/0` has 24 bytes"),
        (float(6, 0, &[6], &[1, 1]), "at `w`: has not as many strides"),
        (zip(&[("m/data.pkl", &pickle("w", "FloatStorage", 6, 0, &[6], &[1]))]), "`m/data/0` is missing"),
        (zip(&[("m/version", b"3")]), "holds no `data.pkl`"),
        (zip(&[("m/data.pkl", b"\x80\x02}."), ("m/byteorder", b"big")]), "not little-endian"),
        (of(b"\x80\x02}."), "holds no tensors"),
        (of(b"\x80\x02N."), "not a dictionary"),
        (zip(&[("m/data.pkl", b"\x80\x02}."), ("m/data.pkl", b"\x80\x02}.")]), "there twice"),
        (b"\x80\x02}.".to_vec(), "before 1.6"),
        (b"PK\x03\x04".to_vec(), "no zip, or is cut off"),
        (Vec::new(), "ends early"),
    ];
    for (bytes, expected) in cases {
        let why = refused(&bytes);
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn entries_that_overlap_or_lie_about_themselves_are_refused() {
    let good = zip(&[("m/data.pkl", b"\x80\x02}."), ("m/data/0", &[7; 40]), ("m/data/1", &[8; 40])]);
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").expect("a directory");
    let line = |n: usize| good.windows(4).enumerate().filter(|(_, w)| *w == b"PK\x01\x02").nth(n).expect("a line").0;
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        refused(&bytes)
    };
    let sizes = |bytes: u32| [bytes.to_le_bytes(), bytes.to_le_bytes()].concat();
    assert!(changed(line(1) + 20, &sizes(60)).contains("overlaps"));
    assert!(changed(line(2) + 20, &sizes(1 << 30)).contains("reaches into the directory"));
    assert!(changed(line(1) + 20, &1u32.to_le_bytes()).contains("another length"));
    assert!(changed(line(1) + 10, &[8, 0]).contains("compressed"));
    assert!(changed(line(1) + 8, &[1, 0]).contains("encrypted"));
    assert!(changed(line(1) + 42, &0u32.to_le_bytes()).contains("contradicts the directory"));
    assert!(changed(directory, b"XX").contains("directory is damaged"));
}

fn fixture() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints/sam-authors");
    fs::read(folder.join("sam.pth")).expect("the fixture is there")
}

#[test]
fn a_file_of_torch_is_read_whole_and_refused_cut() {
    let bytes = fixture();
    let tensors = read(&bytes).expect("written by torch");
    assert!(tensors.len() > 100);
    assert_eq!(tensors.values().filter(|t| !t.lies_in_order()).count(), 1);
    for keep in (0..bytes.len()).step_by(bytes.len() / 50) {
        assert!(read(&bytes[..keep]).is_err(), "{keep}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Bytes changed in the pickle and in the directory: an error, or tensors inside the file.
    #[test]
    fn damage_never_panics_nor_reaches_outside(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), early in any::<bool>()) {
        let mut bytes = fixture();
        let part = bytes.len().min(24_000);
        let start = if early { 0 } else { bytes.len() - part };
        for (index, byte) in changes {
            bytes[start + index.index(part)] = byte;
        }
        if let Ok(tensors) = read(&bytes) {
            for tensor in tensors.values() {
                prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
        }
    }
}
