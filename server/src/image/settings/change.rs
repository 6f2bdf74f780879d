//! What a topic sets for itself, from a request, and after changes.

use std::collections::{BTreeMap, BTreeSet};

use super::{CLEANUP_POLICY, Cleanup, KEYS, SettingError, invalid};
use crate::model::op::SettingChange;

/// Puts a request's list of settings in order; a key given twice is refused.
pub(crate) fn overrides(entries: &[(String, String)]) -> Result<BTreeMap<String, String>, SettingError> {
    let mut overrides = BTreeMap::new();
    for (key, value) in entries {
        if overrides.insert(key.clone(), value.trim().to_owned()).is_some() {
            return Err(SettingError::Repeated { key: key.clone() });
        }
    }
    Ok(overrides)
}

/// A topic's overrides with changes over them, or, if these are all, in their place.
pub(crate) fn altered(
    overrides: &BTreeMap<String, String>,
    changes: &[(String, SettingChange)],
    are_all: bool,
) -> Result<BTreeMap<String, String>, SettingError> {
    let mut altered = if are_all { BTreeMap::new() } else { overrides.clone() };
    let mut seen = BTreeSet::new();
    for (key, change) in changes {
        if !KEYS.contains(&key.as_str()) {
            return Err(SettingError::UnknownKey { key: key.clone() });
        }
        if !seen.insert(key) {
            return Err(SettingError::Repeated { key: key.clone() });
        }
        let after = match change {
            SettingChange::Value(value) => value.trim().to_owned(),
            SettingChange::Inherited => {
                altered.remove(key);
                continue;
            }
            SettingChange::With(elements) | SettingChange::Without(elements) if key != CLEANUP_POLICY => {
                return Err(invalid(key, elements, "a value, as it is no list"));
            }
            SettingChange::With(elements) => list_after(list(overrides), true, elements),
            SettingChange::Without(elements) => list_after(list(overrides), false, elements),
        };
        altered.insert(key.clone(), after);
    }
    Ok(altered)
}

/// The one setting that is a list.
fn list(overrides: &BTreeMap<String, String>) -> &str {
    overrides
        .get(CLEANUP_POLICY)
        .map_or(Cleanup::Delete.name(), String::as_str)
}

/// A list with these elements too, or without them.
fn list_after(now: &str, append: bool, elements: &str) -> String {
    let parts = |list: &'_ str| -> Vec<String> {
        let parts = list.split(',').map(str::trim).filter(|element| !element.is_empty());
        parts.map(str::to_owned).collect()
    };
    let named = parts(elements);
    let mut list = parts(now);
    list.retain(|element| append || !named.contains(element));
    if append {
        list.extend(named);
        let mut seen = BTreeSet::new();
        list.retain(|element| seen.insert(element.clone()));
    }
    list.join(",")
}
