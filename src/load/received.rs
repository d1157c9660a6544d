//! What is kept of an answer while it comes in.

use snap::raw::{Decoder, Encoder};

use super::exchange::{Arrivals, Mark};

/// The parts of a stream are nearly alike: packed, they take a tenth. Ten thousand long answers then fit into memory.
const PACKED_AT: usize = 2048;

/// What has come so far: `tail` as it is, what was before it packed.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) tail: Vec<u8>,
    packed: Vec<Vec<u8>>,
    /// Bytes that were packed.
    before_tail: usize,
    /// Ends count from the first byte of all.
    marks: Vec<Mark>,
}

impl Received {
    /// Marks the tail's bytes before `end` as arrived.
    pub(super) fn mark(&mut self, at_ns: u64, end: usize) {
        self.marks.push(Mark { at_ns, end: self.before_tail + end });
    }

    /// Bytes that have come so far.
    pub(super) fn len(&self) -> usize {
        self.before_tail + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Packs the first `done` bytes of the tail, if they are worth it. Returns by how many bytes the tail is shorter now.
    pub(super) fn pack(&mut self, done: usize) -> usize {
        if done < PACKED_AT {
            return 0;
        }
        // It fails for more than 4 GiB at once, which then stay as they are.
        let Ok(packed) = Encoder::new().compress_vec(&self.tail[..done]) else { return 0 };
        self.packed.push(packed);
        self.before_tail += done;
        self.tail.drain(..done);
        done
    }

    /// All that came, in one piece.
    pub(super) fn whole(&self) -> Arrivals {
        let mut bytes = Vec::with_capacity(self.len());
        for packed in &self.packed {
            bytes.extend(Decoder::new().decompress_vec(packed).expect("packed above"));
        }
        bytes.extend_from_slice(&self.tail);
        Arrivals { bytes, marks: self.marks.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_whole() {
        let mut received = Received::default();
        let (mut expected, mut ends) = (Vec::new(), Vec::new());
        for number in 0..1000 {
            let piece = format!("data: {{\"choices\":[{{\"text\":\" {number}\"}}]}}\n\n");
            received.tail.extend(piece.as_bytes());
            expected.extend(piece.as_bytes());
            received.mark(number, received.tail.len());
            ends.push(Mark { at_ns: number, end: expected.len() });
            // The last byte is not yet done.
            received.pack(received.tail.len() - 1);
        }
        assert!(received.tail.len() <= PACKED_AT);
        let whole = received.whole();
        assert_eq!((whole.bytes, whole.marks), (expected, ends));
        let kept: usize = received.packed.iter().map(Vec::len).sum();
        assert!(kept * 5 < received.before_tail, "{kept} of {}", received.before_tail);
        assert!(!received.is_empty());
        received.clear();
        assert!(received.is_empty());
    }
}
