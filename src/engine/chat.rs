//! Messages to one prompt, by the model's chat template.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;

use crate::engine::EngineError;
use crate::engine::config::read_json;

/// The form of Qwen and many others, for models that bring no template.
pub(crate) const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

pub(crate) struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// The template of `chat_template.jinja` or `tokenizer_config.json`, else ChatML.
    pub(crate) fn read(folder: &Path) -> Result<Self, EngineError> {
        let file = folder.join("chat_template.jinja");
        let config = folder.join("tokenizer_config.json");
        let config: Value = if config.exists() { read_json(&config)? } else { Value::Null };
        let source = if file.exists() {
            std::fs::read_to_string(&file).map_err(EngineError::file("read", &file))?
        } else {
            config["chat_template"].as_str().unwrap_or(CHATML).to_owned()
        };
        let token = |name: &str| {
            let value = &config[name];
            value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
        };
        Ok(Self { source, bos_token: token("bos_token"), eos_token: token("eos_token") })
    }

    /// The prompt that asks for the assistant's next message.
    pub(crate) fn render(&self, messages: &Value) -> Result<String, String> {
        let messages = plain_messages(messages)?;
        let mut environment = Environment::new();
        // As in Hugging Face transformers, which templates are written for.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let context = context! {
            messages => Serde(messages), add_generation_prompt => true, bos_token => &self.bos_token, eos_token => &self.eos_token,
        };
        environment.render_str(&self.source, context).map_err(|error| format!("chat template: {error}"))
    }
}

/// Each message with its text as one string; templates do not expect a list of parts.
fn plain_messages(messages: &Value) -> Result<Vec<Value>, String> {
    let messages = messages.as_array().filter(|list| !list.is_empty()).ok_or("`messages` is not a list of messages")?;
    let plain = messages.iter().map(|message| {
        let role = message["role"].as_str().ok_or("a message has no `role`")?;
        let content = match &message["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
            _ => return Err("a message has no text in `content`".to_owned()),
        };
        let mut message = message.clone();
        message["role"] = role.into();
        message["content"] = content.into();
        Ok(message)
    });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(source: &str, messages: &Value) -> Result<String, String> {
        let template =
            ChatTemplate { source: source.to_owned(), bos_token: "<s>".to_owned(), eos_token: "</s>".to_owned() };
        template.render(messages)
    }

    #[test]
    fn chatml_marks_each_turn() {
        let messages = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ]);
        let expected =
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(rendered(CHATML, &messages).unwrap(), expected);
    }

    #[test]
    fn mistakes_are_answers_not_panics() {
        let hello = json!([{"role": "user", "content": "Hi"}]);
        assert_eq!(rendered("{{ bos_token }}{{ messages[0]['content'] }}", &hello).unwrap(), "<s>Hi");
        assert!(rendered("{{ raise_exception('no system') }}", &hello).unwrap_err().contains("no system"));
        assert!(rendered("{% if %}", &hello).is_err());
        for messages in [json!(null), json!([]), json!(["hi"]), json!([{"role": "user"}])] {
            assert!(rendered(CHATML, &messages).is_err(), "{messages}");
        }
    }
}
