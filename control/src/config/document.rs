//! A TOML file as a tree of plain values, and the line of each.
//!
//! The tree is read by the same code that reads desired state, so both speak the same way; the lines
//! are kept beside it, by path, because a person looks for lines.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::problem::{Fault, Problem};

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document {
    /// Names the file in problems.
    file: String,
    /// Line of each key and each element of a list, from 1, by its path.
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// Opens and parses the file. Problems of syntax end it: nothing after them means much.
    pub fn open(path: &Path) -> Result<(Document, Value), Vec<Problem>> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => "write it, or name another one with --config",
                std::io::ErrorKind::InvalidData => "write it in UTF-8",
                _ => "make it readable for the user that runs viaduct",
            };
            vec![Problem::whole(&file, format!("cannot be read: {error}"), remedy)]
        })?;
        Document::parse(file, &text)
    }

    fn parse(file: String, text: &str) -> Result<(Document, Value), Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problem = |error: &toml::de::Error| {
                let what = format!("is not TOML: {}", error.message().replace('\n', ", "));
                let mut problem = Problem::whole(&file, what, "correct this line");
                problem.line = error.span().map(|span| line_at(text, span.start));
                problem
            };
            return Err(errors.iter().map(problem).collect());
        }
        let mut walk = Walk { text, lines: BTreeMap::new() };
        let value = walk.table(root.get_ref(), "");
        Ok((Document { file, lines: walk.lines }, value))
    }

    /// Ties faults to the file and its lines, in the order of lines; what has no line comes last.
    pub fn judge(&self, faults: Vec<Fault>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = faults
            .into_iter()
            .map(|fault| {
                let line = self.line(&fault.field);
                Problem { line, ..fault.at(&self.file) }
            })
            .collect();
        problems.sort_by_key(|problem| (problem.line.is_none(), problem.line));
        problems
    }

    /// The line of a field, or of the nearest table around it if it is absent.
    pub fn line(&self, field: &str) -> Option<usize> {
        let mut path = field;
        loop {
            if let Some(&line) = self.lines.get(path) {
                return Some(line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

struct Walk<'a> {
    text: &'a str,
    lines: BTreeMap<String, usize>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Value {
        let mut object = Map::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.lines.insert(path.clone(), line_at(self.text, key.span().start));
            object.insert(name, self.value(value.get_ref(), &path));
        }
        Value::Object(object)
    }

    fn value(&mut self, value: &DeValue<'_>, path: &str) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| Value::String(integer.as_str().to_owned()), Value::from),
            // No key takes either; as text they are refused with what was written.
            DeValue::Float(float) => Value::String(float.as_str().to_owned()),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Table(table) => self.table(table, path),
            DeValue::Array(array) => {
                let each = array.iter().enumerate().map(|(index, value)| {
                    let path = format!("{path}[{index}]");
                    self.lines.insert(path.clone(), line_at(self.text, value.span().start));
                    self.value(value.get_ref(), &path)
                });
                Value::Array(each.collect())
            }
        }
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_the_line_of_its_key_or_of_what_is_around_it() {
        let text = "host = \"h\"\n\n[workers]\ncores = [\n  0,\n  1,\n]\n[physnets.\"a.b\"]\nmtu = 0x5dc\n";
        let (document, value) =
            Document::parse("f".to_owned(), text).unwrap_or_else(|errors| panic!("{errors:?}"));
        for (field, line) in [
            ("host", Some(1)),
            ("workers", Some(3)),
            ("workers.cores", Some(4)),
            ("workers.cores[1]", Some(6)),
            ("workers.idle", Some(3)),
            ("physnets.a.b.mtu", Some(9)),
            ("physnets.a.b.device", Some(8)),
            ("fdb.entries", None),
            ("", None),
        ] {
            assert_eq!(document.line(field), line, "{field}");
        }
        assert_eq!(value["physnets"]["a.b"]["mtu"], 1500);
        assert_eq!(value["workers"]["cores"], serde_json::json!([0, 1]));
    }
}
