//! Recordings on disks that fail.

use std::io::{Cursor, Seek, SeekFrom, Write};

use super::*;
use wire::perceive_request::Request;

fn recorder(folder: &Path, max_bytes: u64) -> Recorder {
    let about = About::from([("engine".to_owned(), "none".to_owned())]);
    Recorder::new(RecordConfig { folder: folder.to_owned(), max_bytes, draft: Drafting::default() }, about)
        .expect("makes its folder")
}

fn frame(bytes: usize) -> wire::PerceiveRequest {
    let frame = wire::Frame { encoding: "jpeg".into(), data: vec![7; bytes].into(), ..Default::default() };
    wire::PerceiveRequest { request: Some(Request::Frame(frame)), options: None }
}

/// Waits for the thread.
fn over(done: &AtomicBool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done.load(Ordering::Acquire) {
        assert!(Instant::now() < until, "the recording does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes so many bytes, like a disk that is almost full.
struct Full {
    inner: Cursor<Vec<u8>>,
    left: usize,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.left {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.left -= bytes.len();
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn a_full_disk_stops_the_recording_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = recorder(folder.path(), u64::MAX);
    // From one that takes nothing at all to one that takes two frames.
    for left in [0, 1000, 100_000, 3_000_000] {
        let before = recorder.failed();
        let out = Full { inner: Cursor::default(), left };
        let record = StreamRecord::begin(Path::new("full.mcap"), || Ok(Box::new(out)), &recorder).expect("a thread");
        for number in 1..=6 {
            record.request(number, &frame(1 << 20));
        }
        record.end();
        over(&record.done);
        record.request(7, &frame(10));
        assert_eq!(recorder.failed(), before + 1, "{left}");
    }
}

#[test]
fn a_disk_that_hangs_stops_the_recording_and_nothing_else() {
    /// Hangs until it is let go.
    struct Hanging(std::sync::mpsc::Receiver<()>, Cursor<Vec<u8>>);
    impl Write for Hanging {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl Seek for Hanging {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.1.seek(to)
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = recorder(folder.path(), u64::MAX);
    let (let_go, held) = std::sync::mpsc::channel();
    let out = Hanging(held, Cursor::default());
    let record = StreamRecord::begin(Path::new("slow.mcap"), || Ok(Box::new(out)), &recorder).expect("a thread");
    let mut sent = 0;
    while recorder.failed() == 0 {
        sent += 1;
        assert!(sent < 100, "the queue has no end");
        record.request(sent, &frame(8 << 20));
    }
    assert!(record.shared.queued.load(Ordering::Acquire) <= QUEUE_BYTES + (9 << 20), "memory is bounded");
    drop(let_go);
    over(&record.done);
    assert_eq!(recorder.failed(), 1);
}

#[test]
fn what_was_written_is_read_and_damage_has_a_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = recorder(folder.path(), u64::MAX);
    let record = recorder.stream().expect("begins");
    let sent: Vec<_> = (1..=20).map(|i| frame(50_000 + i)).collect();
    sent.iter().enumerate().for_each(|(i, request)| record.request(i as u64 + 1, request));
    record.reply(&wire::PerceiveResponse::default());
    record.saw(Step::Decoded);
    record.end();
    over(&record.done);
    let path = std::fs::read_dir(folder.path()).expect("is there").next().expect("one file").expect("is readable");
    let bytes = std::fs::read(path.path()).expect("is readable");
    let read = |bytes: Vec<u8>| {
        let length = bytes.len() as u64;
        let mut recording = Recording::new(Box::new(Cursor::new(bytes)), length)?;
        let mut entries = Vec::new();
        while let Some(entry) = recording.next_entry()? {
            entries.push(entry);
        }
        Ok::<_, RecordingError>(entries)
    };
    let entries = read(bytes.clone()).expect("is whole");
    assert_eq!(entries.len(), 22);
    for (i, request) in sent.iter().enumerate() {
        assert!(matches!(&entries[i], Entry::Request(n, r) if *n == i as u64 + 1 && **r == *request), "{i}");
    }
    assert!(matches!(entries[20], Entry::Reply(_)) && matches!(entries[21], Entry::Step(_)));
    // Cut anywhere.
    for keep in (0..bytes.len()).step_by(bytes.len() / 97) {
        let error = read(bytes[..keep].to_vec()).expect_err("is cut");
        assert_eq!((error.kind(), error.at()), (RecordingErrorKind::Truncated, keep as u64), "{error}");
    }
    // One bit of the pictures turned.
    for at in (bytes.len() / 4..bytes.len() * 3 / 4).step_by(bytes.len() / 31) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let error = read(bytes).expect_err("is damaged");
        assert!(error.to_string().contains("near byte"), "{error}");
    }
    assert_eq!(read(vec![0; 100]).expect_err("is none").kind(), RecordingErrorKind::Foreign);
    let mut none = Cursor::new(Vec::new());
    mcap::Writer::new(&mut none).expect("writes").finish().expect("writes");
    assert_eq!(read(none.into_inner()).expect_err("is another's").kind(), RecordingErrorKind::Foreign);
}

#[test]
fn a_stream_without_a_request_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = recorder(folder.path(), u64::MAX);
    let record = recorder.stream().expect("begins");
    let done = record.done.clone();
    drop(record);
    over(&done);
    assert_eq!((std::fs::read_dir(folder.path()).expect("is there").count(), recorder.failed()), (0, 0));
}

#[test]
fn a_limit_leaves_a_whole_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorder = recorder(folder.path(), 3 << 20);
    let record = recorder.stream().expect("begins");
    for number in 1..=8 {
        record.request(number, &frame(1 << 20));
    }
    over(&record.done);
    assert_eq!(recorder.failed(), 1);
    let path = std::fs::read_dir(folder.path()).expect("is there").next().expect("one file").expect("is readable");
    let mut recording = Recording::open(&path.path()).expect("is a recording");
    let mut requests = 0;
    while let Some(entry) = recording.next_entry().expect("is whole") {
        assert!(matches!(entry, Entry::Request(..)));
        requests += 1;
    }
    assert_eq!(requests, 2);
}
