//! Elements of tensors on their way to a plan's types and back.

use half::f16;

use crate::engine::{Data, DataType};

/// Type of the elements of a plan's input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I32,
    Bool,
    U8,
    I64,
}

impl Element {
    /// The type that TensorRT's number stands for; `None` where no graph of ours has it.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::F32),
            1 => Some(Self::F16),
            3 => Some(Self::I32),
            4 => Some(Self::Bool),
            5 => Some(Self::U8),
            8 => Some(Self::I64),
            _ => None,
        }
    }

    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I32 => "i32",
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::I64 => "i64",
        }
    }

    /// Size of one, in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// What the host calls it.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::F32 | Self::F16 => DataType::F32,
            Self::I32 | Self::Bool | Self::I64 => DataType::I32,
            Self::U8 => DataType::U8,
        }
    }

    /// Writes `data`, which is of [`data_type`](Self::data_type), to the front of `to`, which has room for it.
    ///
    /// # Errors
    /// Says which value 16 bits do not hold.
    pub(super) fn write(self, data: &Data<'_>, to: &mut [u8]) -> Result<(), String> {
        match (self, data) {
            (Self::F32, Data::F32(values)) => pack(values, to, f32::to_ne_bytes),
            (Self::F16, Data::F32(values)) => {
                let beyond = |value: &&f32| value.is_finite() && !f16::from_f32(**value).is_finite();
                if let Some(value) = values.iter().find(beyond) {
                    return Err(format!("{value} is beyond what 16-bit floats hold; build the plan with fp32"));
                }
                pack(values, to, |value| f16::from_f32(value).to_ne_bytes());
            }
            (Self::I32, Data::I32(values)) => pack(values, to, i32::to_ne_bytes),
            (Self::Bool, Data::I32(values)) => pack(values, to, |value| [u8::from(value != 0)]),
            (Self::U8, Data::U8(values)) => to[..values.len()].copy_from_slice(values),
            (Self::I64, Data::I32(values)) => pack(values, to, |value| i64::from(value).to_ne_bytes()),
            (_, data) => return Err(format!("is {data:?}, not of the plan's type")),
        }
        Ok(())
    }

    /// Reads all of `from`.
    ///
    /// # Errors
    /// Says which value 32 bits do not hold.
    pub(super) fn read(self, from: &[u8]) -> Result<Data<'static>, String> {
        Ok(match self {
            Self::F32 => Data::F32(unpack(from, f32::from_ne_bytes).into()),
            Self::F16 => Data::F32(unpack(from, |bytes| f16::from_ne_bytes(bytes).to_f32()).into()),
            Self::I32 => Data::I32(unpack(from, i32::from_ne_bytes).into()),
            Self::Bool => Data::I32(unpack(from, |[byte]: [u8; 1]| i32::from(byte != 0)).into()),
            Self::U8 => Data::U8(from.to_vec().into()),
            Self::I64 => {
                let narrow = |value: i64| i32::try_from(value).map_err(|_| format!("{value} is beyond 32 bits"));
                let values = unpack(from, i64::from_ne_bytes).into_iter().map(narrow);
                Data::I32(values.collect::<Result<Vec<_>, _>>()?.into())
            }
        })
    }
}

fn pack<T: Copy, const N: usize>(values: &[T], to: &mut [u8], bytes: impl Fn(T) -> [u8; N]) {
    for (to, value) in to.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *to = bytes(*value);
    }
}

fn unpack<T, const N: usize>(from: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    from.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn there_and_back(element: Element, data: &Data<'_>, count: usize) -> Data<'static> {
        let mut bytes = vec![0xEE; count * element.size()];
        element.write(data, &mut bytes).unwrap();
        element.read(&bytes).unwrap()
    }

    #[test]
    fn values_come_back() {
        let floats = Data::F32(vec![0.0, -1.5, f32::NEG_INFINITY, 2048.0].into());
        for element in [Element::F32, Element::F16] {
            assert_eq!(there_and_back(element, &floats, 4), floats);
        }
        let whole = Data::I32(vec![0, 1, -7, i32::MAX].into());
        for element in [Element::I32, Element::I64] {
            assert_eq!(there_and_back(element, &whole, 4), whole);
        }
        let bytes = Data::U8(vec![0, 1, 128, 255].into());
        assert_eq!(there_and_back(Element::U8, &bytes, 4), bytes);
        assert_eq!(there_and_back(Element::Bool, &whole, 4), Data::I32(vec![0, 1, 1, 1].into()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = Element::F16.write(&Data::F32(vec![1.0, 70_000.0].into()), &mut [0; 4]).unwrap_err();
        assert!(error.contains("70000") && error.contains("fp32"), "{error}");
        let error = Element::I64.read(&(1_i64 << 40).to_ne_bytes()).unwrap_err();
        assert!(error.contains("1099511627776"), "{error}");
        assert!(Element::I64.write(&Data::F32(vec![1.0].into()), &mut [0; 8]).is_err());
        assert_eq!(Element::from_number(2), None);
    }
}
