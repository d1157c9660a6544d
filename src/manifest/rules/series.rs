//! Phases that decide by their results what to measure next.

use std::collections::HashSet;

use serde_json::Value;

use super::{Report, entries, is_misspelled, items};
use crate::manifest::problem::{KeyPath, did_you_mean};
use crate::manifest::tree::Complaint;

/// What a search raises.
const SEARCHED: [&str; 2] = ["concurrency", "request_rate"];

/// A phase and where it is.
pub(super) struct Series<'a> {
    pub(super) phase: &'a Value,
    pub(super) path: &'a KeyPath,
    pub(super) axes: &'a HashSet<&'a str>,
}

impl Series<'_> {
    pub(super) fn check_search(&self, report: &mut Report<'_>) {
        let at = self.path.key("search");
        let Some(search) = self.phase.get("search").filter(|search| search.is_object()) else { return };
        match SEARCHED.into_iter().filter(|kind| search.get(kind).is_some()).collect::<Vec<_>>().as_slice() {
            [] if is_misspelled(search, &SEARCHED) => {}
            [kind] => {
                check_range(&search[kind], &at.key(kind), report);
                if self.axes.contains(kind) {
                    let complaint = Complaint::new(format!("the axis `{kind}` gives the load that `search` looks for"));
                    let hint = "remove the axis, or search for the other kind of load";
                    report.at_key(at.key(kind), complaint.with_hint(hint));
                }
            }
            [] | [_, ..] => {
                let complaint = Complaint::new("a search raises exactly one of `concurrency` and `request_rate`");
                report.at_key(at.clone(), complaint.with_hint("give one, such as `request_rate: {from: 1, to: 64}`"));
            }
        }
        if entries(self.phase.get("thresholds")).next().is_none() && !is_misspelled(self.phase, &["thresholds"]) {
            let complaint = Complaint::new("`search` needs `thresholds` that a load keeps or misses");
            let hint = "give `thresholds: {ttft_ms_p99: {max: 500}}`, or `{goodput_share: {min: 0.99}}` with `slo`";
            report.at_key(at.clone(), complaint.with_hint(hint));
        }
        if search.get("precision").and_then(Value::as_str).is_some_and(|precision| precision.starts_with("0.")) {
            let complaint = Complaint::new("a search goes no finer than 1%");
            report.at_value(at.key("precision"), complaint.with_hint("measurements differ by more: give 1% or more"));
        }
        let hint = "the loads at the limit are measured `search.repeats` times: give that instead";
        self.refuse_beside("search", &["rounds", "until"], hint, report);
    }

    pub(super) fn check_until(&self, report: &mut Report<'_>) {
        let hint = "`until` decides how often a load point is measured, at most `max_rounds` times: remove the other";
        self.refuse_beside("until", &["rounds"], hint, report);
    }

    /// Complains of fields, or of axes in their place, that contradict `field`.
    fn refuse_beside(&self, field: &str, others: &[&str], hint: &str, report: &mut Report<'_>) {
        for other in others {
            if self.phase.get(other).is_some() {
                let complaint = Complaint::new(format!("both `{field}` and `{other}` are given"));
                report.at_key(self.path.key(other), complaint.with_hint(hint));
            } else if self.axes.contains(other) {
                let complaint = Complaint::new(format!("`{field}` is given, and an axis `{other}`"));
                report.at_key(self.path.key(field), complaint.with_hint(hint));
            }
        }
    }
}

fn check_range(range: &Value, path: &KeyPath, report: &mut Report<'_>) {
    let bound = |name: &str| range.get(name).map_or(Some(1.0), Value::as_f64);
    if let (Some(from), Some(to)) = (bound("from"), bound("to").filter(|_| range.get("to").is_some()))
        && from >= to
    {
        let complaint = Complaint::new(format!("`from` ({from}) is not below `to` ({to})"));
        report.at_value(path.clone(), complaint.with_hint("give the lowest and the highest load worth trying"));
    }
}

/// The figures that `until` looks at are columns with numbers.
pub(super) fn check_figures(phase: &Value, path: &KeyPath, columns: &[&str], report: &mut Report<'_>) {
    for (index, figure) in items(phase.pointer("/until/figures")) {
        if let Some(figure) = figure.as_str().filter(|figure| !columns.contains(figure)) {
            let complaint = Complaint::new(format!("the results have no figure `{figure}`"));
            let at = path.key("until").key("figures").index(index);
            report.at_value(at, complaint.with_hint(did_you_mean(figure, "columns", columns)));
        }
    }
}
