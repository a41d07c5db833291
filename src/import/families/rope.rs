//! Rotary positions of text models: what angle each pair of a head's dimensions turns by, and along which axis.
//!
//! Source: `transformers`, `modeling_rope_utils.py`; arXiv 2309.00071 (YaRN); arXiv 2409.12191 (three axes).

use std::f64::consts::PI;

use crate::import::attention::Turns;
use crate::import::config::Config;
use crate::import::error::ImportError;

/// Rotary positions as a configuration describes them.
#[derive(Debug)]
pub(super) struct Rope {
    /// Angle a position, for each pair of a head's dimensions.
    frequencies: Vec<f32>,
    /// What cosine and sine are multiplied by; 1 but for YaRN.
    scale: f32,
    /// For models whose positions have three axes (time, row, column): which one turns each pair.
    axes: Option<Vec<usize>>,
}

/// How positions with several axes share a head's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axes {
    /// There is one axis.
    One,
    /// Three, and the first of them has the first dimensions.
    Sections,
    /// Three, and they take turns.
    Interleaved,
}

impl Rope {
    /// Reads `rope_parameters`, as 5.x writes them; before, their parts were `rope_theta` and `rope_scaling`.
    pub(super) fn read(config: &Config, width: usize, theta: f64, axes: Axes) -> Result<Self, ImportError> {
        let key = if config.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let parameters = config.part(key)?;
        let theta = match parameters.get("rope_theta") {
            Some(_) => parameters.number("rope_theta", theta)?,
            None => config.number("rope_theta", theta)?,
        };
        if theta <= 1.0 {
            return Err(config.unsupported("rope_theta", "is not above 1"));
        }
        let base: Vec<f64> = (0..width / 2).map(|i| theta.powf(2.0 * i as f64 / width as f64).recip()).collect();
        let (frequencies, scale) = scaled(&parameters, &base, theta, axes)?;
        Ok(Self {
            frequencies: frequencies.into_iter().map(|f| f as f32).collect(),
            scale: scale as f32,
            axes: sections(&parameters, width / 2, axes)?,
        })
    }

    /// Whether positions have three axes.
    pub(super) fn has_axes(&self) -> bool {
        self.axes.is_some()
    }

    /// What a decoder's attention needs of it.
    pub(super) fn turns(&self) -> Turns<'_> {
        Turns { frequencies: &self.frequencies, axes: self.axes.as_deref(), scale: self.scale }
    }
}

/// The frequencies as the parameters stretch them, and the factor of cosine and sine.
fn scaled(parameters: &Config, base: &[f64], theta: f64, axes: Axes) -> Result<(Vec<f64>, f64), ImportError> {
    match parameters.text("rope_type", parameters.text("type", "default")?)? {
        "default" => Ok((base.to_vec(), 1.0)),
        "mrope" if axes != Axes::One => Ok((base.to_vec(), 1.0)),
        "linear" => {
            let factor = positive(parameters, "factor")?;
            Ok((base.iter().map(|f| f / factor).collect(), 1.0))
        }
        "llama3" => {
            let factor = positive(parameters, "factor")?;
            let low = positive(parameters, "low_freq_factor")?;
            let high = positive(parameters, "high_freq_factor")?;
            let context = positive(parameters, "original_max_position_embeddings")?;
            Ok((base.iter().map(|f| stretch(*f, factor, low, high, context)).collect(), 1.0))
        }
        "yarn" => yarn(parameters, base, theta),
        other => {
            let why = format!("`{other}` is none of default, linear, llama3, yarn");
            Err(parameters.unsupported("rope_type", why))
        }
    }
}

/// Llama 3's scaling: long waves are stretched by `factor`, short ones kept, those between interpolated.
fn stretch(frequency: f64, factor: f64, low: f64, high: f64, context: f64) -> f64 {
    let wavelength = 2.0 * PI / frequency;
    if wavelength > context / low {
        frequency / factor
    } else if wavelength < context / high {
        frequency
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

/// YaRN: a ramp over the dimensions from kept to stretched, and attention that is sharpened.
fn yarn(parameters: &Config, base: &[f64], theta: f64) -> Result<(Vec<f64>, f64), ImportError> {
    let factor = positive(parameters, "factor")?;
    let context = positive(parameters, "original_max_position_embeddings")?;
    let (fast, slow) = (parameters.number("beta_fast", 32.0)?, parameters.number("beta_slow", 1.0)?);
    if !(fast > 0.0 && slow > 0.0) {
        return Err(parameters.unsupported("beta_fast", "and beta_slow must be positive"));
    }
    let width = 2.0 * base.len() as f64;
    let turns = |n: f64| width * (context / (n * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (turns(fast), turns(slow));
    if parameters.flag("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(width - 1.0));
    if low == high {
        high += 0.001;
    }
    let ramp = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
    let frequencies = base.iter().enumerate().map(|(i, f)| f / factor * ramp(i) + f * (1.0 - ramp(i))).collect();
    Ok((frequencies, yarn_scale(parameters, factor)?))
}

fn yarn_scale(parameters: &Config, factor: f64) -> Result<f64, ImportError> {
    let grown = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let inferred = match (parameters.number("mscale", 0.0)?, parameters.number("mscale_all_dim", 0.0)?) {
        (one, all) if one != 0.0 && all != 0.0 => grown(one) / grown(all),
        _ => grown(1.0),
    };
    parameters.number("attention_factor", inferred)
}

/// The axis of each of `pairs` pairs of dimensions.
fn sections(parameters: &Config, pairs: usize, axes: Axes) -> Result<Option<Vec<usize>>, ImportError> {
    const KEY: &str = "mrope_section";
    if axes == Axes::One {
        return Ok(None);
    }
    let default: &[i64] = if axes == Axes::Interleaved { &[24, 20, 20] } else { &[16, 24, 24] };
    let sizes = parameters.integers(KEY, default)?;
    let &[time, row, column] = &sizes[..] else { return Err(parameters.unsupported(KEY, "is not of three axes")) };
    let whole = sizes.iter().try_fold(0i64, |sum, n| if *n < 0 { None } else { sum.checked_add(*n) });
    if whole != Some(pairs as i64) {
        return Err(parameters.unsupported(KEY, format!("does not add up to {pairs}, half the width of a head")));
    }
    let axis = |pair: i64| match axes {
        Axes::Interleaved if pair % 3 == 1 && pair < 3 * row => 1,
        Axes::Interleaved if pair % 3 == 2 && pair < 3 * column => 2,
        Axes::Interleaved => 0,
        _ if pair < time => 0,
        _ => 1 + usize::from(pair >= time + row),
    };
    Ok(Some((0..pairs as i64).map(axis).collect()))
}

fn positive(config: &Config, key: &str) -> Result<f64, ImportError> {
    let value = config.number(key, 0.0)?;
    if value > 0.0 { Ok(value) } else { Err(config.unsupported(key, "must be given and positive")) }
}
