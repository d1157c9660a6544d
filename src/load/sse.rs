//! Server-sent events out of timed pieces of a body.

use std::borrow::Cow;

use memchr::memchr;

use super::exchange::{Arrivals, Mark};

/// The `data` of one event.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Event<'a> {
    /// Arrival of the piece with the event's last byte, the line end that closes it.
    pub(super) at_ns: u64,
    pub(super) data: Cow<'a, [u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Events<'a> {
    pub(super) events: Vec<Event<'a>>,
    /// The body ended inside an event.
    pub(super) torn: bool,
}

/// Splits a body into events: lines end in LF or CRLF, an empty line closes an event, comments and other fields are
/// skipped.
pub(super) fn events(body: &Arrivals) -> Events<'_> {
    let bytes = body.bytes.as_slice();
    let mut marks = body.marks.as_slice();
    let mut rest: &[u8] = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut found = Events::default();
    let mut data: Option<Cow<'_, [u8]>> = None;
    while let Some(end) = memchr(b'\n', rest) {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            let at_ns = arrival(&mut marks, bytes.len() - rest.len());
            found.events.extend(data.take().map(|data| Event { at_ns, data }));
        } else if let Some(value) = field_data(line) {
            data = Some(match data {
                Some(data) => [&data, &b"\n"[..], value].concat().into(),
                None => value.into(),
            });
        }
    }
    found.torn = data.is_some() || !rest.is_empty();
    found
}

/// When the bytes before `end` had arrived; for rising ends.
fn arrival(marks: &mut &[Mark], end: usize) -> u64 {
    while let [mark, later @ ..] = marks
        && mark.end < end
        && !later.is_empty()
    {
        *marks = later;
    }
    marks.first().map_or(0, |mark| mark.at_ns)
}

fn field_data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    match value.split_first() {
        None => Some(value),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&str], expected: &[(u64, &str)], torn: bool) {
        let mut arrivals = Arrivals::default();
        for (at_ns, piece) in (1..).zip(pieces) {
            arrivals.bytes.extend_from_slice(piece.as_bytes());
            arrivals.mark(at_ns);
        }
        let found = events(&arrivals);
        let texts: Vec<(u64, String)> = found
            .events
            .into_iter()
            .map(|event| (event.at_ns, String::from_utf8(event.data.into_owned()).unwrap()))
            .collect();
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
