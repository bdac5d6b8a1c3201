//! What differs between two trees, for explaining why a task would run.

use serde::Serialize;

use crate::cache::tree::Tree;

/// One difference between two trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Only the new tree has the file.
    Added {
        /// Path of the file in the tree.
        path: String,
    },
    /// Both trees have the file, with another content or executable permission.
    Changed {
        /// Path of the file in the trees.
        path: String,
    },
    /// Only the old tree has the file.
    Removed {
        /// Path of the file in the tree.
        path: String,
    },
}

impl Change {
    /// Returns the path of the file.
    pub fn path(&self) -> &str {
        match self {
            Self::Added { path } | Self::Changed { path } | Self::Removed { path } => path,
        }
    }
}

/// Returns the differences from `old` to `new`, ordered by path.
pub fn difference(old: &Tree, new: &Tree) -> Vec<Change> {
    let (mut old, mut new) = (old.entries().iter().peekable(), new.entries().iter().peekable());
    let mut changes = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(before), Some(after)) => before.path.cmp(&after.path),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some(before), Some(after)) if before != after => {
                changes.push(Change::Changed { path: after.path.clone() });
            }
            (Some(before), None) => changes.push(Change::Removed { path: before.path.clone() }),
            (None, Some(after)) => changes.push(Change::Added { path: after.path.clone() }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Digest, TreeEntry};

    fn tree(files: &[(&str, &str, bool)]) -> Tree {
        let entry = |&(path, content, executable): &(&str, &str, bool)| {
            let digest = Digest::of_bytes(content.as_bytes());
            TreeEntry { path: path.into(), digest, size: content.len() as u64, executable }
        };
        Tree::new(files.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn differences_name_each_path_once_in_order() {
        let old = tree(&[("a", "1", false), ("b", "2", false), ("d", "3", false), ("e", "4", false)]);
        let new = tree(&[("a", "1", false), ("b", "9", false), ("c", "2", false), ("e", "4", true)]);
        let expected = [
            Change::Changed { path: "b".into() },
            Change::Added { path: "c".into() },
            Change::Removed { path: "d".into() },
            Change::Changed { path: "e".into() },
        ];
        assert_eq!(difference(&old, &new), expected);
        assert!(difference(&old, &old).is_empty());
        assert_eq!(difference(&Tree::default(), &new).len(), 4);
    }
}
