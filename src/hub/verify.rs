use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::{Digest as _, Sha1};

use crate::base::Digest;

/// What a hub says a file's bytes hash to. Its text is the blob's name in the cache.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum BlobHash {
    /// Of a large (LFS) file.
    Sha256(String),
    /// Of a small file: git's hash of a blob, a sha1 over a short header and the bytes.
    GitSha1(String),
}

impl BlobHash {
    /// None when the text is not the lower-case hexadecimal of either, so that a hash is always safe as a file's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.len() {
            64 if hexadecimal => Some(Self::Sha256(text.to_owned())),
            40 if hexadecimal => Some(Self::GitSha1(text.to_owned())),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::GitSha1(text) => text,
        }
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(text) => write!(f, "sha256 {text}"),
            Self::GitSha1(text) => write!(f, "git sha1 {text}"),
        }
    }
}

/// Bytes hashed as they pass: always by sha256, and as git does where the hub says so.
pub(super) struct Hasher {
    sha256: Digest,
    git_sha1: Option<Sha1>,
}

/// The hashes of a file that has passed whole.
pub(super) struct Hashed {
    pub(super) sha256: String,
    /// Of the kind that the hub promised.
    pub(super) promised: BlobHash,
}

impl Hasher {
    /// For a file that should have this hash and `size` bytes.
    pub(super) fn new(promised: &BlobHash, size: u64) -> Self {
        let git_sha1 = match promised {
            BlobHash::Sha256(_) => None,
            BlobHash::GitSha1(_) => Some(Sha1::new().chain_update(format!("blob {size}\0"))),
        };
        Self { sha256: Digest::default(), git_sha1 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha1) = &mut self.git_sha1 {
            sha1.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Hashed {
        let sha256 = self.sha256.hex();
        let promised = match self.git_sha1 {
            None => BlobHash::Sha256(sha256.clone()),
            Some(sha1) => BlobHash::GitSha1(hex(&sha1.finalize())),
        };
        Hashed { sha256, promised }
    }

    /// Takes in all of a file and returns its length. Blocks.
    pub(super) fn update_from(&mut self, path: &Path) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut length = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(length);
            }
            self.update(&buffer[..read]);
            length += read as u64;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_hashes_as_git_does() {
        // `printf 'hello\n' | git hash-object --stdin`
        let promised = BlobHash::parse("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        let mut hasher = Hasher::new(&promised, 6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let hashed = hasher.finish();
        assert_eq!(hashed.promised, promised);
        assert_eq!(hashed.sha256, Digest::of(b"hello\n"));
    }

    #[test]
    fn only_lower_case_hexadecimal_of_a_known_length_is_a_hash() {
        for text in ["", "../../../../etc/passwd", &"A".repeat(64), &"a".repeat(63), &"g".repeat(40)] {
            assert_eq!(BlobHash::parse(text), None, "{text}");
        }
    }
}
