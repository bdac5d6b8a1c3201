//! The part of an artifact that a task reads, cut from its tree, so that a key depends only on what is used.
//! Splits and labels are folders in the paths of masks, so that no file needs to be opened.

use std::collections::BTreeSet;

use crate::artifacts::feature_set::{DESCRIPTION, parse_block};
use crate::artifacts::image_set::{PIXELS, SET, Selection, parse_label, parse_pixels};
use crate::cache::Tree;
use crate::stages::Reads;

/// Cuts `tree` to the part that `reads` selects; `labels` is the image set that belongs to a feature set.
pub(super) fn cut(tree: &Tree, reads: &Reads, labels: Option<&Tree>) -> Tree {
    match reads {
        Reads::Everything => tree.clone(),
        Reads::Pixels => tree.subtree(PIXELS),
        Reads::Masks(selection) => {
            tree.filter(|entry| parse_label(&entry.path).is_some_and(|label| selection.holds(&label)))
        }
        Reads::Images(selection) => {
            let ids = selected(tree, selection);
            tree.filter(|entry| {
                entry.path == SET
                    || parse_pixels(&entry.path).is_some_and(|id| ids.contains(id))
                    || parse_label(&entry.path).is_some_and(|label| selection.holds(&label))
            })
        }
        Reads::Blocks { selection, .. } => {
            let ids = labels.map(|labels| selected(labels, selection)).unwrap_or_default();
            tree.filter(|entry| {
                entry.path == DESCRIPTION || parse_block(&entry.path).is_some_and(|id| ids.contains(id))
            })
        }
    }
}

/// Returns whether a cut feature set has any blocks.
pub(super) fn has_blocks(tree: &Tree) -> bool {
    tree.entries().iter().any(|entry| parse_block(&entry.path).is_some())
}

fn selected<'a>(labels: &'a Tree, selection: &Selection) -> BTreeSet<&'a str> {
    labels
        .entries()
        .iter()
        .filter_map(|entry| parse_label(&entry.path))
        .filter(|label| selection.holds(label))
        .map(|label| label.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::image_set::Label;
    use crate::cache::{Digest, TreeEntry};

    fn tree(paths: &[&str]) -> Tree {
        let entry = |path: &&str| TreeEntry {
            path: (*path).to_owned(),
            digest: Digest::of_bytes(path.as_bytes()),
            size: 1,
            executable: false,
        };
        Tree::new(paths.iter().map(entry).collect()).unwrap()
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.entries().iter().map(|entry| entry.path.as_str()).collect()
    }

    #[test]
    fn a_selection_reads_its_own_images_alone() {
        let set = tree(&[
            "pixels/set.json",
            "pixels/images/train/1.png",
            "pixels/images/train/2.png",
            "pixels/images/test/3.png",
            "labels/train/normal/train/1.png",
            "labels/train/defect/any/train/2.png",
            "labels/test/normal/test/3.png",
        ]);
        let features = tree(&[
            "features.json",
            "blocks/train/1.safetensors",
            "blocks/train/2.safetensors",
            "blocks/test/3.safetensors",
        ]);
        let defects = Selection { split: Some("train".to_owned()), label: Some(Label::Defect) };
        let blocks =
            cut(&features, &Reads::Blocks { selection: defects.clone(), with_masks: true }, Some(&set));
        assert_eq!(paths(&blocks), ["blocks/train/2.safetensors", "features.json"]);
        assert_eq!(
            paths(&cut(&set, &Reads::Masks(defects.clone()), None)),
            ["labels/train/defect/any/train/2.png"]
        );
        assert_eq!(cut(&set, &Reads::Images(defects), None).entries().len(), 3);
        assert_eq!(cut(&set, &Reads::Pixels, None).entries().len(), 4);
    }
}
