//! No bytes of a server make a reader panic, and pieces of any size give the same answer.

use bytes::Bytes;
use proptest::prelude::*;

use super::exchange::Arrival;
use super::{openai, sse, triton_answer};

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
        b"{\"text_output\":[\"a\",\"\xff\"],\"num_output_tokens\":[-1]}",
        b"\x0a\x05",
        b"\x12\x1a\x2a\x0d\x0a\x0btext_output\x32\x09\xff\xff\xff\xffhello",
        b"\xe4\xbd",
        b"\xa0",
    ]);
    prop_oneof![known.prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 0..12)]
}

fn arrivals(pieces: Vec<Vec<u8>>) -> Vec<Arrival> {
    (0..).zip(pieces).map(|(at_ns, bytes)| Arrival { at_ns, bytes: Bytes::from(bytes) }).collect()
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
    }

    #[test]
    fn events_do_not_depend_on_how_the_body_was_cut(
        pieces in prop::collection::vec(fragment(), 0..12),
        size in 1usize..9,
    ) {
        let body = pieces.concat();
        let data = |pieces: Vec<Vec<u8>>| {
            let found = sse::events(&arrivals(pieces));
            (found.events.into_iter().map(|event| event.data).collect::<Vec<_>>(), found.torn)
        };
        prop_assert_eq!(data(body.chunks(size).map(<[u8]>::to_vec).collect()), data(vec![body]));
    }
}
