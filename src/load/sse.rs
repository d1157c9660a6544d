//! Server-sent events out of timed pieces of a body.

use bytes::Bytes;
use memchr::memchr;

use super::exchange::Arrival;

/// The `data` of one event.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Event {
    /// Arrival of the piece with the event's last byte, the line end that closes it.
    pub(super) at_ns: u64,
    pub(super) data: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) events: Vec<Event>,
    /// The body ended inside an event.
    pub(super) torn: bool,
}

/// Splits a body into events: lines end in LF or CRLF, an empty line closes an event, comments and other fields are skipped.
pub(super) fn events(arrivals: &[Arrival]) -> Events {
    let body = join(arrivals);
    let mut times = LineTimes { arrivals, index: 0, end: arrivals.first().map_or(0, |first| first.bytes.len()) };
    let mut rest: &[u8] = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
    let mut found = Events::default();
    let mut data: Option<Vec<u8>> = None;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            let at_ns = times.at(body.len() - rest.len() - 1);
            found.events.extend(data.take().map(|data| Event { at_ns, data }));
        } else if let Some(value) = field_data(line) {
            match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            }
        }
    }
    found.torn = data.is_some() || !rest.is_empty();
    found
}

/// The whole body, without a copy when it came in one piece.
pub(super) fn join(arrivals: &[Arrival]) -> Bytes {
    match arrivals {
        [only] => only.bytes.clone(),
        several => several.iter().flat_map(|arrival| arrival.bytes.iter().copied()).collect(),
    }
}

fn field_data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    match value.split_first() {
        None => Some(value),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

/// Arrival of bytes at rising offsets.
struct LineTimes<'a> {
    arrivals: &'a [Arrival],
    index: usize,
    /// Offset behind the piece at `index`.
    end: usize,
}

impl LineTimes<'_> {
    fn at(&mut self, offset: usize) -> u64 {
        while offset >= self.end && self.index + 1 < self.arrivals.len() {
            self.index += 1;
            self.end += self.arrivals[self.index].bytes.len();
        }
        self.arrivals[self.index].at_ns
    }
}
