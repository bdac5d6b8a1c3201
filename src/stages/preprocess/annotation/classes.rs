//! Which classes of an annotation file are defects.

use std::collections::BTreeSet;

use super::ClassNames;
use crate::artifacts::File;
use crate::stages::StageError;
use crate::stages::preprocess::reading::Reading;

/// The classes that are defects, and those that were seen.
pub(in super::super) struct Classes<'r> {
    reading: &'r Reading,
    /// The names of numbered classes, and the file that has them; `None` if numbers have no names.
    names: Option<(ClassNames, &'r File)>,
    seen: BTreeSet<String>,
    /// Number of marks of other classes.
    passed_over: usize,
}

impl<'r> Classes<'r> {
    pub(in super::super) fn new(reading: &'r Reading) -> Self {
        Self { reading, names: None, seen: BTreeSet::new(), passed_over: 0 }
    }

    /// Takes the names of numbered classes from a file.
    pub(in super::super) fn with_names(self, names: Option<(ClassNames, &'r File)>) -> Self {
        Self { names, ..self }
    }

    /// Notes a class that the file lists.
    pub(super) fn see(&mut self, class: &str) {
        self.seen.insert(class.to_owned());
    }

    /// Returns whether a mark of this class is a defect.
    ///
    /// # Errors
    /// A text that describes the problem: the class has the name of normal images, and no field lists the defects.
    pub(super) fn is_defect(&mut self, class: &str) -> Result<bool, String> {
        self.is_any_defect(&[class])
    }

    /// Returns whether a mark of this class, which has several names, is a defect. Fails as [`Classes::is_defect`].
    pub(super) fn is_any_defect(&mut self, names: &[&str]) -> Result<bool, String> {
        for name in names {
            self.see(name);
        }
        let wanted = &self.reading.defect_classes;
        if let Some(normal) = names.iter().find(|name| wanted.is_empty() && self.reading.is_normal(name)) {
            return Err(format!("it is of the class `{normal}`, which means normal"));
        }
        let is_defect = wanted.is_empty() || wanted.iter().any(|wanted| names.contains(&wanted.as_str()));
        self.passed_over += usize::from(!is_defect);
        Ok(is_defect)
    }

    /// Returns the name of a numbered class: the number, if the numbers have no names.
    ///
    /// # Errors
    /// A text that describes the problem: other numbers have names, but this one has none.
    pub(super) fn name_of(&self, number: u64) -> Result<String, String> {
        let Some((names, file)) = &self.names else { return Ok(number.to_string()) };
        let missing = || format!("`names` of `{}` has no class {number}", file.path.display());
        names.get(&number).cloned().ok_or_else(missing)
    }

    /// Returns a remark on the marks that were passed over.
    ///
    /// # Errors
    /// [`StageError::Data`] if `defect_classes` names a class that no file has.
    pub(in super::super) fn finish(self) -> Result<Option<String>, StageError> {
        let wanted = &self.reading.defect_classes;
        if let Some(unknown) = wanted.iter().find(|wanted| !self.seen.contains(*wanted)) {
            let seen: Vec<String> = self.seen.iter().map(|class| format!("`{class}`")).collect();
            return Err(StageError::data(
                format!("no annotation has the class `{unknown}`; the classes are {}", seen.join(", ")),
                "correct `defect_classes`",
            ));
        }
        let line = format!(
            "{} annotations are of classes that `defect_classes` does not list, and are no defects",
            self.passed_over
        );
        Ok((self.passed_over > 0).then_some(line))
    }
}
