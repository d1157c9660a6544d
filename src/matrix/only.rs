use super::Cells;

/// A choice of cells by axis values: `precision=fp8,tp=1|4`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Only {
    /// Axis, then the values allowed; all conditions must hold.
    conditions: Vec<(String, Vec<String>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum OnlyError {
    #[error("`{part}` is not of the form AXIS=VALUE or AXIS=VALUE|VALUE")]
    Form { part: String },
    #[error("the matrix has no axis `{axis}` (it has: {})", .known.join(", "))]
    UnknownAxis { axis: String, known: Vec<String> },
    #[error("axis `{axis}` has no value `{value}`")]
    UnknownValue { axis: String, value: String },
}

impl Only {
    pub fn parse(text: &str) -> Result<Self, OnlyError> {
        let condition = |part: &str| {
            let form = || OnlyError::Form { part: part.to_owned() };
            let (axis, values) = part.split_once('=').ok_or_else(form)?;
            if axis.trim().is_empty() || values.trim().is_empty() {
                return Err(form());
            }
            Ok((axis.trim().to_owned(), values.split('|').map(|value| value.trim().to_owned()).collect()))
        };
        Ok(Self { conditions: text.split(',').map(condition).collect::<Result<_, _>>()? })
    }

    /// Which of the cells are chosen, in their order.
    ///
    /// # Errors
    /// When an axis or a value is not in the matrix: an empty choice by a slip of the pen would look like success.
    pub fn choose(&self, cells: &Cells) -> Result<Vec<bool>, OnlyError> {
        let mut chosen = vec![true; cells.cells.len()];
        for (axis, values) in &self.conditions {
            let at = cells
                .axes
                .iter()
                .position(|name| name == axis)
                .ok_or_else(|| OnlyError::UnknownAxis { axis: axis.clone(), known: cells.axes.clone() })?;
            let mut seen = vec![false; values.len()];
            for (cell, chosen) in cells.cells.iter().zip(&mut chosen) {
                let value = cell.values[at].as_ref().map(ToString::to_string);
                match values.iter().position(|wanted| Some(wanted) == value.as_ref()) {
                    Some(which) => seen[which] = true,
                    None => *chosen = false,
                }
            }
            if let Some(which) = seen.iter().position(|seen| !seen) {
                return Err(OnlyError::UnknownValue { axis: axis.clone(), value: values[which].clone() });
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CellId;
    use crate::matrix::Cell;

    fn cells() -> Cells {
        let cell = |precision: &str, tp: i64| Cell {
            id: CellId::new(format!("{precision}/tp{tp}")),
            values: vec![Some(precision.into()), Some(tp.into())],
            excluded: None,
        };
        Cells {
            axes: vec!["precision".to_owned(), "tp".to_owned()],
            cells: vec![cell("fp8", 1), cell("fp8", 2), cell("fp16", 1), cell("fp8", 4)],
        }
    }

    #[test]
    fn conditions_are_joined_by_and_values_by_or() {
        let only = Only::parse("precision=fp8, tp=1|4").unwrap();
        assert_eq!(only.choose(&cells()).unwrap(), [true, false, false, true]);
    }

    #[test]
    fn slips_are_refused() {
        assert!(matches!(Only::parse("fp8"), Err(OnlyError::Form { .. })));
        assert!(matches!(Only::parse("tp="), Err(OnlyError::Form { .. })));
        assert!(matches!(Only::parse("x=1").unwrap().choose(&cells()), Err(OnlyError::UnknownAxis { .. })));
        assert!(matches!(Only::parse("tp=3").unwrap().choose(&cells()), Err(OnlyError::UnknownValue { .. })));
    }
}
