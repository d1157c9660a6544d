use serde_json::Value;

use super::{Report, is_misspelled};
use crate::manifest::problem::KeyPath;
use crate::manifest::tree::Complaint;
use crate::spec::{Method, Protocol};

/// Fields that a method decides: with another value it would not be that method.
const DECIDED: [&str; 6] = ["protocol", "duration", "stages", "trace", "spacing", "max_concurrency"];

/// How requests travel, and what a method leaves open.
pub(super) fn check(phase: &Value, path: &KeyPath, has_protocol_axis: bool, report: &mut Report<'_>) {
    check_token_ids(phase, path, report);
    let Some(method) = of(phase) else {
        let says_nothing = !has_protocol_axis && ["protocol", "method"].iter().all(|field| phase.get(field).is_none());
        if says_nothing && !is_misspelled(phase, &["protocol", "method"]) {
            let complaint = Complaint::new("nothing says how requests travel to the server");
            report.at_key(path.clone(), complaint.with_hint("give `protocol: openai-chat`, or a `method`"));
        }
        return;
    };
    let open_loop = method == Method::Serving;
    let loop_field = if open_loop { "concurrency" } else { "request_rate" };
    let given = |field: &&str| phase.get(field).is_some() && !(*field == "protocol" && is_kept(phase, method));
    for field in DECIDED.into_iter().chain([loop_field]).filter(given) {
        let complaint = Complaint::new(format!("`{field}` is given beside a `method`, which decides it"));
        report.at_key(path.key(field), complaint.with_hint("remove it"));
    }
    check_data(phase, method, path, report);
}

/// Whether the phase's protocol may be kept: of the methods whose scripts call the engine in their own process, that; and
/// chat where it carries token ids, and so no template.
fn is_kept(phase: &Value, method: Method) -> bool {
    let is = |protocol: Protocol| phase.get("protocol").is_some_and(|given| given == protocol.name());
    let has_ids = phase.pointer("/data/synthetic/token_ids").is_some_and(|given| given == true);
    match method {
        Method::Static | Method::StaticA1 => is(Protocol::InProcess) || is(Protocol::OpenaiChat) && has_ids,
        Method::Throughput => is(Protocol::InProcess),
        Method::Api | Method::ApiA1 | Method::Serving | Method::Tis | Method::TisA1 => false,
    }
}

fn check_token_ids(phase: &Value, path: &KeyPath, report: &mut Report<'_>) {
    let is_static = of(phase).is_some_and(|method| method.defaults().sampler.is_none());
    if !is_static && phase.pointer("/data/synthetic/token_ids").is_some() {
        let complaint = Complaint::new("`token_ids` is for the method `lmdeploy-static`");
        report.at_key(path.key("data").key("synthetic").key("token_ids"), complaint.with_hint("remove it"));
    }
}

/// The method of a phase, if it names one that there is.
pub(super) fn of(phase: &Value) -> Option<Method> {
    phase.get("method").and_then(|method| serde_json::from_value(method.clone()).ok())
}

fn check_data(phase: &Value, method: Method, path: &KeyPath, report: &mut Report<'_>) {
    let data = phase.get("data");
    let is = |kind: &str| data.is_some_and(|data| data.get(kind).is_some());
    let Some(_) = method.defaults().sampler else {
        if data.is_some() && !is("synthetic") {
            let complaint = Complaint::new("the method sends prompts of fixed lengths");
            report.at_key(path.key("data"), complaint.with_hint("give `data: {synthetic: {isl: 128}}`"));
        }
        return;
    };
    if !is("sharegpt") {
        let path = if data.is_some() { path.key("data") } else { path.clone() };
        let complaint = Complaint::new("the method takes its requests out of a ShareGPT file");
        report.at_key(path, complaint.with_hint("give `data: {sharegpt: {path: ShareGPT.json}}`"));
    }
    if method != Method::Serving && phase.pointer("/output/tokens").is_some_and(|tokens| tokens != "from_data") {
        let complaint = Complaint::new("the method takes the length of each answer out of the file");
        report.at_key(path.key("output").key("tokens"), complaint.with_hint("remove it"));
    }
}
