//! Layers of settings: each key with its value and where that came from. General and pure; what the keys mean is not known here.

use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Each key, its levels joined by dots, with its value and the origin of that.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings(BTreeMap<String, (Value, String)>);

impl Settings {
    /// Adds a table to this layer.
    pub(super) fn add(&mut self, table: &Table, origin: &str) {
        self.flatten(table, "", origin);
    }

    fn flatten(&mut self, table: &Table, above: &str, origin: &str) {
        for (key, value) in table {
            let path = if above.is_empty() {
                key.clone()
            } else {
                format!("{above}.{key}")
            };
            match value {
                Value::Table(inner) => self.flatten(inner, &path, origin),
                value => self.insert(path, (value.clone(), origin.to_owned())),
            }
        }
    }

    /// A value replaces a table of that name, and a table a value.
    fn insert(&mut self, path: String, value: (Value, String)) {
        self.remove_below(&path);
        for (end, _) in path.match_indices('.') {
            self.0.remove(path.get(..end).unwrap_or_default());
        }
        self.0.insert(path, value);
    }

    fn remove_below(&mut self, path: &str) {
        let prefix = format!("{path}.");
        self.0.retain(|key, _| !key.starts_with(&prefix));
    }

    /// Puts a layer on top. A table of another `type` has other keys: those of the layers below do not belong to it.
    pub(super) fn merge(&mut self, layer: Settings) {
        for (path, (value, _)) in &layer.0 {
            if let Some(table) = path.strip_suffix(".type")
                && self
                    .0
                    .get(path)
                    .is_some_and(|(earlier, _)| earlier != value)
            {
                self.remove_below(table);
            }
        }
        for (path, value) in layer.0 {
            self.insert(path, value);
        }
    }

    /// All of it as one table.
    pub(super) fn nested(&self) -> Table {
        let mut root = Table::new();
        for (path, (value, _)) in &self.0 {
            let (above, last) = path.rsplit_once('.').unwrap_or(("", path));
            let mut levels = above.split('.').filter(|level| !level.is_empty());
            let table = levels.try_fold(&mut root, |table, level| {
                table
                    .entry(level)
                    .or_insert_with(|| Value::Table(Table::new()))
                    .as_table_mut()
            });
            // Always: a path below another one was removed with it.
            if let Some(table) = table {
                table.insert(last.to_owned(), value.clone());
            }
        }
        root
    }

    /// Adds to serde's message the origin of the key that it names first, or of the keys of that table.
    pub(super) fn name_origin(&self, message: &str) -> String {
        let Some(named) = message.split('`').nth(1) else {
            return message.to_owned();
        };
        let below = format!("{named}.");
        let concerns = |key: &str| {
            key == named || key.rsplit('.').next() == Some(named) || key.starts_with(&below)
        };
        let concerned = self.0.iter().filter(|(key, _)| concerns(key));
        let origins: BTreeSet<&str> = concerned.map(|(_, (_, origin))| origin.as_str()).collect();
        if origins.is_empty() {
            return message.to_owned();
        }
        format!(
            "{message} ({named} is set in {})",
            Vec::from_iter(origins).join(", ")
        )
    }

    /// One line a key: the value and its origin.
    pub(super) fn describe(&self) -> String {
        let line = |(key, (value, origin)): (&String, &(Value, String))| {
            format!("{key} = {value}    # {origin}")
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// `PREFIX_A__B=x` as a table; `None` if a level of the name is empty. A value that reads as TOML is one; anything else is a string.
pub(super) fn variable(name: &str, prefix: &str, text: &str) -> Option<Table> {
    let keys: Vec<String> = name
        .trim_start_matches(prefix)
        .split("__")
        .map(str::to_ascii_lowercase)
        .collect();
    if keys.iter().any(String::is_empty) {
        return None;
    }
    let value = format!("x = {text}").parse::<Table>().ok();
    let value = value
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("x"));
    let mut value = value.unwrap_or_else(|| Value::String(text.to_owned()));
    for key in keys.iter().skip(1).rev() {
        value = Value::Table(Table::from_iter([(key.clone(), value)]));
    }
    Some(Table::from_iter(
        keys.into_iter().take(1).map(|key| (key, value.clone())),
    ))
}
