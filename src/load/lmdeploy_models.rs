//! What the client of LMDeploy v0.1.0 knows of the models that it can be used with.

use serde::Deserialize;

/// `lmdeploy/model.py` of that version, as far as the first prompt of a session goes.
const MODELS: &str = include_str!("lmdeploy_models.json");

/// One of them: how long its sessions are, and what is written around a prompt.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatModel {
    /// Those that `lmdeploy convert` was told.
    names: Vec<String>,
    /// Tokens of prompt and answer together, at most.
    pub(super) session_len: u32,
    #[serde(default)]
    before: String,
    #[serde(default)]
    after: String,
    /// The prompt goes without the blanks at its ends.
    #[serde(default)]
    strip: bool,
    #[serde(default = "none")]
    pub(super) repetition_penalty: f32,
}

fn none() -> f32 {
    1.0
}

impl ChatModel {
    pub(super) fn of(name: &str) -> Option<Self> {
        let models: Vec<Self> = serde_json::from_str(MODELS).expect("the file is ours");
        models.into_iter().find(|model| model.names.iter().any(|known| known == name))
    }

    /// The prompt in the model's template.
    pub(super) fn prompt(&self, text: &str) -> String {
        let text = if self.strip { text.trim() } else { text };
        [&self.before, text, &self.after].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_put_into_its_models_template() {
        for (name, session_len, expected) in [
            ("internlm", 2048, " hi "),
            ("internlm-20b", 4096, " hi "),
            ("codellama", 4096, "[INST] <<SYS>>\n\n<</SYS>>\n\nhi [/INST]"),
            ("solar", 2048, "### System:\n\n\n### User:\n hi \n\n### Assistant:\n"),
        ] {
            let model = ChatModel::of(name).unwrap();
            assert_eq!((model.session_len, model.prompt(" hi ").as_str()), (session_len, expected), "{name}");
        }
        assert!(ChatModel::of("internlm-chat-7b").unwrap().prompt("hi").ends_with("\n<|User|>:hi\n<|Bot|>:"));
        assert!(ChatModel::of("tiny").is_none());
    }
}
