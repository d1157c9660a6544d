//! What the reader says about mistakes, and that no text makes it panic.

use std::fmt::Write as _;

use benchrun::manifest::{Document, Format, KeyPath, Manifest, ReadError, draft, read, read_text};
use proptest::prelude::*;

const FULL: &str = include_str!("fixtures/full.yaml");
const FULL_TOML: &str = include_str!("fixtures/full.toml");

const YAML: &str = "\
name: sweep
models:
  tiny: {dummy: {}}
  big: {hf: {repo: a/b}}
engine: {name: embedded}
matrix:
  axes:
    model: [tiny, big]
    tp/pp: [[1, 1], [2, 1]]
    isl: [16]
benchmarks:
  smoke:
    protocol: openai-chat
    output: {tokens: 8}
    concurrency: [1, 2]
    requests: 4
";

const TOML: &str = "\
name = 'sweep'
models.tiny.dummy = {}
engine.name = 'embedded'

[matrix.axes]
model = ['tiny']

[benchmarks.smoke]
protocol = 'openai-chat'
data.synthetic.isl = 16
output.tokens = 8
concurrency = [1, 2]
requests = 4
";

/// A base text with one passage replaced.
struct Edit {
    from: &'static str,
    to: &'static str,
}

const fn edit(from: &'static str, to: &'static str) -> Edit {
    Edit { from, to }
}

/// Compares each edit, and what the reader says to it, with the snapshot `name`.
fn check(name: &str, format: Format, edits: &[Edit]) {
    let (base, file) = match format {
        Format::Yaml => (YAML, "m.yaml"),
        Format::Toml => (TOML, "m.toml"),
    };
    assert!(read_text(file, base, format).is_ok(), "the base text has no mistake");
    let mut listing = String::new();
    for Edit { from, to } in edits {
        assert_eq!(base.matches(from).count(), 1, "`{from}` stands once in the base text");
        let text = base.replacen(from, to, 1);
        let answer = match read_text(file, &text, format) {
            Ok(_) => "(accepted)".to_owned(),
            Err(error) => error.to_string(),
        };
        writeln!(listing, "--- {}\n+++ {}\n{answer}\n", from.escape_debug(), to.escape_debug()).unwrap();
    }
    insta::assert_snapshot!(name, listing);
}

fn yaml(text: &str) -> Result<Document<Manifest>, ReadError> {
    read_text("m.yaml", text, Format::Yaml)
}

#[test]
fn keys() {
    check(
        "keys",
        Format::Yaml,
        &[
            edit("requests: 4", "reqests: 4"),
            edit("requests: 4", "zzz: 4\n    requests: 4"),
            edit("name: sweep\n", ""),
            edit("name: sweep", "nmae: sweep"),
            edit("    protocol: openai-chat\n", ""),
            edit("requests: 4", "requests: 4\n    requests: 5"),
            edit("  tiny: {dummy: {}}", "  tiny: {dummy: {}}\n  tiny: {path: x}"),
            edit("  tiny: {dummy: {}}", "  4: {dummy: {}}"),
            edit("  tiny: {dummy: {}}", "  tiny: {dummy: {}}\n  <<: {x: {dummy: {}}}"),
            edit("  tiny: {dummy: {}}", "  tiny: {dummy: {}}\n  [a, b]: {dummy: {}}"),
            edit("matrix:\n  axes:", "matrix:\n  axis: {}\n  axes:"),
            edit("{name: embedded}", "{name: embedded, settings: {a.b: [1]}}"),
        ],
    );
}

#[test]
fn types_and_ranges() {
    check(
        "types_and_ranges",
        Format::Yaml,
        &[
            edit("concurrency: [1, 2]", "concurrency: 4"),
            edit("concurrency: [1, 2]", "concurrency: \"4\""),
            edit("concurrency: [1, 2]", "concurrency: [1, \"2\", 1_000]"),
            edit("concurrency: [1, 2]", "concurrency: [1, 0, 100001, 1]"),
            edit("concurrency: [1, 2]", "concurrency: []"),
            edit("concurrency: [1, 2]", "concurrency: {}"),
            edit("requests: 4", "requests: 4.0"),
            edit("requests: 4", "requests: 1e3"),
            edit("requests: 4", "requests: -1"),
            edit("requests: 4", "requests: 9223372036854775808"),
            edit("requests: 4", "requests:"),
            edit("requests: 4", "requests: ~"),
            edit("requests: 4", "requests: .inf"),
            edit("requests: 4", "requests: 4\n    streaming: no"),
            edit("requests: 4", "requests: 4\n    rounds: 4294967296"),
            edit("requests: 4", "requests: 4\n    sampling: {temperature: .nan}"),
            edit("requests: 4", "requests: 4\n    sampling: {temperature: -0.1, top_p: 2}"),
            edit("requests: 4", "requests: !!int 4"),
            edit("requests: 4", "duration: 5 minutes"),
            edit("requests: 4", "duration: 30"),
            edit("name: sweep", "name: my sweep"),
            edit("name: sweep", "name: 12"),
            edit("name: sweep", "name: ''"),
            edit("name: sweep", "name: sweep\nseed: -1"),
            edit("{repo: a/b}", "{repo: b}"),
            edit("openai-chat", "openai_chat"),
            edit("openai-chat", "carrier-pigeon"),
            edit("openai-chat", "[openai-chat]"),
            edit("[tiny, big]", "[tiny, {a: 1}]"),
            edit("[tiny, big]", "[]"),
            edit("  smoke:", "  smoke: hello\n  other:"),
        ],
    );
}

#[test]
fn kinds_of_models() {
    check(
        "kinds_of_models",
        Format::Yaml,
        &[
            edit("tiny: {dummy: {}}", "tiny: {}"),
            edit("tiny: {dummy: {}}", "tiny: dummy"),
            edit("tiny: {dummy: {}}", "tiny: {dumy: {}}"),
            edit("tiny: {dummy: {}}", "tiny: {dummy: {}, path: x}"),
            edit("tiny: {dummy: {}}", "tiny: {dummy: {sed: 1}}"),
            edit("tiny: {dummy: {}}", "tiny: {dummy: {config: [1]}}"),
            edit("tiny: {dummy: {}}", "tiny: {hf: {}}"),
            edit("tiny: {dummy: {}}", "tiny: {path: 4}"),
            edit("tiny: {dummy: {}}", "tiny: {dummy: {config: {a: null, b: .nan}}}"),
        ],
    );
}

#[test]
fn phases() {
    check(
        "phases",
        Format::Yaml,
        &[
            edit("    requests: 4\n", ""),
            edit("requests: 4", "requests: 4\n    duration: 30s"),
            edit("isl: [16]", "isl: [16]\n    duration: [30s]"),
            edit("    isl: [16]\n", ""),
            edit("    output: {tokens: 8}\n", ""),
            edit("  smoke:", "  a/b:"),
            edit("requests: 4", "requests: 4\n    thresholds: {ttft_p99_ms: {max: 1}}"),
            edit("requests: 4", "requests: 4\n    thresholds: {ttft_ms_p99: {min: 2, max: 1}}"),
            edit("requests: 4", "requests: 4\n    thresholds: {ttft_ms_p99: {}}"),
            edit("requests: 4", "requests: 4\n    thresholds: {ttft_ms_p99: {max: fast}}"),
        ],
    );
}

#[test]
fn series() {
    let load = |rest: &'static str| edit("    concurrency: [1, 2]\n    requests: 4\n", rest);
    let axis = |axis: &'static str| edit("isl: [16]", axis);
    check(
        "series",
        Format::Yaml,
        &[
            load("    requests: 4\n    thresholds: {e2e_ms_p50: {max: 9}}\n    search: {concurrency: {to: 64}}\n"),
            load("    requests: 4\n    search: {concurrency: {to: 64}}\n"),
            load("    requests: 4\n    thresholds: {}\n    search: {precision: 5}\n"),
            load("    requests: 4\n    search: {concurrency: {to: 9}, request_rate: {from: 1, to: 9}}\n"),
            load(
                "    requests: 4\n    thresholds: {e2e_ms_p50: {max: 9}}\n    search: {request_rat: {from: 1, to: 9}}\n",
            ),
            load(
                "    thresholds: {e2e_ms_p50: {max: 9}}\n    search: {request_rate: {from: 9, to: 9}, precision: 0.5%}\n",
            ),
            load(
                "    requests: 4\n    thresholds: {e2e_ms_p50: {max: 9}}\n    max_concurrency: 4\n    search: {concurrency: {to: 0}}\n",
            ),
            edit(
                "requests: 4",
                "requests: 4\n    thresholds: {e2e_ms_p50: {max: 9}}\n    search: {concurrency: {to: 9}}",
            ),
            load(
                "    requests: 4\n    rounds: 2\n    thresholds: {e2e_ms_p50: {max: 9}}\n    search: {concurrency: {to: 9}}\n    until: {ci: 5%, max_rounds: 9}\n",
            ),
            edit("requests: 4", "requests: 4\n    until: {ci: 5%, max_rounds: 10}"),
            edit("requests: 4", "requests: 4\n    rounds: 3\n    until: {ci: 5%, max_rounds: 10}"),
            edit("requests: 4", "requests: 4\n    until: {ci: 0.05, max_rounds: 2}"),
            edit("requests: 4", "requests: 4\n    until: {ci: 0%, max_rounds: 3, figures: [ttft, e2e_ms_p50]}"),
            axis("isl: [16]\n    rounds: [3]"),
        ],
    );
    let text = YAML
        .replace("isl: [16]", "isl: [16]\n    rounds: [3]\n    request_rate: [1]")
        .replace("    concurrency: [1, 2]\n", "    search: {request_rate: {from: 1, to: 9}}\n");
    insta::assert_snapshot!("series_beside_axes", yaml(&text).unwrap_err());
}

#[test]
fn data() {
    let smoke = |rest: &'static str| edit("    output: {tokens: 8}\n", rest);
    let data = |rest: &'static str| edit("    protocol: openai-chat\n", rest);
    check(
        "data",
        Format::Yaml,
        &[
            data("    protocol: openai-chat\n    data: {trace: {path: t.csv, format: mooncake}}\n"),
            edit("    concurrency: [1, 2]\n    requests: 4\n", "    trace: {speed: 2}\n"),
            smoke("    output: {tokens: from_data}\n"),
            smoke("    output: {tokens: from_dat}\n"),
            smoke("    output: {tokens: {uniform: {min: 9, max: 8}}}\n"),
            smoke("    output: {tokens: {gauss: {mean: 9}}}\n"),
            smoke("    output: {tokens: 0}\n"),
            data("    protocol: openai-chat\n    data: {synthetic: {isl: 8, prefix: {tokens: 8}}}\n"),
            data("    protocol: openai-chat\n    data: {synthetic: {think_time_ms: 8}}\n"),
            data("    protocol: openai-chat\n    data: {synthetic: {isl: {histogram: {values: [1], weights: [0]}}}}\n"),
            data(
                "    protocol: openai-chat\n    data: {synthetic: {isl: {histogram: {values: [1, 2], weights: [0]}}}}\n",
            ),
            data("    protocol: openai-chat\n    data: {synthetic: {isl: {normal: {mean: -1}}}}\n"),
            data("    protocol: openai-chat\n    data: {csv: {path: p.csv, turns: all, unique_prefix: 1}}\n"),
            data("    protocol: openai-chat\n    data: {jsonl: {path: p.jsonl, think_time_ms: 5}}\n"),
            data("    protocol: openai-chat\n    data: {jsonl: {}}\n"),
            data("    protocol: openai-chat\n    data: {trace: {path: t, format: csv}}\n"),
        ],
    );
}

#[test]
fn axes() {
    check(
        "axes",
        Format::Yaml,
        &[
            edit("[tiny, big]", "[tiny, bigg]"),
            edit("[tiny, big]", "[tiny, tiny]"),
            edit("[tiny, big]", "[[tiny], [big]]"),
            edit("[[1, 1], [2, 1]]", "[[1, 1], [2], 4]"),
            edit("[[1, 1], [2, 1]]", "[[1, 1], [2, 0], [2, '1']]"),
            edit("tp/pp:", "tp/tp:"),
            edit("tp/pp:", "tp/isl:"),
            edit("tp/pp:", "tp/:"),
            edit("isl: [16]", "isl: [16]\n    ttft_ms_p99: [1]"),
            edit("isl: [16]", "isl: [1.5, -1, 1]"),
            edit("isl: [16]", "isl: [16]\n    precision: [8, fp8]"),
            edit("isl: [16]", "isl: [1, 1.0]"),
            edit("isl: [16]", "isl: [16]\n  include: [{modell: tiny}, {model: tin, tp: two}]"),
            edit("isl: [16]", "isl: [16]\n  exclude: [{where: {modl: tiny, model: [huge]}, because: slow}]"),
            edit("isl: [16]", "isl: [16]\n  exclude: [{where: {}, because: ''}]"),
            edit("isl: [16]", "isl: [16]\n  per_model: {bigg: {isl: [8]}}"),
            edit("isl: [16]", "isl: [16]\n  per_model: {big: {isk: [8], model: [tiny], tp/pp: [[1]], isl: []}}"),
        ],
    );
}

#[test]
fn yaml_syntax() {
    check(
        "yaml_syntax",
        Format::Yaml,
        &[
            edit("name: sweep", "name: [sweep"),
            edit("name: sweep", "name: \"sweep"),
            edit("    protocol:", "\tprotocol:"),
            edit("    output: {tokens: 8}", "   output: {tokens: 8}"),
            edit("[tiny, big]", "*models"),
            edit("[tiny, big]", "&a [*a]"),
            edit("name: sweep", "name: sweep\n---\nname: other"),
            edit("name: sweep", "%"),
        ],
    );
}

#[test]
fn toml_mistakes() {
    check(
        "toml_mistakes",
        Format::Toml,
        &[
            edit("name = 'sweep'", "name = sweep"),
            edit("name = 'sweep'", "name = 'sweep"),
            edit("name = 'sweep'", "name 'sweep'"),
            edit("name = 'sweep'", "name = 'sweep'\nname = 'again'"),
            edit("requests = 4", "requests = 4\n[matrix.axes]\ntp = [1]"),
            edit("requests = 4", "requests = 4\nrequests = 5\nreqests = 6"),
            edit("requests = 4", "requests = '4'"),
            edit("requests = 4", "requests = 9223372036854775808"),
            edit("requests = 4", "requests = inf"),
            edit("requests = 4", "requests = 1979-05-27"),
            edit("requests = 4", "requests = 0x10"),
            edit("data.synthetic.isl = 16", "data.synthetic.isk = 16"),
            edit("[matrix.axes]", "[matrx.axes]"),
        ],
    );
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = YAML
        .replace("name: sweep", "nmae: sweep")
        .replace("[tiny, big]", "[tiny, bog]")
        .replace("openai-chat", "openai")
        .replace("[1, 2]", "[1, 1]")
        .replace("requests: 4", "requests: 4\n    duration: 1s");
    insta::assert_snapshot!(yaml(&text).unwrap_err());
}

#[test]
fn a_long_list_of_mistakes_is_cut() {
    let text = YAML.replace("[1, 2]", &format!("[{}]", vec!["0"; 120].join(", ")));
    let error = yaml(&text).unwrap_err();
    let printed = error.to_string();
    assert_eq!(printed.lines().count(), 51);
    assert!(printed.ends_with(&format!("m.yaml: and {} more problems", error.problems().len() - 50)), "{printed}");
}

#[test]
fn texts_made_to_exhaust_the_reader_are_refused() {
    let bomb = (1..9).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let before = level - 1;
        format!("{text}a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", "))
    });
    let deep_alias = (1..100).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let before = level - 1;
        format!("{text}a{level}: &a{level} [*a{before}]\n")
    });
    let long = "x.".repeat(100_000);
    let quoted = "'x' . ".repeat(100_000);
    let texts = [
        ("alias bomb", bomb, Format::Yaml),
        ("aliases in aliases", deep_alias, Format::Yaml),
        ("flow lists", format!("a: {}", "[".repeat(100_000)), Format::Yaml),
        ("closed flow lists", format!("a: {}{}", "[".repeat(100), "]".repeat(100)), Format::Yaml),
        ("block lists", format!("a:\n  {}x", "- ".repeat(100_000)), Format::Yaml),
        ("arrays", format!("a = {}", "[".repeat(100_000)), Format::Toml),
        ("closed arrays", format!("a = {}{}", "[".repeat(70), "]".repeat(70)), Format::Toml),
        ("dotted keys", format!("{long}x = 1"), Format::Toml),
        ("quoted dotted keys", format!("[{quoted}x]"), Format::Toml),
    ];
    let mut listing = String::new();
    for (name, text, format) in texts {
        let error = read_text("m", &text, format).unwrap_err();
        writeln!(listing, "{name}: {error}").unwrap();
    }
    insta::assert_snapshot!(listing);
}

#[test]
fn scalars_follow_yaml_1_2() {
    let settings = "{a: no, b: on, c: 'true', d: True, e: 0x10, f: 0o17, g: 012, h: 1e3, i: 1_000, j: 0x, k: +4, \
                    l: -.5, m: 1., n: 1.2.3, o: 12e, p: infinity, q: 2024-01-01, r: 0b1, s: --, t: e3}";
    let text = YAML.replace("{name: embedded}", &format!("{{name: embedded, settings: {settings}}}"));
    insta::assert_debug_snapshot!(yaml(&text).unwrap().value.engine.unwrap().settings);
}

#[test]
fn anchors_marks_and_line_ends_are_read() {
    let plain = yaml(YAML).unwrap().value;
    let crlf = YAML.replace('\n', "\r\n");
    assert_eq!(yaml(&crlf).unwrap().value, plain);
    assert_eq!(yaml(&format!("\u{feff}{YAML}")).unwrap().value, plain);
    let anchored = YAML.replace("tiny: {dummy: {}}", "tiny: &it {dummy: {}}").replace("{hf: {repo: a/b}}", "*it");
    let anchored = yaml(&anchored).unwrap().value;
    assert_eq!(anchored.models["big"], anchored.models["tiny"]);

    let toml = read_text("m.toml", TOML, Format::Toml).unwrap().value;
    let marked = format!("\u{feff}{}", TOML.replace('\n', "\r\n"));
    assert_eq!(read_text("m.toml", &marked, Format::Toml).unwrap().value, toml);
}

#[test]
fn places_count_characters_and_not_the_byte_order_mark() {
    let error = yaml("\u{feff}nmae: x").unwrap_err();
    assert!(error.to_string().starts_with("m.yaml:1:1: nmae: unknown key"), "{error}");
    let error = yaml(&YAML.replace("{dummy: {}}", "{dummy: {config: {千问: {}}, seed: -1}}")).unwrap_err();
    assert!(error.to_string().starts_with("m.yaml:3:42: models.tiny.dummy.seed: must be at least 0"), "{error}");
}

#[test]
fn what_others_complain_of_is_said_with_what_reading_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.yaml");
    std::fs::write(&path, YAML.to_owned() + "extra: 1\n").unwrap();
    let mut draft = draft(&path).unwrap();
    let concurrency = KeyPath::of_keys(&["benchmarks", "smoke", "concurrency"]);
    draft.complain(concurrency.index(1), "is odd", None);
    draft.complain(concurrency.index(2), "is missing", Some("add it".to_owned()));
    draft.complain(KeyPath::of_keys(&["extra"]), "follows from what was found", None);
    let error = draft.finish().unwrap_err().to_string().replace(&path.display().to_string(), "m.yaml");
    let expected = [
        "m.yaml:15:5: benchmarks.smoke.concurrency[2]: is missing\n  hint: add it\n",
        "m.yaml:15:22: benchmarks.smoke.concurrency[1]: is odd\n",
    ];
    let rest = error.strip_prefix(&expected.concat()).unwrap_or_else(|| panic!("{error}"));
    assert!(rest.contains(": extra: unknown key `extra`") && !rest.contains("follows from"), "{error}");
}

#[test]
fn files_that_are_no_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path).unwrap_err().to_string().replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(refusal("a.yaml", b""), "a.yaml:1:1: the file is empty");
    assert_eq!(refusal("b.toml", b"# nothing\n"), "b.toml:1:1: the file is empty");
    assert_eq!(refusal("c.yaml", b"name: x\nseed: \xff\n"), "c.yaml:2:7: the file is not valid UTF-8");
    assert_eq!(refusal("d.yaml", &vec![b'#'; (8 << 20) + 1]), "d.yaml:1:1: the file is larger than 8 MiB");
    assert_eq!(refusal("e.yaml", b"hello"), "e.yaml:1:1: expected a map, found the string `hello`");
    let unnamed = refusal("f.conf", b"name: x");
    assert!(unnamed.starts_with("f.conf:1:1: the file name does not say what the file holds"), "{unnamed}");
    let absent = read(&folder.path().join("absent.yaml")).unwrap_err();
    assert!(matches!(absent, ReadError::Open { .. }) && absent.problems().is_empty());
}

#[test]
fn every_duration_that_is_accepted_is_a_time() {
    let milliseconds = |duration: &str| {
        let text = YAML.replace("requests: 4", &format!("duration: {duration}"));
        let phase = yaml(&text).unwrap().value.benchmarks["smoke"].clone();
        phase.duration.unwrap().as_std().as_millis()
    };
    assert_eq!(milliseconds("250ms"), 250);
    assert_eq!(milliseconds("1h 30m"), 5_400_000);
    let longest = ["999999999d"; 5].join(" ");
    assert_eq!(milliseconds(&longest), 5 * 999_999_999 * 86_400_000);
}

#[test]
fn long_axes_are_read() {
    let axis = (1..=1000).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let text = YAML.replace("isl: [16]", &format!("isl: [{axis}]\n    other: [{axis}]\n    third: [{axis}]"));
    assert_eq!(yaml(&text).unwrap().value.matrix.axes["third"].len(), 1000);
}

/// Reads a text that may be anything; a refusal names places that the text has.
fn survives(text: &str, format: Format) -> Result<(), TestCaseError> {
    let Err(error) = read_text("m", text, format) else { return Ok(()) };
    prop_assert!(!error.problems().is_empty());
    prop_assert!(!error.to_string().is_empty());
    for problem in error.problems() {
        let line = text.split('\n').nth(problem.location.line - 1);
        let columns = line.map(|line| line.chars().count() + 1);
        prop_assert!(columns.is_some_and(|columns| problem.location.column <= columns), "{problem:?}");
    }
    Ok(())
}

fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    let characters = text.chars().count();
    prop_oneof![
        (0..characters).prop_map(move |length| text.chars().take(length).collect::<String>()),
        (0..characters, any::<char>()).prop_map(move |(at, inserted)| insert(text, at, inserted)),
        (0..characters, "[]\\[{}:,&*!|>'\"%@`#\\-\t\r\n ~<.=0-9]")
            .prop_map(move |(at, inserted)| { insert(text, at, inserted.chars().next().unwrap_or(' ')) }),
        (0..count).prop_map({
            let lines = lines.clone();
            move |gone| {
                let kept = lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line);
                kept.collect::<Vec<_>>().join("\n")
            }
        }),
        (0..count, 0..count).prop_map(move |(first, second)| {
            let mut lines = lines.clone();
            lines.swap(first, second);
            lines.join("\n")
        }),
    ]
}

fn insert(text: &str, at: usize, inserted: char) -> String {
    text.chars().take(at).chain([inserted]).chain(text.chars().skip(at)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        survives(&text, Format::Yaml)?;
        survives(&text, Format::Toml)?;
    }

    #[test]
    fn no_yaml_manifest_makes_the_reader_panic(text in mutated(FULL)) {
        survives(&text, Format::Yaml)?;
    }

    #[test]
    fn no_toml_manifest_makes_the_reader_panic(text in mutated(FULL_TOML)) {
        survives(&text, Format::Toml)?;
    }
}
