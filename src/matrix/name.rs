use std::collections::HashMap;

use super::Cell;
use crate::base::{CellId, Digest, Scalar};

/// Longer parts are cut, so that a path of several stays within what file systems take.
const PART_LIMIT: usize = 60;

/// Makes cell ids that read well, are safe as relative paths and differ from each other.
#[derive(Default)]
pub(super) struct Names {
    parts: HashMap<(usize, Scalar), String>,
    count: HashMap<CellId, usize>,
}

impl Names {
    pub(super) fn cell_id(&mut self, axes: &[String], values: &[Option<Scalar>]) -> CellId {
        let mut id = String::new();
        for (at, (axis, value)) in axes.iter().zip(values).enumerate() {
            let Some(value) = value else { continue };
            if !id.is_empty() {
                id.push('/');
            }
            // One entry for each value of an axis: the sweep may have a hundred thousand cells.
            id += self.parts.entry((at, value.clone())).or_insert_with(|| part(axis, value));
        }
        let id = CellId::new(id);
        *self.count.entry(id.clone()).or_default() += 1;
        id
    }

    /// Appends a hash of the values to ids that several cells share.
    pub(super) fn distinct(self, mut cells: Vec<Cell>) -> Vec<Cell> {
        for cell in &mut cells {
            if self.count[&cell.id] > 1 {
                let digest = Digest::of(format!("{:?}", cell.values).as_bytes());
                cell.id = CellId::new(format!("{}~{}", cell.id, &digest[..8]));
            }
        }
        cells
    }
}

fn part(axis: &str, value: &Scalar) -> String {
    let value = safe(&value.to_string());
    match axis {
        "model" | "engine" | "precision" => value,
        "batch_size" => format!("bs{value}"),
        "tp" | "pp" | "isl" | "osl" => format!("{axis}{value}"),
        _ => format!("{}-{value}", safe(axis)),
    }
}

fn safe(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '=') { c } else { '_' })
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= PART_LIMIT).then_some(c)
        })
        .collect();
    if kept.trim_matches('.').is_empty() { "_".to_owned() } else { kept }
}
