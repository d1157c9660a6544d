use std::sync::LazyLock;

use miette::Diagnostic as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use regex::Regex;

use super::FileCheck;
use crate::kserve::MODEL_CONFIG_DESCRIPTORS;

static MODEL_CONFIG: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(MODEL_CONFIG_DESCRIPTORS).expect("a test generates the descriptors again");
    pool.get_message_by_name("inference.ModelConfig").expect("the descriptors have the message they are there for")
});

/// A list of messages, `input [ … ]`, needs no colon in text format; prost-reflect wants one.
static LIST_WITHOUT_COLON: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(\w)(\s*)\[").expect("a constant that a test compiles"));

/// What is wrong with a rendered file, and in which line, from 1.
pub(super) fn check(check: FileCheck, text: &str) -> Result<(), (usize, String)> {
    match check {
        FileCheck::TritonModelConfig => triton_model_config(text),
    }
}

/// Triton reads a placeholder that was left inside quotes as text, and takes the default in silence.
fn triton_model_config(text: &str) -> Result<(), (usize, String)> {
    if let Some(at) = text.find("${") {
        return Err((line_of(text, at), "a placeholder `${` is left in it".to_owned()));
    }
    let text = LIST_WITHOUT_COLON.replace_all(text, "$1:$2[");
    match DynamicMessage::parse_text_format(MODEL_CONFIG.clone(), &text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let place = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
            Err((line_of(&text, place.unwrap_or(text.len())), format!("it is no `inference.ModelConfig`: {error}")))
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_configuration_is_read_as_triton_does() {
        let good = "name: \"m\" # a comment\nmax_batch_size: 8\ninput [ { name: \"a\" data_type: TYPE_INT32 dims: [ -1 ] } ]\n\
            parameters: { key: \"k\" value: { string_value: \"v\" } }\n";
        assert_eq!(triton_model_config(good), Ok(()));
        for (bad, line, problem) in [
            ("name: \"m\"\nmax_batch_size: ${n}\n", 2, "placeholder"),
            ("name: \"m\"\n\nparameters: { key: \"k\" value: { string_value: \"${v}\" } }\n", 3, "placeholder"),
            ("name: \"m\"\nmax_batch_size: eight\n", 2, "expected"),
            ("max_batchsize: 8\n", 1, "max_batchsize"),
            ("name: \"m\"\ninput { name: \"a\" data_type: INT32 }\n", 2, "INT32"),
            ("name: \"m\"\ninput {\n", 3, "end of input"),
        ] {
            let (found, said) = triton_model_config(bad).unwrap_err();
            assert_eq!(found, line, "{bad}: {said}");
            assert!(said.contains(problem), "{bad}: {said}");
        }
    }
}
