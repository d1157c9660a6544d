use std::borrow::Cow;

/// One number of a page in the Prometheus or OpenMetrics text format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample<'a> {
    /// Name and labels as they stand on the page: `up{job="a"}`.
    pub series: Series<'a>,
    pub value: f64,
}

/// What a number belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Series<'a> {
    /// Name and labels as they stand on the page.
    pub text: &'a str,
    pub name: &'a str,
    /// What stands between the braces.
    labels: &'a str,
}

/// The numbers of a page. Lines that are none, and values that are not finite, are left out.
pub(super) fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(|line| {
        let (series, rest) = Series::split(line.trim())?;
        // A time stamp or an exemplar may follow.
        let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
        value.is_finite().then_some(Sample { series, value })
    })
}

impl<'a> Series<'a> {
    /// A series alone, without a value.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        Self::split(text).map(|(series, _)| series)
    }

    /// The series that a line begins with, and what follows.
    fn split(line: &'a str) -> Option<(Self, &'a str)> {
        let end = line.find(|c: char| c == '{' || c.is_whitespace()).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let Some(inside) = rest.strip_prefix('{') else {
            return Some((Self { text: name, name, labels: "" }, rest));
        };
        let close = unquoted(inside, '}')?;
        let text = &line[..end + close + 2];
        Some((Self { text, name, labels: &inside[..close] }, &inside[close + 1..]))
    }

    /// The value of a label.
    pub(super) fn label(&self, wanted: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.labels;
        loop {
            let (name, after) = rest.split_once('=')?;
            let quoted = after.trim_start().strip_prefix('"')?;
            let end = closing_quote(quoted)?;
            if name.trim_matches([',', ' ']) == wanted {
                return Some(unescaped(&quoted[..end]));
            }
            rest = &quoted[end + 1..];
        }
    }
}

/// Where `wanted` stands outside quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let (mut in_quotes, mut escaped) = (false, false);
    text.char_indices().find_map(|(at, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            c if c == wanted && !in_quotes => return Some(at),
            _ => {}
        }
        None
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        if c == '"' && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
        None
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped })),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Series, samples};

    fn read(page: &str) -> Vec<(String, f64)> {
        samples(page).map(|sample| (sample.series.text.to_owned(), sample.value)).collect()
    }

    #[test]
    fn numbers_are_read_and_everything_else_is_left_out() {
        for (page, expected) in [
            ("up 1", vec![("up", 1.0)]),
            ("# HELP up It is up.\n# TYPE up gauge\nup 1\n\n", vec![("up", 1.0)]),
            ("a{b=\"c\"} 2.5e3 1700000000000", vec![("a{b=\"c\"}", 2500.0)]),
            ("a:b_c{} 3\r\n", vec![("a:b_c{}", 3.0)]),
            ("a{b=\"}, \\\" {\",c=\"\"} 4", vec![("a{b=\"}, \\\" {\",c=\"\"}", 4.0)]),
            ("h_bucket{le=\"+Inf\"} 7 # {trace_id=\"x\"} 0.5", vec![("h_bucket{le=\"+Inf\"}", 7.0)]),
            // llama.cpp and Python write these where there is no number yet.
            ("a -nan(ind)\nb NaN\nc +Inf\nd 1", vec![("d", 1.0)]),
            ("a{b=\"c 1\na\n{} 1\n1", vec![]),
            ("<html>not found</html>", vec![]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(series, value)| (series.to_owned(), value)).collect();
            assert_eq!(read(page), expected, "{page}");
        }
    }

    #[test]
    fn labels_are_found_and_unescaped() {
        let series = Series::parse(r#"a{model="m\"1\\",le="0.5", x = "a,b=c" ,}"#).unwrap();
        assert_eq!(series.name, "a");
        assert_eq!(series.label("model").unwrap(), r#"m"1\"#);
        assert_eq!(series.label("le").unwrap(), "0.5");
        assert_eq!(series.label("x").unwrap(), "a,b=c");
        assert_eq!(series.label("b"), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(page in "[a-z{}\"\\\\=, #\n0-9é]{0,200}", label in "[a-z]{0,3}") {
            for sample in samples(&page) {
                let _ = sample.series.label(&label);
                prop_assert_eq!(Series::parse(sample.series.text), Some(sample.series));
            }
        }
    }
}
