//! The precisions that weights are stored in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;

/// How the weights of a model are stored. Activations and the KV cache are 32-bit floats in all of them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// 16-bit floats; norms and biases stay 32-bit.
    Fp16,
    /// Symmetric 8-bit integers with one 32-bit scale for each output channel; norms and biases stay 32-bit.
    Int8Wo,
}

impl Precision {
    pub const ALL: [Self; 3] = [Self::Fp32, Self::Fp16, Self::Int8Wo];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8Wo => "int8_wo",
        }
    }

    /// What the precision does to a weight, as recorded in `quantization.json`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Fp32 | Self::Fp16 => "cast",
            Self::Int8Wo => "symmetric, one scale per output channel, weights only",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self, EngineError> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| EngineError::UnknownPrecision { name: name.to_owned() })
    }
}
