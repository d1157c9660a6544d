//! Tensors in safetensors files, read and written one at a time: memory holds one tensor, not one model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;

use crate::engine::EngineError;
use crate::engine::config::read_json;

/// A header larger than this is no safetensors file.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The header's length stands before it.
const HEADER_LENGTH_BYTES: u64 = 8;

/// Name, type and shape of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outline {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Outline {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product: usize, size| product.saturating_mul(*size))
    }

    /// A tensor file holds bytes, so types of less than a byte never get here.
    fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.bitsize() / 8)
    }
}

/// A tensor's bytes, little-endian and row-major.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) outline: Outline,
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    pub(crate) fn error(&self, complaint: impl Into<String>) -> EngineError {
        EngineError::Tensor { name: self.outline.name.clone(), complaint: complaint.into() }
    }

    /// Rows and columns of a matrix.
    pub(crate) fn matrix_shape(&self) -> Result<(usize, usize), EngineError> {
        match *self.outline.shape {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(self.error(format!("shape {:?} is not a matrix", self.outline.shape))),
        }
    }

    pub(crate) fn to_f32(&self) -> Result<Vec<f32>, EngineError> {
        let words = || self.bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        match self.outline.dtype {
            Dtype::F32 => Ok(self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            Dtype::F16 => {
                let halves = self.to_f16()?;
                let mut floats = vec![0.0; halves.len()];
                halves.convert_to_f32_slice(&mut floats);
                Ok(floats)
            }
            Dtype::BF16 => Ok(words().map(|bits| bf16::from_bits(bits).to_f32()).collect()),
            other => Err(self.error(format!("type {other:?} is not a float that the engine reads"))),
        }
    }

    pub(crate) fn to_f16(&self) -> Result<Vec<f16>, EngineError> {
        if self.outline.dtype == Dtype::F16 {
            return Ok(self.bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect());
        }
        let halves: Vec<f16> = self.to_f32()?.into_iter().map(f16::from_f32).collect();
        if halves.iter().any(|half| !half.is_finite()) {
            return Err(self.error("a weight is not finite as a 16-bit float"));
        }
        Ok(halves)
    }

    pub(crate) fn to_i8(&self) -> Result<Vec<i8>, EngineError> {
        match self.outline.dtype {
            Dtype::I8 => Ok(self.bytes.iter().map(|byte| byte.cast_signed()).collect()),
            other => Err(self.error(format!("type {other:?} is not I8"))),
        }
    }
}

#[derive(Debug)]
struct Place {
    file: PathBuf,
    outline: Outline,
    start: u64,
}

/// The tensors of one or several files, by name.
#[derive(Debug)]
pub(crate) struct Shards {
    path: PathBuf,
    places: BTreeMap<String, Place>,
}

impl Shards {
    /// Opens the weights of a Hugging Face folder: `model.safetensors`, or the files that its index names.
    pub(crate) fn of_checkpoint(folder: &Path) -> Result<Self, EngineError> {
        let index = folder.join("model.safetensors.index.json");
        if !index.exists() {
            return Self::open(folder, ["model.safetensors".to_owned()]);
        }
        let json: Value = read_json(&index)?;
        let files: BTreeSet<String> = json["weight_map"]
            .as_object()
            .map(|map| map.values().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        if files.is_empty() || files.iter().any(|file| file.contains(['/', '\\'])) {
            return Err(EngineError::Tensors {
                path: index,
                complaint: "`weight_map` names no files beside it".to_owned(),
            });
        }
        Self::open(folder, files)
    }

    /// Opens files of a folder.
    pub(crate) fn open(folder: &Path, files: impl IntoIterator<Item = String>) -> Result<Self, EngineError> {
        let mut places = BTreeMap::new();
        for file in files {
            let path = folder.join(file);
            for place in read_header(&path)? {
                places.insert(place.outline.name.clone(), place);
            }
        }
        Ok(Self { path: folder.to_owned(), places })
    }

    pub(crate) fn outlines(&self) -> impl Iterator<Item = &Outline> {
        self.places.values().map(|place| &place.outline)
    }

    pub(crate) fn outline(&self, name: &str) -> Result<&Outline, EngineError> {
        self.place(name).map(|place| &place.outline)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    pub(crate) fn read(&self, name: &str) -> Result<Stored, EngineError> {
        let place = self.place(name)?;
        let mut bytes = vec![0; place.outline.bytes()];
        let mut file = File::open(&place.file).map_err(EngineError::file("open", &place.file))?;
        file.seek(SeekFrom::Start(place.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(EngineError::file("read", &place.file))?;
        Ok(Stored { outline: place.outline.clone(), bytes })
    }

    fn place(&self, name: &str) -> Result<&Place, EngineError> {
        self.places.get(name).ok_or_else(|| EngineError::Tensor {
            name: name.to_owned(),
            complaint: format!("missing in `{}`", self.path.display()),
        })
    }
}

fn read_header(path: &Path) -> Result<Vec<Place>, EngineError> {
    let complain = |complaint: String| EngineError::Tensors { path: path.to_owned(), complaint };
    let mut file = File::open(path).map_err(EngineError::file("open", path))?;
    let file_bytes = file.metadata().map_err(EngineError::file("read", path))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(EngineError::file("read", path))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES.min(file_bytes) {
        return Err(complain("no safetensors header".to_owned()));
    }
    let mut header = Vec::new();
    file.take(header_bytes).read_to_end(&mut header).map_err(EngineError::file("read", path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| complain(e.to_string()))?;
    let data_start = HEADER_LENGTH_BYTES + header_bytes;
    let mut places = Vec::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let outline = Outline { name, dtype: info.dtype, shape: info.shape.clone() };
        let name = &outline.name;
        if end.checked_sub(start) != Some(outline.bytes()) {
            return Err(complain(format!("tensor `{name}` has not the bytes of its shape")));
        }
        if data_start.saturating_add(end as u64) > file_bytes {
            return Err(complain(format!("cut short: tensor `{name}` ends after the file")));
        }
        places.push(Place { file: path.to_owned(), outline, start: data_start + start as u64 });
    }
    Ok(places)
}

/// A safetensors file being written: the outlines first, then each tensor's bytes in the same order.
pub(crate) struct TensorWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl TensorWriter {
    /// Writes the header.
    pub(crate) fn create(path: &Path, outlines: &[Outline]) -> Result<Self, EngineError> {
        let mut offset = 0;
        let tensors = outlines.iter().map(|outline| {
            let start = offset;
            offset += outline.bytes();
            let info = TensorInfo { dtype: outline.dtype, shape: outline.shape.clone(), data_offsets: (start, offset) };
            (outline.name.clone(), info)
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(format), tensors.collect())
            .map_err(|e| EngineError::Tensors { path: path.to_owned(), complaint: e.to_string() })?;
        let mut header =
            serde_json::to_vec(&metadata).map_err(|source| EngineError::Json { path: path.to_owned(), source })?;
        // Data begins at a multiple of eight, as in the files of the reference implementation.
        header.resize(header.len().next_multiple_of(8), b' ');
        let file = File::create(path).map_err(EngineError::file("create", path))?;
        let mut writer = Self { file: BufWriter::with_capacity(1 << 20, file), path: path.to_owned() };
        writer.write(&(header.len() as u64).to_le_bytes())?;
        writer.write(&header)?;
        Ok(writer)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.file.write_all(bytes).map_err(EngineError::file("write", &self.path))
    }

    pub(crate) fn finish(self) -> Result<(), EngineError> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_data()).map_err(EngineError::file("write", &self.path))
    }
}

/// Little-endian bytes of floats.
pub(crate) fn f32_bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|float| float.to_le_bytes()).collect()
}
