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

/// Splits a body into events: lines end in LF or CRLF, an empty line closes an event, comments and other fields are
/// skipped.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&str], expected: &[(u64, &str)], torn: bool) {
        let arrivals: Vec<Arrival> = (1..)
            .zip(pieces)
            .map(|(at_ns, piece)| Arrival { at_ns, bytes: Bytes::copy_from_slice(piece.as_bytes()) })
            .collect();
        let found = events(&arrivals);
        let texts: Vec<(u64, String)> =
            found.events.into_iter().map(|event| (event.at_ns, String::from_utf8(event.data).unwrap())).collect();
        let expected: Vec<(u64, String)> = expected.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
        assert_eq!((texts, found.torn), (expected, torn));
    }

    #[test]
    fn an_event_arrives_with_its_last_byte() {
        check(&["data: a\n\n", "data: b\n\n"], &[(1, "a"), (2, "b")], false);
        check(&["data: a\n\ndata: b\n\n"], &[(1, "a"), (1, "b")], false);
        check(&["da", "ta: a", "\n", "\ndata: b\n", "\n"], &[(4, "a"), (5, "b")], false);
        check(&["", "data: a\n\n", ""], &[(2, "a")], false);
    }

    #[test]
    fn lines_may_end_in_crlf() {
        check(&["data: a\r\n\r", "\ndata: b\r\n\r\n"], &[(2, "a"), (2, "b")], false);
    }

    #[test]
    fn comments_and_other_fields_are_skipped() {
        check(&[": ping\n\n", "event: x\nid: 1\ndata:a\n\n", "database: b\n\n"], &[(2, "a")], false);
        check(&["data: a\ndata\ndata:  b\n\n"], &[(1, "a\n\n b")], false);
    }

    #[test]
    fn a_body_that_ends_inside_an_event_is_torn() {
        check(&["data: a\n\n", "data: b"], &[(1, "a")], true);
        check(&["data: a\n"], &[], true);
        check(&[], &[], false);
    }
}
