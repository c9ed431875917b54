//! The text of a reference: `stage`, `stage.port`, `stage[cell].port`, `data.name`.

/// A reference taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference<'t> {
    /// `data.name`.
    Data(&'t str),
    /// An output of a stage.
    Stage {
        name: &'t str,
        /// What stands between the brackets.
        cell: Option<&'t str>,
        /// What stands after the dot.
        port: Option<&'t str>,
    },
}

impl<'t> Reference<'t> {
    /// Takes a reference apart. Cells may hold dots, commas and brackets in pairs.
    ///
    /// # Errors
    ///
    /// What is wrong with its form.
    pub fn parse(text: &'t str) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("data.") {
            return if name.is_empty() {
                Err("the data set's name is missing")
            } else {
                Ok(Self::Data(name))
            };
        }
        let end = text.find(['[', '.']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.trim() != name || name.is_empty() {
            return Err("a stage's name comes first");
        }
        let (cell, rest) = match rest.strip_prefix('[') {
            None => (None, rest),
            Some(inside) => {
                let close = closing(inside).ok_or("`]` is missing")?;
                (Some(&inside[..close]), &inside[close + 1..])
            }
        };
        match rest.strip_prefix('.') {
            None if rest.is_empty() => Ok(Self::Stage { name, cell, port: None }),
            None => Err("expected `.port` after the cell"),
            Some("") => Err("the port's name is missing"),
            Some(port) => Ok(Self::Stage { name, cell, port: Some(port) }),
        }
    }
}

/// Where the bracket closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (index, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' if depth == 0 => return Some(index),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage<'t>(name: &'t str, cell: Option<&'t str>, port: Option<&'t str>) -> Reference<'t> {
        Reference::Stage { name, cell, port }
    }

    #[test]
    fn references_are_taken_apart() {
        let parse = |text| Reference::parse(text).unwrap();
        assert_eq!(parse("fp32"), stage("fp32", None, None));
        assert_eq!(parse("fp32.model"), stage("fp32", None, Some("model")));
        assert_eq!(parse("onnx[qat,1]"), stage("onnx", Some("qat,1"), None));
        assert_eq!(
            parse("onnx[ptq[max],0.5].model"),
            stage("onnx", Some("ptq[max],0.5"), Some("model"))
        );
        assert_eq!(parse("data.train"), Reference::Data("train"));
        assert_eq!(parse("data"), stage("data", None, None));
    }

    #[test]
    fn bad_forms_say_what_is_missing() {
        assert_eq!(Reference::parse("onnx[ptq[max].model"), Err("`]` is missing"));
        assert_eq!(Reference::parse("onnx[1]model"), Err("expected `.port` after the cell"));
        assert_eq!(Reference::parse(".model"), Err("a stage's name comes first"));
        assert_eq!(Reference::parse("fp32."), Err("the port's name is missing"));
        assert_eq!(Reference::parse("data."), Err("the data set's name is missing"));
    }
}
