//! A relay in front of a node that knows HTTP/2's frames, and stamps when a request was whole and its reply began.
//!
//! It stands outside of the node, so that what is measured holds whatever the node says of itself.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is read and passed on at a time: little, so that the last piece of a request is not long on its way.
const PIECE: usize = 64 << 10;
/// Of a frame. Source: RFC 9113, section 4.1.
const HEADER: usize = 9;
/// What a client begins with, in bytes. Source: RFC 9113, section 3.4.
const PREFACE: usize = 24;
/// The type of a frame with a message's bytes. Source: RFC 9113, section 6.1.
const DATA: u8 = 0;

/// When things went by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stamps {
    /// The last piece of a request's data was about to be handed to the node.
    pub request: Option<Instant>,
    /// The first piece of data came back after that.
    pub reply: Option<Instant>,
}

/// A relay of one connection.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    stamps: Arc<Mutex<Stamps>>,
}

impl Relay {
    /// Listens on a free port for one connection to `node`, to which it hands on no more than so many bytes a second.
    pub fn start(node: &str, bytes_per_s: Option<f64>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, stamps, node) = (listener.local_addr()?, Arc::<Mutex<Stamps>>::default(), node.to_owned());
        let kept = stamps.clone();
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            if let Err(error) = relay(&listener, (&node, bytes_per_s), &stamps) {
                tracing::debug!(%error, "relay ended");
            }
        })?;
        Ok(Self { address, stamps: kept })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen since it was asked last.
    pub fn take(&self) -> Stamps {
        std::mem::take(&mut *lock(&self.stamps))
    }
}

fn lock(stamps: &Mutex<Stamps>) -> std::sync::MutexGuard<'_, Stamps> {
    stamps.lock().unwrap_or_else(PoisonError::into_inner)
}

fn relay(
    listener: &TcpListener,
    (node, bytes_per_s): (&str, Option<f64>),
    stamps: &Arc<Mutex<Stamps>>,
) -> std::io::Result<()> {
    let (client, _) = listener.accept()?;
    let server = TcpStream::connect(node)?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    let (from, to, seen) = (client.try_clone()?, server.try_clone()?, stamps.clone());
    std::thread::Builder::new().name("relay-in".to_owned()).spawn(move || {
        let seen = || *lock(&seen) = Stamps { request: Some(Instant::now()), reply: None };
        let mut link = bytes_per_s.map(Link::of);
        let _ = pass_on((from, to), PREFACE, |length| link.iter_mut().for_each(|link| link.carry(length)), seen);
    })?;
    pass_on(
        (server, client),
        0,
        |_| {},
        || {
            let mut stamps = lock(stamps);
            if stamps.request.is_some() && stamps.reply.is_none() {
                stamps.reply = Some(Instant::now());
            }
        },
    )
}

/// A link of that speed: a piece has arrived when its last byte has.
struct Link {
    bytes_per_s: f64,
    /// When everything before has arrived.
    free: Instant,
}

impl Link {
    fn of(bytes_per_s: f64) -> Self {
        Self { bytes_per_s, free: Instant::now() }
    }

    /// Waits until a piece of that many bytes has arrived.
    fn carry(&mut self, length: usize) {
        let now = Instant::now();
        self.free = self.free.max(now) + Duration::from_secs_f64(length as f64 / self.bytes_per_s);
        std::thread::sleep(self.free.saturating_duration_since(now));
    }
}

/// Passes everything on. `arrive` waits until a piece of that length is there; then `data` is told of it where payload of
/// DATA frames is in it, before it is passed on.
fn pass_on(
    (mut from, mut to): (TcpStream, TcpStream),
    skip: usize,
    mut arrive: impl FnMut(usize),
    data: impl Fn(),
) -> std::io::Result<()> {
    let (mut piece, mut frames) = (vec![0; PIECE], Frames { skip, ..Frames::default() });
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        arrive(length);
        if frames.hold_data(&piece[..length]) {
            data();
        }
        to.write_all(&piece[..length])?;
    }
}

/// Where in a sequence of HTTP/2 frames one is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes that are no frame's.
    skip: usize,
    header: Vec<u8>,
    is_data: bool,
    /// Bytes of the frame's payload that are still to come.
    left: usize,
}

impl Frames {
    /// Takes the next bytes; says whether there is payload of DATA frames in them.
    fn hold_data(&mut self, mut bytes: &[u8]) -> bool {
        let mut held = false;
        while !bytes.is_empty() {
            let waiting = if self.skip > 0 { &mut self.skip } else { &mut self.left };
            if *waiting > 0 {
                let step = bytes.len().min(*waiting);
                *waiting -= step;
                bytes = &bytes[step..];
                held |= self.skip == 0 && self.is_data;
                continue;
            }
            let step = bytes.len().min(HEADER - self.header.len());
            self.header.extend_from_slice(&bytes[..step]);
            bytes = &bytes[step..];
            if let [a, b, c, kind, ..] = self.header[..]
                && self.header.len() == HEADER
            {
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.is_data = kind == DATA;
                self.header.clear();
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_of_data_frames_is_told_from_everything_else() {
        let frame = |kind: u8, length: usize| {
            let mut bytes = vec![0, 0, length as u8, kind, 0, 0, 0, 0, 1];
            bytes.resize(HEADER + length, 7);
            bytes
        };
        let stream = [vec![b'P'; PREFACE], frame(4, 6), frame(0, 5), frame(8, 4), frame(0, 0), frame(1, 3)].concat();
        // Whatever pieces it comes in, the bytes that are payload of DATA are the same five.
        for piece in 1..20 {
            let mut frames = Frames { skip: PREFACE, ..Frames::default() };
            let mut told = Vec::new();
            for (i, bytes) in stream.chunks(piece).enumerate() {
                if frames.hold_data(bytes) {
                    told.push(i);
                }
            }
            let payload = PREFACE + HEADER + 6 + HEADER..PREFACE + HEADER + 6 + HEADER + 5;
            let expected: Vec<usize> = (payload.start / piece..=(payload.end - 1) / piece).collect();
            assert_eq!(told, expected, "in pieces of {piece}");
        }
    }
}
