//! The colour words, and which of them a sprite's pixels could also be called.

/// A colour word of `objects.csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Pink,
    Brown,
    White,
    Grey,
    Black,
}

impl Colour {
    /// Number of colour words.
    pub const COUNT: usize = 11;
    /// Every colour word.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Pink,
        Self::Brown,
        Self::White,
        Self::Grey,
        Self::Black,
    ];

    /// The word, in British spelling.
    pub fn word(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
            Self::Brown => "brown",
            Self::White => "white",
            Self::Grey => "grey",
            Self::Black => "black",
        }
    }

    /// Every way to write the word.
    pub fn spellings(self) -> &'static [&'static str] {
        match self {
            Self::Red => &["red"],
            Self::Orange => &["orange"],
            Self::Yellow => &["yellow"],
            Self::Green => &["green"],
            Self::Blue => &["blue"],
            Self::Purple => &["purple", "violet"],
            Self::Pink => &["pink"],
            Self::Brown => &["brown"],
            Self::White => &["white"],
            Self::Grey => &["grey", "gray"],
            Self::Black => &["black"],
        }
    }

    /// The colour that `word` stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.spellings().contains(&word))
    }

    /// Whether people may take one for the other, so that neither is clearly wrong.
    pub fn is_near(self, other: Self) -> bool {
        use Colour::*;
        const NEAR: [(Colour, Colour); 19] = [
            (Red, Pink),
            (Red, Orange),
            (Red, Brown),
            (Red, Purple),
            (Orange, Yellow),
            (Orange, Brown),
            (Orange, Pink),
            (Yellow, Brown),
            (Yellow, Green),
            (Pink, Purple),
            (Purple, Blue),
            (Purple, Black),
            (Purple, Grey),
            (Blue, Black),
            (Blue, Green),
            (Blue, Grey),
            (Grey, White),
            (Grey, Black),
            (Brown, Black),
        ];
        self == other || NEAR.iter().any(|&(a, b)| (a, b) == (self, other) || (b, a) == (self, other))
    }
}

/// Share of the opaque pixels (`rgba`: u8, 4 a pixel, straight alpha) that read as each colour word.
pub(crate) fn shares(rgba: &[u8]) -> [f32; Colour::COUNT] {
    let (mut counts, mut total) = ([0u32; Colour::COUNT], 0u32);
    for p in rgba.chunks_exact(4).filter(|p| p[3] > 127) {
        counts[classify([p[0], p[1], p[2]]) as usize] += 1;
        total += 1;
    }
    counts.map(|c| c as f32 / total.max(1) as f32)
}

fn classify(rgb: [u8; 3]) -> Colour {
    let [r, g, b] = rgb.map(|v| f32::from(v) / 255.0);
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = max - min;
    if max < 0.28 {
        return Colour::Black;
    }
    if chroma < 0.13 {
        return if max > 0.85 { Colour::White } else { Colour::Grey };
    }
    let hue = 60.0
        * if max == r {
            ((g - b) / chroma).rem_euclid(6.0)
        } else if max == g {
            (b - r) / chroma + 2.0
        } else {
            (r - g) / chroma + 4.0
        };
    let muted = max < 0.72 || (chroma / max < 0.6 && max < 0.9);
    match hue {
        h if !(14.0..345.0).contains(&h) => {
            if max < 0.55 {
                Colour::Brown
            } else {
                Colour::Red
            }
        }
        h if h < 42.0 => {
            if muted {
                Colour::Brown
            } else {
                Colour::Orange
            }
        }
        h if h < 68.0 => Colour::Yellow,
        h if h < 168.0 => Colour::Green,
        h if h < 250.0 => Colour::Blue,
        h if h < 305.0 => Colour::Purple,
        _ => Colour::Pink,
    }
}
