//! No bytes of a server make a reader panic, and pieces of any size give the same answer.

use proptest::prelude::*;

use super::exchange::{Arrivals, Clock};
use super::{http1, in_process, lmdeploy, openai, sse, triton_answer};

/// Fragments that lead deep into the readers, mixed with noise.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        &b"data: "[..],
        b"data:[DONE]\n\n",
        b"\n\n",
        b"\r\n\r\n",
        b": comment\n",
        b"{\"choices\":[{\"text\":\"a\",\"delta\":{\"content\":\"\\ud83d\"}}]}",
        b"{\"choices\":[],\"usage\":{\"completion_tokens\":3}}",
        b"{\"error\":{\"message\":[1]}}",
        b"{\"start_ns\":0,\"ticks\":[[18446744073709551615,\"a\"]],\"end_ns\":1}",
        b"{\"text\":\"a\",\"input_tokens\":1,\"output_tokens\":4294967295}",
        b"{\"text_output\":[\"a\",\"\xff\"],\"num_output_tokens\":[-1]}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"5\r\nhello\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
        b"\x0a\x05",
        b"\x12\x1a\x2a\x0d\x0a\x0btext_output\x32\x09\xff\xff\xff\xffhello",
        b"\xe4\xbd",
        b"\xa0",
    ]);
    prop_oneof![known.prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 0..12)]
}

fn arrivals(pieces: Vec<Vec<u8>>) -> Arrivals {
    let mut arrivals = Arrivals::default();
    for (at_ns, piece) in (0..).zip(pieces) {
        arrivals.bytes.extend(piece);
        arrivals.mark(at_ns);
    }
    arrivals
}

proptest! {
    #[test]
    fn readers_never_panic(pieces in prop::collection::vec(fragment(), 0..12)) {
        let arrivals = arrivals(pieces);
        openai::read_stream(&arrivals);
        openai::read_body(&arrivals, 99);
        triton_answer::read_grpc(&arrivals);
        triton_answer::read_stream(&arrivals);
        triton_answer::read_body(&arrivals, 99);
        in_process::read(&arrivals, 0..99, Clock::start());
        lmdeploy::read(&arrivals);
        http1::unframe(&arrivals);
    }

    #[test]
    fn events_do_not_depend_on_how_the_body_was_cut(
        pieces in prop::collection::vec(fragment(), 0..12),
        size in 1usize..9,
    ) {
        let body = pieces.concat();
        let data = |pieces: Vec<Vec<u8>>| {
            let arrivals = arrivals(pieces);
            let found = sse::events(&arrivals);
            (found.events.into_iter().map(|event| event.data.into_owned()).collect::<Vec<_>>(), found.torn)
        };
        prop_assert_eq!(data(body.chunks(size).map(<[u8]>::to_vec).collect()), data(vec![body]));
    }

    #[test]
    fn a_response_ends_at_the_same_byte_however_it_was_cut(
        pieces in prop::collection::vec(fragment(), 0..12),
        size in 1usize..9,
    ) {
        let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        response.extend(pieces.concat());
        let mut whole = http1::Framing::new();
        let mut in_parts = http1::Framing::new();
        let ends: Vec<usize> = (0..response.len()).step_by(size).chain([response.len()]).collect();
        let last = ends.iter().map(|&end| in_parts.has_ended(&response[..end])).find(|ended| ended != &Ok(false));
        prop_assert_eq!(whole.has_ended(&response), last.unwrap_or(Ok(false)));
    }
}
