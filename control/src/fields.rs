//! Reads the fields of one JSON object (or TOML table, turned into one), finding every fault.
//!
//! Serde's derived readers stop at the first error, lose the path inside tagged objects and speak of
//! Rust types. An operator wants all that is wrong, by field, with the remedy; so objects are read
//! field by field here. The list of known fields is the list of fields asked for: it cannot be out of
//! date, and a field that nobody asked for is refused with that list. The schemas under `docs/schema`
//! are held to the same list by a test.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::problem::{Fault, quoted};
use crate::text::Text;

/// Faults of one object after which the rest of a list is not read. A list may have ten thousand items.
const FAULTS_MAX: usize = 100;

/// The fields of one object while they are being read.
pub(crate) struct Fields<'a> {
    object: Map<String, Value>,
    /// Put before a field's name in faults: empty, or `workers.`.
    prefix: String,
    /// Names the object in the fault of an unknown field: `a network of type `flat``.
    pub subject: String,
    known: Vec<&'static str>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Fields<'a> {
    /// The fields of an object that a store holds as JSON text.
    pub fn from_json(bytes: &[u8], subject: &str, faults: &'a mut Vec<Fault>) -> Option<Self> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            faults.push(Fault::new("", "is empty", format!("write {subject} as a JSON object")));
            return None;
        }
        match serde_json::from_slice(bytes) {
            Ok(value) => Fields::new(value, "", subject, faults),
            Err(error) => {
                faults.push(Fault::new(
                    "",
                    format!("is not JSON: {error}"),
                    "correct the text there",
                ));
                None
            }
        }
    }

    /// The fields of `value`, which stands at `path` ("" at the top).
    pub fn new(
        value: Value,
        path: &str,
        subject: &str,
        faults: &'a mut Vec<Fault>,
    ) -> Option<Self> {
        match value {
            Value::Object(object) => Some(Fields {
                object,
                prefix: if path.is_empty() { String::new() } else { format!("{path}.") },
                subject: subject.to_owned(),
                known: Vec::new(),
                faults,
            }),
            other => {
                let what = format!("{} is not an object", shown(&other));
                faults.push(Fault::new(path, what, format!("write the fields of {subject}")));
                None
            }
        }
    }

    /// A field's value as it stands; `None` if it is absent or null.
    pub fn value(&mut self, name: &'static str) -> Option<Value> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.object.remove(name).filter(|value| !value.is_null())
    }

    /// Whether a field is there, and not null. To be called before the field is read.
    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// Reports a field that must be there and is not. To be called before the field is read.
    pub fn require(&mut self, name: &'static str, remedy: &str) {
        if !self.has(name) {
            self.fault(name, "is missing", remedy);
        }
    }

    /// Reports that something is wrong with a field.
    pub fn fault(&mut self, name: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault::new(format!("{}{name}", self.prefix), what, remedy));
    }

    /// A field that is written as text of type `T`.
    pub fn text<T: Text>(&mut self, name: &'static str) -> Option<T> {
        let value = self.value(name)?;
        self.text_from(name, &value)
    }

    /// A list of which each item is read alone; faults name the place in the list.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        mut item: impl FnMut(&mut Self, &str, &Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        match self.value(name)? {
            Value::Array(values) => {
                self.items(name, values, |fields, place, value| item(fields, place, &value))
            }
            other => {
                let what = format!("{} is not a list", shown(&other));
                self.fault(name, what, "write a list in square brackets");
                None
            }
        }
    }

    /// A field that is an object itself, called `subject`.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        subject: &str,
        read: impl FnOnce(Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let path = format!("{}{name}", self.prefix);
        Fields::new(value, &path, subject, self.faults).and_then(read)
    }

    /// A list of objects, each called `subject`; faults name the place in the list.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        subject: &str,
        mut read: impl FnMut(Fields<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match self.value(name)? {
            Value::Array(values) => self.items(name, values, |fields, place, value| {
                let path = format!("{}{place}", fields.prefix);
                Fields::new(value, &path, subject, fields.faults).and_then(&mut read)
            }),
            other => {
                let what = format!("{} is not a list", shown(&other));
                self.fault(name, what, "write a list in square brackets");
                None
            }
        }
    }

    /// The items of a list, if all are good. Every one is read before any absence counts, as all
    /// faults are wanted, up to so many that nobody would read them.
    fn items<T>(
        &mut self,
        name: &'static str,
        values: Vec<Value>,
        mut item: impl FnMut(&mut Self, &str, Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut good = Some(Vec::with_capacity(values.len()));
        for (index, value) in values.into_iter().enumerate() {
            match (item(self, &format!("{name}[{index}]"), value), &mut good) {
                (Some(item), Some(items)) => items.push(item),
                _ => good = None,
            }
            if self.faults.len() >= FAULTS_MAX {
                let what = format!("was not read beyond {name}[{index}]: too much is wrong");
                self.fault(name, what, "correct what is told first");
                return None;
            }
        }
        good
    }

    /// One text out of a field or list.
    pub fn text_from<T: Text>(&mut self, name: &str, value: &Value) -> Option<T> {
        let Value::String(text) = value else {
            self.fault(name, format!("{} is not text", shown(value)), T::REMEDY);
            return None;
        };
        text.parse()
            .map_err(|misfit| {
                self.faults.push(Fault::misfit(format!("{}{name}", self.prefix), misfit))
            })
            .ok()
    }

    /// A whole number within `range`.
    pub fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let value = self.value(name)?;
        self.number_from(name, &value, range)
    }

    /// One number out of a field or list.
    pub fn number_from<T: TryFrom<u64>>(
        &mut self,
        name: &str,
        value: &Value,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let what = match value.as_u64() {
            Some(number) if range.contains(&number) => match T::try_from(number) {
                Ok(number) => return Some(number),
                Err(_) => format!("{number} is too large"),
            },
            Some(number) if number > *range.end() => format!("{number} is too large"),
            Some(number) => format!("{number} is too small"),
            None if value.as_i64().is_some() => format!("{value} is too small"),
            None => format!("{} is not a whole number", shown(value)),
        };
        self.fault(name, what, remedy);
        None
    }

    /// A field that is true or false.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(flag) => Some(flag),
            other => {
                let what = format!("{} is neither true nor false", shown(&other));
                self.fault(name, what, "write true or false, without quotes");
                None
            }
        }
    }

    /// A field that is one word out of a few.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let value = self.value(name)?;
        let chosen = choices.iter().find(|(word, _)| value.as_str() == Some(word));
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            let what = format!("{} is not known", shown(&value));
            self.fault(name, what, format!("write {}", words.join(" or ")));
        }
        chosen.map(|(_, meaning)| *meaning)
    }

    /// The fields of a table inside this one; of an empty one if it is absent.
    pub fn table(&mut self, name: &'static str) -> Option<Fields<'_>> {
        let value = self.value(name).unwrap_or_else(|| Value::Object(Map::new()));
        let path = format!("{}{name}", self.prefix);
        Fields::new(value, &path, &format!("[{path}]"), self.faults)
    }

    /// The tables inside the table `name`, each under a name that the operator chose.
    pub fn tables<K: Text + Ord, T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(Fields<'_>) -> Option<T>,
    ) -> std::collections::BTreeMap<K, T> {
        let Some(inside) = self.table(name) else { return Default::default() };
        let Fields { object, prefix, faults, .. } = inside;
        let mut tables = std::collections::BTreeMap::new();
        for (key, value) in object {
            let path = format!("{prefix}{key}");
            let parsed = key.parse::<K>();
            let fields = Fields::new(value, &path, &format!("[{path}]"), faults);
            let table = fields.and_then(&mut read);
            match (parsed, table) {
                (Ok(key), Some(table)) => drop(tables.insert(key, table)),
                (Err(misfit), _) => faults.push(Fault::misfit(path, misfit)),
                (Ok(_), None) => {}
            }
        }
        tables
    }

    /// Marks fields as known without reading them, where another fault makes their meaning unknown.
    pub fn pass_over(&mut self, names: &[&'static str]) {
        for name in names {
            self.value(name);
        }
    }

    /// Ends the reading: what nobody asked for is refused.
    pub fn finish(self) {
        let Fields { object, prefix, subject, known, faults } = self;
        for name in object.keys() {
            faults.push(Fault::new(
                format!("{prefix}{name}"),
                format!("is not a field of {subject}"),
                format!("remove it, or use one of: {}", known.join(", ")),
            ));
        }
    }
}

/// A JSON value as it stands in a message.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
