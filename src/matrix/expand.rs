use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::name::Names;
use crate::base::{CellId, Scalar};
use crate::manifest::{AxisValue, Manifest, Matrix};

/// More cells than this are taken for a mistake.
const CELL_LIMIT: u128 = 10_000_000;

/// The axis of a manifest with several engines.
const ENGINE: &str = "engine";

/// One point of the sweep.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cell {
    pub id: CellId,
    /// One value for each of [`Cells::axes`], in that order; `None` for an axis that the cell's engine does not know.
    pub values: Vec<Option<Scalar>>,
    /// The `because` of the exclude that leaves the cell out.
    pub excluded: Option<Arc<str>>,
}

/// The whole sweep.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cells {
    /// Every axis, zipped ones apart, `model` always among them, and `engine` where there are several.
    pub axes: Vec<String>,
    /// The model varies slowest, then the engine unless it is listed, then the axes in the manifest's order.
    pub cells: Vec<Cell>,
}

#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    #[error("the matrix has {count} cells, more than {CELL_LIMIT}")]
    TooMany { count: u128 },
    #[error("the matrix has no cell: axis `{axis}` has no values")]
    Empty { axis: String },
}

/// One axis, or several that move together.
struct Group<'a> {
    names: Vec<&'a str>,
    values: Vec<Vec<Scalar>>,
}

/// All cells of a manifest. `knows` says whether an engine, by its name in the manifest, makes anything of an axis: where
/// it does not, the axis has no value and makes no second cell.
///
/// # Errors
/// When an axis has no values, or there are more than ten million cells.
pub fn expand(manifest: &Manifest, knows: &dyn Fn(&str, &str) -> bool) -> Result<Cells, MatrixError> {
    let groups = groups(manifest);
    if let Some(empty) = groups.iter().find(|group| group.values.is_empty()) {
        return Err(MatrixError::Empty { axis: empty.names.join("/") });
    }
    let axes: Vec<String> = groups.iter().flat_map(|group| group.names.iter().map(|&name| name.to_owned())).collect();
    let mut rows: Vec<Vec<Scalar>> = Vec::new();
    let mut count: u128 = 0;
    for first in &groups[0].values {
        let rest = with_model_values(&groups, first, &manifest.matrix);
        count += rest.iter().fold(1_u128, |product, group| product.saturating_mul(group.values.len() as u128));
        if count > CELL_LIMIT {
            return Err(MatrixError::TooMany { count });
        }
        extend_by_product(&mut rows, first, &rest);
    }
    add_included(&mut rows, manifest, &groups, &axes);
    let mut names = Names::default();
    let cells = of_their_engines(rows, &axes, knows)
        .into_iter()
        .map(|values| Cell {
            id: names.cell_id(&axes, &values),
            excluded: reason_to_exclude(&manifest.matrix, &axes, &values),
            values,
        })
        .collect();
    Ok(Cells { axes, cells: names.distinct(cells) })
}

/// The rows without what their engines do not know, each of them once.
fn of_their_engines(
    rows: Vec<Vec<Scalar>>,
    axes: &[String],
    knows: &dyn Fn(&str, &str) -> bool,
) -> Vec<Vec<Option<Scalar>>> {
    let Some(at) = axes.iter().position(|axis| axis == ENGINE) else {
        return rows.into_iter().map(|row| row.into_iter().map(Some).collect()).collect();
    };
    let mut known: HashMap<Scalar, Vec<bool>> = HashMap::new();
    let rows = rows.into_iter().map(|row| {
        let of_engine = |engine: &str| axes.iter().map(|axis| knows(engine, axis)).collect();
        let known = known.entry(row[at].clone()).or_insert_with(|| of_engine(&row[at].to_string()));
        row.into_iter().zip(known).map(|(value, known)| known.then_some(value)).collect()
    });
    rows.collect::<IndexSet<Vec<Option<Scalar>>>>().into_iter().collect()
}

/// The group that holds `model` first: other axes may have other values for some models.
fn groups(manifest: &Manifest) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> =
        manifest.matrix.axes.iter().map(|(name, values)| Group::new(name, values)).collect();
    match groups.iter().position(|group| group.names.contains(&"model")) {
        Some(at) => groups[..=at].rotate_right(1),
        None => {
            let values = manifest.models.keys().map(|name| vec![Scalar::Text(name.clone())]).collect();
            groups.insert(0, Group { names: vec!["model"], values });
        }
    }
    if !manifest.engines.is_empty() && !groups.iter().any(|group| group.names.contains(&ENGINE)) {
        let values = manifest.engines.keys().map(|label| vec![Scalar::Text(label.clone())]).collect();
        groups.insert(1, Group { names: vec![ENGINE], values });
    }
    groups
}

impl<'a> Group<'a> {
    fn new(name: &'a str, values: &[AxisValue]) -> Self {
        let values = values
            .iter()
            .map(|value| match value {
                AxisValue::One(value) => vec![value.clone()],
                AxisValue::Together(values) => values.clone(),
            })
            .collect();
        Self { names: name.split('/').collect(), values }
    }
}

/// The groups after the first, with the values that `per_model` gives for the model in `first`.
fn with_model_values<'a>(groups: &'a [Group<'a>], first: &[Scalar], matrix: &'a Matrix) -> Vec<Group<'a>> {
    let overrides = groups[0]
        .names
        .iter()
        .position(|&name| name == "model")
        .and_then(|at| first[at].as_text())
        .and_then(|model| matrix.per_model.get(model));
    groups[1..]
        .iter()
        .map(|group| {
            let name = group.names.join("/");
            match overrides.and_then(|overrides| overrides.get_key_value(&name)) {
                Some((name, values)) => Group::new(name, values),
                None => Group { names: group.names.clone(), values: group.values.clone() },
            }
        })
        .collect()
}

fn extend_by_product(rows: &mut Vec<Vec<Scalar>>, first: &[Scalar], rest: &[Group<'_>]) {
    let mut partial = vec![first.to_vec()];
    for group in rest {
        partial = partial
            .iter()
            .flat_map(|row| group.values.iter().map(move |values| [row.as_slice(), values].concat()))
            .collect();
    }
    rows.append(&mut partial);
}

fn add_included(rows: &mut Vec<Vec<Scalar>>, manifest: &Manifest, groups: &[Group<'_>], axes: &[String]) {
    let mut known: HashSet<Vec<Scalar>> =
        if manifest.matrix.include.is_empty() { HashSet::new() } else { rows.iter().cloned().collect() };
    for include in &manifest.matrix.include {
        let model = include.get("model").cloned();
        let first: Vec<Scalar> = groups[0]
            .names
            .iter()
            .zip(&groups[0].values[0])
            .map(|(&name, value)| if name == "model" { model.clone().unwrap_or(value.clone()) } else { value.clone() })
            .collect();
        let rest = with_model_values(groups, &first, &manifest.matrix);
        let defaults =
            first.into_iter().chain(rest.iter().flat_map(|group| group.values.first().cloned().unwrap_or_default()));
        let row: Vec<Scalar> =
            axes.iter().zip(defaults).map(|(axis, value)| include.get(axis).cloned().unwrap_or(value)).collect();
        if known.insert(row.clone()) {
            rows.push(row);
        }
    }
}

fn reason_to_exclude(matrix: &Matrix, axes: &[String], values: &[Option<Scalar>]) -> Option<Arc<str>> {
    let matches = |matching: &IndexMap<String, AxisValue>| {
        matching.iter().all(|(axis, wanted)| {
            let at = axes.iter().position(|name| name == axis);
            let Some(value) = at.and_then(|at| values[at].as_ref()) else { return false };
            match wanted {
                AxisValue::One(wanted) => value == wanted,
                AxisValue::Together(wanted) => wanted.contains(value),
            }
        })
    };
    matrix.exclude.iter().find(|exclude| matches(&exclude.matching)).map(|exclude| exclude.because.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Engine, Format, read_text};

    fn manifest(matrix: &str) -> Manifest {
        let text = format!(
            "name: m\nmodels: {{a: {{dummy: {{}}}}, b: {{dummy: {{}}}}}}\nengine: {{name: embedded}}\n\
             benchmarks: {{p: {{protocol: openai-chat, concurrency: [1], requests: 1, data: {{synthetic: {{isl: 8}}}}, output: {{tokens: 8}}}}}}\nmatrix:\n{matrix}"
        );
        read_text("m.yaml", &text, Format::Yaml).unwrap().value
    }

    fn ids(matrix: &str) -> Vec<String> {
        let cells = expand(&manifest(matrix), &|_, _| true).unwrap();
        cells
            .cells
            .iter()
            .map(|cell| match &cell.excluded {
                Some(because) => format!("{} ({because})", cell.id),
                None => cell.id.to_string(),
            })
            .collect()
    }

    #[test]
    fn the_model_varies_slowest_and_zipped_axes_move_together() {
        assert_eq!(
            ids("  axes: {tp/pp: [[1, 1], [2, 1]], model: [a, b], precision: [fp16]}"),
            ["a/tp1/pp1/fp16", "a/tp2/pp1/fp16", "b/tp1/pp1/fp16", "b/tp2/pp1/fp16"]
        );
    }

    #[test]
    fn a_manifest_without_a_model_axis_takes_all_models() {
        assert_eq!(ids("  axes: {batch_size: [4]}"), ["a/bs4", "b/bs4"]);
    }

    #[test]
    fn per_model_values_stand_in_for_the_axis() {
        assert_eq!(
            ids("  axes: {tp/pp: [[1, 1]]}\n  per_model: {b: {tp/pp: [[4, 1], [4, 2]]}}"),
            ["a/tp1/pp1", "b/tp4/pp1", "b/tp4/pp2"]
        );
    }

    #[test]
    fn includes_take_first_values_and_are_not_doubled() {
        assert_eq!(
            ids(
                "  axes: {model: [a], precision: [fp16, fp8]}\n  include: [{precision: int8_wo}, {precision: fp8}, {model: b}]"
            ),
            ["a/fp16", "a/fp8", "a/int8_wo", "b/fp16"]
        );
    }

    #[test]
    fn excluded_cells_stay_with_their_reason() {
        assert_eq!(
            ids(
                "  axes: {model: [a], precision: [fp8, fp16], tp: [1, 2]}\n  exclude: [{where: {precision: fp8, tp: [2, 4]}, because: no}]"
            ),
            ["a/fp8/tp1", "a/fp8/tp2 (no)", "a/fp16/tp1", "a/fp16/tp2"]
        );
    }

    #[test]
    fn an_engine_has_only_the_axes_that_it_knows() {
        let mut manifest = manifest("  axes: {model: [a], tp: [1, 2], cache: [1]}\n  include: [{model: b, tp: 3}]");
        manifest.engine = None;
        manifest.engines = ["x", "y"].map(|name| (name.to_owned(), Engine::default())).into();
        manifest.matrix.include[0].insert("engine".to_owned(), "y".into());
        let cells = expand(&manifest, &|engine, axis| engine == "x" || axis != "tp").unwrap();
        let ids: Vec<String> = cells.cells.iter().map(|cell| cell.id.to_string()).collect();
        assert_eq!(ids, ["a/x/tp1/cache-1", "a/x/tp2/cache-1", "a/y/cache-1", "b/y/cache-1"]);
        assert_eq!(cells.axes, ["model", "engine", "tp", "cache"]);
        assert_eq!(cells.cells[2].values[2], None);
    }

    #[test]
    fn ids_are_safe_as_paths_and_distinct() {
        let ids = ids("  axes: {model: [a], note: ['x y', 'x/y', '..', 中文]}");
        assert_eq!(ids[3], "a/note-中文");
        assert_eq!(ids[2], "a/note-_");
        assert!(ids[0].starts_with("a/note-x_y~") && ids[1].starts_with("a/note-x_y~") && ids[0] != ids[1], "{ids:?}");
    }

    #[test]
    fn an_axis_without_values_and_a_huge_product_are_refused() {
        let mut without_values = manifest("  axes: {precision: [fp16]}");
        without_values.matrix.axes["precision"].clear();
        assert!(matches!(expand(&without_values, &|_, _| true), Err(MatrixError::Empty { .. })));
        let list: Vec<String> = (0..400).map(|i| i.to_string()).collect();
        let list = list.join(", ");
        let huge = format!("  axes: {{a: [{list}], b: [{list}], c: [{list}]}}");
        assert!(matches!(expand(&manifest(&huge), &|_, _| true), Err(MatrixError::TooMany { .. })));
    }

    proptest::proptest! {
        #[test]
        fn the_count_is_the_product(sizes in proptest::collection::vec(1_usize..5, 1..5)) {
            let mut text = "  axes: {model: [a]".to_owned();
            for (index, size) in sizes.iter().enumerate() {
                let values: Vec<String> = (0..*size).map(|value| value.to_string()).collect();
                text = format!("{text}, x{index}: [{}]", values.join(", "));
            }
            let cells = expand(&manifest(&(text + "}")), &|_, _| true).unwrap().cells;
            proptest::prop_assert_eq!(cells.len(), sizes.iter().product::<usize>());
        }
    }
}
