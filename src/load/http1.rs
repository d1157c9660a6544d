//! The framing of HTTP/1.1 responses: where one ends, and what it carries.

use std::time::{Duration, SystemTime};

use httparse::{EMPTY_HEADER, Response, Status};
use memchr::memchr;

use super::exchange::{Arrivals, Mark};

const MOST_HEADERS: usize = 128;

/// Finds the end of a response while its bytes come in. It reads each byte of the framing once and skips what that
/// frames.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    /// The connection can carry another request after this response.
    keep_alive: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The head begins at this offset.
    Head(usize),
    /// The next chunk's size begins at this offset.
    Chunk(usize),
    /// The next line of the trailer begins at this offset.
    Trailer(usize),
    /// The body ends at this offset.
    Length(usize),
    UntilClose,
    Ended(usize),
}

/// What a response's head says.
struct Head {
    status: u16,
    retry_after: Option<Duration>,
    body: State,
    keep_alive: bool,
}

/// A whole or broken response without its framing.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Arrivals,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self { state: State::Head(0), keep_alive: true }
    }

    /// Looks at what `bytes`, all that came so far, have beyond the last call; `true` once the response has ended.
    /// `Err` says what is wrong with it.
    pub(super) fn has_ended(&mut self, bytes: &[u8]) -> Result<bool, String> {
        loop {
            let next = match self.state {
                State::Ended(_) => return Ok(true),
                State::UntilClose => return Ok(false),
                State::Length(end) => (bytes.len() >= end).then_some(State::Ended(end)),
                State::Head(from) => self.read_head(bytes, from)?,
                State::Chunk(at) => next_chunk(bytes, at)?.map(|chunk| match chunk.data {
                    0 => State::Trailer(chunk.from),
                    _ => State::Chunk(chunk.next()),
                }),
                State::Trailer(at) => next_line(bytes, at).map(|(line, next)| match line {
                    b"" => State::Ended(next),
                    _ => State::Trailer(next),
                }),
            };
            match next {
                Some(state) => self.state = state,
                None => return Ok(false),
            }
        }
    }

    /// How many of `length` bytes, all that came so far, it will not look at again.
    pub(super) fn done(&self, length: usize) -> usize {
        match self.state {
            State::Head(_) | State::Ended(_) => 0,
            State::Chunk(at) | State::Trailer(at) => at.min(length),
            State::Length(_) | State::UntilClose => length,
        }
    }

    /// The first `count` bytes, which were done, are no longer there.
    pub(super) fn forget(&mut self, count: usize) {
        match &mut self.state {
            State::Chunk(at) | State::Trailer(at) | State::Length(at) => *at -= count,
            State::Head(_) | State::UntilClose | State::Ended(_) => {}
        }
    }

    /// Whether the end of the connection is the end of this response.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Whether another response may follow: nothing came behind the end, and the server did not say otherwise.
    pub(super) fn leaves_connection_open(&self, bytes: &[u8]) -> bool {
        self.keep_alive && matches!(self.state, State::Ended(end) if end == bytes.len())
    }

    fn read_head(&mut self, bytes: &[u8], from: usize) -> Result<Option<State>, String> {
        let Some((head, next)) = parse_head(bytes, from)? else { return Ok(None) };
        // An interim response (100 Continue, 103 Early Hints) is followed by another.
        if (100..200).contains(&head.status) {
            return Ok(Some(State::Head(next)));
        }
        self.keep_alive = head.keep_alive;
        Ok(Some(head.body))
    }
}

/// The head at `from` and the offset behind it; `None` while it is incomplete.
fn parse_head(bytes: &[u8], from: usize) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let unread = bytes.get(from..).unwrap_or_default();
    let length = match response.parse(unread).map_err(|error| format!("the answer's head cannot be read: {error}"))? {
        Status::Complete(length) => length,
        Status::Partial => return Ok(None),
    };
    let next = from + length;
    let status = response.code.unwrap_or_default();
    let value = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let header = |name: &str| value(name).map(|text| text.to_ascii_lowercase());
    let chunked = header("transfer-encoding").is_some_and(|codings| codings.ends_with("chunked"));
    let content_length = match header("content-length") {
        Some(text) => {
            let length = text.parse::<usize>().ok().and_then(|length| next.checked_add(length));
            Some(length.ok_or_else(|| format!("`{text}` is no content length"))?)
        }
        None => None,
    };
    let body = match (status, chunked, content_length) {
        (204 | 304, _, _) => State::Ended(next),
        (_, true, _) => State::Chunk(next),
        (_, false, Some(end)) => State::Length(end),
        (_, false, None) => State::UntilClose,
    };
    let connection = header("connection").unwrap_or_default();
    let keep_alive = match response.version {
        Some(0) => connection.contains("keep-alive"),
        _ => !connection.contains("close"),
    };
    let retry_after = value("retry-after").and_then(|text| wait_of(&text));
    Ok(Some((Head { status, retry_after, body, keep_alive }, next)))
}

/// What `Retry-After` says: seconds, or a date; one that has passed asks for no wait.
fn wait_of(retry_after: &str) -> Option<Duration> {
    let seconds = retry_after.parse().ok().map(Duration::from_secs);
    let until_date = || {
        let date = httpdate::parse_http_date(retry_after).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    };
    seconds.or_else(until_date)
}

struct Chunk {
    /// Offset of its data.
    from: usize,
    /// Length of its data.
    data: usize,
}

impl Chunk {
    /// Offset of the chunk behind it: a line end follows the data.
    fn next(&self) -> usize {
        self.from.saturating_add(self.data).saturating_add(2)
    }
}

/// The chunk whose size stands at `at`; `None` while its size is incomplete.
fn next_chunk(bytes: &[u8], at: usize) -> Result<Option<Chunk>, String> {
    let Some(unread) = bytes.get(at..) else { return Ok(None) };
    match httparse::parse_chunk_size(unread) {
        Ok(Status::Complete((line, size))) => {
            let data = usize::try_from(size).map_err(|_| "a chunk is too large".to_owned())?;
            Ok(Some(Chunk { from: at + line, data }))
        }
        Ok(Status::Partial) => Ok(None),
        Err(_) => Err("the size of a chunk cannot be read".to_owned()),
    }
}

/// The line at `at` without its end, and the offset behind it.
fn next_line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let unread = bytes.get(at..)?;
    let end = memchr(b'\n', unread)?;
    let line = unread[..end].strip_suffix(b"\r").unwrap_or(&unread[..end]);
    Some((line, at + end + 1))
}

/// Takes the framing off what arrived. What cannot be read is left out: [`Framing`] said what is wrong with it.
pub(super) fn unframe(arrived: &Arrivals) -> Reply {
    let bytes = arrived.bytes.as_slice();
    let mut from = 0;
    let head = loop {
        match parse_head(bytes, from) {
            Ok(Some((head, next))) if (100..200).contains(&head.status) => from = next,
            Ok(Some((head, next))) => {
                from = next;
                break head;
            }
            Ok(None) | Err(_) => return Reply::default(),
        }
    };
    let mut body = Body { arrived, next_mark: 0, unframed: Arrivals::default() };
    match head.body {
        State::Chunk(mut at) => {
            while let Ok(Some(chunk)) = next_chunk(bytes, at)
                && chunk.data > 0
            {
                body.add(chunk.from, chunk.from.saturating_add(chunk.data));
                at = chunk.next();
            }
        }
        State::Length(end) => body.add(from, end),
        State::UntilClose => body.add(from, bytes.len()),
        State::Head(_) | State::Trailer(_) | State::Ended(_) => {}
    }
    Reply { status: head.status, retry_after: head.retry_after, body: body.unframed }
}

struct Body<'a> {
    arrived: &'a Arrivals,
    next_mark: usize,
    unframed: Arrivals,
}

impl Body<'_> {
    /// Adds the bytes from one offset to another, as far as they are there; each arrived with the first mark behind it.
    fn add(&mut self, mut from: usize, to: usize) {
        let to = to.min(self.arrived.bytes.len());
        while let Some(mark) = self.arrived.marks.get(self.next_mark)
            && from < to
        {
            let until = mark.end.min(to);
            if until > from {
                self.unframed.bytes.extend_from_slice(&self.arrived.bytes[from..until]);
                self.mark(mark.at_ns);
                from = until;
            }
            if mark.end <= to {
                self.next_mark += 1;
            }
        }
    }

    /// Several chunks that came at once are one piece.
    fn mark(&mut self, at_ns: u64) {
        let end = self.unframed.bytes.len();
        match self.unframed.marks.last_mut() {
            Some(last) if last.at_ns == at_ns => last.end = end,
            Some(_) | None => self.unframed.marks.push(Mark { at_ns, end }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn pieces(pieces: &[&str]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for (at_ns, piece) in (1..).zip(pieces) {
            arrivals.bytes.extend_from_slice(piece.as_bytes());
            arrivals.mark(at_ns);
        }
        arrivals
    }

    /// The number of bytes after which the response has ended, fed one at a time.
    fn ends_after(response: &str) -> Option<usize> {
        let mut framing = Framing::new();
        (0..=response.len()).find(|&end| framing.has_ended(&response.as_bytes()[..end]).unwrap())
    }

    #[test]
    fn a_response_ends_where_its_head_says() {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(ends_after(response), Some(response.len()), "{response:?}");
            assert_eq!(ends_after(&format!("{response}more")), Some(response.len()), "{response:?}");
        }
        assert_eq!(ends_after("HTTP/1.1 200 OK\r\n\r\nuntil the connection is closed"), None);
    }

    #[test]
    fn what_is_done_may_be_forgotten() {
        let heads = [
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
            "Content-Length: 9\r\n\r\nabcdefghi",
        ];
        for response in heads.map(|rest| format!("HTTP/1.1 200 OK\r\n{rest}")) {
            let (mut framing, mut bytes) = (Framing::new(), Vec::new());
            for (index, byte) in response.bytes().enumerate() {
                bytes.push(byte);
                assert_eq!(framing.has_ended(&bytes).unwrap(), index + 1 == response.len(), "{response:?}");
                let done = framing.done(bytes.len());
                bytes.drain(..done);
                framing.forget(done);
            }
            assert!(framing.leaves_connection_open(&bytes));
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for response in
            ["nonsense\r\n\r\n", &format!("{CHUNKED}xyz\r\n"), "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]
        {
            assert!(Framing::new().has_ended(response.as_bytes()).is_err(), "{response:?}");
        }
    }

    #[test]
    fn a_connection_is_used_again_only_if_the_server_lets_it() {
        for (response, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", true),
        ] {
            let mut framing = Framing::new();
            assert!(framing.has_ended(response.as_bytes()).unwrap());
            assert_eq!(framing.leaves_connection_open(response.as_bytes()), expected, "{response:?}");
        }
    }

    #[test]
    fn a_server_names_the_time_to_wait_in_seconds_or_as_a_date() {
        assert_eq!(wait_of("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let year = Duration::from_hours(365 * 24);
        assert!(wait_of("Fri, 31 Dec 9999 23:59:59 GMT").is_some_and(|wait| wait > year));
        assert_eq!(wait_of("soon"), None);
    }

    #[test]
    fn the_body_keeps_its_times() {
        let arrived = pieces(&[CHUNKED, "3\r\nabc\r\n", "2\r\nd", "e\r\n1\r\nf\r\n", "0\r\n\r\n"]);
        let reply = unframe(&arrived);
        let found: Vec<(u64, &[u8])> = reply.body.pieces().collect();
        assert_eq!(found, [(2, &b"abc"[..]), (3, b"d"), (4, b"ef")]);
        let reply = unframe(&pieces(&["HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nab", "cd"]));
        assert_eq!((reply.status, reply.retry_after), (429, Some(Duration::from_secs(7))));
        assert_eq!(reply.body.pieces().collect::<Vec<_>>(), [(1, &b"ab"[..]), (2, b"cd")]);
    }

    #[test]
    fn what_is_broken_gives_what_there_is() {
        assert_eq!(unframe(&pieces(&["HTTP/1.1 200"])).status, 0);
        let reply = unframe(&pieces(&[CHUNKED, "9\r\nabc"]));
        assert_eq!(reply.body.bytes, b"abc");
    }
}
