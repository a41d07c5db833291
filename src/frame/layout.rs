//! Where the rows of a raw frame lie. Every number here is the sender's, so every sum is made wide or saturates.

use super::{Encoding, FrameError, FrameErrorKind};

/// How the bytes of a frame are laid out. The default is that of a file, and with a size that of packed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// Columns; 0 in a file's case where the sender leaves it to the file.
    pub width: u32,
    /// Rows; likewise.
    pub height: u32,
    /// Bytes from one row to the next; 0 for packed rows. Ignored for files.
    pub step: u32,
    /// Two-byte samples have the high byte first. Ignored for others.
    pub big_endian: bool,
    /// Y, U and V use all of `0..=255`; otherwise Y is in `16..=235`, U and V in `16..=240`, as video has it and ROS
    /// takes for granted. Ignored for others.
    pub full_range: bool,
    /// Where the chroma plane of NV12 and NV21 begins, in bytes; 0 for right behind `height * step` bytes of luma.
    pub chroma_offset: u32,
    /// Bytes from one row of that plane to the next; 0 for the step of the luma.
    pub chroma_step: u32,
}

impl Layout {
    /// Packed rows of a raw frame.
    pub fn packed(width: u32, height: u32) -> Self {
        Self { width, height, ..Self::default() }
    }
}

/// One plane of a raw frame; its rows fit the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plane {
    offset: usize,
    step: usize,
    row: usize,
    rows: usize,
}

impl Plane {
    /// The rows, without their padding.
    pub(super) fn lines<'a>(&self, data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self { step, row, rows, .. } = *self;
        data[self.offset..].chunks(step).take(rows).map(move |line| &line[..row])
    }

    /// Whether the rows lie side by side and are all of the data.
    pub(super) fn is_packed(&self) -> bool {
        self.offset == 0 && self.step == self.row
    }
}

/// The planes of a raw frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planes {
    /// The only one, or the luma.
    pub first: Plane,
    /// U and V in pairs, a row for two of the luma.
    pub chroma: Option<Plane>,
}

fn refuse<T>(what: String) -> Result<T, FrameError> {
    Err(FrameError::new(FrameErrorKind::Layout, what))
}

/// A plane before it is held against the data.
struct Span {
    offset: u64,
    step: u64,
    row: u64,
    rows: u64,
}

impl Span {
    fn new(offset: u64, step: u64, row: u64, rows: u64, what: &str) -> Result<Self, FrameError> {
        if step < row {
            return refuse(format!("a {what} of {step} bytes is smaller than a row of {row}; leave it 0 where packed"));
        }
        Ok(Self { offset, step, row, rows })
    }

    /// Where the plane ends with the last row's padding.
    fn full(&self) -> u64 {
        self.offset.saturating_add(self.step.saturating_mul(self.rows))
    }

    /// Where it ends without.
    fn least(&self) -> u64 {
        self.offset.saturating_add(self.step.saturating_mul(self.rows - 1)).saturating_add(self.row)
    }

    /// Checks that the data ends with this plane.
    fn ends(&self, length: u64) -> Result<(), FrameError> {
        let Self { offset, step, row, rows } = self;
        let (full, least) = (self.full(), self.least());
        if length == full || length == least {
            return Ok(());
        }
        let also = if full == least { String::new() } else { format!(" (or {least}, the last row unpadded)") };
        let behind = if *offset == 0 { String::new() } else { format!(" behind {offset}") };
        refuse(format!("{length} bytes of data, expected {full}{also}: {rows} rows of {row} every {step}{behind}"))
    }

    /// What lies within the data fits memory.
    fn plane(&self) -> Plane {
        let fits = |v: u64| usize::try_from(v).expect("not longer than data that is in memory");
        // A single row may be followed by less than its step.
        let step = if self.rows == 1 { self.row } else { self.step };
        Plane { offset: fits(self.offset), step: fits(step), row: fits(self.row), rows: fits(self.rows) }
    }
}

/// Bytes of a row of the first plane.
pub(super) fn row_bytes(encoding: Encoding, width: u64) -> u64 {
    match encoding {
        // Files have no rows.
        Encoding::Jpeg | Encoding::Png | Encoding::Webp => 0,
        Encoding::Rgb8 | Encoding::Bgr8 => width * 3,
        Encoding::Rgba8 | Encoding::Bgra8 => width * 4,
        Encoding::Mono8 | Encoding::Bayer8(_) | Encoding::Nv12 | Encoding::Nv21 => width,
        Encoding::Mono16 | Encoding::Bayer16(_) | Encoding::Yuyv | Encoding::Uyvy => width * 2,
    }
}

/// The planes of a raw frame of at least one pixel, once they fit its data.
///
/// # Errors
/// [`FrameErrorKind::Layout`]; says what was expected.
pub(super) fn planes(encoding: Encoding, layout: &Layout, length: usize) -> Result<Planes, FrameError> {
    check_size(encoding, layout)?;
    let Layout { width, height, step, chroma_offset, chroma_step, .. } = *layout;
    let (height, length) = (u64::from(height), length as u64);
    let row = row_bytes(encoding, width.into());
    let or = |given: u32, otherwise: u64| if given == 0 { otherwise } else { u64::from(given) };
    let first = Span::new(0, or(step, row), row, height, "step")?;
    if !matches!(encoding, Encoding::Nv12 | Encoding::Nv21) {
        if (chroma_offset, chroma_step) != (0, 0) {
            return refuse(format!("{:?} has no chroma plane; leave its offset and step 0", encoding.name()));
        }
        first.ends(length)?;
        return Ok(Planes { first: first.plane(), chroma: None });
    }
    let offset = or(chroma_offset, first.full());
    if offset < first.least() {
        return refuse(format!(
            "the chroma plane begins at byte {offset}, inside the luma, which has {}",
            first.least()
        ));
    }
    let chroma = Span::new(offset, or(chroma_step, first.step), row, height / 2, "chroma step")?;
    chroma.ends(length)?;
    Ok(Planes { first: first.plane(), chroma: Some(chroma.plane()) })
}

/// What an encoding asks of width and height.
fn check_size(encoding: Encoding, layout: &Layout) -> Result<(), FrameError> {
    let Layout { width, height, .. } = *layout;
    let odd = |v: u32| v % 2 == 1;
    let what = match encoding {
        Encoding::Nv12 | Encoding::Nv21 if odd(width) || odd(height) => "even width and height",
        Encoding::Yuyv | Encoding::Uyvy if odd(width) => "an even width",
        Encoding::Bayer8(_) | Encoding::Bayer16(_) if width < 2 || height < 2 => "at least 2x2 pixels",
        _ => return Ok(()),
    };
    refuse(format!("{:?} needs {what}, not {width}x{height}; crop or pad it", encoding.name()))
}
