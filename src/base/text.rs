/// The text as a terminal or a log may show it: without escape sequences and other control characters, tabs as spaces.
///
/// Line feeds stay. For what others wrote: a program's last lines, a name in a manifest.
#[must_use]
pub fn plain_text(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\n' => plain.push('\n'),
            '\t' => plain.push(' '),
            '\x1b' => skip_escape_sequence(&mut rest),
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// Colours and cursor moves: `[`, parameters, and a final byte between `@` and `~`.
fn skip_escape_sequence(rest: &mut std::str::Chars<'_>) {
    if rest.as_str().starts_with('[') {
        rest.next();
        rest.find(|character| ('@'..='~').contains(character));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go_and_text_stays() {
        for (given, expected) in [
            ("\x1b[31;1merror\x1b[0m: no\n  memory", "error: no\n  memory"),
            ("10 %\r20 %\r\n\tdone\x07", "10 %20 %\n done"),
            ("模型 é\x1b", "模型 é"),
            ("\x1b[", ""),
        ] {
            assert_eq!(plain_text(given), expected);
        }
    }
}
