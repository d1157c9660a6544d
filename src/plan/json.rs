use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::material::point_material;
use super::phase::identity;
use super::types::{CellState, Plan, PlannedCell, PlannedSeries, Point, PointState, Step};
use crate::base::StepKey;

/// `plan.json`, and what `benchrun plan --format json` prints.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("format", &1)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("engines", &self.engines)?;
        map.serialize_entry("summary", &self.summary())?;
        map.serialize_entry("warnings", &self.warnings)?;
        map.serialize_entry("cells", &Listed(|| self.cells.iter().map(|cell| self.cell_json(cell))))?;
        map.serialize_entry("steps", &Listed(|| self.steps.iter().map(|step| self.step_json(step))))?;
        let points = || self.points.iter().enumerate().filter_map(|(index, point)| self.point_json(index, point));
        map.serialize_entry("points", &Listed(points))?;
        map.serialize_entry("series", &Listed(|| self.series.iter().map(|series| self.series_json(series))))?;
        map.end()
    }
}

/// A list that is made while it is written: a large plan as one value would take gigabytes.
struct Listed<F>(F);

impl<F: Fn() -> I, I: Iterator<Item = Value>> Serialize for Listed<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

impl Plan {
    /// What decides the key of a step of this plan.
    #[must_use]
    pub fn material(&self, step: &Step) -> Value {
        step.decided.material(step.inputs.iter().map(|&input| &self.steps[input].key))
    }

    /// What decides the key of the load point at this index.
    ///
    /// # Panics
    /// When the load point is not one to be measured: it has no key.
    #[must_use]
    pub fn point_material(&self, index: usize) -> Value {
        let point = &self.points[index];
        let server = self.server_of(point).expect("a load point with a key has a server");
        point_material(&self.steps[server].key, &identity(&point.load), &point.data)
    }

    /// `tiny/fp16/bs4 throughput c8`.
    #[must_use]
    pub fn point_label(&self, index: usize) -> String {
        let point = &self.points[index];
        format!("{} {} {}", self.cells[point.cell].id, point.load.phase, point.name)
    }

    fn step_json(&self, step: &Step) -> Value {
        let inputs: Vec<&str> = step.inputs.iter().map(|&input| self.steps[input].key.as_str()).collect();
        json!({
            "kind": step.kind, "key": step.key, "label": step.label, "state": step.state, "inputs": inputs,
            "material": self.material(step),
        })
    }

    fn cell_json(&self, cell: &PlannedCell) -> Value {
        let values: Map<String, Value> = self
            .axes
            .iter()
            .zip(&cell.values)
            .filter_map(|(axis, value)| Some((axis.clone(), serde_json::to_value(value.as_ref()?).ok()?)))
            .collect();
        let (state, reason, server) = match &cell.state {
            CellState::Planned { server } => ("planned", None, Some(self.steps[*server].key.as_str())),
            CellState::Excluded { because } => ("excluded", Some(because.as_ref()), None),
            CellState::Unsupported { because } => ("unsupported", Some(because.as_ref()), None),
            CellState::NotChosen => ("not_chosen", None, None),
        };
        json!({ "cell": cell.id, "values": values, "state": state, "reason": reason, "server": server, "gpus": cell.gpus })
    }

    /// With the keys of what the run may come to measure: `store gc` keeps it.
    fn series_json(&self, series: &PlannedSeries) -> Value {
        let points = &self.points[series.points.clone()];
        let (cell, phase) = (&self.cells[points[0].cell].id, &points[0].load.phase);
        let possible = points.iter().filter(|point| !point.is_planned()).filter_map(Point::key);
        let possible: Vec<&StepKey> = possible.collect();
        json!({ "cell": cell, "phase": phase, "rule": series.rule.as_ref(), "possible": possible })
    }

    fn point_json(&self, index: usize, point: &Point) -> Option<Value> {
        let cell = &self.cells[point.cell].id;
        let label = self.point_label(index);
        Some(match &point.state {
            PointState::Possible { .. } => return None,
            PointState::Planned { key, state } => json!({
                "kind": "point", "key": key, "label": label, "cell": cell, "state": state,
                "material": self.point_material(index),
            }),
            PointState::Unsupported { because } => {
                json!({ "label": label, "cell": cell, "unsupported": because.as_ref() })
            }
            PointState::Excluded { because } => json!({ "label": label, "cell": cell, "excluded": because.as_ref() }),
            PointState::NotChosen => json!({ "label": label, "cell": cell, "not_chosen": true }),
        })
    }
}
