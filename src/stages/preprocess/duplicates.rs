//! Finds the same picture twice. Pictures are compared after they were preprocessed: equal bytes and equal pixels give
//! equal files, whose digests the items have already.

use std::collections::BTreeMap;

use super::layout::{Source, TEST, TRAIN};
use super::reading::Duplicates;
use crate::digest::Digest;
use crate::stages::{Progress, StageError};

/// Number of pairs that a message names.
const NAMED_PAIRS: usize = 5;

/// Reports pictures that are in the training and in the test split, and counts those that occur more than once in the
/// training split. `images` are sources with the digest of their preprocessed pixels.
///
/// # Errors
/// [`StageError::Data`] if a picture is in both splits and `how` refuses that.
pub(super) fn report<'a>(
    images: impl Iterator<Item = (&'a Source<'a>, Digest)>,
    how: Duplicates,
    progress: &dyn Progress,
) -> Result<(), StageError> {
    let mut groups: BTreeMap<Digest, Vec<&Source<'_>>> = BTreeMap::new();
    for (source, digest) in images {
        groups.entry(digest).or_default().push(source);
    }
    let (mut pairs, mut extra, mut example) = (Vec::new(), 0, None);
    for group in groups.values() {
        let of_train: Vec<&Source<'_>> =
            group.iter().copied().filter(|source| source.split == TRAIN).collect();
        let Some(&train) = of_train.first() else { continue };
        let tests = group.iter().copied().filter(|source| source.split == TEST);
        pairs.extend(tests.map(|test| (train, test)));
        extra += of_train.len() - 1;
        if of_train.len() > 1 && example.is_none() {
            example = Some(train);
        }
    }
    if let Some(first) = example {
        progress.warn(&format!(
            "{extra} pictures of the training split are copies of others in it, such as of `{}`: the same picture, by \
             bytes or pixels, counts more than once",
            first.image.path.display()
        ));
    }
    if pairs.is_empty() {
        return Ok(());
    }
    pairs.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    let named: Vec<String> = pairs
        .iter()
        .take(NAMED_PAIRS)
        .map(|(train, test)| format!("`{}` and `{}`", train.image.path.display(), test.image.path.display()))
        .collect();
    let more = if pairs.len() > NAMED_PAIRS { ", …" } else { "" };
    let message = format!(
        "{} pictures of the test split are in the training split too, by bytes or pixels: {}{more}",
        pairs.len(),
        named.join(", ")
    );
    match how {
        Duplicates::Warn => {
            progress.warn(&format!("{message}; `duplicates = \"refuse\"` makes this an error"));
        }
        Duplicates::Refuse => {
            return Err(StageError::data(
                message,
                "remove them from one of the splits, or remove `duplicates`",
            ));
        }
    }
    Ok(())
}
