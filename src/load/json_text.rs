use std::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// A JSON string kept as bytes, so that a character which a server split over two events survives joining. Of a
/// list, which is how Triton writes a tensor of several elements, it is the first: the best of several beams.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct JsonText(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = JsonText;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<JsonText, E> {
        Ok(JsonText(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<JsonText, A::Error> {
        let first = elements.next_element()?.unwrap_or_default();
        while elements.next_element::<JsonText>()?.is_some() {}
        Ok(first)
    }
}
