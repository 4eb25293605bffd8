//! Which fields of an object are ours, written as `spec{replicas template{metadata{labels}}}`: names, nested by braces, applied to each
//! item of a list. A name without braces takes its whole value.

use serde_json::{Map, Value};

/// A tree of field names. An empty tree under a name means "all of it".
#[derive(Debug, Default, PartialEq)]
pub struct Selection(Vec<(String, Selection)>);

impl Selection {
    /// Parses the notation above; braces that do not match are taken as ending with the text.
    pub fn parse(text: &str) -> Self {
        let spaced = text.replace('{', " { ").replace('}', " } ");
        Self::fields(&mut spaced.split_whitespace().peekable())
    }

    fn fields<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut fields = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "}" => break,
                name => {
                    let nested = if words.next_if_eq(&"{").is_some() {
                        Self::fields(words)
                    } else {
                        Self::default()
                    };
                    fields.push((name.to_owned(), nested));
                }
            }
        }
        Self(fields)
    }

    /// The selected fields of `value`, and nothing else.
    pub fn project(&self, value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| self.project(item)).collect(),
            Value::Object(map) => {
                let pick = |(name, nested): &(String, Self)| {
                    let value = map.get(name)?;
                    let picked = if nested.0.is_empty() {
                        value.clone()
                    } else {
                        nested.project(value)
                    };
                    Some((name.clone(), picked))
                };
                Value::Object(self.0.iter().filter_map(pick).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    /// Replaces the selected fields of `live` by those of `wanted`: lists as a whole, and what `wanted` lacks is removed.
    pub fn overlay(&self, live: &mut Value, wanted: &Value) {
        let Value::Object(map) = live else {
            *live = wanted.clone();
            return;
        };
        for (name, nested) in &self.0 {
            match (wanted.get(name), map.get_mut(name)) {
                (Some(new @ Value::Object(_)), Some(old @ Value::Object(_))) if !nested.0.is_empty() => {
                    nested.overlay(old, new)
                }
                (Some(new), _) => {
                    map.insert(name.clone(), new.clone());
                }
                (None, Some(old @ Value::Object(_))) if !nested.0.is_empty() => {
                    nested.overlay(old, &Value::Object(Map::new()))
                }
                (None, _) => {
                    map.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn projects_through_lists() {
        let selection = Selection::parse("a b{c d{e}}");
        let value = json!({"a": [1, 2], "b": [{"c": 1, "x": 2, "d": {"e": 3, "f": 4}}, {"x": 5}], "z": 0});
        assert_eq!(
            selection.project(&value),
            json!({"a": [1, 2], "b": [{"c": 1, "d": {"e": 3}}, {}]})
        );
    }

    #[test]
    fn overlays_only_what_is_selected() {
        let selection = Selection::parse("spec{keep{x} drop list}");
        let mut live = json!({"spec": {"keep": {"x": 1, "y": 2}, "drop": 3, "list": [1, 2], "other": 4}, "status": 5});
        selection.overlay(&mut live, &json!({"spec": {"keep": {"x": 9}, "list": [3]}}));
        assert_eq!(
            live,
            json!({"spec": {"keep": {"x": 9, "y": 2}, "list": [3], "other": 4}, "status": 5})
        );
    }
}
